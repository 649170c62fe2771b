"""The filters' numbers: against closed forms and against slow, plain versions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posepipe.calib.smoothers import Kalman, People
from posepipe.calib.smoothers_window import butterworth, local_polynomial

SPANS = {"bridge_s": 0.2, "forget_s": 0.3}
FAR = 1e9


def column(values: Any) -> np.ndarray[Any, Any]:
    """[T,1,1,3]: one person, one joint, three times the same coordinate."""
    return np.repeat(np.asarray(values, np.float64)[:, None, None, None], 3, axis=3)


def ones(count: int, value: float = 1.0) -> np.ndarray[Any, Any]:
    return np.full((count, 1, 1), value)


# who has which row ------------------------------------------------------------------------------------------------------------------


def test_a_row_is_kept_while_its_owner_comes_back_and_goes_to_another_later() -> None:
    people = People(forget_ns=100)
    rows, new = people.rows([7, 3], 0)
    assert (rows.tolist(), new) == ([0, 1], [0, 1])
    rows, new = people.rows([3, 9], 100)
    assert (rows.tolist(), new) == ([1, 2], [2])
    rows, new = people.rows([5, 3], 101)
    assert (rows.tolist(), new) == ([0, 1], [0]), "7 was away for 101 ns"


def test_when_time_goes_back_everybody_is_new() -> None:
    people = People(forget_ns=100)
    people.rows([7, 3], 50)
    rows, new = people.rows([7, 3], 49)
    assert sorted(new) == sorted(rows.tolist())
    assert len(people) == 2


# Kalman -----------------------------------------------------------------------------------------------------------------------------


class Plain:
    """The textbook's matrices, one coordinate."""

    def __init__(self, size: int, process: float, noise: float) -> None:
        self.n, self.q, self.noise, self.x = size, process**2, noise, None

    def predict(self, dt: float) -> None:
        f = np.array([[1, dt, dt * dt / 2], [0, 1, dt], [0, 0, 1]])[: self.n, : self.n]
        if self.n == 2:
            q = np.array([[dt**3 / 3, dt**2 / 2], [dt**2 / 2, dt]])
        else:
            q = np.array([[dt**5 / 20, dt**4 / 8, dt**3 / 6], [dt**4 / 8, dt**3 / 3, dt**2 / 2], [dt**3 / 6, dt**2 / 2, dt]])
        self.x, self.p = f @ self.x, f @ self.p @ f.T + self.q * q

    def measure(self, z: float, sigma: float) -> None:
        r = (self.noise * sigma) ** 2
        if self.x is None:
            self.x, self.p = np.array([z, 0, 0][: self.n]), np.diag([r, 1.0, 100.0][: self.n])
            return
        h = np.eye(1, self.n)
        k = self.p @ h.T / (h @ self.p @ h.T + r)
        self.x, self.p = self.x + k[:, 0] * (z - self.x[0]), (np.eye(self.n) - k @ h) @ self.p


def kalman(**own: Any) -> Kalman:
    options = {"model": "velocity", "process": 3.0, "noise": 1.5, "doubt": FAR, "bridge_s": 0.2, "forget_s": 0.3}
    made = Kalman(1, **{**options, **own})
    made.begin(0)
    return made


def feed(made: Kalman, z: float, t_s: float, *, sigma: float = 0.01, seen: bool = True) -> Any:
    shape = (1, 1)
    return made.step(
        np.zeros(1, np.int64), np.full((1, 1, 3), z), np.full(shape, sigma), np.full(shape, 0.8), np.full(shape, seen), round(t_s * 1e9)
    )


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-2, 2), st.integers(1, 90), st.floats(0.002, 0.2), st.booleans()), min_size=2, max_size=25),
    st.sampled_from(["velocity", "acceleration"]),
    st.floats(0.1, 50),
)
def test_it_is_the_textbooks_filter(path: list[tuple[float, int, float, bool]], model: Any, process: float) -> None:
    made, plain = kalman(model=model, process=process, forget_s=FAR, bridge_s=FAR), Plain(2 if model == "velocity" else 3, process, 1.5)
    t_ms = 0
    for z, wait_ms, sigma, seen in path:
        t_ms += wait_ms
        if plain.x is not None:
            plain.predict(wait_ms / 1e3)
        if seen:
            plain.measure(z, sigma)
        got = feed(made, z, t_ms / 1e3, sigma=sigma, seen=seen)
        if plain.x is None:
            assert np.isnan(got.xyz_m).all()
            continue
        assert got.xyz_m[0, 0] == pytest.approx([plain.x[0]] * 3, abs=1e-6)
        assert bool(got.bridged[0, 0]) is not seen


def test_without_process_noise_it_is_the_line_of_least_squares() -> None:
    rng, made = np.random.default_rng(1), kalman(process=1e-9, noise=1.0)
    t = np.cumsum(rng.uniform(0.01, 0.09, 30))
    z, sigma = 1 + 0.5 * t + rng.normal(0, 0.02, 30), rng.uniform(0.01, 0.05, 30)
    got = [feed(made, a, b, sigma=c).xyz_m[0, 0, 0] for a, b, c in zip(z, t, sigma, strict=True)][-1]
    rows = np.column_stack([np.ones(30), t - t[0]]) / sigma[:, None]  # and, as a last row, that it began at rest within 1 m/s
    line = np.linalg.lstsq(np.vstack([rows, [0, 1]]), np.append(z / sigma, 0), rcond=None)[0]
    assert got == pytest.approx(line @ [1, t[-1] - t[0]], abs=1e-6)


def test_what_lies_far_away_moves_it_no_more_than_what_lies_at_the_edge() -> None:
    moved = {}
    for away in (0.02, 0.5, 50.0):
        made = kalman(doubt=3.0)
        for k in range(20):
            feed(made, 1.0, k / 30)
        moved[away] = feed(made, 1.0 + away, 20 / 30).xyz_m[0, 0, 0] - 1.0
    assert moved[0.5] == pytest.approx(moved[50.0], rel=1e-6)
    assert moved[0.02] < moved[0.5] < 0.15
    sure = kalman(doubt=FAR)
    for k in range(20):
        feed(sure, 1.0, k / 30)
    assert feed(sure, 1.02, 20 / 30).xyz_m[0, 0, 0] - 1.0 == pytest.approx(moved[0.02], rel=1e-9), "within the edge doubt changes nothing"


def test_a_gap_is_bridged_with_growing_sigma_and_then_it_is_not_given() -> None:
    made = kalman()
    for k in range(31):
        feed(made, k / 30, k / 30)
    given_ = [feed(made, 0.0, 1 + ms / 1e3, seen=False) for ms in (50, 100, 150, 199, 200, 250)]
    assert [bool(g.bridged[0, 0]) for g in given_] == [True] * 4 + [False] * 2
    assert [g.xyz_m[0, 0, 0] for g in given_[:4]] == pytest.approx([1.05, 1.1, 1.15, 1.199], abs=0.01), "it goes on as it went"
    sigma, conf = [g.sigma_m[0, 0] for g in given_[:4]], [g.conf[0, 0] for g in given_[:4]]
    assert 0.01 < sigma[0] < sigma[1] < sigma[2] < sigma[3]
    assert conf == pytest.approx([0.8 * 0.75, 0.8 * 0.5, 0.8 * 0.25, 0.8 * 0.005])
    assert np.isnan(given_[4].xyz_m).all()
    assert feed(made, 1.28, 1.28).xyz_m[0, 0, 0] != 1.28, "within forget_s it goes on"
    assert feed(made, 9.0, 1.59).xyz_m[0, 0, 0] == 9.0, "later it starts afresh"


# local polynomial -------------------------------------------------------------------------------------------------------------------


def fit(t_s: Any, values: Any, at: int, *, order: int, sigma: Any = 0.01, seen: Any = True) -> Any:
    count = len(t_s)
    spread = np.broadcast_to(np.asarray(sigma, np.float64)[..., None, None], (count, 1, 1)).copy()
    there = np.broadcast_to(np.asarray(seen, np.bool_)[..., None, None], (count, 1, 1)).copy()
    return local_polynomial(np.asarray(t_s, np.float64), column(values), spread, ones(count), there, at, order=order, **SPANS)


def test_five_even_points_and_a_parabola_are_savitzkys_and_golays_numbers() -> None:
    for k, share in enumerate(np.array([-3, 12, 17, 12, -3]) / 35):
        assert fit(np.arange(5) / 30, np.eye(5)[k], 2, order=2).xyz_m[0, 0] == pytest.approx([share] * 3, abs=1e-12)
    for k, share in enumerate(np.array([3, -5, -3, 9, 31]) / 35):
        assert fit(np.arange(5) / 30, np.eye(5)[k], 4, order=2).xyz_m[0, 0] == pytest.approx([share] * 3, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.005, 0.1), st.floats(-2, 2), st.floats(0.01, 0.05)), min_size=1, max_size=12),
    st.integers(0, 4),
    st.integers(0, 11),
)
def test_it_is_the_weighted_polynomial_on_uneven_stamps(points: list[tuple[float, float, float]], order: int, at: int) -> None:
    steps, values, sigma = (np.array(x) for x in zip(*points, strict=True))
    t, at = np.cumsum(steps), min(at, len(points) - 1)
    usable = min(order, len(points) - 1)
    span = max(abs(t - t[at]).max(), 1e-3)
    want = np.polyfit((t - t[at]) / span, values, usable, w=1 / sigma)[-1]
    assert fit(t, values, at, order=order, sigma=sigma).xyz_m[0, 0, 0] == pytest.approx(want, abs=1e-5)


def test_a_polynomial_of_its_order_stays_what_it_is() -> None:
    t = np.array([0, 0.03, 0.05, 0.11, 0.12, 0.2])
    for at in range(6):
        assert fit(t, 1 - 3 * t + 8 * t**2, at, order=2).xyz_m[0, 0, 0] == pytest.approx(1 - 3 * t[at] + 8 * t[at] ** 2, abs=1e-12)


def test_a_hole_between_two_measurements_is_given_and_its_edge_is_not() -> None:
    t = np.arange(9) / 30
    seen = np.ones(9, np.bool_)
    seen[4] = False
    got = fit(t, 2 * t, 4, order=2, seen=seen)
    assert got.xyz_m[0, 0, 0] == pytest.approx(2 * t[4])
    assert (bool(got.bridged[0, 0]), got.sigma_m[0, 0]) == (True, pytest.approx(np.hypot(0.01, 1 / 30)))
    assert got.conf[0, 0] == pytest.approx(1 - (1 / 30) / 0.2)
    seen[4:] = False
    assert np.isnan(fit(t, 2 * t, 4, order=2, seen=seen).xyz_m).all(), "nothing comes after it"
    seen[8], wide = True, t * 2
    assert np.isnan(fit(wide, 2 * t, 4, order=2, seen=seen).xyz_m).all(), "333 ms are too long to bridge"


def test_what_lies_beyond_a_long_gap_does_not_count() -> None:
    t = np.array([0, 0.03, 0.06, 0.50, 0.53, 0.56])
    values = np.array([1, 1, 1, 5, 5, 5.0])
    assert [fit(t, values, k, order=1).xyz_m[0, 0, 0] for k in range(6)] == pytest.approx(values)


# Butterworth ------------------------------------------------------------------------------------------------------------------------


def both_ways(t_s: Any, values: Any, *, cutoff_hz: float = 4.0, order: int = 2, seen: Any = True) -> Any:
    count = len(t_s)
    there = np.broadcast_to(np.asarray(seen, np.bool_)[..., None], (count, 1)).copy()
    flat = np.ones((count, 1))
    return butterworth(
        np.asarray(t_s, np.float64), column(values)[:, 0], 0.01 * flat, flat, there, cutoff_hz=cutoff_hz, order=order, **SPANS
    )


@pytest.mark.parametrize("order", [2, 4, 6])
@pytest.mark.parametrize("hz", [0.5, 2.0, 4.0, 7.0])
def test_a_sine_is_made_smaller_as_the_formula_says_and_not_shifted(hz: float, order: int) -> None:
    rate = 60.0
    t = np.arange(600) / rate
    middle = slice(200, 400)
    got = both_ways(t, np.sin(2 * np.pi * hz * t), order=order).xyz_m[middle, 0, 0]
    ratio = np.tan(np.pi * hz / rate) / np.tan(np.pi * 4.0 / rate)
    want = np.sin(2 * np.pi * hz * t)[middle] / (1 + (np.sqrt(2) - 1) * ratio ** (2 * order))
    assert got == pytest.approx(want, abs=2e-4)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0.005, 0.1), min_size=1, max_size=60), st.floats(-3, 3), st.floats(-2, 2), st.floats(0.5, 20))
def test_a_straight_line_stays_what_it_is(steps: list[float], begin: float, speed: float, cutoff_hz: float) -> None:
    t = np.cumsum(steps)
    got = both_ways(t, begin + speed * t, cutoff_hz=cutoff_hz)
    assert got.xyz_m[:, 0, 0] == pytest.approx(begin + speed * t, abs=1e-6)
    assert not got.bridged.any()


def test_twice_as_slow_with_half_the_cutoff_is_the_same() -> None:
    rng = np.random.default_rng(4)
    t, values = np.cumsum(rng.uniform(0.01, 0.05, 100)), rng.normal(0, 1, 100)
    fast = butterworth(
        t, column(values)[:, 0], *np.ones((2, 100, 1)), np.ones((100, 1), np.bool_), cutoff_hz=6.0, order=4, bridge_s=1, forget_s=1
    )
    slow = butterworth(
        2 * t, column(values)[:, 0], *np.ones((2, 100, 1)), np.ones((100, 1), np.bool_), cutoff_hz=3.0, order=4, bridge_s=2, forget_s=2
    )
    assert fast.xyz_m == pytest.approx(slow.xyz_m, abs=1e-9)


def test_backwards_in_time_is_the_same() -> None:
    rng = np.random.default_rng(5)
    values = rng.normal(0, 1, 200)
    t = np.arange(200) / 30
    there, back = both_ways(t, values).xyz_m[50:150], both_ways(t, values[::-1]).xyz_m[::-1][50:150]
    assert there == pytest.approx(back, abs=1e-6)


def test_holes_are_bridged_and_long_gaps_cut_the_recording() -> None:
    t = np.arange(60) / 30
    values = np.where(t < 1, 1.0, 5.0)
    seen = np.ones(60, np.bool_)
    seen[[10, 11]] = False
    seen[25:36] = False
    got = both_ways(t, values, seen=seen)
    given_ = np.isfinite(got.xyz_m[:, 0, 0])
    assert np.flatnonzero(~given_).tolist() == list(range(25, 36))
    assert np.flatnonzero(got.bridged[:, 0]).tolist() == [10, 11]
    assert got.xyz_m[given_, 0, 0] == pytest.approx(values[given_], abs=1e-12), "nothing of one side comes to the other"
    assert got.conf[10, 0] == pytest.approx(1 - (1 / 30) / 0.2)
