"""A studio on several hosts, without a cluster: every far worker a process that was not forked here and reaches the supervisor by tcp only."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import msgspec
import psutil
import pytest
from outpost_kit import Processes
from studio_files import Listener, StudioFiles

from posepipe.launch import studio
from posepipe.launch.outpost import Brief
from posepipe.launch.supervisor import Supervisor
from posepipe.pipeline.errors import PosepipeError, RunError


def spread(hall: StudioFiles, *, wire: str) -> None:
    """One camera on a, one on b, one here; the network on b too."""
    first, second, third = hall.nodes["capture"]["each"]
    each = {first: {"uri": f"{first}.mp4", "host": "a"}, second: {"uri": f"{second}.mp4", "host": "b"}, third: f"{third}.mp4"}
    hall.nodes["capture"]["each"] = each
    hall.nodes["instants"]["wire"] = wire
    hall.nodes["heatmaps"] |= {"host": "b", "wire": wire}


class Running:
    def __init__(self, hall: StudioFiles, *, seconds: float, **outposts: Any) -> None:
        plan = studio.load(hall.write())
        whole = studio.complete(plan)
        brief = Brief.of(plan, overrides=(), seconds=seconds, trace=False, loud=False)
        self.outposts, self.warnings = Processes(brief, **outposts), list[str]()
        self.studio = Supervisor(
            plan, rig=whole.rig, resolve=whole.resolve, seconds=seconds, warn=self.warnings.append, outposts=self.outposts
        )

    def begin(self) -> None:
        self.studio.open()
        self.studio.start()

    def until(self, true: Callable[[], bool], *, within_s: float = 40) -> None:
        end = time.monotonic() + within_s
        while not true():
            assert time.monotonic() < end, (self.warnings, {m.name: str(m.state) for m in self.studio.crew.values()})
            time.sleep(0.02)

    def finish(self) -> None:
        self.until(lambda: not self.studio.running)
        self.studio.finish()
        assert self.studio.books.ledger.balance == 0
        assert self.studio.books.ledger.in_flight == 0

    @property
    def published(self) -> int:
        return self.studio.books.nodes["publish"].latency.count


@contextmanager
def running(hall: StudioFiles, *, seconds: float, **outposts: Any) -> Iterator[Running]:
    made = Running(hall, seconds=seconds, **outposts)
    try:
        yield made
    finally:
        made.studio.close()
        assert not [p for p in made.outposts.processes.values() if p.poll() is None]


@pytest.mark.parametrize("wire", ["raw", "jpeg", "h264"])
def test_skeletons_come_from_three_hosts(hall: StudioFiles, wire: str) -> None:
    spread(hall, wire=wire)
    with running(hall, seconds=2) as run:
        listener = Listener(hall.address)
        run.begin()
        run.finish()
        skeletons = listener.stop()
    assert len(skeletons) == run.published > 0
    assert all(m["sync"]["skew_ns"] < 1e6 for m in skeletons)
    assert max(len(m["sync"]["views"]) for m in skeletons) == 3
    assert run.warnings == []
    assert all(count == 0 for count in run.studio.books.strange.values())


def test_a_worker_elsewhere_that_is_killed_comes_back(hall: StudioFiles) -> None:
    spread(hall, wire="h264")
    with running(hall, seconds=60) as run:
        run.begin()
        run.until(lambda: run.published > 5)
        run.outposts.processes["main@b"].kill()
        run.until(lambda: run.studio.crew["main@b"].restarts == 1 and str(run.studio.crew["main@b"].state) == "running")
        seen = run.published
        run.until(lambda: run.published > seen + 5)
        run.studio.stop()
        run.finish()
    assert run.warnings[0] == "worker main@b was killed by SIGKILL; it is started again (restart 1)"


def test_workers_elsewhere_end_by_themselves_when_the_supervisor_is_killed(hall: StudioFiles) -> None:
    """The supervisor is stopped instead, which a network cannot tell from a death."""
    spread(hall, wire="jpeg")
    with running(hall, seconds=60) as run:
        run.begin()
        run.until(lambda: run.published > 2)
        there = [psutil.Process(p.pid) for p in run.outposts.processes.values()]
        run.outposts._switchboard._over.set()  # type: ignore[union-attr]
        _, alive = psutil.wait_procs(there, timeout=20)
        assert not alive
        run.studio.stop()


def test_a_fault_elsewhere_is_told_with_its_host(hall: StudioFiles) -> None:
    spread(hall, wire="raw")
    first = next(iter(hall.nodes["capture"]["each"]))
    hall.nodes["capture"]["each"][first]["uri"] = "gone.mp4"
    with running(hall, seconds=2) as run, pytest.raises(PosepipeError) as error:
        run.begin()
    assert "host a: " in str(error.value)
    assert "there is no file" in str(error.value)


def test_a_worker_that_would_run_another_graph_is_refused(hall: StudioFiles) -> None:
    spread(hall, wire="raw")
    with running(hall, seconds=2) as run:
        run.outposts._brief = msgspec.structs.replace(run.outposts._brief, overrides=("nodes.smooth.min_cutoff=3.0",))
        with pytest.raises(RunError) as error:
            run.begin()
    assert "the graph changed between restart of two workers" in str(error.value)


# two machines, as far as a network goes -------------------------------------------------------------------------------------------


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def namespaces() -> Iterator[tuple[str, dict[str, tuple[str, str]]]]:
    """Two hosts with addresses of their own on wires of their own; this one's address, and theirs."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network name spaces need root and ip: apt-get install iproute2, and run the test as root")
    mine = f"pp{os.getpid() % 10_000}"
    with ExitStack() as around:
        try:
            for number, host in enumerate("ab"):
                ip("netns", "add", f"{mine}{host}")
                around.callback(ip, "netns", "del", f"{mine}{host}")
                ip("link", "add", f"{mine}{host}0", "type", "veth", "peer", "name", "eth0", "netns", f"{mine}{host}")
                ip("addr", "add", f"10.213.{number}.1/24", "dev", f"{mine}{host}0")
                ip("link", "set", f"{mine}{host}0", "up")
                inside = ("netns", "exec", f"{mine}{host}", "ip")
                ip(*inside, "addr", "add", f"10.213.{number}.2/24", "dev", "eth0")
                ip(*inside, "link", "set", "eth0", "up")
                ip(*inside, "link", "set", "lo", "up")
                ip(*inside, "route", "add", "default", "via", f"10.213.{number}.1")
        except subprocess.CalledProcessError as e:
            pytest.skip(f"this machine permits no network name spaces: {e.stderr.decode().strip()}")
        yield "10.213.0.1", {"a": (f"{mine}a", "10.213.0.2")}


def test_a_host_of_another_network(hall: StudioFiles, namespaces: Any) -> None:
    """Host a has an address, a route and an interface of its own, and no way to this machine's shared memory or loopback."""
    address, spaces = namespaces
    first, second, third = hall.nodes["capture"]["each"]
    hall.nodes["capture"]["each"] = {first: {"uri": f"{first}.mp4", "host": "a"}, second: f"{second}.mp4", third: f"{third}.mp4"}
    hall.nodes["instants"]["wire"] = "h264"
    hall.nodes["heatmaps"] |= {"host": "a", "wire": "jpeg"}
    with running(hall, seconds=2, ip=address, namespaces=spaces) as run:
        run.begin()
        run.finish()
    assert run.published > 0
    assert run.warnings == []
