"""The two ends of every transport in `bench_transport`: producers write and send, consumers receive and look at every page."""

from __future__ import annotations

import ctypes
import os
import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zmq
from transport_clip import Clip

from posepipe.pipeline.headers import Headers, resolve
from posepipe.pipeline.packet import Frame, Packet, Span
from posepipe.pipeline.ring import FrameRing
from posepipe.pipeline.ringends import RingReader, RingWriter

PAGE, SLOTS, POOL = 4096, 16, 4
SHAPES = {"i420": (1920, 1080), "rgb24": (1920, 2160)}  # as I420, the second has the bytes of a 1920x1080 RGB picture
BYTES = {size: w * h * 3 // 2 for size, (w, h) in SHAPES.items()}


class Timing(NamedTuple):
    t0_ns: int
    t_touched_ns: int


def touched(*arrays: Any) -> int:
    """Look at a byte of every page; when that was done."""
    for array in arrays:
        array.reshape(-1)[::PAGE].sum()
    return time.monotonic_ns()


class Producer:
    """Pictures in the memory of this process, as a decoder leaves them."""

    def __init__(self, work: Path, index: int, size: str, fds: tuple[int, ...]) -> None:
        self.work, self.camera, self.size = work, f"camera{index}", size
        self.pool = [np.full(BYTES[size], i, np.uint8) for i in range(POOL)]
        self.open(fds)

    def open(self, fds: tuple[int, ...]) -> None: ...

    def prepare(self, i: int) -> None:
        """Write the next picture (not timed)."""
        self.pool[i % POOL] += 1

    def send(self, i: int, t0_ns: int) -> None: ...

    def notes(self) -> dict[str, float]:
        return {}

    def close(self) -> None: ...


class Consumer:
    lapped = 0

    def __init__(self, work: Path, cameras: int, size: str) -> None:
        self.work, self.cameras, self.size = work, cameras, size
        self.open()

    def open(self) -> None: ...

    def fds(self, index: int) -> tuple[int, ...]:
        return ()

    def connected(self) -> None: ...

    def receive(self, timeout_s: float) -> Timing | None: ...

    def close(self) -> None: ...


# the ring -----------------------------------------------------------------------------------------------------------------------


class RingProducer(Producer):
    """One copy into the slot, then the header message."""

    def open(self, fds: tuple[int, ...]) -> None:
        self.ring = FrameRing.attach(fds[0])
        self.writer = RingWriter(self.ring)
        self.headers = Headers(Frame)
        self.connect(fds)
        width, height = SHAPES[self.size]
        y, c = width * height, width * height // 4
        self.frames = [
            (p[:y].reshape(height, width), *(p[y + k * c : y + (k + 1) * c].reshape(height // 2, width // 2) for k in (0, 1)))
            for p in self.pool
        ]

    def connect(self, fds: tuple[int, ...]) -> None:
        self.socket = zmq.Context.instance().socket(zmq.PUSH)
        self.socket.connect(f"ipc://{self.work}/frames")

    def frame(self, i: int, t0_ns: int) -> Frame:
        width, height = SHAPES[self.size]
        return Frame(self.camera, i, t0_ns, "i420", width, height, self.frames[i % POOL])

    def send(self, i: int, t0_ns: int) -> None:
        frame = self.frame(i, t0_ns)
        self.announce(frame, self.writer.put(frame))

    def announce(self, frame: Frame, slot: Any) -> None:
        spans = (Span(self.camera, frame.t_capture_ns, time.monotonic_ns()),)
        packet = Packet(frame.seq, frame.t_capture_ns, self.camera, replace(frame, slot=slot), spans, frame.frame_ids)
        self.socket.send(self.headers.encode(packet))

    def close(self) -> None:
        self.socket.close()
        self.ring.close()


class InPlaceProducer(RingProducer):
    """The picture is made in the slot: no copy is left."""

    def prepare(self, i: int) -> None:
        planes = self.writer.slot(*SHAPES[self.size])
        assert planes is not None
        for plane in planes:
            plane[:] = i & 255

    def send(self, i: int, t0_ns: int) -> None:
        self.announce(self.frame(i, t0_ns), self.writer.commit(seq=i, t_capture_ns=t0_ns))


class DecoderProducer(RingProducer):
    """PyAV decodes into the slot, as a studio does."""

    def open(self, fds: tuple[int, ...]) -> None:
        super().open(fds)
        self.clip = Clip(Path(os.environ["POSEPIPE_BENCH_CLIP"]))
        self.pictures = self.clip.for_ever(self.writer.lend)
        self.decode_us: list[float] = []

    def prepare(self, i: int) -> None:
        begin = time.perf_counter()
        self.picture = next(self.pictures)
        self.decode_us.append((time.perf_counter() - begin) * 1e6)

    def send(self, i: int, t0_ns: int) -> None:
        frame = self.picture.frame(camera=self.camera, seq=i, t_capture_ns=t0_ns)
        self.announce(frame, self.writer.put(frame))

    def notes(self) -> dict[str, float]:
        return {"decode_us": float(np.median(self.decode_us))}


class SocketpairProducer(RingProducer):
    """The header through a socket pair that was inherited: one wake-up instead of three, for ZeroMQ's threads are not on the way."""

    def connect(self, fds: tuple[int, ...]) -> None:
        self.socket = socket.socket(fileno=fds[-1])


class SocketpairInPlaceProducer(InPlaceProducer):
    connect = SocketpairProducer.connect


class RingConsumer(Consumer):
    def open(self) -> None:
        width, height = SHAPES[self.size]
        self.rings = [FrameRing.create(SLOTS, width, height) for _ in range(self.cameras)]
        self.readers = {ring.id: RingReader(ring) for ring in self.rings}
        self.headers = Headers(Frame)
        self.listen()

    def listen(self) -> None:
        self.socket = zmq.Context.instance().socket(zmq.PULL)
        self.socket.bind(f"ipc://{self.work}/frames")

    def message(self, timeout_s: float) -> bytes | None:
        return self.socket.recv() if self.socket.poll(int(timeout_s * 1e3)) else None

    def fds(self, index: int) -> tuple[int, ...]:
        return (self.rings[index].fd,)

    def receive(self, timeout_s: float) -> Timing | None:
        while (message := self.message(timeout_s)) is not None:
            reference = self.headers.decode(message, where="bench")
            packet, _ = resolve(reference, self.readers)
            if packet is not None:
                touched_ns = touched(*packet.body.planes)
                if packet.body.whole:
                    return Timing(packet.body.t_capture_ns, touched_ns)
            self.lapped += 1
        return None

    def close(self) -> None:
        self.socket.close()
        for ring in self.rings:
            ring.close()


class SocketpairConsumer(RingConsumer):
    def listen(self) -> None:
        self.socket, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def message(self, timeout_s: float) -> bytes | None:
        self.socket.settimeout(timeout_s)
        try:
            return self.socket.recv(4096)
        except TimeoutError:
            return None

    def fds(self, index: int) -> tuple[int, ...]:
        return (*super().fds(index), self.theirs.fileno())

    def close(self) -> None:
        self.theirs.close()
        super().close()


# pixels inside the message ------------------------------------------------------------------------------------------------------


class ZmqProducer(Producer):
    def open(self, fds: tuple[int, ...]) -> None:
        self.socket = zmq.Context.instance().socket(zmq.PUSH)
        self.socket.connect((self.work / "address").read_text())

    def send(self, i: int, t0_ns: int) -> None:
        self.socket.send(t0_ns.to_bytes(8, "little"), zmq.SNDMORE)
        self.socket.send(self.pool[i % POOL], copy=False)

    def close(self) -> None:
        self.socket.close(linger=0)


class ZmqConsumer(Consumer):
    def address(self) -> str:
        return f"ipc://{self.work}/payload"

    def open(self) -> None:
        self.socket = zmq.Context.instance().socket(zmq.PULL)
        self.socket.bind(self.address())
        (self.work / "address").write_text(self.socket.getsockopt_string(zmq.LAST_ENDPOINT))

    def receive(self, timeout_s: float) -> Timing | None:
        if not self.socket.poll(int(timeout_s * 1e3)):
            return None
        stamp, payload = self.socket.recv_multipart(copy=False)
        return Timing(int.from_bytes(stamp.bytes, "little"), touched(np.frombuffer(payload.buffer, np.uint8)))

    def close(self) -> None:
        self.socket.close(linger=0)


class ZmqTcpConsumer(ZmqConsumer):
    def address(self) -> str:
        return "tcp://127.0.0.1:*"


# iceoryx2 -----------------------------------------------------------------------------------------------------------------------


class Iceoryx2Producer(Producer):
    """Loan, one copy, send, notify."""

    def open(self, fds: tuple[int, ...]) -> None:
        self.node, data, event = _iceoryx2_services(self.work)
        self.publisher = data.publisher_builder().initial_max_slice_len(BYTES[self.size] + PAGE).create()
        self.notifier = event.notifier_builder().create()

    def send(self, i: int, t0_ns: int) -> None:
        size = BYTES[self.size]
        sample = self.publisher.loan_slice_uninit(size + PAGE)
        ctypes.memmove(sample.payload_ptr, t0_ns.to_bytes(8, "little"), 8)
        ctypes.memmove(sample.payload_ptr + PAGE, self.pool[i % POOL].ctypes.data, size)
        sample.assume_init().send()
        self.notifier.notify()


class Iceoryx2Consumer(Consumer):
    def open(self) -> None:
        import iceoryx2

        self.iceoryx2 = iceoryx2
        self.node, data, event = _iceoryx2_services(self.work)
        self.subscriber = data.subscriber_builder().create()
        self.listener = event.listener_builder().create()

    def receive(self, timeout_s: float) -> Timing | None:
        sample = self.subscriber.receive()
        until = time.monotonic() + timeout_s
        while sample is None and time.monotonic() < until:
            self.listener.timed_wait(self.iceoryx2.Duration.from_millis(100))
            sample = self.subscriber.receive()
        if sample is None:
            return None
        size = BYTES[self.size]
        pixels = np.frombuffer((ctypes.c_uint8 * (size + PAGE)).from_address(sample.payload_ptr), np.uint8)
        timing = Timing(int(pixels[:8].view(np.int64)[0]), touched(pixels[PAGE:]))
        sample.delete()
        return timing


def _iceoryx2_services(work: Path) -> tuple[Any, Any, Any]:
    import iceoryx2

    iceoryx2.set_log_level(iceoryx2.LogLevel.Error)
    node = iceoryx2.NodeBuilder.new().create(iceoryx2.ServiceType.Ipc)
    data = (
        node.service_builder(iceoryx2.ServiceName.new(f"{work.name}/frames"))
        .publish_subscribe(iceoryx2.Slice[ctypes.c_uint8])
        .max_publishers(8)
        .subscriber_max_buffer_size(SLOTS)
        .open_or_create()
    )
    event = node.service_builder(iceoryx2.ServiceName.new(f"{work.name}/news")).event().open_or_create()
    return node, data, event


TRANSPORTS: dict[str, type[Consumer]] = {
    "ring": RingConsumer,
    "ring-in-place": RingConsumer,
    "ring-decoder": RingConsumer,
    "ring-pair": SocketpairConsumer,
    "ring-pair-in-place": SocketpairConsumer,
    "zmq-ipc": ZmqConsumer,
    "zmq-tcp": ZmqTcpConsumer,
    "iceoryx2": Iceoryx2Consumer,
}


def producer_of(transport: str) -> type[Producer]:
    return {
        "ring": RingProducer,
        "ring-in-place": InPlaceProducer,
        "ring-decoder": DecoderProducer,
        "ring-pair": SocketpairProducer,
        "ring-pair-in-place": SocketpairInPlaceProducer,
        "zmq-ipc": ZmqProducer,
        "zmq-tcp": ZmqProducer,
        "iceoryx2": Iceoryx2Producer,
    }[transport]
