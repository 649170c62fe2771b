"""TOML calibrations: our own `.rig.toml`, and the files of Pose2Sim, Anipose and caliscope.

Ours (written by `save_rig`, every float exactly):
    format = "posepipe-rig-1"
    [[camera]]
    name = "cam01"
    size_px = [1088, 1920]
    matrix = [[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]]
    distortion = [k1, k2, p1, p2, k3]
    camera_from_world = [[r11, r12, r13, tx], [r21, r22, r23, ty], [r31, r32, r33, tz]]
    image = {scale = [1.0, 1.0], offset_px = [0.0, 0.0]}     # only when the video was rescaled or cropped
Pose2Sim, Anipose, caliscope: one section per camera with `size`, `matrix`, `distortions`, `rotation` (Rodrigues or 3x3, camera from
world), `translation`, and `name` (else the section's own); [metadata] may hold `units = "mm"`, metres otherwise.
"""

from __future__ import annotations

import json
import tomllib
from typing import Any

from posepipe.pipeline.errors import RigError

from .rig import Camera, ImageTransform, Rig
from .text import Section

FORMAT = "posepipe-rig-1"


def parse(text: str, where: str) -> tuple[tuple[Camera, ...], bool]:
    """Cameras in the file's order, and whether the file states its units."""
    try:
        values = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise RigError(f"not TOML: {error}", where=where, hint="correct the line, or export the calibration again") from None
    if "format" in values or "camera" in values:
        return _own(values, where), True
    metadata = values.get("metadata", {})
    if not isinstance(metadata, dict):
        raise RigError("[metadata] is not a section", where=where, hint='write [metadata] on a line of its own, and units = "mm" below it')
    scale = Section(metadata, where=where, what="[metadata]").metres_per_unit()
    sections = {k: v for k, v in values.items() if k != "metadata" and isinstance(v, dict)}
    if not sections:
        raise RigError(
            "no camera in the file",
            where=where,
            hint="write one section per camera: [cam01] with size, matrix, distortions, rotation, translation",
        )
    cameras = []
    for key, fields in sections.items():
        section = Section(fields, where=where, what=f"[{key}]")
        if fields.get("fisheye"):
            raise section.error("the camera is a fisheye", "fisheye lenses are not supported; calibrate with the five-coefficient model")
        cameras.append(
            section.camera(
                str(fields.get("name", key)),
                section.size("size"),
                section.array("matrix", (3, 3)),
                section.array("distortions", (-1,)),
                section.rotation("rotation"),
                section.array("translation", (3,)) * scale,
            )
        )
    return tuple(cameras), "units" in metadata


def _own(values: dict[str, Any], where: str) -> tuple[Camera, ...]:
    if values.get("format") != FORMAT:
        raise RigError(f"rig format {values.get('format')!r}", where=where, hint=f'this version reads format = "{FORMAT}"')
    entries = values.get("camera", [])
    if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
        raise RigError("camera is not a list of sections", where=where, hint="write [[camera]] before every camera")
    return tuple(_own_camera(fields, where, k) for k, fields in enumerate(entries))


def _own_camera(fields: dict[str, Any], where: str, k: int) -> Camera:
    section = Section(fields, where=where, what=f"[[camera]] number {k + 1}")
    pose = section.array("camera_from_world", (3, 4))
    camera = section.camera(
        str(section.get("name")),
        section.size("size_px"),
        section.array("matrix", (3, 3)),
        section.array("distortion", (-1,)),
        pose[:, :3],
        pose[:, 3],
    )
    if "image" not in section:
        return camera
    image = section.get("image")
    if not isinstance(image, dict):
        raise section.error("'image' is not a map", "write image = {scale = [1.0, 1.0], offset_px = [0.0, 0.0]}")
    part = Section(image, where=where, what=f"camera {camera.name!r}, image")
    (scale_x, scale_y), (offset_x, offset_y) = part.array("scale", (2,)).tolist(), part.array("offset_px", (2,)).tolist()
    try:
        transform = ImageTransform((scale_x, scale_y), (offset_x, offset_y))
    except RigError as error:
        raise section.error(error.what, error.hint) from None
    return Camera(camera.name, camera.width_px, camera.height_px, camera.matrix, camera.distortion, camera.camera_from_world, transform)


def render(rig: Rig) -> str:
    """The rig as `.rig.toml` text; reading it gives the same rig bit for bit."""
    lines = [f'format = "{FORMAT}"']
    for camera in rig.cameras:
        image = camera.calibration_from_video
        lines += [
            "",
            "[[camera]]",
            f"name = {json.dumps(camera.name, ensure_ascii=False).replace(chr(127), chr(92) + 'u007f')}",
            f"size_px = [{camera.width_px}, {camera.height_px}]",
            f"matrix = {camera.matrix.tolist()}",
            f"distortion = {camera.distortion.tolist()}",
            f"camera_from_world = {camera.camera_from_world.tolist()}",
        ]
        if not image.is_identity:
            lines.append(f"image = {{scale = {list(map(float, image.scale))}, offset_px = {list(map(float, image.offset_px))}}}")
    return "\n".join(lines) + "\n"
