"""The compiled part of `single`: what a view is to the network, and where in the room its answer stands."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from posepipe.pipeline.packet import F32, F64, I64

from .kernel import kernel

_STEEP, _SMALLEST, _OUTLIER2, _ROUNDS = 0.1, 1e-3, 9.0, 4
_LEAST_FORWARD, _LEAST_CONF, _NEAREST_M = 0.05, 1e-3, 0.3
_FIRST_M = 4.0  # it only balances the two uncertainties, and is set right by the second round


@kernel
def look_at(rays: F64, conf: F64, pose: F64, inputs: F32, directions: F64, axes: F64, centre: F64) -> None:
    """Arguments and results as of `single.looks`; conf is set to 0 where there is no ray."""
    joints = rays.shape[1]
    world, picture = np.empty((joints, 3)), np.zeros((joints, 2))
    for n in range(rays.shape[0]):
        m = pose[n]
        ax = ay = az = 0.0
        count = 0
        for j in range(joints):
            x, y = rays[n, j, 0], rays[n, j, 1]
            if not (np.isfinite(x) and np.isfinite(y) and conf[n, j] > 0):
                conf[n, j] = 0.0
                continue
            long = np.sqrt(x * x + y * y + 1)
            for i in range(3):
                world[j, i] = (m[0, i] * x + m[1, i] * y + m[2, i]) / long
            ax, ay, az, count = ax + world[j, 0], ay + world[j, 1], az + world[j, 2], count + 1
        long = max(np.sqrt(ax * ax + ay * ay + az * az), 1e-9)
        ax, ay, az = ax / long, ay / long, az / long
        gx, gy = ax, ay
        if np.sqrt(gx * gx + gy * gy) < _STEEP:
            # Straight down no direction is ahead: it is what is up in the picture.
            turn = 1.0 if az < 0 else -1.0
            gx, gy = -m[1, 0] * turn, -m[1, 1] * turn
        level = np.sqrt(gx * gx + gy * gy)
        if level > 1e-6:
            gx, gy = gx / level, gy / level
        else:
            gx, gy = 0.0, 1.0
        axes[n, 0, 0], axes[n, 1, 0], axes[n, 2, 0] = gy, -gx, 0.0
        axes[n, 0, 1], axes[n, 1, 1], axes[n, 2, 1] = gx, gy, 0.0
        axes[n, 0, 2], axes[n, 1, 2], axes[n, 2, 2] = 0.0, 0.0, 1.0
        for i in range(3):
            centre[n, i] = -(m[0, i] * m[0, 3] + m[1, i] * m[1, 3] + m[2, i] * m[2, 3])
        sine, cosine, total = az, gx * ax + gy * ay, 0.0
        for j in range(joints):
            if conf[n, j] == 0:
                directions[n, j, 0] = directions[n, j, 1] = directions[n, j, 2] = np.nan
                continue
            right, ahead, up = gy * world[j, 0] - gx * world[j, 1], gx * world[j, 0] + gy * world[j, 1], world[j, 2]
            directions[n, j, 0], directions[n, j, 1], directions[n, j, 2] = right, ahead, up
            forward = ahead * cosine + up * sine
            if not abs(forward) > _LEAST_FORWARD:
                forward = _LEAST_FORWARD
            picture[j, 0], picture[j, 1] = right / forward, (up * cosine - ahead * sine) / forward
            total += picture[j, 0] ** 2 + picture[j, 1] ** 2
        size = max(np.sqrt(total / max(count, 1)), _SMALLEST)
        for j in range(joints):
            there = conf[n, j] > 0
            inputs[n, j] = picture[j, 0] / size if there else 0.0
            inputs[n, joints + j] = picture[j, 1] / size if there else 0.0
            inputs[n, 2 * joints + j] = conf[n, j]
        inputs[n, 3 * joints], inputs[n, 3 * joints + 1], inputs[n, 3 * joints + 2] = sine, cosine, np.log(size) + 2


@kernel
def stand_at(
    lines: F64, conf: F64, axes: F64, centre: F64, enough: NDArray[np.bool_], local: F64, wide: F64, ray: F64, depth: F64, placed: F64, sigma: F64
) -> None:  # fmt: skip
    """Arguments and results as of `single.stand`."""
    joints = lines.shape[1]
    agrees, off = np.empty(joints), np.empty(3)
    for n in range(lines.shape[0]):
        far, tx, ty, tz = _FIRST_M, 0.0, 0.0, 0.0
        agrees[:] = 1.0
        for _ in range(_ROUNDS):
            a00 = a11 = a22 = 1e-9
            a01 = a02 = a12 = b0 = b1 = b2 = 0.0
            for j in range(joints):
                if conf[n, j] == 0:
                    continue
                w = agrees[j] / (wide[n, j] ** 2 + (ray[n] * far) ** 2 / max(conf[n, j], _LEAST_CONF))
                x, y, z = lines[n, j, 0], lines[n, j, 1], lines[n, j, 2]
                px, py, pz = local[n, j, 0], local[n, j, 1], local[n, j, 2]
                along = x * px + y * py + z * pz
                a00, a11, a22 = a00 + w * (1 - x * x), a11 + w * (1 - y * y), a22 + w * (1 - z * z)
                a01, a02, a12 = a01 - w * x * y, a02 - w * x * z, a12 - w * y * z
                b0, b1, b2 = b0 + w * (px - along * x), b1 + w * (py - along * y), b2 + w * (pz - along * z)
            c00, c01, c02 = a11 * a22 - a12 * a12, a02 * a12 - a01 * a22, a01 * a12 - a02 * a11
            c11, c12, c22 = a00 * a22 - a02 * a02, a01 * a02 - a00 * a12, a00 * a11 - a01 * a01
            det = a00 * c00 + a01 * c01 + a02 * c02
            tx, ty, tz = (
                -(c00 * b0 + c01 * b1 + c02 * b2) / det,
                -(c01 * b0 + c11 * b1 + c12 * b2) / det,
                -(c02 * b0 + c12 * b1 + c22 * b2) / det,
            )
            far = max(np.sqrt(tx * tx + ty * ty + tz * tz), _NEAREST_M)
            for j in range(joints):
                if conf[n, j] == 0:
                    continue
                x, y, z = lines[n, j, 0], lines[n, j, 1], lines[n, j, 2]
                px, py, pz = local[n, j, 0] + tx, local[n, j, 1] + ty, local[n, j, 2] + tz
                along = x * px + y * py + z * pz
                variance = wide[n, j] ** 2 + (ray[n] * far) ** 2 / max(conf[n, j], _LEAST_CONF)
                off2 = (px - along * x) ** 2 + (py - along * y) ** 2 + (pz - along * z) ** 2
                agrees[j] = 1 / (1 + off2 / (2 * variance)) ** 2
        before = 0.0
        for j in range(joints):
            if conf[n, j] > 0:
                before += tx * lines[n, j, 0] + ty * lines[n, j, 1] + tz * lines[n, j, 2]
        if not (enough[n] and before > 0):
            placed[n] = np.nan
            sigma[n] = np.inf
            continue
        for j in range(joints):
            px, py, pz = local[n, j, 0] + tx, local[n, j, 1] + ty, local[n, j, 2] + tz
            s2, share = wide[n, j] ** 2, 0.0
            off[:] = 0.0
            if conf[n, j] > 0:
                x, y, z = lines[n, j, 0], lines[n, j, 1], lines[n, j, 2]
                along = x * px + y * py + z * pz
                off[0], off[1], off[2] = px - along * x, py - along * y, pz - along * z
                noise2 = (ray[n] * far) ** 2 / max(conf[n, j], _LEAST_CONF)
                if off[0] ** 2 + off[1] ** 2 + off[2] ** 2 < _OUTLIER2 * 2 * (s2 + noise2):
                    share = s2 / (s2 + noise2)
            px, py, pz = px - share * off[0], py - share * off[1], pz - share * off[2]
            for i in range(3):
                placed[n, j, i] = axes[n, i, 0] * px + axes[n, i, 1] * py + axes[n, i, 2] * pz + centre[n, i]
            sigma[n, j] = np.sqrt((2 * s2 * (1 - share) + s2 + (depth[n] * far) ** 2) / 3)


@kernel
def write_down(
    at: I64, by: I64, joints: I64, placed: F64, sigma: F64, conf: F64, rays: F64, poses: F64, focal_px: F64,
    xyz_out: F64, conf_out: F64, sigma_out: F64, residual_out: F64, used_out: NDArray[np.bool_],
) -> None:  # fmt: skip
    """The skeletons placed [N,17,3], sigma and conf [N,17], of people `at` [N] seen by cameras `by` [N] along rays [N,17,2], into the arrays of
    `Triangulated` ([P,J,..], [P,C,J]), in the places joints [17]. A joint that is not seen gets a third of the mean confidence of those that are."""
    for n in range(len(at)):
        p, c = at[n], by[n]
        total, count, m = 0.0, 0, poses[c]
        for k in range(conf.shape[1]):
            if conf[n, k] > 0:
                total, count = total + conf[n, k], count + 1
        for k in range(conf.shape[1]):
            j = joints[k]
            x, y, z = placed[n, k, 0], placed[n, k, 1], placed[n, k, 2]
            xyz_out[p, j, 0], xyz_out[p, j, 1], xyz_out[p, j, 2] = x, y, z
            sigma_out[p, j] = sigma[n, k]
            if not conf[n, k] > 0:
                conf_out[p, j] = total / max(count, 1) / 3
                continue
            conf_out[p, j], used_out[p, c, j] = conf[n, k], True
            deep = max(m[2, 0] * x + m[2, 1] * y + m[2, 2] * z + m[2, 3], 1e-3)
            u = (m[0, 0] * x + m[0, 1] * y + m[0, 2] * z + m[0, 3]) / deep - rays[n, k, 0]
            v = (m[1, 0] * x + m[1, 1] * y + m[1, 2] * z + m[1, 3]) / deep - rays[n, k, 1]
            residual_out[p, c, j] = np.sqrt((u * focal_px[c, 0]) ** 2 + (v * focal_px[c, 1]) ** 2)
