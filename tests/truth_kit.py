"""A truth without pictures: people who stand or walk in front of cameras in a ring, and a run that says what it is told to say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import people

from posepipe.calib import project
from posepipe.calib.evaluate import Run
from posepipe.calib.rig import Rig
from posepipe.calib.synthetic_truth import FORMAT, RIG, Person, Scene, Truth, write_truth
from posepipe.calib.toml import render
from posepipe.pipeline.skeleton import BLAZEPOSE33, BODY25, COCO17

Array = np.ndarray[Any, Any]
SIZE_PX = (1280, 960)


def coco17(x_m: float = 0.0, y_m: float = 0.0) -> Array:
    """A person [17,3] of the layout of the truth, upright."""
    whole = people.standing(x_m, y_m)
    return np.array([whole[BLAZEPOSE33.index(name)] for name in COCO17.joints])


def truth(*, frames: int = 12, crowd: int = 2, cameras: int = 3, fps: float = 25.0, skew_s: float = 0.0) -> Truth:
    """People side by side who walk at 1 m/s along y while waving with accelerating wrists. skew_s: every camera is so late."""
    rig, t_s = people.ring(cameras, width=SIZE_PX[0], height=SIZE_PX[1]), np.arange(frames) / fps
    taken_s = np.tile(t_s + skew_s, (cameras, 1))

    def at(moments_s: Array) -> Array:
        xyz = np.stack([np.stack([coco17(1.2 * p - 0.6 * (crowd - 1), 1.0 * t) for t in moments_s]) for p in range(crowd)])
        xyz[:, :, COCO17.index("left_wrist"), 2] += 0.5 * moments_s**2
        return xyz

    xyz, seen = at(t_s), [project(rig, at(t).reshape(-1, 3)) for t in taken_s]
    body = np.full((crowd, frames, 25, 3), np.nan)
    for name in set(BODY25.joints) & set(COCO17.joints):
        body[:, :, BODY25.index(name)] = xyz[:, :, COCO17.index(name)]
    return Truth(
        where="hall",
        scene=Scene(FORMAT, 1, fps, frames, SIZE_PX, rig.names, ("walk",), tuple(Person(p, [], {}, "walk", "walk") for p in range(crowd))),
        t_s=t_s,
        capture_t_s=taken_s,
        camera_from_world=np.repeat(rig.camera_from_world[:, None], frames, axis=1),
        coco17_m=xyz.astype(np.float32),
        body25_m=body.astype(np.float32),
        smpl24_m=np.zeros((crowd, frames, 24, 3), np.float32),
        root_m=np.zeros((crowd, frames, 3), np.float32),
        coco17_uv_px=np.stack(
            [s.uv_px[c].reshape(crowd, frames, 17, 2) for c, s in enumerate(seen)],
        ).astype(np.float32),
        coco17_visible=np.stack([s.visible[c].reshape(crowd, frames, 17) for c, s in enumerate(seen)]),
        action=np.zeros((crowd, frames), np.int16),
    )


def rig(truth: Truth) -> Rig:
    return people.ring(len(truth.cameras), width=SIZE_PX[0], height=SIZE_PX[1])


def run(told: Truth, *, start_ns: int = 1_700_000_000_000_000_000, speed: float = 1.0, **other: Any) -> Run:
    """A run that says the truth: identities 10, 11, ...; the skeletons of instant n stand in rows n * people ..."""
    crowd, frames = told.coco17_m.shape[:2]
    fields: dict[str, Any] = {
        "where": "run.jsonl",
        "skeleton": "coco17",
        "cameras": told.cameras,
        "seq": np.arange(frames),
        "t_ns": start_ns + np.round(told.t_s / speed * 1e9).astype(np.int64),
        "views": (tuple(range(len(told.cameras))),) * frames,
        "tier": ("algebraic",) * frames,
        "instant": np.repeat(np.arange(frames), crowd),
        "ids": np.tile(np.arange(crowd) + 10, frames),
        "xyz_m": told.coco17_m.transpose(1, 0, 2, 3).reshape(-1, 17, 3).astype(np.float64),
        "reproj_px": np.full(crowd * frames, 2.5),
    }
    return Run(**{**fields, **other})


def only(run: Run, instants: Array) -> Run:
    """The run with these instants (positions), as when the others were lost."""
    rows = np.isin(run.instant, instants)
    views, tier = tuple(run.views[n] for n in instants), tuple(run.tier[n] for n in instants)
    instant = np.searchsorted(instants, run.instant[rows])
    used = None if run.views_used is None else run.views_used[rows]
    kept = {"ids": run.ids[rows], "xyz_m": run.xyz_m[rows], "reproj_px": run.reproj_px[rows], "views_used": used}
    return replace(run, seq=run.seq[instants], t_ns=run.t_ns[instants], views=views, tier=tier, instant=instant, **kept)


def write(folder: Path, told: Truth) -> Path:
    """The folder of a synthetic recording, without its pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    write_truth(folder, told)
    (folder / RIG).write_text(render(rig(told)))
    return folder


def write_run(file: Path, run: Run) -> Path:
    """What record.jsonl writes of such a run."""
    head = {"v": 1, "studio": "hall", "skeleton": run.skeleton, "joints": COCO17.joints, "bones": COCO17.bones, "cameras": run.cameras}
    lines: list[dict[str, Any]] = [{**head, "graph_sha256": "0" * 64}]
    for n, seq in enumerate(run.seq.tolist()):
        rows = np.flatnonzero(run.instant == n).tolist()
        crowd = [
            {
                "id": int(run.ids[r]),
                "xyz_m": [None if np.isnan(joint).any() else joint.tolist() for joint in run.xyz_m[r]],
                "conf": [1.0] * 17,
                "sigma_m": [0.01] * 17,
                "reproj_px": float(run.reproj_px[r]),
                **({} if run.views_used is None else {"views": run.views_used[r].tolist()}),
            }
            for r in rows
        ]
        sync = {"skew_ns": 0, "views": run.views[n], "missing": []}
        lines.append({"seq": seq, "t_capture_ns": int(run.t_ns[n]), "sync": sync, "tier": run.tier[n], "people": crowd})
    file.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    return file
