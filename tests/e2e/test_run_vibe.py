"""smooth.vibe in whole studios, with a network that says what it was given: everything leaves, in order, with bodies."""

from __future__ import annotations

import json

import pytest
from studio_files import Listener, StudioFiles
from vibe_kit import network


@pytest.mark.parametrize("lookahead", [0, 4])
def test_offline_every_instant_leaves_in_order_and_none_is_lost(hall: StudioFiles, lookahead: int) -> None:
    (hall.folder / "net").mkdir()
    network(hall.folder / "net")
    hall.nodes["smooth"] = {"use": "smooth.vibe", "from": "pose3d", "engine": "net/card.toml", "lookahead": lookahead}
    hall.nodes["heatmaps"]["feedback"] = "pose3d"
    hall.nodes["record"] = {"use": "record.jsonl", "from": "smooth", "file": "out.jsonl"}
    done = hall.run("--offline", "--summary", "out.json")
    assert done.returncode == 0, done.stderr
    made = [json.loads(line) for line in (hall.folder / "out.jsonl").read_text().splitlines()[1:]]
    figures = json.loads((hall.folder / "out.json").read_text())
    assert (figures["captured"], figures["published"], figures["balance"], figures["dropped"]) == (90, 90, 0, [])
    assert [m["seq"] for m in made] == list(range(30))
    assert all(m["people"] for m in made)


def test_live_it_is_followed_and_published_with_bodies(hall: StudioFiles) -> None:
    (hall.folder / "net").mkdir()
    network(hall.folder / "net")
    hall.nodes["smooth"] = {"use": "smooth.vibe", "from": "pose3d", "engine": "net/card.toml", "lookahead": 2}
    listener = Listener(hall.address)
    done = hall.run("--seconds", "3", "--await-subscribers", "1", "--summary", "out.json")
    said = listener.stop()
    assert done.returncode == 0, done.stderr
    assert json.loads((hall.folder / "out.json").read_text())["balance"] == 0
    seqs = [m["seq"] for m in said]
    assert seqs == sorted(set(seqs))
    assert len(seqs) > 20
    given = [p["body"] for m in said for p in m["people"]]
    assert given
    assert {body["model"] for body in given} == {"posepipe.adult"}


def test_a_network_that_is_not_there_is_refused_with_what_to_do(hall: StudioFiles) -> None:
    hall.nodes["smooth"] = {"use": "smooth.vibe", "from": "pose3d", "engine": "net/card.toml"}
    done = hall.run("--seconds", "2")
    assert done.returncode == 2
    assert "engine is " in done.stderr
    assert "Traceback" not in done.stderr
