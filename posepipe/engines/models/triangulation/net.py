"""The two networks of learnable triangulation, whole, in torch: for training, for the published checkpoints, and as the reference of what is exported.

Iskakov et al. 2019, "Learnable Triangulation of Human Pose". State dictionaries have the keys of the published checkpoints (without their prefix
`module.`). N people, V views; pictures [N,V,3,H,W] are square crops, BGR, (value / 255 - mean) / std with ImageNet's numbers in that order of channels.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from .geometry import (
    Aggregation,
    aggregate,
    coordinate_volume,
    normalised,
    of_maps,
    sample,
    sampling_grid,
    soft_argmax_2d,
    solve,
    to_world,
)
from .losses import soft_argmax_3d
from .resnet import CHANNELS, FEATURES, JOINTS, Maps, PoseResNet
from .v2v import V2V

SIDE_M = 2.5
"""Side of the cube around a person, as published."""
VOXELS = 64
PICTURE_PX = 384
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the channels 0..1 in the network's order, which is blue, green, red: the checkpoints were trained with it like this."""


class Solved(NamedTuple):
    """xyz [N,17,3]: world, the unit of the projections. points [N,V,17,2]: pixels of the crops. confidences [N,V,17]: as the solve weighs, shares of
    the views plus 1e-5. probability [N,V,17,h,w]: the heatmaps after their softmax.
    """

    xyz: Tensor
    points: Tensor
    confidences: Tensor
    probability: Tensor


class Algebraic(nn.Module):
    """Points by expectation over heatmaps, one confidence per view and joint, and a weighted solve (section 3.1)."""

    def __init__(self, depth: int = 152, *, confidences: bool = True) -> None:
        """confidences: with the head that learns them; without, all views count the same. EngineError for a depth that there is not."""
        super().__init__()
        self.backbone = PoseResNet(depth, alg_confidences=confidences)

    def forward(self, pictures: Tensor, projections: Tensor) -> Solved:
        """projections [N,V,3,4]: to pixels of the crops."""
        n, v = pictures.shape[:2]
        maps: Maps = self.backbone(pictures.flatten(0, 1))
        cells, probability = soft_argmax_2d(maps.heatmaps)
        h, w = maps.heatmaps.shape[2:]
        points = (cells * cells.new_tensor([pictures.shape[4] / w, pictures.shape[3] / h])).view(n, v, JOINTS, 2)
        given = cells.new_ones(n * v, JOINTS) if maps.confidences is None else maps.confidences
        weights = normalised(given.view(n, v, JOINTS))
        return Solved(solve(points, projections, weights), points, weights, probability.view(n, v, JOINTS, h, w))


class Lifted(NamedTuple):
    """xyz [N,17,3]: world, the unit of the projections. spread [N,17]: one standard deviation per axis, the same unit. probability [N,17,n,n,n]:
    of the voxels. volume [N,32,n,n,n]: what the 3D network was given. confidences [N,V,32] of `conf` and `conf_norm`, else None.
    """

    xyz: Tensor
    spread: Tensor
    probability: Tensor
    volume: Tensor
    confidences: Tensor | None


class Volumetric(nn.Module):
    """Features carried into a cube around the person, a 3D network over it, expectation over voxels (section 3.3)."""

    def __init__(self, depth: int = 152, *, how: Aggregation = "softmax") -> None:
        """how: the views become one volume. EngineError for a depth that there is not."""
        super().__init__()
        self.how: Aggregation = how
        self.backbone = PoseResNet(depth, vol_confidences=how.startswith("conf"))
        self.backbone.final_layer.requires_grad_(False)  # no loss reaches the heatmaps
        self.process_features = nn.Sequential(nn.Conv2d(FEATURES, CHANNELS, 1))
        self.volume_net = V2V(CHANNELS, JOINTS)

    def forward(
        self,
        pictures: Tensor,
        projections: Tensor,
        centre: Tensor,
        *,
        side: float = SIDE_M,
        n: int = VOXELS,
        yaw: Tensor | None = None,
        seen: Tensor | None = None,
    ) -> Lifted:
        """projections [N,V,3,4]: to pixels of the crops. centre [N,3]: of the cubes, the pelvis as far as it is known; side in the unit of the
        projections; n voxels along it, a multiple of 32; yaw [N] about z (`geometry.random_yaw` in training). seen [N,V]: False where a view is
        missing.
        """
        people, views = pictures.shape[:2]
        maps: Maps = self.backbone(pictures.flatten(0, 1))
        features: Tensor = self.process_features(maps.features)
        size = (features.shape[2], features.shape[3])
        to_maps = of_maps(projections, picture=(pictures.shape[3], pictures.shape[4]), maps=size)
        grid = sampling_grid(to_maps, coordinate_volume(centre, side, n, yaw).flatten(1, 3), size=size)
        trust = None if maps.confidences is None else maps.confidences.view(people, views, CHANNELS)
        values = sample(features.view(people, views, CHANNELS, *size), grid)
        volume = aggregate(values, self.how, confidences=trust, seen=seen).view(people, CHANNELS, n, n, n)
        found = soft_argmax_3d(self.volume_net(volume), joints_last=False)
        return Lifted(to_world(found.xyz, centre, side, yaw), found.spread * side, found.probability, volume, trust)
