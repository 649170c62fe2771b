"""What is worth a warning in a sync certificate: a camera that leaves the window or will soon, and one that is often missing."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from posepipe.nodes._certificate import Certificate

SOON_MIN = 10.0
LEAST_COMPLETE = 0.9
_CERTAIN_SD = 3.0
_IN_A_ROW = 3
_MS_A_MINUTE = 0.06
"""Of 1 ppm."""
_LOCK = (
    "lock the shutters (genlock, trigger) or the clocks (PTP, NTP) of the cameras; recordings of unequal frame rates: fps: in the capture "
    "node; if that much does not matter here: a larger window_ms"
)
_BE_THERE = (
    "is it on, and its network good enough? The summary says why its frames were dropped: 'late' needs a larger wait_ms, 'too few views' "
    "synced cameras or a larger window_ms, 'decoder behind' a faster machine or smaller pictures"
)


class SyncAlarm:
    """Reads certificates and says every kind of trouble once per camera, when three in a row have it.

    Of two cameras nobody can tell which one is off, so they are named together, and their distance counts.
    """

    def __init__(self, node: str, cameras: tuple[str, ...], window_ms: float) -> None:
        self._node, self._cameras, self._window_ms = node, cameras, window_ms
        self._in_a_row: dict[tuple[str, str], int] = {}
        self._said: set[tuple[str, str]] = set()

    def texts(self, certificate: Certificate, *, ended: Collection[str] = ()) -> list[str]:
        """What is to be said now that was not said before. ended: cameras that have no more frames to give."""
        now = {(kind, who): text for kind, who, text in (*self._apart(certificate), *self._missing(certificate, ended))}
        self._in_a_row = {key: self._in_a_row.get(key, 0) + 1 for key in now}
        due = [key for key, count in self._in_a_row.items() if count >= _IN_A_ROW and key not in self._said]
        self._said.update(due)
        return [f"{self._node}: {key[1]}: {now[key]}" for key in due]

    def _apart(self, c: Certificate) -> Iterator[tuple[str, str, str]]:
        known = [i for i, offset in enumerate(c.offset_ms.tolist()) if offset == offset]
        if len(known) == 2:
            one, other = (self._cameras[i] for i in known)
            rows = [(f"cameras {one} and {other}", 2 * c.offset_ms[known[0]], 2 * c.drift_ppm[known[0]], 2 * c.drift_sd_ppm[known[0]])]
            against = "each other (which of the two is off cannot be told)"
        else:
            rows = [(f"camera {self._cameras[i]}", c.offset_ms[i], c.drift_ppm[i], c.drift_sd_ppm[i]) for i in known]
            against = "the other cameras"
        half_ms = self._window_ms / 2
        limit = f"half of window_ms={self._window_ms:g}"
        for who, offset, drift, sd in rows:
            if abs(offset) > half_ms:
                yield "offset", who, f"{abs(offset):.1f} ms off {against}, past {limit}; beyond the window frames do not meet\n  -> {_LOCK}"
                continue
            ahead_ms = half_ms - (offset if drift > 0 else -offset)
            if (abs(drift) - _CERTAIN_SD * sd) * _MS_A_MINUTE * SOON_MIN > ahead_ms:
                minutes = ahead_ms / (abs(drift) * _MS_A_MINUTE)
                pace = f"{abs(drift):.1f} ppm (sd {sd:.1f}), {abs(drift) * _MS_A_MINUTE:.2f} ms a minute"
                text = f"drifts against {against} by {pace}; {abs(offset):.1f} ms off now, past {limit} in {minutes:.1f} min\n  -> {_LOCK}"
                yield "drift", who, text

    def _missing(self, c: Certificate, ended: Collection[str]) -> Iterator[tuple[str, str, str]]:
        if not c.settled:
            return
        for camera, share in zip(self._cameras, c.complete.tolist(), strict=True):
            if share < LEAST_COMPLETE and camera not in ended:
                yield "complete", f"camera {camera}", f"in {share:.0%} of the instants of the last ten seconds\n  -> {_BE_THERE}"
