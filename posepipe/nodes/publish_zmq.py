"""publish.zmq: live skeletons on a ZeroMQ PUB socket, wire format 1 (docs/stream.md)."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgpack
import numpy as np
import zmq
from msgspec import Meta
from zmq.utils.monitor import recv_monitor_message

from posepipe.pipeline.errors import GraphError, PublishError
from posepipe.pipeline.node import Caps, Context, Node, NodeSettings
from posepipe.pipeline.packet import Actions, Packet, Poses
from posepipe.pipeline.skeleton import skeleton

from ._actions import Act, Acts, check_actions

WIRE_VERSION = 1
AXES = "x-right y-forward z-up right-handed"
_HELLO_EVERY_NS = 1_000_000_000


class PublishZmq(Node):
    """Publishes `hello/<studio>` once a second and `skeleton/<studio>` once per instant; metres, Unix nanoseconds.

    With `from: {poses: smooth, actions: action}` people also have what they do. Skeletons wait for their actions, but none is lost where
    those do not come. People whose skeletons come with a body (smooth.vibe) are published with it.

    The socket is an XPUB, which subscribers cannot tell from a PUB, so that `--await-subscribers` can count them.
    """

    use = "publish.zmq"
    publishes = True
    default_queue = (8, "drop_oldest")

    class Settings(NodeSettings, frozen=True):
        bind: Annotated[str, Meta(description="ZeroMQ address to bind", min_length=1)] = "tcp://127.0.0.1:5570"
        high_water: Annotated[int, Meta(description="messages kept for a slow subscriber before it loses the oldest", ge=1)] = 1000

    settings: Settings

    @classmethod
    def check(cls, settings: Settings, inputs: Mapping[str, Caps]) -> None:
        check_actions(inputs)
        scheme, _, rest = settings.bind.partition("://")
        port = rest.rpartition(":")[2]
        if (
            scheme not in ("tcp", "ipc", "inproc")
            or not rest
            or (scheme == "tcp" and not (port == "*" or (port.isdigit() and int(port) < 65536)))
        ):
            raise GraphError(
                f"bind is {settings.bind!r}, which is no ZeroMQ address", hint="for example tcp://127.0.0.1:5570 (ports end at 65535)"
            )

    _socket: zmq.Socket[bytes] | None = None
    _bound = False
    _connected = _subscribed = 0

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._one_at_a_time = threading.Lock()  # a worker's heart beats on a thread of its own, and asks for subscribers

    def open(self, ctx: Context) -> None:
        self._ctx = ctx
        self._connected = self._subscribed = 0
        self._next_hello_ns = 0
        self._acts = Acts(ctx)
        layout = skeleton(ctx.caps["poses"].skeleton)
        self._hello = msgpack.packb(
            {
                "v": WIRE_VERSION,
                "studio": ctx.studio,
                "skeleton": layout.name,
                "joints": list(layout.joints),
                "bones": [list(b) for b in layout.bones],
                "units": "m",
                "axes": AXES,
                "cameras": list(ctx.cameras),
                "actions": list(self._acts.names),
                "graph_sha256": ctx.graph_sha256,
            }
        )
        self._hello_topic, self._topic = f"hello/{ctx.studio}".encode(), f"skeleton/{ctx.studio}".encode()
        self._context = zmq.Context()
        socket: zmq.Socket[bytes] = self._context.socket(zmq.XPUB)
        socket.setsockopt(zmq.XPUB_VERBOSER, 1)
        socket.setsockopt(zmq.SNDHWM, self.settings.high_water)
        socket.setsockopt(zmq.LINGER, 500)
        self._monitor = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
        with self._one_at_a_time:
            self._socket = socket
            self._bind(socket)

    def _bind(self, socket: zmq.Socket[bytes]) -> None:
        address = self.settings.bind
        where = f"node {self._ctx.name}"
        try:
            socket.bind(address)
            self._bound = True
        except zmq.ZMQError as e:
            if e.errno == zmq.EADDRINUSE:
                hint = f"another studio or program has it: stop that, or choose another port, e.g. --set nodes.{self._ctx.name}.bind=tcp://127.0.0.1:5571"
                raise PublishError(f"{address} is already in use", where=where, hint=hint) from None
            raise PublishError(
                f"cannot bind {address!r}: {zmq.strerror(e.errno or 0)}",
                where=where,
                hint="for example tcp://127.0.0.1:5570, or tcp://*:5570 for other machines",
            ) from None

    def subscribers(self) -> int:
        """Subscribers that are connected and have said what they want; any thread may ask, also before `open` and after `close`."""
        with self._one_at_a_time:
            if self._socket is None:
                return 0
            while self._monitor.poll(0):
                event = recv_monitor_message(self._monitor)["event"]
                self._connected += 1 if event == zmq.EVENT_HANDSHAKE_SUCCEEDED else -1
            self._read_subscriptions(self._socket)
            return min(self._connected, self._subscribed)

    def _read_subscriptions(self, socket: zmq.Socket[bytes]) -> None:
        while socket.poll(0):
            self._subscribed += 1 if socket.recv()[:1] == b"\x01" else -1

    def step(self, poses: Packet[Poses], actions: Actions | None = None) -> None:
        packed = self._packed(poses, actions)
        with self._one_at_a_time:
            assert self._socket is not None
            self._socket.send_multipart([self._topic, packed])

    def _packed(self, poses: Packet[Poses], actions: Actions | None) -> bytes:
        acts = self._acts.of(poses.body.ids, actions)
        packed: bytes = msgpack.packb(message(poses, acts, t_publish_ns=self._ctx.now_ns()))
        return packed

    def wake_ns(self) -> int | None:
        return self._next_hello_ns

    def on_time(self, now_ns: int) -> list[Any]:
        with self._one_at_a_time:
            assert self._socket is not None
            self._read_subscriptions(self._socket)
            self._socket.send_multipart([self._hello_topic, self._hello])
        self._next_hello_ns = now_ns + _HELLO_EVERY_NS
        return []

    def close(self) -> None:
        with self._one_at_a_time:
            socket, self._socket = self._socket, None
            if socket is not None:
                socket.disable_monitor()
                self._monitor.close()
                socket.close()
        if socket is not None:
            self._context.term()
            if self._bound and self.settings.bind.startswith("ipc://"):
                Path(self.settings.bind.removeprefix("ipc://")).unlink(missing_ok=True)


def message(poses: Packet[Poses], acts: Sequence[Act | None], *, t_publish_ns: int) -> dict[str, Any]:
    """The `skeleton/` message of one instant: float32 little-endian, unseen joints NaN with conf 0. acts [P]: what everybody does."""
    body, sync = poses.body, poses.body.sync
    bodies = _bodies(body)
    return {
        "v": WIRE_VERSION,
        "seq": poses.seq,
        "t_capture_ns": poses.t_capture_ns,
        "t_publish_ns": t_publish_ns,
        "sync": {
            "skew_ns": sync.skew_ns,
            "views": sync.views,
            "missing": sync.missing,
            "offset_ms": sync.offset_ms,
            "drift_ppm": sync.drift_ppm,
            "complete": sync.complete,
        },
        "tier": body.tier,
        "people": [
            {
                "id": int(body.ids[i]),
                "xyz_m": _f4(body.xyz_m[i]),
                "conf": _f4(body.conf[i]),
                "sigma_m": _f4(body.sigma_m[i]),
                "reproj_px": float(body.reproj_px[i]),
                "action": None if act is None else {"label": act.label, "p": _f4(act.p)},
                "body": bodies[i],
            }
            for i, act in enumerate(acts)
        ],
    }


def _bodies(poses: Poses) -> list[dict[str, Any] | None]:
    """[P]; None for who has none."""
    b = poses.bodies
    if b is None:
        return [None] * len(poses.ids)
    return [
        {"model": b.model, "pose": _f4(b.pose[i]), "shape": _f4(b.shape[i]), "root_m": _f4(b.root_m[i])} if known else None
        for i, known in enumerate(b.known.tolist())
    ]


def _f4(array: np.ndarray[Any, Any]) -> bytes:
    return np.ascontiguousarray(array, "<f4").tobytes()
