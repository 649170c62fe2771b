"""`posepipe run` and `posepipe bench`: everything between a studio file and its summary."""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import cv2

from posepipe.pipeline.errors import GraphError, PosepipeError, RunError
from posepipe.pipeline.graph import Plan
from posepipe.pipeline.runner import Runner, Running

from . import logs, preflight, spans, studio
from .cluster import RayCluster, hosts
from .nursery import can_fork
from .outpost import Brief
from .outside import watched
from .pulling import pull
from .reception import Reception
from .report import Machine, print_summary
from .report import summary as report
from .screen import LiveScreen, OfflineProgress
from .supervisor import Supervisor
from .truth import witness

_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Done:
    """How a run ended."""

    figures: dict[str, Any]
    interrupted: bool

    @property
    def within_budget(self) -> bool:
        return all(b["ok"] for b in self.figures["budgets"])


def run(
    path: Path,
    *,
    overrides: tuple[str, ...] = (),
    offline: bool = False,
    seconds: float | None = None,
    subscribers: int = 0,
    subscribers_within_s: float = 60.0,
    summary: Path | None = None,
    trace: Path | None = None,
    metrics: str | None = None,
    cluster: str | None = None,
    bench: bool = False,
    beside: Callable[[Supervisor], AbstractContextManager[object]] | None = None,
) -> Done:
    """Run a studio to its end, to `seconds`, or to Ctrl-C / SIGTERM. PosepipeError for what is refused or goes wrong.

    beside: entered when the studio is open, left after its end; only for live studios, where worker processes are.
    """
    if offline and seconds is not None:
        raise GraphError(
            "--offline and --seconds exclude each other", where="posepipe run", hint="--offline plays each recording once, to its end"
        )
    if offline and metrics:
        raise GraphError("--offline and --metrics exclude each other", where="posepipe run", hint="the endpoint shows a live studio")
    plan = studio.load(path, overrides=overrides)
    if not offline:
        _refuse_hosts_without_cluster(plan, cluster)
    elif cluster:
        raise GraphError("--offline and --cluster exclude each other", where="posepipe run", hint="offline, all runs here, in one process")
    spans.check(plan)
    if subscribers > 0 and not any(n.cls.publishes for n in plan.nodes):
        raise GraphError("nothing publishes, so no subscriber can connect", where=f"{path}: --await-subscribers", hint="add a publish.zmq")
    for file in (summary, trace):
        writable(file)
    absent = studio.missing(plan)
    if absent:
        pull(absent)
    whole = studio.complete(plan)
    truth = witness(whole)
    infos = preflight.probe_recordings(plan, whole.resolve)
    for warning in preflight.purpose(plan) + preflight.check(plan, whole.rig, infos):
        _warn(warning)
    if truth is not None and not offline and not bench:
        _warn("truth: is compared in offline runs; this run is live, so its summary says nothing of it (--offline)")
    cv2.setNumThreads(1)  # the cores belong to the decoders and the network
    traced, sends = bench or trace is not None, bool(plan.metrics.otlp) and not bench
    runner: Running
    if offline or not can_fork():
        if not offline:
            _warn("worker processes need Linux: this studio runs in one process, a fault in one node ends it, and it has no metrics")
        runner = Runner(plan, rig=whole.rig, resolve=whole.resolve, offline=offline, seconds=seconds, trace=traced, warn=_warn)
        if truth is not None and offline:
            truth.attend(runner)
    else:
        loud = logging.getLogger().isEnabledFor(logging.INFO)
        options: dict[str, Any] = {"seconds": seconds, "trace": traced or sends, "loud": loud}
        outposts = RayCluster(cluster, plan, Brief.of(plan, overrides=overrides, **options)) if cluster else None
        runner = Supervisor(plan, rig=whole.rig, resolve=whole.resolve, warn=_warn, outposts=outposts, **options)
    with contextlib.ExitStack() as around:
        around.enter_context(contextlib.closing(runner))
        asked = around.enter_context(_stopping(runner))
        if isinstance(runner, Supervisor) and not bench:
            around.enter_context(watched(runner, bind=metrics or plan.metrics.bind, keep_trace=traced))
        with _patience():
            runner.open()
        if isinstance(runner, Supervisor):
            around.enter_context(contextlib.closing(Reception(runner)))
        preflight.check(plan, whole.rig, preflight.opened(runner), recorded=False)
        preflight.begin_rounds_together(runner)
        if beside is not None and isinstance(runner, Supervisor):
            around.enter_context(beside(runner))
        _await_subscribers(runner, subscribers, subscribers_within_s)
        machine = Machine()
        if not runner.stopping:
            _live(runner, plan, offline=offline, total=max((i.frames for i in infos.values() if i.frames), default=None))
        figures = report(runner, machine=machine)
    try:
        if truth is not None and offline:
            figures["truth"] = truth.figures()
    finally:
        print_summary(figures)
        _write(summary, figures)
    if trace is not None and runner.trace is not None:
        _write(trace, runner.trace.chrome())
    return Done(figures, bool(asked))


def _refuse_hosts_without_cluster(plan: Plan, cluster: str | None) -> None:
    named = hosts(plan)
    if cluster is None and named:
        host, place = next(iter(named.items()))
        hint = "posepipe run STUDIO --cluster ADDRESS (docs/cluster.md); or --cluster local: every host is this machine"
        raise GraphError(f"it belongs on host {host!r}, and this run has no cluster", where=place, hint=hint)
    if cluster is not None and not can_fork():
        raise GraphError("--cluster needs Linux on this machine", where="posepipe run", hint="start the studio from a Linux machine")


def _live(runner: Running, plan: Plan, *, offline: bool, total: int | None) -> None:
    with OfflineProgress(runner, total=total) if offline else LiveScreen(runner):
        gc.collect()
        gc.freeze()  # what was loaded so far stays: the collector need not walk it between two frames
        runner.start()
        while runner.running:
            time.sleep(_POLL_S)
        runner.finish()


@contextlib.contextmanager
def _patience() -> Iterator[None]:
    """Say what takes so long, when opening does."""
    text = "opening the studio; the first time on a machine, numeric kernels are compiled for its processor (some 15 s)"
    timer = threading.Timer(2.0, lambda: logs.say(text))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextlib.contextmanager
def _stopping(runner: Running) -> Iterator[list[int]]:
    """Ctrl-C and SIGTERM stop the studio in order; the second Ctrl-C interrupts at once. Yields the signals that came."""
    came: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        if came:
            raise KeyboardInterrupt
        came.append(number)
        runner.stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _await_subscribers(runner: Running, count: int, within_s: float) -> None:
    if count <= 0:
        return
    until = time.monotonic() + within_s
    logs.say(f"waiting for {count} subscriber{'s' if count > 1 else ''} (at most {within_s:.0f} s)", prefix="")
    while not runner.stopping:
        there = runner.subscribers()
        if there >= count:
            return
        if time.monotonic() > until:
            hint = "start the subscriber, connect it to the address of publish.zmq, or wait longer with --await-seconds"
            raise RunError(f"{there} of {count} subscribers after {within_s:.0f} s", where="--await-subscribers", hint=hint)
        time.sleep(_POLL_S)


def _warn(text: str) -> None:
    logs.say(text, level=logging.WARNING, prefix="posepipe: warning: ")


def writable(file: Path | None) -> None:
    """A summary that cannot be written is refused before the run, not after it."""
    if file is None:
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        there = file.exists()
        file.open("a").close()
        if not there:
            file.unlink()  # a run that is refused leaves no empty summary behind
    except OSError as e:
        raise PosepipeError(f"cannot be written: {e.strerror}", where=str(file), hint="choose another path") from None


def _write(file: Path | None, value: dict[str, Any]) -> None:
    if file is None:
        return
    try:
        file.write_text(json.dumps(value, indent=2) + "\n")
    except OSError as e:
        raise RunError(f"cannot be written: {e.strerror}", where=str(file), hint="free some space, or choose another path") from None
