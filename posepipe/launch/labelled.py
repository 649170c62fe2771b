"""Recordings whose owner has written down what people do in them: `NAME.jsonl` of record.jsonl with `NAME.csv` beside it.

The CSV has the columns `start_s,end_s,label`, seconds from the first instant of the recording, and if need be `id`: the identity in the recording whom the
line is about; without it, it is about everybody.
"""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..calib.action_samples import Labelled
from ..calib.action_window import GAP_NS, JOINTS
from ..engines.action import UNKNOWN
from ..nodes.record_jsonl import read_recording
from ..pipeline.errors import SourceError, did_you_mean
from ..pipeline.packet import F32, I64

_COLUMNS = ("start_s", "end_s", "label", "id")
_HINT = "docs/actions.md shows such a file"
_SLACK_S = 0.05


@dataclass(frozen=True, slots=True)
class Interval:
    """One line of a label file. person: None for everybody. where: file:line."""

    start_s: float
    end_s: float
    label: str
    person: int | None
    where: str


@dataclass(frozen=True, slots=True)
class Track:
    """One person of a recording: t_ns [N], rising from the recording's first instant, xyz_m [N,13,3], NaN where not seen."""

    person: int
    t_ns: I64
    xyz_m: F32


def read_labelled(folder: Path, *, tell: Callable[[str], None] = print) -> list[Labelled]:
    """Everything in a folder that has labels. SourceError, with file:line, for a file of labels that cannot be; RecordError for a recording."""
    if not folder.is_dir():
        raise SourceError("there is no such folder", where=str(folder), hint="the folder with the recordings and their label files")
    recordings, files = ({p.stem: p for p in sorted(folder.glob(f"*.{kind}"))} for kind in ("jsonl", "csv"))
    for name in sorted(files.keys() - recordings.keys()):
        hint = did_you_mean(f"{name}.jsonl", [p.name for p in recordings.values()])
        raise SourceError(f"these are labels of {name}.jsonl, which is not beside them", where=str(files[name]), hint=hint)
    if not files:
        what = f"{len(recordings)} recordings are here, and no file of labels"
        raise SourceError(what, where=str(folder), hint=f"put NAME.csv beside NAME.jsonl ({_HINT})")
    if left_out := sorted(recordings.keys() - files.keys()):
        tell(f"without labels, left out: {', '.join(f'{name}.jsonl' for name in left_out)}")
    return [one for name, path in files.items() for one in _labelled(name, tracks(recordings[name]), path)]


def tracks(path: Path) -> list[Track]:
    """The people of a recording. RecordError for what is not one, SourceError for one without people or of another layout."""
    recording = read_recording(path)
    names = recording.header.joints
    if missing := [j for j in JOINTS if j not in names]:
        raise SourceError(f"its skeletons have no {missing[0]}", where=f"{path}:1", hint="record shoulders to ankles and the nose")
    at = [names.index(j) for j in JOINTS]
    times: dict[int, list[int]] = {}
    joints: dict[int, list[list[tuple[float, float, float]]]] = {}
    nowhere = (math.nan, math.nan, math.nan)
    first = None
    for instant in recording:
        first = instant.t_capture_ns if first is None else first
        for person in instant.people:
            times.setdefault(person.id, []).append(instant.t_capture_ns - first)
            joints.setdefault(person.id, []).append([person.xyz_m[j] or nowhere for j in at])
    if not times:
        raise SourceError("nobody is in it", where=str(path), hint="record people, or take its file of labels away")
    return [Track(p, np.array(times[p], np.int64), np.array(joints[p], np.float32)) for p in sorted(times)]


def read_intervals(path: Path, *, until_s: float, people: set[int]) -> list[Interval]:
    """The lines of a label file, of a recording that ends at `until_s` and has these people. SourceError with file:line."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as e:
        raise SourceError(f"the labels cannot be read: {e}", where=str(path), hint="save it as CSV in UTF-8") from e
    rows = csv.reader(io.StringIO(text), strict=True)
    try:
        columns = [c.strip() for c in next(rows, [])]
        _check_columns(columns, f"{path}:1")
        found = [
            _interval(dict(zip(columns, row, strict=False)), len(row), columns, f"{path}:{rows.line_num}", until_s) for row in rows if row
        ]
    except csv.Error as e:
        raise SourceError(f"not a line of CSV: {e}", where=f"{path}:{rows.line_num}", hint=_HINT) from None
    if not found:
        raise SourceError("no line says what anybody does", where=f"{path}:1", hint=_HINT)
    for one in found:
        if one.person is not None and one.person not in people:
            raise SourceError(f"nobody in the recording has the id {one.person}", where=one.where, hint=f"there are {_listed(people)}")
    for a, b in _meeting(found):
        what = f"{b.start_s:g} to {b.end_s:g} s ({b.label}) overlaps {a.start_s:g} to {a.end_s:g} s ({a.label}) of line {a.where.rpartition(':')[2]}"
        raise SourceError(what, where=b.where, hint="one label at a time; give people who do different things a line each, with their id")
    return found


def _check_columns(columns: list[str], where: str) -> None:
    if len(columns) == 1 and ";" in columns[0]:
        raise SourceError("columns are divided by semicolons", where=where, hint="save it with commas: start_s,end_s,label")
    for name in columns:
        if name not in _COLUMNS:
            raise SourceError(f"there is no column {name!r}", where=where, hint=did_you_mean(name, _COLUMNS))
    if missing := [c for c in _COLUMNS[:3] if c not in columns]:
        raise SourceError(f"the column {missing[0]!r} is missing", where=where, hint="the first line is start_s,end_s,label")
    if len(set(columns)) < len(columns):
        raise SourceError("a column is there twice", where=where, hint="the first line is start_s,end_s,label")


def _interval(row: dict[str, str], cells: int, columns: list[str], where: str, until_s: float) -> Interval:
    if cells != len(columns):
        raise SourceError(f"{cells} values for {len(columns)} columns", where=where, hint="put a label with a comma into quotes")
    label = row["label"].strip()
    if not label or label == UNKNOWN:
        hint = f"leave the line out: what has no label is not learned, and {UNKNOWN!r} is said where no label is probable"
        raise SourceError(f"{label!r} cannot be a label", where=where, hint=hint)
    start_s, end_s = (_seconds(row[c], c, where) for c in ("start_s", "end_s"))
    if end_s <= start_s:
        raise SourceError(f"it ends at {end_s:g} s, and begins at {start_s:g} s", where=where, hint="end_s after start_s, in seconds")
    if start_s < 0 or end_s > until_s + _SLACK_S:
        what = f"{start_s:g} to {end_s:g} s is not inside the recording, which lasts {until_s:.2f} s"
        raise SourceError(what, where=where, hint="seconds count from the recording's first instant")
    said = row.get("id", "").strip()
    if said and not said.lstrip("-").isdigit():
        raise SourceError(f"id is {said!r}, not a whole number", where=where, hint="the id of a person in the recording, or nothing")
    return Interval(start_s, end_s, label, int(said) if said else None, where)


def _seconds(text: str, column: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise SourceError(f"{column} is {text.strip()!r}, not a number of seconds", where=where, hint="write 12.5, not 12,5 or 0:12")
    return value


def _meeting(found: list[Interval]) -> Iterator[tuple[Interval, Interval]]:
    """Pairs that are about the same person at the same time, by their beginning."""
    for a, b in itertools.combinations(sorted(found, key=lambda i: i.start_s), 2):
        if b.start_s < a.end_s and (a.person is None or b.person is None or a.person == b.person):
            yield a, b


def _labelled(name: str, people: list[Track], path: Path) -> list[Labelled]:
    until_s = max(int(track.t_ns[-1]) for track in people) / 1e9
    found = []
    for interval in read_intervals(path, until_s=until_s, people={track.person for track in people}):
        begin, end = round(interval.start_s * 1e9), round(interval.end_s * 1e9)
        for track in people:
            if interval.person in (None, track.person):
                inside = (track.t_ns >= begin) & (track.t_ns < end)
                found += list(_pieces(name, interval, track.t_ns[inside], track.xyz_m[inside]))
    return found


def _pieces(name: str, interval: Interval, t_ns: I64, xyz_m: F32) -> Iterator[Labelled]:
    """Between absences, and between instants at which time went back."""
    step = np.diff(t_ns)
    ends = [0, *(np.flatnonzero((step > GAP_NS) | (step <= 0)) + 1).tolist(), len(t_ns)]
    for a, b in itertools.pairwise(ends):
        if b - a >= 2:
            seen = np.asarray(np.isfinite(xyz_m[a:b]).all(axis=2))
            xyz = np.where(seen[..., None], xyz_m[a:b], np.float32(0))
            yield Labelled(name, interval.label, xyz, seen, (t_ns[a:b] - t_ns[a]) / 1e9, interval.where)


def _listed(people: set[int]) -> str:
    return ", ".join(map(str, sorted(people)[:20])) or "none"
