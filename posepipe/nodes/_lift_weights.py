"""Triangulation with learned weights: how far every view is believed about every joint, by a network that looks at its heatmaps."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from posepipe.calib.rig import Rig
from posepipe.calib.sides import Bools
from posepipe.calib.triangulate import Triangulated
from posepipe.calib.weighted import CERTAIN, triangulate_weighted
from posepipe.engines.confidence import Confidence
from posepipe.engines.engine import EngineOptions
from posepipe.pipeline.packet import F32, F64, I64
from posepipe.pipeline.skeleton import Skeleton


class LearnedWeights:
    """The opened network. engine: what runs it."""

    def __init__(self, options: EngineOptions, layout: Skeleton) -> None:
        """It runs in float32, and also where the studio's networks are stubs: it comes with posepipe. EngineError when it cannot be run."""
        runtime = "auto" if options.runtime == "stub" else options.runtime
        self._confidence = Confidence(msgspec.structs.replace(options, runtime=runtime, precision="fp32"), layout)
        self.engine = self._confidence.engine

    def triangulate(self, rig: Rig, rays: F64, conf: F32, side_px: F64, maps: F32, **how: Any) -> tuple[Triangulated, Bools, F64]:
        """As `triangulate_weighted` with the weights of those heatmaps [P,C,h,w,17], or with the heights for people whom two views see; the joints [P,C,J]
        whose sides were exchanged; and the weights [P,C,J] of the key points as they were detected, in units of 1 / sigma^2."""
        told: list[tuple[I64, F64]] = []

        def weigh(order: I64, agreement: F32, heights: F64) -> F64:
            weights = self._confidence(maps, order, agreement, heights)
            # Two rays meet where they meet; and the network has only the body that they make to judge them by, which may have its sides exchanged.
            two = (heights > 0).any(axis=2).sum(axis=1) == 2
            weights[two] = heights[two] / CERTAIN
            told.append((order, weights))
            return weights

        points = triangulate_weighted(rig, rays, conf, side_px, weigh, **how)
        ((order, weights),) = told
        return points, order != np.arange(conf.shape[2]), CERTAIN * np.take_along_axis(weights, order, axis=2)

    def close(self) -> None:
        """Close the engine."""
        self._confidence.close()
