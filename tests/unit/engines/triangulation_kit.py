"""Random weights with sensible statistics for the networks of learnable triangulation, and cameras that look at one place."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


def made_up(net: nn.Module, seed: int = 0) -> None:
    """Give a network random weights, and its norms statistics that are not 0 and 1; what comes out stays of the size of what goes in."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for m in net.modules():
            if isinstance(m, (nn.BatchNorm2d, nn.BatchNorm3d)):
                m.running_mean.normal_(0, 0.1, generator=generator)
                m.running_var.uniform_(0.5, 1.5, generator=generator)
                m.weight.uniform_(0.3, 0.7, generator=generator)
                m.bias.normal_(0, 0.1, generator=generator)
            elif isinstance(m, (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)):
                m.weight.normal_(0, (2 / m.weight[0].numel()) ** 0.5, generator=generator)
                if m.bias is not None:
                    m.bias.normal_(0, 0.1, generator=generator)
    net.eval()


def around(
    views: int, *, unit: float = 1.0, size_px: int = 384, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """K [V,3,3], R [V,3,3] and t [V,3] (x_camera = R X + t) of cameras on a circle of 4 m, 1 to 2.5 m high, that look at (1, 2, 0.9) m; unit: how
    many of the world's units are a metre."""
    rng = np.random.default_rng(seed)
    target = np.array([1.0, 2.0, 0.9])
    k, r, t = np.empty((views, 3, 3)), np.empty((views, 3, 3)), np.empty((views, 3))
    for v in range(views):
        angle = 2 * np.pi * (v + rng.uniform(-0.2, 0.2)) / views
        eye = np.array([target[0] + 4 * np.cos(angle), target[1] + 4 * np.sin(angle), rng.uniform(1, 2.5)])
        forward = (target - eye) / np.linalg.norm(target - eye)
        right = np.cross(forward, [0, 0, 1])
        right /= np.linalg.norm(right)
        r[v] = np.stack([right, np.cross(forward, right), forward])
        t[v] = -r[v] @ eye * unit
        focal = size_px * rng.uniform(1.3, 1.6)
        k[v] = [[focal, 0, size_px / 2 + rng.uniform(-9, 9)], [0, focal, size_px / 2 + rng.uniform(-9, 9)], [0, 0, 1]]
    return k, r, t


def projections(views: int, *, unit: float = 1.0, size_px: int = 384, seed: int = 0) -> Tensor:
    """[1,V,3,4] of `around`, float32."""
    k, r, t = around(views, unit=unit, size_px=size_px, seed=seed)
    return torch.from_numpy((k @ np.concatenate([r, t[..., None]], axis=2)).astype(np.float32))[None]
