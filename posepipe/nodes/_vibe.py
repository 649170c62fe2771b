"""What smooth.vibe remembers of people, and what it makes of an instant: whom the network is asked about, what is given, and for how long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from posepipe.calib.people_kernel import ask, look, note, place, put, stand
from posepipe.calib.smoothers import People, grown
from posepipe.engines.smoother import BONES, SHAPES, SmootherNetwork, Step
from posepipe.pipeline.errors import GraphError
from posepipe.pipeline.packet import F32, I64, Bodies, Poses, Sync, readonly
from posepipe.pipeline.skeleton import COCO17, Skeleton

from ._vibe_follow import Follow

Bools = NDArray[np.bool_]
MODEL = "posepipe.adult"
_FIRST_NS = 1_000_000_000 // 30
"""So long after nothing a person's first instant comes: as in training."""
_ASLEEP_NS = 600_000_000_000
_NEVER = -(1 << 62)
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
    """The people of one instant as the network takes them. ids [P]; window [P,17,5]: zeros where a joint is not seen; seen [P,17]; there [P]: any of his joints."""

    t_ns: int
    ids: I64
    window: F32
    seen: Bools
    there: Bools


def observed(body: Poses, joints: I64, t_ns: int) -> Observed:
    """Skeletons that come as `held` are older ones over again: nothing of them is seen."""
    people = len(body.ids)
    window = np.empty((people, len(joints), 5), np.float32)
    window[..., :3], window[..., 3], window[..., 4] = body.xyz_m[:, joints], body.sigma_m[:, joints], body.conf[:, joints]
    seen, there = np.empty((people, len(joints)), np.bool_), np.empty(people, np.bool_)
    look(window, body.tier == "held", _UNSURE_M, seen, there)
    return Observed(t_ns, np.array(body.ids, np.int64), window, seen, there)


class Memory:
    """A row for every person: state, and when each joint was seen last.

    forget_ns: who was not seen for longer is not stepped on, and begins anew when he comes back, or, where it is to `keep` him, goes on from
    there (for ten minutes). fill_ns: so long a joint that is not seen is given all the same. warm_up: how often a
    person's first instant is taken before it is answered. follow: as of `Follow`.
    """

    def __init__(
        self, network: SmootherNetwork, joints: I64, *, forget_ns: int, fill_ns: int, keep: bool, warm_up: int, follow: bool = False
    ) -> None:
        self._network, self._joints, self._warm_up = network, joints, warm_up
        self._follow = Follow() if follow else None
        self._forget_ns, self._fill_ns, self._keep = forget_ns, max(fill_ns, 1), keep
        self.clear()

    def __len__(self) -> int:
        return len(self._people)

    def clear(self) -> None:
        """Forget everybody: time went back."""
        self._people = People(_ASLEEP_NS if self._keep else self._forget_ns)
        if self._follow is not None:
            self._follow.clear()
        self._state = np.zeros((0, self._network.memory), np.float32)
        self._ids, self._begun = np.zeros(0, np.int64), np.zeros(0, np.bool_)
        self._state_ns, self._near_ns, self._sight_ns = (np.zeros(0, np.int64) for _ in range(3))
        """When the state was made, when the body stood by its person last, when any joint was seen last."""
        self._joint_ns, self._conf = np.zeros((0, len(self._joints)), np.int64), np.zeros((0, len(self._joints)), np.float32)

    def rehearse(self, layout: Skeleton) -> None:
        """Answer an instant of nobody's, so that everything is compiled and loaded before the first one."""
        one = np.ones((1, len(layout.joints)), np.float32)
        no = np.zeros((1, len(layout.joints), 3), np.float32)
        body = Poses((), layout.name, Sync(0, (), ()), "algebraic", np.zeros(1, np.int64), no, one, one, one[:, 0], one.astype(np.uint8))
        self.answer(body, [observed(body, self._joints, 0)])
        self.clear()

    def answer(self, body: Poses, instants: Sequence[Observed]) -> Poses:
        """The instant that is first of `instants`, the later ones known. body: what came with it. After an EngineError the same instant can be asked again."""
        now = instants[0]
        rows = self._take(now)
        if not len(rows):
            return self._given(body, now, rows, _NOBODY)
        owner, new = self._ids[rows], ~self._begun[rows]
        since_ns = np.where(new, now.t_ns - _FIRST_NS, self._state_ns[rows])
        window, after_s = self._network.nothing(len(rows))
        for k, instant in enumerate(instants):
            ask(owner, since_ns, k, instant.t_ns, instant.ids, instant.window, window, after_s)
        state = self._state[rows]
        if new.any():
            fresh = np.zeros_like(state[new])
            for _ in range(self._warm_up):
                fresh = self._network(fresh, window[new], after_s[new]).state
            state[new] = fresh
        step = self._network(state, window, after_s)
        self._state[rows], self._state_ns[rows] = step.state, now.t_ns
        stand(rows, now.t_ns, window, step.joints, new, _ASTRAY_M, _ASTRAY_NS, self._near_ns, self._begun)
        if self._follow is not None:
            seen, since_s = window[:, 0, :, 4] > 0, (now.t_ns - since_ns) / 1e9
            joints, moved = self._follow.step(rows, new, since_s, step.joints, window[:, 0, :, :3], seen)
            step = replace(step, joints=joints, root=step.root + moved)
        return self._given(body, now, rows, step)

    def _take(self, now: Observed) -> I64:
        """Who is seen is noted. The rows of all whom the network is asked about."""
        rows, new = self._people.rows(now.ids[now.there].tolist(), now.t_ns)
        for row in new:
            if row >= len(self._ids):
                self._grow(row)
            self._begun[row], self._joint_ns[row] = False, _NEVER
        note(now.window, now.seen, now.there, now.ids, rows, now.t_ns, self._ids, self._sight_ns, self._joint_ns, self._conf)
        awake: I64 = np.flatnonzero(now.t_ns - self._sight_ns <= self._forget_ns)
        return awake

    def _grow(self, row: int) -> None:
        known = len(self._ids)
        if self._follow is not None:
            self._follow.grow(row)
        self._state, self._ids, self._begun = grown(self._state, row), grown(self._ids, row), grown(self._begun, row)
        self._joint_ns, self._conf = grown(self._joint_ns, row), grown(self._conf, row)
        self._state_ns, self._near_ns, self._sight_ns = (grown(x, row) for x in (self._state_ns, self._near_ns, self._sight_ns))
        self._sight_ns[known:] = _NEVER

    def _given(self, body: Poses, now: Observed, rows: I64, step: Step) -> Poses:
        """The instant as it leaves: the people of `body`, then those who are given though they are not in it."""
        came, layout = body.conf.shape
        at = np.empty(len(rows), np.int64)
        span = now.t_ns, self._fill_ns
        people, seen, given = place(rows, *span, self._ids, self._joint_ns, now.ids, step.root, _APART_M, at)
        xyz_m, conf, sigma_m, reproj_px = (
            np.full((people, *x), v, np.float32) for x, v in (((layout, 3), np.nan), ((layout,), 0), ((layout,), np.nan), ((), 0))
        )
        views_used, ids = np.zeros((people, layout), np.uint8), now.ids
        xyz_m[:came], conf[:came], sigma_m[:came], reproj_px[:came], views_used[:came] = (
            body.xyz_m,
            body.conf,
            body.sigma_m,
            body.reproj_px,
            body.views_used,
        )
        pose, shape, root_m = (np.empty((people, *x.shape[1:]), np.float32) for x in (step.pose, step.shape, step.root))
        put(
            rows, at, *span, self._joint_ns, self._conf, self._joints, step.joints, step.spread, step.pose, step.shape, step.root,
            xyz_m, conf, sigma_m, views_used, pose, shape, root_m,
        )  # fmt: skip
        if people > came:
            ids = np.empty(people, np.int64)
            ids[:came] = now.ids
            ids[at[at >= came]] = self._ids[rows[at >= came]]
        for array in (xyz_m, conf, sigma_m, views_used, reproj_px, ids, pose, shape, root_m):
            readonly(array)
        tier = "held" if given and not seen else body.tier
        bodies = Bodies(MODEL, pose, shape, root_m)
        return replace(
            body, tier=tier, ids=ids, xyz_m=xyz_m, conf=conf, sigma_m=sigma_m, reproj_px=reproj_px, views_used=views_used, bodies=bodies
        )


_NOBODY = Step(*(np.zeros((0, *shape), np.float32) for shape in ((17, 3), (17,), (BONES, 6), (SHAPES,), (3,), (0,))))
