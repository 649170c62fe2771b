"""classify.action: what everybody is doing, from the last 1.6 seconds of the skeleton."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Self

import msgspec
import numpy as np
from msgspec import Meta

from posepipe.calib.action_window import JOINTS, RATE_HZ, TICKS, Windows, inputs, joints_in
from posepipe.engines.action import ActionNetwork, action_card, action_file
from posepipe.engines.assets import Asset
from posepipe.nodes._lift import engine_options
from posepipe.pipeline.errors import EngineError, GraphError, PullError
from posepipe.pipeline.node import Caps, Context, Node, NodeSettings
from posepipe.pipeline.packet import F32, I64, Actions, Packet, Poses, readonly
from posepipe.pipeline.skeleton import skeleton

_BATCH = 4
_ENOUGH_JOINTS = 6
_LEAST_HZ = 5.0
_FLOOR = 1e-4
"""No single answer rules a label out."""


class ClassifyAction(Node):
    """What each person does, after the pose branch of Luvizon et al. 2018: a small network looks at the last 1.6 s of 13 joints.

    Skeletons are brought to 15 Hz by their time stamps, so the cameras' rate does not matter (5 Hz at least). In every instant the network is asked once, about
    those whose last answer is older than the last tick of that clock, at most half of the people (who has waited longest); for the others it
    stands. Probabilities are smoothed over time by their logarithms. `label` is -1 where none reaches `threshold`;
    someone of whom too little has been seen yet has no answer at all. Who is lost for `forget_ms` begins anew, and so does everybody when time goes back.
    """

    use = "classify.action"

    class Settings(NodeSettings, frozen=True):
        engine: Annotated[str, Meta(description="network for actions: action.skeleton, or my_net/card.toml")] = "action.skeleton"
        threshold: Annotated[float, Meta(description="a label less probable than this is not given", ge=0, lt=1)] = 0.5
        smooth_ms: Annotated[float, Meta(description="time constant of the smoothing of probabilities; 0: none", ge=0, le=10_000)] = 300.0
        warm_ms: Annotated[
            float, Meta(description="so much of the last 1.6 s has to be seen for an answer, at least half of the joints", ge=100, le=1600)
        ] = 600.0
        forget_ms: Annotated[float, Meta(description="a person away for longer than this begins anew", ge=0)] = 1000.0

        def beside(self, folder: Path) -> Self:
            whole = str(folder / Path(self.engine).expanduser())
            return msgspec.structs.replace(self, engine=whole) if self.engine.endswith(".toml") else self

    settings: Settings
    runs_on = ""
    _network: ActionNetwork

    @classmethod
    def caps(cls, settings: Settings, inputs: Mapping[str, Caps]) -> Caps:
        given = inputs.get("poses", Caps())
        return Caps(cameras=given.cameras, frame_rate_hz=given.frame_rate_hz, actions=_card(settings).labels)

    @classmethod
    def check(cls, settings: Settings, inputs: Mapping[str, Caps]) -> None:
        _card(settings)
        poses = inputs.get("poses", Caps())
        if poses.skeleton:
            joints_in(skeleton(poses.skeleton))
        if 0 < poses.frame_rate_hz < _LEAST_HZ:
            what = f"skeletons come {poses.frame_rate_hz:g} times a second, and an action is not to be seen in that"
            raise GraphError(what, hint=f"cameras of {_LEAST_HZ:g} Hz or more")

    @classmethod
    def needs(cls, settings: Settings) -> tuple[str, ...]:
        return (settings.engine,)

    @classmethod
    def networks(cls, settings: Settings, rig: object) -> Mapping[str, Path]:
        return action_file(settings.engine)

    def open(self, ctx: Context) -> None:
        self._joints = joints_in(skeleton(ctx.caps["poses"].skeleton))
        self._network = ActionNetwork(self.settings.engine, engine_options(ctx), batch=_BATCH)
        engine = self._network.engine
        self.runs_on = f"{self.settings.engine} on {engine.runtime} {engine.precision} ({engine.device})"
        ctx.log.info("%s: %s", self.runs_on, engine.reason)
        self._windows = Windows(ticks=TICKS, forget_ns=int(self.settings.forget_ms * 1e6))
        self._log_p: F32 = np.zeros((0, len(self._network.labels)), np.float32)
        self._said_ns: I64 = np.zeros(0, np.int64)
        self._said_tick: I64 = np.zeros(0, np.int64)
        self._least = min(TICKS, round(self.settings.warm_ms / 1e3 * RATE_HZ))
        nobody = np.zeros((1, len(JOINTS), 3), np.float32)
        warm = Windows(forget_ns=0)  # compiles the kernels, or loads them
        warm.push([0], nobody, np.zeros((1, len(JOINTS)), np.bool_), 1)
        inputs(warm.xyz_m[:1], warm.seen[:1])

    def step(self, poses: Packet[Poses]) -> Actions:
        body, t_ns = poses.body, poses.t_capture_ns
        xyz_m = body.xyz_m[:, self._joints]
        seen = (body.conf[:, self._joints] > 0) & np.isfinite(xyz_m).all(axis=2)
        rows, new = self._windows.push(body.ids.tolist(), xyz_m, seen, t_ns)
        self._make_room(rows)
        self._said_ns[rows[new]] = 0
        windows_seen = self._windows.seen[rows]
        known = (windows_seen.sum(axis=2) >= _ENOUGH_JOINTS).sum(axis=1) >= self._least
        self._said_ns[rows[~known]] = 0
        waits = known & ((self._said_ns[rows] == 0) | (self._said_tick[rows] < self._windows.tick[rows]))
        if waits.any():
            waiting = rows[waits]
            longest = np.argsort(self._said_ns[waiting], kind="stable")[: -(-len(rows) // 2)]
            self._ask(waiting[longest], t_ns)
        there = self._said_ns[rows] > 0
        log_p = self._log_p[rows[there]]
        p = np.exp(log_p - log_p.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        label = np.where(p.max(axis=1, initial=0) >= self.settings.threshold, p.argmax(axis=1), -1).astype(np.int64)
        ids = body.ids[there]
        for array in (ids, label, p):
            readonly(array)
        return Actions(ids, label, p)

    def _ask(self, rows: I64, t_ns: int) -> None:
        """One call for these people, into the smoothed probabilities."""
        clips = inputs(self._windows.xyz_m[rows], self._windows.seen[rows])
        now = np.log(np.maximum(self._network(clips), _FLOOR))
        before_ns = self._said_ns[rows]
        if self.settings.smooth_ms > 0:
            share = -np.expm1(-np.maximum(t_ns - before_ns, 0) / (self.settings.smooth_ms * 1e6))
        else:
            share = np.ones(len(rows))
        share = np.where(before_ns > 0, share, 1.0)[:, None].astype(np.float32)
        self._log_p[rows] += share * (now - self._log_p[rows])
        self._said_ns[rows], self._said_tick[rows] = t_ns, self._windows.tick[rows]

    def _make_room(self, rows: I64) -> None:
        if (lacking := int(rows.max(initial=-1)) + 1 - len(self._said_ns)) > 0:
            self._log_p = np.concatenate([self._log_p, np.zeros((lacking, self._log_p.shape[1]), np.float32)])
            self._said_ns = np.concatenate([self._said_ns, np.zeros(lacking, np.int64)])
            self._said_tick = np.concatenate([self._said_tick, np.zeros(lacking, np.int64)])

    def close(self) -> None:
        if (network := getattr(self, "_network", None)) is not None:
            network.close()


def _card(settings: ClassifyAction.Settings) -> Asset:
    """The network's card; GraphError in words of the studio file."""
    try:
        return action_card(settings.engine)
    except (EngineError, PullError) as e:
        what = f"{e.where}: {e.what}" if e.where and e.where != settings.engine else e.what
        raise GraphError(f"engine is {settings.engine!r}: {what}", hint=e.hint) from e
