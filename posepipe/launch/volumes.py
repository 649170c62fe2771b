"""Cubes for networks of joints in a cube that are verified: filled as in a studio, from the views of a recording, or from drawn people."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from posepipe.calib.body import load_body
from posepipe.calib.cube import cube_around
from posepipe.calib.formats import load_rig
from posepipe.calib.motion import Clip
from posepipe.calib.posebank import bank
from posepipe.calib.rig import Rig
from posepipe.calib.samples import Observed, Sampler, algebraic, random_rig, volume_of
from posepipe.calib.synthetic_motion import movements
from posepipe.engines.assets import Asset
from posepipe.engines.crop import Rois
from posepipe.engines.engine import EngineOptions
from posepipe.engines.footage import pictures
from posepipe.engines.network import PersonDetector, TopDown
from posepipe.engines.verify import SIDE_M
from posepipe.pipeline.errors import EngineError
from posepipe.pipeline.packet import F32, F64
from posepipe.pipeline.skeleton import COCO17

JOINTS, PEOPLE = "blazepose.full", "blazepose.detector"
"""The networks whose heatmaps fill the cubes of a recording, in ONNX Runtime fp32."""
_LEAST_PEAK = 0.02  # as lift.volumetric has it
_FEW = 2


def of_recording(recording: Asset, *, n: int, instants: int) -> F32:
    """Volumes [N,n,n,n,17] of the best person of every view, always the same ones: of every instant one of all views and one of two of them.

    The calibration is the recording's file that is no video. Raises PullError for a recording or a network that is not here; EngineError where there is no
    calibration, or nobody whom two views see.
    """
    if recording.kind != "recording":
        raise EngineError(f"{recording.name} is a network", hint="name a recording; `posepipe pull` lists them")
    calibrations = [recording.path(f.name) for f in recording.files if not f.name.endswith(".mp4")]
    if len(calibrations) != 1:
        what = f"there are {len(calibrations)} calibrations in this recording, so no cube can be filled from it"
        raise EngineError(what, where=recording.name, hint="name another; `posepipe pull` lists them")
    seen = list(_looked_at(recording, load_rig(calibrations[0]), instants))
    filled = [volume for one in seen for volume in (_filled(one, n), _filled(_of_two(one), n)) if volume is not None]
    if not filled:
        raise EngineError(f"nobody is seen by two views of {recording.name}", hint="name a recording of people; `posepipe pull` lists them")
    return np.stack(filled)


def drawn(*, n: int, count: int, seed: int = 0) -> F32:
    """Volumes [count,n,n,n,17] of people who walk, reach and squat, seen by four cameras or two of random rigs through a detector's errors; always the same."""
    clips = [Clip(m.name, m.fps, m.label, *(a.astype(np.float32) for a in m[3:])) for m in movements(seconds=4.0, fps=15.0)]
    rng = np.random.default_rng(seed)
    tracks = bank(clips, body=load_body(), shapes=2, seed=seed)
    sampler = Sampler(tracks, seed=seed, rigs=[random_rig(rng) for _ in range(20)], views={4: 0.5, _FEW: 0.5})
    filled: list[F32] = []
    while len(filled) < count:
        if (volume := _filled(sampler.draw(), n)) is not None:
            filled.append(volume)
    return np.stack(filled)


def _filled(seen: Observed, n: int) -> F32 | None:
    """As lift.volumetric fills the cube; None where it would not run the network."""
    points, exchanged = algebraic(seen)
    cube = cube_around(points.xyz_m[0], side_m=SIDE_M)
    volume = None if cube is None else volume_of(seen, cube, exchanged[0], n=n)
    return volume if volume is not None and volume.max() > _LEAST_PEAK else None


def _of_two(seen: Observed) -> Observed:
    """The same with the first two views that there are."""
    left_out = np.flatnonzero(np.isfinite(seen.rois[:, 2]))[_FEW:]
    rois, uv_px, conf = seen.rois.copy(), seen.uv_px.copy(), seen.conf.copy()
    rois[left_out], uv_px[left_out], conf[left_out] = np.nan, np.nan, 0
    return Observed(seen.rig, seen.truth_m, rois, seen.maps, uv_px, conf, seen.hidden, seen.clip)


def _looked_at(recording: Asset, rig: Rig, instants: int) -> Iterator[Observed]:
    """Every instant: key points and heatmaps of the best person of every camera, as heatmap.topdown has them while it searches."""
    cameras: dict[str, list[tuple[F32, F32, F32, F32]]] = {}
    options = EngineOptions(runtime="onnxruntime", precision="fp32")
    detector = PersonDetector(PEOPLE, options, batch=1)
    try:
        joints = TopDown(JOINTS, options, batch=1, maps=True)
        try:
            for frame in pictures(recording, instants=instants):
                found = detector.detect([frame])[0][:1]
                region = joints.regions.of_detections(found) if found else Rois.none(1)
                cameras.setdefault(frame.camera, []).append(joints.infer_maps([frame], region))
            columns = [joints.skeleton.index(name) for name in COCO17.joints]
        finally:
            joints.close()
    finally:
        detector.close()
    rig = rig.select(cameras)
    nowhere: F64 = np.full((len(COCO17.joints), 3), np.nan)
    hidden: NDArray[np.bool_] = np.zeros((len(rig), len(COCO17.joints)), np.bool_)
    for views in zip(*cameras.values(), strict=False):  # a camera may have a frame less
        uv_px, conf, maps, rois = (np.concatenate(one) for one in zip(*views, strict=True))
        yield Observed(rig, nowhere, rois.astype(np.float64), maps, uv_px[:, columns], conf[:, columns], hidden, recording.name)
