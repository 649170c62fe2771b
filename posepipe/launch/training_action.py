"""`posepipe train action`: what people do is learned from labelled motion, or from a studio's own recordings."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from ..calib.action_samples import Labelled, Pool, Take, as_seen, every, folds
from ..calib.action_window import joints_in, resampled
from ..calib.body import load_body
from ..calib.motion import read_motion
from ..calib.posebank import bank
from ..engines.action import action_file, check_labels, write_card
from ..pipeline.errors import EngineError, SourceError
from ..pipeline.packet import F32, I64
from ..pipeline.skeleton import COCO17
from .labelled import read_labelled

FOLDS = 5
_SHAPES = 3
_ROUGH = {"motion": 1.0, "recordings": 0.4}
_VARIANTS = {"motion": 4, "recordings": 8}
_BATCH = 96
Run = Callable[[F32], F32]
Source = str
"""`motion` (exact, to be made rough) or `recordings` (with a studio's own errors)."""


def of_motion(motion: Path, *, seed: int) -> list[Labelled]:
    """Every clip on several bodies. SourceError for a folder without motion, and for clips without labels."""
    clips = list(read_motion(motion).values())
    if unnamed := [clip.recording for clip in clips if not clip.label]:
        hint = 'write them into clips.json: {"CLIP": {"label": ...}}; `posepipe motion import --label` gives one to all its files'
        raise SourceError(f"{len(unnamed)} clips have no label, first {unnamed[0]}", where=str(motion), hint=hint)
    found, joints = [], joints_in(COCO17)
    for track in bank(clips, body=load_body(), shapes=_SHAPES, seed=seed):
        xyz_m = np.ascontiguousarray(track.coco17_m[:, joints])
        times = np.arange(len(xyz_m)) / track.fps
        found.append(Labelled(track.name, track.label, xyz_m, np.ones(xyz_m.shape[:2], np.bool_), times, str(motion)))
    return found


@dataclass(frozen=True, slots=True)
class Split:
    """What is trained on and what it is judged by: recordings of one are not in the other. judged: labels that are on both sides."""

    labels: tuple[str, ...]
    trained: list[Labelled]
    kept_out: list[Labelled]

    @property
    def judged(self) -> tuple[str, ...]:
        there = {one.label for one in self.kept_out}
        return tuple(label for label in self.labels if label in there)


def split(found: Sequence[Labelled], *, fold: int, count: int = FOLDS, seed: int) -> Split:
    """All but one fold, by recording (`folds`). EngineError where there is one label only, or nothing can be kept out."""
    labels = tuple(sorted({one.label for one in found}))
    check_labels(labels, where=found[0].where if found else "")
    by: dict[str, set[str]] = {}
    for one in found:
        by.setdefault(one.recording, set()).add(one.label)
    into = folds([(name, frozenset(by[name])) for name in sorted(by)], count=count, seed=seed)
    parts = Split(labels, [one for one in found if into[one.recording] != fold], [one for one in found if into[one.recording] == fold])
    if not parts.kept_out:
        hint = "record every action in two recordings or more: what was learned is judged by people and minutes that were not learned from"
        raise EngineError("every label has one recording only, and none can be kept out", where=found[0].where, hint=hint)
    return parts


def takes(found: Sequence[Labelled], source: Source, *, variants: int, seed: int) -> list[Take]:
    """Each as a studio would see it, so many times otherwise, on the time base; pieces too short for that are left out."""
    rng = np.random.default_rng(seed)
    made = []
    for one in found:
        for _ in range(variants):
            xyz_m, seen = as_seen(rng, one.xyz_m, one.seen, one.t_s, rough=_ROUGH[source])
            made.append(Take(one.recording, one.label, xyz_m, seen))
    return made


class Judge:
    """What a network makes of takes that were kept out, in %: `windows`, recall of windows (one every third of a second), mean over the labels;
    `takes`, the same for whole takes by the mean of their log-probabilities. Chance is 100 by the number of labels. found [L,L]: shares of windows, truth down."""

    def __init__(self, found: Sequence[Take], labels: Sequence[str]) -> None:
        self._labels = list(labels)
        self._takes = [(self._labels.index(t.label), t.recording, every(t)) for t in found]
        self._takes = [one for one in self._takes if len(one[2])]
        self.found = np.zeros((len(labels), len(labels)))

    def __call__(self, run: Run) -> dict[str, float]:
        windows, whole = self.recalls(run)
        return {name: 100 * float(np.mean([np.mean(x) for x in by.values()])) for name, by in (("windows", windows), ("takes", whole))}

    def recalls(self, run: Run) -> tuple[dict[str, list[bool]], dict[str, list[bool]]]:
        """By label, whether each window and each take was told rightly."""
        windows: dict[str, list[bool]] = {}
        whole: dict[str, list[bool]] = {}
        self.found[:] = 0
        for label, _, clips in self._takes:
            p = run(clips)
            name = self._labels[label]
            windows.setdefault(name, []).extend((p.argmax(axis=1) == label).tolist())
            whole.setdefault(name, []).append(bool(np.log(np.maximum(p, 1e-4)).mean(axis=0).argmax() == label))
            np.add.at(self.found[label], p.argmax(axis=1), 1)
        self.found /= np.maximum(self.found.sum(axis=1, keepdims=True), 1)
        return windows, whole


def judge_of(parts: Split, source: Source, *, seed: int) -> Judge:
    """Of what was kept out: motion roughly seen, twice; recordings as they are."""
    if source == "motion":
        return Judge(takes(parts.kept_out, source, variants=2, seed=seed), parts.labels)
    plain = [Take(k.recording, k.label, *resampled(k.xyz_m, k.seen, (k.t_s * 1e9).astype(np.int64))[:2]) for k in parts.kept_out]
    return Judge(plain, parts.labels)


def pool_of(parts: Split, source: Source, *, seed: int, skip: int = 0) -> Pool:
    """What is trained on, seen in several ways. skip: steps done before, whose windows are not drawn again. ValueError where a label is nowhere long enough."""
    return Pool(takes(parts.trained, source, variants=_VARIANTS[source], seed=seed), parts.labels, seed=seed + 7 * skip)


def batches(pool: Pool) -> Iterator[tuple[F32, I64]]:
    """Without an end."""
    while True:
        drawn = pool.draw(_BATCH)
        yield drawn.windows, drawn.label


def action(
    motion: Path | None, recordings: Path | None, out: Path, *, name: str, begin_with: str, steps: int, width: int, minutes: float | None, threads: int,
    seed: int, fresh: bool,
) -> None:  # fmt: skip
    """Train a network for actions (docs/actions.md) and write checkpoint, curves, action.onnx and card.toml to `out`."""
    try:
        from ..engines.models.action.train import Plan, train, width_of
        from ..engines.models.checkpoint import steps_done
    except ImportError as e:
        raise EngineError("training needs torch, which is not installed", hint="pip install 'posepipe[train]'") from e
    if len(name.split(".")) != 2 or not name.replace(".", "").replace("_", "").isalnum():
        raise EngineError(f"{name!r} cannot name a network", hint="two words with a dot between, such as studio.moves")
    if steps < 1:
        raise EngineError(f"{steps} steps are no training", hint="--steps 1 or more")
    if width < 6:
        raise EngineError(f"a layer of {width} features cannot be divided among three convolutions", hint="--width 6 or more")
    console = Console()
    source = "motion" if motion is not None else "recordings"
    found = of_motion(motion, seed=seed) if motion is not None else read_labelled(recordings or out, tell=console.print)
    parts = split(found, fold=0, seed=seed)
    data = told(parts, source)
    console.print(data)
    unjudged = [label for label in parts.labels if label not in parts.judged]
    if unjudged:
        console.print(f"in one recording only, so nobody knows how well these are told: {', '.join(unjudged)}")
    begin = next(iter(action_file(begin_with).values())) if begin_with else None
    done = 0 if fresh else steps_done(out)
    try:
        pool = pool_of(parts, source, seed=seed + 1, skip=done)
    except ValueError as e:
        hint = "half a second at least in one go, better several"
        raise SourceError(f"{e} that is long enough", where=str(motion or recordings), hint=hint) from e
    judge = judge_of(parts, source, seed=seed + 2)
    plan = Plan(steps, parts.labels, width_of(begin) if begin else width)
    seconds = 60 * minutes if minutes else math.inf
    path = train(
        batches(pool), judge, out, plan, begin_with=begin, resume=not fresh, tell=console.print, seconds=seconds, threads=threads
    )  # fmt: skip
    scores = json.loads((out / "curve.json").read_text())["scores"][-1]
    measured = {"data": data, "accuracy": accuracy(scores, parts)}
    licence = "trained on motion, whose terms hold" if motion is not None else "your own recordings"
    card = write_card(
        out / "card.toml", name=name, summary=f"{len(parts.labels)} actions of one person", labels=parts.labels, file=path.name, licence=licence,
        measured=measured,
    )  # fmt: skip
    console.print(f"written {path} and {card}")


def told(parts: Split, source: Source) -> str:
    """How much is learned from, and how much is kept out."""

    def minutes(some: Sequence[Labelled]) -> float:
        bodies = _SHAPES if source == "motion" else 1
        return float(sum(one.t_s[-1] for one in some)) / 60 / bodies

    def count(some: Sequence[Labelled]) -> int:
        return len({one.recording for one in some})

    return (
        f"{minutes(parts.trained):.1f} minutes of {count(parts.trained)} recordings to learn {len(parts.labels)} labels from, "
        f"{minutes(parts.kept_out):.1f} minutes of {count(parts.kept_out)} kept out"
    )


def accuracy(scores: dict[str, float], parts: Split) -> str:
    """The figures of a judge in a sentence."""
    return (
        f"balanced over {len(parts.judged)} labels, recordings kept out: {scores['windows']:.0f} % of windows of 1.6 s, {scores['takes']:.0f} % of whole "
        f"takes; chance is {100 / len(parts.labels):.0f} %"
    )
