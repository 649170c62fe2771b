"""From a cube around a person to joints: heatmaps, the network, the fine step, what the whole body says of it, and the fine step once more."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from posepipe.calib.cube import cube_around, fill, fine_step
from posepipe.calib.project import undistort
from posepipe.calib.rig import Rig
from posepipe.calib.sides import Bools, exchanged_points, facing_of, mirror_of
from posepipe.calib.triangulate import Triangulated
from posepipe.calib.unproject import Cube
from posepipe.engines.posture import Placed, Posture
from posepipe.engines.volume import VolumeNetwork
from posepipe.pipeline.packet import F32, F64
from posepipe.pipeline.skeleton import COCO17

_LEAST_PEAK = 0.02
_MIRROR, _FACING = mirror_of(COCO17), facing_of(COCO17)
_SIDED = np.arange(len(_MIRROR)) != _MIRROR
_DOUBT = 0.016
"""Mean deviation that the posture states, share of the cube's side, from which on two views are asked again with their sides exchanged: in every
fifth or sixth instant of people whom two cameras see."""
_HANDED = -0.3
"""Below this a triangulated body has its sides exchanged (`Facing.handed`), if its head was found right."""
_CLEARER, _MUCH_CLEARER = 0.8, 0.6
"""That deviation must fall below this part of what it was; below the second where left is not left of forward then. Where it was not before, any fall will do."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What C views show of P people, joints of coco17. uv_px [P,C,17,2], conf [P,C,17] (0: not seen): key points as they were detected. maps
    [P,C,h,w,17], rois [P,C,4], peaks [P,C,17]: their heatmaps, as of `calib.cube.fill`. inlier_px, sigma_px [P,C]: as of `triangulate`. weights
    [P,C,17]: as of `refine`, where they were learned."""

    uv_px: F32
    conf: F32
    maps: F32
    rois: F32 | F64
    peaks: F32
    inlier_px: F64
    sigma_px: F64
    weights: F64 | None


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to see person `row`: joints whose sides are exchanged in a view [C,17], where triangulation puts the joints then (xyz_m [17,3],
    sigma_m [17], used [C,17]), and the cube."""

    row: int
    exchanged: Bools
    xyz_m: F64
    sigma_m: F64
    used: Bools
    cube: Cube


@dataclass(frozen=True, slots=True)
class InCubes:
    """The answers for N people. candidates: how each was seen for it. points: after the last step. doubt [N]: mean deviation of the joints that the posture states, share of the
    side; 0 without one."""

    candidates: list[Candidate]
    points: Triangulated
    doubt: F64


class Cubes:
    """Runs the network, and the posture if there is one. tell: is told where a cube holds nothing."""

    def __init__(
        self, rig: Rig, network: VolumeNetwork, posture: Posture | None, *, tell: Callable[[str], None] = lambda what: None
    ) -> None:
        self._rig, self._network, self._posture, self._tell = rig, network, posture, tell

    def lifted(self, shown: Shown, candidates: Sequence[Candidate]) -> Iterator[InCubes]:
        """The joints, some candidates at a time, without those in whose cube nothing is.

        Two views that take a person's front for the back, both or one of them, agree as well as two that do not: with two views triangulation cannot tell.
        The posture can: such a body is none. Where it is in doubt, or left is not left of forward, the person is lifted again with the sides of either and of both views exchanged, and
        the clearest answer stays.
        """
        for found in self._run(shown, candidates, self._tell):
            if self._posture is not None:
                self._ask_again(shown, found)
            yield found

    def _ask_again(self, shown: Shown, found: InCubes) -> None:
        """Whoever is in doubt becomes the clearest of the ways to see him."""
        turned = [_FACING.handed(c.xyz_m) < _HANDED for c in found.candidates]
        unsure = [c for c, doubt, is_turned in zip(found.candidates, found.doubt, turned, strict=True) if doubt > _DOUBT or is_turned]
        at, first = {c.row: k for k, c in enumerate(found.candidates)}, found.doubt.copy()
        for again in self._run(shown, [way for c in unsure for way in self._turned(shown, c)], _silent):
            for i, c in enumerate(again.candidates):
                k = at[c.row]
                part = _MUCH_CLEARER if _FACING.handed(c.xyz_m) < _HANDED else 1.0 if turned[k] else _CLEARER
                if again.doubt[i] < min(found.doubt[k], part * first[k]):
                    found.candidates[k], found.doubt[k] = c, again.doubt[i]
                    for name in Triangulated.__slots__:
                        getattr(found.points, name)[k] = getattr(again.points, name)[i]

    def _run(self, shown: Shown, candidates: Sequence[Candidate], tell: Callable[[str], None]) -> Iterator[InCubes]:
        ready: list[Candidate] = []
        for k, c in enumerate(candidates):
            volume = self._network.volumes[len(ready)]
            fill(
                self._rig, shown.maps[c.row], shown.peaks[c.row], shown.rois[c.row], c.exchanged, c.cube, n=self._network.cells, out=volume
            )
            if volume.max() > _LEAST_PEAK:
                ready.append(c)
            else:
                tell("nothing of the heatmaps lies in the cube around a person: triangulation alone")
            if ready and (len(ready) == len(self._network.volumes) or k + 1 == len(candidates)):
                yield self._read(shown, ready)
                ready = []

    def _read(self, shown: Shown, ready: list[Candidate]) -> InCubes:
        """Run the network on the filled volumes, and refine."""
        rows, cubes = [c.row for c in ready], [c.cube for c in ready]
        found = self._network(self._network.volumes[: len(ready)])
        how: dict[str, Any] = {"inlier_px": shown.inlier_px[rows], "sigma_px": shown.sigma_px[rows]}
        how["weights"] = None if shown.weights is None else shown.weights[rows]
        seen = shown.uv_px[rows], shown.conf[rows], np.stack([c.exchanged for c in ready])
        points, doubt = fine_step(self._rig, *seen, cubes, found.xyz, found.spread, **how), np.zeros(len(ready))
        if self._posture is not None:
            told = (
                Placed(found.xyz, found.spread, np.zeros(found.spread.shape)),
                in_cubes(points.xyz_m, points.sigma_m, points.used, cubes),
                in_cubes(
                    np.stack([c.xyz_m for c in ready]), np.stack([c.sigma_m for c in ready]), np.stack([c.used for c in ready]), cubes
                ),
            )
            shares, sigma = self._posture(*told, seen[1])
            points, doubt = fine_step(self._rig, *seen, cubes, shares, sigma, **how), sigma.mean(axis=1, dtype=np.float64)
        return InCubes(ready, points, doubt)

    def _turned(self, shown: Shown, c: Candidate) -> list[Candidate]:
        """The person with sides exchanged in either view and in both; nothing where there are not two.
        Triangulated with the heights of the peaks, also where weights were learned: those are of the views as they were."""
        views = np.flatnonzero((shown.conf[c.row] > 0).any(axis=1))
        if len(views) != 2:
            return []
        exchanged = np.repeat(c.exchanged[None], 3, axis=0)
        for k, which in enumerate((views[:1], views[1:], views)):
            exchanged[k, which] ^= _SIDED
        rays, conf = undistort(self._rig, shown.uv_px[c.row][None]), shown.conf[c.row][None].astype(np.float64)
        limits = {"inlier_px": shown.inlier_px[c.row][None], "sigma_px": shown.sigma_px[c.row][None]}
        points = exchanged_points(self._rig, rays, conf, exchanged, mirror=_MIRROR, **limits)
        cubes = [cube_around(xyz_m, side_m=c.cube.side_m) for xyz_m in points.xyz_m]
        return [
            Candidate(c.row, exchanged[k], points.xyz_m[k], points.sigma_m[k], points.used[k], cube)
            for k, cube in enumerate(cubes)
            if cube is not None
        ]


def _silent(what: str) -> None:
    """Who is only asked again was told already."""


def in_cubes(xyz_m: F64, sigma_m: F64, used: Bools, cubes: Sequence[Cube]) -> Placed:
    """Joints [N,17,3], their deviations [N,17] and the views [N,C,17] that they come from, in the people's cubes."""
    side_m = np.array([cube.side_m for cube in cubes])
    return Placed(np.stack([cube.shares(one) for one, cube in zip(xyz_m, cubes, strict=True)]), sigma_m / side_m[:, None], used.sum(axis=1))
