"""The rig: cameras with intrinsics, distortion and pose, the way footage maps onto the calibration, and what does not fit.

World frame: metres, right-handed, z up. Camera frame: x right, y down, z forward. Pixel centres are at integer coordinates.
Lens model: the five-coefficient Brown-Conrady model as OpenCV orders it (k1 k2 p1 p2 k3).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from posepipe.pipeline.errors import RigError, did_you_mean
from posepipe.pipeline.packet import F64

_ROTATION_TOLERANCE = 1e-3
_EXACT_ROTATION = 1e-12
_LARGEST_RIG_M = 100.0
"""Two cameras of one studio are never further apart; a rig beyond that was written in centimetres or millimetres."""
_CROP_MARGIN = 0.1
_NO_BEND = 1e-9


@dataclass(frozen=True, slots=True)
class ImageTransform:
    """`u_calib = scale[0] * u_video + offset_px[0]`, and the same for v: footage that was rescaled or cropped after the calibration."""

    scale: tuple[float, float] = (1.0, 1.0)
    offset_px: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        numbers = (*self.scale, *self.offset_px)
        if len(numbers) != 4 or not all(math.isfinite(n) for n in numbers) or min(self.scale) <= 0:
            raise RigError(
                f"image transform with scale {list(self.scale)} and offset_px {list(self.offset_px)}",
                hint="write two positive scales and two finite offsets, e.g. {scale: [1.0, 1.0], offset_px: [0, 0]}",
            )

    @property
    def is_identity(self) -> bool:
        return self.scale == (1.0, 1.0) and self.offset_px == (0.0, 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class Camera:
    """One calibrated camera.

    width_px, height_px: size of the calibration image. matrix [3,3]: pixels of the calibration image. distortion [5]: k1 k2 p1
    p2 k3 (shorter arrays are padded with zeros). camera_from_world [3,4]: rotation and translation, metres. Arrays are copied
    and read-only. RigError on anything that is not a camera.
    """

    name: str
    width_px: int
    height_px: int
    matrix: F64
    distortion: F64
    camera_from_world: F64
    calibration_from_video: ImageTransform = field(default_factory=ImageTransform)

    def __post_init__(self) -> None:
        if not self.name:
            raise RigError("a camera without a name", hint="give every camera of the calibration a name")
        if self.width_px < 1 or self.height_px < 1:
            raise self._wrong(
                f"image size {self.width_px}x{self.height_px}", "state the width and height of the calibration pictures in pixels"
            )
        matrix = self._array("matrix", self.matrix, (3, 3))
        coefficients = np.asarray(self.distortion, np.float64).ravel()
        if coefficients.size > 5:
            if np.any(coefficients[5:] != 0):
                raise self._wrong(
                    f"{coefficients.size} distortion coefficients",
                    "calibrate with the five-coefficient model (k1 k2 p1 p2 k3), not the rational one",
                )
            coefficients = coefficients[:5]
        distortion = self._array("distortion", np.pad(coefficients, (0, 5 - coefficients.size)), (5,))
        pose = self._array("camera_from_world", self.camera_from_world, (3, 4))
        if matrix[0, 0] <= 0 or matrix[1, 1] <= 0:
            raise self._wrong(f"focal length {matrix[0, 0]:g}, {matrix[1, 1]:g}", "focal lengths are positive numbers of pixels")
        if abs(matrix[0, 1]) > 1e-6 * matrix[0, 0] or np.any(matrix[1:, 0] != 0) or matrix[2, 1] != 0 or abs(matrix[2, 2] - 1) > 1e-9:
            raise self._wrong(
                f"camera matrix {matrix.tolist()}",
                "the matrix must be [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]; is it transposed, or does it have skew?",
            )
        rotation = pose[:, :3]
        error = float(np.abs(rotation @ rotation.T - np.eye(3)).max())
        determinant = float(np.linalg.det(rotation))
        if error > _ROTATION_TOLERANCE or determinant < 0:
            raise self._wrong(
                f"the rotation is not one (|R R^T - 1| = {error:.2g}, det R = {determinant:.3g})",
                "a mirrored axis or a matrix that was read in the wrong order; export the calibration again",
            )
        if error > _EXACT_ROTATION:
            left, _, right = np.linalg.svd(rotation)
            pose[:, :3] = left @ right
        for name, array in (("matrix", matrix), ("distortion", distortion), ("camera_from_world", pose)):
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    def _array(self, key: str, values: F64, shape: tuple[int, ...]) -> F64:
        array = np.array(values, np.float64)
        if array.shape != shape:
            raise self._wrong(f"{key} has shape {list(array.shape)}, not {list(shape)}", f"write {key} with {math.prod(shape)} numbers")
        if not np.isfinite(array).all():
            raise self._wrong(f"{key} holds a number that is not finite", "the calibration did not converge; calibrate this camera again")
        return array

    def _wrong(self, what: str, hint: str) -> RigError:
        return RigError(f"camera {self.name!r}: {what}", hint=hint)

    @property
    def centre_m(self) -> F64:
        """Optical centre [3] in the world frame."""
        rotation, translation = self.camera_from_world[:, :3], self.camera_from_world[:, 3]
        return np.asarray(-rotation.T @ translation, np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Rig:
    """Calibrated cameras in the order in which the C axis of all arrays runs.

    The stacked arrays feed the kernels; all are float64 and read-only:
    normal_from_video [C,4]: ax, bx, ay, by with x_distorted = ax u_video + bx, y_distorted = ay v_video + by (normalised image plane);
    focal_px [C,2]: pixels of the calibration image; distortion [C,5]; camera_from_world [C,3,4];
    fold_radius [C]: undistorted radius on the normalised plane beyond which the lens polynomial turns back (inf where it never does);
    picture [C,4]: left, right, top, bottom of the calibration image on the normalised plane.
    """

    cameras: tuple[Camera, ...]
    where: str = ""
    units_stated: bool = False
    normal_from_video: F64 = field(init=False, repr=False)
    focal_px: F64 = field(init=False, repr=False)
    distortion: F64 = field(init=False, repr=False)
    camera_from_world: F64 = field(init=False, repr=False)
    fold_radius: F64 = field(init=False, repr=False)
    picture: F64 = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.cameras:
            raise RigError("a rig without cameras", where=self.where, hint="calibrate at least two cameras")
        twice = sorted({n for n in self.names if self.names.count(n) > 1})
        if twice:
            raise RigError(f"camera {twice[0]!r} is there twice", where=self.where, hint="camera names must differ; rename one of them")
        apart_m = self._largest_distance()
        if apart_m > _LARGEST_RIG_M and not self.units_stated:
            raise RigError(
                f"cameras are {apart_m:.0f} units apart, so the calibration seems to be in {'millimetres' if apart_m > 500 else 'centimetres or millimetres'}",
                where=self.where,
                hint='posepipe works in metres: add units = "mm" to [metadata] of a TOML file or "units: mm" to an OpenCV file (or "m", if it is that large)',
            )
        stacks = {
            "normal_from_video": np.array([_normal_from_video(c) for c in self.cameras]),
            "focal_px": np.array([(c.matrix[0, 0], c.matrix[1, 1]) for c in self.cameras]),
            "distortion": np.array([c.distortion for c in self.cameras]),
            "camera_from_world": np.array([c.camera_from_world for c in self.cameras]),
            "picture": np.array([_picture(c) for c in self.cameras]),
            "fold_radius": np.array([_fold_radius(c.distortion) for c in self.cameras]),
        }
        for name, array in stacks.items():
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    def __len__(self) -> int:
        return len(self.cameras)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.cameras)

    def _largest_distance(self) -> float:
        centres = np.array([c.centre_m for c in self.cameras])
        return float(np.linalg.norm(centres[:, None] - centres[None], axis=-1).max())

    def select(self, names: Iterable[str]) -> Rig:
        """The same rig with these cameras in this order. RigError names the cameras that the calibration lacks."""
        wanted = tuple(names)
        known = {c.name: c for c in self.cameras}
        missing = [n for n in wanted if n not in known]
        if missing:
            raise RigError(
                f"the calibration lacks camera {', '.join(map(repr, missing))}; it has {', '.join(self.names)}, the studio has {', '.join(wanted)}",
                where=self.where,
                hint=f"{did_you_mean(missing[0], known)} Camera names of the studio and of the calibration must be the same",
            )
        return Rig(tuple(known[n] for n in wanted), where=self.where, units_stated=True)

    def with_image(self, image: Mapping[str, ImageTransform]) -> Rig:
        """The same rig where these cameras' footage maps onto the calibration image by these transforms."""
        unknown = [n for n in image if n not in self.names]
        if unknown:
            raise RigError(
                f"image: names camera {unknown[0]!r}, which the calibration does not have (it has {', '.join(self.names)})",
                where=self.where,
                hint=did_you_mean(unknown[0], self.names),
            )
        cameras = tuple(replace(c, calibration_from_video=image.get(c.name, c.calibration_from_video)) for c in self.cameras)
        return Rig(cameras, where=self.where, units_stated=True)

    def check_videos(self, sizes_px: Mapping[str, tuple[int, int]], *, where: str) -> None:
        """Refuse footage that the calibration was not made for.

        sizes_px: camera -> (width, height) of its video; where: the studio file, for the message. Cameras of the rig that the
        studio does not use are ignored. RigError: a camera without calibration, another image size without an image transform,
        a transform that puts the video outside of the calibration image.
        """
        for camera in self.select(sizes_px).cameras:
            width, height = sizes_px[camera.name]
            image = camera.calibration_from_video
            if not image.is_identity:
                _check_cover(camera, width, height, where)
            elif (width, height) != (camera.width_px, camera.height_px):
                scale = (camera.width_px / width, camera.height_px / height)
                offset = (round((scale[0] - 1) / 2, 2), round((scale[1] - 1) / 2, 2))
                raise RigError(
                    f"camera {camera.name!r} was calibrated at {camera.width_px}x{camera.height_px}, its video is {width}x{height}",
                    where=where,
                    hint=(
                        f"write under rig: in the studio file: image: {{{camera.name}: {{scale: [{scale[0]:.4f}, {scale[1]:.4f}], "
                        f"offset_px: [{offset[0]:g}, {offset[1]:g}]}}}} and verify it: it assumes that the video is the whole picture rescaled, "
                        "while a crop needs other offsets. If neither is true, calibrate again at the video's size"
                    ),
                )


def _check_cover(camera: Camera, width: int, height: int, where: str) -> None:
    image = camera.calibration_from_video
    for size, full, scale, offset, axis in zip(
        (width, height), (camera.width_px, camera.height_px), image.scale, image.offset_px, "uv", strict=True
    ):
        low, high = offset - 0.5 * scale, offset + (size - 0.5) * scale
        margin = _CROP_MARGIN * full
        if low < -margin or high > full + margin:
            raise RigError(
                f"camera {camera.name!r}: the image transform maps {axis} of the {width}x{height} video to {low:.0f}..{high:.0f}, "
                f"but the calibration image is {camera.width_px}x{camera.height_px}",
                where=where,
                hint=f"correct scale and offset_px of image: {{{camera.name}: ...}}, or remove the entry to see what is proposed",
            )


def _normal_from_video(camera: Camera) -> tuple[float, float, float, float]:
    image, matrix = camera.calibration_from_video, camera.matrix
    (scale_x, scale_y), (offset_x, offset_y) = image.scale, image.offset_px
    focal_x, focal_y = matrix[0, 0], matrix[1, 1]
    return scale_x / focal_x, (offset_x - matrix[0, 2]) / focal_x, scale_y / focal_y, (offset_y - matrix[1, 2]) / focal_y


def _picture(camera: Camera) -> tuple[float, float, float, float]:
    (focal_x, _, centre_x), (_, focal_y, centre_y), _ = camera.matrix.tolist()
    left, right = (-0.5 - centre_x) / focal_x, (camera.width_px - 0.5 - centre_x) / focal_x
    return left, right, (-0.5 - centre_y) / focal_y, (camera.height_px - 0.5 - centre_y) / focal_y


def _fold_radius(distortion: F64) -> float:
    """Smallest r > 0 with d/dr [r (1 + k1 r^2 + k2 r^4 + k3 r^6)] = 0: beyond it one pixel belongs to two directions."""
    k1, k2, _, _, k3 = distortion
    slope = np.array([7 * k3, 5 * k2, 3 * k1, 1.0])
    roots = np.roots(np.where(np.abs(slope) < _NO_BEND, 0.0, slope))
    squares = [r.real for r in roots if abs(r.imag) < 1e-9 * max(1.0, abs(r.real)) and r.real > 0]
    return math.sqrt(min(squares)) if squares else math.inf
