"""`posepipe eval`: a recorded run against the truth of what it saw, or on its own."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from posepipe.calib.evaluate import Joints, Matched, Run, match
from posepipe.calib.evaluate_alone import figures_alone
from posepipe.calib.evaluate_figures import figures
from posepipe.calib.formats import load_rig
from posepipe.calib.synthetic_truth import RIG, read_truth
from posepipe.nodes.record_jsonl import Header, Instant, read_recording
from posepipe.pipeline.errors import PosepipeError, RecordError
from posepipe.pipeline.packet import F64
from posepipe.pipeline.skeleton import SKELETONS

from . import evaluation_picture as picture
from . import evaluation_table as tables
from . import logs


def evaluate(
    path: Path,
    *,
    truth: Path | None = None,
    rig: Path | None = None,
    joints: Joints = "body",
    speed: float = 1.0,
    json_file: Path | None = None,
    png: Path | None = None,
    out: Console | None = None,
) -> int:
    """Print how good a recorded run is, and write it as JSON and as a picture; 0. PosepipeError for what cannot be read or compared.

    truth: folder of the synthetic recording that the run saw; rig: calibration of its cameras, where there is no truth. One of the two.
    speed: at which a live run played the recording.
    """
    if png is not None:
        picture.check()
    for file in (json_file, png):
        _writable(file)
    run = read_run(path)
    matched: Matched | None = None
    found: dict[str, Any] = {"run": run.where, "skeleton": run.skeleton, "joints": joints}
    if truth is not None:
        told = read_truth(truth)
        matched = match(run, told, joints=joints, speed=speed)
        found |= {"truth": told.where, **figures(matched, run, told, rig=load_rig(truth / RIG).select(run.cameras))}
    else:
        found |= figures_alone(run, rig=load_rig(rig).select(run.cameras) if rig is not None else None, joints=joints)
    for warning in found["warnings"]:
        logs.say(warning, level=logging.WARNING, prefix="posepipe: warning: ")
    console = out or Console()
    for part in tables.of(found):
        console.print(part, highlight=False, soft_wrap=isinstance(part, str))
    try:
        if json_file is not None:
            json_file.write_text(json.dumps(found, indent=2, allow_nan=False) + "\n")
        if png is not None:
            picture.draw(png, found, matched, run)
    except OSError as e:
        raise RecordError(f"cannot be written: {e.strerror}", where=str(e.filename or png), hint="choose another path") from None
    return 0


def read_run(path: Path) -> Run:
    """The skeletons of a file of `record.jsonl`, or of the one such file in a folder.

    What a killed studio wrote last and not to its end is left out, with a warning. RecordError for a file that is not a recording.
    """
    path = _the_file(path)
    recording = read_recording(path, warn=lambda text: logs.say(text, level=logging.WARNING, prefix="posepipe: warning: "))
    header = recording.header
    if header.skeleton not in SKELETONS or header.joints != SKELETONS[header.skeleton].joints:
        raise RecordError(
            f"its skeleton {header.skeleton!r} with {len(header.joints)} joints is not one that this posepipe knows",
            where=str(path),
            hint=f"known are {', '.join(SKELETONS)}; evaluate it with the posepipe that recorded it",
        )
    return _run(str(path), header, recording)


def _the_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    inside = sorted(path.glob("*.jsonl"))
    if len(inside) == 1:
        return inside[0]
    what = f"holds {len(inside)} recordings ({', '.join(f.name for f in inside)})" if inside else "holds no recording (*.jsonl)"
    raise RecordError(what, where=str(path), hint="name the file that record.jsonl wrote")


def _run(where: str, header: Header, instants: Iterable[Instant]) -> Run:
    seq: list[int] = []
    t_ns: list[int] = []
    views: list[tuple[int, ...]] = []
    tier: list[str] = []
    instant: list[int] = []
    ids: list[int] = []
    xyz: list[F64] = []
    reproj: list[float] = []
    used: list[tuple[int, ...] | None] = []
    for number, one in enumerate(instants):
        if seq and one.seq <= seq[-1]:
            raise RecordError(f"instant {one.seq} comes after {seq[-1]}", where=where, hint="give one run at a time, as it was recorded")
        if not all(0 <= v < len(header.cameras) for v in one.sync.views):
            raise RecordError(f"instant {one.seq} is of cameras that the header lacks", where=where, hint="the file was changed")
        seq.append(one.seq)
        t_ns.append(one.t_capture_ns)
        views.append(one.sync.views)
        tier.append(one.tier)
        for person in one.people:
            for joints in (person.xyz_m, person.views):
                if joints is not None and len(joints) != len(header.joints):
                    what = f"instant {one.seq}: {len(joints)} joints, the header names {len(header.joints)}"
                    raise RecordError(what, where=where, hint="the file was changed")
            instant.append(number)
            ids.append(person.id)
            xyz.append(np.array([joint or (np.nan,) * 3 for joint in person.xyz_m], np.float64))
            reproj.append(np.nan if person.reproj_px is None else person.reproj_px)
            used.append(person.views)
    return Run(
        where=where,
        skeleton=header.skeleton,
        cameras=header.cameras,
        seq=np.array(seq, np.int64),
        t_ns=np.array(t_ns, np.int64),
        views=tuple(views),
        tier=tuple(tier),
        instant=np.array(instant, np.int64),
        ids=np.array(ids, np.int64),
        xyz_m=np.array(xyz, np.float64).reshape(-1, len(header.joints), 3),
        reproj_px=np.array(reproj, np.float64),
        views_used=None if None in used else np.array(used, np.int64).reshape(-1, len(header.joints)),
    )


def _writable(file: Path | None) -> None:
    """Refused before the work, not after it."""
    if file is not None and not file.absolute().parent.is_dir():
        raise PosepipeError(f"there is no folder {file.parent}", where=str(file), hint="make it, or choose another path")
