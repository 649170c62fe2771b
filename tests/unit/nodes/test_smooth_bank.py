"""What every smoother does, whichever it is: the same tests for the whole bank. Then what is each one's own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from node_kit import MS, T0_NS, Studio, bodies, caps, packet, poses

from posepipe.nodes.smooth_butterworth import SmoothButterworth
from posepipe.nodes.smooth_kalman import SmoothKalman
from posepipe.nodes.smooth_one_euro import SmoothOneEuro
from posepipe.nodes.smooth_savgol import SmoothSavgol
from posepipe.pipeline.errors import GraphError
from posepipe.pipeline.node import Caps, Node, ports
from posepipe.pipeline.packet import Packet, Poses

JOINTS = 17
PERIOD_MS = 1000 / 30
BANK: list[type[Node]] = [SmoothOneEuro, SmoothKalman, SmoothSavgol, SmoothButterworth]
BRIDGING = BANK[1:]
every = pytest.mark.parametrize("cls", BANK, ids=lambda cls: cls.use)
Path = list[tuple[float, np.ndarray[Any, Any]]]


def smoother(cls: type[Node], *, offline: bool = True, studio: Studio | None = None, **own: Any) -> Any:
    node = cls(cls.Settings(**{"limbs": False, **own}))
    node.open((studio or Studio()).context(caps=caps("poses", skeleton="coco17"), offline=offline))
    return node


def skeletons(*people: Any) -> np.ndarray[Any, Any]:
    """[P,17,3] with all joints of a person at one point."""
    return np.stack([np.tile(np.asarray(p, np.float64), (JOINTS, 1)) for p in people])


def run(node: Any, instants: list[tuple[float, Poses]]) -> list[Packet[Poses]]:
    """Everything that leaves when these instants (ms, skeletons) come and the recording ends."""
    out: list[Packet[Poses]] = []
    for seq, (ms, body) in enumerate(instants):
        came = packet(body, seq=seq, t_ns=T0_NS + int(ms * MS))
        left = node.step(came)
        out += left if isinstance(left, list) else [replace(came, body=left)]
    return out + node.on_end("pose3d")


def alone(node: Any, path: Path) -> np.ndarray[Any, Any]:
    """[T,17,3] of one person."""
    return np.array([p.body.xyz_m[0] for p in run(node, [(ms, poses(xyz, skeleton="coco17")) for ms, xyz in path])])


def even(values: Any, begin_ms: float = 0.0, period_ms: float = PERIOD_MS) -> Path:
    return [(begin_ms + k * period_ms, skeletons((0, 0, z))) for k, z in enumerate(values)]


# all of them ------------------------------------------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("gap", [False, True])
def test_bodies_do_not_outlive_the_joints_that_they_fit(cls: type[Node], gap: bool) -> None:
    path = even([1.0, 1.01, np.nan if gap else 1.02, 1.03, 1.04])
    with_bodies = [(ms, poses(xyz, skeleton="coco17", bodies=bodies(1))) for ms, xyz in path]
    assert [p.body.bodies for p in run(smoother(cls), with_bodies)] == [None] * 5
    arriving = Caps(skeleton="coco17", cameras=("north",), frame_rate_hz=30, body="posepipe.adult")
    assert cls.caps(cls.Settings(), {"poses": arriving}) == replace(arriving, body="")


@every
def test_skeletons_come_and_skeletons_leave(cls: type[Node]) -> None:
    assert (ports(cls).output, [p.type for p in ports(cls).inputs]) == (Poses, [Poses])


@every
@settings(max_examples=15, deadline=None)
@given(st.lists(st.floats(1, 150), min_size=1, max_size=25), st.tuples(*[st.floats(-3, 3)] * 3))
def test_what_stands_still_stands_still_at_any_stamps(cls: type[Node], waits: list[float], point: tuple[float, ...]) -> None:
    still = skeletons(point)
    out = alone(smoother(cls), [(float(ms), still) for ms in np.cumsum(waits)])
    assert out == pytest.approx(np.repeat(still.astype(np.float32), len(waits), axis=0), abs=1e-5)


@every
def test_every_instant_leaves_once_in_order_with_all_that_it_had(cls: type[Node]) -> None:
    came = [(k * PERIOD_MS, poses(skeletons((0, 0, k), (1, 1, 1)), skeleton="coco17", ids=(k, 50))) for k in range(25)]
    out = run(smoother(cls), came)
    assert [(p.seq, p.t_capture_ns) for p in out] == [(k, T0_NS + int(ms * MS)) for k, (ms, _) in enumerate(came)]
    for (_, body), left in zip(came, out, strict=True):
        assert left.body.xyz_m.dtype == np.float32
        assert not left.body.xyz_m.flags.writeable
        for name in ("cameras", "skeleton", "sync", "tier", "ids", "conf", "sigma_m", "reproj_px", "views_used"):
            assert getattr(left.body, name) is getattr(body, name)


@every
def test_noise_becomes_less(cls: type[Node]) -> None:
    noise_m = np.random.default_rng(3).normal(0, 0.01, (90, 1, JOINTS, 3))
    out = alone(smoother(cls), [(k * PERIOD_MS, n) for k, n in enumerate(noise_m)])
    assert out[20:70].std() < 0.85 * noise_m[20:70].std()


@every
def test_people_are_known_by_identity_and_not_by_place_in_the_list(cls: type[Node]) -> None:
    rng = np.random.default_rng(5)
    a, b = rng.normal(0, 0.1, (40, 3)), rng.normal(4, 0.1, (40, 3))
    both = []
    for k in range(40):
        order = [(7, a[k]), (2, b[k])] if k % 3 else [(2, b[k]), (7, a[k])]
        both.append((k * PERIOD_MS, poses(skeletons(*(p for _, p in order)), skeleton="coco17", ids=tuple(i for i, _ in order))))
    out = run(smoother(cls), both)
    want = alone(smoother(cls), [(k * PERIOD_MS, skeletons(a[k])) for k in range(40)])
    got = np.array([p.body.xyz_m[p.body.ids.tolist().index(7)] for p in out])
    assert got == pytest.approx(want, abs=1e-6)


@every
def test_two_people_exchanged_for_three_instants_are_themselves_again_half_a_second_later(cls: type[Node]) -> None:
    came = []
    for k in range(60):
        pair = ((0, 0, 1), (0.8, 0, 1)) if not 20 <= k < 23 else ((0.8, 0, 1), (0, 0, 1))
        came.append((k * PERIOD_MS, poses(skeletons(*pair), skeleton="coco17", ids=(1, 2))))
    x = np.array([p.body.xyz_m[:, 0, 0] for p in run(smoother(cls), came)])
    assert x.min() > -0.25
    assert x.max() < 1.05
    assert x[38:] == pytest.approx(np.tile([0, 0.8], (22, 1)), abs=0.03)


@every
def test_when_time_goes_back_the_past_is_another_recording(cls: type[Node]) -> None:
    path = even(np.full(12, 1.0), 1000) + even(np.full(12, 3.0), 500)
    assert alone(smoother(cls), path)[:, 0, 2] == pytest.approx([1.0] * 12 + [3.0] * 12)
    twice = [(100.0, skeletons((0, 0, 1))), (100.0, skeletons((0, 0, 3)))]
    assert alone(smoother(cls), twice)[:, 0, 2] == pytest.approx([1, 3])


@every
def test_a_joint_unseen_for_long_starts_afresh_and_was_not_given(cls: type[Node]) -> None:
    hidden = skeletons((0, 0, 1))
    hidden[0, 5] = np.nan
    path = even(np.full(20, 1.0)) + [(ms, hidden) for ms in np.arange(20, 110) * PERIOD_MS] + even(np.full(20, 2.0), 110 * PERIOD_MS)
    out = alone(smoother(cls), path)
    assert out[:20, 5, 2] == pytest.approx(1)
    assert np.isnan(out[27:110, 5]).all(), "three seconds"
    assert out[110:, 5, 2] == pytest.approx(2)
    assert np.isfinite(np.delete(out, 5, axis=1)).all()


@every
def test_who_comes_to_the_same_spot_as_another_who_left_is_not_drawn_to_him(cls: type[Node]) -> None:
    came = [(k * PERIOD_MS, poses(skeletons((0, 0, 1 + (k >= 15))), skeleton="coco17", ids=(1 if k < 15 else 2,))) for k in range(30)]
    assert [p.body.xyz_m[0, 0, 2] for p in run(smoother(cls), came)] == pytest.approx([1.0] * 15 + [2.0] * 15)


@every
def test_half_the_frame_rate_in_the_middle_changes_nothing_for_one_who_walks(cls: type[Node]) -> None:
    ms = np.concatenate([np.arange(40) * PERIOD_MS / 2, 20 * PERIOD_MS + np.arange(30) * PERIOD_MS])
    out = alone(smoother(cls), [(t, skeletons((1.2 * t / 1e3, 0, 0))) for t in ms])[15:, 0, 0]
    lag = 0.04 if cls is SmoothOneEuro else 0.006
    assert out == pytest.approx(1.2 * ms[15:] / 1e3, abs=lag)


@every
def test_confidence_zero_and_numbers_that_are_none_are_not_used(cls: type[Node]) -> None:
    came = []
    for k in range(20):
        xyz, conf = skeletons((1, 2, 3)), np.ones((1, JOINTS), np.float32)
        xyz[0, 4] = np.nan
        xyz[0, 3], conf[0, 3] = (1, 2, 99), 0
        came.append((k * PERIOD_MS, poses(xyz, skeleton="coco17", conf=conf)))
    out = np.array([p.body.xyz_m[0] for p in run(smoother(cls), came)])
    assert np.isnan(out[:, [3, 4]]).all()
    assert np.delete(out, [3, 4], axis=1) == pytest.approx(np.tile([1, 2, 3], (20, 15, 1)), abs=1e-5)


@every
def test_nobody_is_nobody(cls: type[Node]) -> None:
    out = run(smoother(cls), [(k * PERIOD_MS, poses(np.zeros((0, JOINTS, 3)), skeleton="coco17")) for k in range(3)])
    assert [p.body.xyz_m.shape for p in out] == [(0, JOINTS, 3)] * 3


@every
def test_limbs_are_held_when_asked(cls: type[Node]) -> None:
    base = np.random.default_rng(2).uniform(-0.5, 0.5, (1, JOINTS, 3))
    hip, knee = 11, 13
    length_m = float(np.linalg.norm(base[0, knee] - base[0, hip]))
    off: dict[bool, float] = {}
    for limbs in (True, False):
        came = []
        for k in range(60):
            body, xyz = poses(base, skeleton="coco17"), base.copy()
            sigma = np.array(body.sigma_m)
            if k >= 30:
                xyz[0, knee] += 0.8 * (base[0, knee] - base[0, hip])
                sigma[0, knee] = 0.2
            came.append((k * PERIOD_MS, replace(body, xyz_m=xyz.astype(np.float32), sigma_m=sigma)))
        last = run(smoother(cls, limbs=limbs), came)[-1].body.xyz_m[0]
        off[limbs] = abs(float(np.linalg.norm(last[knee] - last[hip])) - length_m)
    assert off[True] < 0.3 * off[False]


@pytest.mark.parametrize("cls", BRIDGING, ids=lambda cls: cls.use)
def test_a_short_gap_is_bridged_and_says_how_sure_it_is(cls: type[Node]) -> None:
    came = []
    for k in range(40):
        xyz = skeletons((0.5 * k * PERIOD_MS / 1e3, 0, 1))
        if 20 <= k < 24:
            xyz[0, 5] = np.nan
        came.append((k * PERIOD_MS, poses(xyz, skeleton="coco17")))
    out = run(smoother(cls, bridge_ms=200), came)
    gap = [p.body for p in out[20:24]]
    assert [b.xyz_m[0, 5, 0] for b in gap] == pytest.approx([0.5 * k * PERIOD_MS / 1e3 for k in range(20, 24)], abs=0.01)
    assert all(0 < b.conf[0, 5] < 1 and b.sigma_m[0, 5] > 0.011 and b.views_used[0, 5] == 0 for b in gap)
    assert all(b.conf[0, 6] == 1 and b.sigma_m[0, 6] == np.float32(0.01) and b.views_used[0, 6] == 4 for b in gap)
    assert gap[1].sigma_m[0, 5] > gap[0].sigma_m[0, 5]
    assert not any(a.flags.writeable for b in gap for a in (b.conf, b.sigma_m, b.views_used))
    none = run(smoother(cls, bridge_ms=0), came)
    assert np.isnan([p.body.xyz_m[0, 5] for p in none[20:24]]).all()


@pytest.mark.parametrize("cls", BRIDGING, ids=lambda cls: cls.use)
def test_a_bridge_longer_than_the_memory_is_refused(cls: type[Node]) -> None:
    with pytest.raises(
        GraphError, match=r"bridge_ms is 400, but a joint is forgotten after forget_ms: 300\n  -> bridge_ms at most forget_ms"
    ):
        cls.check(cls.Settings(bridge_ms=400), {})
    cls.check(cls.Settings(bridge_ms=400, forget_ms=400), {})


# Kalman's own -----------------------------------------------------------------------------------------------------------------------


def test_a_joint_counts_by_its_sigma() -> None:
    moved = {}
    for sigma in (0.005, 0.05):
        came = []
        for k in range(31):
            body = poses(skeletons((0, 0, 1 + 0.02 * (k == 30))), skeleton="coco17")
            came.append((k * PERIOD_MS, replace(body, sigma_m=np.full((1, JOINTS), sigma if k == 30 else 0.01, np.float32))))
        moved[sigma] = run(smoother(SmoothKalman), came)[-1].body.xyz_m[0, 0, 2] - 1
    assert moved[0.05] < 0.3 * moved[0.005]


@pytest.mark.parametrize("process", [-1, 0])
def test_a_process_without_noise_is_refused(process: float) -> None:
    with pytest.raises(msgspec.ValidationError, match=r"`float` > 0.0"):
        msgspec.convert({"process": process}, SmoothKalman.Settings)


# the local polynomial's own -----------------------------------------------------------------------------------------------------------


def test_an_instant_leaves_when_the_delay_is_over_and_not_before() -> None:
    node = smoother(SmoothSavgol, window_ms=200, offline=False)
    left = []
    for k in range(12):
        left.append([p.seq for p in node.step(packet(poses(skeletons((0, 0, k))), seq=k, t_ns=T0_NS + int(k * PERIOD_MS * MS)))])
    assert left == [[]] * 3 + [[k] for k in range(9)], "100 ms are three instants at 30 per second"


def test_without_delay_it_answers_at_once() -> None:
    node = smoother(SmoothSavgol, window_ms=200, delay_ms=0, offline=False)
    for k in range(12):
        assert [p.seq for p in node.step(packet(poses(skeletons((0, 0, k))), seq=k, t_ns=T0_NS + int(k * PERIOD_MS * MS)))] == [k]


def test_live_what_is_due_together_leaves_one_after_the_other_and_soon() -> None:
    studio = Studio()
    node = smoother(SmoothSavgol, window_ms=200, offline=False, studio=studio)
    for k in range(3):
        assert node.step(packet(poses(skeletons((0, 0, 1))), seq=k, t_ns=T0_NS + int(k * PERIOD_MS * MS))) == []
    assert node.wake_ns() == studio.now_ns + 100 * MS, "should nothing more come, they leave all the same"
    assert [p.seq for p in node.step(packet(poses(skeletons((0, 0, 1))), seq=3, t_ns=T0_NS + 180 * MS))] == [0]
    assert node.wake_ns() == 0
    assert [p.seq for p in node.on_time(studio.now_ns)] == [1]
    studio.now_ns += 100 * MS
    assert node.wake_ns() <= studio.now_ns
    assert [[p.seq for p in node.on_time(studio.now_ns)] for _ in range(2)] == [[2], [3]]
    assert node.wake_ns() is None
    assert node.on_end("pose3d") == []


def test_offline_nothing_goes_by_the_clock() -> None:
    node = smoother(SmoothSavgol)
    node.step(packet(poses(skeletons((0, 0, 1)))))
    assert node.wake_ns() is None


def test_memory_does_not_grow_with_the_recording() -> None:
    node = smoother(SmoothSavgol, window_ms=200)
    for k in range(300):
        node.step(packet(poses(skeletons((0, 0, 1)), ids=(k,)), seq=k, t_ns=T0_NS + int(k * PERIOD_MS * MS)))
    assert len(node._past) <= 8
    assert len(node._crowd) <= 62


def test_a_delay_outside_the_window_is_refused() -> None:
    with pytest.raises(GraphError, match=r"delay_ms is 300, outside a window of 200 ms\n  -> delay_ms from 0 to window_ms"):
        SmoothSavgol.check(SmoothSavgol.Settings(window_ms=200, delay_ms=300), {})
    SmoothSavgol.check(SmoothSavgol.Settings(window_ms=200, delay_ms=200), {})


# Butterworth's own --------------------------------------------------------------------------------------------------------------------


def test_a_live_run_is_refused_before_a_camera_opens() -> None:
    with pytest.raises(
        GraphError, match=r"node node: smooth.butterworth looks at the whole recording, .* and this run is live\n  -> run with --offline"
    ):
        smoother(SmoothButterworth, offline=False)


def test_a_fast_movement_is_neither_late_nor_early() -> None:
    t = np.arange(90) * PERIOD_MS / 1e3
    out = alone(smoother(SmoothButterworth), even(np.sin(2 * np.pi * 1.5 * t)))[20:70, 0, 2]
    shifts = [np.abs(out - np.sin(2 * np.pi * 1.5 * (t[20:70] + s / 1e3))).max() for s in (-5, 0, 5)]
    assert shifts[1] < min(shifts[0], shifts[2])
    assert shifts[1] < 0.01
