"""`truth:` of a studio file: what is refused before the start, what is heard, and what the summary says."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import people
import pytest
import studio_kit
import truth_kit as kit
from rich.console import Console

from posepipe.calib import save_rig
from posepipe.calib.synthetic_truth import Truth
from posepipe.launch import studio
from posepipe.launch.machine import Machine
from posepipe.launch.report import print_summary, summary
from posepipe.launch.truth import Witness, witness
from posepipe.pipeline.errors import GraphError, PosepipeError, RunError
from posepipe.pipeline.packet import Packet, Poses, Sync

STUDIO = """\
studio: hall
rig: hall.rig.toml
truth: synthetic
nodes:
  capture: {use: capture.video, each: {north: north.mp4, east: east.mp4}}
  instants: {use: sync.instant, from: capture}
  heatmaps: {use: heatmap.topdown, from: instants, engine: stub}
  pose3d: {use: lift.algebraic, from: heatmaps}
  publish: {use: publish.zmq, from: pose3d, bind: "tcp://127.0.0.1:5570"}
"""
START_NS = 1_700_000_000_000_000_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_rig(people.ring(3), tmp_path / "hall.rig.toml")
    kit.write(tmp_path / "synthetic", kit.truth())
    return tmp_path


def asked(folder: Path, *change: str) -> Witness | None:
    (folder / "hall.yaml").write_text(STUDIO.replace(*change) if change else STUDIO)
    return witness(studio.complete(studio.load(folder / "hall.yaml")))


def test_the_truth_lies_beside_the_studio_file(folder: Path) -> None:
    told = asked(folder)
    assert told is not None
    assert told.truth.cameras == ("north", "east", "south"), "a studio may leave cameras out"
    assert asked(folder, "truth: synthetic\n", "") is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("truth: synthetic", "truth: none", "hall.yaml:3: truth: there is no folder {folder}/none\n  -> name the folder"),
        (
            "truth: synthetic",
            "truth: [a]",
            "hall.yaml:3: truth is ['a'], want a folder\n  -> truth: FOLDER, as posepipe synth render wrote it",
        ),
        ("truth: synthetic", "truth: .", "is no synthetic recording: it has no scene.json"),
        (
            "east: east.mp4",
            "west: east.mp4",
            "hall.yaml:3: camera 'west' is not in the truth of {folder}/synthetic, which has north, east, south",
        ),
        ("  publish: {use", "  record: {use: record.jsonl, from: pose3d, file: a.jsonl}\n  # {use", "nothing publishes skeletons"),
    ],
)
def test_mistakes_are_refused_before_the_start(folder: Path, old: str, new: str, message: str) -> None:
    save_rig(people.ring(4), folder / "hall.rig.toml")
    with pytest.raises(PosepipeError) as caught:
        asked(folder, old, new)
    assert message.format(folder=folder) in str(caught.value).replace(f"{folder}/hall.yaml", "hall.yaml")


def test_a_skeleton_that_has_no_truth_is_refused(folder: Path) -> None:
    whole = studio.complete(studio.load(_written(folder)))
    nodes = [
        replace(n, caps_in={"poses": replace(n.caps_in["poses"], skeleton="hand21")}) if n.cls.publishes else n for n in whole.plan.nodes
    ]
    with pytest.raises(GraphError, match="the truth has no joints of the skeleton 'hand21' that is published"):
        witness(replace(whole, plan=replace(whole.plan, nodes=tuple(nodes))))


def _written(folder: Path) -> Path:
    (folder / "hall.yaml").write_text(STUDIO)
    return folder / "hall.yaml"


def heard(told: Truth, *, off_m: float = 0.0, start_ns: int = START_NS) -> Witness:
    """A witness of an offline run that published the truth, so far off."""
    listening = Witness(told, "hall.yaml:3")
    runner: Any = SimpleNamespace(shared=SimpleNamespace(on_poses=None), start_ns=START_NS)
    listening.attend(runner)
    for n, t in enumerate(told.t_s):
        xyz = told.coco17_m[:, n] + np.float32(off_m)
        seen = np.ones(xyz.shape[:2], np.float32)
        ids, sync = np.arange(len(xyz)), Sync(0, (0, 1, 2), ())
        body = Poses(told.cameras, "coco17", sync, "algebraic", ids, xyz, seen, seen / 100, seen[:, 0], seen.astype(np.uint8) + 2)
        runner.shared.on_poses(Packet(n, start_ns + round(t * 1e9), "publish", body, (), ()))
        runner.shared.on_poses(Packet(n, start_ns + round(t * 1e9), "publish_too", replace(body, xyz_m=xyz + 1), (), ()))
    return listening


def test_the_summary_says_millimetres() -> None:
    found = heard(kit.truth(), off_m=0.03).figures()
    assert found["mpjpe_mm"] == found["p95_mm"] == pytest.approx(3**0.5 * 30, abs=0.01)
    assert found["pa_mpjpe_mm"] == found["root_relative_mpjpe_mm"] == pytest.approx(0, abs=0.01)
    assert set(found["per_joint_mm"]) == {
        f"{side}_{j}" for side in ("left", "right") for j in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
    }
    assert (found["people"]["matched"], found["instants"]["compared"]) == (24, 12)
    assert [(g["views"], g["joints"], g["mpjpe_mm"]) for g in found["by_views_used"]] == [(3, 24 * 12, found["mpjpe_mm"])]


def test_a_joint_without_confidence_was_not_seen() -> None:
    listening = heard(kit.truth())
    for packet in listening.heard.values():
        packet.body.conf[:, 5] = 0
    assert listening.figures()["joints_seen"] == pytest.approx(11 / 12, abs=1e-4)


def test_a_run_that_cannot_be_compared_says_so() -> None:
    with pytest.raises(RunError, match=r"hall\.yaml:3: nothing was published"):
        Witness(kit.truth(), "hall.yaml:3").figures()
    with pytest.raises(RunError, match=r"no instant in common: the run is from second 9\.00 to 9\.44"):
        heard(kit.truth(), start_ns=START_NS + 9_000_000_000).figures()


def test_a_run_is_heard_instant_by_instant_and_reported(tmp_path: Path) -> None:
    plan = studio_kit.plan(tmp_path)
    runner = studio_kit.Runner(plan, rig=None, resolve=Path, offline=True)
    listening = Witness(kit.truth(), "hall.yaml:3")
    listening.attend(runner)
    runner.open()
    runner.start()
    runner.finish(timeout_s=60)
    assert sorted(listening.heard) == list(range(12))
    figures = summary(runner, machine=Machine())
    for told, text in (
        (heard(kit.truth(), off_m=0.03), "MPJPE 52.0 mm, p95 52.0 mm, aligned 0.0 mm; 24 of 24"),
        (heard(kit.truth(), off_m=9), "0 of 24"),
    ):
        out = io.StringIO()
        print_summary({**figures, "truth": told.figures()}, Console(file=out, width=120))
        assert f"against the truth: {text} people found" in out.getvalue()
