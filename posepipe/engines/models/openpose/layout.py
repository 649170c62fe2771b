"""Parts, limbs and channels of OpenPose's networks, and where their parts stand in posepipe's skeleton layouts.

Channel numbers as published with the networks (CMU OpenPose, BODY_25 and COCO models).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ....pipeline.errors import EngineError, did_you_mean

I64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Parts:
    """What a network sees. J parts, L limbs.

    skeleton: the layout in `pipeline.skeleton` with the parts in the network's own order. limbs [L,2]: the parts that a limb joins.
    fields [L]: channel of its field's x component in the affinity maps (y is the next). coco17 [17]: the part that is COCO's joint.
    feet [J]: parts that do not make a person by themselves.
    """

    skeleton: str
    limbs: I64
    fields: I64
    coco17: I64
    feet: NDArray[np.bool_]

    @property
    def count(self) -> int:
        """J."""
        return len(self.feet)


def _parts(skeleton: str, count: int, limbs: str, coco17: str, feet: tuple[int, ...] = ()) -> Parts:
    """limbs: `A-B:channel` of every limb."""
    table = np.array([[int(n) for n in limb.replace(":", "-").split("-")] for limb in limbs.split()], np.int64)
    is_foot = np.zeros(count, np.bool_)
    is_foot[list(feet)] = True
    return Parts(skeleton, table[:, :2].copy(), table[:, 2].copy(), np.array(coco17.split(), np.int64), is_foot)


BODY25 = _parts(
    "body25",
    25,
    "1-8:0 1-2:14 1-5:22 2-3:16 3-4:18 5-6:24 6-7:26 8-9:6 9-10:2 10-11:4 8-12:8 12-13:10 13-14:12 "
    "1-0:30 0-15:32 15-17:36 0-16:34 16-18:38 2-17:20 5-18:28 14-19:40 19-20:42 14-21:44 11-22:46 22-23:48 11-24:50",
    "0 16 15 18 17 5 2 6 3 7 4 12 9 13 10 14 11",
    (19, 20, 21, 22, 23, 24),
)

COCO18 = _parts(
    "coco18",
    18,
    "1-2:12 1-5:20 2-3:14 3-4:16 5-6:22 6-7:24 1-8:0 8-9:2 9-10:4 1-11:6 11-12:8 12-13:10 "
    "1-0:28 0-14:30 14-16:34 0-15:32 15-17:36 2-16:18 5-17:26",
    "0 15 14 17 16 5 2 6 3 7 4 11 8 12 9 13 10",
)

PARTS = {parts.skeleton: parts for parts in (BODY25, COCO18)}


def parts_of(skeleton: str) -> Parts:
    """Parts and limbs of the networks that see a skeleton. EngineError where none are known."""
    try:
        return PARTS[skeleton]
    except KeyError:
        raise EngineError(f"no parts and limbs are known for the skeleton {skeleton!r}", hint=did_you_mean(skeleton, PARTS)) from None
