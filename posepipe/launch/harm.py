"""What a worker does to itself when `posepipe chaos` asks for it. Nothing of this is in the way of a worker that is not harmed:
the one object that is harmed gets another method for that time.
"""

from __future__ import annotations

import contextlib
import random
import resource
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import zmq

from posepipe.pipeline.inbox import DATA, Handler, Inbox
from posepipe.pipeline.node import Source
from posepipe.pipeline.packet import Packet
from posepipe.pipeline.remote import Bridge
from posepipe.pipeline.worker import Slot

from . import letters

Tell = Callable[[letters.Harmed], object]
Later = Callable[[float, Callable[[], object]], object]


def later(after_s: float, what: Callable[[], object]) -> None:
    """Do it then, on another thread; not at all when the process has ended."""
    timer = threading.Timer(after_s, what)
    timer.daemon = True
    timer.start()


class Harming:
    """Does what a `letters.Harm` says; `tell` hears once it is over, with how often it took effect. later: see there."""

    def __init__(self, slots: dict[str, Slot], bridge: Bridge, inbox: Inbox, tell: Tell, later: Later = later) -> None:
        self._slots, self._bridge, self._inbox, self._tell, self._later = slots, bridge, inbox, tell, later

    def do(self, harm: letters.Harm) -> None:
        """Begin it; returns at once."""
        match harm.kind:
            case "stall":
                self._stall(harm)
            case "skew":
                self._skew(harm)
            case "drop":
                self._on_arrival(harm, lambda handle, payload: True)
            case "corrupt":
                self._on_arrival(harm, lambda handle, payload: handle(DATA, _with_a_wrong_bit(payload)))
            case "fill_disk":
                self._fill_disk(harm)
            case _:
                raise AssertionError(harm)

    def _stall(self, harm: letters.Harm) -> None:
        slot = self._slots[harm.node]
        owner: Any = slot if isinstance(slot.node, Source) else slot.node
        name = "emit" if owner is slot else "step"
        healthy = getattr(owner, name)

        def stalled(*arguments: Any, **named: Any) -> Any:
            delattr(owner, name)
            time.sleep(harm.for_s)
            self._tell(letters.Harmed(harm.number, 1))
            return healthy(*arguments, **named)

        setattr(owner, name, stalled)

    def _skew(self, harm: letters.Harm) -> None:
        slot: Any = self._slots[harm.node]
        healthy, by_ns, times = slot.emit, int(harm.by_ms * 1e6), [0]

        def skewed(packet: Packet[Any], *, wait: bool = False) -> None:
            t_ns = packet.t_capture_ns + by_ns
            times[0] += 1
            healthy(replace(packet, t_capture_ns=t_ns, body=replace(packet.body, t_capture_ns=t_ns)), wait=wait)

        slot.emit = skewed
        self._after(harm, partial(delattr, slot, "emit"), times)

    def _on_arrival(self, harm: letters.Harm, harmed: Callable[[Handler, Sequence[zmq.Frame]], bool]) -> None:
        """`share` of the packets that come to the node from other processes are handled by `harmed`."""
        numbers = [n for n, arrivals in self._bridge.arriving.items() if arrivals.wire.reader == harm.node]
        healthy = {n: self._inbox.on[n] for n in numbers}
        dice, times = random.Random(harm.number), [0]

        def arrived(number: int, kind: int, payload: Sequence[zmq.Frame]) -> bool:
            if kind != DATA or dice.random() >= harm.share:
                return healthy[number](kind, payload)
            times[0] += 1
            return harmed(healthy[number], payload)

        self._inbox.on.update({n: partial(arrived, n) for n in numbers})
        self._after(harm, partial(self._inbox.on.update, healthy), times)

    def _fill_disk(self, harm: letters.Harm) -> None:
        """No file of this process may grow: writing to it fails with EFBIG, as it fails with ENOSPC on a full disk."""
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
        self._after(harm, partial(resource.setrlimit, resource.RLIMIT_FSIZE, before), [1])

    def _after(self, harm: letters.Harm, heal: Callable[[], object], times: list[int]) -> None:
        def over() -> None:
            heal()
            with contextlib.suppress(OSError):  # the studio has ended meanwhile
                self._tell(letters.Harmed(harm.number, times[0]))

        self._later(harm.for_s, over)


def _with_a_wrong_bit(payload: Sequence[zmq.Frame]) -> list[zmq.Frame]:
    header = bytearray(payload[0].bytes)
    header[len(header) // 2] ^= 1
    return [zmq.Frame(bytes(header)), *payload[1:]]
