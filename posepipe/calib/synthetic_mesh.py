"""Triangles for the synthetic studio: what a renderer needs of a body, and rooms, boxes and columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posepipe.pipeline.packet import F32, F64, U8

from .kernel import kernel

WOOD, MATS, PLASTER, SKIN, CLOTH = 1, 2, 3, 4, 5
"""Kinds of surface, as the shaders know them."""


@dataclass(frozen=True, slots=True, eq=False)
class Mesh:
    """Triangles with what does not move. faces [F,3] int32 (counter-clockwise seen from outside); colour [V,3] linear 0..1; surface [V,4]:
    part 1..24 (0: no body), u, v as 0..255, person + 1 (0: nobody); texture [V,4]: where noise is looked up (m), kind of surface."""

    faces: NDArray[np.int32]
    colour: F32
    surface: U8
    texture: F32


@dataclass(frozen=True, slots=True, eq=False)
class Solid:
    """A mesh that stands still: positions and normals [V,3]. casts: whether the sun throws its shadow."""

    mesh: Mesh
    positions_m: F32
    normals: F32
    casts: bool


@kernel
def _normals(vertices: F32, faces: NDArray[np.int32], welded: NDArray[np.int32], out: F32) -> None:
    out[:] = 0
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        ux, uy, uz = vertices[b, 0] - vertices[a, 0], vertices[b, 1] - vertices[a, 1], vertices[b, 2] - vertices[a, 2]
        vx, vy, vz = vertices[c, 0] - vertices[a, 0], vertices[c, 1] - vertices[a, 1], vertices[c, 2] - vertices[a, 2]
        nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        for i in (welded[a], welded[b], welded[c]):
            out[i, 0] += nx
            out[i, 1] += ny
            out[i, 2] += nz
    for i in range(out.shape[0]):
        j = welded[i]
        if j < i:
            out[i, 0], out[i, 1], out[i, 2] = out[j, 0], out[j, 1], out[j, 2]
            continue
        length = np.sqrt(out[i, 0] ** 2 + out[i, 1] ** 2 + out[i, 2] ** 2)
        if length > 0:
            out[i, 0] /= length
            out[i, 1] /= length
            out[i, 2] /= length


def vertex_normals(vertices_m: F32, faces: NDArray[np.int32], welded: NDArray[np.int32] | None = None) -> F32:
    """Unit normals [V,3] of a mesh, each the mean of its faces' by area (zero where a vertex has none).

    welded [V]: the first of the vertices that lie at the same place and share a normal (default: every vertex is its own).
    """
    out = np.empty((len(vertices_m), 3), np.float32)
    same = np.arange(len(vertices_m), dtype=np.int32) if welded is None else np.array(welded, np.int32)
    _normals(np.array(vertices_m, np.float32), np.array(faces, np.int32), same, out)  # copies: the kernel is compiled for writable arrays
    return out


def solid(positions_m: F64, faces: NDArray[np.integer], colour: F64, kind: int, *, casts: bool) -> Solid:
    """A still mesh of one colour with flat faces: every face has corners of its own."""
    corners = np.ascontiguousarray(positions_m[faces.ravel()], np.float32)
    own = np.arange(len(corners), dtype=np.int32).reshape(-1, 3)
    count = len(corners)
    texture = np.concatenate([corners, np.full((count, 1), kind, np.float32)], axis=1)
    mesh = Mesh(own, np.tile(np.asarray(colour, np.float32), (count, 1)), np.zeros((count, 4), np.uint8), texture)
    return Solid(mesh, corners, vertex_normals(corners, own), casts)


_CUBE = np.array([(x, y, z) for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (0.0, 1.0)])
_QUADS = np.array([(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)])
"""-x, +x, -y, +y, bottom, top; counter-clockwise from outside."""
_TOP, _BOTTOM = 5, 4


def _triangles(quads: NDArray[np.integer]) -> NDArray[np.integer]:
    return np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])


def box(centre_m: F64, size_m: F64, yaw_rad: float, colour: F64, kind: int = PLASTER) -> Solid:
    """A box [2] on the floor: centre x, y, size x, y, z, turned about the vertical."""
    cos, sin = np.cos(yaw_rad), np.sin(yaw_rad)
    turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    return solid((_CUBE * size_m) @ turn.T + [*centre_m, 0.0], _triangles(_QUADS), colour, kind, casts=True)


def column(centre_m: F64, radius_m: float, height_m: float, colour: F64, *, sides: int = 24) -> Solid:
    """A round column on the floor."""
    angle = np.arange(sides) * 2 * np.pi / sides
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=-1) * radius_m + centre_m
    low, high = np.arange(sides), np.arange(sides) + sides
    quads = np.stack([low, np.roll(low, -1), np.roll(high, -1), high], axis=1)
    lid = np.stack([high, np.roll(high, -1), np.full(sides, 2 * sides)], axis=1)
    points = np.concatenate([np.c_[ring, np.zeros(sides)], np.c_[ring, np.full(sides, height_m)], [[*centre_m, height_m]]])
    return solid(points, np.concatenate([_triangles(quads), lid]), colour, PLASTER, casts=True)


def floor_and_walls(half_m: float, height_m: float, *, floor: F64, walls: F64, kind: int) -> tuple[Solid, Solid]:
    """A room around the origin, seen from inside: the floor of a kind, and four walls."""
    corners = _CUBE * [2 * half_m, 2 * half_m, height_m]
    inside = _QUADS[:, ::-1]
    return (
        solid(corners, _triangles(inside[[_BOTTOM]]), floor, kind, casts=False),
        solid(corners, _triangles(inside[:4]), walls, PLASTER, casts=False),
    )
