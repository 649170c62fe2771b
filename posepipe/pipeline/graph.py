"""A studio file becomes a checked plan, before any camera opens.

Every mistake is named with file:line, field, value and the nearest valid name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from . import hosts
from .chaos import Entry, entries
from .errors import GraphError, did_you_mean
from .links import Queue
from .node import Caps, Node, Port, Ports, Source, ports
from .restart import Restart
from .telemetry import Telemetry, telemetry
from .yamlfile import Where, YamlFile, load_yaml

RESERVED = ("use", "from", "feedback", "each", "queue", "process", "restart", "host", "wire")
TOP = ("studio", "rig", "truth", "nodes", "engines", "budgets", "metrics", "chaos")
_PERCENTILES = ("p50", "p95", "p99")

Registry = Mapping[str, type[Node]]


@dataclass(frozen=True, slots=True)
class PlanNode:
    """One node to run. `name` is unique (`capture/north` for an entry of `each`), `base` its name in the file, `key` the entry."""

    name: str
    base: str
    key: str
    use: str
    cls: type[Node]
    settings: Any
    ports: Ports
    inputs: Mapping[str, tuple[str, ...]]
    feedback: Mapping[str, str]
    queue: Queue
    process: str
    host: str
    wire: hosts.WireFormat
    restart: Restart
    place: str
    caps: Caps
    caps_in: Mapping[str, Caps]


@dataclass(frozen=True, slots=True)
class Budget:
    """`heatmaps_p95_ms: 18`: node `heatmaps` (or `end_to_end`), percentile `p95`, at most 18 ms."""

    key: str
    node: str
    percentile: str
    limit_ms: float
    place: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What will run, in topological order."""

    file: YamlFile
    studio: str
    rig: Any
    nodes: tuple[PlanNode, ...]
    engines: Mapping[str, Any]
    budgets: tuple[Budget, ...]
    metrics: Telemetry
    cameras: tuple[str, ...]
    sha256: str
    chaos: tuple[Entry, ...] = ()

    def __getitem__(self, name: str) -> PlanNode:
        return next(n for n in self.nodes if n.name == name)

    @property
    def sources(self) -> list[PlanNode]:
        return [n for n in self.nodes if issubclass(n.cls, Source)]

    @property
    def folder(self) -> Path:
        """Relative inputs (clips, rigs) are looked for beside the studio file."""
        return Path(self.file.name).parent


def load_plan(
    path: Path,
    registry: Registry,
    *,
    overrides: tuple[str, ...] = (),
    environment: Mapping[str, str] | None = None,
    text: str | None = None,
) -> Plan:
    """Read and check a studio file (`text`: what it says, if not read here). The mistakes of one stage are told in one GraphError."""
    file = load_yaml(path, environment=environment, text=text)
    for text in overrides:
        file.override(text)
    return _Planner(file, registry).plan()


def _merged(caps: list[Caps]) -> Caps:
    """What arrives at a port that several nodes feed."""
    return replace(caps[0], cameras=tuple(c for one in caps for c in one.cameras))


class _Planner:
    def __init__(self, file: YamlFile, registry: Registry) -> None:
        self._file, self._registry = file, registry
        self._mistakes: list[GraphError] = []

    def _wrong(self, path: Where, what: str, hint: str = "") -> None:
        place = self._file.place(path)
        if not any((m.what, m.where) == (what, place) for m in self._mistakes):  # every entry of an each repeats what they share
            self._mistakes.append(GraphError(what, where=place, hint=hint))

    def _stop_if_wrong(self) -> None:
        if len(self._mistakes) == 1:
            raise self._mistakes[0]
        if self._mistakes:
            raise GraphError(f"{len(self._mistakes)} mistakes in {self._file.name}\n" + "\n".join(str(m) for m in self._mistakes))

    def plan(self) -> Plan:
        top = self._file.value
        for key in top:
            if key not in TOP:
                self._wrong((key,), f"unknown key {key!r}", did_you_mean(key, TOP))
        studio = top.get("studio", Path(self._file.name).stem)
        if not isinstance(studio, str) or not studio:
            self._wrong(("studio",), f"studio is {studio!r}, want a name", "studio: hall")
        raw = top.get("nodes")
        if not isinstance(raw, dict) or not raw:
            self._wrong(("nodes",), "there are no nodes", "add nodes: with a capture, see examples/studio.yaml")
            self._stop_if_wrong()
            raise AssertionError
        engines = top.get("engines") or {}
        if not isinstance(engines, dict):
            self._wrong(("engines",), f"engines is {engines!r}, want a map", "engines: {runtime: auto}")
        nodes = [n for name, body in raw.items() for n in self._node(name, body)]
        self._stop_if_wrong()
        for node in nodes:
            if node.cls.needs_rig and top.get("rig") is None:
                what = f"node {node.base!r} ({node.use}) needs a calibration, but the studio has no rig"
                self._wrong(("nodes", node.base), what, "add rig: FILE (docs/rig.md)")
        nodes = [self._wire(n, nodes, raw) for n in nodes]
        self._stop_if_wrong()
        nodes = self._order(nodes)
        self._stop_if_wrong()
        nodes = self._caps(nodes)
        budgets = tuple(self._budgets(top.get("budgets") or {}, raw))
        metrics = telemetry(top.get("metrics"), self._wrong)
        chaos = entries(top.get("chaos"), nodes, self._wrong)
        cameras = tuple(n.key or n.base for n in nodes if issubclass(n.cls, Source))
        if len(set(cameras)) < len(cameras):
            twice = sorted({c for c in cameras if cameras.count(c) > 1})
            self._wrong(("nodes",), f"camera {twice[0]!r} stands in two capture nodes", "camera names are unique in a studio")
        self._stop_if_wrong()
        digest = hashlib.sha256(json.dumps(top, sort_keys=True, default=str).encode()).hexdigest()
        return Plan(self._file, studio, top.get("rig"), tuple(nodes), engines, budgets, metrics, cameras, digest, chaos)

    # nodes and settings -------------------------------------------------------------------------------------------------

    def _node(self, name: str, body: Any) -> Iterator[PlanNode]:
        path: Where = ("nodes", name)
        if name == "end_to_end" or "/" in name or "." in name:
            return self._wrong(path, f"{name!r} cannot be a node's name", "letters, digits, _ and -; end_to_end is taken by budgets")
        if not isinstance(body, dict):
            return self._wrong(path, f"node {name!r} is {body!r}, want a map with use: ...", f"{name}: {{use: capture.video, ...}}")
        use: Any = body.get("use")
        upstream: tuple[Any, Any] = body.get("from"), body.get("feedback")
        if not isinstance(use, str) or use not in self._registry:
            known = did_you_mean(str(use), self._registry)
            return self._wrong(
                (*path, "use"), f"node {name!r}: there is no node type {use!r}" if use else f"node {name!r} has no use:", known
            )
        cls = self._registry[use]
        queue = self._queue(path, body, cls)
        process: Any = body.get("process", "own" if cls.own_process else "main")
        if not isinstance(process, str):
            self._wrong((*path, "process"), f"node {name!r}: process is {process!r}, want own or a name", "process: own")
        restart = self._restart(path, body)
        wire = hosts.wire_format(body, ports(cls), path, self._wrong)
        shared = {k: v for k, v in body.items() if k not in RESERVED}
        each = body.get("each")
        if each is not None and (not isinstance(each, dict) or not each):
            return self._wrong(
                (*path, "each"), f"node {name!r}: each is {each!r}, want a map with one entry a camera", "each: {north: north.mp4}"
            )
        for key, own in (each or {"": None}).items():
            where = (*path, "each", key) if each else path
            if "/" in key:
                self._wrong(where, f"{key!r} cannot be the name of an entry of each", "letters, digits, _ and -")
            if each and not isinstance(own, dict):
                first = msgspec.structs.fields(cls.Settings)[:1]
                own = {first[0].encode_name: own} if first else {}
            host = hosts.host(body, own, where, self._wrong)
            settings = self._settings(where, name, cls, {**shared, **{k: v for k, v in (own or {}).items() if k != "host"}})
            full = f"{name}/{key}" if key else name
            placed = hosts.worker(process, full, host), host
            node = (full, name, key, use, cls, settings, ports(cls), *upstream, queue)
            yield PlanNode(*node, *placed, wire, restart, self._file.place(path), Caps(), {})

    def _queue(self, path: Where, body: dict[str, Any], cls: type[Node]) -> Queue:
        size, full = cls.default_queue
        raw = body.get("queue", {})
        try:
            return msgspec.convert({"size": size, "full": full, **raw} if isinstance(raw, dict) else raw, Queue)
        except msgspec.ValidationError as e:
            self._wrong(
                (*path, "queue"),
                f"node {path[-1]!r}: queue is {raw!r}: {e}",
                "queue: {size: 2, full: drop_oldest | keep_newest | drop_newest | block}",
            )
            return Queue()

    def _restart(self, path: Where, body: dict[str, Any]) -> Restart:
        raw = body.get("restart", {})
        try:
            return msgspec.convert({"policy": raw} if isinstance(raw, str) else raw, Restart)
        except msgspec.ValidationError as e:
            hint = (
                "restart: on_failure, or restart: {policy: never | on_failure | always, backoff_s: 0.1, window_s: 60, max: 5, hang_s: 10}"
            )
            self._wrong((*path, "restart"), f"node {path[-1]!r}: restart is {raw!r}: {e}", hint)
            return Restart()

    def _settings(self, path: Where, name: str, cls: type[Node], raw: dict[str, Any]) -> Any:
        fields = {f.encode_name: f for f in msgspec.structs.fields(cls.Settings)}
        good = True
        for key, value in raw.items():
            if key not in fields:
                good = False
                hint = did_you_mean(key, [*fields, *RESERVED])
                self._wrong(self._near(path, name, key), f"node {name!r} ({cls.use}) has no setting {key!r}", hint)
                continue
            try:
                msgspec.convert(value, fields[key].type)
            except msgspec.ValidationError as e:
                good = False
                self._wrong(self._near(path, name, key), f"node {name!r}: {key} is {value!r}: {e}", f"see posepipe inspect {cls.use}")
        missing = [k for k, f in fields.items() if f.required and k not in raw]
        for key in missing:
            self._wrong(path, f"node {name!r} ({cls.use}) needs the setting {key!r}", f"see posepipe inspect {cls.use}")
        if missing or not good:
            return None
        try:
            return msgspec.convert(raw, cls.Settings).beside(Path(self._file.name).parent)
        except msgspec.ValidationError as e:
            self._wrong(path, f"node {name!r}: {e}", f"see posepipe inspect {cls.use}")
            return None

    def _near(self, path: Where, name: str, key: str) -> Where:
        """Where a setting stands: in the entry of `each`, on the node, or (an entry that is only a value) the entry itself."""
        return next((p for p in ((*path, key), ("nodes", name, key)) if p in self._file.places), path)

    # wiring ---------------------------------------------------------------------------------------------------------------

    def _wire(self, node: PlanNode, nodes: list[PlanNode], raw: dict[str, Any]) -> PlanNode:
        path: Where = ("nodes", node.base)
        inputs = self._link_map(node, (*path, "from"), node.inputs, node.ports.inputs, raw)
        feedback = self._link_map(node, (*path, "feedback"), node.feedback, node.ports.feedback, raw)
        types = {p.name: p.type for p in (*node.ports.inputs, *node.ports.feedback)}
        wired: dict[str, tuple[str, ...]] = {}
        for upstream in feedback.values():
            if isinstance(raw[upstream], dict) and raw[upstream].get("each"):
                self._wrong(
                    (*path, "feedback"), f"node {node.base!r} takes feedback from {upstream!r}, which is several (each)", "name one node"
                )
        for key, links in (("from", inputs), ("feedback", feedback)):
            for port, upstream in links.items():
                for up in (n for n in nodes if n.base == upstream):
                    if up.ports.output is None:
                        self._wrong(
                            (*path, key),
                            f"node {node.base!r} takes {up.base!r}, but {up.use} is a sink: it has no output",
                            "take a node before it",
                        )
                    elif not issubclass(up.ports.output, types[port]):
                        what = f"{up.base!r} gives {up.ports.output.__name__}, but {node.base!r} ({node.use}) wants {types[port].__name__} at {port!r}"
                        self._wrong((*path, key), what, self._who_gives(types[port], nodes))
                if key == "from":
                    wired[port] = tuple(n.name for n in nodes if n.base == upstream)
        if len(node.ports.inputs) and not node.cls.fan_in:
            for port, names in wired.items():
                if len(names) > 1:
                    self._wrong(
                        (*path, "from"),
                        f"node {node.base!r} takes one node at {port!r}, but {inputs[port]!r} is {len(names)} (each)",
                        "put a sync.instant between them",
                    )
        return replace(node, inputs=wired, feedback=dict(feedback.items()))

    def _who_gives(self, want: type, nodes: list[PlanNode]) -> str:
        here = sorted({n.base for n in nodes if n.ports.output is not None and issubclass(n.ports.output, want)})
        if here:
            return f"{want.__name__} comes from: {', '.join(here)}"
        types = sorted(u for u, cls in self._registry.items() if (out := ports(cls).output) is not None and issubclass(out, want))
        return f"{want.__name__} is made by node types: {', '.join(types) or 'none'}"

    def _link_map(self, node: PlanNode, path: Where, raw: Any, ends: tuple[Port, ...], nodes: dict[str, Any]) -> dict[str, str]:
        """`from: a` or `from: {port: a}` as port -> node."""
        key, names = path[-1], [p.name for p in ends]
        needed = [p.name for p in ends if not p.optional] if key == "from" else []
        several = f"from: {{{', '.join(f'{n}: ...' for n in needed)}}}"
        if raw is None:
            if needed:
                self._wrong(path[:-1], f"node {node.base!r} ({node.use}) needs from: for {', '.join(needed)}", f"from: {next(iter(nodes))}")
            return {}
        if not names:
            self._wrong(
                path,
                f"node {node.base!r} ({node.use}) has no {'input' if key == 'from' else 'feedback'}, but {key}: is {raw!r}",
                f"leave {key}: out",
            )
            return {}
        if isinstance(raw, str):
            if len(needed) > 1:
                self._wrong(path, f"node {node.base!r} has several inputs", several)
                return {}
            raw = {(needed or names)[0]: raw}
        if not isinstance(raw, dict):
            self._wrong(path, f"node {node.base!r}: {key} is {raw!r}, want a node's name or a map of them", f"{key}: {next(iter(nodes))}")
            return {}
        links: dict[str, str] = {}
        for port, upstream in raw.items():
            if port not in names:
                self._wrong((*path, port), f"node {node.base!r} ({node.use}) has no input {port!r}", did_you_mean(port, names))
            elif not isinstance(upstream, str) or upstream not in nodes:
                self._wrong(
                    (*path, port), f"node {node.base!r} takes {upstream!r}, but there is no such node", did_you_mean(str(upstream), nodes)
                )
            else:
                links[port] = upstream
        for port in needed:
            if port not in raw:
                self._wrong(path, f"node {node.base!r} ({node.use}) also needs {port!r}", several)
        return links

    def _order(self, nodes: list[PlanNode]) -> list[PlanNode]:
        """Topological order; a cycle that is not feedback is refused with its path."""
        by_name = {n.name: n for n in nodes}
        done: dict[str, PlanNode] = {}
        walking: list[str] = []

        def visit(node: PlanNode) -> None:
            if node.name in done or self._mistakes:
                return
            if node.name in walking:
                loop = [by_name[n].base for n in walking[walking.index(node.name) :]] + [node.base]
                hint = f"only feedback: may close a loop: on {loop[0]!r}, write feedback: {loop[1]} instead of from:"
                return self._wrong(("nodes", node.base, "from"), f"the graph has a cycle: {' <- '.join(loop)}", hint)
            walking.append(node.name)
            for upstream in (u for names in node.inputs.values() for u in names):
                visit(by_name[upstream])
            walking.pop()
            done[node.name] = node

        for node in nodes:
            visit(node)
        return list(done.values())

    def _caps(self, nodes: list[PlanNode]) -> list[PlanNode]:
        made: dict[str, PlanNode] = {}
        asked = {writer for n in nodes if n.cls.wants_maps(n.settings) for names in n.inputs.values() for writer in names}
        for node in nodes:
            arriving = {port: _merged([made[n].caps for n in names]) for port, names in node.inputs.items()}
            try:
                node.cls.check(node.settings, arriving)
                caps = node.cls.caps(node.settings, arriving)
                caps = replace(caps, maps=node.name in asked and node.cls.gives_maps(node.settings))
            except GraphError as e:
                self._wrong(("nodes", node.base), f"node {node.base!r}: {e.what}", e.hint)
                caps = Caps()
            if issubclass(node.cls, Source):
                caps = replace(caps, cameras=(node.key or node.base,))
            made[node.name] = replace(node, caps=caps, caps_in=arriving)
        return list(made.values())

    def _budgets(self, raw: Any, nodes: dict[str, Any]) -> Iterator[Budget]:
        path: Where = ("budgets",)
        if not isinstance(raw, dict):
            return self._wrong(path, f"budgets is {raw!r}, want a map", "budgets: {end_to_end_p95_ms: 100}")
        valid = [f"{n}_{p}_ms" for n in (*nodes, "end_to_end") for p in _PERCENTILES]
        for key, limit in raw.items():
            if key not in valid:
                self._wrong((*path, key), f"unknown budget {key!r}", did_you_mean(key, valid))
            elif not isinstance(limit, (int, float)) or isinstance(limit, bool) or limit <= 0:
                self._wrong((*path, key), f"budget {key} is {limit!r}, want milliseconds above 0", f"{key}: 50")
            else:
                node, percentile, _ = key.rsplit("_", 2)
                yield Budget(key, node, percentile, float(limit), self._file.place((*path, key)))
