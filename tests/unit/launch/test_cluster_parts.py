"""What is refused before a studio goes to a cluster, with what to do; and what travels to the other hosts."""

from __future__ import annotations

import platform
import socket
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from posepipe import __version__
from posepipe.launch import abroad, cluster, run, studio
from posepipe.launch.outpost import Brief, Hello
from posepipe.pipeline.errors import ClusterError, GraphError


def node(address: str, name: str, **resources: float) -> dict[str, Any]:
    return {"NodeManagerAddress": address, "NodeManagerHostname": name, "Resources": {f"node:{address}": 1.0, "CPU": 4.0, **resources}}


NODES = [node("10.0.0.1", "hall-pc"), node("10.0.0.2", "edge-pc", **{"host:edge1": 1.0, "gpu_box": 1.0})]


@pytest.mark.parametrize(
    ("host", "resource"),
    [("edge1", "host:edge1"), ("gpu_box", "gpu_box"), ("edge-pc", "node:10.0.0.2"), ("10.0.0.1", "node:10.0.0.1")],
)
def test_a_host_is_a_label_or_a_machine(host: str, resource: str) -> None:
    assert cluster._resource(host, NODES, "hall.yaml:3") == resource


def test_a_host_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(ClusterError) as error:
        cluster._resource("edge2", NODES, "hall.yaml:3 (node capture/north)")
    assert str(error.value) == (
        "hall.yaml:3 (node capture/north): no machine of the cluster is called 'edge2'\n"
        "  -> there are labels: edge1; machines: 10.0.0.1 (hall-pc), 10.0.0.2 (edge-pc). "
        "On that machine: ray start --address ... --resources '{\"host:edge2\": 1}'"
    )


def test_without_ray_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ClusterError) as error:
        cluster._ray()
    assert str(error.value) == "--cluster: Ray is not installed\n  -> pip install 'posepipe[cluster]'"


@pytest.mark.parametrize("address", ["hall", "ray://hall", "hall:", ":6379", "hall:port"])
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(ClusterError) as error:
        cluster._knock(address)
    assert error.value.what == f"{address!r} is no address"
    assert error.value.hint == "auto, HOST:6379, ray://HOST:10001, or local"


def test_an_address_where_nobody_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(*_: Any, **__: Any) -> socket.socket:
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(socket, "create_connection", nobody)
    with pytest.raises(ClusterError) as error:
        cluster._knock("hall:6379")
    assert str(error.value).startswith(
        "--cluster hall:6379: nothing answers: Connection refused\n  -> on the first machine: ray start --head"
    )


@pytest.mark.parametrize(
    ("why", "what"),
    [
        ("ModuleNotFoundError: No module named 'posepipe'", "posepipe is not installed there"),
        ("The actor died.\n  unexpectedly before finishing\n", "Ray cannot start it: unexpectedly before finishing"),
        ("", "Ray cannot start it within 60 s"),
    ],
)
def test_a_worker_that_cannot_be_started(why: str, what: str) -> None:
    assert cluster._cannot("main@b", why).what == what


@pytest.mark.parametrize(("version", "python"), [("0.0.1", platform.python_version()), (__version__, "3.8.1")])
def test_another_posepipe_or_python_over_there_is_refused(version: str, python: str) -> None:
    with pytest.raises(ClusterError) as error:
        abroad._same(Hello(version, python, b"", 1), "main@b")
    here = f"posepipe {__version__} on Python {platform.python_version()} here"
    assert error.value.what == f"posepipe {version} on Python {python} there, {here}"
    abroad._same(Hello(__version__, platform.python_version(), b"", 1), "main@b")


HALL = """
nodes:
  capture: {use: capture.video, each: {north: north.mp4, south: south.mp4}}
  instants: {use: sync.instant, host: "${WHERE:-edge1}", from: capture}
"""


# the studio file ----------------------------------------------------------------------------------------------------------------


def with_host(folder: Path) -> Path:
    file = folder / "hall.yaml"
    file.write_text(HALL)
    return file


def test_a_studio_that_names_hosts_needs_a_cluster(tmp_path: Path) -> None:
    plan = studio.load(with_host(tmp_path))
    with pytest.raises(GraphError) as error:
        run._refuse_hosts_without_cluster(plan, None)
    assert error.value.what == "it belongs on host 'edge1', and this run has no cluster"
    assert error.value.where.endswith("(node instants)")
    run._refuse_hosts_without_cluster(plan, "auto")


def test_another_host_builds_the_same_plan_from_the_brief(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has neither the file nor the environment."""
    monkeypatch.setenv("WHERE", "edge7")
    file = with_host(tmp_path)
    plan = studio.load(file, overrides=("nodes.instants.wait_ms=33",))
    monkeypatch.setattr(studio, "rig_files", lambda _: {"hall.rig.toml": "text"})
    brief = Brief.of(plan, overrides=("nodes.instants.wait_ms=33",), seconds=None, trace=False, loud=False)
    sent = msgspec.json.decode(msgspec.json.encode(brief), type=Brief)
    assert sent == brief
    assert sent.environment == {"WHERE": "edge7"}
    monkeypatch.delenv("WHERE")
    file.unlink()
    again = studio.load(Path(sent.file), overrides=sent.overrides, environment=sent.environment, text=sent.text)
    assert again.sha256 == plan.sha256
    assert [n.process for n in again.nodes] == [n.process for n in plan.nodes]
    assert again.folder == tmp_path
