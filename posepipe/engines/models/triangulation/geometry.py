"""What stands between the networks of learnable triangulation, as differentiable torch: expectation over heatmaps, the solve, the cube of
voxels, and how features are carried into it. All of it exports to ONNX.

N items (people), V views, J joints, K points. Projection matrices [N,V,3,4] map world points to pixels: of the crop, after its resize, without
distortion; units of the world are the caller's (one unit throughout). After Iskakov et al. 2019, sections 3.1 and 3.3.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from .losses import axis

Aggregation = Literal["sum", "max", "softmax", "conf", "conf_norm"]
MULTIPLIER = 100.0
"""By which heatmaps are multiplied before their softmax."""
LEAST = 1e-5
"""Added to normalised confidences, so that a joint that nobody trusts is still solved."""
_OUTSIDE = -3.0


def soft_argmax_2d(heatmaps: Tensor, *, multiplier: float = MULTIPLIER) -> tuple[Tensor, Tensor]:
    """Expectation xy [B,J,2] of the softmax over the cells of heatmaps [B,J,h,w], in cells from 0, and that softmax [B,J,h,w]."""
    probability = torch.softmax((heatmaps * multiplier).flatten(2), dim=2).view(heatmaps.shape)
    rows, columns = (torch.arange(int(s), device=heatmaps.device, dtype=heatmaps.dtype) for s in heatmaps.shape[2:])
    x, y = (probability.sum(dim=2) * columns).sum(dim=2), (probability.sum(dim=3) * rows).sum(dim=2)
    return torch.stack([x, y], dim=-1), probability


def normalised(confidences: Tensor) -> Tensor:
    """Confidences [N,V,J] as the solve takes them: shares of their sum over the views, plus `LEAST`."""
    return confidences / confidences.sum(dim=1, keepdim=True) + LEAST


def solve(points: Tensor, projections: Tensor, weights: Tensor) -> Tensor:
    """World points xyz [N,J,3] of points [N,V,J,2] in pixels, seen by projections [N,V,3,4], with weights [N,V,J] (0: not seen).

    Linear least squares with the homogeneous coordinate fixed to 1 (Hartley and Zisserman, section 12.2), by 3x3 normal equations in closed
    form. The published code takes the singular vector instead, which fixes the norm of all four coordinates: equal for rays that meet,
    and it depends on where the origin lies and on the unit, this does not. Rays that are (almost) one give finite numbers without meaning.
    """
    matrices, centre, scale = _centred(projections)
    rows = points[..., None] * matrices[:, :, None, 2:3] - matrices[:, :, None, :2]  # [N,V,J,2,4]
    rows = rows * weights[..., None, None]
    # Sums of products rather than a matrix product: a conversion to float16 leaves them in float32.
    normal = (rows[..., :, None] * rows[..., None, :]).sum(dim=(1, 3))  # [N,J,4,4]
    trace = normal[..., 0, 0] + normal[..., 1, 1] + normal[..., 2, 2]
    normal = normal / trace.clamp_min(1e-30)[..., None, None]
    a, b, c, right = normal[..., 0, :3], normal[..., 1, :3], normal[..., 2, :3], -normal[..., :3, 3]
    bc, ca, ab = _cross(b, c), _cross(c, a), _cross(a, b)
    determinant = (a * bc).sum(dim=-1, keepdim=True).clamp_min(1e-12)
    found = (bc * right[..., 0:1] + ca * right[..., 1:2] + ab * right[..., 2:3]) / determinant
    return found * scale[:, None, None] + centre[:, None]


def _centred(projections: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The projections of a world whose origin is the middle of the cameras and whose unit their mean distance to it, with rows of depth of the
    length 1; that middle [N,3] and unit [N]. Coordinates in millimetres far from the origin would leave float32's digits otherwise."""
    a, b, c = projections[..., 0, :3], projections[..., 1, :3], projections[..., 2, :3]
    t = projections[..., 3]
    bc, ca, ab = _cross(b, c), _cross(c, a), _cross(a, b)
    eyes = -(bc * t[..., 0:1] + ca * t[..., 1:2] + ab * t[..., 2:3]) / (a * bc).sum(dim=-1, keepdim=True)
    centre = eyes.mean(dim=1)
    scale = (eyes - centre[:, None]).square().sum(dim=-1).sqrt().mean(dim=1).clamp_min(1e-6)
    linear, moved = projections[..., :3] * scale[:, None, None, None], (projections[..., :3] * centre[:, None, None]).sum(dim=-1) + t
    length = c.square().sum(dim=-1).sqrt() * scale[:, None]
    return torch.cat([linear, moved[..., None]], dim=-1) / length[..., None, None], centre, scale


def _cross(a: Tensor, b: Tensor) -> Tensor:
    (ax, ay, az), (bx, by, bz) = a.unbind(-1), b.unbind(-1)
    return torch.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], dim=-1)


def random_yaw(count: int, generator: torch.Generator | None = None) -> Tensor:
    """[count] angles about the vertical, 0 to 2 pi: the paper turns every cube by one in training."""
    return torch.rand(count, generator=generator) * (2 * torch.pi)


def to_world(shares: Tensor, centre: Tensor, side: float, yaw: Tensor | None = None) -> Tensor:
    """Points [N,...,3] of cubes, shares of the side in the cubes' own axes, in the world: turned by yaw [N] about z, then moved to centre [N,3]."""
    shape = (len(shares),) + (1,) * (shares.dim() - 2)
    x, y, z = (shares * side).unbind(-1)
    if yaw is not None:
        cos, sin = torch.cos(yaw).view(shape), torch.sin(yaw).view(shape)
        x, y = cos * x - sin * y, sin * x + cos * y
    return torch.stack([x, y, z], dim=-1) + centre.view(*shape, 3)


def coordinate_volume(centre: Tensor, side: float, n: int, yaw: Tensor | None = None) -> Tensor:
    """Where the voxels of cubes lie in the world [N,n,n,n,3], axes x, y, z of the cube, corners included. centre [N,3], yaw [N] about z."""
    at = axis(n, centre)
    grid = torch.stack(torch.meshgrid(at, at, at, indexing="ij"), dim=-1)
    return to_world(grid.expand(len(centre), n, n, n, 3), centre, side, yaw)


def of_maps(projections: Tensor, *, picture: tuple[int, int], maps: tuple[int, int]) -> Tensor:
    """Projections to the pixels of maps instead of pictures; sizes are (height, width)."""
    ratio = [maps[1] / picture[1], maps[0] / picture[0], 1.0]
    return projections * torch.tensor(ratio, device=projections.device, dtype=projections.dtype)[:, None]


def sampling_grid(projections: Tensor, points: Tensor, *, size: tuple[int, int]) -> Tensor:
    """Where world points [N,K,3] lie in maps of size (height, width), as `grid_sample` takes it [N,V,K,2]; far outside for points that are not in
    front of the camera. projections [N,V,3,4]: to pixels of the maps.

    As published: 2 (x / width - 0.5), although -1 and 1 are read as the centres of the first and the last pixel, which draws the picture together by
    1 / width. Weights trained with it expect it. (The published code divides x by the height, which is the same for its square maps.)
    """
    image = points[:, None] @ projections[..., :3].transpose(-1, -2) + projections[:, :, None, :, 3]
    depth = image[..., 2:3]
    in_front = depth > 0
    xy = image[..., :2] / torch.where(in_front, depth, 1.0)
    extent = torch.tensor([size[1], size[0]], device=points.device, dtype=points.dtype)
    return torch.where(in_front, 2 * (xy / extent - 0.5), _OUTSIDE)


def sample(features: Tensor, grid: Tensor) -> Tensor:
    """Features [N,V,C,h,w] at grid [N,V,K,2] (of `sampling_grid`): [N,V,C,K], bilinear, 0 outside the map. One sampling of pictures, not of volumes,
    which TensorRT takes."""
    n, v, c, k = *features.shape[:3], grid.shape[2]
    found = F.grid_sample(features.flatten(0, 1), grid.reshape(n * v, k, 1, 2), align_corners=True)
    return found.view(n, v, c, k)


def aggregate(values: Tensor, how: Aggregation, *, confidences: Tensor | None = None, seen: Tensor | None = None) -> Tensor:
    """What the views say of K points [N,V,C,K] as one opinion [N,C,K].

    softmax: every view weighs as much as the softmax over the views of its own value. conf: confidences [N,V,C] times values. conf_norm: the same
    with confidences that are shares of their sum over the views. seen [N,V]: views that are False do not count (the published code has no such
    views); all of them where it is left out. Raises ValueError: `conf` and `conf_norm` without confidences.
    """
    there = None if seen is None else seen[:, :, None, None]
    if how == "max":
        return (values if there is None else values.masked_fill(~there, -torch.inf)).amax(dim=1)
    if how == "softmax":
        weights = torch.softmax(values if there is None else values.masked_fill(~there, -torch.inf), dim=1)
    elif how == "sum":
        weights = torch.ones_like(values[:, :, :1, :1]) if there is None else there.to(values.dtype)
    else:
        if confidences is None:
            raise ValueError(f"the aggregation {how} needs confidences")
        trust = confidences if seen is None else confidences * seen[..., None].to(confidences.dtype)
        weights = (trust / trust.sum(dim=1, keepdim=True) if how == "conf_norm" else trust)[..., None]
    return (values * weights).sum(dim=1)
