"""What the published network and `smooth.vibe` share: the recurrent encoder, the iterative regressor and the motion discriminator.

With the sizes that are the defaults these are the modules of VIBE (Kocabas, Athanasiou, Black, CVPR 2020, sections 3.1 and 3.2; layers and names as
the released configuration has them), so that its checkpoints load key by key. N people, T instants, F features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FEATURES, HIDDEN, BONES = 2048, 1024, 24
_TINY = 1e-6


class Encoder(nn.Module):
    """A GRU over time, causal, and back to as many features as came in, added to them."""

    def __init__(self, features: int = FEATURES, hidden: int = HIDDEN, layers: int = 2) -> None:
        super().__init__()
        self.gru = nn.GRU(features, hidden, layers)
        self.linear = nn.Linear(hidden, features)

    def forward(self, features: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """features [T,N,F], state [layers,N,hidden] (None: zero) -> features [T,N,F], state after the last instant."""
        seen, state = self.gru(features, state)
        return self.linear(F.relu(seen)) + features, state


class Regressor(nn.Module):
    """Body parameters by corrections to a first estimate, in a few rounds that share their weights (no activation between the layers)."""

    def __init__(
        self, features: int = FEATURES, hidden: int = HIDDEN, *, pose: int = 6 * BONES, shape: int = 10, cam: int = 3, dropout: float = 0.5
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(features + pose + shape + cam, hidden)
        self.drop1 = nn.Dropout(dropout)
        self.fc2 = nn.Linear(hidden, hidden)
        self.drop2 = nn.Dropout(dropout)
        self.decpose, self.decshape, self.deccam = nn.Linear(hidden, pose), nn.Linear(hidden, shape), nn.Linear(hidden, cam)
        for head in (self.decpose, self.decshape, self.deccam):
            nn.init.xavier_uniform_(head.weight, gain=0.01)

    def forward(self, features: Tensor, pose: Tensor, shape: Tensor, cam: Tensor, rounds: int = 3) -> tuple[Tensor, Tensor, Tensor]:
        """features [N,F]; first estimates pose [N,6 bones], shape [N,S], cam [N,C] -> the same, corrected."""
        for _ in range(rounds):
            x = torch.cat([features, pose, shape, cam], dim=1)
            x = self.drop2(self.fc2(self.drop1(self.fc1(x))))
            pose, shape, cam = pose + self.decpose(x), shape + self.decshape(x), cam + self.deccam(x)
        return pose, shape, cam


class Attention(nn.Module):
    """How much every instant counts (self-attention pooling, section 3.2; layers and places of dropout as released)."""

    def __init__(self, size: int = HIDDEN, layers: int = 2, dropout: float = 0.2) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for _ in range(layers):
            parts += [nn.Linear(size, size), nn.Tanh(), nn.Dropout(dropout)]
        self.attention = nn.Sequential(*parts, nn.Linear(size, 1), nn.Tanh(), nn.Dropout(dropout))

    def forward(self, seen: Tensor) -> Tensor:
        """seen [N,T,H] -> [N,H]."""
        shares = torch.softmax(self.attention(seen), dim=1)
        return (shares * seen).sum(dim=1)


class MotionDiscriminator(nn.Module):
    """Whether a motion [N,T,inputs] was recorded (near 1) or made up (near 0): [N,1]."""

    def __init__(self, inputs: int = 69, hidden: int = HIDDEN, *, layers: int = 2, attention_layers: int = 2, dropout: float = 0.2) -> None:
        super().__init__()
        self.gru = nn.GRU(inputs, hidden, layers)
        self.attention = Attention(hidden, attention_layers, dropout)
        self.fc = nn.Linear(hidden, 1)

    def forward(self, motion: Tensor) -> Tensor:
        seen, _ = self.gru(motion.transpose(0, 1))
        judged: Tensor = self.fc(self.attention(seen.transpose(0, 1)))
        return judged


def matrices(six: Tensor) -> Tensor:
    """Rotation matrices [...,3,3] of six numbers [...,6]: the first two columns, row by row (Zhou et al. 2019, section 4), made orthonormal."""
    a = six.reshape(*six.shape[:-1], 3, 2)
    x = _unit(a[..., 0])
    y = _unit(a[..., 1] - (x * a[..., 1]).sum(-1, keepdim=True) * x)
    z = torch.stack(
        [x[..., 1] * y[..., 2] - x[..., 2] * y[..., 1], x[..., 2] * y[..., 0] - x[..., 0] * y[..., 2], x[..., 0] * y[..., 1] - x[..., 1] * y[..., 0]],
        dim=-1,
    )  # fmt: skip
    return torch.stack([x, y, z], dim=-1)


def six_of(rotations: Tensor) -> Tensor:
    """Six numbers [...,6] of rotation matrices [...,3,3]."""
    return rotations[..., :2].flatten(-2)


def least_squares(real: Tensor, fake: Tensor) -> Tensor:
    """The discriminator's loss (Mao et al. 2017): recorded motion is to be 1, made-up motion 0."""
    loss: Tensor = ((real - 1) ** 2).mean() + (fake**2).mean()
    return loss


def _unit(v: Tensor) -> Tensor:
    return v / torch.sqrt((v * v).sum(-1, keepdim=True) + _TINY * _TINY)
