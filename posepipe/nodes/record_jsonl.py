"""`record.jsonl`: every skeleton of the run in a text file, one JSON line an instant, readable at any moment."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta

from posepipe.pipeline.errors import RecordError
from posepipe.pipeline.node import Caps, Context, Node, NodeSettings
from posepipe.pipeline.packet import F32, Actions, Packet, Poses
from posepipe.pipeline.skeleton import skeleton

from ._actions import Act, Acts, check_actions

VERSION = 1
_DECIMALS_M = 5
_DECIMALS_CONF = 3
_DECIMALS_PX = 2
_DECIMALS_POSE = 4

Xyz = tuple[float, float, float]
Six = tuple[float, float, float, float, float, float]


class Header(msgspec.Struct, frozen=True):
    """First line of a recording. `joints` and `bones` give the order in which every person's joints stand, `actions` the labels, `unknown` last."""

    v: int
    studio: str
    skeleton: str
    joints: tuple[str, ...]
    bones: tuple[tuple[int, int], ...]
    cameras: tuple[str, ...]
    graph_sha256: str
    actions: tuple[str, ...] = ()


class RecordedSync(msgspec.Struct, frozen=True):
    """How well the instant hung together; `views` and `missing` are positions in the header's `cameras`.

    The rest is the sync certificate (docs/sync.md), one entry per camera, None while not known; empty in files from before it.
    """

    skew_ns: int
    views: tuple[int, ...]
    missing: tuple[int, ...]
    offset_ms: tuple[float | None, ...] = ()
    drift_ppm: tuple[float | None, ...] = ()
    complete: tuple[float | None, ...] = ()


class RecordedAction(msgspec.Struct, frozen=True):
    """What somebody does. label: position in the header's `actions`; p: one for each of them."""

    label: int
    p: tuple[float, ...]


class RecordedBody(msgspec.Struct, frozen=True):
    """Bones and shape of somebody, as `packet.Bodies` has them."""

    model: str
    pose: tuple[Six, ...]
    shape: tuple[float, ...]
    root_m: Xyz


class Person(msgspec.Struct, frozen=True):
    """One skeleton, world frame, metres. A joint that was not seen is None in `xyz_m`.

    views: how many views are behind each joint; None in files from before it. action, body: None where there was none.
    """

    id: int
    xyz_m: tuple[Xyz | None, ...]
    conf: tuple[float, ...]
    sigma_m: tuple[float | None, ...]
    reproj_px: float | None
    views: tuple[int, ...] | None = None
    action: RecordedAction | None = None
    body: RecordedBody | None = None


class Instant(msgspec.Struct, frozen=True):
    """One line of a recording."""

    seq: int
    t_capture_ns: int
    sync: RecordedSync
    tier: str
    people: tuple[Person, ...]


class RecordJsonl(Node):
    """Writes every skeleton to a JSON Lines file that stays readable whatever happens to the studio.

    The first line names the layout, every other line is one instant: capture time, sync, people with joints in metres (null where
    a joint was not seen), confidence, standard deviation, reprojection error and how many views are behind each joint; action and body, where the
    studio has them (`from: {poses: smooth, actions: action}`). When the disk is full the recording is cut after its last whole line and
    closed, a warning says so, and the studio goes on.
    """

    use = "record.jsonl"
    own_process = True  # a disk that stalls must not delay publishing
    default_queue = (256, "drop_oldest")

    class Settings(NodeSettings, frozen=True, kw_only=True):
        file: Annotated[
            str,
            Meta(
                description="The recording, relative to the current directory; missing folders are made. "
                "{time} becomes the start time, e.g. 2025-03-09T14-30-00.",
                min_length=1,
            ),
        ]
        overwrite: Annotated[
            bool,
            Meta(
                description="Replace a file that exists, once the first skeleton arrives. "
                "Otherwise the studio does not start when the file is there: a take is never lost by a second start."
            ),
        ] = False

    settings: Settings
    recorded = 0
    not_recorded = 0
    _fd: int | None = None
    _end = 0

    @classmethod
    def check(cls, settings: Settings, inputs: Mapping[str, Caps]) -> None:
        check_actions(inputs)

    def open(self, ctx: Context) -> None:
        self._ctx = ctx
        self._acts = Acts(ctx)
        self.path = Path(
            self.settings.file.replace("{time}", time.strftime("%Y-%m-%dT%H-%M-%S", time.localtime(ctx.now_ns() / 1e9)))
        ).expanduser()
        self._made = not self.path.exists()
        if not self._made and not self.settings.overwrite:
            raise RecordError(
                f"the file exists ({self.path.stat().st_size / 1e6:.1f} MB), and a recording is never replaced by accident",
                where=str(self.path),
                hint="put {time} into the name for a new file every run, or set overwrite: true, or move the file away",
            )
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_EXCL if self._made else 0), 0o644)
        except OSError as e:
            raise RecordError(
                f"cannot be written: {e.strerror}", where=str(self.path), hint="choose a folder that you may write to"
            ) from None

    def step(self, poses: Packet[Poses], actions: Actions | None = None) -> None:
        if self._fd is None:
            self.not_recorded += 1
            return
        line = encode(poses, self._acts.of(poses.body.ids, actions))
        if self._end == 0:
            line = self._header(poses.body) + line
        try:
            if self._end == 0 and os.fstat(self._fd).st_size > 0:
                os.ftruncate(self._fd, 0)
            self._write(self._fd, line)
        except OSError as e:
            self._give_up(self._fd, e)

    def _header(self, poses: Poses) -> bytes:
        layout = skeleton(poses.skeleton)
        told = self._ctx.studio, layout.name, layout.joints, layout.bones, poses.cameras, self._ctx.graph_sha256
        header = Header(VERSION, *told, self._acts.names)
        return msgspec.json.encode(header) + b"\n"

    def _write(self, fd: int, line: bytes) -> None:
        """The whole line in one write, so that a kill leaves whole lines; a disk that takes a part of it gets the rest or refuses it."""
        done = os.write(fd, line)
        while done < len(line):
            done += os.write(fd, line[done:])
        self._end += done
        self.recorded += 1

    def _give_up(self, fd: int, error: OSError) -> None:
        """The live studio goes on without the recording, which is cut back to its last whole line and closed."""
        self._fd = None
        self.not_recorded += 1
        try:
            os.ftruncate(fd, self._end)
            state = f"{self.recorded} instants are in it and it is readable"
        except OSError as e:
            state = f"its last line may be cut ({e.strerror})"
        finally:
            os.close(fd)
        self._ctx.warn(
            f"{self._ctx.name}: {self.path}: {error.strerror}; recording has stopped, the studio goes on. The file is closed, {state}\n"
            f"  -> {_ADVICE.get(error.errno or 0, 'check the disk')}, then start again to record"
        )

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
            if self._made and self._end == 0:
                self.path.unlink(missing_ok=True)  # a studio that never got a skeleton leaves no empty file to refuse the next start
        elif self.not_recorded:
            self._ctx.warn(f"{self._ctx.name}: {self.not_recorded} instants were not recorded, {self.recorded} are in {self.path}")


_ADVICE = {28: "free space on that disk", 27: "raise the limit on file sizes (ulimit -f)", 122: "raise the disk quota"}


def encode(packet: Packet[Poses], acts: list[Act | None]) -> bytes:
    """One line, with its line end. Rounded to 1e-5 m, confidence and probabilities to 1e-3, rotations to 1e-4, pixels to 1e-2; what is not a
    number becomes null. acts [P]: what everybody does. Who has no action or body lacks the key."""
    poses = packet.body
    seen = (poses.conf > 0) & np.isfinite(poses.xyz_m).all(axis=-1)
    xyz, conf, sigma = (
        _rounded(poses.xyz_m, _DECIMALS_M),
        _rounded(np.nan_to_num(poses.conf), _DECIMALS_CONF),
        _rounded(poses.sigma_m, _DECIMALS_M),
    )
    for person, joint in np.argwhere(~seen).tolist():
        xyz[person][joint] = None
    more = _more(poses, acts)
    rows = zip(poses.ids.tolist(), xyz, conf, sigma, _rounded(poses.reproj_px, _DECIMALS_PX), poses.views_used.tolist(), more, strict=True)
    line = {
        "seq": packet.seq,
        "t_capture_ns": packet.t_capture_ns,
        "sync": poses.sync,
        "tier": poses.tier,
        "people": [{"id": i, "xyz_m": x, "conf": c, "sigma_m": s, "reproj_px": r, "views": v, **m} for i, x, c, s, r, v, m in rows],
    }
    return msgspec.json.encode(line) + b"\n"


def _more(poses: Poses, acts: list[Act | None]) -> list[dict[str, Any]]:
    """[P]: action and body, of who has them."""
    more: list[dict[str, Any]] = [
        {} if act is None else {"action": {"label": act.label, "p": _rounded(act.p, _DECIMALS_CONF)}} for act in acts
    ]
    if (b := poses.bodies) is not None:
        pose, shape, root_m = _rounded(b.pose, _DECIMALS_POSE), _rounded(b.shape, _DECIMALS_POSE), _rounded(b.root_m, _DECIMALS_M)
        for i in np.flatnonzero(b.known).tolist():
            more[i]["body"] = {"model": b.model, "pose": pose[i], "shape": shape[i], "root_m": root_m[i]}
    return more


def _rounded(values: F32, decimals: int) -> list[Any]:
    """As float64, so that the text has the digits that were asked for and not those of float32."""
    rounded: list[Any] = np.round(values.astype(np.float64), decimals).tolist()
    return rounded


class Recording(Iterator[Instant]):
    """The instants of a file, read as they are asked for. `torn` says, after the last one, what was cut off (empty: nothing).

    A recording that is still being written, or whose studio was killed, ends with the last whole line.
    """

    def __init__(self, path: Path, warn: Callable[[str], None]) -> None:
        self.path, self.torn = path, ""
        self._warn = warn
        try:
            self._file = path.open("rb")
        except OSError as e:
            raise RecordError(
                f"cannot be read: {e.strerror}", where=str(path), hint="give the path of a recording made by record.jsonl"
            ) from None
        self._number = 0
        self._instants = msgspec.json.Decoder(Instant)
        line = self._line()
        if line is None:
            raise RecordError("holds no whole line, so nothing was recorded", where=str(path), hint="record again")
        self.header: Header = self._decode(msgspec.json.Decoder(Header), line)
        if self.header.v != VERSION:
            raise RecordError(
                f"version {self.header.v} of the format, this posepipe reads {VERSION}",
                where=str(path),
                hint="read it with a newer posepipe",
            )

    def _line(self) -> bytes | None:
        line = self._file.readline()
        if line.endswith(b"\n"):
            self._number += 1
            return line
        if line and not self.torn:
            self.torn = f"{self.path}:{self._number + 1}: the last line is cut ({len(line)} bytes without an end) and is left out"
            self._warn(self.torn)
        self._file.close()
        return None

    def _decode(self, decoder: msgspec.json.Decoder[Any], line: bytes) -> Any:
        try:
            return decoder.decode(line)
        except msgspec.DecodeError as e:
            self._file.close()
            raise RecordError(
                f"not a line of a recording: {e}", where=f"{self.path}:{self._number}", hint="the file was changed or is damaged there"
            ) from None

    def __next__(self) -> Instant:
        line = None if self._file.closed else self._line()
        if line is None:
            raise StopIteration
        instant: Instant = self._decode(self._instants, line)
        return instant


def read_recording(path: Path | str, *, warn: Callable[[str], None] | None = None) -> Recording:
    """Read a recording: `.header`, then the instants by iteration. RecordError with file:line for what is not one.

    A last line without an end (the studio was killed, or still writes) is left out, and `warn` (default: the log) and `.torn` say so.
    """
    return Recording(Path(path), warn or logging.getLogger("posepipe").warning)
