"""The step of `smooth.vibe`: VIBE's idea (recurrent encoder, iterative regressor, a body whose motion a discriminator judges) for a studio.

Instead of features of a picture it takes what triangulation found of a person, and instead of weak-perspective cameras it has the pelvis in the world. One
call is one instant of N people; everything remembered is in `state`, and a state of zeros is a person who begins: root and heading then come from
what is seen. Everything inside is seen from where the body is expected and heads, so that place and direction need not be learned.

window [N,W,17,5]: x, y, z in metres (world, z up), sigma_m and conf (0: not seen, the rest is not looked at) at the instant that is asked for and at up to W-1
instants after it (for those who accept delay; conf 0 where there is none). after_s [N,W]: seconds from the instant answered last, 0 where there is none.
As ONNX: inputs `state`, `window`, `after_s`, outputs `joints`, `spread`, `pose`, `shape`, `root`, `state_after`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from .core import BONES, Encoder, Regressor, matrices, six_of
from .forward import Forward

JOINTS, SHAPES, WINDOW = 17, 16, 9
_POSE = 6 * BONES
FITTED = 90
"""The shape is the mean of what the first so many instants of a person say of it, and stays after them: bones do not grow."""
SETTLING = 6
"""Instants until a body has come from rest to the pose that is seen; before that nothing moves on by itself."""
_PAIRS = ((5, 6), (11, 12))  # left and right shoulder and hip
_NEAR_M, _FAR = 0.05, 6.0
_CAM_M, _LONGEST_S = 0.1, 0.1
_KEPT, _FOLLOWED = 0.8, 0.5  # of the speed, and of how far what is seen lies from what was expected: where corrections begin
_PER_JOINT = 6
CARRIED_BY = (15, 15, 15, 15, 15, 9, 9, 16, 17, 18, 19, 0, 0, 1, 2, 4, 5)
"""The bones that carry key points of coco17. A detector's elbow is not the body's, nor is everybody built like it: how far a key point lies from the
body's stays the same in the frame of its bone, so that it is learned of a person while he is followed."""
_APART_M, _APART_BIAS = 0.15, -3.5
_LEARNED, _LATER = 8.0, 0.01
"""So many instants of a person count as they are; later ones less and less, to so small a share: limbs keep their length, and an error that lasts for a second
is not taken for how he is built."""


@dataclass(frozen=True, slots=True)
class Now:
    """joints [N,17,3] (those of the body, moved by what lies between) and bone heads [N,24,3] in the world, rotations [N,24,3,3], spread [N,17], shape [N,16], state [N,M]."""

    joints: Tensor
    heads: Tensor
    rotations: Tensor
    spread: Tensor
    shape: Tensor
    state: Tensor


class SmoothStep(nn.Module):
    """window and state in, body and state out."""

    def __init__(self, tables: Mapping[str, NDArray[Any]], *, features: int = 192, hidden: int = 256, rounds: int = 2) -> None:
        super().__init__()
        self.body = Forward(tables)
        self.hidden, self.rounds = hidden, rounds
        eye = torch.eye(3).expand(1, BONES, 3, 3)
        _, rest = self.body(eye, torch.zeros(1, SHAPES), torch.zeros(1, 3))
        self.register_buffer("rest", rest[0], persistent=False)
        inputs = WINDOW * (JOINTS * _PER_JOINT + 1) + 3 * 3 * JOINTS + 3 + SHAPES + 1
        self.inward = nn.Sequential(nn.Linear(inputs, features), nn.ReLU(), nn.Linear(features, features))
        self.encoder = Encoder(features, hidden)
        self.regressor = Regressor(features, hidden, shape=SHAPES, dropout=0.0)
        self.spread = nn.Linear(features, JOINTS)
        nn.init.zeros_(self.spread.weight)
        nn.init.constant_(self.spread.bias, -4.0)
        self.apart = nn.Linear(features, JOINTS)
        nn.init.zeros_(self.apart.weight)
        nn.init.constant_(self.apart.bias, _APART_BIAS)
        self.sizes = [2 * hidden, _POSE, SHAPES, 1, 3, 3, 3 * JOINTS, 3 * JOINTS, 3 * JOINTS]

    @property
    def memory(self) -> int:
        """Numbers of one person's state."""
        return sum(self.sizes)

    def forward(self, state: Tensor, window: Tensor, after_s: Tensor) -> tuple[Tensor, ...]:
        """-> joints [N,17,3], spread [N,17] (one standard deviation in each axis, metres), pose [N,24,6] (rotations of the bones in the world against the
        rest pose), shape [N,16], root [N,3], state."""
        now = self.step(state, window, after_s)
        whole = now.joints, now.spread, six_of(now.rotations), now.shape, now.heads[:, 0], now.state
        sizes = ((JOINTS, 3), (JOINTS,), (BONES, 6), (SHAPES,), (3,), (self.memory,))
        return tuple(x.reshape(-1, *size) for x, size in zip(whole, sizes, strict=True))  # an exporter sees the sizes only so

    def step(self, state: Tensor, window: Tensor, after_s: Tensor) -> Now:
        """One instant."""
        n = state.shape[0]
        memory, pose, shape, count, root, root_speed, joints, speed, apart = torch.split(state, self.sizes, dim=1)
        xyz, sigma, conf = window[..., :3], window[..., 3], window[..., 4]
        seen = (conf > 0).to(window.dtype)
        xyz = torch.where(seen[..., None] > 0, xyz, torch.zeros_like(xyz))
        fresh = (count < 0.5).to(window.dtype)
        first_pose, first_root, first_joints = self._begin(xyz[:, 0], seen[:, 0])
        pose = fresh * first_pose + (1 - fresh) * pose
        root = fresh * first_root + (1 - fresh) * root
        joints = fresh * first_joints + (1 - fresh) * joints

        turned = matrices(pose.reshape(n, BONES, 6))
        heading = heading_of(turned[:, 0])
        ahead_s = after_s[:, :1].clamp(1e-3, _LONGEST_S)
        expected_root = root + _KEPT * root_speed * ahead_s
        expected = (joints + _KEPT * speed * ahead_s).reshape(n, JOINTS, 3)
        off = torch.einsum("nji,nwkj->nwki", heading, xyz - expected[:, None]) / _NEAR_M
        off = off / (1 + off.abs() / _FAR) * seen[..., None]
        sure = (torch.log(sigma.clamp(1e-3, 1.0)) + 4) / 2 * seen
        frames = torch.cat([off.flatten(2), seen, conf * seen, sure, (after_s * 5).clamp(0, 5)[..., None]], dim=2).flatten(1)
        around = torch.einsum("nji,nkj->nki", heading, expected - expected_root[:, None]).flatten(1)
        apart = apart.reshape(n, JOINTS, 3)
        lying = torch.einsum("nji,nkj->nki", heading, torch.einsum("nkij,nkj->nki", turned[:, CARRIED_BY], apart)).flatten(1) / _NEAR_M
        moving = torch.einsum("nji,nkj->nki", heading, speed.reshape(n, JOINTS, 3)).flatten(1) / 2
        walking = torch.einsum("nji,nj->ni", heading, root_speed)
        begun = (count / FITTED).clamp(0, 1)
        features = self.inward(torch.cat([frames, around, moving, walking, shape, begun, lying], dim=1))

        out, memory = self.encoder(features[None], memory.reshape(n, 2, self.hidden).transpose(0, 1).contiguous())
        features = out[0]
        seen_pose = six_of(torch.einsum("nji,nbjk->nbik", heading, turned)).reshape(n, _POSE)
        start = off[:, 0].sum(1) / seen[:, 0].sum(1, keepdim=True).clamp(min=1) * (_FOLLOWED * _NEAR_M / _CAM_M)
        seen_pose, said, moved = self.regressor(features, seen_pose, shape, start, self.rounds)
        count = count + 1
        shape = shape + (said - shape) * torch.where(count <= FITTED, 1 / count, torch.zeros_like(count))
        shape = shape.clamp(-3, 3)
        turned = torch.einsum("nij,nbjk->nbik", heading, matrices(seen_pose.reshape(n, BONES, 6)))
        new_root = expected_root + torch.einsum("nij,nj->ni", heading, moved) * _CAM_M
        heads, new_joints = self.body(turned, shape, new_root)
        frame = turned[:, CARRIED_BY]
        share = torch.sigmoid(self.apart(F.relu(features))) * seen[:, 0] * (_LEARNED / count.clamp(min=1)).clamp(_LATER, 1.0)
        away = torch.einsum("nkji,nkj->nki", frame, xyz[:, 0] - new_joints).clamp(-_APART_M, _APART_M)
        apart = apart + share[..., None] * (away - apart)
        new_joints = new_joints + torch.einsum("nkij,nkj->nki", frame, apart)
        flat = new_joints.flatten(1)
        known = (count > SETTLING).to(window.dtype)
        root_speed, speed = known * (new_root - root) / ahead_s, known * (flat - joints) / ahead_s
        pose = six_of(turned)
        memory = memory.transpose(0, 1).reshape(n, 2 * self.hidden)
        state = torch.cat([memory, pose.reshape(n, _POSE), shape, count, new_root, root_speed, flat, speed, apart.flatten(1)], dim=1)
        spread = torch.exp(self.spread(F.relu(features.detach())).clamp(-7, 0))
        return Now(new_joints, heads, turned, spread, shape, state)

    def acquainted(self, state: Tensor, known: Tensor, shape: Tensor, apart: Tensor) -> Tensor:
        """A state [N,M] in which `known` [N] people have been followed for long: their shape [N,16], and how far their key points lie from the body's in the
        frames of the bones [N,17,3], metres, are remembered."""
        parts = list(torch.split(state, self.sizes, dim=1))
        for at, remembered in ((2, shape), (3, torch.full_like(parts[3], 2 * FITTED)), (8, apart.flatten(1))):
            parts[at] = torch.where(known[:, None], remembered, parts[at])
        return torch.cat(parts, dim=1)

    def _begin(self, xyz: Tensor, seen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Where a body stands of which xyz [N,17,3] is seen: at rest, turned as shoulders and hips say. Pose, root, joints, flat."""
        n = xyz.shape[0]
        across = torch.zeros_like(xyz[:, 0, :2])
        for left, right in _PAIRS:
            across = across + (xyz[:, left, :2] - xyz[:, right, :2]) * (seen[:, left] * seen[:, right])[:, None]
        across = across + torch.tensor([1e-4, 0.0])
        across = across / torch.sqrt((across * across).sum(1, keepdim=True))
        heading = _about_z(across[:, 0], across[:, 1])
        rest = torch.einsum("nij,kj->nki", heading, self.rest)
        share = seen / seen.sum(1, keepdim=True).clamp(min=1)
        root = torch.einsum("nki,nk->ni", xyz - rest, share)
        pose = six_of(heading[:, None].expand(n, BONES, 3, 3)).reshape(n, _POSE)
        return pose, root, (rest + root[:, None]).flatten(1)


def heading_of(pelvis: Tensor) -> Tensor:
    """The turn about the vertical [N,3,3] that is nearest to rotations [N,3,3]."""
    c, s = pelvis[:, 0, 0] + pelvis[:, 1, 1], pelvis[:, 1, 0] - pelvis[:, 0, 1]
    size = torch.sqrt(c * c + s * s + 1e-8)
    return _about_z(c / size, s / size).detach()


def _about_z(c: Tensor, s: Tensor) -> Tensor:
    zero, one = torch.zeros_like(c), torch.ones_like(c)
    return torch.stack([c, -s, zero, s, c, zero, zero, zero, one], dim=1).reshape(-1, 3, 3)
