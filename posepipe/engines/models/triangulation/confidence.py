"""The network behind `posepipe.engines.confidence`, and its training: weights for triangulation, learned through the triangulation itself.

After Iskakov et al. 2019, section 3.1, with what a heatmap and the agreement of the views show in place of the backbone's features. Nothing in it knows the
number or the order of the views: a view is described by itself, by the other joints in it and by the other views of the joint, and both are pooled; only the
layers that see the whole body know one joint from another.

The solve is the weighted point nearest to all rays, distances scaled to key point noise (so that it is what `posepipe.calib.triangulate`
finds), by 3x3 normal equations and their adjugate: no decomposition, and a gradient everywhere. A second solve weights with Tukey's biweight
of the first one's residuals, as the robust kernel does.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...confidence import AGREEMENTS, CERTAIN, INPUTS, KINDS, SHAPES
from .losses import clipped_mse

F32 = NDArray[np.float32]

_WIDE, _JOINT, _BODY, _TOLD = 48, 32, 192, 16
_KNOWN, _PLACE, _OFFSET, _DIRECTION = slice(4, 5), slice(10, 13), slice(13, 16), slice(16, 19)
"""Of the agreement: see `posepipe.calib.weighted.First`."""
_KINDS = int(KINDS.max()) + 1
_RIDGE = 1e-5
_LIMIT = 0.05 / 0.012
"""Where Tukey's biweight ends, in deviations of a certain key point: `inlier` over `sigma` of lift.algebraic."""


@dataclass(frozen=True, slots=True)
class Examples:
    """M instants of one person, V views (those that there are not are not seen), 17 joints.

    shapes [M,V,17,14], agreement [M,V,17,19], seen [M,V,17]: inputs. Lines of sight around a place near the truth, along the body's axes, in cm and deviations of a certain key
    point: normal [M,V,17,6] = A (xx, xy, xz, yy, yz, zz), onto [M,V,17,3] = A o, and rest [M,V,17] = o.A o, where A projects across the ray
    and o is the camera. truth [M,17,3]: from that place, cm; NaN: unknown, the joint does not count.
    """

    shapes: F32
    agreement: F32
    seen: F32
    normal: F32
    onto: F32
    rest: F32
    truth: F32

    def __len__(self) -> int:
        return len(self.truth)

    def rows(self, at: NDArray[np.int64]) -> Examples:
        """Some of them, without the views at the end that none of them sees anything in."""
        most = 1 + int(np.flatnonzero(self.seen[at].any(axis=(0, 2))).max(initial=0))
        return Examples(*(getattr(self, n)[at] if n == "truth" else getattr(self, n)[at, :most] for n in self.__slots__))


class Net(nn.Module):
    """Weights conf [N,V,17] of 0..1 from shapes [N,V,17,14], agreement [N,V,17,19] and seen [N,V,17] (1 or 0; not seen: meaningless).

    What the views say of a joint, and where it stands in the body, goes through layers that see the whole body; what comes out begins with where the joint
    should be instead (`both`), so that a view can be held against it: of two views that contradict each other the one is believed
    that leaves somebody who can be.
    """

    kinds: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kinds", torch.eye(_KINDS)[torch.from_numpy(KINDS)])
        joints = len(KINDS)
        self.own = nn.Sequential(nn.Linear(SHAPES + AGREEMENTS + _KINDS, _WIDE), nn.ReLU(), nn.Linear(_WIDE, _WIDE), nn.ReLU())
        self.joint = nn.Sequential(nn.Linear(2 * _WIDE + 4, _JOINT), nn.ReLU())
        self.body = nn.Sequential(
            nn.Linear(joints * _JOINT, _BODY), nn.ReLU(), nn.Linear(_BODY, _BODY), nn.ReLU(), nn.Linear(_BODY, joints * _TOLD)
        )
        self.joined = nn.Sequential(nn.Linear(4 * _WIDE + _TOLD + 4, 64), nn.ReLU(), nn.Linear(64, _WIDE), nn.ReLU(), nn.Linear(_WIDE, 1))

    def forward(self, shapes: Tensor, agreement: Tensor, seen: Tensor) -> Tensor:
        return self.both(shapes, agreement, seen)[0]

    def both(self, shapes: Tensor, agreement: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """The weights, and by how much the body would move every joint [N,17,3], decimetres along its axes."""
        there = seen[..., None]
        kinds = self.kinds.expand(shapes.shape[0], shapes.shape[1], -1, -1)
        own = self.own(torch.cat([shapes, agreement, kinds], dim=3)) * there  # not negative, so that 0 is the least
        view = (own.sum(dim=2, keepdim=True) / there.sum(dim=2, keepdim=True).clamp_min(1.0)).expand_as(own)
        count = there.sum(dim=1, keepdim=True).clamp_min(1.0)
        mean, best = own.sum(dim=1, keepdim=True) / count, own.max(dim=1, keepdim=True).values
        place, known = ((agreement[..., at] * there).sum(dim=1, keepdim=True) / count for at in (_PLACE, _KNOWN))
        told = self.body(self.joint(torch.cat([mean, best, place, known], dim=3)).flatten(1)).view(-1, 1, len(KINDS), _TOLD)
        moved, offset, direction = told[..., :3], agreement[..., _OFFSET], agreement[..., _DIRECTION]
        left = offset - (moved - (moved * direction).sum(dim=3, keepdim=True) * direction)
        after, before = left.square().sum(dim=3, keepdim=True), offset.square().sum(dim=3, keepdim=True)
        against = torch.cat(
            [torch.log(after + 0.01), torch.log(before + 0.01), (after + 1e-6).sqrt(), (after - before).clamp(-4, 4)], dim=3
        )
        said = [own, view, mean.expand_as(own), best.expand_as(own), told.expand(-1, own.shape[1], -1, -1), against]
        return torch.sigmoid(self.joined(torch.cat(said, dim=3))[..., 0]), moved[:, 0]


def nearest(normal: Tensor, onto: Tensor, weight: Tensor) -> Tensor:
    """The point [M,J,3] of least weighted squared distance to the rays. normal [M,V,J,6], onto [M,V,J,3]: as `Examples`; weight [M,V,J].

    A ridge of `_RIDGE` / cm^2 pulls rays that are almost one towards the place that the coordinates count from.
    """
    a = (normal * weight[..., None]).sum(dim=1)
    b = (onto * weight[..., None]).sum(dim=1)
    xx, xy, xz, yy, yz, zz = a.unbind(dim=-1)
    xx, yy, zz = xx + _RIDGE, yy + _RIDGE, zz + _RIDGE
    c00, c01, c02 = yy * zz - yz * yz, xz * yz - xy * zz, xy * yz - xz * yy
    c11, c12, c22 = xx * zz - xz * xz, xy * xz - xx * yz, xx * yy - xy * xy
    det = xx * c00 + xy * c01 + xz * c02
    x, y, z = b.unbind(dim=-1)
    solved = torch.stack([c00 * x + c01 * y + c02 * z, c01 * x + c11 * y + c12 * z, c02 * x + c12 * y + c22 * z], dim=-1)
    return solved / det[..., None]


def squared(normal: Tensor, onto: Tensor, rest: Tensor, point: Tensor) -> Tensor:
    """Squared distances [M,V,J] of points [M,J,3] from the rays, in deviations of a certain key point."""
    x, y, z = point[:, None].unbind(dim=-1)
    xx, xy, xz, yy, yz, zz = normal.unbind(dim=-1)
    across = x * x * xx + y * y * yy + z * z * zz + 2 * (x * y * xy + x * z * xz + y * z * yz)
    return (across - 2 * (point[:, None] * onto).sum(dim=-1) + rest).clamp_min(0)


def solve(normal: Tensor, onto: Tensor, rest: Tensor, weight: Tensor) -> Tensor:
    """`nearest`, and once more with Tukey's biweight of what it leaves."""
    first = nearest(normal, onto, weight)
    keep = (1 - squared(normal, onto, rest, first) / _LIMIT**2).clamp_min(0).square()
    return nearest(normal, onto, weight * (keep + 1e-3))


@dataclass(frozen=True, slots=True)
class Plan:
    """What decides a training. noise: weight of the likelihood of the key points' own errors, which says what a weight means. body: weight of how far the
    joints are from the truth where the body would have them."""

    steps: int = 8000
    batch: int = 128
    learning_rate: float = 2e-3
    noise: float = 0.1
    body: float = 3.0
    every: int = 500
    seed: int = 0


def train(examples: Examples, out: Path, plan: Plan = Plan(), *, kept_out: Examples, tell: Callable[[str], None] = print) -> Path:
    """Train on examples, and write `confidence.onnx` to `out`. kept_out: judged along the way, in the room of the differentiable solve."""
    torch.manual_seed(plan.seed)
    rng = np.random.default_rng(plan.seed)
    # Instants with few views are not padded to the most that there are.
    views = examples.seen.any(axis=2).sum(axis=1)
    alike = [np.flatnonzero((views > low) & (views <= high)) for low, high in ((0, 4), (4, 64))]
    alike = [at for at in alike if len(at)]
    shares = np.array([len(at) for at in alike]) / len(examples)
    net = Net()
    optimizer = torch.optim.AdamW(net.parameters(), lr=plan.learning_rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, plan.learning_rate, total_steps=plan.steps, pct_start=0.1)
    begun = time.monotonic()
    for step in range(1, plan.steps + 1):
        some = examples.rows(rng.choice(alike[rng.choice(len(alike), p=shares)], size=plan.batch))
        batch = [torch.from_numpy(a) for a in _arrays(some)]
        loss = _loss(net, batch, plan)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % plan.every == 0 or step == plan.steps:
            mean, p95 = judged(net, kept_out)
            tell(f"step {step} of {plan.steps}, {time.monotonic() - begun:.0f} s, loss {loss.item():.3f}: {mean:.2f} mm, p95 {p95:.2f} mm")
    out.mkdir(parents=True, exist_ok=True)
    return export(net, out / "confidence.onnx")


def judged(net: Callable[..., Tensor], examples: Examples) -> tuple[float, float]:
    """Mean and 95th percentile of the distance from the truth, mm, of the differentiable solve."""
    with torch.inference_mode():
        shapes, agreement, seen, normal, onto, rest, truth = (torch.from_numpy(a) for a in _arrays(examples))
        off = (solve(normal, onto, rest, net(shapes, agreement, seen) * seen) - truth).norm(dim=-1)
    off = 10 * off[off.isfinite()].numpy()
    return float(off.mean()), float(np.percentile(off, 95))


def _arrays(e: Examples) -> Iterator[F32]:
    yield from (getattr(e, name) for name in e.__slots__)


def _loss(net: Net, batch: list[Tensor], plan: Plan) -> Tensor:
    shapes, agreement, seen, normal, onto, rest, truth = batch
    conf, moved = net.both(shapes, agreement, seen)
    valid = truth.isfinite().all(dim=-1).float()
    truth = torch.nan_to_num(truth)
    point = solve(normal, onto, rest, conf * seen)
    # The paper's clipped squared error leads where views err badly, the distance itself everywhere else.
    distance = ((point - truth).square().sum(dim=-1) + 0.01).sqrt()
    where = (distance.clamp_max(60) * valid).sum() / valid.sum().clamp_min(1) + 0.02 * clipped_mse(point, truth, valid)
    error = squared(normal, onto, rest, truth)
    error = torch.where(error > 25, 25 * (1 + torch.log(error / 25)), error)
    noise = (0.5 * CERTAIN * conf * error - torch.log(conf + 1e-3)) * seen * valid[:, None]
    body = (((10 * moved - truth).square().sum(dim=-1) + 0.01).sqrt().clamp_max(60) * valid).sum() / valid.sum().clamp_min(1)
    loss: Tensor = where + plan.noise * noise.sum() / (seen * valid[:, None]).sum().clamp_min(1) + plan.body * body
    return loss


def export(net: Net, path: Path) -> Path:
    """Write it as ONNX: shapes, agreement and seen as `posepipe.engines.confidence` gives them, any number of people and views -> conf."""
    example = (torch.rand(2, 3, len(KINDS), SHAPES), torch.rand(2, 3, len(KINDS), AGREEMENTS), torch.ones(2, 3, len(KINDS)))
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    torch.onnx.export(
        net.eval(), example, str(partial), input_names=list(INPUTS), output_names=["conf"], opset_version=17, dynamo=False,
        dynamic_axes={name: {0: "N", 1: "V"} for name in (*INPUTS, "conf")},
    )  # fmt: skip
    partial.replace(path)
    return path
