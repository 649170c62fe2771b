"""The figures of `posepipe eval` as a PNG. matplotlib is imported when a picture is asked for."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from posepipe.calib.evaluate import Matched, Run
from posepipe.calib.evaluate_figures import instant_errors_mm
from posepipe.pipeline.errors import PosepipeError

_ABSOLUTE, _RELATIVE = "#2b6cb0", "#dd8452"
_LEGEND = 12


def check() -> None:
    """PosepipeError when pictures cannot be drawn here."""
    if importlib.util.find_spec("matplotlib") is None:
        raise PosepipeError("a picture needs matplotlib, which is not installed", where="--png", hint="pip install 'posepipe[synth]'")


def draw(file: Path, found: Mapping[str, Any], matched: Matched | None, run: Run) -> None:
    """Write the picture: of a run against its truth, or of a run alone. OSError when it cannot be written."""
    check()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 8), layout="constrained")
    if matched is not None:
        _against_truth(figure, found, matched)
    else:
        _alone(figure, found, run)
    figure.savefig(file, dpi=100, format="png")


def _against_truth(figure: Any, found: Mapping[str, Any], matched: Matched) -> None:
    (joints, curve), (time, views) = figure.subplots(2, 2)
    figure.suptitle(f"MPJPE {_mm(found['mpjpe_mm'])}, p95 {_mm(found['p95_mm'])}, aligned {_mm(found['pa_mpjpe_mm'])}")
    rows = found["per_joint"]
    at = np.arange(len(rows))
    joints.bar(at - 0.2, [r["mpjpe_mm"] or 0 for r in rows.values()], 0.4, label="absolute", color=_ABSOLUTE)
    joints.bar(at + 0.2, [r["root_relative_mm"] or 0 for r in rows.values()], 0.4, label="seen from the hips", color=_RELATIVE)
    joints.plot(at - 0.2, [r["p95_mm"] or 0 for r in rows.values()], "k_", markersize=12, label="p95, absolute")
    joints.set_xticks(at, [name.replace("_", " ") for name in rows], rotation=60, ha="right", fontsize=8)
    joints.margins(y=0.35)
    _label(joints, "each joint", "", "error, mm")

    pck = found["pck"]
    curve.plot(pck["mm"], np.array(pck["share"]) * 100, color=_ABSOLUTE, label=f"all joints, area {(pck['auc'] or 0) * 100:.1f} %")
    curve.set_ylim(0, 102)
    _label(curve, "joints within a distance of the truth (PCK)", "distance, mm", "share, %")

    errors = instant_errors_mm(matched)
    for person in range(errors.shape[1]):
        time.plot(matched.t_s, errors[:, person], linewidth=1, label=f"person {person}")
    time.set_ylim(bottom=0)
    _label(time, "each instant (a gap: missed or absent)", "time in the recording, s", "mean error, mm")

    groups = [r for r in found["by_visible"] if r["mpjpe_mm"] is not None]
    views.bar([r["cameras"] for r in groups], [r["mpjpe_mm"] for r in groups], color=_ABSOLUTE, label="mean")
    views.plot([r["cameras"] for r in groups], [r["p95_mm"] for r in groups], "k_", markersize=16, label="p95")
    views.set_xticks([r["cameras"] for r in groups])
    views.margins(y=0.3)
    _label(views, "by the number of cameras that truly see the joint", "cameras", "error, mm")


def _alone(figure: Any, found: Mapping[str, Any], run: Run) -> None:
    limbs, time = figure.subplots(2, 1)
    figure.suptitle("a run without truth: steadiness, not accuracy")
    people = found["per_person"]
    for k, (person, row) in enumerate(people.items()):
        names = [f"{side} {part.replace('_', ' ')}" for part in row["limb_variation_percent"] for side in ("left", "right")]
        values = [v or 0 for pair in row["limb_variation_percent"].values() for v in pair]
        limbs.bar(np.arange(len(names)) + 0.8 * k / len(people), values, 0.8 / len(people), label=f"person {person}", align="edge")
        limbs.set_xticks(np.arange(len(names)) + 0.4, names)
    _label(limbs, "how much the length of each limb varies", "", "standard deviation, % of the mean")
    for person in people:
        rows = run.ids == person
        seconds = (run.t_ns[run.instant[rows]] - run.t_ns[0]) / 1e9
        time.plot(seconds, run.reproj_px[rows], linewidth=1, label=f"person {person}")
    _label(time, "published reprojection error", "seconds", "px")


def _label(axes: Any, title: str, x: str, y: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    if 0 < len(axes.get_legend_handles_labels()[1]) <= _LEGEND:
        axes.legend(fontsize=8)


def _mm(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} mm"
