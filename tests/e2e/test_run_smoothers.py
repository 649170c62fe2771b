"""Smoothers that hold instants, in whole studios: everything leaves, with its own time."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from studio_files import StudioFiles


def instants(hall: StudioFiles, use: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """What an offline run records, and its summary."""
    name = use.partition(".")[2]
    hall.nodes["heatmaps"]["feedback"] = "pose3d"
    hall.nodes["smooth"]["use"] = use
    hall.nodes["record"] = {"use": "record.jsonl", "from": "smooth", "file": f"{name}.jsonl"}
    done = hall.run("--offline", "--summary", f"{name}.json")
    assert done.returncode == 0, done.stderr
    lines = (hall.folder / f"{name}.jsonl").read_text().splitlines()[1:]
    return [json.loads(line) for line in lines], json.loads((hall.folder / f"{name}.json").read_text())


@pytest.mark.parametrize("use", ["smooth.savgol", "smooth.butterworth"])
def test_offline_every_instant_leaves_in_order_and_none_is_lost(hall: StudioFiles, use: str) -> None:
    made, figures = instants(hall, use)
    assert (figures["captured"], figures["published"], figures["balance"], figures["dropped"]) == (90, 90, 0, [])
    stamps = [m["t_capture_ns"] for m in made]
    assert [m["seq"] for m in made] == list(range(30))
    assert all(a < b for a, b in itertools.pairwise(stamps))
    assert any(m["people"] for m in made)


def test_a_live_studio_with_butterworth_is_refused_with_what_to_do(hall: StudioFiles) -> None:
    hall.nodes["smooth"]["use"] = "smooth.butterworth"
    done = hall.run("--seconds", "2")
    assert done.returncode == 2
    assert (
        "smooth.butterworth looks at the whole recording, forwards and backwards, and this run is live\n  -> run with --offline"
        in done.stderr
    )
    assert "Traceback" not in done.stderr
