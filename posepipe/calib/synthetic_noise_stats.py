"""What a 2D network does wrong, in numbers: read from a TOML file (`noise.toml` beside this file is that of the shipped network).

Lengths are shares of the crop's side, so that they hold for any size of the maps; confidences are logits. One latent number, the difficulty
of a joint in a view (standard normal, more where the joint is hidden), makes errors larger, peaks lower and wider together, as they are.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

from posepipe.pipeline.errors import RigError
from posepipe.pipeline.packet import F64, I64
from posepipe.pipeline.skeleton import COCO17

from .sides import mirror_of

SHIPPED = Path(__file__).with_name("noise.toml")
GROUPS = ("head", "shoulders", "elbows", "wrists", "hips", "knees", "ankles")
GROUP_OF: I64 = np.array([0] * 5 + [1 + (j - 5) // 2 for j in range(5, 17)], np.int64)
"""The group of every joint of coco17."""

Share = Annotated[float, Meta(ge=0, le=1)]
Positive = Annotated[float, Meta(gt=0)]
NotNegative = Annotated[float, Meta(ge=0)]


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class Joint(_Table, frozen=True):
    """One group of joints. bias: of a person, changing with the viewing direction only, standard deviation in each axis and term.
    jitter: error at difficulty 0, standard deviation in each axis; hidden: the same where the joint cannot be seen.
    tail: logarithm by which one unit of difficulty enlarges it.
    confidence: logit of the peak at difficulty 0; drop: its loss per unit of difficulty; spread: what it varies otherwise; lower: what it loses
    where the joint is hidden.
    width: of the peak (see `synthetic_noise`); width_tail: logarithm by which one unit of difficulty widens it, a third of it where the
    joint is seen.
    second: share of the joints at difficulty 0 with a second peak; astray: of the visible ones whose peak is somewhere else; moved: of the
    hidden ones whose peak is on the other side's joint, or on the way to the next joint of the limb.
    """

    bias: Share
    jitter: Share
    hidden: Share
    tail: NotNegative
    confidence: float
    drop: NotNegative
    spread: NotNegative
    lower: NotNegative
    width: Share
    width_tail: NotNegative
    second: Annotated[float, Meta(ge=0, lt=1)]
    astray: Share
    moved: Share


class Groups(_Table, frozen=True):
    """By group of joints."""

    head: Joint
    shoulders: Joint
    elbows: Joint
    wrists: Joint
    hips: Joint
    knees: Joint
    ankles: Joint


class Hidden(_Table, frozen=True):
    """Joints that something hides. difficulty: how much more than a visible one, for the peak's width and second peaks. tail: as of `Joint`, for
    their error. mirrored: of those that are `moved`, share on the other side's joint; missed: share without a peak worth the name. view: what the other joints of the view gain in difficulty when all its joints were hidden or outside.
    """

    difficulty: NotNegative
    tail: NotNegative
    mirrored: Share
    missed: Share
    view: NotNegative


class Outside(_Table, frozen=True):
    """Joints outside of the crop, of which there is a peak all the same. drop: what its logit loses at once; slope: and per share of the side that
    the joint lies beyond the edge. difficulty: as of `Hidden`, for second peaks; wider: logarithm by which its peak is; mirrored, limb: shares of all. reach: how far within the edge the other peaks are, standard deviation.
    """

    drop: NotNegative
    slope: NotNegative
    difficulty: NotNegative
    wider: NotNegative
    mirrored: Share
    limb: Share
    reach: Share


class Swaps(_Table, frozen=True):
    """Left taken for right, as shares of the views: all of a body (front taken for back; a body seen from behind is `behind` times as likely
    to be), its legs, its arms. pair: share of single pairs of joints, where these meet in the picture, falling with their distance by e per `near`.
    lower: what the logit loses; doubt: mean loss of the peak that is left at the right place, against that.
    """

    body: Share
    behind: NotNegative
    legs: Share
    arms: Share
    pair: Share
    near: Positive
    lower: NotNegative
    doubt: Positive


class Second(_Table, frozen=True):
    """Second peaks. tail: how much their odds grow per unit of difficulty, as a logarithm.
    mirrored, other, limb: how they divide onto the other side's joint, another person's and the way to the next joint; the rest lies anywhere near.
    doubt: mean loss in logit against the first. reach: how far away `anywhere` and `astray` are.
    """

    tail: NotNegative
    mirrored: Share
    other: Share
    limb: Share
    doubt: Positive
    reach: Share


class Shape(_Table, frozen=True):
    """of all peaks. view: share of the difficulty's variance that all joints of a view have in common. longer: standard deviation of the logarithm of
    the ratio of a peak's axes, per axis; the error is as much larger along it. slow: share of the error's variance that changes slowly.
    lost: share of views in which the network sees nothing of the person.
    """

    view: Share
    longer: NotNegative
    slow: Share
    lost: Share


class Times(_Table, frozen=True):
    """Correlation times, seconds: of the slow error, of the difficulty, and how long a swap or a peak elsewhere lasts."""

    error_s: Positive
    difficulty_s: Positive
    mistake_s: Positive


class Statistics(_Table, frozen=True):
    """All of it. network: whose; fitted: on what and how. A table that is not given is the shipped network's."""

    network: str = msgspec.field(default_factory=lambda: shipped().network)
    fitted: str = msgspec.field(default_factory=lambda: shipped().fitted)
    joints: Groups = msgspec.field(default_factory=lambda: shipped().joints)
    hidden: Hidden = msgspec.field(default_factory=lambda: shipped().hidden)
    outside: Outside = msgspec.field(default_factory=lambda: shipped().outside)
    swaps: Swaps = msgspec.field(default_factory=lambda: shipped().swaps)
    second: Second = msgspec.field(default_factory=lambda: shipped().second)
    shape: Shape = msgspec.field(default_factory=lambda: shipped().shape)
    times: Times = msgspec.field(default_factory=lambda: shipped().times)


@functools.lru_cache(maxsize=16)
def tables(stats: Statistics) -> tuple[F64, ...]:
    """The numbers for the kernel: [17,13] those of `Joint` for every joint of coco17, then those of hidden, outside, swaps, second and shape."""
    joints = np.array([msgspec.structs.astuple(getattr(stats.joints, name)) for name in GROUPS], np.float64)[GROUP_OF]
    parts = (stats.hidden, stats.outside, stats.swaps, stats.second, stats.shape)
    return (joints, *(np.array(msgspec.structs.astuple(part), np.float64) for part in parts))


def shipped() -> Statistics:
    """Those of the shipped network; read once."""
    return _once(SHIPPED)


@functools.cache
def _once(path: Path) -> Statistics:
    return statistics(path)


def statistics(path: Path = SHIPPED) -> Statistics:
    """Read a file of statistics. RigError: not readable, or a field that is missing, misspelt or out of its range, by its name."""
    try:
        return msgspec.toml.decode(path.read_bytes(), type=Statistics)
    except OSError as e:
        raise RigError(
            f"the statistics of the noise cannot be read: {e.strerror}", where=str(path), hint="name a file that is there"
        ) from e
    except msgspec.ValidationError as e:
        raise RigError(f"wrong statistics of the noise: {e}", where=str(path), hint=f"{SHIPPED.name} of posepipe shows every field") from e
    except msgspec.DecodeError as e:
        raise RigError(f"no TOML: {e}", where=str(path), hint="correct the line named") from e


MIRROR: I64 = mirror_of(COCO17)
PARENT: I64 = np.array([5, 0, 0, 1, 2, 11, 12, 5, 6, 7, 8, 5, 6, 11, 12, 13, 14], np.int64)
"""The next joint towards the trunk, for every joint of coco17."""
