"""Parts of a running studio die, hang or are stopped from outside: the rest goes on, and every frame is accounted for."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from studio_files import Listener, StudioFiles

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="worker processes need Linux")

WITHIN_S = 20
SLEEPER = '''
import time
from typing import Annotated
from posepipe.pipeline.node import Node, NodeSettings
from posepipe.pipeline.packet import Poses


class Sleeper(Node):
    """Hangs once, at the first packet or while it is opened."""

    use = "test.sleeper"

    class Settings(NodeSettings, frozen=True):
        mark: str
        where: str = "step"

    def open(self, ctx):
        self._mark = ctx.resolve(self.settings.mark)
        if self.settings.where == "open":
            self._sleep()

    def step(self, poses: Poses) -> Poses:
        if self.settings.where == "step":
            self._sleep()
        return poses

    def _sleep(self) -> None:
        if not self._mark.exists():
            self._mark.touch()
            time.sleep(600)
'''


class Running:
    """A studio under way, and what is seen of it from outside."""

    def __init__(self, hall: StudioFiles, *arguments: str, **environment: str) -> None:
        self.hall = hall
        hall.nodes["heatmaps"]["queue"] = {"size": 30}  # the instants that lack a camera come in one go when it is back
        self.listener = Listener(hall.address)
        self.process = hall.start("--seconds", "60", "--await-subscribers", "1", "--summary", "s.json", *arguments, **environment)
        self.until("skeletons", lambda: bool(self.skeletons))

    @property
    def skeletons(self) -> list[dict[str, Any]]:
        return [m for topic, m in list(self.listener.said) if topic.startswith("skeleton/")]

    def until(self, what: str, true: Callable[[], bool]) -> None:
        end = time.monotonic() + WITHIN_S
        while not true():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < end, f"no {what} within {WITHIN_S} s"
            time.sleep(0.02)

    def more(self, true: Callable[[dict[str, Any]], bool]) -> None:
        """Wait for a new skeleton message of that kind."""
        had = len(self.skeletons)
        self.until("such skeletons", lambda: any(true(m) for m in self.skeletons[had:]))

    def ps(self) -> dict[str, dict[str, Any]]:
        out = subprocess.run([sys.executable, "-m", "posepipe", "ps", "--json"], capture_output=True, text=True, timeout=30, check=True)
        rows: list[dict[str, Any]] = json.loads(out.stdout)
        mine = [p.pid for p in psutil.Process(self.process.pid).children(recursive=True)] + [self.process.pid]
        return {row["name"]: row for row in rows if row["pid"] in mine or row["state"] in ("waiting", "failed")}

    def state(self, worker: str) -> str | None:
        """None while one process of it has just gone and the next is not there yet."""
        return self.ps().get(worker, {}).get("state")

    def kill(self, worker: str, number: signal.Signals = signal.SIGKILL) -> None:
        psutil.Process(self.ps()[worker]["pid"]).send_signal(number)

    def stop(self) -> tuple[dict[str, Any], str]:
        """The summary and what was said on standard error."""
        subprocess.run([sys.executable, "-m", "posepipe", "stop", "--pid", str(self.process.pid)], check=True, timeout=30)
        _, err = self.process.communicate(timeout=20)
        self.listener.stop()
        assert self.process.returncode == 0, err
        figures: dict[str, Any] = json.loads((self.hall.folder / "s.json").read_text())
        assert figures["balance"] == 0
        assert figures["captured"] == figures["published"] + sum(d["count"] for d in figures["dropped"])
        return figures, err


@pytest.fixture
def studio(hall: StudioFiles) -> Iterator[Callable[..., Running]]:
    made: list[Running] = []

    def make(*arguments: str, **environment: str) -> Running:
        made.append(Running(hall, *arguments, **environment))
        return made[-1]

    yield make
    for one in made:
        one.process.kill()
        one.process.communicate()


def test_who_runs_is_told(studio: Callable[..., Running]) -> None:
    running = studio()
    there = running.ps()
    assert set(there) == {"supervisor", "main", *(f"capture/{c}" for c in ("north", "east", "south"))}
    assert there["main"]["nodes"] == ["instants", "heatmaps", "pose3d", "smooth", "publish"]
    assert {row["state"] for row in there.values()} == {"running"}
    running.stop()


def test_a_killed_camera_is_missing_and_comes_back(hall: StudioFiles, studio: Callable[..., Running]) -> None:
    hall.nodes["capture"]["restart"] = {"backoff_s": 0.5}  # at once, it would be back before its instants have to leave
    running = studio()
    running.kill("capture/east")
    running.more(lambda m: m["sync"]["missing"] == [1])
    running.more(lambda m: m["sync"]["missing"] == [])
    assert running.ps()["capture/east"]["restarts"] == 1
    figures, err = running.stop()
    assert "worker capture/east was killed by SIGKILL; it is started again (restart 1)" in err
    assert {d["reason"] for d in figures["dropped"] if d["node"] == "capture/east"} <= {
        "its worker was down",
        "lost with worker capture/east",
    }


def test_a_killed_compute_worker_comes_back_and_the_ledger_balances(studio: Callable[..., Running]) -> None:
    running = studio()
    before = {name: row["pid"] for name, row in running.ps().items()}
    running.kill("main")
    running.more(lambda m: True)
    running.until("main with a new pid", lambda: running.state("main") == "running")
    after = {name: row["pid"] for name, row in running.ps().items()}
    assert after.pop("main") != before.pop("main")
    assert after == before, "the cameras went on"
    figures, _ = running.stop()
    assert any(d["reason"] == "worker main is down" or "lost with worker main" in d["reason"] for d in figures["dropped"])


@pytest.mark.parametrize("who", ["supervisor", "nursery"])
def test_nothing_is_left_when_the_head_is_cut_off(studio: Callable[..., Running], who: str) -> None:
    running = studio()
    family = psutil.Process(running.process.pid).children(recursive=True)
    nursery = psutil.Process(running.process.pid).children()[0]
    running.process.kill() if who == "supervisor" else nursery.kill()
    running.process.communicate(timeout=20)
    _, alive = psutil.wait_procs(family, timeout=3)
    assert not [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]
    assert f"posepipe/{running.process.pid}" not in Path("/proc/net/unix").read_text()
    assert running.hall.run("--offline").returncode == 0, "the next start finds nothing in its way"


@pytest.mark.parametrize("where", ["step", "open"])
def test_a_node_that_hangs_is_killed_and_started_again(hall: StudioFiles, studio: Callable[..., Running], where: str) -> None:
    (hall.folder / "sleeper.py").write_text(SLEEPER)
    (hall.folder / "sleeper-1.dist-info").mkdir()
    (hall.folder / "sleeper-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: sleeper\nVersion: 1\n")
    (hall.folder / "sleeper-1.dist-info" / "entry_points.txt").write_text("[posepipe.nodes]\ntest.sleeper = sleeper:Sleeper\n")
    limits = {"hang_s": 0.5, "open_s": 1.0}
    hall.nodes["sleepy"] = {"use": "test.sleeper", "from": "smooth", "mark": "slept", "where": where, "restart": limits}
    hall.nodes["publish"]["from"] = "sleepy"
    running = studio(PYTHONPATH=str(hall.folder))
    figures, err = running.stop()
    assert f"worker main was stopped: sleepy has been in one call for 1 s ({'hang_s: 0.5' if where == 'step' else 'open_s: 1'})" in err
    assert figures["published"] > 0


def test_a_worker_that_stands_still_is_killed(studio: Callable[..., Running]) -> None:
    running = studio()
    running.kill("capture/north", signal.SIGSTOP)
    running.more(lambda m: m["sync"]["missing"] == [0])
    running.more(lambda m: m["sync"]["missing"] == [])
    _, err = running.stop()
    assert "worker capture/north was stopped: nothing was heard of it for 3" in err


def test_a_camera_that_keeps_dying_is_given_up_and_the_others_go_on(hall: StudioFiles, studio: Callable[..., Running]) -> None:
    hall.nodes["capture"]["restart"] = {"max": 1, "backoff_s": 0.5}
    running = studio()
    for _ in range(2):
        running.until("the camera", lambda: running.state("capture/south") == "running")
        running.kill("capture/south")
        running.more(lambda m: m["sync"]["missing"] == [2])
    running.until("the end of patience", lambda: running.state("capture/south") == "failed")
    running.more(lambda m: m["sync"]["missing"] == [2])
    _, err = running.stop()
    assert "worker capture/south is given up: worker capture/south was killed by SIGKILL; the studio goes on without it" in err


def test_without_its_compute_worker_a_studio_ends(hall: StudioFiles, studio: Callable[..., Running]) -> None:
    for node in ("instants", "heatmaps", "pose3d", "smooth", "publish"):
        hall.nodes[node]["restart"] = "never"
    running = studio()
    running.kill("main")
    _, err = running.process.communicate(timeout=20)
    assert running.process.returncode == 1
    assert "worker main was killed by SIGKILL" in err
    assert "Traceback" not in err


def test_the_desk_answers_and_refuses(studio: Callable[..., Running]) -> None:
    running = studio()

    def said(*arguments: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "posepipe", *arguments, "--pid", str(running.process.pid)]
        return subprocess.run(line, capture_output=True, text=True, timeout=30)

    assert "capture/north" in said("topic", "list").stdout
    assert said("topic", "hz", "smooth", "-n", "1").stdout.count("\n") == 2
    newest = json.loads(said("topic", "echo", "smooth", "-n", "1").stdout)
    assert newest["skeleton"] == "blazepose33"
    assert json.loads(said("topic", "echo", "capture/east", "-n", "1").stdout)["width"] == 320
    wrong = said("topic", "echo", "smoth", "-n", "1")
    assert wrong.returncode == 1
    assert "no node 'smoth' gives anything in this studio" in wrong.stderr
    assert "did you mean 'smooth'?" in wrong.stderr
    running.stop()
    gone = said("stop")
    assert gone.returncode == 1
    assert "no studio of yours runs as process" in gone.stderr
