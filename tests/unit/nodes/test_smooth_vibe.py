"""Whom the network is asked about and when, what becomes of its answer, and that people stay who they are. The network is `vibe_kit`'s."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from node_kit import MS, T0_NS, Studio, caps, packet, poses
from vibe_kit import SPREAD_M, network, told

from posepipe.nodes.smooth_vibe import SmoothVibe
from posepipe.pipeline.errors import EngineError
from posepipe.pipeline.node import ports
from posepipe.pipeline.packet import Packet, Poses
from posepipe.pipeline.skeleton import BLAZEPOSE33, COCO17

PERIOD_MS = 1000 / 30
NONE = poses(np.zeros((0, 17, 3)), skeleton="coco17")
Instants = list[tuple[float, Poses]]
Make = Callable[..., Any]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> str:
    return network(tmp_path_factory.mktemp("net"))


@pytest.fixture
def make(engine: str) -> Make:
    def made(*, offline: bool = True, studio: Studio | None = None, layout: str = "coco17", **own: Any) -> Any:
        node = SmoothVibe(SmoothVibe.Settings(**{"engine": engine, **own}))
        context = (studio or Studio()).context(
            caps=caps("poses", skeleton=layout), offline=offline, engines={"runtime": "onnxruntime", "threads": 1}
        )
        node.open(context)
        return node

    return made


def at(*people: Any, ids: tuple[int, ...] | None = None, hidden: tuple[int, ...] = ()) -> Poses:
    """Skeletons with all joints of a person at one point."""
    xyz = np.stack([np.tile(np.asarray(p, np.float64), (17, 1)) for p in people])
    xyz[:, list(hidden)] = np.nan
    return poses(xyz, skeleton="coco17", ids=ids)


def even(bodies: list[Poses], begin_ms: float = 0.0, period_ms: float = PERIOD_MS) -> Instants:
    return [(begin_ms + k * period_ms, body) for k, body in enumerate(bodies)]


def run(node: Any, path: Instants) -> list[Packet[Poses]]:
    """Everything that leaves when these instants come and the recording ends."""
    out: list[Packet[Poses]] = []
    for seq, (ms, body) in enumerate(path):
        out += node.step(packet(body, seq=seq, t_ns=T0_NS + int(ms * MS)))
    return out + node.on_end("pose3d")


def bodies(node: Any, path: Instants) -> list[Poses]:
    return [p.body for p in run(node, path)]


def x_of(body: Poses, person: int, joint: int = 0) -> float:
    return float(body.xyz_m[body.ids.tolist().index(person), joint, 0])


# what leaves --------------------------------------------------------------------------------------------------------------------------


def test_skeletons_come_and_skeletons_with_bodies_leave() -> None:
    assert (ports(SmoothVibe).output, [p.type for p in ports(SmoothVibe).inputs]) == (Poses, [Poses])
    got = SmoothVibe.caps(SmoothVibe.Settings(), caps("poses", skeleton="coco17", frame_rate_hz=30.0))
    assert (got.skeleton, got.frame_rate_hz, got.body) == ("coco17", 30.0, "posepipe.adult")


def test_joints_are_the_bodys_with_the_networks_spread_and_the_rest_is_handed_on(make: Make) -> None:
    came = at((1, 2, 3), (4, 5, 6), ids=(7, 2))
    left = bodies(make(), even([came] * 3))[-1]
    assert left.xyz_m == pytest.approx(came.xyz_m)
    assert left.sigma_m == pytest.approx(np.full((2, 17), SPREAD_M))
    assert left.bodies is not None
    assert left.bodies.model == "posepipe.adult"
    assert left.bodies.root_m == pytest.approx(np.array([[1, 2, 3], [4, 5, 6]]))
    assert left.bodies.known.all()
    for name in ("cameras", "skeleton", "sync", "tier"):
        assert getattr(left, name) is getattr(came, name)
    for name in ("ids", "conf", "reproj_px", "views_used"):
        assert np.array_equal(getattr(left, name), getattr(came, name))
        assert getattr(left, name).dtype == getattr(came, name).dtype
    b = left.bodies
    arrays = (left.xyz_m, left.conf, left.sigma_m, left.ids, left.reproj_px, left.views_used, b.pose, b.shape, b.root_m)
    assert not any(array.flags.writeable for array in arrays)


def test_joints_that_coco17_does_not_have_stay_as_they_came(make: Make) -> None:
    xyz = np.random.default_rng(0).uniform(-1, 1, (1, 33, 3))
    mine = [BLAZEPOSE33.index(j) for j in COCO17.joints]
    other = [j for j in range(33) if j not in mine]
    came = poses(xyz)
    left, lost = bodies(make(layout="blazepose33"), [(0, came), (20, came), (40, poses(np.zeros((0, 33, 3))))])[1:]
    assert left.xyz_m == pytest.approx(xyz.astype(np.float32))
    assert left.sigma_m[0, other] == pytest.approx(0.01)
    assert left.sigma_m[0, mine] == pytest.approx(SPREAD_M)
    assert np.isfinite(lost.xyz_m[0, mine]).all()
    assert np.isnan(lost.xyz_m[0, other]).all()
    assert (lost.conf[0, other] == 0).all()


def test_nobody_is_nobody(make: Make) -> None:
    out = bodies(make(), even([NONE] * 3))
    assert [(b.xyz_m.shape, b.tier) for b in out] == [((0, 17, 3), "algebraic")] * 3
    assert all(b.bodies is not None and b.bodies.pose.shape == (0, 24, 6) for b in out)


def test_numbers_that_are_none_do_not_reach_the_network(make: Make) -> None:
    came = at((1, 2, 3), hidden=(4,))
    sigma, conf, xyz = np.array(came.sigma_m), np.array(came.conf), np.array(came.xyz_m)
    sigma[0, 0], conf[0, 4], conf[0, 3], xyz[0, 3] = np.nan, 0.9, 0, 99
    left = bodies(make(), even([replace(came, sigma_m=sigma, conf=conf, xyz_m=xyz)] * 3))[-1]
    assert np.isnan(left.xyz_m[0, [3, 4]]).all(), "never seen, so not given"
    assert (left.conf[0, [3, 4]] == 0).all()
    assert np.isfinite(left.sigma_m[0, 0])
    assert np.delete(left.xyz_m[0], [3, 4], axis=0) == pytest.approx(np.tile([1, 2, 3], (15, 1)))


# warm-up and time ---------------------------------------------------------------------------------------------------------------------


def test_a_new_person_is_warmed_up_and_then_counts(make: Make) -> None:
    out = bodies(make(), [(0, at((1, 0, 0))), (25, at((2, 0, 0), (9, 0, 0))), (75, at((3, 0, 0), (9, 0, 0)))])
    assert [told(b, 0).count for b in out] == [7, 8, 9]
    assert [told(b, 1).count for b in out[1:]] == [7, 8]
    assert [told(b, 0).after_s[0] for b in out] == pytest.approx([1 / 30, 0.025, 0.05])
    assert [told(b, 1).after_s[0] for b in out[1:]] == pytest.approx([1 / 30, 0.05])
    assert told(bodies(make(warm_up=0), [(0, at((1, 0, 0)))])[0], 0).count == 1


def test_half_the_frame_rate_in_the_middle_is_told(make: Make) -> None:
    ms = [0, 20, 40, 80, 120]
    out = bodies(make(), [(t, at((t, 0, 0))) for t in ms])
    assert [told(b, 0).after_s[0] for b in out[1:]] == pytest.approx([0.02, 0.02, 0.04, 0.04])
    assert [x_of(b, 0) for b in out] == pytest.approx(ms)


def test_when_time_goes_back_or_stands_everybody_begins_anew(make: Make) -> None:
    for reset in ("gap", "never"):
        out = bodies(make(reset=reset), [(100, at((1, 0, 0))), (130, at((1, 0, 0))), (40, at((2, 0, 0))), (40, at((3, 0, 0)))])
        assert [told(b, 0).count for b in out] == [7, 8, 7, 7]
        assert [x_of(b, 0) for b in out] == pytest.approx([1, 1, 2, 3])


# who is who ---------------------------------------------------------------------------------------------------------------------------


def test_people_are_known_by_identity_and_not_by_place_in_the_list(make: Make) -> None:
    came = []
    for k in range(20):
        order = [(7, k), (2, -k)] if k % 3 else [(2, -k), (7, k)]
        came.append(at(*((x, 0, 0) for _, x in order), ids=tuple(i for i, _ in order), hidden=(5,) if k > 10 else ()))
    out = bodies(make(), even(came))
    assert [(x_of(b, 7), x_of(b, 2)) for b in out] == [(k, -k) for k in range(20)]
    assert [(x_of(b, 7, 5), x_of(b, 2, 5)) for b in out[11:15]] == [(10, -10)] * 4, "what each one's own state says"
    assert [told(b, 7).count for b in out] == list(range(7, 27))


def test_two_people_exchanged_for_three_instants_keep_their_own_states(make: Make) -> None:
    came = [at((0, 0, 0), (1, 0, 0), ids=(1, 2) if not 10 <= k < 13 else (2, 1), hidden=(5,) if k >= 13 else ()) for k in range(16)]
    out = bodies(make(), even(came))
    assert [told(out[-1], person).count for person in (1, 2)] == [22, 22]
    assert [x_of(out[-1], person, 5) for person in (1, 2)] == [1, 0], "each one's joint is where his identity had it last"
    assert [x_of(out[-1], person) for person in (1, 2)] == [0, 1]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.sets(st.integers(0, 4)), st.integers(1, 400)), min_size=1, max_size=25), st.integers(0, 3))
def test_whoever_comes_and_goes_is_given_once_and_where_he_is(engine: str, path: list[tuple[set[int], int]], lookahead: int) -> None:
    node = SmoothVibe(SmoothVibe.Settings(engine=engine, lookahead=lookahead))
    node.open(Studio().context(caps=caps("poses", skeleton="coco17"), offline=True, engines={"runtime": "onnxruntime", "threads": 1}))
    ms = np.cumsum([wait for _, wait in path])
    came = [at(*((10 * i, k, 0) for i in ids), ids=tuple(ids)) if ids else NONE for k, (ids, _) in enumerate(path)]
    out = bodies(node, list(zip(ms.tolist(), came, strict=True)))
    assert len(out) == len(path)
    seen_ms: dict[int, float] = {}
    for k, (ids, _) in enumerate(path):
        seen_ms |= dict.fromkeys(ids, ms[k])
        there = {i for i, t in seen_ms.items() if ms[k] - t < 300}
        assert sorted(out[k].ids.tolist()) == sorted(there)
        assert {i: x_of(out[k], i) for i in there} == {i: 10 * i for i in there}
        assert out[k].tier == ("held" if there and not ids else "algebraic")


def test_someone_else_at_the_same_spot_begins_for_himself_and_ends_the_other(make: Make) -> None:
    out = bodies(make(), even([at((0, 0, 1), ids=(1,))] * 10 + [at((0.1, 0, 1), ids=(2,))] * 3))
    assert [b.ids.tolist() for b in out[10:]] == [[2]] * 3
    assert told(out[10], 2).count == 7
    beside = bodies(make(), even([at((0, 0, 1), ids=(1,))] * 10 + [at((0.5, 0, 1), ids=(2,))] * 3))
    assert [b.ids.tolist() for b in beside[10:]] == [[2, 1]] * 3, "half a metre away there is room for both"


def test_lost_and_found_is_the_same_person_for_forget_ms(make: Make) -> None:
    for reset, away_ms, count, after_s in (
        ("gap", 450, 9, 0.45), ("gap", 550, 7, 1 / 30), ("never", 450, 9, 0.45), ("never", 5000, 9, 5.0), ("never", 700_000, 7, 1 / 30),
    ):  # fmt: skip
        out = bodies(make(reset=reset), [(0, at((1, 0, 0))), (30, at((1, 0, 0))), (30 + away_ms, at((2, 0, 0)))])
        assert (told(out[-1], 0).count, told(out[-1], 0).after_s[0]) == (count, pytest.approx(after_s)), (reset, away_ms)


def test_while_he_is_away_he_is_stepped_on_until_he_is_forgotten(make: Make) -> None:
    for reset, count in (("gap", 7), ("never", 7 + 1 + 10 + 1)):
        came = [at((1, 0, 0), (5, 0, 0))] * 2 + [at((5, 0, 0), ids=(1,))] * 48 + [at((1, 0, 0), (5, 0, 0))]
        out = bodies(make(reset=reset), [(50.0 * k, body) for k, body in enumerate(came)])
        assert told(out[-1], 0).count == count, reset
        assert told(out[-1], 1).count == 7 + 50


def test_who_has_gone_is_forgotten(make: Make) -> None:
    node = make()
    run(node, [(100.0 * k, at((k, 0, 0), ids=(k,))) for k in range(100)])
    assert len(node._memory) <= 7, "memory does not grow with everybody who ever passed"
    assert len(node._memory._ids) <= 20


def test_a_body_that_stays_away_from_its_person_begins_anew(make: Make, tmp_path: Path) -> None:
    far = make(engine=network(tmp_path, scale=2.0))
    out = bodies(far, [(50.0 * k, at((1, 0, 0), (0.1, 0, 0))) for k in range(12)])
    assert [told(b, 0).count for b in out] == [7, 8, 9, 10, 11, 12, 7, 8, 9, 10, 11, 12], "after 0.2 s, not at once"
    assert [told(b, 1).count for b in out] == list(range(7, 19)), "a tenth of a metre is no other place"
    unseen = at((1, 0, 0), hidden=tuple(range(17)))
    out = bodies(make(engine=network(tmp_path, scale=2.0)), [(50.0 * k, unseen if k % 3 else at((1, 0, 0))) for k in range(9)])
    assert told(out[-1], 0).count == 15, "who was not seen in between is not held against it"


# what is not seen ---------------------------------------------------------------------------------------------------------------------


def test_a_joint_that_is_not_seen_is_given_from_the_body_and_then_held_back(make: Make) -> None:
    out = bodies(
        make(fill_ms=300), [(50.0 * k, at((1, 0, 0), hidden=(5,) if k >= 10 else ())) for k in range(20)] + [(1000.0, at((2, 0, 0)))]
    )
    filled, gone = out[10:15], out[15:20]
    assert [x_of(b, 0, 5) for b in filled] == [1] * 5
    assert [b.conf[0, 5] for b in filled] == pytest.approx([1 - 50 * k / 300 for k in range(1, 6)], abs=1e-6)
    assert all(b.views_used[0, 5] == 0 and b.views_used[0, 6] == 4 for b in filled)
    assert all(b.sigma_m[0, 5] == pytest.approx(SPREAD_M) for b in filled)
    assert all(np.isnan(b.xyz_m[0, 5]).all() and np.isnan(b.sigma_m[0, 5]) and b.conf[0, 5] == 0 for b in gone)
    assert all(b.tier == "algebraic" and np.isfinite(np.delete(b.xyz_m[0], 5, axis=0)).all() for b in out)
    assert (x_of(out[20], 0, 5), out[20].conf[0, 5]) == (2, 1)


def test_without_fill_only_what_is_seen_is_given(make: Make) -> None:
    out = bodies(make(fill_ms=0), even([at((1, 0, 0)), at((1, 0, 0), hidden=(5,)), NONE, at((1, 0, 0))]))
    assert np.isnan(out[1].xyz_m[0, 5]).all()
    assert np.isfinite(np.delete(out[1].xyz_m[0], 5, axis=0)).all()
    assert len(out[2].ids) == 0
    assert told(out[3], 0).count == 10, "the network goes on with him all the same"


def test_all_joints_missing_for_seconds(make: Make) -> None:
    blind = at((1, 0, 0), hidden=tuple(range(17)))
    out = bodies(make(), [(50.0 * k, blind if 5 <= k < 65 else at((1, 0, 0))) for k in range(70)])
    assert [b.tier for b in out[5:10]] == ["held"] * 5
    assert all(np.isfinite(b.xyz_m).all() and b.bodies.known.all() for b in out[5:10])
    assert all(np.isnan(b.xyz_m).all() and (b.conf == 0).all() and not b.bodies.known.any() for b in out[10:65])
    assert [b.ids.tolist() for b in out] == [[0]] * 70, "he is in the list as he came"
    assert told(out[65], 0).count == 7, "and begins anew"
    first = bodies(make(), even([blind]))[0]
    assert np.isnan(first.xyz_m).all()
    assert first.tier == "algebraic"


def test_a_person_whom_nobody_sees_goes_on_for_fill_ms(make: Make) -> None:
    two = at((1, 0, 0), (5, 0, 0))
    out = bodies(make(), [(50.0 * k, two if k < 4 else at((5, 0, 0), ids=(1,)) if k < 8 else NONE) for k in range(16)])
    assert [b.ids.tolist() for b in out] == [[0, 1]] * 4 + [[1, 0]] * 4 + [[0, 1]] + [[1]] * 4 + [[]] * 3
    assert [b.tier for b in out] == ["algebraic"] * 8 + ["held"] * 5 + ["algebraic"] * 3
    lost = out[5]
    assert lost.conf[1] == pytest.approx(np.full(17, 1 - 100 / 300), abs=1e-6)
    assert (lost.views_used[1].tolist(), lost.reproj_px[1]) == ([0] * 17, 0)
    assert (lost.views_used[0].tolist(), lost.reproj_px[0]) == ([4] * 17, 5)
    assert lost.bodies is not None
    assert lost.bodies.root_m[:, 0] == pytest.approx([5, 1])


def test_skeletons_that_were_held_before_are_not_seen(make: Make) -> None:
    again = replace(at((1, 0, 0)), tier="held")
    out = bodies(make(), [(50.0 * k, again if k else at((1, 0, 0))) for k in range(9)])
    assert [told(b, 0).conf[0] for b in out[:6]] == [1] + [0] * 5
    assert all(np.isnan(b.xyz_m).all() for b in out[6:])
    assert [b.tier for b in out[1:]] == ["held"] * 8
    (first,) = bodies(make(), [(0, again)])
    assert np.isnan(first.xyz_m).all()
    assert (first.conf == 0).all()


def test_a_joint_that_never_was_seen_is_not_given_whenever_time_began(make: Make) -> None:
    node = make()
    for k in range(3):
        (left,) = node.step(packet(at((1, 0, 0), hidden=(5,)), seq=k, t_ns=20 * k * MS))
        assert np.isnan(left.body.xyz_m[0, 5]).all()


# looking ahead ------------------------------------------------------------------------------------------------------------------------


def test_with_lookahead_everything_leaves_in_order_later_with_what_came_after_it(make: Make) -> None:
    node = make(lookahead=3, offline=False)
    left = [[p.seq for p in node.step(packet(at((k, 0, 0)), seq=k, t_ns=T0_NS + 20 * k * MS))] for k in range(10)]
    assert left == [[]] * 3 + [[k] for k in range(7)]
    out = run(make(lookahead=3), [(20.0 * k, at((k, 0, 0))) for k in range(10)])
    assert [(p.seq, p.t_capture_ns) for p in out] == [(k, T0_NS + 20 * k * MS) for k in range(10)]
    assert [x_of(p.body, 0) for p in out] == list(range(10))
    for k, p in enumerate(out):
        saw, known = told(p.body, 0), min(4, 10 - k)
        assert saw.nose_m[:known, 0].tolist() == list(range(k, k + known))
        assert saw.conf.tolist() == [1] * known + [0] * (9 - known)
        first = 1 / 30 if k == 0 else 0.02
        assert saw.after_s == pytest.approx([first + 0.02 * i for i in range(known)] + [0] * (9 - known))


def test_what_comes_later_is_found_by_identity_and_gaps_are_seen_as_such(make: Make) -> None:
    came = [at((0, 0, 0), (5, 0, 0), ids=(1, 2)), at((5, 0, 0), ids=(2,)), at((5, 0, 0), (1, 0, 0), ids=(2, 1)), NONE]
    saw = told(bodies(make(lookahead=8), [(20.0 * k, b) for k, b in enumerate(came)])[0], 1)
    assert saw.conf.tolist() == [1, 0, 1] + [0] * 6
    assert saw.nose_m[2, 0] == 1
    assert saw.after_s == pytest.approx([1 / 30 + 0.02 * k for k in range(4)] + [0] * 5), "an instant without him is an instant"


def test_time_going_back_lets_out_what_waits_first(make: Make) -> None:
    out = run(make(lookahead=4), [(100 + 20 * k, at((k, 0, 0))) for k in range(3)] + [(20 * k, at((50 + k, 0, 0))) for k in range(3)])
    assert [p.seq for p in out] == list(range(6))
    assert [told(p.body, 0).count for p in out] == [7, 8, 9, 7, 8, 9]
    assert (told(out[2].body, 0).conf[1:] == 0).all(), "nothing of the other recording is looked at"


def test_live_what_is_held_leaves_when_instants_stop_coming(make: Make) -> None:
    studio = Studio()
    node = make(lookahead=2, offline=False, studio=studio)
    for k in range(2):
        assert node.step(packet(at((k, 0, 0)), seq=k, t_ns=T0_NS + 20 * k * MS)) == []
    assert node.wake_ns() == studio.now_ns + 3 * 20 * MS
    studio.now_ns += 60 * MS
    assert [p.seq for p in node.on_time(studio.now_ns)] == [0]
    assert node.wake_ns() == 0, "one at a time, but at once"
    assert [p.seq for p in node.on_time(studio.now_ns)] == [1]
    assert node.wake_ns() is None
    assert node.on_end("pose3d") == []
    offline = make(lookahead=2)
    offline.step(packet(at((1, 0, 0))))
    assert offline.wake_ns() is None, "offline nothing goes by the clock"


def test_what_the_network_fails_at_is_tried_again_and_nobody_is_mixed_up(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    node = make()
    network = node._memory._network

    def broken(*given: Any) -> Any:
        raise EngineError("no")

    run(node, [(0, at((1, 0, 0)))])
    monkeypatch.setattr(node._memory, "_network", type("Broken", (), {"__call__": broken, "nothing": staticmethod(network.nothing)})())
    with pytest.raises(EngineError):
        node.step(packet(at((1, 0, 0), (4, 0, 0)), seq=1, t_ns=T0_NS + 20 * MS))
    monkeypatch.undo()
    out = node.step(packet(at((1, 0, 0), (4, 0, 0)), seq=2, t_ns=T0_NS + 40 * MS))
    assert [p.seq for p in out] == [1, 2]
    assert [(told(p.body, 0).count, told(p.body, 1).count) for p in out] == [(8, 7), (9, 8)]


def test_the_order_is_that_of_the_instants_whatever_the_lookahead(make: Make) -> None:
    for lookahead in range(9):
        out = run(make(lookahead=lookahead), even([at((k, 0, 0)) for k in range(12)]))
        assert [p.seq for p in out] == list(range(12))
        assert all(a.t_capture_ns < b.t_capture_ns for a, b in itertools.pairwise(out))
