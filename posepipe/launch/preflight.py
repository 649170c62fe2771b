"""What can be known before start: do the videos fit the rig and each other?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from posepipe.calib.rig import Rig
from posepipe.nodes._stream import StreamInfo
from posepipe.nodes._video import open_file
from posepipe.nodes.capture_video import CaptureVideo
from posepipe.pipeline.errors import SourceError
from posepipe.pipeline.graph import Plan
from posepipe.pipeline.runner import Running

_RATE_TOLERANCE = 0.01
_RATE_DRIFT = 0.0005


def probe_recordings(plan: Plan, resolve: Callable[[str], Path]) -> dict[str, StreamInfo]:
    """What the recordings of a plan say of themselves; cameras that are devices or streams, or on other hosts, are left
    out (and left alone)."""
    infos: dict[str, StreamInfo] = {}
    for node in plan.sources:
        s = node.settings
        if not node.host and isinstance(s, CaptureVideo.Settings) and "://" not in s.uri and not s.uri.startswith("/dev/"):
            camera = node.key or node.base
            try:
                video = open_file(s.uri, camera=camera, resolve=resolve, fps=s.fps, options=s.options)
            except SourceError as e:
                e.where = f"{plan.file.place(('nodes', node.base, 'each', node.key))}: {e.where}"
                raise
            infos[camera] = video.info
            video.close()
    return infos


def opened(runner: Running) -> dict[str, StreamInfo]:
    """The same of all cameras, once they are open."""
    return {camera: info for camera, info in runner.opened().items() if isinstance(info, StreamInfo)}


def purpose(plan: Plan) -> list[str]:
    """Warnings about a studio that runs and tells nobody."""
    if any(n.cls.publishes for n in plan.nodes):
        return []
    return ["nothing in this studio publishes, so every frame will be accounted as dropped; publish.zmq is what subscribers listen to"]


def begin_rounds_together(runner: Running) -> None:
    """Recordings that are looped start each round at the same moment, also when one is shorter than the others."""
    infos = opened(runner).values()
    runner.begin_rounds_together(max((i.frames / i.rate_hz for i in infos if i.frames and i.rate_hz), default=0.0))


def check(plan: Plan, rig: Rig | None, infos: Mapping[str, StreamInfo], *, recorded: bool = True) -> list[str]:
    """Warnings; RigError or SourceError for what cannot work."""
    if rig is not None and infos:  # streams say their size only once they are open
        rig.check_videos({name: (i.width, i.height) for name, i in infos.items()}, where=plan.file.name)
    if not recorded or len(infos) < 2:
        return []
    return _same_rate(plan, infos) + _frame_counts(infos)


def _same_rate(plan: Plan, infos: Mapping[str, StreamInfo]) -> list[str]:
    rates = {name: i.rate_hz for name, i in infos.items() if i.rate_hz > 0}
    if not rates:
        return []
    slow, fast = min(rates, key=lambda n: rates[n]), max(rates, key=lambda n: rates[n])
    if rates[fast] > rates[slow] * (1 + _RATE_TOLERANCE):
        raise SourceError(
            f"cameras of different rates: {fast} has {rates[fast]:g} frames/s, {slow} has {rates[slow]:g}",
            where=plan.file.place(("nodes", plan.sources[0].base)),
            hint=f"resample them to one rate: fps: {rates[slow]:g} in the capture node",
        )
    if rates[fast] <= rates[slow] * (1 + _RATE_DRIFT):
        return []
    drift_ms = 60_000 * (rates[fast] / rates[slow] - 1)
    return [
        f"cameras of slightly different rates: {fast} has {rates[fast]:g} frames/s, {slow} has {rates[slow]:g}: "
        f"they drift {drift_ms:.0f} ms apart in a minute if both count true time; fps: in the capture node puts them on one grid"
    ]


def _frame_counts(infos: Mapping[str, StreamInfo]) -> list[str]:
    counts = {name: i.frames for name, i in infos.items() if i.frames}
    if len(counts) < 2 or len(set(counts.values())) == 1:
        return []
    short, long = min(counts, key=lambda n: counts[n]), max(counts, key=lambda n: counts[n])
    return [
        f"cameras of different lengths: {short} has {counts[short]} frames, {long} has {counts[long]}; "
        f"the last {counts[long] - counts[short]} instants lack {short}. If they did not start together, cut them first."
    ]
