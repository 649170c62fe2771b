"""Between skeletons of an instant and a network that remembers people by rows: what is seen goes in, what is given comes out.

P people of an instant, N rows that the network is asked about, R rows that there are, Q people who leave, J joints of the skeleton, of which `joints` [17] are the
network's. Times are nanoseconds of one clock. Loops in numba: a few small numpy calls a joint would cost more than all of this.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from posepipe.pipeline.packet import F32, I64

from .kernel import kernel

Bools = NDArray[np.bool_]
U8 = NDArray[np.uint8]


@kernel
def look(window: F32, stale: bool, unsure_m: float, seen: Bools, there: Bools) -> None:
    """Which joints of window [P,17,5] (x, y, z, sigma_m, conf) are seen [P,17], and of whom any [P]. What is not seen, or `stale`, becomes 0; a sigma that is
    no number becomes `unsure_m`."""
    for p in range(len(window)):
        there[p] = False
        for j in range(window.shape[1]):
            x = window[p, j]
            seen[p, j] = not stale and x[4] > 0 and np.isfinite(x[0]) and np.isfinite(x[1]) and np.isfinite(x[2])
            if not seen[p, j]:
                x[:] = 0
                continue
            there[p] = True
            if not np.isfinite(x[3]):
                x[3] = unsure_m


@kernel
def note(
    window: F32, seen: Bools, there: Bools, ids: I64, rows: I64, t_ns: int, owner: I64, sight_ns: I64, joint_ns: I64, conf: F32
) -> None:
    """Enter who was seen: owner and sight_ns [R] of his row, joint_ns and conf [R,17] of the joints. rows: of those who are `there`, in their order."""
    k = 0
    for p in range(len(ids)):
        if not there[p]:
            continue
        row, k = rows[k], k + 1
        owner[row], sight_ns[row] = ids[p], t_ns
        for j in range(seen.shape[1]):
            if seen[p, j]:
                joint_ns[row, j], conf[row, j] = t_ns, window[p, j, 4]


@kernel
def ask(owner: I64, since_ns: I64, k: int, t_ns: int, ids: I64, seen: F32, window: F32, after_s: F32) -> None:
    """Put an instant (ids [P], seen [P,17,5]) in place k of what people (owner and since_ns [N]) are asked about: window [N,W,17,5], after_s [N,W]."""
    for n in range(len(owner)):
        after_s[n, k] = (t_ns - since_ns[n]) * 1e-9
        for p in range(len(ids)):
            if ids[p] == owner[n]:
                window[n, k] = seen[p]


@kernel
def stand(rows: I64, t_ns: int, window: F32, joints_m: F32, new: Bools, far_m: float, far_ns: int, near_ns: I64, begun: Bools) -> None:
    """Whether bodies (joints_m [N,17,3]) are where their people are seen (window [N,W,17,5], its first instant): near_ns [R] is when they were that
    last. begun [R] becomes False where that is longer ago than `far_ns`. `new` ones are near."""
    for n in range(len(rows)):
        row, count = rows[n], 0
        off = np.zeros(3)
        for j in range(joints_m.shape[1]):
            if window[n, 0, j, 4] > 0:
                count += 1
                for i in range(3):
                    off[i] += joints_m[n, j, i] - window[n, 0, j, i]
        if new[n] or np.sqrt((off * off).sum()) <= far_m * count:
            near_ns[row] = t_ns
        begun[row] = t_ns - near_ns[row] <= far_ns


@kernel
def place(
    rows: I64, t_ns: int, fill_ns: int, owner: I64, joint_ns: I64, ids: I64, root_m: F32, apart_m: float, at: I64
) -> tuple[int, bool, bool]:
    """Where people stand in what leaves: at [N], -1 where somebody is not given. First those of the instant (ids [P]), then those who were lost and have a
    joint that was seen less than fill_ns ago, unless somebody seen is nearer than apart_m to them. How many leave; whether any joint is seen, and is given.
    """
    leave, any_seen, any_given = len(ids), False, False
    recent, here = np.zeros(len(rows), np.bool_), np.zeros(len(rows), np.bool_)
    for n in range(len(rows)):
        at[n] = -1
        for j in range(joint_ns.shape[1]):
            unseen_ns = t_ns - joint_ns[rows[n], j]
            here[n] |= unseen_ns == 0
            recent[n] |= unseen_ns < fill_ns
        any_seen |= here[n]
        for p in range(len(ids)):
            if ids[p] == owner[rows[n]]:
                at[n] = p
    for n in range(len(rows)):
        if at[n] < 0 and recent[n]:
            free = True
            for m in range(len(rows)):
                away2 = 0.0
                for i in range(3):
                    away2 += (root_m[n, i] - root_m[m, i]) ** 2
                free &= not (here[m] and away2 <= apart_m * apart_m)
            if free:
                at[n], leave = leave, leave + 1
        any_given |= recent[n] and at[n] >= 0
    return leave, any_seen, any_given


@kernel
def put(
    rows: I64, at: I64, t_ns: int, fill_ns: int, joint_ns: I64, last_conf: F32, joints: I64,
    joints_m: F32, spread_m: F32, pose: F32, shape: F32, root_m: F32,
    xyz_m: F32, conf: F32, sigma_m: F32, views: U8, poses: F32, shapes: F32, roots_m: F32,
) -> None:  # fmt: skip
    """Write the network's answer (joints_m [N,17,3] ... root_m [N,3]) to what leaves (xyz_m [Q,J,3] ... roots_m [Q,3]). A joint unseen for less than `fill_ns`
    is given with a share of its last confidence and no views; others of the network's joints are not, and who has none has no body."""
    for q in range(len(xyz_m)):
        for j in joints:
            xyz_m[q, j], sigma_m[q, j], conf[q, j] = np.nan, np.nan, 0
    poses[:], shapes[:], roots_m[:] = np.nan, np.nan, np.nan
    for n in range(len(rows)):
        q, some = at[n], False
        if q < 0:
            continue
        for k in range(len(joints)):
            unseen_ns, j = t_ns - joint_ns[rows[n], k], joints[k]
            if unseen_ns > 0:
                views[q, j] = 0
            if unseen_ns < fill_ns:
                some = True
                xyz_m[q, j], sigma_m[q, j] = joints_m[n, k], spread_m[n, k]
                conf[q, j] = last_conf[rows[n], k] * (1 - unseen_ns / fill_ns)
        if some:
            poses[q], shapes[q], roots_m[q] = pose[n], shape[n], root_m[n]
