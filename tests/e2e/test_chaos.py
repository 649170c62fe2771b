"""The example's harm, done to small clips and a stub network by `posepipe chaos` itself, with limits for a machine that is busy otherwise."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import people
import yaml
from studio_files import Listener, StudioFiles

from posepipe.nodes.record_jsonl import read_recording

EXAMPLE = Path(__file__).parents[2] / "examples" / "chaos.yaml"
SLOWER = 3
"""The example states what a machine of its own does; here other tests may run beside it."""
MAY_LOSE = 100


def harmed(hall: StudioFiles, *arguments: str) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    line = [sys.executable, "-m", "posepipe", "chaos", str(hall.write()), "--json", "verdict.json", *arguments]
    done = subprocess.run(line, capture_output=True, text=True, timeout=180, cwd=hall.folder)
    verdict = hall.folder / "verdict.json"
    return done, json.loads(verdict.read_text()) if verdict.exists() else {}


def patient(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same harm one after the other, with longer limits."""
    at_s = 3.0
    for entry in entries:
        expect = entry["expect"]
        limits = [key for key in ("published_again_within_s", "back_within_s") if key in expect]
        expect |= {key: SLOWER * expect[key] for key in limits}
        expect["gap_s"] = SLOWER * 0.5
        if "others_lose" in expect:
            expect["others_lose"] += MAY_LOSE
        entry["at_s"] = at_s
        at_s += entry.get("for_s", 0) + max([expect["gap_s"], *(expect[key] for key in limits)]) + 1.5
    return entries


def test_a_studio_stands_every_harm_of_the_example(tmp_path: Path) -> None:
    hall = StudioFiles(tmp_path, cameras=4)
    text = EXAMPLE.read_text()
    for number, name in enumerate(people.NAMES[:4], start=1):
        text = text.replace(f"pull:pose2sim.single/cam{number:02}.mp4", f"{name}.mp4").replace(f"cam{number:02}", name)
    example = yaml.safe_load(text)
    example["rig"] = "hall.rig.toml"
    example["nodes"]["capture"] |= {
        "speed": 0.5,
        "restart": {"backoff_s": 0.4},
    }  # small clips open at once: away for a few frames, not for one
    example["nodes"]["heatmaps"]["engine"] = "stub"
    example["nodes"]["publish"]["bind"] = hall.address
    example["nodes"]["record"]["file"] = "take.jsonl"
    example["chaos"] = patient(example["chaos"])
    hall.graph = example
    done, verdict = harmed(hall)
    assert done.returncode == 0, done.stdout + done.stderr
    assert verdict["ok"]
    assert verdict["balance"] == 0
    assert [entry["harm"].split()[0] for entry in verdict["entries"]] == ["kill", "kill", "stall", "skew", "drop", "corrupt", "fill"]
    assert "its checksum is wrong" in done.stderr
    assert "recording has stopped, the studio goes on" in done.stderr
    assert sum(1 for _ in read_recording(tmp_path / "take.jsonl")) > 0
    assert "7 of 7 passed" in done.stdout


def test_a_recovery_that_takes_too_long_is_exit_4(hall: StudioFiles) -> None:
    hall.graph["chaos"] = [{"at_s": 1.5, "kill": "main", "expect": {"published_again_within_s": 0.05, "gap_s": 0.05}}]
    done, verdict = harmed(hall)
    assert done.returncode == 4, done.stdout + done.stderr
    assert not verdict["ok"]
    assert verdict["entries"][0]["findings"][0]["expected"] == "published again within 0.05 s"
    assert "FAIL" in done.stdout


def test_a_studio_that_ends_of_it_is_judged_too(hall: StudioFiles) -> None:
    hall.nodes["publish"]["restart"] = "never"
    hall.graph["chaos"] = [
        {"at_s": 1.5, "kill": "main", "expect": {"published_again_within_s": 5}},
        {"at_s": 30, "stall": "heatmaps", "for_ms": 100, "expect": {"publishing": True}},
    ]
    done, verdict = harmed(hall)
    assert done.returncode == 4, done.stdout + done.stderr
    assert "worker main" in verdict["fault"]
    assert [entry["ok"] for entry in verdict["entries"]] == [False, False]
    assert "Traceback" not in done.stderr


def test_what_cannot_be_judged_is_refused(hall: StudioFiles) -> None:
    done, _ = harmed(hall)
    assert done.returncode == 2
    assert "there is no chaos: in it" in done.stderr
    hall.graph["chaos"] = [{"at_s": 5, "kill": "main", "expect": {"published_again_within_s": 2}}]
    done, _ = harmed(hall, "--seconds", "8")
    assert done.returncode == 2
    assert "kill main comes at 5 s and is judged until 8.5 s, but --seconds is 8" in done.stderr
    assert "studio.yaml:" in done.stderr
    hall.nodes["publish"]["bind"] = "tcp://127.0.0.1:*"
    done, _ = harmed(hall)
    assert done.returncode == 2
    assert "nothing publishes at an address that is known before the start" in done.stderr


def test_the_example_itself_is_a_studio_file(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "posepipe", "check", str(EXAMPLE)], capture_output=True, text=True, timeout=60, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr


def test_what_was_not_reached_is_not_judged(hall: StudioFiles) -> None:
    hall.graph["chaos"] = [{"at_s": 40, "kill": "main", "expect": {"publishing": True}}]
    line = [sys.executable, "-m", "posepipe", "chaos", str(hall.write()), "--json", "verdict.json"]
    listener = Listener(hall.address)
    studio = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=hall.folder)
    end = time.monotonic() + 60
    while not listener.said and time.monotonic() < end:
        time.sleep(0.05)
    studio.send_signal(signal.SIGINT)
    out, err = studio.communicate(timeout=60)
    listener.stop()
    assert studio.returncode == 130, err
    assert "0 of 1 passed, 1 not judged: it was stopped before" in out
    assert json.loads((hall.folder / "verdict.json").read_text())["entries"][0]["ok"] is None


def test_run_leaves_chaos_alone(hall: StudioFiles) -> None:
    hall.graph["chaos"] = [{"at_s": 0.2, "kill": "main", "expect": {"publishing": True}}]
    done = hall.run()
    assert done.returncode == 0, done.stderr
    assert "killed" not in done.stderr
