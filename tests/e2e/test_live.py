"""A studio as a process among others: what is left after it stops, who hears it, and what it does when one part fails."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import zmq
from clips import damaged, encode, rewrite
from studio_files import SIZE, Listener, StudioFiles

ROOT = Path(__file__).parents[2]


def posepipe(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "posepipe", *arguments]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, cwd=folder)


def begun(studio: subprocess.Popen[str], listener: Listener) -> None:
    """Wait until skeletons come."""
    end = time.monotonic() + 30
    while not any(topic.startswith("skeleton/") for topic, _ in listener.said):
        assert studio.poll() is None, studio.communicate()[1]
        assert time.monotonic() < end, "no skeleton came"
        time.sleep(0.02)


# nothing is left --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_after_a_signal_no_child_no_port_and_no_file_is_left(hall: StudioFiles, number: signal.Signals) -> None:
    before = set(os.listdir(hall.folder)) | {"studio.yaml"}
    listener = Listener(hall.address)
    studio = hall.start("--seconds", "50", "--await-subscribers", "1")
    begun(studio, listener)
    children = psutil.Process(studio.pid).children(recursive=True)
    studio.send_signal(number)
    out, err = studio.communicate(timeout=20)
    listener.stop()
    assert studio.returncode == 130, err
    assert not [c for c in children if c.is_running() and c.status() != psutil.STATUS_ZOMBIE]
    with zmq.Context() as context, context.socket(zmq.PUB) as again:
        again.bind(hall.address)
    assert set(os.listdir(hall.folder)) == before
    assert "captured =" in out, "the account is given also when it was stopped"


def test_a_kill_leaves_the_port_free_for_the_next_start(hall: StudioFiles) -> None:
    listener = Listener(hall.address)
    studio = hall.start("--seconds", "50", "--await-subscribers", "1")
    begun(studio, listener)
    studio.kill()
    studio.communicate(timeout=20)
    listener.stop()
    assert hall.run("--offline").returncode == 0


def test_stopped_while_it_waits_for_subscribers(hall: StudioFiles) -> None:
    studio = hall.start("--await-subscribers", "1", "--summary", "s.json")
    assert studio.stderr is not None
    assert studio.stderr.readline().startswith("waiting for 1 subscriber")
    studio.send_signal(signal.SIGTERM)
    _, err = studio.communicate(timeout=20)
    assert studio.returncode == 130
    assert "Traceback" not in err
    assert json.loads((hall.folder / "s.json").read_text())["captured"] == 0


# who listens ------------------------------------------------------------------------------------------------------------------


def test_a_run_for_some_seconds_is_one_unbroken_stream(hall: StudioFiles) -> None:
    """Two rounds of the files; both subscribers get the same, from number 0 on, and it agrees with the summary."""
    first, second = Listener(hall.address), Listener(hall.address)
    done = hall.run("--seconds", "2", "--await-subscribers", "2", "--summary", "s.json")
    instants, others = first.stop(), second.stop()
    assert done.returncode == 0, done.stderr
    figures = json.loads((hall.folder / "s.json").read_text())
    assert instants == others
    assert instants[0]["seq"] == 0
    assert len(instants) == figures["instants"]
    assert figures["balance"] == 0
    assert figures["captured"] == 3 * 60
    seqs = [m["seq"] for m in instants]
    assert seqs == sorted(set(seqs))
    assert seqs[-1] < 60
    times = [m["t_capture_ns"] for m in instants]
    for (a, b), (ta, tb) in zip(itertools.pairwise(seqs), itertools.pairwise(times), strict=True):
        assert abs((tb - ta) - (b - a) * 1e9 / 30) < 2e6, "time goes on through the loop by as many periods as the number does"
    for m in instants:
        assert m["t_publish_ns"] >= m["t_capture_ns"]
        assert m["sync"]["skew_ns"] < 1e6
        assert sorted(m["sync"]["views"] + m["sync"]["missing"]) == [0, 1, 2]
    hello = first.hello
    assert len(hello) >= 2, "one a second"
    assert all(h == hello[0] for h in hello)


def test_a_subscriber_that_comes_late_learns_the_layout(hall: StudioFiles) -> None:
    first = Listener(hall.address)
    studio = hall.start("--seconds", "2.5", "--await-subscribers", "1")
    begun(studio, first)
    late = Listener(hall.address)
    _, err = studio.communicate(timeout=30)
    first.stop()
    assert studio.returncode == 0, err
    assert late.stop()
    assert late.hello


# one part fails ---------------------------------------------------------------------------------------------------------------


def test_a_camera_that_ends_is_missing_and_the_others_go_on(hall: StudioFiles) -> None:
    encode(hall.folder / "east.mp4", 12, size=SIZE)
    listener = Listener(hall.address)
    done = hall.run("--await-subscribers", "1")
    instants = listener.stop()
    assert done.returncode == 0, done.stderr
    assert {tuple(m["sync"]["missing"]) for m in instants if m["seq"] >= 12} == {(1,)}
    assert any(m["people"] for m in instants if m["seq"] >= 12), "two cameras still make skeletons"


def test_recordings_of_different_lengths_start_each_round_together(hall: StudioFiles) -> None:
    encode(hall.folder / "east.mp4", 24, size=SIZE)
    listener = Listener(hall.address)
    done = hall.run("--seconds", "2.9", "--await-subscribers", "1")
    instants = listener.stop()
    assert done.returncode == 0, done.stderr
    assert "cameras of different lengths: east has 24 frames, north has 30" in done.stderr
    begin_ns = instants[0]["t_capture_ns"] - instants[0]["seq"] * 1_000_000_000 // 30
    for m in instants:
        moment = round((m["t_capture_ns"] - begin_ns) * 30 / 1e9) % 30
        assert (1 in m["sync"]["views"]) <= (moment < 24), "east shows another round than the others"
    assert any(1 in m["sync"]["views"] for m in instants if m["seq"] > 60), "east comes back in the third round"


def test_damaged_pictures_are_counted_by_camera(hall: StudioFiles) -> None:
    good = encode(hall.folder / "good.mp4", 30, size=SIZE, gop=1, b_frames=0)
    rewrite(good, hall.folder / "east.mp4", lambda i, p: damaged(p) if i in (4, 5, 20) else p)
    done = hall.run("--offline", "--summary", "s.json")
    assert done.returncode == 0, done.stderr
    figures = json.loads((hall.folder / "s.json").read_text())
    assert figures["dropped"] == [{"node": "capture/east", "reason": "corrupt picture", "count": 3}]
    assert (figures["captured"], figures["published"], figures["instants"], figures["balance"]) == (90, 87, 30, 0)


def test_more_views_wanted_than_there_are_cameras(hall: StudioFiles) -> None:
    hall.nodes["instants"]["min_views"] = 4
    done = hall.run("--offline")
    assert done.returncode == 2
    assert "min_views is 4, but only 3 cameras come in: north, east, south" in done.stderr


# the commands around it -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("inspect",), "sync.instant"),
        (("inspect", "sync.instant"), "window_ms"),
        (("schema",), '"$schema"'),
        (("pull",), "blazepose.full"),
        (("doctor",), "machine"),
        (("--version",), "posepipe "),
        (("check", str(ROOT / "examples" / "studio.yaml")), "examples/studio.yaml"),
    ],
)
def test_commands_that_only_say_something(tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    done = posepipe(*arguments, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert says in done.stdout


def test_a_reader_that_stops_reading_is_no_fault(tmp_path: Path) -> None:
    """posepipe schema | head -1"""
    studio = subprocess.Popen(
        [sys.executable, "-m", "posepipe", "schema"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert studio.stdout is not None
    assert studio.stderr is not None
    studio.stdout.close()
    err = studio.stderr.read()
    assert studio.wait(timeout=30) in (0, 120), err
    assert "Traceback" not in err
