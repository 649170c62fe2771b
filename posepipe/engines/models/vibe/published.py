"""VIBE as it was published (Kocabas, Athanasiou, Black, CVPR 2020), and the ResNet-50 of SPIN (Kolotouros et al., ICCV 2019) before it.

Attributes have the names of the published checkpoints: `Vibe` those of `gen_state_dict`, `Features` and `MeanRegressor` together those of SPIN's
`model`. The network is causal: one instant at a time, with the state handed on, is the whole sequence. N people, T instants.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...engine import EngineOptions, open_engine
from ..onnx_file import onnx_file
from ..triangulation.resnet import ResNet
from .core import BONES, FEATURES, HIDDEN, Encoder, Regressor, matrices

PICTURE_PX = 224
SHAPES = 10
LAYERS = 2
ROUNDS = 3
_UPRIGHT = (1.0, 0.0, 0.0, 1.0, 0.0, 0.0)


class Bodies(NamedTuple):
    """What VIBE says. theta [...,85]: weak-perspective camera (s, tx, ty), 24 rotations as axis and angle (72, the pelvis in the camera's axes, the others
    against their parent), shape (10). rotations [...,24,3,3]: the same as matrices. state [2,N,1024] after the last instant.
    """

    theta: Tensor
    rotations: Tensor
    state: Tensor


class Features(ResNet):
    """Crops [B,3,224,224] float32, RGB, (value / 255 - mean) / std of ImageNet -> [B,2048]."""

    def __init__(self) -> None:
        super().__init__(50)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.deep(pictures).mean(dim=(2, 3))


class MeanRegressor(Regressor):
    """The regressor with the mean that it begins at, which comes with the weights (`smpl_mean_params.npz`)."""

    def __init__(self) -> None:
        super().__init__()
        self.init_pose = nn.Buffer(torch.tensor(_UPRIGHT).repeat(BONES)[None])
        self.init_shape = nn.Buffer(torch.zeros(1, SHAPES))
        self.init_cam = nn.Buffer(torch.tensor([[1.0, 0.0, 0.0]]))

    def from_mean(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """features [M,2048] -> theta [M,85], rotations [M,24,3,3]."""
        n = features.shape[0]
        first = (self.init_pose.expand(n, -1), self.init_shape.expand(n, -1), self.init_cam.expand(n, -1))
        pose, shape, cam = self(features, *first, ROUNDS)
        rotations = matrices(pose.reshape(n, BONES, 6))
        return torch.cat([cam, axis_angle(rotations).flatten(1), shape], dim=1), rotations


class Vibe(nn.Module):
    """Features of a person's crops -> a body for every instant."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.regressor = MeanRegressor()

    def forward(self, features: Tensor, state: Tensor | None = None) -> Bodies:
        """features [N,T,2048]; state [2,N,1024] of the instants before (None: there were none)."""
        n, t = features.shape[:2]
        seen, state = self.encoder(features.transpose(0, 1), state)
        theta, rotations = self.regressor.from_mean(seen.transpose(0, 1).reshape(n * t, FEATURES))
        return Bodies(theta.reshape(n, t, -1), rotations.reshape(n, t, BONES, 3, 3), state)


class Step(nn.Module):
    """One instant, the batch first everywhere, and the recurrent cells as products: no runtime has to make a loop of them.

    features [N,2048], state [N,2,1024] (zeros for who begins) -> theta [N,85], rotations [N,24,3,3], state [N,2,1024]. The weights are those of `net`.
    """

    def __init__(self, net: Vibe) -> None:
        super().__init__()
        self.net = net

    def forward(self, features: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        gru, below, after = self.net.encoder.gru, features, []
        for layer in range(LAYERS):
            w_ih, w_hh, b_ih, b_hh = (getattr(gru, f"{name}_l{layer}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
            below = _cell(F.linear(below, w_ih, b_ih), F.linear(state[:, layer], w_hh, b_hh), state[:, layer])
            after.append(below)
        seen = self.net.encoder.linear(F.relu(below)) + features
        theta, rotations = self.net.regressor.from_mean(seen)
        return theta, rotations, torch.stack(after, dim=1)


def step_network(net: Vibe) -> bytes:
    """The step as ONNX. `features` [N,2048], `state` [N,2,1024] -> `theta` [N,85], `rotations` [N,24,3,3], `state_after` [N,2,1024]."""
    inputs = {"features": (torch.zeros(2, FEATURES), ("N",)), "state": (torch.zeros(2, LAYERS, HIDDEN), ("N",))}
    return onnx_file(Step(net), inputs, dict.fromkeys(("theta", "rotations", "state_after"), ("N",)))


def features_network(net: Features) -> bytes:
    """The features as ONNX. `picture` [B,3,224,224] -> `features` [B,2048]."""
    return onnx_file(net, {"picture": (torch.zeros(2, 3, PICTURE_PX, PICTURE_PX), ("B",))}, {"features": ("B",)})


def apart(net: Vibe, step: Path) -> float:
    """How far the file of a step, run by ONNX Runtime one instant after the other, is from the network over all of them: the largest difference in rotations
    and state, of two made-up people over eight instants. EngineError where the file cannot be run."""
    features = np.abs(np.random.default_rng(0).standard_normal((2, 8, FEATURES), np.float32))
    with torch.inference_mode():
        whole = net(torch.from_numpy(features))
    state, rotations = np.zeros((2, LAYERS, HIDDEN), np.float32), []
    with open_engine(step, EngineOptions(threads=1, precision="fp32", runtime="onnxruntime", device="cpu")) as engine:
        for t in range(features.shape[1]):
            answer = engine({"features": features[:, t], "state": state})
            rotations.append(answer["rotations"].copy())
            state = answer["state_after"].copy()
    off = np.abs(np.stack(rotations, axis=1) - whole.rotations.numpy()).max()
    return float(max(off, np.abs(state - whole.state.transpose(0, 1).numpy()).max()))


def axis_angle(rotations: Tensor) -> Tensor:
    """Axes times angles [...,3] (0 to pi, radians) of rotation matrices [...,3,3].

    By way of quaternions, of the four ways to one that with the largest divisor (Shepperd 1978); the angle is 4 atan(sin(a/2) / (1 + cos(a/2))), which has
    no place where it breaks down.
    """
    m = rotations
    x, y, z = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    a, b, c = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    p, q, r = m[..., 0, 1] + m[..., 1, 0], m[..., 0, 2] + m[..., 2, 0], m[..., 1, 2] + m[..., 2, 1]
    ways = (
        torch.stack([1 + x + y + z, a, b, c], dim=-1),
        torch.stack([a, 1 + x - y - z, p, q], dim=-1),
        torch.stack([b, p, 1 - x + y - z, r], dim=-1),
        torch.stack([c, q, r, 1 - x - y + z], dim=-1),
    )
    best, divisor = ways[0], ways[0][..., :1]
    for k in (1, 2, 3):
        larger = ways[k][..., k : k + 1] > divisor
        best, divisor = torch.where(larger, ways[k], best), torch.where(larger, ways[k][..., k : k + 1], divisor)
    best = best / torch.sqrt((best * best).sum(-1, keepdim=True))
    best = torch.where(best[..., :1] < 0, -best, best)
    sin = torch.sqrt((best[..., 1:] * best[..., 1:]).sum(-1, keepdim=True))
    angle = 4 * torch.atan(sin / (1 + best[..., :1]))
    return best[..., 1:] * torch.where(sin > 1e-6, angle / sin.clamp_min(1e-6), torch.full_like(sin, 2.0))


def _cell(of_input: Tensor, of_state: Tensor, state: Tensor) -> Tensor:
    """A gated recurrent unit (Cho et al. 2014, in torch's order: reset, update, new) from its two products [N,3 H]."""
    reset_in, update_in, new_in = of_input.chunk(3, dim=1)
    reset, update, new = of_state.chunk(3, dim=1)
    new = torch.tanh(new_in + torch.sigmoid(reset_in + reset) * new)
    return new + torch.sigmoid(update_in + update) * (state - new)
