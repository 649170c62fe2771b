"""What trainings share: how far they have come, checkpoints to go on from, the running mean of the weights, and their curve."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...pipeline.errors import EngineError


@dataclass(slots=True)
class Progress:
    """Steps and seconds so far; the running loss and the scores on what is kept out, each with its step."""

    step: int = 0
    seconds: float = 0.0
    losses: list[tuple[int, float]] = field(default_factory=list)
    scores: list[dict[str, float]] = field(default_factory=list)


def steps_done(out: Path) -> int:
    """How far the training in a folder has come: what it was trained on is not drawn again."""
    checkpoint = out / "checkpoint.pt"
    return int(torch.load(checkpoint, weights_only=True)["step"]) if checkpoint.exists() else 0


def keep(
    path: Path, net: nn.Module, average: nn.Module, optimizer: Any, progress: Progress, *, network: dict[str, Any], seconds: float
) -> None:
    """Write a checkpoint, whole or not at all, and `curve.json` beside it. network: what `restore` has to find again."""
    state = {
        "plan": network, "net": net.state_dict(), "average": average.state_dict(), "optimizer": optimizer.state_dict(),
        "step": progress.step, "seconds": seconds, "losses": progress.losses, "scores": progress.scores,
    }  # fmt: skip
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)
    path.with_name("curve.json").write_text(json.dumps({"loss": progress.losses, "scores": progress.scores, "seconds": round(seconds)}))


def restore(path: Path, net: nn.Module, average: nn.Module, optimizer: Any, *, network: dict[str, Any]) -> Progress:
    """Go on from a checkpoint. EngineError when it is of another network."""
    state = torch.load(path, weights_only=True)
    if any(state["plan"].get(key) != value for key, value in network.items()):
        raise EngineError("the checkpoint is of another network", where=str(path), hint="train into another folder, or with --fresh")
    net.load_state_dict(state["net"])
    average.load_state_dict(state["average"])
    optimizer.load_state_dict(state["optimizer"])
    return Progress(state["step"], state["seconds"], [tuple(x) for x in state["losses"]], state["scores"])


def follow(average: nn.Module, net: nn.Module, share: float) -> None:
    """Move the running mean towards the network; `share` of it stays as it was."""
    with torch.no_grad():
        for mine, theirs in zip(average.state_dict().values(), net.state_dict().values(), strict=True):
            if mine.dtype.is_floating_point:
                mine.mul_(share).add_(theirs, alpha=1 - share)
            else:
                mine.copy_(theirs)


def said(scores: dict[str, float]) -> str:
    """Scores as a line of text."""
    return ", ".join(f"{name} {value:.1f}" for name, value in scores.items())


def draw(losses: list[tuple[int, float]], scores: list[dict[str, float]], path: Path, *, unit: str = "mm") -> None:
    """The curves of a training as a picture. unit: of the scores."""
    try:
        from matplotlib.figure import Figure
    except ImportError as e:
        raise EngineError("curves are drawn with matplotlib, which is not installed", hint="pip install 'posepipe[train]'") from e
    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(*zip(*losses, strict=True))
    left.set(xlabel="step", ylabel="loss of the training samples (running mean)", yscale="log")
    for name in [n for n in scores[-1] if n != "step"]:
        right.plot([s["step"] for s in scores], [s[name] for s in scores], label=name)
    right.set(xlabel="step", ylabel=f"{unit}, samples kept out of training", ylim=(0, None))
    if len(scores[-1]) > 1:
        right.legend(fontsize=7)
    figure.savefig(path, dpi=110)
