"""A studio on a Ray cluster of two machines, both of them this one: `posepipe run --cluster` from another process."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from studio_files import Listener, StudioFiles

pytest.importorskip("ray", reason="Ray is not installed: pip install 'posepipe[cluster]' (Linux)")


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Its address; two nodes, host:a and host:b."""
    from ray.cluster_utils import Cluster

    made: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, "resources": {"host:a": 1}})
    made.add_node(num_cpus=1, resources={"host:b": 1})
    yield made.address
    made.shutdown()


def spread(hall: StudioFiles) -> None:
    first, second, third = hall.nodes["capture"]["each"]
    each = {first: {"uri": f"{first}.mp4", "host": "a"}, second: {"uri": f"{second}.mp4", "host": "b"}, third: f"{third}.mp4"}
    hall.nodes["capture"]["each"] = each
    hall.nodes["instants"]["wire"] = "jpeg"


def actors(hall: StudioFiles) -> list[psutil.Process]:
    """Processes of this studio that Ray has started: those that hold a clip of it open."""
    found = []
    for process in psutil.process_iter():
        try:
            if "OutpostActor" in " ".join(process.cmdline()) and any(str(hall.folder) in f.path for f in process.open_files()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def wait_until_published(listener: Listener, studio: subprocess.Popen[str], more: int) -> None:
    def count() -> int:
        return sum(topic.startswith("skeleton/") for topic, _ in listener.said)

    before, end = count(), time.monotonic() + 60
    while count() < before + more:
        assert studio.poll() is None, studio.communicate()[1]
        assert time.monotonic() < end, "no skeleton came"
        time.sleep(0.02)


def test_an_actor_is_killed_and_comes_back_and_the_ledger_balances(hall: StudioFiles, cluster: str) -> None:
    spread(hall)
    listener = Listener(hall.address)
    studio = hall.start("--cluster", cluster, "--seconds", "50", "--summary", "s.json")
    wait_until_published(listener, studio, 5)
    assert len(actors(hall)) == 2
    victim = actors(hall)[0]
    victim.kill()
    end = time.monotonic() + 40
    while not (len(there := actors(hall)) == 2 and victim.pid not in [p.pid for p in there]):
        assert studio.poll() is None, studio.communicate()[1]
        assert time.monotonic() < end, "Ray did not start it again"
        time.sleep(0.1)
    since = len(listener.said)
    while not any(t.startswith("skeleton/") and len(m["sync"]["views"]) == 3 for t, m in listener.said[since:]):
        assert time.monotonic() < end, "its camera did not come back"
        time.sleep(0.05)
    studio.send_signal(signal.SIGINT)
    _, err = studio.communicate(timeout=30)
    listener.stop()
    assert studio.returncode == 130, err
    assert "was killed by SIGKILL; it is started again (restart 1)" in err
    figures = json.loads((hall.folder / "s.json").read_text())
    assert figures["balance"] == 0
    assert figures["published"] > 0
    assert actors(hall) == []


def test_when_the_supervisor_is_killed_its_actors_end(hall: StudioFiles, cluster: str) -> None:
    spread(hall)
    listener = Listener(hall.address)
    studio = hall.start("--cluster", cluster, "--seconds", "50")
    wait_until_published(listener, studio, 2)
    there = actors(hall)
    assert len(there) == 2
    studio.kill()
    studio.communicate(timeout=20)
    _, alive = psutil.wait_procs(there, timeout=20)
    listener.stop()
    assert not alive


def test_a_host_that_no_machine_is_called_is_refused(hall: StudioFiles, cluster: str) -> None:
    spread(hall)
    hall.nodes["heatmaps"]["host"] = "gpu"
    done = hall.run("--cluster", cluster)
    assert done.returncode == 2
    assert "no machine of the cluster is called 'gpu'" in done.stderr
    assert "labels: a, b" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_cluster_that_is_not_there_is_refused(hall: StudioFiles) -> None:
    spread(hall)
    done = hall.run("--cluster", "127.0.0.1:1")
    assert done.returncode == 2
    assert "--cluster 127.0.0.1:1: nothing answers: Connection refused" in done.stderr
