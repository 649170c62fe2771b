"""When the pictures of a live stream were captured: by the sender's own clock where it tells it, else by the least delayed packet.

A stream's time stamps (pts) count the camera's clock, free of what the network does, from an unknown zero. The zero comes from the RTP
sender reports (RFC 3550, 6.4.1: NTP and RTP time of one moment), or from arrival: no packet arrives before it was captured, so the
packet with the shortest way in a sliding window bounds the zero from above, and its delay is all that the stamps are late by.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from typing import Literal

WINDOW_NS = 10_000_000_000
FURTHEST_NS = 5_000_000_000
"""A sender's clock that is further behind, or a delay that is longer, cannot be true."""
REPORTS = 5
"""Fewest packets with a sender's time before it is used, so that one odd value decides nothing."""
_MEDIAN_OF = 15
_RECENT = 31


class LeastDelay:
    """Sliding minimum of (arrival - pts): maps the sender's clock to the studio's, up to the delay of the fastest packet.

    A camera clock that runs `d` ppm fast or slow is followed within `d * window`: 1 ms for 100 ppm and 10 s.
    """

    def __init__(self, window_ns: int = WINDOW_NS) -> None:
        self._window_ns = window_ns
        self._least: deque[tuple[int, int]] = deque()  # (arrival, arrival - pts), both ascending

    def add(self, pts_ns: int, arrival_ns: int) -> None:
        delay = arrival_ns - pts_ns
        if self._least and delay > self._least[0][1] + FURTHEST_NS:
            self._least.clear()  # the sender's clock was set back
        while self._least and self._least[-1][1] >= delay:
            self._least.pop()
        self._least.append((arrival_ns, delay))
        while self._least[0][0] < arrival_ns - self._window_ns:
            self._least.popleft()

    @property
    def offset_ns(self) -> int:
        """Add it to a pts for a time that is never after the arrival of anything in the window."""
        return self._least[0][1]


class CaptureClock:
    """Studio times of one camera's pictures, through all its connections.

    by: whose clock the stamps follow now. ahead_ns: how far the sender's clock is ahead of arrivals when that is why it is not
    used (negative: behind, beyond belief), else 0.
    """

    def __init__(self, *, sender: bool = True) -> None:
        self._sender = sender
        self._way_ns = 0
        self.by: Literal["arrival", "sender"] = "arrival"
        self.ahead_ns = 0
        self.connected()

    def connected(self) -> None:
        """A new connection: its pts begin anywhere. What the way usually takes is kept until the sender reports again."""
        self._arrivals = LeastDelay()
        self._recent: deque[int] = deque(maxlen=_RECENT)
        self._told: deque[int] = deque(maxlen=_MEDIAN_OF)

    def caught_up(self) -> None:
        """The packets before the newest had waited to be read: their arrivals say nothing about the way."""
        while len(self._recent) > 1:
            self._recent.popleft()

    def arrived(self, pts_ns: int, arrival_ns: int, told_ns: int | None) -> None:
        """A packet. told_ns: its capture time by the sender's clock, on the studio clock, where a report said it."""
        self._arrivals.add(pts_ns, arrival_ns)
        self._recent.append(arrival_ns - pts_ns)
        if told_ns is None or not self._sender:
            return
        self._told.append(told_ns - pts_ns)
        if len(self._told) < REPORTS:
            return
        told_ns = _median(self._told)
        least_ns = self._arrivals.offset_ns - told_ns
        if 0 <= least_ns <= FURTHEST_NS:
            self.by, self.ahead_ns, self._way_ns = "sender", 0, _median(self._recent) - told_ns
        else:
            self.by, self.ahead_ns, self._way_ns = "arrival", -least_ns, 0

    def stamp_ns(self, pts_ns: int) -> int:
        """Capture time of the picture with that pts, on the studio clock; packets up to it have arrived."""
        if self.by == "sender" and len(self._told) >= REPORTS:
            return pts_ns + _median(self._told)
        if self._way_ns:
            return pts_ns + min(_median(self._recent) - self._way_ns, self._arrivals.offset_ns)
        return pts_ns + self._arrivals.offset_ns


def _median(values: Collection[int]) -> int:
    return sorted(values)[len(values) // 2]
