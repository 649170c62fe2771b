"""Feeds: the threads that run sources, keep their pace, hand their frames on and bring back those that went away."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable

from .errors import PosepipeError, SourceError, stopped_by
from .node import Context, FrameLost, Source
from .packet import Frame, Packet, Span
from .reconnect import Backoff, SourceState
from .worker import Slot

_FAR_BEHIND_S = 1.0
LOOK_EVERY_S = 1.0
"""How often a source that cannot be reached is looked for."""
SETTLED_S = 10.0
"""A connection that held this long was a good one: the next loss begins with short waits again."""


class Feed(threading.Thread):
    """Runs one source until it ends, the studio stops, or `seconds` have passed. A live source is brought back whenever it goes.

    failed: called with the slot and the error when the source breaks for good. wait: sleeps so many seconds, True when the studio
    stops.
    """

    def __init__(
        self,
        slot: Slot,
        *,
        seconds: float | None,
        warn: Callable[[str], None],
        failed: Callable[[Slot, Exception], None],
        backoff: Backoff | None = None,
        wait: Callable[[float], bool] | None = None,
    ) -> None:
        super().__init__(name=f"posepipe:{slot.name}", daemon=True)
        assert isinstance(slot.node, Source)
        self.slot, self.source, self._shared = slot, slot.node, slot.shared
        self._seconds, self._warn, self._failed = seconds, warn, failed
        self._backoff, self._wait = backoff or Backoff(), wait or slot.shared.stop.wait
        self._ctx: Context | None = None
        self._start_ns = 0
        self._next_seq = 0
        self._behind_last = 0
        self.state = SourceState("connected", self._shared.clock.now_ns())

    def open(self, ctx: Context) -> None:
        """Open the source. A live one that is not there does not hold up the studio: it is tried again once the studio runs."""
        self._ctx = ctx
        try:
            if self._comes_back and self.source.reachable() is False:
                raise SourceError(f"{self.source.address} cannot be reached", where=self._camera)
            self.source.open(ctx)
        except SourceError as e:
            if not self._comes_back:
                raise
            self._lose(e)
        else:
            self.state = SourceState("connected", self._shared.clock.now_ns())

    def begin(self, start_ns: int, *, next_seq: int = 0) -> None:
        """Start; second 0 of a recording is `start_ns` (studio clock).

        next_seq: after a restart, the number behind the last frame that was captured before. A recording goes on where it would
        be by now, and what it passed over is counted as lost; a live camera's numbers go on from there.
        """
        self._start_ns, self._next_seq, self._behind_last = start_ns, next_seq, next_seq
        self.start()

    def run(self) -> None:
        slot = self.slot
        try:
            self._live_on()
        except Exception as e:
            slot.errors += 1
            slot.failure = stopped_by(e)
            slot.log.error("%s: %s: %s", slot.name, type(e).__name__, e, exc_info=not isinstance(e, PosepipeError))
            self._failed(slot, e)
        finally:
            slot.ended = True
            for link in slot.outputs:
                link.end()

    # away and back ------------------------------------------------------------------------------------------------------------

    @property
    def _comes_back(self) -> bool:
        return self.source.live and not self._shared.offline

    @property
    def _camera(self) -> str:
        return f"camera {self.slot.plan.key or self.slot.plan.base}"

    def _live_on(self) -> None:
        opened = self.state.state == "connected"
        while opened or self._bring_back():
            try:
                return self._pace()
            except SourceError as e:
                if not self._comes_back:
                    raise
                self._lose(e)
                opened = False

    def _lose(self, error: PosepipeError) -> None:
        self.source.close()
        self._next_seq = self._behind_last
        now_ns = self._shared.clock.now_ns()
        if self.state.state == "connected":
            if (now_ns - self.state.since_ns) / 1e9 >= SETTLED_S:
                self._backoff.reset()
            self.state = SourceState("away", now_ns, self.state.returns, error.what)
            self._warn(f"{self._camera}: {error.what}; trying again")
        else:
            self._still_away(error)

    def _still_away(self, error: PosepipeError) -> None:
        """A camera that is not there yet is no news; one that is there and of no use is, once."""
        self.slot.log.info("%s: %s", self._camera, error.what)
        if not isinstance(error, SourceError) and error.what != self.state.why:
            self._warn(f"{self._camera}: {error}")
        self.state = dataclasses.replace(self.state, why=error.what)

    def _bring_back(self) -> bool:
        """Wait and try until the source is open again; False when the studio stops first."""
        assert self._ctx is not None
        while self._worth_trying():
            try:
                self.source.open(self._ctx)
                return True
            except PosepipeError as e:
                self.source.close()
                self._still_away(e)
        return False

    def _worth_trying(self) -> bool:
        """Wait as long as the schedule says, and on while the source cannot be reached; one that appears is not kept waiting.

        False when the studio stops.
        """
        until_ns = self._shared.clock.now_ns() + int(self._backoff.next_s() * 1e9)
        there: bool | None = None
        while True:
            left_s = -self._late_s(until_ns)
            if left_s <= 0 and there is not False:
                return not self._shared.stop.is_set()
            if self._wait(min(left_s, LOOK_EVERY_S) if left_s > 0 else LOOK_EVERY_S) or self._over(None):
                return False
            before, there = there, self.source.reachable()
            if there and before is False:
                self._backoff.reset()
                return not self._shared.stop.is_set()

    def _is_back(self) -> None:
        now_ns = self._shared.clock.now_ns()
        away_s = (now_ns - self.state.since_ns) / 1e9
        first = self._behind_last == 0 and self.state.returns == 0
        self._warn(f"{self._camera} has come after {away_s:.1f} s" if first else f"{self._camera} is back after {away_s:.1f} s")
        self.state = SourceState("connected", now_ns, self.state.returns + 1)

    # frames -------------------------------------------------------------------------------------------------------------------

    def _over(self, due_s: float | None) -> bool:
        return self._seconds is not None and (due_s if due_s is not None else self._late_s(self._start_ns)) >= self._seconds

    def _pace(self) -> None:
        """Frames exist at their due time and are decoded after it, as with a camera: the latency includes the decoding."""
        slot, shared, source = self.slot, self._shared, self.source
        step: Callable[[], Frame | None] = source.step  # type: ignore[attr-defined]
        if self._next_seq and source.due_s() is not None:
            source.resume(self._late_s(self._start_ns))
        while not shared.stop.is_set():
            due = source.due_s()
            if self._over(due):
                return
            due_ns = None if due is None else self._start_ns + int(due * 1e9)
            if due_ns is not None and not shared.offline and (early_s := -self._late_s(due_ns)) > 0 and shared.stop.wait(early_s):
                return
            begin = shared.clock.now_ns()
            slot.busy_since_ns = time.monotonic_ns()
            try:
                frame = step()
            except FrameLost as lost:
                self._behind_last += lost.count
                self._missed(lost.count, lost.reason, due_ns)
            else:
                if frame is None:
                    return
                if self.state.state == "away":
                    self._is_back()
                self._number(frame, due_ns, begin)
            finally:
                slot.busy_since_ns = 0
            if due_ns is not None and not shared.offline and self._late_s(due_ns) > _FAR_BEHIND_S:
                passed = source.skip(self._late_s(self._start_ns))
                if passed:
                    self._missed(passed, "decoder behind", due_ns)

    def _missed(self, count: int, reason: str, due_ns: int | None) -> None:
        """Frames that the camera had and that will not come. A recording that catches up after a restart counts its gap when it has."""
        if due_ns is None or not self._next_seq:
            self._shared.ledger.capture_lost(count, self.slot.name, reason)

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
        self._behind_last = frame.seq + 1
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
