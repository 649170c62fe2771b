"""The body as plain arrays, for those who pose it elsewhere (a network in torch): what `Body.pose` and `joints_m("coco17")` do, without Python."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from posepipe.pipeline.skeleton import COCO17

from .body import Body
from .body_annotated import along, trunk


def tables(body: Body) -> dict[str, NDArray[Any]]:
    """B bones, K shape components, S points on the skin. parents [B]. heads [1+K,B,3]: bone heads at rest, mean and by component. skin_bones and
    skin_shares [S,4], skin_m [1+K,S,4,3]: of each of four bones its share of where a point is, from the bone's head. points [17,2]: the bone (or B +
    point on the skin) that a key point of coco17 starts from and the bone that it is moved towards; points_m [17,4]: an offset in the
    frame of the bone turned_by [17], and by how much it is moved; metres.
    """
    bones, names = body.bones, COCO17.joints
    heads = np.concatenate([body._heads_m[None], body._heads_basis_m])
    share, on = body._point_shares, body._point_bones
    points, points_m = np.zeros((len(names), 2), np.int64), np.zeros((len(names), 4))
    turned_by = np.zeros(len(names), np.int64)
    for k, name in enumerate(names):
        if name in body._points:
            points[k, 0] = len(bones) + body._points.index(name)
            continue
        points[k] = bones.index(name)
        if (offset := trunk(name)) is not None:
            turned_by[k], points_m[k, :3] = bones.index(offset[0]), offset[1]
        elif (towards := along(name)) is not None:
            points[k, 1], points_m[k, 3] = bones.index(towards[0]), towards[1]
    alone = np.flatnonzero(points[:, 1] == points[:, 0])  # moved by nothing, but a direction there must be
    points[alone, 1] = np.array(body.parents)[points[alone, 0]]
    return {
        "parents": np.array(body.parents), "heads": heads, "skin_bones": on, "skin_shares": share,
        "skin_m": body._point_sums_m - heads[:, on] * share[..., None], "points": points, "points_m": points_m, "turned_by": turned_by,
    }  # fmt: skip
