"""The lifter of Martinez et al. 2017, "A simple yet effective baseline for 3d human pose estimation", written anew from its description.

A linear layer to `width`, residual blocks of two linear layers each, a linear layer to the answer; batch normalisation, ReLU and dropout
after every linear layer but the last, the skip added after the second dropout. Keys and shapes of the parameters are those of the published
torch port: 4,291,632 numbers to be learned with 16 joints in and out.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

JOINTS = 17
INPUTS = 3 * JOINTS + 3
OUTPUTS = 4 * JOINTS
PUBLISHED_IN, PUBLISHED_OUT, PUBLISHED_WIDTH = 32, 48, 1024


class Block(nn.Module):
    """[N,width] -> [N,width]."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.w1, self.batch_norm1 = nn.Linear(width, width), nn.BatchNorm1d(width)
        self.w2, self.batch_norm2 = nn.Linear(width, width), nn.BatchNorm1d(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        y = self.dropout(torch.relu(self.batch_norm1(self.w1(x))))
        skipped: Tensor = x + self.dropout(torch.relu(self.batch_norm2(self.w2(y))))
        return skipped


class Lifter(nn.Module):
    """[N,inputs] -> [N,outputs]. The defaults are the published network: 16 joints, normalised x and y in, normalised x, y and z out."""

    def __init__(
        self,
        inputs: int = PUBLISHED_IN,
        outputs: int = PUBLISHED_OUT,
        *,
        width: int = PUBLISHED_WIDTH,
        blocks: int = 2,
        dropout: float = 0.5,
        epsilon: float = 1e-5,
    ) -> None:
        super().__init__()
        self.w1, self.batch_norm1 = nn.Linear(inputs, width), nn.BatchNorm1d(width)
        self.linear_stages = nn.ModuleList(Block(width, dropout) for _ in range(blocks))
        self.w2 = nn.Linear(width, outputs)
        self.dropout = nn.Dropout(dropout)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight)
            elif isinstance(layer, nn.BatchNorm1d):
                layer.eps = epsilon

    def forward(self, x: Tensor) -> Tensor:
        y = self.dropout(torch.relu(self.batch_norm1(self.w1(x))))
        for stage in self.linear_stages:
            y = stage(y)
        answer: Tensor = self.w2(y)
        return answer


class Live(nn.Module):
    """The form for live studios: inputs [N,54] as `posepipe.calib.single.looks` makes them -> positions [N,17,3] in metres from the middle
    of the hips, in the view's axes, and spread [N,17], one standard deviation in each axis, metres."""

    def __init__(self, width: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.lifter = Lifter(INPUTS, OUTPUTS, width=width, dropout=dropout)

    def forward(self, view: Tensor) -> tuple[Tensor, Tensor]:
        answer = self.lifter(view)
        xyz = answer[:, : 3 * JOINTS].reshape(-1, JOINTS, 3)
        return xyz, torch.exp(answer[:, 3 * JOINTS :].clamp(-3, 3)) * 0.05
