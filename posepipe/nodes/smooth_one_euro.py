"""smooth.one_euro: the One-Euro filter on real time stamps, per person and joint, no look-ahead."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from msgspec import Meta

from posepipe.calib.limbs import LimbLengths, limbs_of
from posepipe.pipeline.node import Context, Node, NodeSettings
from posepipe.pipeline.packet import F32, F64, Packet, Poses, readonly
from posepipe.pipeline.skeleton import skeleton

_KNOWN_NS = 2_000_000_000
"""A person's limb lengths outlive a short absence; the filter itself starts afresh after `forget_ms`."""


@dataclass(slots=True)
class _Track:
    """Filter state of one person: filtered position [J,3], filtered speed [J,3] (m/s), time of the last sample per joint [J]."""

    xyz_m: F64
    velocity_m_s: F64
    t_ns: np.ndarray[tuple[int], np.dtype[np.int64]]
    limbs: LimbLengths


class SmoothOneEuro(Node):
    """One-Euro filter (Casiez, Roussel, Vogel, CHI 2012, eq. 1-7), isotropic: the cut-off follows the joint's speed in space.

    `min_cutoff` (Hz) removes jitter at rest, `beta` (Hz per m/s) lets go when the joint moves. State is kept by identity; a joint
    not seen for `forget_ms` starts afresh.
    """

    use = "smooth.one_euro"

    class Settings(NodeSettings, frozen=True):
        min_cutoff: Annotated[float, Meta(description="cut-off at rest, Hz: lower is smoother and later", gt=0)] = 1.0
        beta: Annotated[float, Meta(description="cut-off added per m/s of speed, Hz", ge=0)] = 8.0
        speed_cutoff: Annotated[float, Meta(description="cut-off of the speed estimate, Hz", gt=0)] = 1.5
        limbs: Annotated[bool, Meta(description="steady badly seen joints by the lengths that the person's own limbs have had so far")] = (
            True
        )
        forget_ms: Annotated[float, Meta(description="a joint unseen for this long starts afresh", ge=0)] = 300.0

    settings: Settings

    def open(self, ctx: Context) -> None:
        self._tracks: dict[int, _Track] = {}
        self._limbs = limbs_of(skeleton(ctx.caps["poses"].skeleton))
        LimbLengths(self._limbs).hold(np.zeros((self._limbs.max() + 1, 3)), np.ones(self._limbs.max() + 1))  # compiles, or loads the kernel

    def step(self, poses: Packet[Poses]) -> Poses:
        body = poses.body
        xyz_m = body.xyz_m.astype(np.float64)
        for row, person in enumerate(body.ids.tolist()):
            xyz_m[row] = self._filter(person, xyz_m[row], body.sigma_m[row], body.conf[row] > 0, poses.t_capture_ns)
        self._forget(poses.t_capture_ns)
        smooth = xyz_m.astype(np.float32)
        readonly(smooth)
        return replace(body, xyz_m=smooth)

    def _filter(self, person: int, raw_m: F64, sigma_m: F32, seen: np.ndarray[tuple[int], np.dtype[np.bool_]], t_ns: int) -> F64:
        s = self.settings
        track = self._tracks.get(person)
        if track is None:
            track = self._tracks[person] = _Track(
                np.zeros_like(raw_m), np.zeros_like(raw_m), np.full(len(raw_m), -(1 << 62), np.int64), LimbLengths(self._limbs)
            )
        if s.limbs:
            raw_m = track.limbs.hold(raw_m, sigma_m)
        dt_s = (t_ns - track.t_ns) / 1e9
        known = seen & (dt_s > 0) & (dt_s * 1e3 <= s.forget_ms)
        fresh = seen & ~known
        track.xyz_m[fresh], track.velocity_m_s[fresh] = raw_m[fresh], 0.0
        if known.any():
            dt = dt_s[known, None]
            speed = (raw_m[known] - track.xyz_m[known]) / dt
            track.velocity_m_s[known] += _alpha(s.speed_cutoff, dt) * (speed - track.velocity_m_s[known])
            cutoff = s.min_cutoff + s.beta * np.linalg.norm(track.velocity_m_s[known], axis=1, keepdims=True)
            track.xyz_m[known] += _alpha(cutoff, dt) * (raw_m[known] - track.xyz_m[known])
        track.t_ns[seen] = t_ns
        return np.where(seen[:, None], track.xyz_m, np.nan)

    def _forget(self, t_ns: int) -> None:
        limit = t_ns - max(int(self.settings.forget_ms * 1e6), _KNOWN_NS)
        for person in [p for p, track in self._tracks.items() if track.t_ns.max() < limit]:
            del self._tracks[person]


def _alpha(cutoff_hz: float | F64, dt_s: F64) -> F64:
    """Smoothing factor of a first-order low pass (eq. 5-6)."""
    r = 2 * np.pi * cutoff_hz * dt_s
    alpha: F64 = r / (r + 1)
    return alpha
