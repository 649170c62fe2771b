"""How steady and how consistent published skeletons are, where there is no truth to compare with.

    python tests/bench/accuracy.py RUN.jsonl                              a recording of record.jsonl
    python tests/bench/accuracy.py --studio examples/algebraic.yaml [--set nodes.capture.speed=1]     a studio, run offline here
    --json FILE writes the figures

Of the person published most often: instants, mean limb lengths and their variation (std / mean), median acceleration of the body
joints (second difference of consecutive instants, mm per frame^2). With --studio also the 2D side, from the key points and the
settings that the studio's lift node has: median reprojection error over body joints and used views (raw points, before smoothing),
the same without each camera's median offset (the 2D's part, not the calibration's), both for the skeletons that are given, too, views used, views exchanged, and the error
in a camera that was held out: triangulated from the others, seen by it (median offset per joint and camera removed).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from posepipe.calib import Rig, facing_of, limbs_of, mirror_of, project, triangulate_sides, undistort
from posepipe.pipeline.packet import Packet, Poses, ViewPoses
from posepipe.pipeline.skeleton import BLAZEPOSE33, COCO17, SKELETONS, Skeleton

_NAMES = ("thigh", "shin", "upper_arm", "forearm")
_WELL_SEEN = 0.6
_SETTLE = 15


@dataclass(slots=True)
class Track:
    """One person over the instants [N] in which it was published: xyz_m [N,J,3] (NaN: not seen)."""

    skeleton: Skeleton
    seq: np.ndarray
    xyz_m: np.ndarray
    reproj_px: np.ndarray
    instants: int
    people: int
    views: list[ViewPoses] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)


def steadiness(track: Track) -> dict[str, Any]:
    """The figures that need nothing but skeletons."""
    xyz, body = track.xyz_m, np.array(track.skeleton.body)
    limbs = limbs_of(track.skeleton)
    length = np.linalg.norm(xyz[:, limbs[:, 1]] - xyz[:, limbs[:, 0]], axis=-1)
    mean, std = np.nanmean(length, axis=0), np.nanstd(length, axis=0)
    in_a_row = (np.diff(track.seq)[1:] == 1) & (np.diff(track.seq)[:-1] == 1)
    second = np.linalg.norm(xyz[2:] - 2 * xyz[1:-1] + xyz[:-2], axis=-1)[in_a_row][:, body]
    return {
        "instants": track.instants,
        "published": len(xyz),
        "people": track.people,
        "body_joints_seen": float(np.isfinite(xyz[:, body, 0]).mean()),
        "limb_mm": {n: (mean[2 * k : 2 * k + 2] * 1e3).tolist() for k, n in enumerate(_NAMES)},
        "limb_variation_percent": {n: (std / mean * 100)[2 * k : 2 * k + 2].tolist() for k, n in enumerate(_NAMES)},
        "acceleration_mm_per_frame2": float(np.nanmedian(second) * 1e3) if np.isfinite(second).any() else None,
        "reproj_px_published": float(np.nanmedian(track.reproj_px)),
    }


def consistency(track: Track, rig: Rig, settings: Any) -> dict[str, Any]:
    """The figures that need the key points: raw points against the 2D of all cameras, and of a camera held out."""
    body = np.array(track.skeleton.body)
    uv = np.stack([v.uv_px[row] for v, row in zip(track.views, track.rows, strict=True)]).astype(np.float64)
    conf = np.stack([v.conf[row] for v, row in zip(track.views, track.rows, strict=True)]).astype(np.float64)
    side = np.maximum(np.stack([v.side_px[row] for v, row in zip(track.views, track.rows, strict=True)]).astype(np.float64), 1)
    conf = np.where(conf >= settings.min_conf, conf, 0.0)
    mirror = mirror_of(track.skeleton)
    limits = {"mirror": mirror, "facing": facing_of(track.skeleton), "inlier_px": settings.inlier * side, "sigma_px": settings.sigma * side}
    points, exchanged = triangulate_sides(rig, undistort(rig, uv), conf, **limits)
    uv, conf = np.where(exchanged[..., None], uv[:, :, mirror], uv), np.where(exchanged, conf[:, :, mirror], conf)
    off = np.where(points.used[..., None], uv - _projected(rig, points.xyz_m), np.nan)[:, :, body]
    camera_offset = np.nanmedian(off, axis=(0, 2))
    given = np.where(points.used[..., None], uv - _projected(rig, track.xyz_m), np.nan)[:, :, body]
    held = []
    for c in range(len(rig)):
        others = conf.copy()
        others[:, c] = 0
        xyz = triangulate_sides(rig, undistort(rig, uv), others, **limits)[0].xyz_m
        error = np.where(conf[:, c, :, None] >= _WELL_SEEN, uv[:, c] - _projected(rig, xyz)[:, c], np.nan)[_SETTLE:, body]
        if np.isfinite(error).any():
            held.append(np.linalg.norm(error - np.nanmedian(error, axis=0), axis=-1).ravel())
    error = np.concatenate(held) if held else np.full(1, np.nan)
    return {
        "reproj_px": float(np.nanmedian(np.linalg.norm(off, axis=-1))),
        "reproj_px_given": float(np.nanmedian(np.linalg.norm(given, axis=-1))),
        "reproj_px_given_without_camera_offsets": float(np.nanmedian(np.linalg.norm(given - camera_offset[None, :, None], axis=-1))),
        "reproj_px_without_camera_offsets": float(np.nanmedian(np.linalg.norm(off - camera_offset[None, :, None], axis=-1))),
        "camera_offset_px": dict(zip(rig.names, camera_offset.round(1).tolist(), strict=True)),
        "views_used": float(points.used[:, :, body].sum(axis=1).mean()),
        "views_exchanged_percent": dict(zip(rig.names, (exchanged.any(axis=2).mean(axis=0) * 100).round(1).tolist(), strict=True)),
        "held_out_px": {"median": float(np.nanmedian(error)), "p90": float(np.nanpercentile(error, 90))},
    }


def _projected(rig: Rig, xyz_m: np.ndarray) -> np.ndarray:
    count, joints, _ = xyz_m.shape
    uv = project(rig, np.nan_to_num(xyz_m, nan=1e6).reshape(-1, 3)).uv_px.reshape(len(rig), count, joints, 2).transpose(1, 0, 2, 3)
    return np.where(np.isfinite(xyz_m)[:, None, :, :1], uv, np.nan)


def from_recording(path: Path) -> Track:
    """The person published most often in a file of record.jsonl; lines without people (a header too) count as they are."""
    lines = [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]
    layout = SKELETONS[next((line["skeleton"] for line in lines if "skeleton" in line), BLAZEPOSE33.name)]
    instants = [line for line in lines if "seq" in line]
    seen = Counter(p["id"] for line in instants for p in line["people"])
    if not seen:
        raise SystemExit(f"{path}: no people in {len(instants)} instants")
    one = seen.most_common(1)[0][0]
    rows = [(line["seq"], p) for line in instants for p in line["people"] if p["id"] == one]
    missing = [None] * 3
    xyz = np.array([[[np.nan if v is None else v for v in (joint or missing)] for joint in p["xyz_m"]] for _, p in rows])
    reproj = np.array([np.nan if p["reproj_px"] is None else p["reproj_px"] for _, p in rows])
    return Track(layout, np.array([seq for seq, _ in rows]), xyz, reproj, len(instants), len(seen))


def views_of_studio(path: Path) -> tuple[Rig, list[tuple[np.ndarray, ...]]]:
    """Run a studio offline as far as its key points. Per instant, of one person, for coco17: rois [C,4], maps [C,h,w,17], uv_px [C,17,2],
    conf [C,17]."""
    from posepipe.launch import studio
    from posepipe.pipeline.runner import Runner

    (lift,) = (name for name, node in yaml.safe_load(path.read_text())["nodes"].items() if node["use"].startswith("lift."))
    overrides = (f"nodes.{lift}.use=lift.volumetric", f"nodes.{lift}.engine=stub")
    whole = studio.complete(studio.load(path, overrides=overrides))
    views: dict[int, ViewPoses] = {}
    runner = Runner(whole.plan, rig=whole.rig, resolve=whole.resolve, offline=True)
    with contextlib.closing(runner):
        runner.open()
        _listen(runner.slots[lift].node, views, None)
        runner.start()
        runner.finish(timeout_s=600.0)
    if whole.rig is None:
        raise SystemExit(f"{path}: a studio without a rig")
    out = []
    for seq in sorted(views):
        v = views[seq]
        if not len(v.ids) or v.maps is None or v.rois is None:
            continue
        at = [SKELETONS[v.skeleton].index(joint) for joint in COCO17.joints]
        out.append((v.rois[0].astype(np.float64), v.maps[0], v.uv_px[0][:, at], v.conf[0][:, at]))
    return whole.rig, out


def from_studio(path: Path, overrides: tuple[str, ...]) -> tuple[Track, Rig, Any]:
    """Run a studio offline and listen to what its lift node gets and what its smoother (else the lift node) gives."""
    from posepipe.launch import studio
    from posepipe.pipeline.runner import Runner

    if "POSEPIPE_PORT" not in os.environ:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            os.environ["POSEPIPE_PORT"] = str(s.getsockname()[1])
    whole = studio.complete(studio.load(path, overrides=overrides))
    uses = {node.cls.use: node.name for node in whole.plan.nodes}
    views: dict[int, ViewPoses] = {}
    poses: dict[int, Poses] = {}
    runner = Runner(whole.plan, rig=whole.rig, resolve=whole.resolve, offline=True)
    with contextlib.closing(runner):
        runner.open()
        lifts = next(name for use, name in uses.items() if use.startswith("lift."))
        lift = runner.slots[lifts].node
        last = runner.slots[next((name for use, name in uses.items() if use.startswith("smooth.")), lifts)].node
        _listen(lift, views, None)
        _listen(last, None, poses)
        runner.start()
        runner.finish(timeout_s=600.0)  # all of the recording is under way: a slow network takes its time
    seen = Counter(int(i) for p in poses.values() for i in p.ids)
    if not seen or whole.rig is None:
        raise SystemExit(f"{path}: nobody was seen in {len(poses)} instants")
    one = seen.most_common(1)[0][0]
    at = [(seq, int(np.flatnonzero(p.ids == one)[0])) for seq, p in sorted(poses.items()) if (p.ids == one).any()]
    xyz = np.stack([np.where(poses[s].conf[row, :, None] > 0, poses[s].xyz_m[row], np.nan) for s, row in at]).astype(np.float64)
    reproj = np.array([poses[s].reproj_px[row] for s, row in at])
    layout = SKELETONS[poses[at[0][0]].skeleton]
    seqs = np.array([s for s, _ in at])
    track = Track(layout, seqs, xyz, reproj, len(poses), len(seen), [views[s] for s, _ in at], [_row(views[s], one) for s, _ in at])
    return track, whole.rig, lift.settings


def _row(views: ViewPoses, person: int) -> int:
    """Where a person's key points are; they had no identity yet when the person was new."""
    known = np.flatnonzero(views.ids == person)
    return int(known[0] if len(known) else np.flatnonzero(views.ids < 0)[0])


def _listen(node: Any, inputs: dict[int, Any] | None, outputs: dict[int, Any] | None) -> None:
    step = node.step

    def heard(**packets: Packet[Any]) -> Any:
        result = step(**packets)
        (packet,) = packets.values()
        if inputs is not None:
            inputs[packet.seq] = packet.body
        if outputs is not None and result is not None:
            outputs.update({p.seq: p.body for p in result} if isinstance(result, list) else {packet.seq: result})
        return result

    node.step = heard


def show(figures: dict[str, Any]) -> None:
    print(
        f"{figures['published']} of {figures['instants']} instants, {figures['people']} people, body joints seen {figures['body_joints_seen']:.1%}"
    )
    print(f"{'':12s}{'length mm':>16s}{'variation %':>16s}     (left / right)")
    for name in _NAMES:
        (a, b), (u, v) = figures["limb_mm"][name], figures["limb_variation_percent"][name]
        print(f"{name:12s}{a:8.0f} {b:7.0f}{u:9.1f} {v:6.1f}")
    acceleration = figures["acceleration_mm_per_frame2"]
    print(
        f"acceleration {'unknown' if acceleration is None else f'{acceleration:.2f}'} mm/frame^2, reprojection as published {figures['reproj_px_published']:.1f} px"
    )
    if "reproj_px" in figures:
        held = figures["held_out_px"]
        print(
            f"body joints, raw: reprojection {figures['reproj_px']:.1f} px over {figures['views_used']:.2f} views, "
            f"{figures['reproj_px_without_camera_offsets']:.1f} px without camera offsets {figures['camera_offset_px']}"
        )
        print(
            f"as given, reprojection {figures['reproj_px_given']:.1f} px, {figures['reproj_px_given_without_camera_offsets']:.1f} px without those offsets"
        )
        print(f"held-out camera {held['median']:.1f} px (p90 {held['p90']:.1f}); views exchanged, %: {figures['views_exchanged_percent']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recording", nargs="?", type=Path)
    parser.add_argument("--studio", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a value of the studio file")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if (args.recording is None) == (args.studio is None):
        parser.error("give a recording or --studio")
    if args.studio:
        track, rig, settings = from_studio(args.studio, tuple(args.set))
        figures = steadiness(track) | consistency(track, rig, settings)
    else:
        figures = steadiness(from_recording(args.recording))
    show(figures)
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
