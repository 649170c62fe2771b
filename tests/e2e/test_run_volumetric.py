"""Studios with a volume, as a user types them: in one process, with heatmaps between two, and refused for a rig in millimetres."""

from __future__ import annotations

import re

import pytest
from studio_files import Listener, StudioFiles


@pytest.mark.parametrize("process", ["main", "eyes"])
def test_every_instant_says_its_tier(hall: StudioFiles, process: str) -> None:
    hall.nodes["heatmaps"]["process"] = process
    hall.nodes["pose3d"] = {"use": "lift.volumetric", "from": "heatmaps", "engine": "stub"}
    listener = Listener(hall.address)
    offline = ("--offline",) if process == "main" else ()
    done = hall.run("--await-subscribers", "1", *offline)
    instants = listener.stop()
    assert done.returncode == 0, done.stderr
    assert "pose3d stub on stub" in re.sub(r"\s+", " ", done.stdout)
    assert len(instants) >= (30 if offline else 1)
    # The stub's person is the same in every picture, which no body can be: now and then the views do not agree enough.
    tiers = {i["tier"] for i in instants}
    assert "volumetric" in tiers
    assert tiers <= {"volumetric", "algebraic", "held"}
    assert any(i["people"] for i in instants if i["tier"] == "volumetric")


def test_a_rig_in_millimetres_is_refused_before_the_start(hall: StudioFiles) -> None:
    rig = hall.folder / "hall.rig.toml"
    lines = rig.read_text().splitlines()
    for k, line in enumerate(lines):
        if line.startswith("camera_from_world"):
            rows = re.findall(r"\[([^\[\]]+)\]", line)
            rows = [", ".join((*row.split(", ")[:3], str(1000 * float(row.split(", ")[3])))) for row in rows]
            lines[k] = f"camera_from_world = [{', '.join(f'[{row}]' for row in rows)}]"
    rig.write_text("\n".join(lines) + "\n")
    hall.nodes["pose3d"] = {"use": "lift.auto", "from": "heatmaps", "engine": "stub"}
    done = hall.run("--offline")
    assert done.returncode != 0
    said = re.sub(r"\s+", " ", done.stderr)
    assert "hall.rig.toml: cameras stand 6928 m apart, so the calibration looks like millimetres" in said
    assert "divide the last column of every camera_from_world by 1000" in said
