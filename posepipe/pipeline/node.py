"""The node contract: typed settings, `open`, `step`, `close`. The signature of `step` is the node's ports.

    class Scale(Node):
        use = "demo.scale"

        class Settings(NodeSettings, frozen=True):
            factor: float = 1.0

        settings: Settings

        def step(self, poses: Poses) -> Poses: ...

* A parameter is an input port, its annotation the type that must arrive there.
* `Packet[T]` instead of `T` hands over the packet, with `seq`, `t_capture_ns` and trace.
* `T | None` (or `Packet[T] | None`) is an input that a studio may leave out. Then it is None; it also is for an instant for which it never
  came, so that whoever gives it cannot cost the instant.
* `Latest[T]` is fed by `feedback:`: the newest result of a node further down, or None. It never waits.
* The return annotation is the output port; `None` as a type makes a sink; returning None loses the packet, counted.
A node has no loop, socket poll, clock, retry or queue of its own: the runner has them.
"""

from __future__ import annotations

import inspect
import logging
import threading
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, TypeVar

import msgspec

from .errors import GraphError
from .loans import Lend
from .packet import Frame, FrameSet, Packet

T = TypeVar("T")

_FEEDBACK = "feedback"
Latest = Annotated[T | None, _FEEDBACK]


class NodeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of a node's settings: typed, validated, immutable. Document a field with `Annotated[float, Meta(description=..., ge=0)]`."""

    def beside(self, folder: Path) -> Self:
        """These settings as they are in a studio file of that folder: with the paths that `check` and `caps` have to open made whole."""
        return self


@dataclass(frozen=True, slots=True)
class Caps:
    """What a port says beyond its type. Empty means: does not apply.

    maps: `ViewPoses` with heatmaps, since a node behind it wants them. actions: the labels of `Actions`. body: the model of `Poses.bodies`.
    """

    skeleton: str = ""
    cameras: tuple[str, ...] = ()
    frame_rate_hz: float = 0.0
    maps: bool = False
    actions: tuple[str, ...] = ()
    body: str = ""


@dataclass(frozen=True, slots=True)
class Context:
    """What the runner gives a node in `open`."""

    studio: str
    name: str
    key: str
    cameras: tuple[str, ...]
    caps: Mapping[str, Caps]
    graph_sha256: str
    offline: bool
    loop: bool
    rig: Any
    engines: Mapping[str, Any]
    resolve: Callable[[str], Path]
    now_ns: Callable[[], int]
    stopping: threading.Event
    drop: Callable[[Any, str], None]
    warn: Callable[[str], None]
    log: logging.Logger = field(default_factory=lambda: logging.getLogger("posepipe"))
    gives: Caps = field(default_factory=Caps)
    """What the plan says of the node's own output."""
    lend: Lend | None = None
    """Memory that a source may write its pictures into, so that they need no copy on their way to other processes. None: there is none."""


class Node:
    """Base of every node. Subclasses set `use`, may define `Settings`, and must define `step`."""

    use: ClassVar[str] = ""
    doc: ClassVar[str] = ""
    fan_in: ClassVar[bool] = False
    """Several upstream nodes may feed the one input port, and one output may be made of several inputs."""
    holds: ClassVar[bool] = False
    """Packets leave it later than the `step` that brought them. `step`, `on_time` and `on_end` then give lists of packets that came, with the
    body that they leave with. What is still held when its input has ended leaves in `on_end`."""
    publishes: ClassVar[bool] = False
    """A frame that reaches this sink counts as published in the ledger."""
    needs_rig: ClassVar[bool] = False
    """Refused in a studio without a calibration."""
    own_process: ClassVar[bool] = False
    """By default the node is placed in a worker of its own (captures, and sinks too slow for the live path)."""
    default_queue: ClassVar[tuple[int, str]] = (2, "drop_oldest")
    """Size and policy of a link into this node when the studio file does not say."""

    Settings: ClassVar[type[NodeSettings]] = NodeSettings
    settings: NodeSettings

    def __init__(self, settings: NodeSettings) -> None:
        self.settings = settings

    @classmethod
    def caps(cls, settings: Any, inputs: Mapping[str, Caps]) -> Caps:
        """What leaves this node, given what arrives. Default: what arrives at the first port."""
        return next(iter(inputs.values()), Caps())

    @classmethod
    def wants_maps(cls, settings: Any) -> bool:
        """Whether it reads the heatmaps of `ViewPoses`: then a node before it that has them (`gives_maps`) makes them, and otherwise none does."""
        return False

    @classmethod
    def gives_maps(cls, settings: Any) -> bool:
        """Whether its `ViewPoses` can have heatmaps. They are made where `Context.gives` says so."""
        return False

    @classmethod
    def check(cls, settings: Any, inputs: Mapping[str, Caps]) -> None:
        """Refuse settings or inputs that cannot work, before anything is opened. Raises GraphError."""

    @classmethod
    def needs(cls, settings: Any) -> tuple[str, ...]:
        """Names of the models that have to be on this machine."""
        return ()

    @classmethod
    def networks(cls, settings: Any, rig: Any) -> Mapping[str, Path]:
        """The network files that `open` opens, by name: `posepipe build` compiles them. A PosepipeError when one is
        not on this machine."""
        return {}

    def open(self, ctx: Context) -> None:
        """Take what the node needs (model, socket, file). Raises a PosepipeError that says what to do."""

    def close(self) -> None:
        """Give everything back. Called once, also after a failed `open`."""

    def wake_ns(self) -> int | None:
        """Studio time at which `on_time` wants to be called, None for never."""
        return None

    def on_time(self, now_ns: int) -> list[Any]:
        """The time asked for by `wake_ns` has come: outputs that are due."""
        return []

    def on_end(self, source: str) -> list[Any]:
        """An upstream node has ended (`source`: a camera or a node name): outputs that no longer wait for it."""
        return []


class FrameLost(Exception):
    """Raised by a source's `step`: the camera had `count` frames that could not become pictures (`reason`)."""

    def __init__(self, reason: str, count: int = 1) -> None:
        super().__init__(reason)
        self.reason, self.count = reason, count


class Source(Node):
    """A node without inputs. The runner calls `step` on a thread of its own and keeps the pace that `due_s` asks for.

    A live source raises SourceError from `open` or `step` when it is not there or breaks off. It is then closed, and opened again
    until it is back, for as long as the studio runs; its `seq` may begin at 0 again.
    """

    own_process: ClassVar[bool] = True

    @property
    def live(self) -> bool:
        """Whether the source comes back by itself (a camera), so that it pays to try again."""
        return False

    @property
    def address(self) -> str:
        """Where it comes from, as it may be shown (without a password)."""
        return self.use

    def reachable(self) -> bool | None:
        """While a live source is away: whether trying to open it makes sense, found out within two seconds and without opening it.

        None: nobody can tell.
        """
        return None

    def due_s(self) -> float | None:
        """Seconds after the start at which the next frame exists; None for a live device (step waits for it itself)."""
        return None

    def skip(self, until_s: float) -> int:
        """Called when decoding is far behind: pass over frames that were due by `until_s` without decoding them. Returns how many."""
        return 0

    def resume(self, until_s: float) -> None:
        """Called before the first `step` of a source that was started again: go to where it would be at `until_s`, as far as that
        goes without decoding. Its frames keep the numbers that they would have had."""
        while self.skip(until_s):
            pass


@dataclass(frozen=True, slots=True)
class Port:
    """One input of a node, read off the signature of `step`. optional: a studio may leave it out."""

    name: str
    type: type
    feedback: bool = False
    packet: bool = False
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Ports:
    inputs: tuple[Port, ...]
    feedback: tuple[Port, ...]
    output: type | None

    @property
    def needed(self) -> tuple[Port, ...]:
        """The inputs that no studio may leave out."""
        return tuple(p for p in self.inputs if not p.optional)


def ports(cls: type[Node]) -> Ports:
    """The ports of a node class. GraphError for a signature that is not one."""
    step = getattr(cls, "step", None)
    if step is None:
        raise GraphError(f"node type {cls.use!r} ({cls.__qualname__}) has no method 'step'")
    hints = typing.get_type_hints(step, include_extras=True)
    inputs: list[Port] = []
    feedback: list[Port] = []
    for name in list(inspect.signature(step).parameters)[1:]:
        if name not in hints:
            raise GraphError(f"node type {cls.use!r}: parameter {name!r} of step has no type", hint="the signature of step is its ports")
        port = _port(name, hints[name])
        (feedback if port.feedback else inputs).append(port)
    if inputs and all(port.optional for port in inputs):
        what = f"node type {cls.use!r}: every input may be left out ({', '.join(port.name for port in inputs)})"
        raise GraphError(what, hint="one at least has to be there: it says when step is called")
    if bool(inputs) == issubclass(cls, Source):
        what = f"node type {cls.use!r} is a source with the input {inputs[0].name!r}" if inputs else f"node type {cls.use!r} has no input"
        raise GraphError(what, hint="a node without inputs is a Source, and only that")
    return Ports(tuple(inputs), tuple(feedback), _output(hints.get("return", type(None))))


def _port(name: str, hint: Any) -> Port:
    if typing.get_origin(hint) is Annotated and _FEEDBACK in typing.get_args(hint)[1:]:
        (inner,) = (a for a in typing.get_args(typing.get_args(hint)[0]) if a is not type(None))
        return replace(_port(name, inner), feedback=True)
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        (inner,) = (a for a in typing.get_args(hint) if a is not type(None))
        return replace(_port(name, inner), optional=True)
    if typing.get_origin(hint) is Packet:
        return Port(name, typing.get_args(hint)[0], packet=True)
    return Port(name, hint)


def _output(hint: Any) -> type | None:
    """The body type behind `T`, `T | None`, `list[T]`, `list[Packet[T]]`."""
    if hint is type(None):
        return None
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        (hint,) = (a for a in typing.get_args(hint) if a is not type(None))
    if typing.get_origin(hint) is list:
        (hint,) = typing.get_args(hint)
    if typing.get_origin(hint) is Packet:
        (hint,) = typing.get_args(hint)
    return typing.cast(type, hint)


def starts_timeline(body: Any) -> bool:
    """Whether a body carries its own seq and capture time instead of inheriting those of its input."""
    return isinstance(body, (Frame, FrameSet))
