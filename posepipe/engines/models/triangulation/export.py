"""The networks of learnable triangulation as ONNX files (opset 17), in the parts that a live studio runs, with the batch left open.

Norms are folded into what is before them. Solves and expectations are sums of products behind the last layers with weights, which a conversion to
float16 (`engines.convert`) leaves in float32, and so are the parts without weights.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..onnx_file import Axes, onnx_file
from .geometry import aggregate, sample, soft_argmax_2d, solve
from .losses import soft_argmax_3d
from .net import PICTURE_PX, VOXELS, Algebraic, Volumetric
from .resnet import CHANNELS, JOINTS

CELLS = PICTURE_PX // 4


def joints_network(net: Algebraic, *, size_px: int = PICTURE_PX) -> bytes:
    """The 2D half of the algebraic network. `picture` [B,3,S,S] -> `joints` [B,17,3] (x and y in pixels of the picture, confidence 0..1, which is 1
    where no head was trained) and `heatmaps` [B,17,S/4,S/4] (before the softmax)."""
    picture = torch.zeros(2, 3, size_px, size_px)
    return _export(_Joints(net), {"picture": (picture, ("B",))}, {"joints": ("B",), "heatmaps": ("B",)})


def solve_network() -> bytes:
    """The other half, without weights. `joints` [N,V,17,3] as of `joints_network`, `projections` [N,V,3,4] to pixels of the pictures -> `xyz` [N,17,3] in
    the world's unit. Views that are missing have the confidence 0; with one view, or none, what comes is finite and means nothing."""
    inputs = {"joints": (torch.rand(2, 3, JOINTS, 3), ("N", "V")), "projections": (torch.rand(2, 3, 3, 4), ("N", "V"))}
    return _export(_Solve(), inputs, {"xyz": ("N",)})


def algebraic_network(net: Algebraic, *, size_px: int = PICTURE_PX) -> bytes:
    """The whole of it. `pictures` [N,V,3,S,S], `projections` [N,V,3,4] -> `xyz` [N,17,3], `points` [N,V,17,2] in pixels, `confidences` [N,V,17], shares."""
    pictures, projections = torch.zeros(2, 3, 3, size_px, size_px), torch.rand(2, 3, 3, 4)
    inputs = {"pictures": (pictures, ("N", "V")), "projections": (projections, ("N", "V"))}
    return _export(_Whole(net), inputs, {"xyz": ("N",), "points": ("N", "V"), "confidences": ("N", "V")})


def features_network(net: Volumetric, *, size_px: int = PICTURE_PX) -> bytes:
    """The 2D part of the volumetric network. `picture` [B,3,S,S] -> `features` [B,32,S/4,S/4], and `confidences` [B,32] for `conf` and `conf_norm`."""
    outputs = {"features": ("B",)} | ({"confidences": ("B",)} if net.how.startswith("conf") else {})
    return _export(_Features(net), {"picture": (torch.zeros(2, 3, size_px, size_px), ("B",))}, outputs)


def unprojection(net: Volumetric, *, cells: int = CELLS, n: int = VOXELS) -> bytes:
    """From features to a volume, as the network was trained to aggregate, without weights; one sampling of rank 4, which GPUs have.

    `features` [N,V,32,h,w], `grid` [N,V,n^3,2] (as `geometry.sampling_grid` has it, voxels in the order x, y, z), `seen` [N,V] (1, or 0 where the view is
    missing), and `confidences` [N,V,32] for `conf` and `conf_norm` -> `volume` [N,n,n,n,32].
    """
    views = ("N", "V")
    inputs = {
        "features": (torch.rand(1, 2, CHANNELS, cells, cells), views),
        "grid": (torch.rand(1, 2, n**3, 2), views),
        "seen": (torch.ones(1, 2), views),
    }
    if net.how.startswith("conf"):
        inputs["confidences"] = (torch.rand(1, 2, CHANNELS), views)
    return _export(_Unprojection(net, n), inputs, {"volume": ("N",)})


def volume_network(net: Volumetric, *, n: int = VOXELS) -> bytes:
    """The 3D part. `volume` [N,n,n,n,32] -> `xyz` [N,17,3] (shares of the cube's side in its own axes, -0.5 to 0.5) and `spread` [N,17] (one standard
    deviation per axis, shares of the side). n: a multiple of 32."""
    volume = torch.zeros(1, n, n, n, CHANNELS)
    return _export(_Volume(net), {"volume": (volume, ("N",))}, {"xyz": ("N",), "spread": ("N",)})


class _Joints(nn.Module):
    def __init__(self, net: Algebraic) -> None:
        super().__init__()
        self.backbone = net.backbone

    def forward(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.backbone(picture)
        cells, _ = soft_argmax_2d(maps.heatmaps)
        trust = torch.ones_like(cells[..., 0]) if maps.confidences is None else maps.confidences
        # Published sizes are squares: one factor for both axes.
        points = cells * (int(picture.shape[3]) / int(maps.heatmaps.shape[3]))
        return torch.cat([points, trust[..., None]], dim=-1), maps.heatmaps


class _Solve(nn.Module):
    def forward(self, joints: Tensor, projections: Tensor) -> Tensor:
        trust = joints[..., 2]
        weights = trust / trust.sum(dim=1, keepdim=True).clamp_min(1e-6)
        return solve(joints[..., :2], projections, weights)


class _Whole(nn.Module):
    def __init__(self, net: Algebraic) -> None:
        super().__init__()
        self.net = net

    def forward(self, pictures: Tensor, projections: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        found = self.net(pictures, projections)
        return found.xyz, found.points, found.confidences


class _Features(nn.Module):
    def __init__(self, net: Volumetric) -> None:
        super().__init__()
        self.backbone, self.process_features = net.backbone, net.process_features

    def forward(self, picture: Tensor) -> tuple[Tensor, ...]:
        maps = self.backbone(picture)
        features = self.process_features(maps.features)
        return (features,) if maps.confidences is None else (features, maps.confidences)


class _Unprojection(nn.Module):
    def __init__(self, net: Volumetric, n: int) -> None:
        super().__init__()
        self.how, self.n = net.how, n

    def forward(self, features: Tensor, grid: Tensor, seen: Tensor, confidences: Tensor | None = None) -> Tensor:
        points = aggregate(sample(features, grid), self.how, confidences=confidences, seen=seen > 0.5)
        return points.transpose(1, 2).reshape(points.shape[0], self.n, self.n, self.n, CHANNELS)


class _Volume(nn.Module):
    def __init__(self, net: Volumetric) -> None:
        super().__init__()
        self.volume_net = net.volume_net

    def forward(self, volume: Tensor) -> tuple[Tensor, Tensor]:
        found = soft_argmax_3d(self.volume_net(volume.permute(0, 4, 1, 2, 3)), joints_last=False)
        return found.xyz, found.spread


def _export(net: nn.Module, inputs: Mapping[str, tuple[Tensor, Sequence[str]]], outputs: Axes) -> bytes:
    return onnx_file(_folded(net.eval()), inputs, outputs)


def _folded(net: nn.Module) -> nn.Module:
    """A copy whose norms behind transposed convolutions are part of them; those behind others are folded by the exporter."""
    found = copy.deepcopy(net)
    for part in found.modules():
        if isinstance(part, nn.Sequential):
            for i, (layer, norm) in enumerate(zip(list(part), list(part)[1:], strict=False)):
                if isinstance(layer, (nn.ConvTranspose2d, nn.ConvTranspose3d)) and isinstance(norm, (nn.BatchNorm2d, nn.BatchNorm3d)):
                    part[i], part[i + 1] = fuse_conv_bn_eval(layer, norm, transpose=True), nn.Identity()
    return found
