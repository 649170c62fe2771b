"""The main job on the real four-camera recording, and on pictures without anybody. Skipped, saying what is missing, until it was pulled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import encode
from example_kit import example, needs, run_offline
from studio_files import SIZE, Listener, StudioFiles

from posepipe.pipeline.skeleton import BLAZEPOSE33

pytestmark = needs("pose2sim.single", "blazepose.full", "blazepose.detector")
Array = np.ndarray[Any, np.dtype[np.float64]]


def recorded(folder: Path) -> list[dict[str, Any]]:
    """The example, offline, recorded."""
    graph = example("algebraic.yaml")
    graph["nodes"]["record"] = {"use": "record.jsonl", "from": "smooth", "file": "out.jsonl"}
    run_offline(graph, folder, frames=400, timeout_s=120)
    return [json.loads(row) for row in (folder / "out.jsonl").read_text().splitlines()[1:]]


@pytest.fixture(scope="module")
def instants(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return recorded(tmp_path_factory.mktemp("recording"))


def track(instants: list[dict[str, Any]]) -> Array:
    """The performer [T,33,3] in metres, of the instants that have somebody."""
    return np.array([m["people"][0]["xyz_m"] for m in instants if m["people"]], np.float64)


def length_m(xyz_m: Array, a: str, b: str) -> Array:
    return np.asarray(np.linalg.norm(xyz_m[:, BLAZEPOSE33.index(a)] - xyz_m[:, BLAZEPOSE33.index(b)], axis=1))


def test_the_performer_is_followed_through_every_instant(instants: list[dict[str, Any]]) -> None:
    assert [m["seq"] for m in instants] == list(range(100))
    assert sum(len(m["people"]) == 1 for m in instants) >= 98
    assert len({p["id"] for m in instants for p in m["people"]}) == 1


def test_it_is_the_performer_and_no_bystander(instants: list[dict[str, Any]]) -> None:
    """The bystander stands still beside the treadmill; the performer's hips move through the middle of the studio by more than half a metre."""
    hips = track(instants)[:, [BLAZEPOSE33.index("left_hip"), BLAZEPOSE33.index("right_hip")]].mean(axis=1)
    assert np.ptp(hips, axis=0).max() > 0.3
    assert np.abs(np.diff(hips, axis=0)).max() < 0.1, "the hips jump: another person was taken for the performer"


def test_skeletons_are_metric_upright_and_steady(instants: list[dict[str, Any]]) -> None:
    xyz_m = track(instants)
    for side in ("left", "right"):
        for a, b, shortest_m, longest_m, variation in (
            ("hip", "knee", 0.36, 0.46, 0.05),
            ("knee", "ankle", 0.34, 0.44, 0.05),
            ("shoulder", "elbow", 0.23, 0.33, 0.05),
            ("elbow", "wrist", 0.21, 0.31, 0.07),
        ):
            limb = length_m(xyz_m, f"{side}_{a}", f"{side}_{b}")
            assert shortest_m < limb.mean() < longest_m, (side, a, b)
            assert limb.std() / limb.mean() <= variation, (side, a, b)
    z = xyz_m[:, :, 2]
    assert (z[:, BLAZEPOSE33.index("nose")] > z[:, BLAZEPOSE33.index("left_ankle")] + 0.8).all()
    assert np.abs(np.nanmin(z, axis=1)).max() < 0.4, "the feet are not near the floor"


def test_the_error_is_small_and_movement_is_smooth(instants: list[dict[str, Any]]) -> None:
    people = [m["people"][0] for m in instants if m["people"]]
    assert np.median([p["reproj_px"] for p in people]) <= 12
    body_m = track(instants)[:, list(BLAZEPOSE33.body)]
    acceleration_mm = np.linalg.norm(np.diff(body_m, 2, axis=0), axis=-1) * 1e3
    assert np.nanmedian(acceleration_mm) <= 5
    sigma_mm = np.array([p["sigma_m"] for p in people], np.float64)[:, list(BLAZEPOSE33.body)] * 1e3
    assert 1 < np.nanmedian(sigma_mm) < 50


def test_another_run_gives_the_same_skeletons(instants: list[dict[str, Any]], tmp_path: Path) -> None:
    """To the last digit; only the time that the recording is played at is another."""
    runs = [[{**m, "t_capture_ns": m["t_capture_ns"] - run[0]["t_capture_ns"]} for m in run] for run in (instants, recorded(tmp_path))]
    assert runs[0] == runs[1]


def test_nobody_in_the_picture(hall: StudioFiles) -> None:
    for clip in hall.folder.glob("*.mp4"):
        encode(clip, 12, size=SIZE, blank=True)
    hall.nodes["heatmaps"]["engine"] = "blazepose.full"
    listener = Listener(hall.address)
    done = hall.run("--offline", "--await-subscribers", "1", "--summary", "s.json")
    messages = listener.stop()
    assert done.returncode == 0, done.stderr
    assert [m["people"] for m in messages] == [[]] * 12
    figures = json.loads((hall.folder / "s.json").read_text())
    assert figures["people"] == 0
    assert figures["published"] == 36
    assert "nobody in view" in done.stdout
