"""examples/full.yaml on the real recording: volumes, bodies and actions together. Skipped, saying what is missing, until it was pulled."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from studio_files import free_port

from posepipe.calib.body import BONES, load_body
from posepipe.engines.assets import asset
from posepipe.nodes.record_jsonl import read_recording

EXAMPLE = Path(__file__).parents[2] / "examples" / "full.yaml"
NEEDED = ("pose2sim.single", "blazepose.lite", "blazepose.detector")

pytestmark = [
    pytest.mark.recording,
    pytest.mark.skipif(
        not all(asset(n).present() for n in NEEDED),
        reason=f"needs {', '.join(n for n in NEEDED if not asset(n).present())}: run `posepipe pull {' '.join(NEEDED)}`",
    ),
]


def test_everybody_has_a_body_of_steady_bones_and_an_action(tmp_path: Path) -> None:
    graph = yaml.safe_load(EXAMPLE.read_text())
    graph["nodes"]["publish"]["bind"] = f"tcp://127.0.0.1:{free_port()}"
    graph["nodes"]["record"] = {"use": "record.jsonl", "from": {"poses": "smooth", "actions": "action"}, "file": "out.jsonl"}
    (tmp_path / "studio.yaml").write_text(yaml.safe_dump(graph, sort_keys=False))
    line = [sys.executable, "-m", "posepipe", "run", "studio.yaml", "--offline", "--summary", "s.json"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "s.json").read_text())
    assert (figures["captured"], figures["published"], figures["balance"]) == (400, 400, 0)
    recording = read_recording(tmp_path / "out.jsonl")
    instants = list(recording)
    assert {i.tier for i in instants} <= {"volumetric", "algebraic"}
    performer = [i.people[0] for i in instants if i.people]
    assert len(performer) >= 95
    bodies = [p.body for p in performer if p.body is not None]
    assert len(bodies) == len(performer)
    body = load_body()
    heads = np.array([body.pose(np.array(b.shape), np.array(b.pose)[None], np.array(b.root_m)[None]).heads_m[0] for b in bodies[90:]])
    for bones in (("left_hip", "left_knee"), ("right_shoulder", "right_elbow")):
        length_m = np.linalg.norm(heads[:, BONES.index(bones[0])] - heads[:, BONES.index(bones[1])], axis=1)
        assert length_m.std() / length_m.mean() < 0.01
    assert heads[:, BONES.index("head"), 2].mean() > 1.2
    assert recording.header.actions[-1] == "unknown"
    late = [p.action for p in performer[60:]]
    assert all(a is not None and a.label < len(recording.header.actions) for a in late)
