"""A studio whose file names the truth of what its cameras play."""

from __future__ import annotations

import json

import pytest
import truth_kit as kit
from studio_files import StudioFiles


@pytest.fixture
def told(hall: StudioFiles) -> StudioFiles:
    kit.write(hall.folder / "synthetic", kit.truth(frames=30, fps=30.0, crowd=1))
    hall.graph["truth"] = "synthetic"
    return hall


def test_an_offline_run_states_how_far_off_it_was(told: StudioFiles) -> None:
    done = told.run("--offline", "--summary", "summary.json")
    assert done.returncode == 0, done.stderr
    truth = json.loads((told.folder / "summary.json").read_text())["truth"]
    assert truth["instants"] == {"recorded": 30, "compared": 30, "outside": 0}
    assert truth["people"]["true"] == 30
    assert {"mpjpe_mm", "p95_mm", "pa_mpjpe_mm", "per_joint_mm"} <= set(truth)
    assert "against the truth:" in done.stdout


def test_a_truth_of_other_cameras_is_refused_before_the_run(told: StudioFiles) -> None:
    kit.write(told.folder / "synthetic", kit.truth(cameras=2))
    for command in ("check", "run"):
        done = told.run(command=command)
        assert done.returncode == 2
        assert "studio.yaml" in done.stderr
        assert "camera 'south' is not in the truth" in done.stderr
