"""The measures of a run against its truth, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posepipe.pipeline.packet import F64
from posepipe.pipeline.skeleton import COCO17, Skeleton, skeleton

from . import metrics
from .evaluate import Matched, Run
from .limbs import limbs_of
from .project import project
from .rig import Rig
from .synthetic_truth import Truth

PCK_MM = np.arange(0, 201, 5)
PARTS = ("thigh", "shin", "upper_arm", "forearm")


def figures(matched: Matched, run: Run, truth: Truth, *, rig: Rig | None = None) -> dict[str, Any]:
    """All measures as plain data (JSON; docs/eval.md says what each is): millimetres, None where there is nothing to measure.

    rig: the calibration of the run's cameras, in their order, for the reprojection error.
    """
    layout, there = skeleton(run.skeleton), matched.present
    truth_m, estimate, row = matched.truth_m[there], matched.estimate_m[there], matched.row[there]
    found = row >= 0
    errors = _Errors.of(estimate, truth_m, matched.joints)
    absolute = errors.absolute
    pck = metrics.correct_keypoints(absolute / 1e3, int(metrics.known(truth_m).sum()), PCK_MM / 1e3)
    visible = matched.visible[there]
    cameras = np.broadcast_to(matched.cameras[:, None, None], matched.visible.shape)[there]
    tier = np.broadcast_to(np.array(matched.tier)[:, None, None], matched.visible.shape)[there]
    every = np.ones_like(cameras, np.bool_)
    out: dict[str, Any] = {
        "instants": {"recorded": len(run.seq), "compared": len(matched.seq), "outside": matched.skipped},
        "people": {
            "true": len(row),
            "matched": int(found.sum()),
            "missed": int((~found).sum()),
            "ghosts": int(matched.ghosts.sum()),
            "identity_changes": _identity_changes(matched, run),
        },
        "joints_seen": share(np.isfinite(absolute[found])),
        "mpjpe_mm": mean_mm(absolute),
        "median_mm": percentile(absolute, 50),
        "p95_mm": percentile(absolute, 95),
        "root_relative_mpjpe_mm": mean_mm(errors.relative),
        "pa_mpjpe_mm": mean_mm(errors.aligned),
        "acceleration_error_mm_per_frame2": _acceleration(matched),
        "reproj_px": _reprojection(matched, run, truth, rig) if rig is not None else None,
        "reproj_px_published": percentile(run.reproj_px, 50),
        "pck": {
            "mm": PCK_MM.tolist(),
            "share": pck.round(4).tolist(),
            "auc": rounded(metrics.area_under(pck), 4),
            "at_150": rounded(pck[PCK_MM.tolist().index(150)], 4),
        },
        "pcp": _parts(estimate, truth_m, matched.joints, layout),
        "per_joint": errors.per_joint(matched.joints, found),
        "by_visible": _groups("cameras", absolute, visible, known=visible >= 0),
        "by_cameras": _groups("cameras", absolute, cameras, known=every),
        "by_tier": _groups("tier", absolute, tier, known=every),
    }
    if run.views_used is not None:
        used = run.views_used[row[found]][:, [layout.index(n) for n in matched.joints]]
        out["by_views_used"] = _groups("views", absolute[found], used, known=np.isfinite(absolute[found]))
    return {**out, "warnings": list(matched.warnings)}


@dataclass(frozen=True, slots=True, eq=False)
class _Errors:
    """[N,K] distances in millimetres: as they are, seen from the hips, and after the best similarity."""

    absolute: F64
    relative: F64
    aligned: F64

    @classmethod
    def of(cls, estimate: F64, truth_m: F64, names: tuple[str, ...]) -> _Errors:
        hips = [names.index("left_hip"), names.index("right_hip")]
        relative = metrics.distances(metrics.centred(estimate, hips), metrics.centred(truth_m, hips))
        aligned = metrics.distances(metrics.aligned(estimate, truth_m), truth_m)
        return cls(metrics.distances(estimate, truth_m) * 1e3, relative * 1e3, aligned * 1e3)

    def per_joint(self, names: tuple[str, ...], found: metrics.Bools) -> dict[str, dict[str, float | None]]:
        return {
            name: {
                "mpjpe_mm": mean_mm(self.absolute[:, k]),
                "p95_mm": percentile(self.absolute[:, k], 95),
                "root_relative_mm": mean_mm(self.relative[:, k]),
                "pa_mm": mean_mm(self.aligned[:, k]),
                "seen": share(np.isfinite(self.absolute[found, k])),
            }
            for k, name in enumerate(names)
        }


def instant_errors_mm(matched: Matched) -> F64:
    """[M,P] mean distance of every person's joints in every instant; NaN where missed or absent."""
    return metrics.mean_known(metrics.distances(matched.estimate_m, matched.truth_m)) * 1e3


def _groups(key: str, off_mm: F64, value: NDArray[Any], *, known: metrics.Bools) -> list[dict[str, Any]]:
    """Joints with the same value together: their errors, and the share of them that has no estimate."""
    rows = []
    for one in np.unique(value[known]):
        here = off_mm[known & (value == one)]
        figures = {"joints": here.size, "missing": share(~np.isfinite(here)), "mpjpe_mm": mean_mm(here), "p95_mm": percentile(here, 95)}
        rows.append({key: one.item(), **figures})
    return rows


def _acceleration(matched: Matched) -> float | None:
    people = range(matched.row.shape[1])
    off = [metrics.acceleration_errors(matched.estimate_m[:, p], matched.truth_m[:, p], matched.seq) for p in people]
    return mean_mm(np.stack(off) * 1e3) if off else None


def _parts(estimate: F64, truth_m: F64, names: tuple[str, ...], layout: Skeleton) -> dict[str, Any]:
    limbs = np.array([[names.index(layout.joints[a]), names.index(layout.joints[b])] for a, b in limbs_of(layout)], np.int64)
    correct = metrics.correct_parts(estimate, truth_m, limbs)
    each = {part: rounded(_mean(correct[:, 2 * k : 2 * k + 2]), 4) for k, part in enumerate(PARTS)}
    return {**each, "mean": rounded(_mean(correct), 4)}


def _identity_changes(matched: Matched, run: Run) -> int:
    changes = 0
    for person in range(matched.row.shape[1]):
        rows = matched.row[matched.row[:, person] >= 0, person]
        changes += int((np.diff(run.ids[rows]) != 0).sum())
    return changes


def _reprojection(matched: Matched, run: Run, truth: Truth, rig: Rig) -> dict[str, Any]:
    """Where the skeletons' joints appear in the pictures against where the true ones do, where they are visible."""
    names = [n for n in matched.joints if n in COCO17.joints]
    estimate = matched.estimate_m[:, :, [matched.joints.index(n) for n in names]]
    frame = matched.frame
    columns = [COCO17.index(n) for n in names]
    seen = project(rig, np.nan_to_num(estimate, nan=1e6).reshape(-1, 3)).uv_px.reshape(len(rig), *estimate.shape[:3], 2)
    error = {}
    for c, name in enumerate(run.cameras):
        there = truth.cameras.index(name)
        true_px = truth.coco17_uv_px[there][:, frame][:, :, columns].transpose(1, 0, 2, 3)
        good = truth.coco17_visible[there][:, frame][:, :, columns].transpose(1, 0, 2) & metrics.known(estimate)
        error[name] = np.linalg.norm(seen[c] - true_px, axis=-1)[good]
    every = np.concatenate(list(error.values()))
    each = {name: percentile(one, 50) for name, one in error.items()}
    return {"median": percentile(every, 50), "p95": percentile(every, 95), "cameras": each}


def _mean(values: F64) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else float("nan")


def share(which: metrics.Bools) -> float | None:
    return rounded(which.mean(), 4) if which.size else None


def rounded(value: float, decimals: int) -> float | None:
    return round(float(value), decimals) if np.isfinite(value) else None


def mean_mm(values: F64) -> float | None:
    return rounded(_mean(values), 2)


def percentile(values: F64, q: float) -> float | None:
    known = values[np.isfinite(values)]
    return rounded(float(np.percentile(known, q)), 2) if known.size else None
