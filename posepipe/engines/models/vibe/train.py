"""Training of `smooth.vibe`'s network: batches in, checkpoints, curves and an ONNX file out. Where batches come from is the caller's business.

The losses are VIBE's (section 3.1 to 3.3: joints, rotations, shape, and a motion discriminator with the least-squares loss), in a world of metres,
and two more: what moves unlike the truth from instant to instant, and how far the network says it is off.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ....pipeline.packet import F32
from ..checkpoint import Progress, draw, follow, keep, restore, said
from ..onnx_file import halved, onnx_file, written
from .core import BONES, MotionDiscriminator, least_squares, matrices, six_of
from .smooth import SETTLING, SHAPES, WINDOW, SmoothStep, heading_of

WARM_UP = SETTLING
"""How often the first instant of a person is taken before it is answered."""
Step = Callable[[F32, F32, F32], tuple[F32, ...]]


@dataclass(frozen=True, slots=True)
class Batch:
    """T instants of N people, and what is seen up to WINDOW - 1 instants later.

    xyz_m [T+8,N,17,3], sigma_m and conf [T+8,N,17]; t_s [T+8,N] rising; ahead [N]: how many later instants may be looked at. Truth: joints_m [T,N,17,3],
    six [T,N,24,6], root_m [T,N,3], shape [N,16]. known [N]: who has been followed for long; apart_m [N,17,3] is what is remembered of him then, how far his
    key points (and joints_m) lie from the body's, in the frames of its bones.
    """

    xyz_m: F32
    sigma_m: F32
    conf: F32
    t_s: F32
    ahead: NDArray[np.int64]
    joints_m: F32
    six: F32
    root_m: F32
    shape: F32
    apart_m: F32
    known: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is trained and how. adversary: weight of the motion discriminator's opinion."""

    steps: int
    features: int = 192
    hidden: int = 256
    rounds: int = 2
    learning_rate: float = 1e-3
    adversary: float = 0.02
    every: int = 250
    average: float = 0.998


def windows(batch: Batch) -> tuple[F32, F32]:
    """What the network is given: window [T,N,9,17,5] and after_s [T,N,9]. The first instant comes one thirtieth of a second after nothing."""
    count = len(batch.joints_m)
    flat = np.concatenate([batch.xyz_m, batch.sigma_m[..., None], batch.conf[..., None]], axis=-1)
    flat = np.where(batch.conf[..., None] > 0, flat, 0)
    later = np.arange(count)[:, None] + np.arange(WINDOW)
    window = flat[later].swapaxes(1, 2)
    allowed = np.arange(WINDOW)[None] <= batch.ahead[:, None]
    window = window * allowed[None, :, :, None, None]
    before = np.concatenate([batch.t_s[:1] - 1 / 30, batch.t_s[: count - 1]])
    after = (batch.t_s[later].swapaxes(1, 2) - before[..., None]) * allowed[None]
    return window.astype(np.float32), after.astype(np.float32)


def train(
    batches: Iterator[Batch],
    judge: Callable[[Step, int], dict[str, float]],
    out: Path,
    plan: Plan,
    tables: Mapping[str, NDArray[Any]],
    *,
    resume: bool = True,
    tell: Callable[[str], object] = print,
    seconds: float = math.inf,
    threads: int = 1,
) -> Path:
    """Train until `plan.steps`, or for so many seconds. Returns the path of the ONNX file.

    judge: gives scores by name of a step and the size of its state, on samples kept out of training. Goes on from a checkpoint in `out` unless told not to.
    EngineError for a checkpoint of another plan.
    """
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    net = SmoothStep(tables, features=plan.features, hidden=plan.hidden, rounds=plan.rounds)
    critic = MotionDiscriminator(6 * BONES, 128, layers=1, attention_layers=1)
    both = nn.ModuleDict({"net": net, "critic": critic})
    average = copy.deepcopy(both).eval()
    groups = [{"params": net.parameters(), "share": 1.0}, {"params": critic.parameters(), "share": 0.3}]
    optimizer = torch.optim.AdamW(groups, lr=plan.learning_rate, weight_decay=1e-4)
    progress, checkpoint = Progress(), out / "checkpoint.pt"
    identity = {"features": plan.features, "hidden": plan.hidden, "rounds": plan.rounds}
    if resume and checkpoint.exists():
        progress = restore(checkpoint, both, average, optimizer, network=identity)
        tell(f"going on at step {progress.step} of {plan.steps} ({checkpoint})")
    begun, running = time.monotonic(), math.nan
    both.train()
    while progress.step < plan.steps and time.monotonic() - begun < seconds:
        batch = next(batches)
        for group in optimizer.param_groups:
            group["lr"] = group["share"] * _rate(plan, progress.step)
        losses = _losses(net, critic, batch, plan)
        optimizer.zero_grad(set_to_none=True)
        sum(losses.values(), torch.zeros(())).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        nn.utils.clip_grad_norm_(critic.parameters(), 1.0)
        optimizer.step()
        progress.step += 1
        follow(average, both, min(plan.average, progress.step / (progress.step + 10)))
        loss = losses["joints"].item() + losses["motion"].item()
        running = loss if math.isnan(running) else 0.99 * running + 0.01 * loss
        if progress.step % plan.every == 0 or progress.step == plan.steps:
            progress.losses.append((progress.step, running))
            network = average["net"]
            assert isinstance(network, SmoothStep)
            scores = judge(runner(network), network.memory)
            progress.scores.append({"step": progress.step, **scores})
            so_far = progress.seconds + time.monotonic() - begun
            terms = ", ".join(f"{name} {value.item():.3f}" for name, value in losses.items())
            tell(f"step {progress.step} of {plan.steps}, {so_far:.0f} s, loss {running:.3f} ({terms}); {said(scores)}")
            keep(checkpoint, both, average, optimizer, progress, network=identity, seconds=so_far)
            draw(progress.losses, progress.scores, out / "curve.png")
    keep(checkpoint, both, average, optimizer, progress, network=identity, seconds=progress.seconds + time.monotonic() - begun)
    network = average["net"]
    assert isinstance(network, SmoothStep)
    return export(network, out / "smooth.onnx")


def runner(net: SmoothStep) -> Step:
    """The network at work, in torch."""

    def run(state: F32, window: F32, after_s: F32) -> tuple[F32, ...]:
        net.eval()
        with torch.inference_mode():
            return tuple(x.numpy() for x in net(torch.from_numpy(state), torch.from_numpy(window), torch.from_numpy(after_s)))

    return run


def export(net: SmoothStep, path: Path) -> Path:
    """Write the step as ONNX, names and shapes as in `posepipe.engines.models.vibe.smooth`."""
    given = {"state": torch.rand(2, net.memory), "window": torch.rand(2, WINDOW, 17, 5), "after_s": torch.rand(2, WINDOW)}
    answers = ("joints", "spread", "pose", "shape", "root", "state_after")
    inputs = {name: (example, ("N",)) for name, example in given.items()}
    return written(path, halved(onnx_file(copy.deepcopy(net), inputs, dict.fromkeys(answers, ("N",)))))


def _rate(plan: Plan, step: int) -> float:
    warm = min(1.0, (step + 1) / min(200, 1 + plan.steps // 10))
    return plan.learning_rate * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / plan.steps))))


def _losses(net: SmoothStep, critic: MotionDiscriminator, batch: Batch, plan: Plan) -> dict[str, Tensor]:
    window, after = (torch.from_numpy(x) for x in windows(batch))
    state = torch.zeros(window.shape[1], net.memory)
    for _ in range(WARM_UP):
        state = net.step(state, window[0], after[0]).state
    known, told, lying = (torch.from_numpy(x) for x in (batch.known, batch.shape, batch.apart_m))
    state = net.acquainted(state, known, told, lying)
    steps = []
    for one, later in zip(window, after, strict=True):
        steps.append(net.step(state, one, later))
        state = steps[-1].state
    joints, spread = torch.stack([s.joints for s in steps]), torch.stack([s.spread for s in steps])
    rotations, heads = torch.stack([s.rotations for s in steps]), torch.stack([s.heads for s in steps])
    real_rotations = matrices(torch.from_numpy(batch.six))
    shape = torch.from_numpy(batch.shape)
    count, people = joints.shape[:2]
    with torch.no_grad():
        wide = shape.expand(count, people, SHAPES).reshape(-1, SHAPES)
        real_heads, _ = net.body(real_rotations.flatten(0, 1), wide, torch.from_numpy(batch.root_m).flatten(0, 1))
        real_heads = real_heads.reshape(count, people, BONES, 3)
    off = joints - torch.from_numpy(batch.joints_m)
    away2 = (off * off).sum(-1).detach().clamp(max=1.0)
    bent, moved = off[2:] - 2 * off[1:-1] + off[:-2], off[1:] - off[:-1]
    stated = 3 * torch.log(spread) + away2 / (2 * spread * spread)
    fake = _motion(rotations)
    critic.requires_grad_(False)  # it learns from what it is shown, not from how the network wants to please it
    please = ((critic(fake) - 1) ** 2).mean() * plan.adversary
    critic.requires_grad_(True)
    judged = least_squares(critic(_motion(real_rotations)), critic(fake.detach()))
    return {
        "joints": 10 * _length(off).mean(),
        "heads": 4 * _length(heads - real_heads).mean(),
        "motion": 60 * _length(bent).mean() + 10 * _length(moved).mean(),
        "turns": ((rotations - real_rotations) ** 2).sum((-1, -2)).mean() * 0.3,
        "shape": 0.01 * ((torch.stack([s.shape for s in steps[5:]]) - shape) ** 2).mean(),
        "spread": 0.02 * (stated + 12).mean(),
        "adversary": please,
        "critic": judged,
    }


def _motion(rotations: Tensor) -> Tensor:
    """Rotations [T,N,24,3,3] as the discriminator sees them, from where the first instant heads: [N,T,144]."""
    heading = heading_of(rotations[0, :, 0])
    seen: Tensor = six_of(torch.einsum("nji,tnbjk->tnbik", heading, rotations)).flatten(2).transpose(0, 1)
    return seen


def _length(v: Tensor) -> Tensor:
    return torch.sqrt((v * v).sum(-1) + 1e-8)
