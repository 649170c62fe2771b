"""Feeds: the threads that run sources, keep their pace and hand their frames on."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable

from .errors import PosepipeError, stopped_by
from .node import FrameLost, Source
from .packet import Frame, Packet, Span
from .worker import Slot

_FAR_BEHIND_S = 1.0


class Feed(threading.Thread):
    """Runs one source until it ends, the studio stops, or `seconds` have passed.

    failed: called with the slot and the error when the source breaks.
    """

    def __init__(
        self, slot: Slot, *, seconds: float | None, warn: Callable[[str], None], failed: Callable[[Slot, Exception], None]
    ) -> None:
        super().__init__(name=f"posepipe:{slot.name}", daemon=True)
        self.slot, self._shared = slot, slot.shared
        self._seconds, self._warn, self._failed = seconds, warn, failed
        self._start_ns = 0
        self._next_seq = 0

    def begin(self, start_ns: int, *, next_seq: int = 0) -> None:
        """Start; second 0 of a recording is `start_ns` (studio clock).

        next_seq: after a restart, the number behind the last frame that was captured before. A recording goes on where it would
        be by now, and what it passed over is counted as lost; a live camera's numbers go on from there.
        """
        self._start_ns, self._next_seq = start_ns, next_seq
        self.start()

    def run(self) -> None:
        slot = self.slot
        try:
            self._pace()
        except Exception as e:
            slot.errors += 1
            slot.failure = stopped_by(e)
            slot.log.error("%s: %s: %s", slot.name, type(e).__name__, e, exc_info=not isinstance(e, PosepipeError))
            self._failed(slot, e)
        finally:
            slot.ended = True
            for link in slot.outputs:
                link.end()

    def _pace(self) -> None:
        """Frames exist at their due time and are decoded after it, as with a camera: the latency includes the decoding."""
        slot, shared = self.slot, self._shared
        source = slot.node
        assert isinstance(source, Source)
        step: Callable[[], Frame | None] = source.step  # type: ignore[attr-defined]
        if self._next_seq and source.due_s() is not None:
            while source.skip(self._late_s(self._start_ns)):
                pass
        while not shared.stop.is_set():
            due = source.due_s()
            if self._seconds is not None and (due if due is not None else self._late_s(self._start_ns)) >= self._seconds:
                return
            due_ns = None if due is None else self._start_ns + int(due * 1e9)
            if due_ns is not None and not shared.offline and (early_s := -self._late_s(due_ns)) > 0 and shared.stop.wait(early_s):
                return
            begin = shared.clock.now_ns()
            try:
                frame = step()
            except FrameLost as lost:
                shared.ledger.capture_lost(lost.count, slot.name, lost.reason)
            else:
                if frame is None:
                    return
                self._number(frame, due_ns, begin)
            if due_ns is not None and not shared.offline and self._late_s(due_ns) > _FAR_BEHIND_S:
                passed = source.skip(self._late_s(self._start_ns))
                if passed:
                    shared.ledger.capture_lost(passed, slot.name, "decoder behind")

    def _number(self, frame: Frame, due_ns: int | None, begin_ns: int) -> None:
        if due_ns is None:
            self._hand_on(dataclasses.replace(frame, seq=frame.seq + self._next_seq) if self._next_seq else frame, begin_ns)
        elif frame.seq >= self._next_seq:  # what came before was accounted for in an earlier life
            if self._next_seq and frame.seq > self._next_seq:
                self._shared.ledger.capture_lost(frame.seq - self._next_seq, self.slot.name, "its worker was down")
            self._next_seq = 0
            self._hand_on(dataclasses.replace(frame, t_capture_ns=due_ns), begin_ns)

    def _hand_on(self, frame: Frame, begin_ns: int) -> None:
        slot, shared = self.slot, self._shared
        t_in = begin_ns if shared.offline else frame.t_capture_ns
        t_out = shared.clock.now_ns()
        slot.latency.add(t_out - t_in)
        shared.ledger.capture((frame.camera, frame.seq))
        span = Span(slot.name, t_in, t_out)
        if shared.trace is not None:
            shared.trace.capture(frame.seq, span)
        slot.emit(Packet(frame.seq, frame.t_capture_ns, slot.name, frame, (span,), frame.frame_ids), wait=True)
        shared.after()

    def _late_s(self, due_ns: int) -> float:
        return (self._shared.clock.now_ns() - due_ns) / 1e9
