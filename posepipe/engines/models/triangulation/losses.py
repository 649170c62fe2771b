"""What triangulation networks are trained with: expectation over a volume, and the losses of the paper.

Iskakov et al. 2019, "Learnable Triangulation of Human Pose": soft-argmax (eq. 5, 6), clipped squared error (section 3.1), mean absolute error
with a cross entropy of the volumes (eq. 7). N items, J joints, n voxels along a side, corners included: voxel k of an axis lies at
k / (n - 1) - 0.5 of the side. Positions are shares of the side in the cube's own axes, -0.5 to 0.5.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

PAPER_BETA = 0.01
"""Weight of the cross entropy beside the mean absolute error in centimetres."""


class Expected(NamedTuple):
    """What a volume says of its joints. xyz [N,J,3]: expectation, shares of the side. spread [N,J]: one standard deviation per axis (root of the
    mean of the three axes' variances), shares of the side. probability: of every voxel, in the layout of the logits.
    """

    xyz: Tensor
    spread: Tensor
    probability: Tensor


def axis(n: int, like: Tensor) -> Tensor:
    """[n] where the voxels of an axis lie, shares of the side, with the number type and device of `like`."""
    return torch.arange(n, device=like.device, dtype=like.dtype) / (n - 1) - 0.5


def soft_argmax_3d(logits: Tensor, *, joints_last: bool = True) -> Expected:
    """Expectation of the softmax over all voxels. logits [N,n,n,n,J], or [N,J,n,n,n] where `joints_last` is False; axes x, y, z.

    Raises ValueError for logits that are not a cube of five axes.
    """
    _must_be_cubes(logits, joints_last)
    volumes = logits.movedim(-1, 1) if joints_last else logits
    probability = torch.softmax(volumes.flatten(2), dim=2).view(volumes.shape)
    at = axis(int(volumes.shape[-1]), logits)
    # The cube is a product of its axes: what is summed over the other two says all about one.
    along = torch.stack([probability.sum(dim=(3, 4)), probability.sum(dim=(2, 4)), probability.sum(dim=(2, 3))], dim=2)
    xyz = (along * at).sum(dim=-1)
    variance = (along * (at - xyz[..., None]).square()).sum(dim=-1)
    spread = variance.mean(dim=-1).clamp_min(1e-12).sqrt()  # the root has no slope at 0
    return Expected(xyz, spread, probability.movedim(1, -1) if joints_last else probability)


def volumetric_ce(probability: Tensor, xyz: Tensor, valid: Tensor | None = None, *, joints_last: bool = True) -> Tensor:
    """-log(p + 1e-6) of the voxel nearest to the truth, its mean over the valid joints (eq. 7); 0 where there is none.

    probability: as of `soft_argmax_3d`. xyz [N,J,3]: the truth, shares of the side; outside the cube its nearest voxel counts.
    valid [N,J]: 0 or 1; all where it is left out. Joints that are not valid may be NaN.
    """
    _must_be_cubes(probability, joints_last)
    volumes = probability.movedim(-1, 1) if joints_last else probability
    n = volumes.shape[-1]
    there = torch.ones(xyz.shape[:2], device=xyz.device) if valid is None else valid.to(torch.float32)
    cell = torch.where(there[..., None] > 0, (xyz + 0.5) * (n - 1), 0.0).round().long().clamp(0, n - 1)
    flat = (cell[..., 0] * n + cell[..., 1]) * n + cell[..., 2]
    p = volumes.flatten(2).gather(2, flat[..., None])[..., 0]
    return (-torch.log(p + 1e-6) * there).sum() / there.sum().clamp_min(1.0)


def mae(predicted: Tensor, truth: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean absolute error per coordinate over the valid joints. predicted, truth [N,J,3]; valid [N,J] as of `volumetric_ce`.

    The paper takes it in centimetres, beside `PAPER_BETA` of the cross entropy.
    """
    return _mean((predicted - _known(truth, predicted, valid)).abs(), valid)


def clipped_mse(predicted: Tensor, truth: Tensor, valid: Tensor | None = None, *, threshold: float = 400.0) -> Tensor:
    """Mean squared error per coordinate, where e > threshold counts as e^0.1 threshold^0.9, so that one joint that is far off does not lead.

    The paper takes centimetres: an error of 20 cm is where it begins to flatten. predicted, truth, valid: as of `mae`.
    """
    e = (predicted - _known(truth, predicted, valid)).square()
    far = e > threshold
    flat = torch.where(far, e, threshold).pow(0.1) * threshold**0.9  # both branches have a slope: the unused one must not be infinite
    return _mean(torch.where(far, flat, e), valid)


def _known(truth: Tensor, predicted: Tensor, valid: Tensor | None) -> Tensor:
    """What is not valid may be NaN, and NaN times 0 would be NaN."""
    return truth if valid is None else torch.where(valid[..., None] > 0, truth, predicted.detach())


def _mean(error: Tensor, valid: Tensor | None) -> Tensor:
    if valid is None:
        return error.mean()
    weight = valid.to(error.dtype)[..., None]
    return (error * weight).sum() / (error.shape[-1] * weight.sum().clamp_min(1.0))


def _must_be_cubes(volumes: Tensor, joints_last: bool) -> None:
    sides = [int(s) for s in (volumes.shape[1:4] if joints_last else volumes.shape[2:])]
    if volumes.dim() != 5 or len(set(sides)) != 1 or sides[0] < 2:
        wanted = "[N,n,n,n,J]" if joints_last else "[N,J,n,n,n]"
        raise ValueError(f"volumes are {wanted} with n of 2 or more, these are {list(volumes.shape)}")
