"""Workers on the machines of a Ray cluster: one actor for each, which Ray places by a resource label and starts again when it dies.

Ray finds machines and starts processes there. It carries no frame and no letter: those go over the studio's own encrypted links, and
the keys for them are made by the processes themselves; through Ray goes only what is public, and what to run.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import Iterator
from typing import Any

import msgspec

from posepipe import __version__
from posepipe.pipeline.errors import ClusterError
from posepipe.pipeline.graph import Plan

from .abroad import Abroad
from .outpost import Brief, Hello, Outpost

LOCAL = "local"
_REACHED_WITHIN_S = 60.0
_KNOCK_S = 5.0
_LITTLE = 0.001
"""Of a label's resource: it says where, not how much."""
_INSTALL = "pip install 'posepipe[cluster]'"


def hosts(plan: Plan) -> dict[str, str]:
    """Hosts that a plan names, and where the first node of each stands in the file."""
    found: dict[str, str] = {}
    for node in plan.nodes:
        if node.host:
            found.setdefault(node.host, f"{node.place} (node {node.name})")
    return found


def _ray() -> Any:
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise ClusterError("Ray is not installed", where="--cluster", hint=_INSTALL) from None
    return ray


class RayCluster(Abroad):
    """The machines of a cluster as `Outposts`. address: `auto` (the cluster that this machine is in), `HOST:PORT`, `ray://HOST:PORT`,
    or `local`: a cluster of this machine alone, in which every host is this one."""

    def __init__(self, address: str, plan: Plan, brief: Brief) -> None:
        super().__init__(brief)
        self._address, self._plan, self._ray = address, plan, _ray()
        self._resources: dict[str, str] = {}
        self._actors: dict[str, Any] = {}
        self._closed = False
        if address not in (LOCAL, "auto"):
            _knock(address)

    def connect(self) -> str:
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}
        if self._address == LOCAL:
            options |= {"include_dashboard": False, "resources": {f"host:{host}": 1 for host in hosts(self._plan)}}
        with _signals_kept():
            try:
                self._ray.init(address=self._address, **options)
            except (ConnectionError, RuntimeError, ValueError, OSError) as e:
                what = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
                hint = "this machine has to be in the cluster, too: ray start --address HOST:6379; and the same Python and Ray everywhere"
                raise ClusterError(f"no cluster: {what}", where=f"--cluster {self._address}", hint=hint) from None
        nodes = [node for node in self._ray.nodes() if node["Alive"]]
        self._resources = {host: _resource(host, nodes, place) for host, place in hosts(self._plan).items()}
        return str(self._ray.util.get_node_ip_address()) if not self._address.startswith("ray://") else _own_address(self._address)

    def reach(self, worker: str) -> Hello:
        """An actor that Ray is starting again is the old one; it does not answer until then."""
        actor = self._actors.get(worker)
        if actor is None:
            actor = self._actors[worker] = self._new(worker)
        until, why = time.monotonic() + _REACHED_WITHIN_S, ""
        while time.monotonic() < until and not self._closed:
            try:
                raw = self._ray.get(actor.hello.remote(), timeout=max(until - time.monotonic(), 0.1))
                return msgspec.json.decode(raw, type=Hello)
            except self._ray.exceptions.ActorDiedError as e:
                raise _cannot(worker, str(e)) from None
            except self._ray.exceptions.GetTimeoutError:
                break
            except self._ray.exceptions.RayError as e:
                why = str(e)
                time.sleep(0.1)
        raise _cannot(worker, why)

    def _new(self, worker: str) -> Any:
        node = next(n for n in self._plan.nodes if n.process == worker)
        options = {
            "num_cpus": 0,
            "resources": {self._resources[node.host]: _LITTLE},
            "max_restarts": 0 if node.restart.policy == "never" else -1,  # how often is enough, the supervisor counts
            "name": f"posepipe {os.getpid()} {worker}",
        }
        return self._ray.remote(OutpostActor).options(**options).remote()

    def serve(self, worker: str, brief: Brief) -> int:
        actor = self._actors[worker]
        try:
            status = int(self._ray.get(actor.serve.remote(worker, msgspec.json.encode(brief))))
        except self._ray.exceptions.RayActorError:
            return -signal.SIGKILL
        except self._ray.exceptions.RayError as e:
            raise _cannot(worker, str(e)) from None
        self._ray.kill(actor, no_restart=True)  # it has worked once: the next life begins in a new process
        del self._actors[worker]
        return status

    def kill(self, worker: str) -> None:
        if worker in self._actors:
            self._ray.kill(self._actors[worker], no_restart=False)

    def disconnect(self) -> None:
        self._closed = True
        if self._ray.is_initialized():
            for actor in list(self._actors.values()):
                self._ray.kill(actor, no_restart=True)
            self._ray.shutdown()


class OutpostActor:
    """An `Outpost` as Ray sees it."""

    def __init__(self) -> None:
        self._outpost = Outpost()

    def hello(self) -> bytes:
        return msgspec.json.encode(self._outpost.hello())

    def serve(self, worker: str, brief: bytes) -> int:
        ip = str(_ray().util.get_node_ip_address())
        return self._outpost.serve(worker, msgspec.json.decode(brief, type=Brief), ip=ip)


def _resource(host: str, nodes: list[dict[str, Any]], place: str) -> str:
    """What to ask of Ray for that host: a label that some machine has, or the machine itself."""
    for label in (f"host:{host}", host):
        if any(label in node["Resources"] for node in nodes):
            return label
    for node in nodes:
        if host in (node["NodeManagerAddress"], node["NodeManagerHostname"]):
            return f"node:{node['NodeManagerAddress']}"
    labels = sorted({label.removeprefix("host:") for node in nodes for label in node["Resources"] if label.startswith("host:")})
    machines = ", ".join(f"{node['NodeManagerAddress']} ({node['NodeManagerHostname']})" for node in nodes)
    there = f"labels: {', '.join(labels) or 'none'}; machines: {machines}"
    hint = f"there are {there}. On that machine: ray start --address ... --resources '{{\"host:{host}\": 1}}'"
    raise ClusterError(f"no machine of the cluster is called {host!r}", where=place, hint=hint)


def _cannot(worker: str, why: str) -> ClusterError:
    if "No module named 'posepipe" in why or "No module named 'msgspec" in why:
        what, hint = "posepipe is not installed there", f"on that machine: pip install 'posepipe[cluster]=={__version__}'"
    else:
        lines = [line.strip() for line in why.splitlines() if line.strip()]
        what = f"Ray cannot start it{f': {lines[-1]}' if lines else f' within {_REACHED_WITHIN_S:.0f} s'}"
        hint = "ray status shows whether its machine is up"
    return ClusterError(what, where=f"worker {worker}", hint=hint)


def _endpoint(address: str) -> tuple[str, int]:
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not host or not port.isdigit():
        raise ClusterError(f"{address!r} is no address", where="--cluster", hint="auto, HOST:6379, ray://HOST:10001, or local")
    return host, int(port)


def _knock(address: str) -> None:
    """Ray tries for minutes to reach a cluster that is not there."""
    try:
        socket.create_connection(_endpoint(address), timeout=_KNOCK_S).close()
    except OSError as e:
        hint = "on the first machine: ray start --head; its address is HOST:6379, or ray://HOST:10001 from outside"
        raise ClusterError(f"nothing answers: {e.strerror or e}", where=f"--cluster {address}", hint=hint) from None


def _own_address(address: str) -> str:
    """The address of this machine from which that one is reached. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
        way.connect(_endpoint(address))
        return str(way.getsockname()[0])


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray puts a handler of its own for SIGTERM; a studio stops in order."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
