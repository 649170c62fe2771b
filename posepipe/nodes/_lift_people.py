"""Who is who: identities of people in space, and the packet that comes of their joints."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from posepipe.calib.triangulate import Triangulated
from posepipe.pipeline.node import NodeSettings
from posepipe.pipeline.packet import F32, F64, I64, Poses, Tier, ViewPoses, readonly
from posepipe.pipeline.skeleton import Skeleton


class PeopleSettings(NodeSettings, frozen=True):
    min_conf: Annotated[float, Meta(description="key points below this confidence are not seen", ge=0, lt=1)] = 0.2
    sigma: Annotated[float, Meta(description="noise of a certain key point, as a share of its crop's side", gt=0, lt=1)] = 0.012
    same_person_m: Annotated[float, Meta(description="how near a lost person must come back to be the same", gt=0)] = 1.0
    same_person_s: Annotated[float, Meta(description="how soon a lost person must come back to be the same", gt=0)] = 2.0


class People:
    """The identities of one studio's people. An identity is never used twice."""

    def __init__(self, layout: Skeleton, settings: PeopleSettings) -> None:
        self.settings, self.body = settings, np.array(layout.body)
        self._next_id = 0
        self._last_seen: dict[int, tuple[int, F64]] = {}

    def seen(self, v: ViewPoses) -> F32:
        """Confidences [P,C,J], 0 for what is too low to be seen."""
        return np.where(v.conf >= self.settings.min_conf, v.conf, np.float32(0))

    def poses(self, v: ViewPoses, points: Triangulated, rows: I64, t_ns: int, *, tier: Tier) -> Poses:
        """The packet of the people in those rows."""
        there = set(v.ids[rows].tolist())
        conf = points.conf[rows]
        arrays = (
            np.array([self._identity(int(v.ids[row]), there, points.xyz_m[row], t_ns) for row in rows], np.int64),
            points.xyz_m[rows].astype(np.float32),
            conf.astype(np.float32),
            np.where(conf > 0, points.sigma_m[rows], np.nan).astype(np.float32),
            np.array([_median(points.residual_px[row][points.used[row]]) for row in rows], np.float32),
            points.used[rows].sum(axis=1, dtype=np.uint8),
        )
        for array in arrays:
            readonly(array)
        return Poses(v.cameras, v.skeleton, v.sync, tier, *arrays)

    def _identity(self, known: int, there: set[int], xyz_m: F64, t_ns: int) -> int:
        body_m = xyz_m[self.body]
        centre_m = body_m[np.isfinite(body_m[:, 0])].mean(axis=0)
        if known < 0:
            known = self._lost_near(centre_m, there, t_ns)
        if known < 0:
            known, self._next_id = self._next_id, self._next_id + 1
        self._last_seen[known] = (t_ns, centre_m)
        return known

    def _lost_near(self, centre_m: F64, there: set[int], t_ns: int) -> int:
        """The identity of someone lost near here and not long ago (none of those who are `there`), -1 for nobody."""
        since_ns = t_ns - int(self.settings.same_person_s * 1e9)
        self._last_seen = {p: seen for p, seen in self._last_seen.items() if seen[0] >= since_ns}
        near = {p: float(np.linalg.norm(at - centre_m)) for p, (t, at) in self._last_seen.items() if t < t_ns and p not in there}
        best = min(near, key=lambda p: near[p], default=-1)
        return best if best >= 0 and near[best] <= self.settings.same_person_m else -1


def _median(residuals_px: NDArray[np.floating[Any]]) -> float:
    """numpy's own takes five times as long for so few numbers."""
    count = residuals_px.size
    if not count:
        return 0.0
    ordered = np.sort(residuals_px)
    return float(0.5 * (ordered[(count - 1) // 2] + ordered[count // 2]))
