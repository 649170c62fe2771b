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

Bools = NDArray[np.bool_]
MODEL = "posepipe.adult"
_FIRST_NS = 1_000_000_000 // 30
"""So long after nothing a person's first instant comes: as in training."""
_ASLEEP_NS = 600_000_000_000
_NEVER = -(1 << 62)
_NAN, _ZERO = np.float32(np.nan), np.float32(0)
_UNSURE_M = 1.0
_ASTRAY_M, _ASTRAY_NS = 0.5, 200_000_000
"""A body that stands further than this from what is seen of its person, for longer than this, is another's: identities were exchanged for good, or he
moved while nobody saw him. The network has not learned to run after people."""
_APART_M = 0.3
"""Two people's pelvises are further apart than this: whoever is seen nearer to where another was lost has taken his place."""


def joints_in(layout: Skeleton) -> I64:
    """Where coco17's joints are in a layout; GraphError where it lacks one."""
    if lacks := [j for j in COCO17.joints if j not in layout.joints]:
        hint = "smooth.kalman and smooth.one_euro take every skeleton; or a 2D network that finds coco17's joints (docs/models.md)"
        raise GraphError(f"smooth.vibe knows a body by coco17's joints, and {layout.name} has no {lacks[0]}", hint=hint)
    return np.array([layout.index(j) for j in COCO17.joints], np.int64)


@dataclass(frozen=True, slots=True)
class Observed:
    """The people of one instant as the network takes them. ids [P]; window [P,17,5]: zeros where a joint is not seen; seen [P,17]."""

    t_ns: int
    ids: I64
    window: F32
    seen: Bools


def observed(body: Poses, joints: I64, t_ns: int) -> Observed:
    """Skeletons that come as `held` are older ones over again: nothing of them is seen."""
    window = np.empty((len(body.ids), len(joints), 5), np.float32)
    window[..., :3], window[..., 3], window[..., 4] = body.xyz_m[:, joints], body.sigma_m[:, joints], body.conf[:, joints]
    seen = (window[..., 4] > 0) & np.isfinite(window[..., :3]).all(axis=2) & (body.tier != "held")
    window[~seen] = 0
    window[~np.isfinite(window[..., 3]), 3] = _UNSURE_M
    return Observed(t_ns, body.ids, window, seen)


class Memory:
    """A row for every person: state, and when each joint was seen last.

    forget_ns: who was not seen for longer is not stepped on, and begins anew when he comes back, or, where it is to `keep` him, goes on from
    there (for ten minutes). fill_ns: so long a joint that is not seen is given from the body. warm_up: how often a
    person's first instant is taken before it is answered.
    """

    def __init__(self, network: SmootherNetwork, joints: I64, *, forget_ns: int, fill_ns: int, keep: bool, warm_up: int) -> None:
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
        self._times = np.zeros((0, 3), np.int64)  # of the state, of the last sight of any joint, of the last that the body stood by
        self._joint_ns, self._conf = np.zeros((0, len(self._joints)), np.int64), np.zeros((0, len(self._joints)), np.float32)

    def answer(self, body: Poses, instants: Sequence[Observed]) -> Poses:
        """The instant that is first of `instants`, the later ones known. body: what came with it. After an EngineError the same instant can be asked again."""
        now = instants[0]
        rows = self._take(now)
        if not len(rows):
            return _composed(body, self._joints, _NOBODY, _NO_ONE, _NO_ONE, now.ids)
        ids = self._ids[rows]
        window, after_s = self._network.nothing(len(rows))
        new = ~self._begun[rows]
        since_ns = np.where(new, now.t_ns - _FIRST_NS, self._times[rows, 0])
        for k, instant in enumerate(instants):
            mine, theirs = np.nonzero(ids[:, None] == instant.ids)
            window[mine, k] = instant.window[theirs]
            after_s[:, k] = (instant.t_ns - since_ns) * 1e-9
        state = self._state[rows]
        if new.any():
            fresh = np.zeros_like(state[new])
            for _ in range(self._warm_up):
                fresh = self._network(fresh, window[new], after_s[new]).state
            state[new] = fresh
        step = self._network(state, window, after_s)
        self._state[rows], self._times[rows, 0] = step.state, now.t_ns
        self._times[rows[new | self._stands(window[:, 0], step)], 2] = now.t_ns
        self._begun[rows] = now.t_ns - self._times[rows, 2] <= _ASTRAY_NS
        return self._given(body, now, rows, step)

    @staticmethod
    def _stands(seen: F32, step: Step) -> Bools:
        """Who [N] is where his joints are seen [N,17,5], or is not seen."""
        there = seen[..., 4:] > 0
        off_m = ((step.joints - seen[..., :3]) * there).sum(axis=1)
        apart_m: F32 = np.sqrt((off_m * off_m).sum(axis=1)) / np.maximum(there.sum(axis=(1, 2)), 1)
        return apart_m <= _ASTRAY_M

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
        given, seen = unseen_ns < max(self._fill_ns, 1), unseen_ns == 0
        fading = (1 - unseen_ns / max(self._fill_ns, 1)).astype(np.float32)
        answer = _Answer(given, seen, np.where(given, self._conf[rows] * fading, _ZERO), step)
        ids = self._ids[rows]
        at, who = np.nonzero(now.ids[:, None] == ids)
        gone: Bools = np.asarray(given.any(axis=1))
        gone[who] = False
        if not gone.any():
            return _composed(body, self._joints, answer, at, who, now.ids)
        away_m = np.linalg.norm(step.root[:, None] - step.root[seen.any(axis=1)], axis=2)
        lost = np.flatnonzero(gone & (away_m > _APART_M).all(axis=1))
        at = np.concatenate([at, len(now.ids) + np.arange(len(lost))])
        return _composed(body, self._joints, answer, at, np.concatenate([who, lost]), np.concatenate([now.ids, ids[lost]]))


@dataclass(frozen=True, slots=True)
class _Answer:
    """Of N people: which joints are given, which of them were seen, with which confidence [N,17]."""

    given: Bools
    seen: Bools
    conf: F32
    step: Step


_NO_ONE = np.zeros(0, np.int64)
_EMPTY = [np.zeros((0, *shape), np.float32) for shape in ((17, 3), (17,), (BONES, 6), (SHAPES,), (3,), (0,))]
_NOBODY = _Answer(np.zeros((0, 17), np.bool_), np.zeros((0, 17), np.bool_), np.zeros((0, 17), np.float32), Step(*_EMPTY))


def _composed(body: Poses, joints: I64, answer: _Answer, at: I64, who: I64, ids: I64) -> Poses:
    """The instant as it leaves, of the people `ids` [Q]: those of `body`, then those who are given though they are not in it. In the places `at` is
    what the answer says of its people `who`; of the others none of the network's joints is given."""
    step, given, seen = answer.step, answer.given[who], answer.seen[who]
    people, some = len(ids), given.any(axis=1)
    here = at[:, None], joints

    def joined(came: F32, values: F32, nothing: np.float32) -> F32:
        """What came [P,J,...], with values [.,17,...] in the places `at`."""
        out = np.full((people, *came.shape[1:]), nothing)
        out[: len(came)] = came
        if len(at) < people:
            out[:, joints] = nothing
        out[here] = values
        return out

    def whole(values: F32) -> F32:
        """A body where some joint is given."""
        out = np.full((people, *values.shape[1:]), _NAN)
        out[at] = np.where(some.reshape(-1, *[1] * (values.ndim - 1)), values[who], _NAN)
        return out

    xyz_m = joined(body.xyz_m, np.where(given[..., None], step.joints[who], _NAN), _NAN)
    conf, sigma_m = joined(body.conf, answer.conf[who], _ZERO), joined(body.sigma_m, np.where(given, step.spread[who], _NAN), _NAN)
    views_used, reproj_px = np.zeros(conf.shape, np.uint8), np.zeros(people, np.float32)
    views_used[: len(body.ids)], reproj_px[: len(body.ids)] = body.views_used, body.reproj_px
    views_used[here] *= seen
    bodies = Bodies(MODEL, whole(step.pose), whole(step.shape), whole(step.root))
    tier = "held" if some.any() and not seen.any() else body.tier
    for array in (xyz_m, conf, sigma_m, views_used, reproj_px, ids, bodies.pose, bodies.shape, bodies.root_m):
        readonly(array)
    return replace(
        body, tier=tier, ids=ids, xyz_m=xyz_m, conf=conf, sigma_m=sigma_m, reproj_px=reproj_px, views_used=views_used, bodies=bodies
    )
