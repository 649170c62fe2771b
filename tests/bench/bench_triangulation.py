"""Triangulation: microseconds per joint beside numpy's SVD and OpenCV in the same run, and accuracy against synthetic truth.

    python tests/bench/bench_triangulation.py

Kernels run on one thread. Ratios mean something on a shared machine, absolute times only on a quiet one.
"""

from __future__ import annotations

import json
import time
from functools import partial
from typing import Any

import cv2
import numpy as np

from posepipe.calib import Camera, Rig, project, triangulate, undistort

JOINTS, PEOPLE = 33, 200
SIGMA_PX, INLIER_PX = 4.0, 30.0
LENS = np.array([-0.047, 0.137, 0.0006, 0.0003, 0.0])


def ring(count: int) -> Rig:
    """Cameras around a 4 m circle that look at its middle."""
    cameras = []
    for k in range(count):
        angle = 0.3 + 2 * np.pi * k / count
        centre = np.array([4 * np.cos(angle), 4 * np.sin(angle), 2.0])
        forward = np.array([0, 0, 1.0]) - centre
        forward /= np.linalg.norm(forward)
        right = np.cross(forward, [0, 0, 1.0])
        right /= np.linalg.norm(right)
        rotation = np.stack([right, np.cross(forward, right), forward])
        matrix = np.array([[1680.0, 0, 540], [0, 1680, 960], [0, 0, 1]])
        cameras.append(Camera(f"cam{k}", 1088, 1920, matrix, LENS, np.column_stack([rotation, -rotation @ centre])))
    return Rig(tuple(cameras))


def synthetic(rig: Rig, outliers: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth [P,J,3], key points [P,C,J,2] and conf [P,C,J]. Outliers are 200 px off (1 sigma per axis)."""
    rng = np.random.default_rng(0)
    xyz = rng.uniform([-0.5, -0.5, 0], [0.5, 0.5, 1.9], (PEOPLE, JOINTS, 3))
    shape = (len(rig), PEOPLE, JOINTS)
    conf = rng.uniform(0.4, 1, shape)
    uv = project(rig, xyz.reshape(-1, 3)).uv_px.reshape(*shape, 2) + rng.normal(0, SIGMA_PX, (*shape, 2)) / np.sqrt(conf)[..., None]
    wrong = rng.random(shape) < outliers
    uv[wrong] += rng.normal(0, 200, (wrong.sum(), 2))
    return xyz, np.ascontiguousarray(uv.transpose(1, 0, 2, 3)), np.ascontiguousarray(conf.transpose(1, 0, 2))


def svd_dlt(rig: Rig, rays: np.ndarray, conf: np.ndarray) -> np.ndarray:
    """Plain weighted DLT: one batched 2C x 4 SVD."""
    pose = rig.camera_from_world
    rows = rays[..., None] * pose[None, :, None, 2:3] - pose[None, :, None, :2]
    rows = (rows * conf[..., None, None]).transpose(0, 2, 1, 3, 4).reshape(*rays.shape[0:1], rays.shape[2], -1, 4)
    point = np.linalg.svd(rows)[2][..., -1, :]
    return point[..., :3] / point[..., 3:]


def opencv_pair(rig: Rig, rays: np.ndarray) -> np.ndarray:
    """cv2.triangulatePoints on the first two cameras only, which is all it can use."""
    a, b = rays[:, 0].reshape(-1, 2).T, rays[:, 1].reshape(-1, 2).T
    point = cv2.triangulatePoints(rig.camera_from_world[0], rig.camera_from_world[1], a, b)
    return (point[:3] / point[3]).T.reshape(len(rays), -1, 3)


def best_us(function, joints: int, repeats: int = 7) -> float:
    """Fastest of some runs, microseconds a joint (the first run, which may compile, does not count)."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times) / joints * 1e6


def mm(points: np.ndarray, xyz: np.ndarray) -> dict[str, float]:
    error = np.linalg.norm(points - xyz, axis=-1)
    error = error[np.isfinite(error)] * 1e3
    return {"median_mm": float(np.median(error)), "p99_mm": float(np.percentile(error, 99)), "max_mm": float(error.max())}


def measure(cameras: int, outliers: float) -> dict[str, Any]:
    rig = ring(cameras)
    xyz, uv, conf = synthetic(rig, outliers)
    rays = undistort(rig, uv)
    one_rays, one_conf = rays[:1].copy(), conf[:1].copy()
    count = PEOPLE * JOINTS
    robust = partial(triangulate, rig, inlier_px=INLIER_PX, sigma_px=SIGMA_PX)
    points = robust(rays=rays, conf=conf)
    found = np.isfinite(points.xyz_m[..., 0])
    error2 = ((points.xyz_m - xyz) ** 2).sum(-1)[found] / (3 * points.sigma_m[found] ** 2)
    robust_us = best_us(partial(robust, rays=rays, conf=conf), count)
    call_us = best_us(lambda: [robust(rays=one_rays, conf=one_conf) for _ in range(200)], 200)
    loop_us = robust_us * JOINTS
    return {
        "cameras": cameras,
        "outliers": outliers,
        "robust_us": robust_us,
        "svd_over_robust": best_us(partial(svd_dlt, rig, rays, conf), count, 2) / robust_us,
        "opencv_pair_over_robust": best_us(partial(opencv_pair, rig, rays), count, 3) / robust_us,
        "undistort_us": best_us(partial(undistort, rig, uv), count * cameras),
        "one_person_call_us": call_us,
        "python_us": call_us - loop_us,
        "found": float(found.mean()),
        "normalised_error2": float(error2.mean()),
        "robust": mm(points.xyz_m, xyz),
        "svd": mm(svd_dlt(rig, rays, conf), xyz),
        "opencv_pair": mm(opencv_pair(rig, rays), xyz),
    }


def main() -> None:
    cv2.setNumThreads(1)
    rows = []
    for cameras in (2, 4, 8):
        for outliers in (0.0, 0.15):
            r = measure(cameras, outliers)
            rows.append(r)
            print(
                f"{cameras} cameras, {outliers:.0%} outliers: {r['robust_us']:.3f} us/joint; svd x{r['svd_over_robust']:.1f}, "
                f"opencv pair x{r['opencv_pair_over_robust']:.1f}; undistort {r['undistort_us']:.3f} us/key point; "
                f"{JOINTS} joints {r['one_person_call_us']:.0f} us a call, {r['python_us']:.0f} of them Python"
            )
            for name in ("robust", "svd", "opencv_pair"):
                e = r[name]
                print(f"    {name:12s} median {e['median_mm']:7.1f}  p99 {e['p99_mm']:8.1f}  max {e['max_mm']:9.1f} mm")
            print(f"    found {r['found']:.1%}, |error|^2 / (3 sigma^2) = {r['normalised_error2']:.2f} (1 is honest)")
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
