"""The vocabulary of studio files. Node types are imported when a studio names them; packages add their own under `posepipe.nodes`.

A package that wants to add node types declares entry points of the group `posepipe.nodes`: `demo.scale = "my_package:Scale"`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.metadata import entry_points

from posepipe.pipeline.errors import GraphError
from posepipe.pipeline.node import Node

_BUILT_IN = {
    "capture.video": "posepipe.nodes.capture_video:CaptureVideo",
    "sync.instant": "posepipe.nodes.sync_instant:SyncInstant",
    "classify.action": "posepipe.nodes.classify_action:ClassifyAction",
    "heatmap.paf": "posepipe.nodes.heatmap_paf:HeatmapPaf",
    "heatmap.topdown": "posepipe.nodes.heatmap_topdown:HeatmapTopdown",
    "lift.algebraic": "posepipe.nodes.lift_algebraic:LiftAlgebraic",
    "lift.auto": "posepipe.nodes.lift_auto:LiftAuto",
    "lift.baseline": "posepipe.nodes.lift_baseline:LiftBaseline",
    "lift.volumetric": "posepipe.nodes.lift_volumetric:LiftVolumetric",
    "smooth.butterworth": "posepipe.nodes.smooth_butterworth:SmoothButterworth",
    "smooth.kalman": "posepipe.nodes.smooth_kalman:SmoothKalman",
    "smooth.one_euro": "posepipe.nodes.smooth_one_euro:SmoothOneEuro",
    "smooth.savgol": "posepipe.nodes.smooth_savgol:SmoothSavgol",
    "smooth.vibe": "posepipe.nodes.smooth_vibe:SmoothVibe",
    "publish.zmq": "posepipe.nodes.publish_zmq:PublishZmq",
    "record.jsonl": "posepipe.nodes.record_jsonl:RecordJsonl",
    "view.mosaic": "posepipe.nodes.view_mosaic:ViewMosaic",
}


class Catalogue(Mapping[str, type[Node]]):
    """Node types by the name that `use:` takes."""

    def __init__(self) -> None:
        self._where = {**{e.name: e.value for e in entry_points(group="posepipe.nodes")}, **_BUILT_IN}
        self._loaded: dict[str, type[Node]] = {}

    def __getitem__(self, use: str) -> type[Node]:
        if use not in self._loaded:
            module, _, name = self._where[use].partition(":")
            try:
                cls = getattr(import_module(module), name)
            except (ImportError, AttributeError) as e:
                raise GraphError(
                    f"node type {use!r} cannot be loaded from {self._where[use]}: {e}", hint="reinstall the package that provides it"
                ) from e
            self._loaded[use] = cls
        return self._loaded[use]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._where))

    def __len__(self) -> int:
        return len(self._where)

    def __contains__(self, use: object) -> bool:
        return use in self._where
