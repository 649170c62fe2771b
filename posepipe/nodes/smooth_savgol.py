"""smooth.savgol: a local polynomial through the instants before and after (Savitzky-Golay on real time stamps), with a short delay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from msgspec import Meta

from posepipe.calib.smoothers import Smoothed
from posepipe.calib.smoothers_window import local_polynomial
from posepipe.nodes._smooth import BridgingSettings, Delayed, check_bridge
from posepipe.pipeline.errors import GraphError
from posepipe.pipeline.node import Caps, Context

_SLACK_NS = 1_000_000
"""Cameras stamp to a millisecond: an instant that much outside the window is in it."""


class SmoothSavgol(Delayed):
    """Least-squares polynomial through a window of time, read at an instant that lies `delay_ms` before the window's end.

    Every instant leaves `delay_ms` later than it came (half the window when left out; 0: no delay, and rougher). `posepipe run` shows
    that as the latency of this node.
    """

    use = "smooth.savgol"

    class Settings(BridgingSettings, frozen=True):
        window_ms: Annotated[float, Meta(description="length of the window", gt=0, le=10_000)] = 270.0
        delay_ms: Annotated[float | None, Meta(description="how much of it lies after the instant; left out: half")] = None
        order: Annotated[int, Meta(description="order of the polynomial", ge=0, le=4)] = 2

        @property
        def after_ms(self) -> float:
            """`delay_ms`, when left out half the window."""
            return self.window_ms / 2 if self.delay_ms is None else self.delay_ms

    settings: Settings

    @classmethod
    def check(cls, settings: Any, inputs: Mapping[str, Caps]) -> None:
        check_bridge(settings)
        if not 0 <= settings.after_ms <= settings.window_ms:
            raise GraphError(
                f"delay_ms is {settings.after_ms:g}, outside a window of {settings.window_ms:g} ms",
                hint="delay_ms from 0 to window_ms; leave it out for half",
            )

    def open(self, ctx: Context) -> None:
        super().open(ctx)
        s = self.settings
        self._after_ns = max(int(s.after_ms * 1e6) - _SLACK_NS, 0)
        self._around_ns = int((s.window_ms - s.after_ms) * 1e6) + _SLACK_NS, int(s.after_ms * 1e6) + _SLACK_NS
        zeros = np.zeros((1, 0, 0))
        local_polynomial(np.zeros(1), np.zeros((1, 0, 0, 3)), zeros, zeros, zeros > 0, 0, order=0, bridge_s=0, forget_s=0)  # compiles it

    def wake_ns(self) -> int | None:
        """When instants stop coming, those that are held leave after the delay."""
        if self._ctx.offline or not (self._due or self._waiting):
            return None
        return 0 if self._due else self._arrived_ns + max(int(self.settings.after_ms * 1e6), _SLACK_NS)

    def on_time(self, now_ns: int) -> list[Any]:
        if not self._due:
            self._answer(self._waiting)
        return self._leave()

    def ready(self, t_ns: int) -> int:
        waiting = list(self._past)[len(self._past) - self._waiting :]
        return sum(t_ns - packet.t_capture_ns >= self._after_ns for packet, _ in waiting)

    def smoothed(self, count: int) -> list[Smoothed]:
        first, s = len(self._past) - self._waiting, self.settings
        answers = []
        for k in range(first, first + count):
            packet, now = self._past[k]
            t_ns = packet.t_capture_ns
            window = [(p, x) for p, x in self._past if -self._around_ns[0] <= p.t_capture_ns - t_ns <= self._around_ns[1]]
            at = next(i for i, (p, _) in enumerate(window) if p is packet)
            ids = packet.body.ids.tolist()
            shape = (len(window), *now.seen.shape)
            xyz_m, sigma_m, conf, seen = np.zeros((*shape, 3)), np.zeros(shape), np.zeros(shape), np.zeros(shape, np.bool_)
            for i, (p, x) in enumerate(window):
                theirs = {person: row for row, person in enumerate(p.body.ids.tolist())}
                both = [(mine, theirs[person]) for mine, person in enumerate(ids) if person in theirs]
                if both:
                    mine, row = np.array(both).T
                    xyz_m[i, mine], sigma_m[i, mine], conf[i, mine], seen[i, mine] = x.xyz_m[row], x.sigma_m[row], x.conf[row], x.seen[row]
            t_s = np.array([(p.t_capture_ns - t_ns) / 1e9 for p, _ in window])
            spans = {"bridge_s": s.bridge_ms / 1e3, "forget_s": s.forget_ms / 1e3}
            answers.append(local_polynomial(t_s, xyz_m, sigma_m, conf, seen, at, order=s.order, **spans))
        oldest_ns = self._past[min(first + count, len(self._past) - 1)][0].t_capture_ns - self._around_ns[0]
        self._old = sum(p.t_capture_ns < oldest_ns for p, _ in self._past)
        return answers

    def _answer(self, count: int) -> None:
        super()._answer(count)
        if count:
            for _ in range(self._old):
                self._past.popleft()
