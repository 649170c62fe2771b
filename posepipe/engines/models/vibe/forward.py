"""The body in torch: key points of coco17 from rotations, shape and root, so that what a network says of a body can be held against joints.

The numbers are those of `posepipe.calib.body` (handed over as arrays by the caller: engines and calib do not know each other); a test holds the two
equal. N people, B bones, K shape components.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


class Forward(nn.Module):
    """Forward kinematics. tables: as `posepipe.calib.body_tables.tables` gives them.

    heads [1+K,B,3]: bone heads at rest, mean and by component. parents [B]. skin_bones and skin_shares [S,4], skin_m [1+K,S,4,3]: key points on the skin,
    of each of four bones its share of the offset. points [17,2]: bone (or B + point on the skin) that a key point starts from, and the
    bone that it is moved towards; points_m [17,4]: an offset in the frame of the bone `turned_by` [17], and by how much it is moved.
    """

    def __init__(self, tables: Mapping[str, NDArray[Any]]) -> None:
        super().__init__()
        self.parents: list[int] = tables["parents"].tolist()
        for name in ("heads", "skin_m", "skin_shares", "points_m"):
            self.register_buffer(name, torch.tensor(np.asarray(tables[name]), dtype=torch.float32), persistent=False)
        for name in ("skin_bones", "points", "turned_by"):
            self.register_buffer(name, torch.tensor(np.asarray(tables[name]), dtype=torch.int64), persistent=False)

    def rest(self, shape: Tensor) -> Tensor:
        """Bone heads at rest [N,B,3] of shapes [N,K]."""
        heads: Tensor = self.heads  # type: ignore[assignment]
        return heads[0] + torch.einsum("nk,kbi->nbi", shape, heads[1:])

    def forward(self, rotations: Tensor, shape: Tensor, root_m: Tensor) -> tuple[Tensor, Tensor]:
        """rotations of the bones in the world [N,B,3,3], shape [N,K], root [N,3] -> bone heads [N,B,3], key points [N,17,3]."""
        rest = self.rest(shape)
        parents = torch.tensor(self.parents[1:])
        steps = torch.einsum("nbij,nbj->nbi", rotations[:, parents], rest[:, 1:] - rest[:, parents])
        heads: list[Tensor] = [root_m]
        for b, parent in enumerate(self.parents[1:]):
            heads.append(heads[parent] + steps[:, b])
        stacked = torch.stack(heads, dim=1)
        return stacked, self._points(rotations, shape, stacked)

    def _points(self, rotations: Tensor, shape: Tensor, heads: Tensor) -> Tensor:
        skin_m: Tensor = self.skin_m  # type: ignore[assignment]
        offsets = skin_m[0] + torch.einsum("nk,kspi->nspi", shape, skin_m[1:])
        bones: Tensor = self.skin_bones  # type: ignore[assignment]
        shares: Tensor = self.skin_shares  # type: ignore[assignment]
        skin = torch.einsum("nspij,nspj->nsi", rotations[:, bones], offsets) + torch.einsum("nspi,sp->nsi", heads[:, bones], shares)
        points: Tensor = self.points  # type: ignore[assignment]
        by: Tensor = self.points_m  # type: ignore[assignment]
        turned_by: Tensor = self.turned_by  # type: ignore[assignment]
        base = torch.cat([heads, skin], dim=1)[:, points[:, 0]]
        turned = torch.einsum("njkl,jl->njk", rotations[:, turned_by], by[:, :3])
        away = heads[:, points[:, 1]] - base
        length = torch.sqrt((away * away).sum(-1, keepdim=True) + 1e-12)
        return base + turned + by[:, 3:] * away / length
