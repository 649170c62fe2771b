"""Training of the slim volumetric network: batches in, checkpoints, curves and an ONNX file out.

Where batches come from is the caller's business (`posepipe train triangulation` draws them without pictures): this room knows no geometry.
The loss is the paper's (Iskakov et al. 2019, section 3.3): mean absolute error of the expectation, here in decimetres, and a little of the
negative logarithm of the probability at the truth, here over the eight voxels around it instead of the nearest one.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ....pipeline.errors import EngineError
from ..checkpoint import Progress, draw, follow, keep, restore, said
from ..onnx_file import halved, onnx_file, written
from .slim import JOINTS, SIDE, Slim, expectation, log_weights

F32 = NDArray[np.float32]
Run = Callable[[F32], tuple[F32, F32]]
"""A network at work: from volumes [N,32,32,32,17] to positions [N,17,3] and spread [N,17], in shares of the side."""


@dataclass(frozen=True, slots=True)
class Batch:
    """volume [N,32,32,32,17]; target [N,17,3]: the joints in shares of the cube's side, cube axes; NaN where the truth is outside it."""

    volume: F32
    target: F32


@dataclass(frozen=True, slots=True)
class Plan:
    """steps: of the whole training, over which the learning rate falls to nothing (a cosine). side_m: of the cube."""

    steps: int = 15_000
    learning_rate: float = 2e-3
    side_m: float = 2.5
    voxel_loss: float = 0.02
    spread_loss: float = 0.02
    average: float = 0.998
    every: int = 250
    widths: tuple[int, int, int] = (32, 64, 96)


def train(
    batches: Iterator[Batch],
    judge: Callable[[Run], dict[str, float]],
    out: Path,
    plan: Plan,
    *,
    widen: Callable[[Run], F32] | None = None,
    resume: bool = True,
    tell: Callable[[str], None] = print,
    seconds: float = math.inf,
    threads: int = 1,
) -> Path:
    """Train until `plan.steps` (or for so many seconds) and write `checkpoint.pt`, `curve.json`, `curve.png` and `slim.onnx` to `out`.

    judge: gets a function from volumes [N,32,32,32,17] to (positions [N,17,3], spread [N,17]), and gives scores in mm by name, on samples
    kept out of training. widen: gives the factors [17] that make the network's spread one standard deviation, on samples like those of training.
    Goes on from a checkpoint in `out` unless told not to. EngineError for a checkpoint of another plan, and for a loss that is not finite.
    """
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    net = Slim(plan.widths).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    average = copy.deepcopy(net).eval()
    optimizer = torch.optim.AdamW(net.parameters(), lr=plan.learning_rate, weight_decay=1e-4)
    progress, network = Progress(), {"side_m": plan.side_m, "widths": plan.widths}
    checkpoint = out / "checkpoint.pt"
    if resume and checkpoint.exists():
        progress = restore(checkpoint, net, average, optimizer, network=network)
        tell(f"going on at step {progress.step} of {plan.steps} ({checkpoint})")
    begun, running = time.monotonic(), float("nan")
    net.train()
    while progress.step < plan.steps and time.monotonic() - begun < seconds:
        batch = next(batches)
        for group in optimizer.param_groups:
            group["lr"] = plan.learning_rate * _schedule(progress.step, plan.steps)
        loss = _loss(net, batch, plan)
        if not math.isfinite(value := loss.item()):
            hint = "a batch holds numbers that are not finite, or no joint; the same command goes on from the last checkpoint"
            raise EngineError(f"the loss is {value} at step {progress.step + 1}", where=str(out), hint=hint)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        progress.step += 1
        follow(average, net, min(plan.average, progress.step / (progress.step + 10)))
        running = value if math.isnan(running) else 0.98 * running + 0.02 * value
        if progress.step % plan.every == 0 or progress.step == plan.steps:
            progress.losses.append((progress.step, running))
            scores = judge(predictor(average))
            progress.scores.append({"step": progress.step, **scores})
            seconds_so_far = progress.seconds + time.monotonic() - begun
            tell(f"step {progress.step} of {plan.steps}, {seconds_so_far:.0f} s, loss {running:.4f}, " + said(scores))
            keep(checkpoint, net, average, optimizer, progress, network=network, seconds=seconds_so_far)
            draw(progress.losses, progress.scores, out / "curve.png")
    keep(checkpoint, net, average, optimizer, progress, network=network, seconds=progress.seconds + time.monotonic() - begun)
    return export(average, out / "slim.onnx", widen=widen(predictor(average)) if widen else None)


def predictor(net: Slim) -> Run:
    """The network at work, in torch."""

    def run(volume: F32) -> tuple[F32, F32]:
        net.eval()
        with torch.inference_mode():
            given = torch.from_numpy(volume)
            mean, spread = expectation(net(given))
        return mean.numpy(), spread.numpy()

    return run


class _Answer(nn.Module):
    def __init__(self, net: Slim, widen: F32) -> None:
        super().__init__()
        self.net = net
        self.widen = nn.Buffer(torch.from_numpy(widen))

    def forward(self, volume: Tensor) -> tuple[Tensor, Tensor]:
        mean, spread = expectation(self.net(volume))
        return mean, spread * self.widen


def export(net: Slim, path: Path, *, widen: F32 | None = None) -> Path:
    """Write the network as ONNX: `volume` [N,32,32,32,17] -> `xyz` [N,17,3], `spread` [N,17]. widen [17]: by which the softmax's own spread is
    multiplied to be one standard deviation of the error."""
    answer = _Answer(copy.deepcopy(net).eval(), np.ones(JOINTS, np.float32) if widen is None else widen.astype(np.float32))
    network = onnx_file(answer, {"volume": (torch.rand(2, SIDE, SIDE, SIDE, JOINTS), ("N",))}, {"xyz": ("N",), "spread": ("N",)})
    return written(path, halved(network))


def _loss(net: Slim, batch: Batch, plan: Plan) -> Tensor:
    volume, target = torch.from_numpy(batch.volume), torch.from_numpy(batch.target)
    known = torch.isfinite(target).all(dim=2)
    target = torch.nan_to_num(target)
    with torch.autocast("cpu", torch.bfloat16):
        opinion = net(volume)
    mean, spread = expectation(opinion)
    off = mean - target
    error = off[known].abs().mean() * 3 * plan.side_m * 10
    # A Laplace distribution in three dimensions: what is far off now and then says less about the rest than it would in a normal one.
    surprise = 3 * torch.log(spread) + off.detach().norm(dim=2) / spread
    weights = log_weights(opinion)
    total = torch.logsumexp(weights.flatten(2), dim=2)
    at_truth = (total - _at_truth(weights, target))[known].mean()
    total_loss: Tensor = error + plan.voxel_loss * at_truth + plan.spread_loss * surprise[known].mean()
    return total_loss


def _at_truth(weights: Tensor, target: Tensor) -> Tensor:
    """[N,J]: of weights [N,J,n,n,n] of cells, the mean of the eight around the truth by their nearness."""
    n = weights.shape[2]
    flat = weights.flatten(2).transpose(1, 2)
    at = (((target + 0.5) * (SIDE - 1) - 0.5) / 2).clamp(0, n - 1 - 1e-4)
    low = at.floor()
    part = at - low
    bits = torch.tensor([[corner >> 2 & 1, corner >> 1 & 1, corner & 1] for corner in range(8)])[None, :, None]
    nearness = torch.where(bits.bool(), part[:, None], 1 - part[:, None]).prod(3)
    x, y, z = (low.long()[:, None] + bits).unbind(3)
    return (nearness * flat.gather(1, (x * n + y) * n + z)).sum(1)


def _schedule(step: int, steps: int) -> float:
    warm = min(1.0, (step + 1) / min(200, 1 + steps // 10))
    return warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps))))
