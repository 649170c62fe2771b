"""Actions from a clip of joints, after the pose branch of Luvizon et al. 2018, "2D/3D Pose Estimation and Action Recognition using Multitask Deep
Learning", section 4.2, written anew from its description.

A clip is a picture: ticks down, joints across, channels deep. Three convolutions beside each other (3 x 1: one joint over time, 3 x 3 and 3 x 5: with
its neighbours) take 1/6, 2/6 and 3/6 of the features; max-min pooling (the largest and the smallest of 2 x 2, added) halves ticks and joints, here before
the next convolution instead of after it, which takes a third of the time away. Then prediction blocks: each makes a map per action, whose largest and smallest cell, added, is that action's score, and puts features and
maps back in for the next one to correct. Every block is trained to be right; the last one is what is said.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

JOINTS = 13
CHANNELS = 7
TICKS = 24


def max_min(x: Tensor) -> Tensor:
    """Of 2 x 2 cells the largest and the smallest, added: what stands out to either side."""
    return F.max_pool2d(x, 2) - F.max_pool2d(-x, 2)


class Before(nn.Sequential):
    """Batch normalisation and ReLU before a convolution without bias, which keeps the size."""

    def __init__(self, inputs: int, outputs: int, kernel: tuple[int, int]) -> None:
        padding = (kernel[0] // 2, kernel[1] // 2)
        super().__init__(nn.BatchNorm2d(inputs), nn.ReLU(), nn.Conv2d(inputs, outputs, kernel, padding=padding, bias=False))


class Prediction(nn.Module):
    """[N,width,t,j] -> features [N,width,t,j] and a map [N,L,t,j] per action."""

    def __init__(self, width: int, labels: int, dropout: float) -> None:
        super().__init__()
        self.features = Before(width, width, (3, 3))
        self.maps = Before(width, labels, (3, 3))
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = x + self.dropout(self.features(x))
        return features, self.maps(features)


class Again(nn.Module):
    """What one block has found, put in for the next one."""

    def __init__(self, width: int, labels: int) -> None:
        super().__init__()
        self.features = Before(width, width, (1, 1))
        self.maps = nn.Conv2d(labels, width, 1, bias=False)

    def forward(self, x: Tensor, features: Tensor, maps: Tensor) -> Tensor:
        put_in: Tensor = x + self.features(features) + self.maps(maps)
        return put_in


class ActionNet(nn.Module):
    """Clips [N,T,13,7] as `posepipe.calib.action_window.inputs` makes them -> scores [N,L] of every block, the last one's last."""

    def __init__(self, labels: int, *, width: int = 36, blocks: int = 3, dropout: float = 0.2) -> None:
        super().__init__()
        shares = (width // 6, width // 3, width - width // 6 - width // 3)
        self.beside = nn.ModuleList(
            nn.Conv2d(CHANNELS, share, kernel, padding=(1, kernel[1] // 2), bias=False)
            for share, kernel in zip(shares, ((3, 1), (3, 3), (3, 5)), strict=True)
        )
        self.next = Before(width, width, (3, 3))
        self.blocks = nn.ModuleList(Prediction(width, labels, dropout) for _ in range(blocks))
        self.again = nn.ModuleList(Again(width, labels) for _ in range(blocks - 1))

    def forward(self, clip: Tensor) -> list[Tensor]:
        x = clip.permute(0, 3, 1, 2)
        x = self.next(max_min(torch.cat([convolution(x) for convolution in self.beside], 1)))
        said = []
        for k, block in enumerate(self.blocks):
            features, maps = block(x)
            said.append(maps.amax((2, 3)) + maps.amin((2, 3)))
            if k < len(self.again):
                x = self.again[k](x, features, maps)
        return said


class Live(nn.Module):
    """The form that studios run: clips [N,T,13,7] -> probabilities [N,L]."""

    def __init__(self, net: ActionNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, clip: Tensor) -> Tensor:
        return torch.softmax(self.net(clip)[-1], 1)
