"""What a worker does to itself when it is asked to, and that it is whole again afterwards. No thread, no waiting: `later` is a list."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import studio_kit
import zmq

from posepipe.launch import letters
from posepipe.launch.harm import Harming
from posepipe.pipeline.errors import RunError
from posepipe.pipeline.headers import Headers
from posepipe.pipeline.inbox import DATA, END
from posepipe.pipeline.packet import Frame, FrameSet, Packet, Sync, ViewPoses

WIRE, OTHER = 3, 4


class Slot:
    """The part of a slot that can be harmed."""

    def __init__(self, node: Any) -> None:
        self.node = node
        self.emitted: list[Packet[Any]] = []

    def emit(self, packet: Packet[Any], *, wait: bool = False) -> None:
        self.emitted.append(packet)


class Worker:
    """One with a camera, a node, and two wires that arrive at different nodes."""

    def __init__(self) -> None:
        self.camera = Slot(studio_kit.Capture(studio_kit.Capture.Settings()))
        self.lift = Slot(studio_kit.Lift(studio_kit.Lift.Settings()))
        self.got: list[tuple[int, int, list[bytes]]] = []
        self.on: dict[int, Callable[[int, Sequence[zmq.Frame]], bool]] = {number: self._handler(number) for number in (WIRE, OTHER)}
        arriving = {number: SimpleNamespace(wire=SimpleNamespace(reader=reader)) for number, reader in ((WIRE, "lift"), (OTHER, "view"))}
        self.told: list[letters.Harmed] = []
        self.later: list[tuple[float, Callable[[], object]]] = []
        slots: Any = {"capture/cam01": self.camera, "lift": self.lift}
        bridge: Any = SimpleNamespace(arriving=arriving)
        inbox: Any = SimpleNamespace(on=self.on)
        self.harming = Harming(slots, bridge, inbox, self.told.append, later=lambda *what: self.later.append(what))

    def _handler(self, number: int) -> Callable[[int, Sequence[zmq.Frame]], bool]:
        def handle(kind: int, payload: Sequence[zmq.Frame]) -> bool:
            self.got.append((number, kind, [part.bytes for part in payload]))
            return True

        return handle

    def harm(self, kind: str, node: str, *, by_ms: float = 0.0, share: float = 0.0, for_s: float = 0.0) -> None:
        self.harming.do(letters.Harm(7, kind, node, for_s, by_ms, share))

    def over(self) -> None:
        ((_, heal),) = self.later
        heal()


def message(*parts: bytes) -> list[zmq.Frame]:
    return [zmq.Frame(part) for part in parts]


def a_frame(t_ns: int) -> Frame:
    return Frame("cam01", 0, t_ns, "i420", 4, 4, (studio_kit.PIXELS,) * 3)


def test_a_stall_is_one_step_long() -> None:
    worker = Worker()
    worker.harm("stall", "lift")
    frames = FrameSet(0, 0, ("cam01",), {}, Sync(0, (), ()))
    assert worker.told == []
    assert len(worker.lift.node.step(instants=frames).ids) == 2, "the step is done all the same"
    assert worker.told == [letters.Harmed(7, 1)]
    worker.lift.node.step(instants=frames)
    assert len(worker.told) == 1
    assert "step" not in vars(worker.lift.node)


def test_a_stalled_camera_hands_its_frame_on_late() -> None:
    worker = Worker()
    worker.harm("stall", "capture/cam01")
    packet = Packet(0, 5, "capture/cam01", a_frame(5), (), ())
    worker.camera.emit(packet, wait=True)
    assert worker.camera.emitted == [packet]
    assert worker.told == [letters.Harmed(7, 1)]
    assert "emit" not in vars(worker.camera)


def test_a_skew_moves_the_stamps_of_packet_and_frame() -> None:
    worker = Worker()
    worker.harm("skew", "capture/cam01", by_ms=-15, for_s=2)
    packet = Packet(0, 1_000_000_000, "capture/cam01", a_frame(1_000_000_000), (), ())
    worker.camera.emit(packet, wait=True)
    assert worker.later[0][0] == 2
    worker.over()
    worker.camera.emit(packet, wait=True)
    stamps = [(p.t_capture_ns, p.body.t_capture_ns) for p in worker.camera.emitted]
    assert stamps == [(985_000_000, 985_000_000), (1_000_000_000, 1_000_000_000)]
    assert worker.told == [letters.Harmed(7, 1)]


def test_a_share_of_what_comes_is_lost() -> None:
    worker = Worker()
    worker.harm("drop", "lift", share=0.3)
    for _ in range(1000):
        assert worker.on[WIRE](DATA, message(b"lift")), "a message that is lost is not one that nobody knows"
        worker.on[OTHER](DATA, message(b"view"))
    worker.on[WIRE](END, [])
    came = sum(number == WIRE and kind == DATA for number, kind, _ in worker.got)
    assert 600 < came < 800
    assert sum(number == OTHER for number, _, _ in worker.got) == 1000, "what comes to other nodes is left alone"
    assert worker.got[-1] == (WIRE, END, []), "the end of a link is not lost"
    worker.over()
    assert worker.told == [letters.Harmed(7, 1000 - came)]
    worker.on[WIRE](DATA, message(b"again"))
    assert worker.got[-1] == (WIRE, DATA, [b"again"])


def test_a_wrong_bit_is_found_by_the_checksum() -> None:
    worker = Worker()
    worker.harm("corrupt", "lift", share=1.0)
    zeros = studio_kit.np.zeros
    body = ViewPoses(
        ("cam01",), "coco17", Sync(0, (0,), ()), zeros(1, "i8"), zeros((1, 1, 17, 2), "f4"), zeros((1, 1, 17), "f4"), zeros((1, 1), "f4")
    )
    codec = Headers(ViewPoses)
    data = codec.encode(Packet(0, 0, "heatmaps", body, (), ()))
    worker.on[WIRE](DATA, message(data, b"number"))
    ((_, _, (arrived, number)),) = worker.got
    assert number == b"number"
    assert len(arrived) == len(data)
    assert codec.decode(data, where="link").seq == 0
    with pytest.raises(RunError, match="checksum"):
        codec.decode(arrived, where="link")


def test_a_full_disk_takes_nothing_until_it_is_over(tmp_path: Path) -> None:
    worker, before = Worker(), resource.getrlimit(resource.RLIMIT_FSIZE)
    with (tmp_path / "take").open("wb", buffering=0) as file:
        worker.harm("fill_disk", "lift", for_s=1)
        try:
            with pytest.raises(OSError, match="File too large"):
                os.write(file.fileno(), b"x")
        finally:
            worker.over()
        assert os.write(file.fileno(), b"x") == 1
    assert resource.getrlimit(resource.RLIMIT_FSIZE) == before
    assert worker.told == [letters.Harmed(7, 1)]
