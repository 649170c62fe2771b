"""Labelled windows to train a network for actions on: motion as a studio would have seen it, and how windows are drawn from it.

K ticks, J the joints of `action_window.JOINTS`, T ticks of a window, L labels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from posepipe.pipeline.packet import F32, F64, I64

from .action_window import JOINTS, MIRRORED, TICKS, Bools, inputs, resampled

_LEGS = tuple(i for i, n in enumerate(JOINTS) if n.endswith(("knee", "ankle")))
_ARMS = tuple(i for i, n in enumerate(JOINTS) if n.endswith(("elbow", "wrist")))
_EVERYTHING = tuple(range(len(JOINTS)))
_LEAST_TICKS = 8
"""Shorter than half a second nobody is judged, live or in training."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """Somebody doing one thing, as it was recorded: xyz_m [N,J,3] (0 where not seen), seen [N,J], t_s [N] rising. recording: by which is split. where: who
    says so."""

    recording: str
    label: str
    xyz_m: F32
    seen: Bools
    t_s: F64
    where: str = ""


@dataclass(frozen=True, slots=True)
class Take:
    """One person doing one thing: ticks xyz_m [K,J,3] (0 where missing) and seen [K,J] on the time base, the label, and the recording, by which
    is split."""

    recording: str
    label: str
    xyz_m: F32
    seen: Bools


def as_seen(rng: np.random.Generator, xyz_m: F32, seen: Bools, t_s: F64, *, rough: float = 1.0) -> tuple[F32, Bools]:
    """A motion [N,J,3], seen [N,J] at times [N] in seconds, as a studio would give it, on the time base: ticks [K,J,3] and seen [K,J].

    Anything between 10 and 60 instants a second, 15 % faster or slower; errors of a joint that stay (8 mm), that change slowly (6 to 20 mm over half a
    second) and that are new every instant (4 to 12 mm); sides exchanged for some instants, joints missing, legs or an arm out of sight, gaps.
    rough: scales errors and how often mistakes come; 0 leaves speed and rate.
    """
    rate = float(np.exp(rng.uniform(np.log(10), np.log(60))))
    speed = float(np.exp(rng.uniform(-0.15, 0.15)))
    own_s = (t_s - t_s[0]) / speed
    times = np.arange(0, own_s[-1], 1 / rate)
    times = np.sort(np.clip(times + rng.normal(0, 0.05 / rate, len(times)), 0, own_s[-1]))
    times = times[np.diff(times, prepend=-1.0) > 1e-4]
    after = np.clip(np.searchsorted(own_s, times, side="right"), 1, len(own_s) - 1)
    share = ((times - own_s[after - 1]) / (own_s[after] - own_s[after - 1]))[:, None]
    # A joint that is missing on one side is nowhere in between either: made-up lines would be learned.
    sees = seen[after] & seen[after - 1]
    xyz = np.where(sees[..., None], xyz_m[after - 1] * (1 - share[..., None]) + xyz_m[after] * share[..., None], 0)
    joints = len(JOINTS)
    xyz += rough * rng.normal(0, 0.008, (joints, 3))
    xyz += rough * rng.normal(0, rng.uniform(0.004, 0.012, joints)[:, None], xyz.shape)
    xyz += rough * rng.uniform(0.006, 0.020, joints)[:, None] * _slow(rng, times, joints * 3, over_s=0.5).reshape(xyz.shape)
    for group, often in ((_LEGS, 0.15), (_ARMS, 0.05), (_EVERYTHING, 0.05)):
        at = np.flatnonzero(_spells(rng, times, often_hz=rough * often, last_s=0.1))
        turned = np.arange(joints)
        turned[list(group)] = [MIRRORED[j] for j in group]
        xyz[at], sees[at] = xyz[at][:, turned], sees[at][:, turned]
    for j in range(joints):
        sees[_spells(rng, times, often_hz=rough * 0.2, last_s=0.25), j] = False
    for group, chance in ((_LEGS, 0.12), (rng.choice([_ARMS[:2], _ARMS[2:]]), 0.08)):
        if rng.random() < rough * chance:
            begin, end = np.sort(rng.uniform(-0.5, 1.5, 2)) * times[-1]
            sees[np.ix_((times >= begin) & (times <= end), group)] = False
    there = ~_spells(rng, times, often_hz=rough * 0.05, last_s=0.25)
    xyz, sees, times = xyz[there], sees[there], times[there]
    t_ns = ((times + rng.uniform(0, 0.1)) * 1e9).astype(np.int64)
    if len(t_ns) < 2:
        return np.zeros((0, joints, 3), np.float32), np.zeros((0, joints), np.bool_)
    ticks, ticks_seen, _ = resampled(xyz.astype(np.float32), sees, t_ns)
    return ticks, ticks_seen


def _slow(rng: np.random.Generator, times: F64, count: int, *, over_s: float) -> F64:
    """An error of standard deviation 1 that is forgotten over so long: [N,count]."""
    out = rng.standard_normal((len(times), count))
    keep = np.exp(-np.diff(times) / over_s)
    for i, k in enumerate(keep, 1):
        out[i] = k * out[i - 1] + np.sqrt(1 - k * k) * out[i]
    return out


def _spells(rng: np.random.Generator, times: F64, *, often_hz: float, last_s: float) -> Bools:
    """When something is the case that begins so often and lasts so long on average: [N]."""
    within = np.zeros(len(times), np.bool_)
    for begin in rng.uniform(-last_s, times[-1], rng.poisson(often_hz * (times[-1] + last_s))) if len(times) else ():
        within |= (times >= begin) & (times <= begin + rng.exponential(last_s))
    return within


def folds(recordings: Sequence[tuple[str, frozenset[str]]], *, count: int, seed: int) -> dict[str, int]:
    """A fold 0..count-1 for every recording (its name, the labels in it), so that each label is spread as evenly as it goes and fold 0 has every label
    that can be spared; -1, always to be trained on, for a recording without which a label would be in one fold alone."""
    rng = np.random.default_rng(seed)
    total = Counter(label for _, labels in recordings for label in labels)
    have: Counter[tuple[str, int]] = Counter()
    found: dict[str, int] = {}
    shuffled = [recordings[i] for i in rng.permutation(len(recordings))]
    for name, labels in sorted(shuffled, key=lambda r: min((total[x] for x in r[1]), default=0)):
        free = [f for f in range(count) if all(have[label, f] + 1 < total[label] for label in labels)]
        found[name] = min(free, key=lambda f: sum(have[label, f] / total[label] for label in labels)) if free and labels else -1
        for label in labels:
            have[label, found[name]] += 1
    return found


@dataclass(frozen=True, slots=True)
class Drawn:
    """windows [N,T,J,7] as `action_window.inputs` makes them; label [N]."""

    windows: F32
    label: I64


class Pool:
    """Takes, and windows of them. Deterministic by seed."""

    def __init__(self, takes: Iterable[Take], labels: Sequence[str], *, seed: int, ticks: int = TICKS) -> None:
        """labels: the order of the network's answers. ValueError where a label has no take."""
        self._rng, self._ticks = np.random.default_rng(seed), ticks
        usable = [t for t in takes if len(t.xyz_m) >= _LEAST_TICKS]
        self._xyz = np.concatenate([np.zeros((0, len(JOINTS), 3), np.float32), *(t.xyz_m for t in usable)])
        self._seen = np.concatenate([np.zeros((0, len(JOINTS)), np.bool_), *(t.seen for t in usable)])
        ends = np.cumsum([len(t.xyz_m) for t in usable])
        spans = [(int(e) - len(t.xyz_m), int(e)) for e, t in zip(ends, usable, strict=True)]
        self._takes: list[dict[str, list[tuple[int, int]]]] = [{} for _ in labels]
        for span, take in zip(spans, usable, strict=True):
            self._takes[labels.index(take.label)].setdefault(take.recording, []).append(span)
        if empty := [label for label, by in zip(labels, self._takes, strict=True) if not by]:
            raise ValueError(f"no take of {', '.join(empty)}")

    def draw(self, count: int, *, joined: float = 0.3, cut: float = 0.2) -> Drawn:
        """Windows of all labels equally often, and of all recordings of a label.

        joined: how many of them begin with another action, to at most a half: what is to be said is the new one. cut: how many begin with
        nothing, as when somebody has just come in. Half of them are in a mirror.
        """
        rng = self._rng
        label = rng.integers(len(self._takes), size=count)
        xyz, seen = self._windows([self._span(k) for k in label], _LEAST_TICKS)
        other, other_seen = self._windows([self._span(k) for k in rng.integers(len(self._takes), size=count)], self._ticks)
        for n in np.flatnonzero(rng.random(count) < joined):
            begin = int(rng.integers(1, self._ticks // 2 + 1))
            other[n] += xyz[n, begin].mean(axis=0) - other[n, begin].mean(axis=0)
            xyz[n, :begin], seen[n, :begin] = other[n, :begin], other_seen[n, :begin]
        for n in np.flatnonzero(rng.random(count) < cut):
            begin = int(rng.integers(1, self._ticks - _LEAST_TICKS + 1))
            xyz[n, :begin], seen[n, :begin] = 0, False
        windows = inputs(xyz, seen)
        self._turn_and_stretch(windows)
        mirrored = np.flatnonzero(rng.random(count) < 0.5)
        windows[mirrored] = mirror(windows[mirrored])
        return Drawn(windows, label.astype(np.int64))

    def _span(self, label: int) -> tuple[int, int]:
        by = list(self._takes[label].values())
        spans = by[self._rng.integers(len(by))]
        return spans[self._rng.integers(len(spans))]

    def _windows(self, spans: list[tuple[int, int]], least: int) -> tuple[F32, Bools]:
        """A window somewhere in each, with at least so many of its ticks in it, if there are."""
        begin, end = np.array(spans).T
        last = self._rng.integers(np.minimum(begin + least, end) - 1, end)
        at = last[:, None] + np.arange(1 - self._ticks, 1)
        inside = at >= begin[:, None]
        at = np.where(inside, at, 0)
        seen = self._seen[at] & inside[..., None]
        return np.where(seen[..., None], self._xyz[at], 0), seen

    def _turn_and_stretch(self, windows: F32) -> None:
        """Headings are measured with an error, and so are sizes."""
        angle = self._rng.normal(0, 0.15, len(windows))
        size = np.exp(self._rng.normal(0, 0.05, len(windows)))
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]).transpose(2, 0, 1) * size[:, None, None]
        for c in (0, 3):
            windows[..., c : c + 2] = np.einsum("ntji,nik->ntjk", windows[..., c : c + 2], turn.astype(np.float32))
            windows[..., c + 2] *= size[:, None, None].astype(np.float32)


def mirror(windows: F32) -> F32:
    """Windows [N,T,J,7] in a mirror."""
    turned = windows[:, :, list(MIRRORED)]
    turned[..., [1, 4]] *= -1
    return turned


def every(take: Take, *, step: int = 5, ticks: int = TICKS) -> F32:
    """The windows of a take that end at every `step`-th tick, as they come live: none before there is half a second. [N,T,J,7]."""
    ends = np.arange(_LEAST_TICKS, len(take.xyz_m) + 1, step)
    at = ends[:, None] + np.arange(-ticks, 0)
    inside = at >= 0
    seen = take.seen[np.maximum(at, 0)] & inside[..., None]
    return inputs(np.where(seen[..., None], take.xyz_m[np.maximum(at, 0)], 0).astype(np.float32), seen)
