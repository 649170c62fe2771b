"""PoseResNet: the 2D network of learnable triangulation, with its confidence heads. Attributes have the names of the published checkpoints.

Layout: He et al. 2016 (bottlenecks with the stride in the 3x3 convolution), Xiao et al. 2018 (three transposed convolutions), and the
confidence head of Iskakov et al. 2019.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from ....pipeline.errors import EngineError, did_you_mean

JOINTS = 17
DEEP = 2048
FEATURES = 256
CHANNELS = 32
"""Channels of what the volumetric network puts into its volume."""
BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
"""Bottlenecks per stage, by depth."""


class Maps(NamedTuple):
    """What the 2D network sees in B crops of h x w pixels. heatmaps [B,17,h/4,w/4], before any softmax. features [B,256,h/4,w/4].
    confidences [B,K] of the joints (algebraic) or of the 32 channels (volumetric), 0..1; None where there is no such head.
    """

    heatmaps: Tensor
    features: Tensor
    confidences: Tensor | None


class _Bottleneck(nn.Module):
    def __init__(self, into: int, width: int, stride: int) -> None:
        super().__init__()
        out = 4 * width
        self.conv1, self.bn1 = nn.Conv2d(into, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, out, 1, bias=False), nn.BatchNorm2d(out)
        self.downsample = None
        if stride != 1 or into != out:
            self.downsample = nn.Sequential(nn.Conv2d(into, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + (x if self.downsample is None else self.downsample(x)))


def _stage(into: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    return nn.Sequential(_Bottleneck(into, width, stride), *(_Bottleneck(4 * width, width, 1) for _ in range(blocks - 1)))


class ConfidenceHead(nn.Module):
    """Deep features [B,2048,h,w] -> confidences [B,count], 0..1."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(DEEP, 512, 3, padding=1), nn.BatchNorm2d(512), nn.MaxPool2d(2), nn.ReLU(),
            nn.Conv2d(512, 256, 3, padding=1), nn.BatchNorm2d(256), nn.MaxPool2d(2), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, count), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.features(x).mean(dim=(2, 3)))
        return found


class ResNet(nn.Module):
    """What is before the last average of a ResNet of bottlenecks. Raises EngineError for a depth that there is not."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        if depth not in BLOCKS:
            raise EngineError(f"there is no ResNet-{depth}", hint=did_you_mean(str(depth), map(str, BLOCKS)))
        self.depth, self.blocks = depth, BLOCKS[depth]
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        self.layer1 = _stage(64, 64, self.blocks[0], 1)
        self.layer2 = _stage(256, 128, self.blocks[1], 2)
        self.layer3 = _stage(512, 256, self.blocks[2], 2)
        self.layer4 = _stage(1024, 512, self.blocks[3], 2)

    def deep(self, pictures: Tensor) -> Tensor:
        """Pictures [B,3,H,W], H and W multiples of 32 -> [B,2048,H/32,W/32]."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(pictures))), 3, 2, 1)
        found: Tensor = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return found


class PoseResNet(ResNet):
    """Crops [B,3,H,W] float32, BGR, (value / 255 - mean) / std -> `Maps`; H and W multiples of 32 (of 128 with confidences), 384 as published.

    alg_confidences, vol_confidences: with the confidence head of the algebraic (17) or of the volumetric network (32 channels).
    Raises EngineError for a depth that there is not.
    """

    def __init__(self, depth: int = 152, *, alg_confidences: bool = False, vol_confidences: bool = False) -> None:
        super().__init__(depth)
        self.alg_confidences = ConfidenceHead(JOINTS) if alg_confidences else None
        self.vol_confidences = ConfidenceHead(CHANNELS) if vol_confidences else None
        self.deconv_layers = nn.Sequential(
            *(
                layer
                for into in (DEEP, FEATURES, FEATURES)
                for layer in (nn.ConvTranspose2d(into, FEATURES, 4, 2, 1, bias=False), nn.BatchNorm2d(FEATURES), nn.ReLU())
            )
        )
        self.final_layer = nn.Conv2d(FEATURES, JOINTS, 1)

    def forward(self, pictures: Tensor) -> Maps:
        x = self.deep(pictures)
        head = self.vol_confidences if self.alg_confidences is None else self.alg_confidences
        features = self.deconv_layers(x)
        return Maps(self.final_layer(features), features, None if head is None else head(x))
