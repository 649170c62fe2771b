"""smooth.vibe: a network that knows bodies and how they move goes on from instant to instant, and gives joints, bones and what was not seen."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, Self

import msgspec
from msgspec import Meta

from posepipe.engines.smoother import SmootherNetwork, smoother_card, smoother_file
from posepipe.pipeline.errors import EngineError, GraphError, PullError
from posepipe.pipeline.node import Caps, Context, Node, NodeSettings
from posepipe.pipeline.packet import Packet, Poses
from posepipe.pipeline.skeleton import skeleton

from ._lift import engine_options
from ._vibe import MODEL, Memory, Observed, joints_in, observed

_PEOPLE = 4
_PERIOD_NS, _LONGEST_NS = 1_000_000_000 // 30, 500_000_000


class SmoothVibe(Node):
    """VIBE's idea (Kocabas et al. 2020) for skeletons in space: one recurrent step for all people of an instant gives joints and a body that move as
    bodies do. Joints that are not seen are where the network has them for `fill_ms`, with a confidence that falls to 0. A person whom nobody sees goes on as long; after that he is not given, and after `forget_ms` he is
    somebody new. An instant in which nobody was seen has the tier `held`; skeletons that come with it are not seen.

    Joints that coco17 does not have are handed on as they came. With `lookahead` every instant leaves so many instants later, and calmer.
    """

    use = "smooth.vibe"
    holds = True

    class Settings(NodeSettings, frozen=True):
        engine: Annotated[str, Meta(description="network that smooths: vibe.smooth, or my_net/card.toml")] = "vibe.smooth"
        lookahead: Annotated[int, Meta(description="instants that are waited for before one is answered", ge=0, le=8)] = 0
        fill_ms: Annotated[float, Meta(description="a joint unseen for less than this is given all the same, at most forget_ms", ge=0)] = (
            300.0
        )
        forget_ms: Annotated[
            float, Meta(description="a person unseen for longer is no longer followed, and begins anew (see reset)", gt=0, le=60_000)
        ] = 500.0
        reset: Annotated[
            Literal["gap", "never"],
            Meta(
                description="gap: who comes back after forget_ms begins anew; never: he goes on as the body that he was (for ten minutes). When time goes "
                "back everybody begins anew"
            ),
        ] = "gap"
        follow: Annotated[
            bool,
            Meta(
                description="stand where the cameras see the joints, and only move as the network says: nearer to the pictures and calmer"
            ),
        ] = False
        warm_up: Annotated[int, Meta(description="how often a person's first instant is taken before it is answered", ge=0, le=30)] = 6

        def beside(self, folder: Path) -> Self:
            whole = str(folder / Path(self.engine).expanduser())
            return msgspec.structs.replace(self, engine=whole) if self.engine.endswith(".toml") else self

    settings: Settings
    runs_on = ""

    @classmethod
    def caps(cls, settings: Settings, inputs: Mapping[str, Caps]) -> Caps:
        return replace(next(iter(inputs.values()), Caps()), body=MODEL)

    @classmethod
    def check(cls, settings: Settings, inputs: Mapping[str, Caps]) -> None:
        if settings.fill_ms > settings.forget_ms:
            what = f"fill_ms is {settings.fill_ms:g}, but a person is forgotten after forget_ms: {settings.forget_ms:g}"
            raise GraphError(what, hint="fill_ms at most forget_ms")
        if (poses := inputs.get("poses")) is not None and poses.skeleton:
            joints_in(skeleton(poses.skeleton))
        try:
            smoother_card(settings.engine)
        except (EngineError, PullError) as e:
            what = f"{e.where}: {e.what}" if e.where and e.where != settings.engine else e.what
            raise GraphError(f"engine is {settings.engine!r}: {what}", hint=e.hint) from e

    @classmethod
    def needs(cls, settings: Settings) -> tuple[str, ...]:
        return (settings.engine,)

    @classmethod
    def networks(cls, settings: Settings, rig: object) -> Mapping[str, Path]:
        return smoother_file(settings.engine)

    def open(self, ctx: Context) -> None:
        s, self._ctx = self.settings, ctx
        layout = skeleton(ctx.caps["poses"].skeleton)
        self._joints = joints_in(layout)
        self._network = SmootherNetwork(s.engine, engine_options(ctx), batch=_PEOPLE)
        spans = {"forget_ns": int(s.forget_ms * 1e6), "fill_ns": int(s.fill_ms * 1e6)}
        self._memory = Memory(self._network, self._joints, **spans, keep=s.reset == "never", warm_up=s.warm_up, follow=s.follow)
        self._memory.rehearse(layout)
        self._waiting: deque[tuple[Packet[Poses], Observed]] = deque()
        self._due: deque[Packet[Poses]] = deque()
        self._last_ns: int | None = None
        self._period_ns, self._arrived_ns = _PERIOD_NS, 0
        engine = self._network.engine
        self.runs_on = f"{s.engine} on {engine.runtime} {engine.precision} ({engine.device})"
        ctx.log.info("%s: %s", self.runs_on, engine.reason)

    def step(self, poses: Packet[Poses]) -> list[Packet[Poses]]:
        t_ns = poses.t_capture_ns
        self._arrived_ns = self._ctx.now_ns()
        if self._last_ns is not None:
            if t_ns <= self._last_ns:
                self._finish()
                self._memory.clear()
            elif t_ns - self._last_ns <= _LONGEST_NS:
                self._period_ns = t_ns - self._last_ns
        self._waiting.append((poses, observed(poses.body, self._joints, t_ns)))
        self._last_ns = t_ns
        while len(self._waiting) > self.settings.lookahead:
            self._answer()
        return self._leave()

    def wake_ns(self) -> int | None:
        """When instants stop coming, those that are held leave one instant after the one that they wait for should have come."""
        if self._ctx.offline or not (self._due or self._waiting):
            return None
        return 0 if self._due else self._arrived_ns + (self.settings.lookahead + 1) * self._period_ns

    def on_time(self, now_ns: int) -> list[Packet[Poses]]:
        if not self._due:
            self._finish()
        return self._leave()

    def on_end(self, source: str) -> list[Packet[Poses]]:
        self._finish()
        left = list(self._due)
        self._due.clear()
        return left

    def close(self) -> None:
        if (network := getattr(self, "_network", None)) is not None:
            network.close()

    def _finish(self) -> None:
        """Answer everything that waits, with what is known of it."""
        while self._waiting:
            self._answer()

    def _answer(self) -> None:
        packet = self._waiting[0][0]
        known = itertools.islice(self._waiting, self.settings.lookahead + 1)
        body = self._memory.answer(packet.body, [instant for _, instant in known])
        self._waiting.popleft()
        self._due.append(replace(packet, body=body))

    def _leave(self) -> list[Packet[Poses]]:
        """Live one at a time, since links keep only the newest; the others follow as soon as that one is on its way (`on_time`)."""
        count = len(self._due) if self._ctx.offline else min(len(self._due), 1)
        return [self._due.popleft() for _ in range(count)]
