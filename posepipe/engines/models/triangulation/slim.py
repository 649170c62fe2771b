"""The slim volumetric network: heatmaps in a cube around a person become joint positions, fast enough for a processor.

After Iskakov et al. 2019 (section 3.3: unprojected features, a 3D encoder and decoder, a softmax over voxels and its expectation), with three
changes that live use asks for. Its input are the heatmaps of any 2D network instead of learned features, so that it trains without pictures
(VoxelPose, Tu et al. 2020, section 3.3). Almost all of its work is done at half the resolution. And what the heatmaps themselves say about
a voxel is added to the answer once more at full resolution, so that the network only has to learn where they are wrong.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

JOINTS = 17
SIDE = 32
_FLOOR = 1e-3
_MOST = 40.0


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


class Slim(nn.Module):
    """volume [N,32,32,32,17] (x, y, z of the cube, coco17; 0..1) -> opinion [N,17,32,32,32], by which the logarithm of every voxel's
    probability is changed: it is `opinion + 2 log(volume)`, up to what makes them sum to one.

    widths: channels at 16^3, 8^3 and 4^3. `place` lets the deep layers know where in the cube they are: a body stands upright in its middle.
    """

    def __init__(self, widths: tuple[int, int, int] = (32, 64, 128)) -> None:
        super().__init__()
        a, b, c = widths
        self.widths = widths
        self.stem = _Conv(JOINTS, a, 4, 2)
        self.res16 = _Res(a)
        self.down8 = _Conv(a, b, 2, 2)
        self.place8 = nn.Parameter(torch.zeros(1, b, SIDE // 4, SIDE // 4, SIDE // 4))
        self.res8 = nn.Sequential(_Res(b), _Res(b))
        self.down4 = _Conv(b, c, 2, 2)
        self.place4 = nn.Parameter(torch.zeros(1, c, SIDE // 8, SIDE // 8, SIDE // 8))
        self.res4 = nn.Sequential(_Res(c), _Res(c))
        self.up8 = _Up(c, b)
        self.back8 = _Res(b)
        self.up16 = _Up(b, a)
        self.back16 = _Res(a)
        self.head = nn.ConvTranspose3d(a, JOINTS, 2, 2)
        nn.init.normal_(self.head.weight, std=1e-3)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    def forward(self, volume: Tensor) -> Tensor:
        x = volume.permute(0, 4, 1, 2, 3)
        at16 = self.res16(self.stem(x))
        at8 = self.res8(self.down8(at16) + self.place8)
        at4 = self.res4(self.down4(at8) + self.place4)
        at8 = self.back8(at8 + self.up8(at4))
        at16 = self.back16(at16 + self.up16(at8))
        opinion: Tensor = self.head(at16)
        return opinion


def log_weights(opinion: Tensor, volume: Tensor) -> Tensor:
    """Logarithms [N,17,n,n,n] of the voxels' probabilities, up to one number for each joint."""
    return opinion.float().clamp_max(_MOST) + 2 * torch.log(volume.permute(0, 4, 1, 2, 3).float() + _FLOOR)


def expectation(opinion: Tensor, volume: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [N,17,3] and standard deviation per axis [N,17], in shares of the side, over voxels by their probability.

    exp(opinion) times the square of the heatmaps is what a softmax of `log_weights` would normalise, without its three passes over the
    volume; `_MOST` keeps it finite. One marginal per axis gives the same expectation as all voxels, with small products.
    """
    n = volume.shape[1]
    seen = volume.permute(0, 4, 1, 2, 3).float() + _FLOOR
    p = torch.exp(opinion.float().clamp_max(_MOST)) * (seen * seen)
    at = torch.arange(n, dtype=p.dtype, device=p.device) / (n - 1) - 0.5
    slab = p.sum(4)
    axes = torch.stack([slab.sum(3), slab.sum(2), p.sum(2).sum(2)], dim=2)
    axes = axes / (axes.sum(3, keepdim=True) + 1e-30)
    mean = (axes * at).sum(3)
    variance = (axes * at * at).sum(3) - mean * mean
    return mean, variance.clamp_min(0).mean(2).sqrt()
