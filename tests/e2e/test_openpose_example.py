"""examples/openpose.yaml on the real recording, with smaller pictures. Skipped, saying what is missing, until it was pulled."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from example_kit import example, needs, run_offline

from posepipe.pipeline.skeleton import COCO17

pytestmark = needs("pose2sim.single", "openpose.light", how="POSEPIPE_MIRROR=DIR posepipe pull")


def test_the_performer_is_found_and_has_the_right_size(tmp_path: Path) -> None:
    graph = example("openpose.yaml")
    graph["nodes"]["people"]["short_px"] = 144
    graph["nodes"]["record"] = {"use": "record.jsonl", "from": "smooth", "file": "out.jsonl"}
    run_offline(graph, tmp_path, frames=400)
    rows = [json.loads(row) for row in (tmp_path / "out.jsonl").read_text().splitlines()[1:]]
    assert {row["skeleton"] for row in rows if "skeleton" in row} <= {"coco17"}
    found = [row["people"][0] for row in rows if row["people"]]
    assert len(found) >= 90
    nowhere = [np.nan] * 3
    xyz_m = np.array([[joint or nowhere for joint in person["xyz_m"]] for person in found], np.float64)
    assert xyz_m.shape[1:] == (17, 3)
    for bone, (least_m, most_m) in {
        ("hip", "knee"): (0.34, 0.48),
        ("knee", "ankle"): (0.34, 0.45),
        ("elbow", "wrist"): (0.2, 0.31),
    }.items():
        for side in ("left", "right"):
            a, b = (xyz_m[:, COCO17.index(f"{side}_{part}")] for part in bone)
            assert least_m < np.nanmedian(np.linalg.norm(a - b, axis=1)) < most_m
    assert np.nanmedian([person["reproj_px"] for person in found]) < 20
