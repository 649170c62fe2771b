"""The filter does what the paper's equations say, on the time stamps that the data has, for every person apart."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from node_kit import MS, T0_NS, Studio, caps, packet, poses

from posepipe.nodes.smooth_one_euro import SmoothOneEuro

JOINTS = 17
PERIOD_MS = 16.0


class OneEuro:
    """Casiez, Roussel, Vogel (CHI 2012), algorithms 1 and 2, for one coordinate."""

    def __init__(self, *, min_cutoff: float, beta: float, d_cutoff: float) -> None:
        self.min_cutoff, self.beta, self.d_cutoff = min_cutoff, beta, d_cutoff
        self.x: float | None = None
        self.dx = 0.0
        self.t = 0.0

    @staticmethod
    def alpha(cutoff: float, te: float) -> float:
        tau = 1.0 / (2 * math.pi * cutoff)
        return 1.0 / (1.0 + tau / te)

    def __call__(self, value: float, t: float) -> float:
        if self.x is None:
            self.x, self.t = value, t
            return value
        te, self.t = t - self.t, t
        a = self.alpha(self.d_cutoff, te)
        self.dx = a * (value - self.x) / te + (1 - a) * self.dx
        a = self.alpha(self.min_cutoff + self.beta * abs(self.dx), te)
        self.x = a * value + (1 - a) * self.x
        return self.x


def smoother(**own: Any) -> SmoothOneEuro:
    node = SmoothOneEuro(SmoothOneEuro.Settings(**{"limbs": False, **own}))
    node.open(Studio().context(caps=caps("poses", skeleton="coco17")))
    return node


def skeletons(*people: Any) -> np.ndarray[Any, Any]:
    """[P,17,3] with all joints of a person at one point."""
    return np.stack([np.tile(np.asarray(p, np.float64), (JOINTS, 1)) for p in people])


def step(node: SmoothOneEuro, xyz_m: np.ndarray[Any, Any], ms: float, **other: Any) -> np.ndarray[Any, Any]:
    body = node.step(packet(poses(xyz_m, skeleton="coco17", **other), t_ns=T0_NS + int(ms * MS)))
    return body.xyz_m


samples = st.lists(st.tuples(st.floats(-3, 3), st.floats(1, 120)), min_size=1, max_size=30)
cutoffs = st.floats(0.1, 20)


@settings(max_examples=60, deadline=None)
@given(samples, cutoffs, st.floats(0, 20), cutoffs)
def test_along_one_axis_it_is_the_papers_filter(path: list[tuple[float, float]], min_cutoff: float, beta: float, d_cutoff: float) -> None:
    node = smoother(min_cutoff=min_cutoff, beta=beta, speed_cutoff=d_cutoff)
    paper = OneEuro(min_cutoff=min_cutoff, beta=beta, d_cutoff=d_cutoff)
    ms = 0.0
    for x, wait_ms in path:
        ms += wait_ms
        t_s = int(ms * MS) / 1e9
        x = float(np.float32(x))
        got = step(node, skeletons((0, x, 0)), ms)
        assert got[0, :, 1] == pytest.approx(paper(x, t_s), abs=1e-5)
        assert np.all(got[0, :, [0, 2]] == 0)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(-3, 3), st.floats(-3, 3), st.floats(-3, 3)), min_size=1, max_size=20), cutoffs)
def test_without_beta_every_coordinate_is_filtered_by_itself(path: list[tuple[float, float, float]], min_cutoff: float) -> None:
    node = smoother(min_cutoff=min_cutoff, beta=0)
    paper = [OneEuro(min_cutoff=min_cutoff, beta=0, d_cutoff=1.5) for _ in range(3)]
    for i, point in enumerate(np.float32(path)):
        want = [filter_(float(x), i * PERIOD_MS / 1e3) for filter_, x in zip(paper, point, strict=True)]
        assert step(node, skeletons(point), i * PERIOD_MS)[0] == pytest.approx(np.tile(want, (JOINTS, 1)), abs=1e-5)


def test_the_cutoff_follows_the_speed_in_space_whatever_the_direction() -> None:
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0]
    straight, turned = smoother(), smoother()
    for i in range(40):
        point = np.array([0.002 * i * i, 0.0, 0.0])
        a, b = step(straight, skeletons(point), i * PERIOD_MS), step(turned, skeletons(turn @ point), i * PERIOD_MS)
        assert a[0] @ turn.T == pytest.approx(b[0], abs=1e-5)


def test_at_rest_it_calms_and_in_motion_it_follows() -> None:
    rng, node = np.random.default_rng(3), smoother()
    noise_m = 0.01 * rng.standard_normal((200, JOINTS, 3))
    out = np.array([step(node, noise_m[i][None], i * PERIOD_MS)[0] for i in range(200)])
    assert out[50:].std() < 0.5 * noise_m[50:].std()
    ahead = [step(node, skeletons((0.03 * i, 0, 0)), 1e4 + i * PERIOD_MS)[0, 0, 0] for i in range(60)]
    assert 0.03 * 59 - ahead[-1] < 0.05, "at 1.9 m/s it lags less than 5 cm"


def test_what_was_not_seen_stays_unseen_and_what_comes_back_soon_goes_on() -> None:
    node = smoother(forget_ms=300)
    for i in range(10):
        step(node, skeletons((0, 0, 1)), i * PERIOD_MS)
    hidden = skeletons((0, 0, 1))
    hidden[0, 5] = np.nan
    out = step(node, hidden, 10 * PERIOD_MS)
    assert np.isnan(out[0, 5]).all()
    assert np.isfinite(np.delete(out[0], 5, axis=0)).all()
    back = step(node, skeletons((0, 0, 1.1)), 11 * PERIOD_MS)[0, 5, 2]
    assert 1.0 < back < 1.1, "two periods later it is filtered, not restarted"


def test_a_joint_unseen_for_long_starts_afresh() -> None:
    node = smoother(forget_ms=300)
    for i in range(10):
        step(node, skeletons((0, 0, 1)), i * PERIOD_MS)
    assert step(node, skeletons((0, 0, 2)), 9 * PERIOD_MS + 299)[0, 0, 2] < 2
    node = smoother(forget_ms=300)
    step(node, skeletons((0, 0, 1)), 0)
    assert np.all(step(node, skeletons((0, 0, 2)), 300.1)[0, :, 2] == 2)


def test_a_joint_starts_afresh_by_itself() -> None:
    node = smoother(forget_ms=300)
    hidden = skeletons((0, 0, 1))
    hidden[0, 5] = np.nan
    for i in range(30):
        step(node, skeletons((0, 0, 1)) if i == 0 else hidden, i * PERIOD_MS)
    back = step(node, skeletons((0, 0, 2)), 30 * PERIOD_MS)[0, :, 2]
    assert back[5] == 2
    assert back[6] < 2


def test_confidence_zero_is_unseen_even_where_there_are_numbers() -> None:
    node, conf = smoother(), np.ones((1, JOINTS), np.float32)
    conf[0, 3] = 0
    assert np.isnan(step(node, skeletons((1, 2, 3)), 0, conf=conf)[0, 3]).all()


def test_people_are_kept_apart_by_identity_and_not_by_place_in_the_list() -> None:
    both, alone = smoother(), smoother()
    rng = np.random.default_rng(5)
    for i in range(30):
        a, b = rng.normal(0, 0.1, 3), rng.normal(4, 0.1, 3)
        order = [(7, a), (2, b)] if i % 2 else [(2, b), (7, a)]
        out = step(both, skeletons(*(p for _, p in order)), i * PERIOD_MS, ids=tuple(k for k, _ in order))
        want = step(alone, skeletons(a), i * PERIOD_MS, ids=(7,))[0]
        assert np.array_equal(out[[k for k, _ in order].index(7)], want)


def test_a_stamp_that_does_not_move_or_goes_back_restarts_instead_of_dividing_by_zero() -> None:
    node = smoother()
    step(node, skeletons((0, 0, 1)), 100)
    for ms in (100, 40):
        assert np.all(step(node, skeletons((0, 0, 3)), ms)[0, :, 2] == 3)


def test_nobody_and_everything_else_passes_through() -> None:
    node = smoother()
    body = poses(np.zeros((0, JOINTS, 3)), skeleton="coco17")
    assert node.step(packet(body)).xyz_m.shape == (0, JOINTS, 3)
    body = poses(skeletons((1, 2, 3)), skeleton="coco17", ids=(4,))
    out = node.step(packet(body, t_ns=T0_NS + MS))
    assert not out.xyz_m.flags.writeable
    assert out.xyz_m.dtype == np.float32
    for name in ("cameras", "skeleton", "sync", "tier", "ids", "conf", "sigma_m", "reproj_px", "views_used"):
        assert getattr(out, name) is getattr(body, name)


def test_who_has_gone_is_forgotten() -> None:
    node = smoother(forget_ms=300)
    for i in range(200):
        step(node, skeletons((i, 0, 0)), i * 100, ids=(i,))
    assert len(node._crowd) <= 22, "memory does not grow with everybody who ever passed"


def test_limbs_steady_a_badly_seen_joint_and_leave_the_well_seen_ones() -> None:
    node = smoother(limbs=True)
    rng = np.random.default_rng(2)
    base = rng.uniform(-0.5, 0.5, (1, JOINTS, 3))
    for i in range(40):
        step(node, base, i * PERIOD_MS)
    body = poses(base, skeleton="coco17")
    hip, knee = 11, 13
    away = base.copy()
    away[0, knee] += 1.0 * (base[0, knee] - base[0, hip])
    sigma = np.array(body.sigma_m)
    sigma[0, knee] = 0.2
    fields = {name: getattr(body, name) for name in body.__slots__}
    moved = type(body)(**{**fields, "xyz_m": away.astype(np.float32), "sigma_m": sigma})
    held = node.step(packet(moved, t_ns=T0_NS + int(39 * PERIOD_MS * MS) + 400 * MS)).xyz_m
    want_m, raw_m, got_m = (float(np.linalg.norm(p[0, knee] - p[0, hip])) for p in (base, away, held))
    assert abs(got_m - want_m) < 0.2 * abs(raw_m - want_m)
    assert held[0, hip] == pytest.approx(base[0, hip], abs=0.02)
