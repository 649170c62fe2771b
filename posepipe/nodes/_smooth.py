"""What all smoothers share: settings, people by identity, limbs, and how a smoothed instant leaves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from posepipe.calib.limbs import LimbLengths, limbs_of
from posepipe.calib.smoothers import People, Recursive, Smoothed, tall
from posepipe.pipeline.errors import GraphError
from posepipe.pipeline.node import Caps, Context, Node, NodeSettings
from posepipe.pipeline.packet import F32, F64, I64, Packet, Poses, readonly
from posepipe.pipeline.skeleton import skeleton

_KNOWN_NS = 2_000_000_000
"""A person's limb lengths outlive a short absence; the filter itself starts afresh after `forget_ms`."""


class SmootherSettings(NodeSettings, frozen=True):
    """What every smoother can be told."""

    limbs: Annotated[bool, Meta(description="steady badly seen joints by the lengths that the person's own limbs have had so far")] = True
    forget_ms: Annotated[float, Meta(description="a joint unseen for this long starts afresh", ge=0)] = 300.0


class BridgingSettings(SmootherSettings, frozen=True):
    """Those that can also say where a joint was that was not seen for a moment."""

    bridge_ms: Annotated[float, Meta(description="a joint unseen for less than this is given all the same, at most forget_ms", ge=0)] = (
        200.0
    )


@dataclass(frozen=True, slots=True)
class Sample:
    """One instant as a filter takes it: rows [P] of the state, those with a new owner, xyz_m [P,J,3], sigma_m, conf and seen [P,J]."""

    rows: I64
    new: list[int]
    xyz_m: F64
    sigma_m: F64
    conf: F64
    seen: NDArray[np.bool_]


class Crowd:
    """Rows by identity, and the limbs of everybody: what stands before every filter."""

    def __init__(self, layout: str, settings: SmootherSettings) -> None:
        self._people = People(max(int(settings.forget_ms * 1e6), _KNOWN_NS))
        self._limbs = limbs_of(skeleton(layout)) if settings.limbs else None
        self._lengths: dict[int, LimbLengths] = {}
        if self._limbs is not None:
            LimbLengths(self._limbs).hold(
                np.zeros((self._limbs.max() + 1, 3)), np.ones(self._limbs.max() + 1)
            )  # compiles, or loads the kernel

    def __len__(self) -> int:
        return len(self._people)

    def take(self, body: Poses, t_ns: int) -> Sample:
        """The people of an instant, their limbs held."""
        rows, new = self._people.rows(body.ids.tolist(), t_ns)
        xyz_m = tall(body.xyz_m)
        if self._limbs is not None:
            self._lengths.update({row: LimbLengths(self._limbs) for row in new})
            for p, row in enumerate(rows.tolist()):
                xyz_m[p] = self._lengths[row].hold(xyz_m[p], body.sigma_m[p])
        seen = (body.conf > 0) & np.isfinite(xyz_m).all(axis=2)
        return Sample(rows, new, xyz_m, tall(body.sigma_m), tall(body.conf), seen)


def dressed(body: Poses, smooth: Smoothed) -> Poses:
    """The instant as it leaves. sigma_m and conf are handed on; a joint that is bridged has its own, and no views.

    Bodies are left out: they would say something else than the joints, which have moved.
    """
    xyz_m: F32 = smooth.xyz_m.astype(np.float32)
    readonly(xyz_m)
    if not smooth.bridged.any():
        return replace(body, xyz_m=xyz_m, bodies=None)
    sigma_m = np.where(smooth.bridged, smooth.sigma_m, body.sigma_m).astype(np.float32)
    conf = np.where(smooth.bridged, smooth.conf, body.conf).astype(np.float32)
    views_used = np.where(smooth.bridged, 0, body.views_used).astype(np.uint8)
    for array in (sigma_m, conf, views_used):
        readonly(array)
    return replace(body, xyz_m=xyz_m, sigma_m=sigma_m, conf=conf, views_used=views_used, bodies=None)


def bodiless(inputs: Mapping[str, Caps]) -> Caps:
    """What leaves a smoother (`dressed`)."""
    return replace(next(iter(inputs.values()), Caps()), body="")


def check_bridge(settings: BridgingSettings) -> None:
    """GraphError: a gap would be bridged by what is forgotten."""
    if settings.bridge_ms > settings.forget_ms:
        raise GraphError(
            f"bridge_ms is {settings.bridge_ms:g}, but a joint is forgotten after forget_ms: {settings.forget_ms:g}",
            hint="bridge_ms at most forget_ms",
        )


class Immediate(Node, ABC):
    """A smoother that answers every instant at once."""

    @classmethod
    def caps(cls, settings: Any, inputs: Mapping[str, Caps]) -> Caps:
        return bodiless(inputs)

    def open(self, ctx: Context) -> None:
        layout = ctx.caps["poses"].skeleton
        assert isinstance(self.settings, SmootherSettings)
        self._crowd = Crowd(layout, self.settings)
        joints = len(skeleton(layout).joints)
        self._filter = self.filter(joints)
        warm = self.filter(joints)
        warm.begin(0)
        nothing = np.zeros((1, joints))
        warm.step(np.zeros(1, np.int64), np.zeros((1, joints, 3)), nothing, nothing, np.zeros((1, joints), np.bool_), 0)  # compiles it

    @abstractmethod
    def filter(self, joints: int) -> Recursive:
        """The filter of these settings, without a past."""

    def step(self, poses: Packet[Poses]) -> Poses:
        now = self._crowd.take(poses.body, poses.t_capture_ns)
        for row in now.new:
            self._filter.begin(row)
        return dressed(poses.body, self._filter.step(now.rows, now.xyz_m, now.sigma_m, now.conf, now.seen, poses.t_capture_ns))


class Delayed(Node, ABC):
    """A smoother that answers an instant when later ones are known. Subclasses say which are (`ready`) and what they become (`smoothed`).

    When time goes back, everything held leaves with what is known of it, and the past is forgotten.
    """

    holds = True

    @classmethod
    def caps(cls, settings: Any, inputs: Mapping[str, Caps]) -> Caps:
        return bodiless(inputs)

    @classmethod
    def check(cls, settings: Any, inputs: Mapping[str, Caps]) -> None:
        check_bridge(settings)

    def open(self, ctx: Context) -> None:
        assert isinstance(self.settings, SmootherSettings)
        self._ctx = ctx
        self._crowd = Crowd(ctx.caps["poses"].skeleton, self.settings)
        self._past: deque[tuple[Packet[Poses], Sample]] = deque()
        self._waiting = 0
        """How many of the newest of these have not left."""
        self._due: deque[Packet[Poses]] = deque()
        self._arrived_ns = 0

    def step(self, poses: Packet[Poses]) -> list[Packet[Poses]]:
        self._arrived_ns = self._ctx.now_ns()
        if self._past and poses.t_capture_ns <= self._past[-1][0].t_capture_ns:
            self._finish()
        self._past.append((poses, self._crowd.take(poses.body, poses.t_capture_ns)))
        self._waiting += 1
        self._answer(self.ready(poses.t_capture_ns))
        return self._leave()

    def on_end(self, source: str) -> list[Packet[Poses]]:
        self._finish()
        left = list(self._due)
        self._due.clear()
        return left

    @abstractmethod
    def ready(self, t_ns: int) -> int:
        """How many of those that wait can be answered now that `t_ns` is known."""

    @abstractmethod
    def smoothed(self, count: int) -> list[Smoothed]:
        """The first `count` of those that wait."""

    def _finish(self) -> None:
        self._answer(self._waiting)
        self._past.clear()

    def _answer(self, count: int) -> None:
        first = len(self._past) - self._waiting
        answers = self.smoothed(count) if count else []
        for k, answer in enumerate(answers):
            packet = self._past[first + k][0]
            self._due.append(replace(packet, body=dressed(packet.body, answer)))
        self._waiting -= count

    def _leave(self) -> list[Packet[Poses]]:
        """Live one at a time, since links keep only the newest; the others follow as soon as that one is on its way (`on_time`)."""
        count = len(self._due) if self._ctx.offline else min(len(self._due), 1)
        return [self._due.popleft() for _ in range(count)]
