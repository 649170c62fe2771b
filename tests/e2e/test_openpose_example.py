"""examples/openpose.yaml on the real recording, with smaller pictures. Skipped, saying what is missing, until it was pulled."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from studio_files import free_port

from posepipe.engines.assets import asset
from posepipe.pipeline.skeleton import COCO17

EXAMPLE = Path(__file__).parents[2] / "examples" / "openpose.yaml"
NEEDED = ("pose2sim.single", "openpose.light")

pytestmark = [
    pytest.mark.recording,
    pytest.mark.skipif(
        not all(asset(n).present() for n in NEEDED),
        reason=f"needs {', '.join(n for n in NEEDED if not asset(n).present())}: POSEPIPE_MIRROR=DIR posepipe pull {' '.join(NEEDED)}",
    ),
]


def test_the_performer_is_found_and_has_the_right_size(tmp_path: Path) -> None:
    graph: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text())
    graph["nodes"]["publish"]["bind"] = f"tcp://127.0.0.1:{free_port()}"
    graph["nodes"]["people"]["short_px"] = 144
    graph["nodes"]["record"] = {"use": "record.jsonl", "from": "smooth", "file": "out.jsonl"}
    (tmp_path / "studio.yaml").write_text(yaml.safe_dump(graph, sort_keys=False))
    line = [sys.executable, "-m", "posepipe", "run", "studio.yaml", "--offline", "--summary", "s.json"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "s.json").read_text())
    assert (figures["captured"], figures["published"], figures["balance"]) == (400, 400, 0)
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
