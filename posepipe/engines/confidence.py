"""How far every view is to be believed about every joint, read from its heatmaps and from how the views agree.

The height of a peak says little about how far it is off. A small network looks at the shape of every heatmap (height, width, a second peak,
what it shows where the other side's joint is), at how the view fits the others, at the rest of the body, and
gives weights for triangulation (Iskakov et al. 2019, section 3.1, whose confidences come from the backbone's features instead).
"""

from __future__ import annotations

import math
from importlib import resources
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from ..pipeline.skeleton import COCO17, Skeleton
from .card import TensorCard
from .engine import Contract, EngineOptions, open_small

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

SHAPES = 14
"""Numbers that describe a heatmap: see `describe`."""
AGREEMENTS = 19
"""Numbers that say how a view fits the others: see `posepipe.calib.weighted`."""
CERTAIN = 4.0
"""A weight of 1 is a key point with this part of the variance that triangulation gives a peak of height 1: most are better than that."""
_LIMBS = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
KINDS: NDArray[np.int64] = np.array(
    [next((k + 1 for k, limb in enumerate(_LIMBS) if limb in joint), 0) for joint in COCO17.joints], np.int64
)
"""What kind of joint every one of coco17 is: 0 of the head, then shoulder, elbow, wrist, hip, knee, ankle."""
INPUTS = {
    "shapes": TensorCard((-1, -1, len(KINDS), SHAPES), "float32"),
    "agreement": TensorCard((-1, -1, len(KINDS), AGREEMENTS), "float32"),
    "seen": TensorCard((-1, -1, len(KINDS)), "float32"),
}
OUTPUTS = {"conf": TensorCard((-1, -1, len(KINDS)), "float32")}
NAME = "triangulation.confidence"
_OTHER: NDArray[np.int64] = np.array([0, *(j + 1 if j % 2 else j - 1 for j in range(1, len(KINDS)))], np.int64)
_LEAST = np.float32(1e-3)
_BLOCK = 4
_APART = 0.08
_REACH = 4


def describe(maps: F32) -> F32:
    """What the heatmaps of coco17 look like: [P,C,17,14] from maps [P,C,h,w,17], probabilities, channel last. Lengths are shares of the side.

    0: logit of the highest cell, a quarter. 1: that of the highest cell `_APART` or more away, and 2: how far away. 3, 4: logarithms of the
    peak's width and of the ratio of its axes (second moments of the 9 x 9 cells around it). 5, 6: logarithms of the map's sum and of the
    number of cells it is spread over, (sum p)^2 / sum p^2, as shares of the map. 7, 8: where the peak is, from the middle; 9: and from
    the nearest edge. 10: logit, a quarter, where the other side's joint has its peak, and 11: how far away that is (0 for the nose). 12, 13: logarithms
    of the width and of the ratio of the axes that the curvature of the logits at the peak says (a peak on the edge: those of a sharp one).
    """
    people, views, high, wide, joints = maps.shape
    out = np.zeros((people, views, joints, SHAPES), np.float32)
    _describe(np.ascontiguousarray(maps, np.float32).reshape(people, views, high, wide * joints), joints, _OTHER, out)
    return out


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _logit(p: float) -> float:
    p = min(max(p, 1e-4), 1 - 1e-4)
    return 0.25 * math.log(p / (1 - p))


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _curvature(one: Any, joints: int, j: int, r: int, c: int, high: int, wide: int, side: int) -> tuple[float, float]:
    if not (0 < r < high - 1 and 0 < c < wide - 1):
        return 0.0, 0.0
    near = np.empty((3, 3))
    for y in range(3):
        for x in range(3):
            near[y, x] = 4 * _logit(one[r + y - 1, (c + x - 1) * joints + j])
    xx, yy = near[1, 0] + near[1, 2] - 2 * near[1, 1], near[0, 1] + near[2, 1] - 2 * near[1, 1]
    xy = 0.25 * (near[2, 2] + near[0, 0] - near[0, 2] - near[2, 0])
    mean, root = -0.5 * (xx + yy), math.sqrt(0.25 * (xx - yy) ** 2 + xy * xy)
    sharp, flat = max(mean + root, 0.02), max(mean - root, 0.02)
    return -0.25 * math.log(sharp * flat) - math.log(side / 64.0), 0.5 * math.log(sharp / flat)


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "reassoc"})  # type: ignore[untyped-decorator]
def _describe(maps: Any, joints: int, other: Any, out: Any) -> None:
    people, views, high, length = maps.shape
    wide = length // joints
    across, down = -(-wide // _BLOCK), -(-high // _BLOCK)
    side = max(wide, high)
    highest, total, square = np.empty(length, np.float32), np.empty(length, np.float32), np.empty(length, np.float32)
    blocks = np.empty((down, across, joints), np.float32)
    at = np.empty((joints, 2), np.int64)
    for p in range(people):
        for c in range(views):
            one = maps[p, c]
            total[:] = 0
            square[:] = 0
            # Loops over whole rows run on vectors; maxima of blocks are all that is looked at again.
            for b in range(down):
                highest[:] = 0
                for r in range(b * _BLOCK, min(high, (b + 1) * _BLOCK)):
                    row = one[r]
                    for k in range(length):
                        v = row[k]
                        highest[k] = max(highest[k], v)
                        total[k] += v
                        square[k] += v * v
                blocks[b] = 0
                for x in range(wide):
                    for j in range(joints):
                        blocks[b, x // _BLOCK, j] = max(blocks[b, x // _BLOCK, j], highest[x * joints + j])
            for j in range(joints):
                by = bx = 0
                for y in range(down):
                    for x in range(across):
                        if blocks[y, x, j] > blocks[by, bx, j]:
                            by, bx = y, x
                top, pr, pc = np.float32(-1), 0, 0
                for r in range(by * _BLOCK, min(high, (by + 1) * _BLOCK)):
                    for x in range(bx * _BLOCK, min(wide, (bx + 1) * _BLOCK)):
                        if one[r, x * joints + j] > top:
                            top, pr, pc = one[r, x * joints + j], r, x
                at[j, 0], at[j, 1] = pc, pr
                second, away = np.float32(0), 0.0
                for y in range(down):
                    for x in range(across):
                        if blocks[y, x, j] > second:
                            d = math.hypot((x + 0.5) * _BLOCK - 0.5 - pc, (y + 0.5) * _BLOCK - 0.5 - pr) / side
                            if d >= _APART:
                                second, away = blocks[y, x, j], d
                m = sx = sy = sxx = sxy = syy = 1e-9
                for r in range(max(0, pr - _REACH), min(high, pr + _REACH + 1)):
                    for x in range(max(0, pc - _REACH), min(wide, pc + _REACH + 1)):
                        v = one[r, x * joints + j]
                        dx, dy = float(x - pc), float(r - pr)
                        m, sx, sy = m + v, sx + v * dx, sy + v * dy
                        sxx, sxy, syy = sxx + v * dx * dx, sxy + v * dx * dy, syy + v * dy * dy
                sxx, sxy, syy = sxx / m - (sx / m) ** 2, sxy / m - sx * sy / (m * m), syy / m - (sy / m) ** 2
                half, root = 0.5 * (sxx + syy), math.sqrt(0.25 * (sxx - syy) ** 2 + sxy * sxy)
                mass, energy = 1e-9, 1e-12
                for x in range(wide):
                    mass += total[x * joints + j]
                    energy += square[x * joints + j]
                o = out[p, c, j]
                o[0], o[1], o[2] = _logit(top), _logit(second), away
                o[3] = 0.5 * math.log(max(half, 1e-3)) - math.log(side / 64.0)
                o[4] = 0.5 * math.log((half + root + 0.05) / (max(half - root, 0.0) + 0.05))
                o[5], o[6] = (
                    0.5 * math.log(1e-4 + mass / (wide * high)) + 3.0,
                    0.5 * math.log(mass * mass / energy / (wide * high) + 1e-4) + 3.0,
                )
                o[7], o[8] = (pc - 0.5 * wide) / side, (pr - 0.5 * high) / side
                o[12], o[13] = _curvature(one, joints, j, pr, pc, high, wide, side)
                o[9] = min(min(pc, wide - 1 - pc), min(pr, high - 1 - pr)) / side
            for j in range(joints):
                x, y = at[other[j], 0], at[other[j], 1]
                out[p, c, j, 10] = _logit(one[y, x * joints + j])
                out[p, c, j, 11] = math.hypot(float(x - at[j, 0]), float(y - at[j, 1])) / side


def network_file() -> Path:
    """The ONNX file of the network, which is part of this package."""
    return Path(str(resources.files("posepipe.engines.models.triangulation") / "confidence.onnx"))


class Confidence:
    """The opened network. Not for several threads at once. engine: what runs it, on the processor also where the studio's networks run on a GPU
    (`open_small`)."""

    def __init__(self, options: EngineOptions, layout: Skeleton = COCO17, *, path: Path | None = None) -> None:
        """layout: of the key points that are to be weighted. path: instead of the shipped file. Raises EngineError when it cannot be run or is
        of another shape."""
        self.engine = open_small(path or network_file(), options, contract=Contract.of(INPUTS, OUTPUTS))
        self._at = np.array([layout.index(joint) for joint in COCO17.joints])
        self._coco = np.zeros(len(layout.joints), np.int64)
        self._coco[self._at] = np.arange(len(self._at))

    def __call__(self, maps: F32, order: NDArray[np.int64], agreement: F32, conf: F64) -> F64:
        """Weights [P,C,J], 0 where conf is 0 (not seen), else 0.001 to 1: the variance of a key point that is certain over that of this one, as
        triangulation takes it. Joints that coco17 does not have keep their conf.

        maps [P,C,h,w,17]: as of `describe`. order, agreement, conf [P,C,J...]: as `posepipe.calib.weighted` gives them.
        """
        if not len(maps):
            return conf
        order = self._coco[order[..., self._at]]
        shapes = np.take_along_axis(describe(maps), order[..., None], axis=2)
        seen = conf[..., self._at] > 0
        found = self.engine(
            {"shapes": shapes, "agreement": np.ascontiguousarray(agreement[..., self._at, :]), "seen": seen.astype(np.float32)}
        )
        weights = conf.copy()
        weights[..., self._at] = np.where(seen, np.clip(found["conf"], _LEAST, 1), 0)
        return weights

    def close(self) -> None:
        """Close the engine."""
        self.engine.close()
