"""What travels on links: frames, instants, key points, skeletons, actions, and the packet around them.

All of these are frozen; arrays that cross a link are read-only views. P people, C cameras, J joints, B bones, K shape components, L labels.
A body that starts a time line (`Frame`, `FrameSet`) carries `seq` and `t_capture_ns`; everything made from it
inherits both through its packet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")
F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
U8 = NDArray[np.uint8]
I64 = NDArray[np.int64]

PixelFormat = Literal["i420", "nv12"]
Tier = Literal["volumetric", "algebraic", "lifted", "held"]
FrameId = tuple[str, int]
WHOLE = 1 << 60
"""All of a captured frame, in the ledger's shares."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture of one camera, kept as the decoder made it (YUV 4:2:0).

    planes: `i420` -> (y [h,w], u [h/2,w/2], v [h/2,w/2]); `nv12` -> (y [h,w], uv [h/2,w/2,2]); uint8, rows may be padded
    (strided views), read-only. `seq` counts the frames that the source had, also those that it could not hand on.
    `t_capture_ns` is Unix time on the studio clock. `full_range` says luma is 0..255 instead of 16..235.
    """

    camera: str
    seq: int
    t_capture_ns: int
    format: PixelFormat
    width: int
    height: int
    planes: tuple[U8, ...]
    full_range: bool = False
    slot: Any = field(default=None, repr=False, compare=False)
    """Where the picture lies in shared memory (`ring.SlotRef`); None: in the decoder's own."""
    lease: Any = field(default=None, repr=False, compare=False)
    """What keeps a picture of another process (`ringends.Lease`): hold the frame, not its planes, beyond a `step`."""

    @property
    def whole(self) -> bool:
        """False when the picture was overwritten while it was read: what was made of it is void."""
        return self.lease is None or self.lease.whole

    @property
    def frame_ids(self) -> tuple[FrameId, ...]:
        return ((self.camera, self.seq),)


@dataclass(frozen=True, slots=True)
class Sync:
    """How well an instant hangs together. Camera indices are positions in the studio's camera order.

    The certificate, one entry per camera of the studio, None while not known, empty where nobody certifies: `offset_ms` of its
    capture stamps against the median of the cameras, `drift_ppm` of that, and the share of the last ten seconds' instants that it
    was in (`complete`).
    """

    skew_ns: int
    views: tuple[int, ...]
    missing: tuple[int, ...]
    offset_ms: tuple[float | None, ...] = ()
    drift_ppm: tuple[float | None, ...] = ()
    complete: tuple[float | None, ...] = ()


@dataclass(frozen=True, slots=True)
class FrameSet:
    """One instant: the frames of all cameras that had one. `t_capture_ns` is the median capture time."""

    seq: int
    t_capture_ns: int
    cameras: tuple[str, ...]
    frames: Mapping[str, Frame]
    sync: Sync

    @property
    def frame_ids(self) -> tuple[FrameId, ...]:
        return tuple((f.camera, f.seq) for f in self.frames.values())

    @property
    def whole(self) -> bool:
        """False when one of its pictures was overwritten while it was read."""
        return all(f.whole for f in self.frames.values())


@dataclass(frozen=True, slots=True)
class ViewPoses:
    """2D key points of every person in every view of one instant.

    uv_px [P,C,J,2]: pixels of the camera's own video frame (distorted, pixel centres at integer coordinates), NaN where
    there is nothing. conf [P,C,J]: 0..1, 0 means not seen. ids [P]: identity of the person the views were cut for,
    -1 when it is new. side_px [P,C]: side of the square that the network looked at (what a heatmap cell is worth in pixels).

    maps [P,C,h,w,17] and rois [P,C,4] are there where the network has heatmaps and a node that reads them asks (`Node.wants_maps`): the
    probability of coco17's joints in every cell, channel last, and the regions of the videos that they cover: centre (x, y) and longer side in
    pixels, angle in radians as in `engines.crop.Rois`; NaN where a view has none. Cell (column i, row k) of a map lies (i - w/2, k - h/2) * side / max(w, h)
    from the centre along the region's own axes: with BlazePose a cell is its upper left corner.
    """

    cameras: tuple[str, ...]
    skeleton: str
    sync: Sync
    ids: I64
    uv_px: F32
    conf: F32
    side_px: F32
    maps: F32 | None = None
    rois: F32 | None = None


@dataclass(frozen=True, slots=True)
class Bodies:
    """Whole bodies of the people of a `Poses`, in its order: bones and shape instead of joints, for whoever draws or drives a character.

    model: whose body it is, e.g. `posepipe.adult` (`calib.body.load_body`). pose [P,B,6]: rotations of the bones in the world against the rest
    pose, first two columns row by row; shape [P,K]; root_m [P,3]: where the first bone begins, metres, world. These are what
    `calib.body.Body.pose` takes. Someone without a body has rows of NaN in all three (`known`).
    """

    model: str
    pose: F32
    shape: F32
    root_m: F32

    @property
    def known(self) -> NDArray[np.bool_]:
        """[P]: who has a body."""
        with np.errstate(invalid="ignore", over="ignore"):  # a sum is a number where all of it is
            return np.asarray(np.isfinite(self.pose.sum(axis=(1, 2)) + self.shape.sum(axis=1) + self.root_m.sum(axis=1)))


@dataclass(frozen=True, slots=True)
class Poses:
    """3D skeletons of one instant, world frame, metres.

    ids [P]; xyz_m [P,J,3]; conf [P,J] 0..1, 0 means not seen; sigma_m [P,J] one standard deviation of the position;
    reproj_px [P] median reprojection error over used views and joints; views_used [P,J] number of views behind a joint.
    bodies: None where no node gives any. They say the same as the joints do: a node that moves the joints afterwards leaves them out.
    """

    cameras: tuple[str, ...]
    skeleton: str
    sync: Sync
    tier: Tier
    ids: I64
    xyz_m: F32
    conf: F32
    sigma_m: F32
    reproj_px: F32
    views_used: NDArray[np.uint8]
    bodies: Bodies | None = None


@dataclass(frozen=True, slots=True)
class Actions:
    """What the people of one instant do. Its labels are `Caps.actions` of the port that it comes from.

    ids [P]: identities as in `Poses`, of those for whom there is an answer, in any order; label [P]: position in the labels, -1 where none
    is probable enough; p [P,L]: probability of every label.
    """

    ids: I64
    label: I64
    p: F32


@dataclass(frozen=True, slots=True)
class Span:
    """What one node did with one packet. Times are Unix ns on the studio clock."""

    node: str
    t_in_ns: int
    t_out_ns: int


@dataclass(frozen=True, slots=True)
class Packet(Generic[T]):
    """A body on its way. `frames` names the captured frames it was made from (the ledger's key), `shares` how much of each this
    branch answers for (empty: all; see `ledger`)."""

    seq: int
    t_capture_ns: int
    source: str
    body: T
    trace: tuple[Span, ...]
    frames: tuple[FrameId, ...]
    shares: tuple[int, ...] = ()


def readonly(array: NDArray[np.generic]) -> None:
    """Mark an array that is about to cross a link."""
    array.setflags(write=False)
