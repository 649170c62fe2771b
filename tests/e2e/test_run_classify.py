"""classify.action in whole studios: answers arrive at the recording and at subscribers under the labels of the network's card."""

from __future__ import annotations

import json

from action_kit import LABELS, by_left_hand
from studio_files import Listener, StudioFiles


def acting(hall: StudioFiles) -> None:
    (hall.folder / "net").mkdir()
    by_left_hand(hall.folder / "net")
    hall.nodes["action"] = {"use": "classify.action", "from": "smooth", "engine": "net/card.toml", "warm_ms": 300, "threshold": 0}
    hall.nodes["publish"]["from"] = {"poses": "smooth", "actions": "action"}


def test_offline_no_instant_is_lost_and_the_recording_says_what_everybody_did(hall: StudioFiles) -> None:
    acting(hall)
    hall.nodes["record"] = {"use": "record.jsonl", "from": {"poses": "smooth", "actions": "action"}, "file": "out.jsonl"}
    done = hall.run("--offline", "--summary", "out.json")
    assert done.returncode == 0, done.stderr
    figures = json.loads((hall.folder / "out.json").read_text())
    assert (figures["captured"], figures["published"], figures["balance"], figures["dropped"]) == (90, 90, 0, [])
    header, *made = [json.loads(line) for line in (hall.folder / "out.jsonl").read_text().splitlines()]
    assert header["actions"] == [*LABELS, "unknown"]
    assert [m["seq"] for m in made] == list(range(30))
    known = ["action" in m["people"][0] for m in made]
    assert not any(known[:4])
    assert all(known[12:])


def test_live_subscribers_are_told_the_labels_and_the_probabilities(hall: StudioFiles) -> None:
    acting(hall)
    listener = Listener(hall.address)
    done = hall.run("--seconds", "3", "--await-subscribers", "1", "--summary", "out.json")
    said = listener.stop()
    assert done.returncode == 0, done.stderr
    assert json.loads((hall.folder / "out.json").read_text())["balance"] == 0
    given = [p["action"] for m in said for p in m["people"] if p["action"] is not None]
    assert given
    assert all(len(a["p"]) == 4 * (len(LABELS) + 1) and 0 <= a["label"] <= len(LABELS) for a in given)


def test_a_network_that_is_not_there_is_refused_with_what_to_do(hall: StudioFiles) -> None:
    acting(hall)
    hall.nodes["action"]["engine"] = "nets/card.toml"
    done = hall.run("--seconds", "2")
    assert done.returncode == 2
    assert "engine is " in done.stderr
    assert "the card cannot be read" in done.stderr
    assert "Traceback" not in done.stderr
