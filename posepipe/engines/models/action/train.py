"""Training of networks for actions: windows in, checkpoints, curves and an ONNX file out. Where windows come from is the caller's business.

Every prediction block is trained to be right (mean of their cross entropies, with a tenth of the certainty spread over all labels, so that
probabilities stay such that a threshold means something); AdamW, the rate falling by a cosine; what is shipped is the running mean of the weights.
"""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from torch import Tensor, nn

from ....pipeline.errors import EngineError
from ..checkpoint import Progress, draw, follow, keep, restore, said
from .net import CHANNELS, JOINTS, TICKS, ActionNet, Live

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]
Run = Callable[[F32], F32]
"""A network at work: windows [N,T,13,7] -> probabilities [N,L]."""
_PIECE = 256
_TELLS_WIDTH = "next.2.weight"
_HINT = "begin with a network of `posepipe train action`"


@dataclass(frozen=True, slots=True)
class Plan:
    """steps: of the whole training. labels: what the network is to tell apart, in the order of its answers."""

    steps: int
    labels: tuple[str, ...]
    width: int = 36
    blocks: int = 3
    learning_rate: float = 3e-3
    every: int = 100
    average: float = 0.99

    def build(self) -> ActionNet:
        """The network of this plan, untrained."""
        return ActionNet(len(self.labels), width=self.width, blocks=self.blocks)


def train(
    batches: Iterator[tuple[F32, I64]],
    judge: Callable[[Run], dict[str, float]],
    out: Path,
    plan: Plan,
    *,
    begin_with: Path | None = None,
    resume: bool = True,
    tell: Callable[[str], None] = print,
    seconds: float = math.inf,
    threads: int = 1,
) -> Path:
    """Train until `plan.steps` (or for so many seconds) and write `checkpoint.pt`, `curve.json`, `curve.png` and `action.onnx` to `out`; gives the
    path of the network.

    batches: windows [N,T,13,7] and labels [N]. judge: gives scores in % by name, on recordings kept out of training. begin_with: the ONNX file of another training, whose weights are taken where shapes agree (all but the scores of
    other labels). Goes on from a checkpoint in `out` unless told not to. EngineError for a checkpoint of another network or other labels.
    """
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    net = plan.build()
    progress, checkpoint = Progress(), out / "checkpoint.pt"
    going_on = resume and checkpoint.exists()
    if begin_with is not None and not going_on:
        taken = take_weights(net, begin_with)
        tell(f"beginning with {taken} of {len(net.state_dict())} arrays of {begin_with}")
    average = copy.deepcopy(net).eval()
    optimizer = torch.optim.AdamW(net.parameters(), lr=plan.learning_rate, weight_decay=0.02)
    if going_on:
        progress = restore(checkpoint, net, average, optimizer, network=_identity(plan))
        tell(f"going on at step {progress.step} of {plan.steps} ({checkpoint})")
    begun, before, running = time.monotonic(), progress.seconds, math.nan

    def report() -> None:
        progress.losses.append((progress.step, running))
        scores = judge(predictor(average))
        progress.scores.append({"step": progress.step, **scores})
        progress.seconds = before + time.monotonic() - begun
        tell(f"step {progress.step} of {plan.steps}, {progress.seconds:.0f} s, loss {running:.3f}, {said(scores)}")
        keep(checkpoint, net, average, optimizer, progress, network=_identity(plan), seconds=progress.seconds)
        draw(progress.losses, progress.scores, out / "curve.png", unit="%")

    net.train()
    while progress.step < plan.steps and time.monotonic() - begun < seconds:
        windows, label = next(batches)
        for group in optimizer.param_groups:
            group["lr"] = _rate(plan, progress.step)
        loss = _loss(net(torch.from_numpy(windows)), torch.from_numpy(label))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        progress.step += 1
        follow(average, net, min(plan.average, progress.step / (progress.step + 10)))
        running = loss.item() if math.isnan(running) else 0.98 * running + 0.02 * loss.item()
        if progress.step % plan.every == 0:
            report()
    if progress.step and (not progress.scores or progress.scores[-1]["step"] != progress.step):
        report()
    return export(average, out / "action.onnx")


def predictor(net: ActionNet) -> Run:
    """The network at work, in torch, a piece at a time."""

    def run(windows: F32) -> F32:
        live = Live(net).eval()
        with torch.inference_mode():
            parts = [live(torch.from_numpy(windows[k : k + _PIECE])).numpy() for k in range(0, len(windows), _PIECE)]
        return np.concatenate([np.zeros((0, parts[0].shape[1] if parts else 0), np.float32), *parts])

    return run


def export(net: ActionNet, path: Path) -> Path:
    """Write it as ONNX: `clip` [N,24,13,7] -> `p` [N,L]. Weights keep their names and batch normalisation stays by itself (a runtime works it in when
    it opens the file), so that the file can be trained on (`take_weights`)."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    torch.onnx.export(
        Live(copy.deepcopy(net)).eval(), (torch.rand(2, TICKS, JOINTS, CHANNELS),), str(partial), input_names=["clip"], output_names=["p"],
        dynamic_axes={name: {0: "N"} for name in ("clip", "p")}, opset_version=17, dynamo=False, do_constant_folding=False,
        training=torch.onnx.TrainingMode.PRESERVE,
    )  # fmt: skip
    partial.replace(path)
    return path


def take_weights(net: ActionNet, path: Path) -> int:
    """Put the weights of an exported network into another where name and shape agree, and say how many arrays. EngineError for a file that is no such
    network, or of another width."""
    given, mine = _weights(path), net.state_dict()
    fits = {n: torch.from_numpy(a) for n, a in given.items() if n in mine and tuple(mine[n].shape) == a.shape}
    wanted = [n for n in mine if ".maps.2." not in n and ".maps.weight" not in n and not n.endswith("num_batches_tracked")]
    if missing := [n for n in wanted if n not in fits]:
        what = f"its weights are not those of this network: {len(missing)} of {len(wanted)} arrays are missing or of another shape, first {missing[0]}"
        raise EngineError(what, where=str(path), hint=_HINT)
    net.load_state_dict(fits, strict=False)
    return len(fits)


def width_of(path: Path) -> int:
    """Of an exported network. EngineError for a file that is none."""
    weights = _weights(path)
    if _TELLS_WIDTH not in weights:
        raise EngineError("this network was not trained by posepipe", where=str(path), hint=_HINT)
    return int(weights[_TELLS_WIDTH].shape[0])


def _weights(path: Path) -> dict[str, NDArray[Any]]:
    try:
        file = onnx.load(str(path))
    except (OSError, DecodeError, ValueError) as e:
        raise EngineError(f"this is no ONNX file: {e}", where=str(path), hint=_HINT) from e
    given = {i.name: np.array(onnx.numpy_helper.to_array(i)) for i in file.graph.initializer}
    # Arrays with the same numbers are kept once.
    given |= {n.output[0]: given[n.input[0]] for n in file.graph.node if n.op_type == "Identity" and n.input[0] in given}
    return {name.removeprefix("net."): array for name, array in given.items()}


def _rate(plan: Plan, step: int) -> float:
    warm = min(1.0, (step + 1) / min(50, 1 + plan.steps // 10))
    return plan.learning_rate * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / plan.steps))))


def _loss(said_by_blocks: list[Tensor], label: Tensor) -> Tensor:
    each = [nn.functional.cross_entropy(scores, label, label_smoothing=0.1) for scores in said_by_blocks]
    return torch.stack(each).mean()


def _identity(plan: Plan) -> dict[str, Any]:
    return {"labels": list(plan.labels), "width": plan.width, "blocks": plan.blocks}
