"""The slim volumetric network: heatmaps in a cube around a person become joint positions, fast enough for a processor.

After Iskakov et al. 2019 (section 3.3: unprojected features, a 3D encoder and decoder, a softmax over voxels and its expectation), with four
changes that live use asks for. Its input are the heatmaps of any 2D network instead of learned features, so that it trains without pictures
(VoxelPose, Tu et al. 2020, section 3.3). All of its work is done in cells of 2 x 2 x 2 voxels. What the heatmaps themselves say about a cell,
and where in it, goes into the answer beside the network's opinion, so that it only has to learn where they are wrong. And how far it may be
off is learned, not only read from how many cells share a joint.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

JOINTS = 17
SIDE = 32
_CELLS = SIDE // 2
_FLOOR = 1e-3
_MOST = 40.0
_DOUBT = -8.0
"""Logarithm of the variance [shares of the side, squared] that an untrained network adds: 4.6 cm in a cube of 2.5 m."""


class _Conv(nn.Sequential):
    def __init__(self, a: int, b: int, size: int = 3, stride: int = 1) -> None:
        pad = (size - stride + 1) // 2
        super().__init__(nn.Conv3d(a, b, size, stride, pad, bias=False), nn.BatchNorm3d(b), nn.ReLU(inplace=True))


class _Res(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = _Conv(width, width)
        scaled = nn.BatchNorm3d(width)
        nn.init.zeros_(scaled.weight)  # starts as the identity
        self.second = nn.Sequential(nn.Conv3d(width, width, 3, 1, 1, bias=False), scaled)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(self.first(x)))


class _Up(nn.Sequential):
    def __init__(self, a: int, b: int) -> None:
        super().__init__(nn.ConvTranspose3d(a, b, 2, 2, bias=False), nn.BatchNorm3d(b), nn.ReLU(inplace=True))


def _evidence() -> Tensor:
    """Kernel [68,17,2,2,2]: of every joint the mean of a cell's eight voxels, then along x, y and z what its halves differ in, in shares of the side."""
    half = torch.tensor([-0.5, 0.5]) / (SIDE - 1)
    along = [half.view([2 if k == axis else 1 for k in range(3)]).expand(2, 2, 2) for axis in range(3)]
    kinds = torch.stack([torch.ones(2, 2, 2), *along]) / 8
    return (kinds[:, None, None] * torch.eye(JOINTS)[None, :, :, None, None, None]).flatten(0, 1)


class Opinion(NamedTuple):
    """Of every cell c of 16 x 16 x 16. log_factor [N,17,16,16,16]: by which the logarithm of a joint's probability is changed. log_doubt
    [N,17,16,16,16]: logarithm of a variance that comes on top, shares of the side squared. mean [N,17,16,16,16]: of the heatmaps in the cell. lean
    [N,3,17,16,16,16]: their first moment about its middle, shares of the side.
    """

    log_factor: Tensor
    log_doubt: Tensor
    mean: Tensor
    lean: Tensor


class Slim(nn.Module):
    """volume [N,32,32,32,17] (x, y, z of the cube, coco17; 0..1) -> `Opinion`, of which `expectation` makes positions and deviations.

    widths: channels at 16^3, 8^3 and 4^3. `place` lets the deep layers know where in the cube they are: a body stands upright in its middle.
    """

    def __init__(self, widths: tuple[int, int, int] = (32, 64, 96)) -> None:
        super().__init__()
        a, b, c = widths
        self.widths = widths
        self.stem = nn.Conv3d(JOINTS, a, 2, 2, bias=False)
        self.stem_scale = nn.BatchNorm3d(a)
        self.evidence = nn.Buffer(_evidence(), persistent=False)
        self.down8 = _Conv(a, b, 2, 2)
        self.place8 = nn.Parameter(torch.zeros(1, b, _CELLS // 2, _CELLS // 2, _CELLS // 2))
        self.res8 = nn.Sequential(_Res(b), _Res(b))
        self.down4 = _Conv(b, c, 2, 2)
        self.place4 = nn.Parameter(torch.zeros(1, c, _CELLS // 4, _CELLS // 4, _CELLS // 4))
        self.res4 = nn.Sequential(_Res(c), _Res(c))
        self.up8 = _Up(c, b)
        self.back8 = _Res(b)
        self.up16 = _Up(b, a)
        self.back16 = _Res(a)
        self.head = nn.Conv3d(a, 2 * JOINTS, 1)
        self.gain = nn.Parameter(torch.ones(1, JOINTS, 1, 1, 1))
        nn.init.normal_(self.head.weight, std=1e-3)
        with torch.no_grad():
            self.head.bias.copy_(torch.tensor([0.0, _DOUBT]).repeat_interleave(JOINTS))  # type: ignore[union-attr]

    def forward(self, volume: Tensor) -> Opinion:
        # One convolution for what is learned and what is counted: the volume, by far the largest tensor, is read once.
        first = F.conv3d(volume.permute(0, 4, 1, 2, 3), torch.cat([self.stem.weight, self.evidence]), stride=2)
        learned, mean, *lean = torch.split(first, [self.widths[0], JOINTS, JOINTS, JOINTS, JOINTS], dim=1)
        at16 = F.relu(self.stem_scale(learned))
        at8 = self.res8(self.down8(at16) + self.place8)
        at4 = self.res4(self.down4(at8) + self.place4)
        at8 = self.back8(at8 + self.up8(at4))
        at16 = self.back16(at16 + self.up16(at8))
        log_factor, log_doubt = torch.split(self.head(at16), JOINTS, dim=1)
        return Opinion(log_factor, log_doubt, mean, torch.stack([self.gain * one for one in lean], dim=1))


def log_weights(opinion: Opinion) -> Tensor:
    """Logarithms [N,17,16,16,16] of the cells' probabilities, up to one number for each joint."""
    seen = opinion.mean.float().clamp_min(0) + _FLOOR
    return opinion.log_factor.float().clamp_max(_MOST) + 2 * torch.log(seen)


def expectation(opinion: Opinion) -> tuple[Tensor, Tensor]:
    """Mean [N,17,3] and standard deviation per axis [N,17], in shares of the side, over cells by their probability: exp(log_factor) times the square
    of the heatmaps' mean, normalised. A cell stands where its own heatmaps are, not in its middle.

    `_MOST` keeps it finite without the passes of a softmax that looks for the largest first.
    """
    seen = opinion.mean.float().clamp_min(0) + _FLOOR
    p = torch.exp(opinion.log_factor.float().clamp_max(_MOST)) * (seen * seen)
    total = p.sum((2, 3, 4)) + 1e-30
    share = p / seen
    lean = opinion.lean.float()
    at = _middles(p)
    slab = p.sum(4)
    axes = torch.stack([slab.sum(3), slab.sum(2), p.sum(2).sum(2)], dim=2) / total[..., None, None]
    from_cells = (axes * at).sum(3)
    variance = (axes * at * at).sum(3) - from_cells * from_cells
    inside = (share[:, None] * lean).sum((3, 4, 5)) / total[:, None]
    doubt = (p * torch.exp(opinion.log_doubt.float().clamp(-14, 0))).sum((2, 3, 4)) / total
    spread = (variance.clamp_min(0).mean(2) + doubt).sqrt()
    return from_cells + inside.transpose(1, 2), spread


def _middles(like: Tensor) -> Tensor:
    """[16] where cells' middles lie along an axis, shares of the side: the voxels at its ends are the cube's corners."""
    return (2 * torch.arange(_CELLS, dtype=like.dtype, device=like.device) + 0.5) / (SIDE - 1) - 0.5
