"""What smooth.vibe remembers of people, and what it makes of an instant: whom the network is asked about, what is given, and for how long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from posepipe.calib.smoothers import People, grown
from posepipe.engines.smoother import BONES, SHAPES, SmootherNetwork, Step
from posepipe.pipeline.errors import GraphError
from posepipe.pipeline.packet import F32, I64, Bodies, Poses, readonly
from posepipe.pipeline.skeleton import COCO17, Skeleton

MODEL = "posepipe.adult"
_FIRST_NS = 1_000_000_000 // 30
"""So long after nothing a person's first instant comes: as in training."""
_ASLEEP_NS = 600_000_000_000
_NEVER = -(1 << 62)
_APART_M = 0.3
"""Two people's pelvises are further apart than this: whoever is seen nearer to where another was lost has taken his place."""


def joints_in(layout: Skeleton) -> list[int]:
    """Where coco17's joints are in a layout; GraphError where it lacks one."""
    if lacks := [j for j in COCO17.joints if j not in layout.joints]:
        hint = "smooth.kalman and smooth.one_euro take every skeleton; or a 2D network that finds coco17's joints (docs/models.md)"
        raise GraphError(f"smooth.vibe knows a body by coco17's joints, and {layout.name} has no {lacks[0]}", hint=hint)
    return [layout.index(j) for j in COCO17.joints]


@dataclass(frozen=True, slots=True)
class Observed:
    """The people of one instant as the network takes them. ids [P]; window [P,17,5]: zeros where a joint is not seen; seen [P,17]."""

    t_ns: int
    ids: I64
    window: F32
    seen: NDArray[np.bool_]


def observed(body: Poses, joints: list[int], t_ns: int) -> Observed:
    """Skeletons that come as `held` are older ones over again: nothing of them is seen."""
    xyz_m, conf, sigma_m = body.xyz_m[:, joints], body.conf[:, joints], body.sigma_m[:, joints]
    seen = (conf > 0) & np.isfinite(xyz_m).all(axis=2) & (body.tier != "held")
    window = np.concatenate([xyz_m, np.where(np.isfinite(sigma_m), sigma_m, 1)[..., None], conf[..., None]], axis=2, dtype=np.float32)
    return Observed(t_ns, body.ids, np.where(seen[..., None], window, np.float32(0)), seen)


class Memory:
    """A row for every person: state, and when each joint was seen last.

    forget_ns: who was not seen for longer is not stepped on, and begins anew when he comes back, or, where it is to `keep` him, goes on from
    there (for ten minutes). fill_ns: so long a joint that is not seen is given from the body. warm_up: how often a
    person's first instant is taken before it is answered.
    """

    def __init__(self, network: SmootherNetwork, joints: list[int], *, forget_ns: int, fill_ns: int, keep: bool, warm_up: int) -> None:
        self._network, self._joints, self._warm_up = network, joints, warm_up
        self._forget_ns, self._fill_ns, self._keep = forget_ns, fill_ns, keep
        self.clear()

    def __len__(self) -> int:
        return len(self._people)

    def clear(self) -> None:
        """Forget everybody: time went back."""
        self._people = People(_ASLEEP_NS if self._keep else self._forget_ns)
        self._state = np.zeros((0, self._network.memory), np.float32)
        self._ids, self._begun = np.zeros(0, np.int64), np.zeros(0, np.bool_)
        self._times = np.zeros((0, 2), np.int64)  # of the state, of the last sight of any joint
        self._joint_ns, self._conf = np.zeros((0, len(self._joints)), np.int64), np.zeros((0, len(self._joints)), np.float32)

    def answer(self, body: Poses, instants: Sequence[Observed]) -> Poses:
        """The instant that is first of `instants`, the later ones known. body: what came with it. EngineError leaves the memory as it was."""
        now = instants[0]
        rows = self._take(now)
        if not len(rows):
            return _composed(body, self._joints, _NOBODY, _NO_ONE, _NO_ONE, now.ids)
        ids = self._ids[rows]
        window, after_s = self._network.nothing(len(rows))
        begun = self._begun[rows]
        since_ns = np.where(begun, self._times[rows, 0], now.t_ns - _FIRST_NS)
        for k, instant in enumerate(instants):
            mine, theirs = np.nonzero(ids[:, None] == instant.ids)
            window[mine, k] = instant.window[theirs]
            after_s[:, k] = (instant.t_ns - since_ns) * 1e-9
        state = np.where(begun[:, None], self._state[rows], np.float32(0))
        if not begun.all():
            for _ in range(self._warm_up):
                state[~begun] = self._network(state[~begun], window[~begun], after_s[~begun]).state
        step = self._network(state, window, after_s)
        self._state[rows], self._times[rows, 0], self._begun[rows] = step.state, now.t_ns, True
        return self._given(body, now, rows, step)

    def _take(self, now: Observed) -> I64:
        """Who is seen is noted. The rows of all whom the network is asked about."""
        there = now.seen.any(axis=1)
        rows, new = self._people.rows(now.ids[there].tolist(), now.t_ns)
        for row in new:
            if row >= len(self._ids):
                self._state, self._ids, self._begun = grown(self._state, row), grown(self._ids, row), grown(self._begun, row)
                self._joint_ns, self._conf = grown(self._joint_ns, row), grown(self._conf, row)
                known, self._times = len(self._times), grown(self._times, row)
                self._times[known:] = _NEVER
            self._begun[row], self._joint_ns[row] = False, _NEVER
        seen = now.seen[there]
        self._ids[rows], self._times[rows, 1] = now.ids[there], now.t_ns
        self._joint_ns[rows] = np.where(seen, now.t_ns, self._joint_ns[rows])
        self._conf[rows] = np.where(seen, now.window[there][..., 4], self._conf[rows])
        awake: I64 = np.flatnonzero(now.t_ns - self._times[:, 1] <= self._forget_ns)
        return awake

    def _given(self, body: Poses, now: Observed, rows: I64, step: Step) -> Poses:
        unseen_ns = now.t_ns - self._joint_ns[rows]
        given = unseen_ns < max(self._fill_ns, 1)
        fading = 1 - unseen_ns / max(self._fill_ns, 1)
        answer = _Answer(given, unseen_ns == 0, np.where(given, self._conf[rows] * fading, 0), step)
        ids = self._ids[rows]
        place, who = np.nonzero(now.ids[:, None] == ids)
        here = (unseen_ns == 0).any(axis=1)
        away_m = np.linalg.norm(step.root[:, None] - step.root[here], axis=2)
        gone = given.any(axis=1) & ~np.isin(ids, now.ids) & (away_m > _APART_M).all(axis=1)
        lost = np.flatnonzero(gone)
        at = np.concatenate([place, len(now.ids) + np.arange(len(lost))])
        return _composed(body, self._joints, answer, at, np.concatenate([who, lost]), np.concatenate([now.ids, ids[lost]]))


@dataclass(frozen=True, slots=True)
class _Answer:
    """Of N people: which joints are given, which of them were seen, with which confidence [N,17]."""

    given: NDArray[np.bool_]
    seen: NDArray[np.bool_]
    conf: NDArray[np.floating]
    step: Step


_NO_ONE = np.zeros(0, np.int64)
_EMPTY = [np.zeros((0, *shape), np.float32) for shape in ((17, 3), (17,), (BONES, 6), (SHAPES,), (3,), (0,))]
_NOBODY = _Answer(np.zeros((0, 17), np.bool_), np.zeros((0, 17), np.bool_), np.zeros((0, 17), np.float32), Step(*_EMPTY))


def _composed(body: Poses, joints: list[int], answer: _Answer, at: I64, who: I64, ids: I64) -> Poses:
    """The instant as it leaves, of the people `ids` [Q]: those of `body`, then those who are given though they are not in it. In the places `at` is
    what the answer says of its people `who`; of the others none of the network's joints is given."""
    people, came = len(ids), len(body.ids)
    step, given = answer.step, answer.given[who]

    def wide(values: NDArray[np.generic], nothing: float) -> F32:
        """As `values` [came,...], and nothing of the others."""
        out = np.full((people, *values.shape[1:]), nothing, np.float32)
        out[:came] = values
        return out

    def put(out: F32, values: NDArray[np.floating], nothing: float) -> F32:
        """With the network's joints [.,17,...] in it."""
        block = np.full((people, *values.shape[1:]), nothing, np.float32)
        block[at] = np.where(given.reshape(*given.shape, *[1] * (values.ndim - 2)), values[who], nothing)
        out[:, joints] = block
        return out

    def whole(values: F32) -> F32:
        """A body where some joint is given."""
        out = np.full((people, *values.shape[1:]), np.nan, np.float32)
        some = given.any(axis=1)
        out[at[some]] = values[who[some]]
        return out

    xyz_m = put(wide(body.xyz_m, np.nan), step.joints, np.nan)
    conf, sigma_m = put(wide(body.conf, 0), answer.conf, 0), put(wide(body.sigma_m, np.nan), step.spread, np.nan)
    views_used = np.zeros(conf.shape, np.uint8)
    views_used[:came] = body.views_used
    measured = np.zeros((people, len(joints)), np.bool_)
    measured[at] = answer.seen[who]
    views_used[:, joints] = np.where(measured, views_used[:, joints], 0)
    reproj_px = wide(body.reproj_px, 0)
    bodies = Bodies(MODEL, whole(step.pose), whole(step.shape), whole(step.root))
    tier = "held" if given.any() and not measured.any() else body.tier
    ids = np.array(ids, np.int64)
    for array in (ids, xyz_m, conf, sigma_m, reproj_px, views_used, bodies.pose, bodies.shape, bodies.root_m):
        readonly(array)
    return replace(
        body, tier=tier, ids=ids, xyz_m=xyz_m, conf=conf, sigma_m=sigma_m, reproj_px=reproj_px, views_used=views_used, bodies=bodies
    )
