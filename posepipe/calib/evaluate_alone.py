"""What a run says of itself, where there is no truth: how steady and how complete its skeletons are.

None of it is accuracy: a skeleton that stands still in the wrong place is steady. Limbs that keep their length, and sides that are
alike, are what an error in space cannot leave alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from posepipe.pipeline.packet import F64, I64
from posepipe.pipeline.skeleton import Skeleton, skeleton

from . import metrics
from .evaluate import Joints, Run, joints_compared
from .evaluate_figures import PARTS, mean_mm, percentile, rounded, share
from .limbs import limbs_of
from .project import project
from .rig import Rig

_ANKLES = ("left_ankle", "right_ankle")


def figures_alone(run: Run, *, rig: Rig | None = None, joints: Joints = "body") -> dict[str, Any]:
    """The figures that need nothing but skeletons, as plain data (docs/eval.md), over all and per identity.

    rig: the calibration of the run's cameras; with it, how many pictures each joint lies in.
    """
    layout = skeleton(run.skeleton)
    columns = [layout.index(name) for name in joints_compared(layout, joints)]
    in_pictures = _pictures(run, rig) if rig is not None else None
    people = {int(one): _person(run, layout, columns, np.flatnonzero(run.ids == one)) for one in np.unique(run.ids)}
    seen = metrics.known(run.xyz_m)
    bends = [_bends(run, columns, np.flatnonzero(run.ids == one)) for one in people]
    per_instant = np.bincount(run.instant, minlength=len(run.seq))
    return {
        "instants": {"recorded": len(run.seq), "seconds": rounded((run.t_ns[-1] - run.t_ns[0]) / 1e9, 3) if len(run.seq) else None},
        "people": {"identities": len(people), "per_instant": rounded(per_instant.mean(), 2) if len(run.seq) else None},
        "joints_seen": share(seen[:, columns]),
        "acceleration_mm_per_frame2": percentile(np.concatenate(bends) if bends else np.empty(0), 50),
        "reproj_px_published": percentile(run.reproj_px, 50),
        "reproj_px_published_p95": percentile(run.reproj_px, 95),
        "in_pictures": rounded(in_pictures[:, columns][seen[:, columns]].mean(), 2)
        if in_pictures is not None and seen[:, columns].any()
        else None,
        "per_person": people,
        "warnings": [],
    }


def _person(run: Run, layout: Skeleton, columns: list[int], rows: I64) -> dict[str, Any]:
    xyz, limbs = run.xyz_m[rows], limbs_of(layout)
    length = np.linalg.norm(xyz[:, limbs[:, 1]] - xyz[:, limbs[:, 0]], axis=-1)
    return {
        "instants": len(rows),
        "joints_seen": share(metrics.known(xyz[:, columns])),
        "limb_mm": {part: [mean_mm(length[:, 2 * k + side] * 1e3) for side in (0, 1)] for k, part in enumerate(PARTS)},
        "limb_variation_percent": {part: [_variation(length[:, 2 * k + side]) for side in (0, 1)] for k, part in enumerate(PARTS)},
        "acceleration_mm_per_frame2": percentile(_bends(run, columns, rows), 50),
        "reproj_px_published": percentile(run.reproj_px[rows], 50),
        "lowest_ankle_m": rounded(_lowest(xyz[:, [layout.index(name) for name in _ANKLES], 2]), 3),
    }


def _bends(run: Run, columns: list[int], rows: I64) -> F64:
    """Lengths of the accelerations of a person's joints, mm per frame^2, flat."""
    if len(rows) < 3:
        return np.empty(0)
    bend: F64 = np.linalg.norm(metrics.second_differences(run.xyz_m[rows][:, columns], run.seq[run.instant[rows]]), axis=-1) * 1e3
    return bend.ravel()


def _variation(length_m: F64) -> float | None:
    """Standard deviation of a limb's length in percent of its mean."""
    known = length_m[np.isfinite(length_m)]
    return rounded(known.std() / known.mean() * 100, 2) if len(known) > 1 and known.mean() > 0 else None


def _lowest(height_m: F64) -> float:
    """What a foot on the floor shows: the first percentile of the ankles' heights."""
    known = height_m[np.isfinite(height_m)]
    return float(np.percentile(known, 1)) if known.size else float("nan")


def _pictures(run: Run, rig: Rig) -> I64:
    """[R,J] in how many cameras' pictures a joint lies, if nothing stands in front."""
    flat = np.nan_to_num(run.xyz_m, nan=1e6).reshape(-1, 3)
    count: I64 = project(rig, flat).visible.sum(0).reshape(run.xyz_m.shape[:2])
    return count
