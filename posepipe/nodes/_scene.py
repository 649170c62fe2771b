"""People and cameras in space, painted: a perspective view that follows the people, and a map of the studio seen from above."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

import cv2
import numpy as np

from posepipe.calib.rig import Rig
from posepipe.pipeline.packet import F64, U8, Poses
from posepipe.pipeline.skeleton import Skeleton

from ._canvas import (
    AMBER,
    BACKGROUND,
    BRIGHT,
    DIM,
    FAINT,
    GREEN,
    PANEL,
    SIDES,
    Colour,
    Rect,
    above,
    caption,
    paint_skeleton,
    segments,
    text,
)

_SHOWN_M = 2.9
"""Least height of the picture at the people, in metres; it grows with the room that they take."""
_FOLLOW = 0.08
_MIDDLE = 0.58
"""Where in the width the people stand: clear of the map in the lower left corner."""
_FIELD = math.radians(30)
_RAISED = math.radians(16)
_SWAY, _SWAY_S = math.radians(14), 24.0
"""The view swings slowly around the people: what moves against each other is seen as deep."""
_NEAR_M = 0.3
_FLOOR_M = 5
_TRAIL = 150
_FRUSTUM_M = 0.35
_SIGMA_LARGEST_PX = 30.0


class Scene:
    """Keeps what the view remembers: where people walked, and where it looks."""

    def __init__(self, rig: Rig | None) -> None:
        self._rig = rig
        self._trails: dict[int, deque[F64]] = {}
        self._target = np.array([0.0, 0.0, 0.95])
        self._shown_m = _SHOWN_M
        self._found = False
        self._frustums = _frustums(rig) if rig is not None else np.zeros((0, 8, 2, 3))
        self._centres = np.array([c.centre_m for c in rig.cameras]) if rig is not None else np.zeros((0, 3))

    def remember(self, poses: Poses, layout: Skeleton) -> None:
        """Take in one instant: trails grow, the view's target follows softly."""
        for person, point in zip(poses.ids.tolist(), _pelvis(poses, layout), strict=True):
            if np.isfinite(point).all():
                self._trails.setdefault(person, deque(maxlen=_TRAIL)).append(point)
        for person in [p for p in self._trails if p not in poses.ids]:
            self._trails[person].popleft()
            if not self._trails[person]:
                del self._trails[person]
        if self._trails:
            places = np.array([trail[-1][:2] for trail in self._trails.values()])
            middle = places.mean(axis=0)
            goal = np.array([middle[0], middle[1], 0.95])
            shown_m = max(_SHOWN_M, 1.8 + 2.5 * float(np.linalg.norm(places - middle, axis=1).max()))
            share = _FOLLOW if self._found else 1.0
            self._target += (goal - self._target) * share
            self._shown_m += (shown_m - self._shown_m) * share
            self._found = True

    @staticmethod
    def backdrop(image: U8) -> None:
        """What never changes."""
        image[:] = np.linspace(PANEL, BACKGROUND, len(image))[:, None].astype(np.uint8)

    # perspective ------------------------------------------------------------------------------------------------------------

    def paint(self, image: U8, poses: Poses, layout: Skeleton, words: Sequence[str], *, t_s: float) -> None:
        """The perspective view, onto a backdrop. words [P]: said over everybody's head; t_s: studio time, which turns the view."""
        height, width = image.shape[:2]
        view = _Eye(self._target, self._azimuth(t_s), width, height, shown_m=self._shown_m)
        self._floor(image, view)
        line = max(1, round(height / 260))
        for trail in self._trails.values():
            path = np.array(trail) * (1, 1, 0)
            segments(image, view.uv(np.stack((path[:-1], path[1:]), axis=1)), _mixed(GREEN, BACKGROUND, 0.6), line)
        missing = set(poses.sync.missing)
        for camera, wires in enumerate(self._frustums):
            colour = AMBER if camera in missing else DIM
            segments(image, view.uv(wires), colour, 1)
            u, v = view.uv(self._centres[camera])
            if 0 < u < width and 0 < v < height:
                text(image, poses.cameras[camera], u + 6, v - 6, height_px=height / 50, colour=colour)
        shadows = poses.xyz_m.astype(np.float64) * (1, 1, 0)
        bones = np.array(layout.bones)
        for floor, conf in zip(shadows, poses.conf, strict=True):
            there = (conf[bones] > 0).all(axis=1)
            segments(image, view.uv(floor[bones[there]]), (17, 13, 11), 3 * line)
        for person in range(len(poses.ids)):
            uv, depth = view.project(poses.xyz_m[person].astype(np.float64))
            _halos(image, uv, poses.sigma_m[person] * view.focal_px / depth, poses.conf[person])
            paint_skeleton(image, uv, poses.conf[person], layout, thickness=2 * line, depth=depth)
            if words[person]:
                u, v = above(uv, poses.conf[person])
                caption(image, words[person], u, v - height / 40, height_px=height / 40)
        self._legend(image)

    def _azimuth(self, t_s: float) -> float:
        """Seen from between the first two cameras, swinging."""
        first = 0.6
        if len(self._centres) > 1:
            x, y, _ = (self._centres[:2] - self._target).mean(axis=0)
            first = math.atan2(y, x)
        return first + _SWAY * math.sin(2 * math.pi * t_s / _SWAY_S)

    def _floor(self, image: U8, view: _Eye) -> None:
        """The metre grid around the people; it fades with the distance."""
        middle = np.round(self._target[:2])
        along = np.arange(-_FLOOR_M, _FLOOR_M + 1.0)
        steps = np.linspace(-_FLOOR_M, _FLOOR_M, 6 * _FLOOR_M + 1)
        a, b = np.meshgrid(along, steps, indexing="ij")
        lines = np.stack((np.stack((a, b), -1), np.stack((b, a), -1))).reshape(-1, len(steps), 2)
        pieces = np.stack((lines[:, :-1], lines[:, 1:]), axis=2).reshape(-1, 2, 2)
        away = np.linalg.norm(pieces.mean(axis=1), axis=1)
        ends = np.concatenate((pieces + middle, np.zeros((*pieces.shape[:2], 1))), axis=2)
        uv = view.uv(ends)
        for near, far, light in ((0.0, 1.8, 0.9), (1.8, 3.2, 0.5), (3.2, _FLOOR_M, 0.25)):
            segments(image, uv[(away >= near) & (away < far)], _mixed(FAINT, PANEL, light), 1)

    def _legend(self, image: U8) -> None:
        height, width = image.shape[:2]
        size, x = height / 46, width - height / 40
        for side, name in ((2, "right"), (1, "left")):
            x -= text(image, name, x, height - size, height_px=size, colour=DIM, align=1.0) + size
            cv2.circle(image, (round(x), round(height - 1.5 * size)), max(2, round(size / 2.5)), SIDES[side], -1, cv2.LINE_AA)
            x -= 1.4 * size

    # map ----------------------------------------------------------------------------------------------------------------------

    def paint_map(self, image: U8, at: Rect, poses: Poses) -> None:
        """The studio from above, x to the right, y up: cameras with their fields of view, people with their ways."""
        panel = at.of(image)
        panel[:] = panel // 4 + np.array(BACKGROUND, np.uint8) // 2
        points = np.concatenate([self._centres[:, :2], *(np.array(t)[-1:, :2] for t in self._trails.values()), self._target[None, :2]])
        low, high = points.min(axis=0) - (0.9, 1.5), points.max(axis=0) + 0.9
        scale = float(min(at.width / (high[0] - low[0]), at.height / (high[1] - low[1])))
        middle = (low + high) / 2

        def uv(xy: F64) -> F64:
            return np.asarray((xy[..., :2] - middle) * (scale, -scale) + (at.width / 2, at.height / 2))

        reach = max(at.width, at.height) / scale
        for axis in (0, 1):
            marks = np.arange(math.floor(middle[axis] - reach), math.ceil(middle[axis] + reach) + 1)
            ends = np.zeros((len(marks), 2, 2))
            ends[:, :, axis] = marks[:, None]
            ends[:, :, 1 - axis] = middle[1 - axis] + np.array([-reach, reach])
            segments(panel, uv(ends), _mixed(FAINT, BACKGROUND, 0.45), 1)
        veil = panel.copy()
        missing = set(poses.sync.missing)
        for camera, wires in enumerate(self._frustums):
            colour = AMBER if camera in missing else DIM
            corners = wires[:4, 1, :2]  # the far ends of the edges of the pyramid
            rays = corners - self._centres[camera, :2]
            left, right = _outermost(rays)
            field = np.array([self._centres[camera, :2], self._centres[camera, :2] + left * 9, self._centres[camera, :2] + right * 9])
            cv2.fillConvexPoly(veil, np.round(uv(field) * 16).astype(np.int32), colour, cv2.LINE_AA, 4)
        cv2.addWeighted(veil, 0.13, panel, 0.87, 0, dst=panel)
        size = max(at.height / 19, 8.0)
        for camera, centre in enumerate(self._centres):
            colour = AMBER if camera in missing else BRIGHT
            u, v = uv(centre)
            cv2.circle(panel, (round(u), round(v)), max(2, round(size / 3)), colour, -1, cv2.LINE_AA)
            text(
                panel,
                poses.cameras[camera],
                min(max(u, 2.6 * size), at.width - 2.6 * size),
                v - 0.7 * size,
                height_px=size * 0.8,
                colour=colour,
                align=0.5,
            )
        for trail in self._trails.values():
            path = uv(np.array(trail))
            segments(panel, np.stack((path[:-1], path[1:]), axis=1), _mixed(GREEN, BACKGROUND, 0.6), 1)
            u, v = path[-1]
            cv2.circle(panel, (round(u), round(v)), max(3, round(size / 2.2)), GREEN, -1, cv2.LINE_AA)
        text(panel, "from above, 1 m grid", 0.6 * size, at.height - 0.6 * size, height_px=size * 0.9, colour=DIM)


class _Eye:
    """A pinhole that looks at a point: pixels from metres."""

    def __init__(self, target: F64, azimuth: float, width: int, height: int, *, shown_m: float = _SHOWN_M) -> None:
        distance = shown_m / 2 / math.tan(_FIELD / 2)
        away = np.array([math.cos(_RAISED) * math.cos(azimuth), math.cos(_RAISED) * math.sin(azimuth), math.sin(_RAISED)])
        self._position = target + distance * away
        right = np.array([-math.sin(azimuth), math.cos(azimuth), 0.0])
        self._axes = np.stack((right, -np.cross(away, right), -away))
        self.focal_px = height / 2 / math.tan(_FIELD / 2)
        self._middle = np.array([width * _MIDDLE, height / 2])

    def project(self, xyz_m: F64) -> tuple[F64, F64]:
        """Pixels [...,2] and depth [...] of world points; NaN pixels for what is behind the eye."""
        local = (xyz_m - self._position) @ self._axes.T
        depth = local[..., 2]
        with np.errstate(divide="ignore", invalid="ignore"):
            uv = np.where(depth[..., None] > _NEAR_M, local[..., :2] / depth[..., None] * self.focal_px + self._middle, np.nan)
        return uv, depth

    def uv(self, xyz_m: F64) -> F64:
        return self.project(xyz_m)[0]


def _frustums(rig: Rig) -> F64:
    """Wires [C,8,2,3] of a pyramid in front of every camera: first the four edges from the centre, then the rectangle."""
    out = np.empty((len(rig), 8, 2, 3))
    for i, camera in enumerate(rig.cameras):
        w, h = camera.width_px, camera.height_px
        pixels = np.array([[0, 0, 1], [w, 0, 1], [w, h, 1], [0, h, 1]], np.float64)
        rays = pixels @ np.linalg.inv(camera.matrix).T * _FRUSTUM_M
        rotation, translation = camera.camera_from_world[:, :3], camera.camera_from_world[:, 3]
        corners = (rays - translation) @ rotation
        out[i, :4, 0], out[i, :4, 1] = camera.centre_m, corners
        out[i, 4:, 0], out[i, 4:, 1] = corners, np.roll(corners, -1, axis=0)
    return out


def _outermost(rays: F64) -> tuple[F64, F64]:
    """The two of some directions [4,2] in the plane that enclose the others."""
    middle = rays.mean(axis=0)
    turn = np.arctan2(middle[0] * rays[:, 1] - middle[1] * rays[:, 0], rays @ middle)
    return rays[np.argmax(turn)], rays[np.argmin(turn)]


def _pelvis(poses: Poses, layout: Skeleton) -> F64:
    """Between the hips [P,3], or the middle of the body joints that are seen; NaN for nobody."""
    hips = [layout.joints.index(j) for j in ("left_hip", "right_hip")]
    xyz = np.where(poses.conf[..., None] > 0, poses.xyz_m, np.nan).astype(np.float64)
    pelvis = xyz[:, hips].mean(axis=1)
    body = xyz[:, list(layout.body)]
    seen = np.isfinite(body).all(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        middle = np.where(seen, body, 0).sum(axis=1) / seen.sum(axis=1)
    return np.asarray(np.where(np.isfinite(pelvis), pelvis, middle), np.float64)


def _halos(image: U8, uv: F64, sigma_px: F64, conf: F64 | np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> None:
    """A translucent disc of one standard deviation around every joint."""
    veil = image.copy()
    for (u, v), radius, seen in zip(uv.tolist(), sigma_px.tolist(), (conf > 0).tolist(), strict=True):
        if seen and math.isfinite(u) and math.isfinite(radius):
            cv2.circle(veil, (round(u * 16), round(v * 16)), round(min(radius, _SIGMA_LARGEST_PX) * 16), DIM, -1, cv2.LINE_AA, 4)
    cv2.addWeighted(veil, 0.25, image, 0.75, 0, dst=image)


def _mixed(colour: Colour, with_colour: Colour, share: float) -> Colour:
    a, b, c = (round(x * share + y * (1 - share)) for x, y in zip(colour, with_colour, strict=True))
    return a, b, c
