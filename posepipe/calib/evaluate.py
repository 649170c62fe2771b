"""A run against the truth of the synthetic recording that it saw: which skeleton is whom, when, and how far off.

An instant is compared with the truth of the moment at which its pictures were taken. People are matched per instant by the mean
distance of the joints that are looked at; a skeleton further than half a metre from everybody is a ghost, whoever has none is missed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from posepipe.pipeline.errors import RecordError
from posepipe.pipeline.packet import F64, I64
from posepipe.pipeline.skeleton import BODY25, COCO17, Skeleton, skeleton

from . import metrics
from .synthetic_truth import Truth

SAME_PERSON_M = 0.5
"""Further than this from the truth, in the mean over the joints, a skeleton is not that person's."""
_RATE_TOLERANCE = 0.01

Joints = Literal["body", "all"]


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """The skeletons of one run. N instants, R skeletons (one row per person and instant), J joints of `skeleton`.

    seq, t_ns [N]: number and capture time (any clock); views: per instant, positions in `cameras` of those that it was made from;
    tier: per instant, how its 3D was made.
    instant [R]: position of the row's instant; ids [R]; xyz_m [R,J,3], NaN: not seen; reproj_px [R]; views_used [R,J], None when
    the run does not say. start_ns: capture time of second 0 of the recording, None when it has to be told from `seq`.
    """

    where: str
    skeleton: str
    cameras: tuple[str, ...]
    seq: I64
    t_ns: I64
    views: tuple[tuple[int, ...], ...]
    tier: tuple[str, ...]
    instant: I64
    ids: I64
    xyz_m: F64
    reproj_px: F64
    views_used: I64 | None = None
    start_ns: int | None = None

    @property
    def period_ns(self) -> float:
        """Time between two instants in a row; NaN with fewer than two."""
        if len(self.seq) < 2 or self.seq[-1] <= self.seq[0]:
            return float("nan")
        return float(self.t_ns[-1] - self.t_ns[0]) / float(self.seq[-1] - self.seq[0])

    def recording_s(self, *, speed: float, period_s: float) -> F64:
        """When in the recording each instant was taken, in seconds from its first frame.

        Instants are numbered as the frames that they were made of, so that the start is known also when the first ones were lost.
        period_s: of the recording, for a run of one instant.
        """
        period_ns = self.period_ns if np.isfinite(self.period_ns) else period_s / speed * 1e9
        start_ns = float(np.median(self.t_ns - self.seq * period_ns)) if self.start_ns is None else self.start_ns
        seconds: F64 = (self.t_ns - start_ns).astype(np.float64) / 1e9 * speed
        return seconds


@dataclass(frozen=True, slots=True, eq=False)
class Matched:
    """A run beside its truth. M instants compared, P true people, K joints that are looked at.

    seq [M]; t_s [M]: when the pictures were taken; frame [M]: the truth's, nearest; tier [M]: how the 3D was made; estimate_m, truth_m [M,P,K,3], NaN where there is none; row [M,P]: the run's row,
    -1 none; visible [M,P,K]: cameras of the instant that see the joint, -1 not known; ghosts [M]; skipped: instants without truth.
    """

    joints: tuple[str, ...]
    seq: I64
    t_s: F64
    frame: I64
    tier: tuple[str, ...]
    estimate_m: F64
    truth_m: F64
    row: I64
    visible: I64
    cameras: I64
    ghosts: I64
    skipped: int
    warnings: tuple[str, ...]

    @property
    def present(self) -> metrics.Bools:
        """[M,P] who is there."""
        return np.asarray(metrics.known(self.truth_m).any(axis=-1))


def joints_compared(layout: Skeleton, joints: Joints) -> tuple[str, ...]:
    """Names of the joints of a layout that have a truth: of the body (shoulders to ankles), or all of coco17 and body25."""
    if joints == "body":
        return tuple(layout.joints[j] for j in layout.body)
    known = {*COCO17.joints, *BODY25.joints}
    return tuple(name for name in layout.joints if name in known)


def match(run: Run, truth: Truth, *, joints: Joints = "body", speed: float = 1.0) -> Matched:
    """Put a run beside its truth.

    speed: at which the recording was played (`speed:` of capture.video in a live run); a run that seems to have had another is warned
    of, unless it states its start. RecordError when the run is of other cameras,
    has no instants, or has none at a time that the truth covers.
    """
    cameras = check_cameras(run.cameras, truth, where=run.where)
    if not len(run.seq):
        raise RecordError(
            "holds no instants, so there is nothing to compare", where=run.where, hint="record a run in which cameras deliver"
        )
    names = joints_compared(skeleton(run.skeleton), joints)
    period_s = float(np.diff(truth.t_s).mean()) if len(truth.t_s) > 1 else 1 / truth.scene.fps
    when = run.recording_s(speed=speed, period_s=period_s)
    frame = _nearest(truth.t_s, when)
    at = np.flatnonzero(np.abs(when - truth.t_s[frame]) <= period_s / 2 * (1 + 1e-6))
    if not len(at):
        raise RecordError(
            f"no instant in common: the run is from second {when.min():.2f} to {when.max():.2f} of its recording, "
            f"the truth from {truth.t_s[0]:.2f} to {truth.t_s[-1]:.2f}",
            where=run.where,
            hint="give the folder of the recording that this run saw",
        )
    frame = frame[at]
    taken = np.array(
        [np.median(truth.capture_t_s[[cameras[v] for v in run.views[n]] or cameras, k]) for n, k in zip(at, frame, strict=True)]
    )
    true_m = _true_joints(truth, names, taken)
    visible = _visible(run, truth, names, at, frame, cameras)
    estimate = np.full(true_m.shape, np.nan)
    row = np.full(true_m.shape[:2], -1, np.int64)
    ghosts = np.zeros(len(at), np.int64)
    columns = [skeleton(run.skeleton).index(name) for name in names]
    first = np.searchsorted(run.instant, np.arange(len(run.seq) + 1))
    for m, n in enumerate(at):
        rows = np.arange(first[n], first[n + 1])
        seen = run.xyz_m[rows][:, columns]
        there = metrics.known(seen).any(axis=-1)
        rows, seen = rows[there], seen[there]
        cost = metrics.mean_known(metrics.distances(seen[:, None], true_m[m][None]))
        pairs = metrics.assign(cost, SAME_PERSON_M)
        for i, person in pairs:
            row[m, person], estimate[m, person] = rows[i], seen[i]
        ghosts[m] = len(rows) - len(pairs)
    warnings = tuple(_warnings(run, speed=speed, period_s=period_s, at=at, row=row))
    views = np.array([len(run.views[n]) for n in at], np.int64)
    tier = tuple(run.tier[n] for n in at)
    return Matched(names, run.seq[at], taken, frame, tier, estimate, true_m, row, visible, views, ghosts, len(run.seq) - len(at), warnings)


def check_cameras(cameras: tuple[str, ...], truth: Truth, *, where: str) -> list[int]:
    """Positions of a run's cameras in the truth; RecordError when the truth is of another studio."""
    for name in cameras:
        if name not in truth.cameras:
            raise RecordError(
                f"camera {name!r} is not in the truth of {truth.where}, which has {', '.join(truth.cameras)}",
                where=where,
                hint="give the folder of the recording that this studio plays, and its cameras the names that they have there",
            )
    return [truth.cameras.index(name) for name in cameras]


def _nearest(times: F64, wanted: F64) -> I64:
    """Of every wanted time the position of the nearest of `times`, which rise."""
    after = np.clip(np.searchsorted(times, wanted), 1, max(len(times) - 1, 1))
    before = after - 1
    after = np.minimum(after, len(times) - 1)
    return np.where(wanted - times[before] <= times[after] - wanted, before, after)


def _warnings(run: Run, *, speed: float, period_s: float, at: I64, row: I64) -> list[str]:
    said = []
    ratio = run.period_ns / 1e9 * speed / period_s
    if run.start_ns is None and abs(ratio - 1) > _RATE_TOLERANCE:  # who knows the start knows the speed
        said.append(
            f"an instant every {run.period_ns / 1e6:.2f} ms, a true frame every {period_s * 1e3:.2f} ms: right if the recording was resampled "
            f"(fps:); if it was played at another speed, say --speed {speed / ratio:.3g}"
        )
    if len(at) < len(run.seq):
        said.append(
            f"{len(run.seq) - len(at)} of {len(run.seq)} instants lie outside the truth and are left out (loops: the first round counts)"
        )
    if not (row >= 0).any():
        said.append(
            f"no skeleton lies within {SAME_PERSON_M} m of a true person at the same time: another recording, or another calibration (units?)"
        )
    return said


def _true_joints(truth: Truth, names: tuple[str, ...], taken_s: F64) -> F64:
    """[M,P,K,3] where joints were at any time: on the line between two true frames; the nearer frame beside one where nobody was."""
    coco, body = [n for n in names if n in COCO17.joints], [n for n in names if n not in COCO17.joints]
    parts = {n: truth.coco17_m[:, :, COCO17.index(n)] for n in coco} | {n: truth.body25_m[:, :, BODY25.index(n)] for n in body}
    xyz = np.stack([parts[n] for n in names], axis=2).astype(np.float64)
    if len(truth.t_s) == 1:
        return np.repeat(xyz.transpose(1, 0, 2, 3), len(taken_s), axis=0)
    before = np.clip(np.searchsorted(truth.t_s, taken_s, side="right") - 1, 0, len(truth.t_s) - 2)
    share = np.clip((taken_s - truth.t_s[before]) / (truth.t_s[before + 1] - truth.t_s[before]), 0.0, 1.0)[None, :, None, None]
    left, right = xyz[:, before], xyz[:, before + 1]
    between = np.where(share == 0, left, np.where(share == 1, right, left + share * (right - left)))
    nearer = np.where(share < 0.5, left, right)
    return np.where(np.isfinite(between), between, nearer).transpose(1, 0, 2, 3)


def _visible(run: Run, truth: Truth, names: tuple[str, ...], at: I64, frame: I64, cameras: list[int]) -> I64:
    """[M,P,K] how many of the instant's cameras truly see each joint; -1 for joints of which the truth does not say it."""
    columns = [COCO17.joints.index(n) if n in COCO17.joints else -1 for n in names]
    taking_part = np.zeros((len(at), len(truth.cameras)), np.bool_)
    for m, n in enumerate(at):
        taking_part[m, [cameras[v] for v in run.views[n]]] = True
    seen = truth.coco17_visible[:, :, frame][..., columns] & taking_part.T[:, None, :, None]
    count = seen.sum(0).transpose(1, 0, 2)
    return np.where(np.array(columns) >= 0, count, -1)
