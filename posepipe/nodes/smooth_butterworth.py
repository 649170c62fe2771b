"""smooth.butterworth: a Butterworth low pass run over the whole recording forwards and backwards. Offline only."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from msgspec import Meta

from posepipe.calib.smoothers import Smoothed
from posepipe.calib.smoothers_window import butterworth
from posepipe.nodes._smooth import BridgingSettings, Delayed
from posepipe.pipeline.errors import GraphError
from posepipe.pipeline.node import Context


class SmoothButterworth(Delayed):
    """Zero-phase Butterworth low pass, as gait laboratories use it. It holds every instant of the recording (about 4 KB with one person)
    and gives all of them when it has ended, so it runs with `--offline` only.

    `cutoff_hz` is where half of the power is left after both passes, `order` that of one pass.
    """

    use = "smooth.butterworth"

    class Settings(BridgingSettings, frozen=True):
        cutoff_hz: Annotated[float, Meta(description="half of the power is left here, after both passes", gt=0)] = 6.0
        order: Annotated[Literal[2, 4, 6], Meta(description="order of one pass")] = 2

    settings: Settings

    def open(self, ctx: Context) -> None:
        if not ctx.offline:
            raise GraphError(
                "smooth.butterworth looks at the whole recording, forwards and backwards, and this run is live",
                where=f"node {ctx.name}",
                hint="run with --offline, or use smooth.one_euro or smooth.kalman (no delay) or smooth.savgol (a short one)",
            )
        super().open(ctx)

    def ready(self, t_ns: int) -> int:
        return 0

    def smoothed(self, count: int) -> list[Smoothed]:
        s, whole = self.settings, list(self._past)
        parts = [
            Smoothed(np.full(x.xyz_m.shape, np.nan), np.zeros_like(x.seen), np.zeros(x.seen.shape), np.zeros(x.seen.shape))
            for _, x in whole
        ]
        where: dict[int, list[tuple[int, int]]] = {}
        for k, (packet, _) in enumerate(whole):
            for row, person in enumerate(packet.body.ids.tolist()):
                where.setdefault(person, []).append((k, row))
        for places in where.values():
            t_s = np.array([(whole[k][0].t_capture_ns - whole[0][0].t_capture_ns) / 1e9 for k, _ in places])
            columns = ([x.xyz_m[row], x.sigma_m[row], x.conf[row], x.seen[row]] for x, row in ((whole[k][1], row) for k, row in places))
            xyz_m, sigma_m, conf, seen = (np.stack(column) for column in zip(*columns, strict=True))
            spans = {"bridge_s": s.bridge_ms / 1e3, "forget_s": s.forget_ms / 1e3}
            smooth = butterworth(t_s, xyz_m, sigma_m, conf, seen, cutoff_hz=s.cutoff_hz, order=s.order, **spans)
            for i, (k, row) in enumerate(places):
                part = parts[k]
                part.xyz_m[row], part.bridged[row] = smooth.xyz_m[i], smooth.bridged[i]
                part.sigma_m[row], part.conf[row] = smooth.sigma_m[i], smooth.conf[i]
        return parts
