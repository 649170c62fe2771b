"""A coarser mesh of the same vertices: quadric error decimation by half-edge collapses (Garland and Heckbert 1997, subset placement).

A vertex goes onto a neighbour and never elsewhere, so what belongs to vertices (blend shapes, skin weights) is kept by taking rows.
"""

from __future__ import annotations

import heapq
from typing import Any

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
_BORDER = 100.0
"""Weight of the planes that stand on border edges: holes keep their outline."""
_FLIP = 0.2
"""A face may turn by at most acos of this in one collapse."""


def decimate(vertices: F64, faces: I64, *, target: int) -> tuple[I64, I64]:
    """Collapse edges, cheapest first, until `target` vertices remain.

    vertices [V,3], faces [F,3]. Returns which vertices stay [target] (ascending) and the faces [G,3] over those.
    """
    quadrics = _quadrics(vertices, faces)
    triangles: dict[int, tuple[int, int, int]] = {i: (int(a), int(b), int(c)) for i, (a, b, c) in enumerate(faces)}
    around: list[set[int]] = [set() for _ in vertices]
    for i, triangle in triangles.items():
        for v in triangle:
            around[v].add(i)
    version = [0] * len(vertices)
    heap: list[tuple[float, int, int, int, int]] = []

    def neighbours(v: int) -> set[int]:
        return {w for i in around[v] for w in triangles[i]} - {v}

    def push(a: int, b: int) -> None:
        point = np.append(vertices[b], 1.0)
        heapq.heappush(heap, (float(point @ (quadrics[a] + quadrics[b]) @ point), a, b, version[a], version[b]))

    alive = {int(v) for v in np.unique(faces)}
    for v in alive:
        for w in neighbours(v):
            push(v, w)
    while len(alive) > target and heap:
        _, a, b, version_a, version_b = heapq.heappop(heap)
        if version_a != version[a] or version_b != version[b] or a not in alive or b not in alive:
            continue
        shared = [i for i in around[a] if b in triangles[i]]
        if len(neighbours(a) & neighbours(b)) != len(shared) or not shared or _turns(vertices, triangles, around[a], a, b):
            continue
        for i in shared:
            for v in triangles.pop(i):
                around[v].discard(i)
        for i in around[a]:
            x, y, z = triangles[i]
            triangles[i] = (b if x == a else x, b if y == a else y, b if z == a else z)
            around[b].add(i)
        around[a] = set()
        alive.discard(a)
        quadrics[b] += quadrics[a]
        version[b] += 1
        for w in neighbours(b):
            push(b, w)
            push(w, b)
    kept = np.array(sorted({v for t in triangles.values() for v in t}), np.int64)
    place = np.full(len(vertices), -1, np.int64)
    place[kept] = np.arange(len(kept))
    return kept, place[np.array([triangles[i] for i in sorted(triangles)], np.int64)]


def _quadrics(vertices: F64, faces: I64) -> F64:
    """[V,4,4]: squared distance to the planes of the faces around, weighted by their areas; borders have planes across them."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    normal = np.cross(b - a, c - a)
    area = np.linalg.norm(normal, axis=1, keepdims=True)
    normal = normal / np.maximum(area, 1e-15)
    planes = np.concatenate([normal, -(normal * a).sum(axis=1, keepdims=True)], axis=1)
    quadrics = np.zeros((len(vertices), 4, 4))
    per_face = area[:, :, None] * planes[:, :, None] * planes[:, None, :]
    for k in range(3):
        np.add.at(quadrics, faces[:, k], per_face)
    edges: dict[tuple[int, int], list[int]] = {}
    for i, face in enumerate(faces.tolist()):
        for k in range(3):
            edges.setdefault((min(face[k], face[k - 1]), max(face[k], face[k - 1])), []).append(i)
    for (v, w), owners in edges.items():
        if len(owners) == 1:
            along = vertices[w] - vertices[v]
            across = np.cross(along, normal[owners[0]])
            size = np.linalg.norm(across)
            if size > 0:
                plane = np.append(across / size, -(across / size) @ vertices[v])
                quadrics[[v, w]] += _BORDER * float(along @ along) * np.outer(plane, plane)
    return quadrics


def _turns(vertices: F64, triangles: dict[int, tuple[int, int, int]], around: set[int], a: int, b: int) -> bool:
    for i in around:
        triangle = triangles[i]
        if b in triangle:
            continue
        before = _normal(*(vertices[v] for v in triangle))
        after = _normal(*(vertices[b if v == a else v] for v in triangle))
        size = float(np.linalg.norm(before) * np.linalg.norm(after))
        if size < 1e-18 or float(before @ after) < _FLIP * size:
            return True
    return False


def _normal(a: Any, b: Any, c: Any) -> F64:
    u, v = b - a, c - a
    return np.array([u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]])
