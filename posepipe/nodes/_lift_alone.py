"""What a lift of several views does about people whom fewer than two views show: one view is lifted by a network, and nothing jumps."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from posepipe.calib.limbs import limbs_of
from posepipe.calib.rig import Rig
from posepipe.calib.triangulate import Triangulated
from posepipe.engines.engine import EngineOptions
from posepipe.pipeline.packet import F32, F64, I64, ViewPoses
from posepipe.pipeline.skeleton import Skeleton

from ._lift_single import SingleView

_WELL_M = 0.05
_LEARN = 0.1
_FORGET_NS = 500_000_000


@dataclass(slots=True)
class _Person:
    """limbs_m [L]: their lengths where several views measured them, NaN until then. given_m [J,3] and speed_m_s: of the last skeleton, at t_ns.
    offset_m: what is still to be taken back of the difference at the last change, which was at since_ns."""

    limbs_m: F64
    given_m: F64
    speed_m_s: F64
    offset_m: F64
    alone: bool = False
    t_ns: int = 0
    since_ns: int = field(default=-(1 << 62))


class Alone:
    """An opened lifter for people without two views. A person's own limbs, measured while several views showed them, say how large the lifted skeleton
    is. A change between lifted and triangulated begins where the last skeleton was going, and is over after blend_s."""

    def __init__(self, name: str, options: EngineOptions, rig: Rig, layout: Skeleton, *, sigma: float, blend_s: float) -> None:
        self._single = SingleView(name, options, rig, layout, sigma=sigma)
        self.engine = self._single.engine
        self._limbs, self._blend_s = limbs_of(layout), blend_s
        self._people: dict[int, _Person] = {}

    def fill(self, v: ViewPoses, conf: F32, points: Triangulated, rows: I64, t_ns: int) -> tuple[Triangulated, I64, NDArray[np.bool_]]:
        """The points with those of the people in no row put in, the rows of all who are there, and which people [P] were lifted."""
        lifted = np.zeros(len(v.ids), np.bool_)
        there = np.zeros(len(v.ids), np.bool_)
        there[rows] = True
        missing = np.flatnonzero(~there)
        if len(missing):
            found = self._single.lift(v, conf, missing, limbs=self._limbs, known_m=self._known_m(v, missing))
            lifted[np.flatnonzero((found.conf > 0).any(axis=1))] = True
            points = _merged(points, found, lifted)
        rows = np.flatnonzero(there | lifted)
        points = replace(points, xyz_m=points.xyz_m.copy())
        for row in rows:
            if v.ids[row] >= 0:
                self._follow(int(v.ids[row]), points, int(row), bool(lifted[row]), t_ns)
        self._people = {who: p for who, p in self._people.items() if t_ns - p.t_ns < 20 * _FORGET_NS}
        return points, rows, lifted

    def close(self) -> None:
        """Close the network."""
        self._single.close()

    def _known_m(self, v: ViewPoses, rows: I64) -> F64:
        known = np.full((len(rows), len(self._limbs)), np.nan)
        for k, row in enumerate(rows):
            if (person := self._people.get(int(v.ids[row]))) is not None:
                known[k] = person.limbs_m
        return known

    def _follow(self, who: int, points: Triangulated, row: int, alone: bool, t_ns: int) -> None:
        new_m = points.xyz_m[row].copy()
        person = self._people.get(who)
        if person is None:
            nothing = np.zeros_like(new_m)
            person = self._people[who] = _Person(np.full(len(self._limbs), np.nan), new_m, nothing, nothing, alone, t_ns)
        age_s = (t_ns - person.t_ns) / 1e9
        if not 0 <= t_ns - person.t_ns < _FORGET_NS:
            person.offset_m, person.speed_m_s, age_s = np.zeros_like(new_m), np.zeros_like(new_m), 0.0
        elif alone != person.alone:
            person.offset_m = np.nan_to_num(person.given_m + person.speed_m_s * age_s - new_m)
            person.since_ns = t_ns
        left = max(0.0, 1 - (t_ns - person.since_ns) / 1e9 / self._blend_s) if self._blend_s > 0 else 0.0
        out_m = new_m + person.offset_m * (left * left * (3 - 2 * left))
        if age_s > 0:
            person.speed_m_s = np.nan_to_num((out_m - person.given_m) / age_s)
        if not alone:
            self._measure(person, new_m, points.sigma_m[row])
        person.given_m, person.alone, person.t_ns = out_m, alone, t_ns
        points.xyz_m[row] = out_m

    def _measure(self, person: _Person, xyz_m: F64, sigma_m: F64) -> None:
        a, b = self._limbs.T
        now = np.where((sigma_m[a] < _WELL_M) & (sigma_m[b] < _WELL_M), np.linalg.norm(xyz_m[a] - xyz_m[b], axis=1), np.nan)
        before = np.where(np.isfinite(person.limbs_m), person.limbs_m, now)
        person.limbs_m = np.where(np.isfinite(now), before + _LEARN * (now - before), before)


def _merged(points: Triangulated, found: Triangulated, lifted: NDArray[np.bool_]) -> Triangulated:
    one, three = lifted[:, None], lifted[:, None, None]
    return Triangulated(
        np.where(three, found.xyz_m, points.xyz_m), np.where(one, found.conf, points.conf), np.where(one, found.sigma_m, points.sigma_m),
        np.where(three, found.residual_px, points.residual_px), np.where(three, found.used, points.used),
    )  # fmt: skip
