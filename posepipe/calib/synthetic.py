"""The synthetic studio: a scene by seed, and its rendering into videos with the truth beside them. Described in docs/synthetic.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from posepipe.pipeline.errors import RigError, SourceError, did_you_mean
from posepipe.pipeline.packet import F64

from . import motion
from .body import load_body
from .formats import load_rig
from .motion import Clip
from .rig import ImageTransform, Rig
from .synthetic_mesh import MATS, WOOD, Solid, box, column, floor_and_walls
from .synthetic_motion import movements
from .synthetic_people import Actor, cut, dressed, placed
from .synthetic_rig import capture_times, middle, random_rig, shaken

_FREE_M = 1.3
_WALL_M = 0.8
_SLACK_S = 0.5
_TRIES = 200
_CLEAR_M = 0.28


@dataclass(frozen=True, slots=True)
class Options:
    """What a scene is made of; the command line has the same names. size_px is of random rigs; a given rig has its cameras' own."""

    seed: int = 1
    cameras: int = 4
    rig: Path | None = None
    people: int = 1
    seconds: float = 4.0
    fps: float = 30.0
    size_px: tuple[int, int] = (1280, 720)
    motion: Path | None = None
    clips: tuple[str, ...] = ()
    furniture: int = 3
    shake_mm: float = 0.0
    drift_ppm: float = 0.0
    exposure_ev: float = 0.0
    noise: float = 1.0

    @property
    def frames(self) -> int:
        return max(1, round(self.seconds * self.fps))


@dataclass(frozen=True, slots=True, eq=False)
class Studio:
    """A scene: everything that a rendering needs, all from the options. capture_t_s [C,T]; camera_from_world [C,T,3,4] where the cameras
    really are; exposure [C]: factor on linear light; sun: unit vector towards it."""

    options: Options
    rig: Rig
    actors: tuple[Actor, ...]
    room: tuple[Solid, ...]
    sun: F64
    t_s: F64
    capture_t_s: F64
    camera_from_world: F64
    exposure: F64

    @property
    def labels(self) -> tuple[str, ...]:
        """The actions of the people, in the order of the alphabet."""
        return tuple(sorted({actor.clip.label for actor in self.actors}))


def studio(options: Options) -> Studio:
    """The scene of a seed.

    Each part draws from a chance of its own, so that one more piece of furniture leaves the people as they were. Raises what reading a rig
    or motion raises, and SourceError for clips that are not there.
    """
    chance = dict(zip(("rig", "people", "room", "light", "clocks", "shake"), np.random.SeedSequence(options.seed).spawn(6), strict=True))
    rng = {name: np.random.default_rng(seed) for name, seed in chance.items()}
    rig = _rig(options, rng["rig"])
    centre = middle(rig)
    t_s = np.arange(options.frames) / options.fps
    actors = _people(options, rng["people"], t_s, centre)
    azimuth, height = rng["light"].uniform(0, 2 * np.pi), rng["light"].uniform(0.8, 1.25)
    return Studio(
        options=options,
        rig=rig,
        actors=actors,
        room=_room(options, rng["room"], rig, actors, t_s, centre),
        sun=np.array([np.cos(azimuth) * np.cos(height), np.sin(azimuth) * np.cos(height), np.sin(height)]),
        t_s=t_s,
        capture_t_s=capture_times(rng["clocks"], len(rig), options.frames, options.fps, options.drift_ppm),
        camera_from_world=shaken(rng["shake"], rig, options.frames, options.shake_mm),
        exposure=2.0 ** rng["light"].uniform(-options.exposure_ev, options.exposure_ev, len(rig)),
    )


def _rig(options: Options, rng: np.random.Generator) -> Rig:
    if options.rig is None:
        rig = random_rig(rng, options.cameras, options.size_px)
    else:
        given = load_rig(options.rig)
        rig = given.with_image({name: ImageTransform() for name in given.names})  # the videos are drawn as the calibration saw them
    for camera in rig.cameras:
        if camera.width_px % 2 or camera.height_px % 2:
            raise RigError(
                f"camera {camera.name!r}: pictures of {camera.width_px}x{camera.height_px}",
                where=rig.where,
                hint="H.264 films have even widths and heights",
            )
        if "/" in camera.name or camera.name.startswith("."):
            raise RigError(f"camera {camera.name!r} cannot name a file", where=rig.where, hint="rename the camera in the calibration")
    return rig


def _clips(options: Options) -> Mapping[str, Clip]:
    if options.motion is not None:
        clips: Mapping[str, Clip] = motion.read_motion(options.motion)
    else:
        made = movements(seconds=options.seconds + 2 * _SLACK_S)
        clips = {
            m.name: Clip(m.name, m.fps, m.label, *(np.asarray(a, np.float32) for a in (m.joints24_m, m.segment_quat_xyzw, m.root_m)))
            for m in made
        }
    for name in options.clips:
        if name not in clips:
            raise SourceError(
                f"there is no clip {name!r}", where=str(options.motion or "the built-in motion"), hint=did_you_mean(name, clips)
            )
    return clips


def _people(options: Options, rng: np.random.Generator, t_s: F64, centre: F64) -> tuple[Actor, ...]:
    if not options.people:
        return ()
    clips = _clips(options)
    names = sorted(options.clips or clips)
    if not options.clips:
        names = _suited(clips, names, options.seconds + _SLACK_S, 2 * _FREE_M) or names
    body = load_body()
    order = list(rng.permutation(len(names)))
    actors: list[Actor] = []
    for k in range(options.people):
        clip = clips[options.clips[k % len(options.clips)] if options.clips else names[order[k % len(order)]]]
        wanted = int(np.ceil((options.seconds + _SLACK_S) * clip.fps)) + 2
        spare = len(clip.joints24_m) - wanted
        clip = cut(clip, int(rng.integers(0, spare + 1)) if spare > 0 else 0, wanted)
        shape = np.asarray(body.draw(rng), np.float64)
        posed = motion.retarget(clip, body, shape)
        mesh, colours = dressed(rng, k, body, posed)
        actor = Actor(k, clip, posed, shape, 0.0, np.zeros(2), mesh, body.welded, colours)
        actors.append(placed(rng, actors, actor, t_s, middle_m=centre, free_m=_FREE_M))
    return tuple(actors)


def _suited(clips: Mapping[str, Clip], names: Sequence[str], seconds: float, extent_m: float) -> list[str]:
    """Clips that last long enough and stay where the cameras look."""

    def fits(clip: Clip) -> bool:
        path = clip.joints24_m[:, 0, :2]
        return len(path) >= seconds * clip.fps and float(np.linalg.norm(np.ptp(path, axis=0))) <= extent_m

    return [name for name in names if fits(clips[name])]


def _room(options: Options, rng: np.random.Generator, rig: Rig, actors: Sequence[Actor], t_s: F64, centre: F64) -> tuple[Solid, ...]:
    eyes = np.stack([c.centre_m for c in rig.cameras])
    half = float(np.abs(eyes[:, :2]).max()) + _WALL_M
    height = max(3.2, float(eyes[:, 2].max()) + 0.4)
    floor = rng.uniform(0.7, 1.1) * (np.array([0.42, 0.25, 0.13]) if rng.random() < 0.6 else rng.uniform(0.15, 0.5, 3))
    walls = 0.45 + 0.3 * rng.random(3)
    kind = WOOD if rng.random() < 0.6 else MATS
    solids = list(floor_and_walls(half, height, floor=floor, walls=walls, kind=kind))
    people = [actor.joints_m("coco17", t_s)[..., :2].reshape(-1, 2) for actor in actors]
    taken = np.concatenate([*people, np.empty((0, 2))])
    taken = taken[np.isfinite(taken[:, 0])]
    for _ in range(options.furniture):
        piece = _furniture(rng, taken, eyes, centre, half)
        if piece is not None:
            solids.append(piece)
    return tuple(solids)


def _furniture(rng: np.random.Generator, taken: F64, eyes: F64, centre: F64, half_m: float) -> Solid | None:
    """A box or a column around the people, where nobody and no camera stands; None when there is no such place."""
    for _ in range(_TRIES):
        angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(0.9, 2.4)
        at = centre[:2] + distance * np.array([np.cos(angle), np.sin(angle)])
        is_box, colour = rng.random() < 0.7, rng.uniform(0.05, 0.7, 3)
        size = np.array([*rng.uniform(0.3, 0.9, 2), rng.uniform(0.35, 1.1)])
        radius, tall, yaw = rng.uniform(0.08, 0.18), rng.uniform(2.0, 3.0), rng.uniform(0, np.pi)
        reach = float(np.hypot(*size[:2])) / 2 if is_box else radius
        nobody = not len(taken) or float(np.linalg.norm(taken - at, axis=1).min()) > reach + _CLEAR_M
        unseen = float(np.linalg.norm(eyes[:, :2] - at, axis=1).min()) > reach + 0.5
        if nobody and unseen and np.abs(at).max() + reach < half_m:
            if is_box:
                return box(at, size, yaw, colour)
            return column(at, radius, tall, colour)
    return None
