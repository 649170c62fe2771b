"""The network behind `posepipe.engines.posture`, and its training: poses as they were found beside poses as they were, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...posture import FEATURES, JOINTS
from ..onnx_file import halved, onnx_file, written

F32 = NDArray[np.float32]

_EACH, _WIDE, _HEAD = 32, 256, 64
_REACH = 0.1
_BEGIN = -4.2
_LAPLACE = 2.0
"""A Laplace distribution in three dimensions whose mean distance is three times its scale has twice its scale as deviation in each axis."""
_MIRROR_COLUMNS = [0, 3, 6]


@dataclass(frozen=True, slots=True)
class Examples:
    """joints [M,17,20], base [M,17,3]: as of `posture.describe`. truth [M,17,3]: shares of the side."""

    joints: F32
    base: F32
    truth: F32

    def mirrored(self, mirror: NDArray[np.int64]) -> Examples:
        """The same people with left and right exchanged; the cube's x axis runs from right to left."""
        joints, base, truth = (a[:, mirror].copy() for a in (self.joints, self.base, self.truth))
        joints[..., _MIRROR_COLUMNS] *= -1
        base[..., 0] *= -1
        truth[..., 0] *= -1
        return Examples(joints, base, truth)

    def __len__(self) -> int:
        return len(self.truth)


class Net(nn.Module):
    """joints [N,17,20] -> shift [N,17,3] and sigma [N,17], shares of the side. Every joint is described by itself, then the whole body changes it."""

    def __init__(self) -> None:
        super().__init__()
        self.which = nn.Parameter(0.1 * torch.randn(JOINTS, _EACH))
        self.own = nn.Sequential(nn.Linear(FEATURES, _EACH), nn.ReLU(), nn.Linear(_EACH, _EACH))
        body = JOINTS * _EACH
        self.body = nn.Sequential(nn.Linear(body, _WIDE), nn.ReLU(), nn.Linear(_WIDE, _WIDE), nn.ReLU(), nn.Linear(_WIDE, body))
        self.again = nn.Sequential(nn.Linear(body, _WIDE), nn.ReLU(), nn.Linear(_WIDE, body))
        self.head = nn.Sequential(nn.Linear(2 * _EACH + FEATURES, _HEAD), nn.ReLU(), nn.Linear(_HEAD, 4))
        nn.init.zeros_(self.head[2].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.head[2].bias)  # type: ignore[arg-type]

    def forward(self, joints: Tensor) -> tuple[Tensor, Tensor]:
        own = torch.relu(self.own(joints) + self.which)
        told = torch.relu(own + self.body(own.flatten(1)).view(own.shape))
        told = torch.relu(told + self.again(told.flatten(1)).view(own.shape))
        found = self.head(torch.cat([own, told, joints], dim=2))
        return _REACH * found[..., :3], _LAPLACE * torch.exp(found[..., 3].clamp(-4, 4) + _BEGIN)


@dataclass(frozen=True, slots=True)
class Plan:
    """What decides a training. spread: weight of what the stated deviation is judged by."""

    steps: int = 12_000
    batch: int = 256
    learning_rate: float = 2e-3
    spread: float = 0.004
    every: int = 1_500
    seed: int = 0


def train(examples: Examples, out: Path, plan: Plan, *, judge: Callable[[Net], str], tell: Callable[[str], None] = print) -> Path:
    """Train on examples, and write `posture.onnx` to `out`. judge: what is said of it along the way, on examples that were kept out."""
    torch.manual_seed(plan.seed)
    net = Net()
    optimizer = torch.optim.AdamW(net.parameters(), lr=plan.learning_rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, plan.learning_rate, total_steps=plan.steps, pct_start=0.05)
    joints, base, truth = (torch.from_numpy(a) for a in (examples.joints, examples.base, examples.truth))
    begun = time.monotonic()
    for step in range(1, plan.steps + 1):
        at = torch.randint(len(joints), (plan.batch,))
        shift, sigma = net(joints[at])
        away = (base[at] + shift - truth[at]).square().sum(dim=2).add(1e-10).sqrt()
        # Distances in Laplace's distribution: people who were taken for somebody else do not decide about the rest.
        surprise = 3 * torch.log(sigma) + _LAPLACE * away.clamp_max(0.3) / sigma
        loss = away.mean() + plan.spread * surprise.mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % plan.every == 0 or step == plan.steps:
            net.eval()
            tell(f"step {step} of {plan.steps}, {time.monotonic() - begun:.0f} s, loss {loss.item():.4f}: {judge(net)}")
            net.train()
    out.mkdir(parents=True, exist_ok=True)
    return export(net, out / "posture.onnx")


def off_mm(net: Net, examples: Examples, *, side_m: float) -> float:
    """Mean distance from the truth, mm."""
    with torch.inference_mode():
        shift, _ = net(torch.from_numpy(examples.joints))
    off = np.linalg.norm(examples.base + shift.numpy() - examples.truth, axis=2) * side_m * 1000
    return float(off.mean())


def export(net: Net, path: Path) -> Path:
    """Write it as ONNX: `joints` as `posepipe.engines.posture` describes them, of any number of people -> `shift`, `sigma`."""
    example = torch.rand(2, JOINTS, FEATURES)
    return written(path, halved(onnx_file(net.eval(), {"joints": (example, ("N",))}, {"shift": ("N",), "sigma": ("N",)})))
