"""Bodies and actions on their way through a studio of real processes: from nodes of a user's own to subscribers, recordings and pictures."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from studio_files import Listener, StudioFiles

from posepipe.calib.body import load_body
from posepipe.nodes.record_jsonl import read_recording

NODES = """
from dataclasses import replace

import numpy as np

from posepipe.pipeline.node import Caps, Node, NodeSettings
from posepipe.pipeline.packet import Actions, Bodies, Packet, Poses

IDENTITY = np.tile(np.array([1, 0, 0, 1, 0, 0], np.float32), (24, 1))


class Stand(Node):
    use = "demo.stand"

    def step(self, poses: Poses) -> Poses:
        people = len(poses.ids)
        root = np.nanmean(poses.xyz_m, axis=1).astype(np.float32)
        return replace(poses, bodies=Bodies("posepipe.adult", np.stack([IDENTITY] * people), np.zeros((people, 16), np.float32), root))


class Act(Node):
    use = "demo.act"

    class Settings(NodeSettings, frozen=True):
        fails: tuple[int, ...] = ()

    @classmethod
    def caps(cls, settings, inputs):
        return Caps(actions=("standing", "boxing"))

    def step(self, poses: Packet[Poses]) -> Actions:
        if poses.seq in self.settings.fails:
            raise ValueError("no idea")
        ids = poses.body.ids
        return Actions(ids, np.where(ids >= 0, poses.seq % 2, -1), np.tile(np.array([0.25, 0.75], np.float32), (len(ids), 1)))
"""


@pytest.fixture
def acting(hall: StudioFiles) -> StudioFiles:
    info = hall.folder / "demo-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: demo\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[posepipe.nodes]\ndemo.stand = demo_nodes:Stand\ndemo.act = demo_nodes:Act\n")
    (hall.folder / "demo_nodes.py").write_text(NODES)
    both = {"poses": "stand", "actions": "act"}
    hall.nodes["stand"] = {"use": "demo.stand", "from": "smooth"}
    hall.nodes["act"] = {"use": "demo.act", "from": "stand", "process": "own", "fails": [4, 11]}
    hall.nodes["publish"]["from"] = both
    hall.nodes["record"] = {"use": "record.jsonl", "from": both, "file": "out.jsonl"}
    hall.nodes["view"] = {"use": "view.mosaic", "from": {"frames": "instants", **both}, "file": "view.png", "width_px": 480}
    return hall


def test_people_are_published_and_recorded_with_body_and_action(acting: StudioFiles) -> None:
    listener = Listener(acting.address)
    done = acting.run("--offline", "--await-subscribers", "1", "--summary", "s.json", PYTHONPATH=str(acting.folder))
    instants = listener.stop()
    assert done.returncode == 0, done.stderr
    figures = json.loads((acting.folder / "s.json").read_text())
    assert (figures["captured"], figures["published"], figures["balance"]) == (90, 90, 0)
    assert listener.hello[0]["actions"] == ["standing", "boxing", "unknown"]
    assert [m["seq"] for m in instants] == list(range(30)), "also those whose action failed, in order"
    people = [(m["seq"], person) for m in instants for person in m["people"]]
    assert len(people) > 24
    for seq, person in people:
        want = None if seq in (4, 11) else {"label": seq % 2, "p": struct.pack("<3f", 0.25, 0.75, 0)}
        assert person["action"] == want
        assert person["body"]["model"] == "posepipe.adult"
        b = {key: np.frombuffer(person["body"][key], "<f4") for key in ("pose", "shape", "root_m")}
        posed = load_body().pose(b["shape"], b["pose"].reshape(1, -1, 6), b["root_m"][None])
        xyz_m = np.frombuffer(person["xyz_m"], "<f4").reshape(-1, 3)
        np.testing.assert_allclose(posed.joints_m("smpl24")[0, 0], np.nanmean(xyz_m, axis=0), atol=1e-5)
    recording = read_recording(acting.folder / "out.jsonl")
    recorded = [(i.seq, person) for i in recording for person in i.people]
    assert recording.header.actions == ("standing", "boxing", "unknown")
    assert [(seq, person.action.label if person.action else None) for seq, person in recorded] == [
        (seq, person["action"]["label"] if person["action"] else None) for seq, person in people
    ]
    assert all(person.body is not None and len(person.body.pose) == 24 for _, person in recorded)
    assert Path(acting.folder / "view.png").stat().st_size > 1000

    line = [sys.executable, "-m", "posepipe", "eval", "out.jsonl", "--rig", "hall.rig.toml", "--json", "e.json"]
    evaluated = subprocess.run(line, capture_output=True, text=True, timeout=60, cwd=acting.folder)
    assert evaluated.returncode == 0, evaluated.stderr
    assert json.loads((acting.folder / "e.json").read_text())["skeleton"] == "blazepose33"


def test_actions_of_a_node_that_names_no_labels_are_refused_before_start(acting: StudioFiles) -> None:
    nodes = acting.folder / "demo_nodes.py"
    nodes.write_text(nodes.read_text().replace('Caps(actions=("standing", "boxing"))', "Caps()"))
    done = acting.run("--offline", PYTHONPATH=str(acting.folder))
    assert done.returncode == 2
    assert "node 'publish': what comes at 'actions' has no labels" in done.stderr
