"""SMPL in torch, as VIBE's losses and comparisons look at bodies: vertices, the 49 joints of SPIN and VIBE, and where these are in the crop.

The arrays are those of `posepipe.calib.smpl_file` (handed over by the caller: engines and calib do not know each other); a test holds the two equal. N
bodies, V = 6890 vertices, K shape components; SMPL's own axes (y up) turned by the rotation of the pelvis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .published import PICTURE_PX

FOCAL_PX = 5000.0
_NEVER_ZERO = 1e-9
_FIRST_EXTRA = 45


class Smpl(nn.Module):
    """arrays: template [V,3], shapes [V,3,K], poses [V,3,207], regressor [24,V], weights [V,24], extra [9,V]. parents [24], the pelvis' negative. picked:
    vertices that are joints; chosen: of the 24, the picked, and from number 45 the extra ones, which are given and in what order.
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]], *, parents: Sequence[int], picked: Sequence[int], chosen: Sequence[int]) -> None:
        super().__init__()
        a = {name: torch.tensor(array, dtype=torch.float32) for name, array in arrays.items()}
        self.parents = tuple(parents)
        self.shapes = nn.Buffer(a["shapes"], persistent=False)
        self.template = nn.Buffer(a["template"], persistent=False)
        self.poses = nn.Buffer(a["poses"].flatten(0, 1), persistent=False)
        self.weights = nn.Buffer(a["weights"], persistent=False)
        self.heads = nn.Buffer(a["regressor"] @ a["template"], persistent=False)
        self.heads_by_shape = nn.Buffer(torch.einsum("jv,vik->jik", a["regressor"], a["shapes"]), persistent=False)
        self.extra = nn.Buffer(a["extra"], persistent=False)
        self.picked = nn.Buffer(torch.tensor(picked), persistent=False)
        places = [k if k < len(parents) + len(picked) else k - _FIRST_EXTRA + len(parents) + len(picked) for k in chosen]
        self.chosen = nn.Buffer(torch.tensor(places), persistent=False)

    def forward(self, rotations: Tensor, shape: Tensor) -> tuple[Tensor, Tensor]:
        """rotations [N,24,3,3] (the pelvis, and each bone against its parent), shape [N,K] -> vertices [N,V,3], joints [N,49,3], metres."""
        n = rotations.shape[0]
        bent = (rotations[:, 1:] - torch.eye(3)).flatten(1)
        skin = self.template + torch.einsum("nk,vik->nvi", shape, self.shapes) + (bent @ self.poses.T).reshape(n, -1, 3)
        rest = self.heads + torch.einsum("nk,jik->nji", shape, self.heads_by_shape)
        turned, heads = [rotations[:, 0]], [rest[:, 0]]
        for b, parent in list(enumerate(self.parents))[1:]:
            heads.append(heads[parent] + torch.einsum("nij,nj->ni", turned[parent], rest[:, b] - rest[:, parent]))
            turned.append(turned[parent] @ rotations[:, b])
        turns, joints = torch.stack(turned, dim=1), torch.stack(heads, dim=1)
        shifts = joints - torch.einsum("nbij,nbj->nbi", turns, rest)
        moves = torch.einsum("vb,nbk->nvk", self.weights, torch.cat([turns, shifts[..., None]], dim=3).flatten(2)).reshape(n, -1, 3, 4)
        vertices = torch.einsum("nvij,nvj->nvi", moves[..., :3], skin) + moves[..., 3]
        regressed = torch.einsum("jv,nvi->nji", self.extra, vertices)
        return vertices, torch.cat([joints, vertices[:, self.picked], regressed], dim=1)[:, self.chosen]


def project(joints: Tensor, cam: Tensor) -> Tensor:
    """Where joints [N,J,3] of a body are in the crop that cam [N,3] (s, tx, ty) was said of: [N,J,2], -1 to 1 from edge to edge. The weak perspective is
    a camera of focal length 5000 at the distance at which the body has the size s, as SPIN and VIBE have it."""
    away = 2 * FOCAL_PX / (PICTURE_PX * cam[:, 0] + _NEVER_ZERO)
    seen = joints + torch.stack([cam[:, 1], cam[:, 2], away], dim=-1)[:, None]
    return FOCAL_PX * seen[..., :2] / seen[..., 2:] / (PICTURE_PX / 2)
