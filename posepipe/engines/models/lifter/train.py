"""Training of lifters: batches in, checkpoints, curves and an ONNX file out. Where batches come from is the caller's business.

Two recipes. `live`: mean distance of the joints, and the likelihood of their errors under the spread that the network states (which does not pull
at the positions); the shipped weights are the running mean of the training's. `published`: that of the paper's torch port, squared error of
normalised coordinates, Adam at 0.001 falling by 0.96 every 100,000 steps, gradients clipped to 1.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..checkpoint import Progress, draw, follow, keep, restore, said
from ..onnx_file import onnx_file, written
from .net import JOINTS, Lifter, Live

F32 = NDArray[np.float32]
Run = Callable[[F32], tuple[F32, F32]]
"""A network at work: inputs [N,I] -> positions [N,17,3] in metres and spread [N,17] (ones where the network has none)."""
Recipe = Literal["live", "published"]


@dataclass(frozen=True, slots=True)
class Batch:
    """view [N,I]; target [N,17,3]. live: as `posepipe.calib.single` has them. published: both normalised."""

    view: F32
    target: F32


@dataclass(frozen=True, slots=True)
class Plan:
    """steps: of the whole training. mean, std [17,3]: by which a published network's answers are to be understood, metres."""

    steps: int
    recipe: Recipe = "live"
    width: int = 512
    inputs: int = 2 * JOINTS
    learning_rate: float = 2e-3
    every: int = 500
    average: float = 0.999
    mean: F32 | None = None
    std: F32 | None = None

    def build(self) -> nn.Module:
        """The network of this plan, untrained."""
        return Live(self.width) if self.recipe == "live" else Lifter(self.inputs, 3 * JOINTS, width=self.width)


def train(
    batches: Iterator[Batch],
    judge: Callable[[Run], dict[str, float]],
    out: Path,
    plan: Plan,
    *,
    resume: bool = True,
    tell: Callable[[str], None] = print,
    seconds: float = math.inf,
    threads: int = 1,
) -> Path:
    """Train until `plan.steps` (or for so many seconds) and write `checkpoint.pt`, `curve.json`, `curve.png` and, of the live form, `lifter.onnx`
    to `out`; gives the path of the network, of the checkpoint for the published recipe.

    judge: gives scores in mm by name, on samples kept out of training. Goes on from a checkpoint in `out` unless told not to. EngineError for a
    checkpoint of another plan.
    """
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    net = plan.build()
    average = copy.deepcopy(net).eval()
    optimizer = _optimizer(net, plan)
    progress, checkpoint = Progress(), out / "checkpoint.pt"
    if resume and checkpoint.exists():
        progress = restore(checkpoint, net, average, optimizer, network=_identity(plan))
        tell(f"going on at step {progress.step} of {plan.steps} ({checkpoint})")
    begun, running = time.monotonic(), math.nan
    net.train()
    while progress.step < plan.steps and time.monotonic() - begun < seconds:
        batch = next(batches)
        for group in optimizer.param_groups:
            group["lr"] = _rate(plan, progress.step)
        loss = _loss(net, batch, plan)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        progress.step += 1
        follow(average, net, min(plan.average, progress.step / (progress.step + 10)) if plan.recipe == "live" else 0.0)
        running = loss.item() if math.isnan(running) else 0.99 * running + 0.01 * loss.item()
        if progress.step % plan.every == 0 or progress.step == plan.steps:
            progress.losses.append((progress.step, running))
            scores = judge(predictor(average, plan))
            progress.scores.append({"step": progress.step, **scores})
            so_far = progress.seconds + time.monotonic() - begun
            tell(f"step {progress.step} of {plan.steps}, {so_far:.0f} s, loss {running:.4f}, " + said(scores))
            keep(checkpoint, net, average, optimizer, progress, network=_identity(plan), seconds=so_far)
            if min(value for _, value in progress.losses) > 0:
                draw(progress.losses, progress.scores, out / "curve.png")
    keep(checkpoint, net, average, optimizer, progress, network=_identity(plan), seconds=progress.seconds + time.monotonic() - begun)
    return export(average, out / "lifter.onnx") if isinstance(average, Live) else checkpoint


def predictor(net: nn.Module, plan: Plan) -> Run:
    """The network at work, in torch."""

    def run(view: F32) -> tuple[F32, F32]:
        net.eval()
        with torch.inference_mode():
            if isinstance(net, Live):
                xyz, spread = net(torch.from_numpy(view))
                return xyz.numpy(), spread.numpy()
            answer: F32 = net(torch.from_numpy(view)).numpy().reshape(-1, JOINTS, 3)
        assert plan.mean is not None, "a published plan says what its numbers mean"
        assert plan.std is not None, "a published plan says what its numbers mean"
        return answer * plan.std + plan.mean, np.ones(answer.shape[:2], np.float32)

    return run


def export(net: Live, path: Path) -> Path:
    """Write the live form as ONNX: `view` [N,54] -> `xyz` [N,17,3], `spread` [N,17]. Batch normalisation goes into the layers."""
    view = {"view": (torch.rand(2, net.lifter.w1.in_features), ("N",))}
    return written(path, onnx_file(copy.deepcopy(net), view, {"xyz": ("N",), "spread": ("N",)}))


def _optimizer(net: nn.Module, plan: Plan) -> Any:
    if plan.recipe == "live":
        return torch.optim.AdamW(net.parameters(), lr=plan.learning_rate, weight_decay=1e-4)
    return torch.optim.Adam(net.parameters(), lr=plan.learning_rate)


def _rate(plan: Plan, step: int) -> float:
    if plan.recipe == "published":
        return float(plan.learning_rate * 0.96 ** (step / 100_000))
    warm = min(1.0, (step + 1) / min(200, 1 + plan.steps // 10))
    return plan.learning_rate * warm * (0.005 + 0.995 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / plan.steps))))


def _loss(net: nn.Module, batch: Batch, plan: Plan) -> Tensor:
    target = torch.from_numpy(batch.target)
    if plan.recipe == "published":
        squared: Tensor = ((net(torch.from_numpy(batch.view)) - target.flatten(1)) ** 2).mean()
        return squared
    xyz, spread = net(torch.from_numpy(batch.view))
    away2 = ((xyz - target) ** 2).sum(2)
    stated = 3 * torch.log(spread) + away2.detach() / (2 * spread * spread)
    loss: Tensor = 10 * torch.sqrt(away2 + 1e-8).mean() + 0.02 * (stated + 12).mean()
    return loss


def _identity(plan: Plan) -> dict[str, Any]:
    return {"recipe": plan.recipe, "width": plan.width, "inputs": plan.inputs}
