"""Drawn heatmaps have the mistakes that their statistics name, and no others."""

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posepipe.calib.synthetic_noise import Noise, Statistics, observe, observe_track, statistics
from posepipe.calib.synthetic_noise_stats import GROUPS, SHIPPED
from posepipe.pipeline.errors import RigError

STANDING = np.array(
    [[.5, .15], [.52, .13], [.48, .13], [.55, .14], [.45, .14], [.6, .27], [.4, .27], [.65, .4], [.35, .4], [.67, .52], [.33, .52],
     [.56, .52], [.44, .52], [.57, .7], [.43, .7], [.58, .88], [.42, .88]]
)  # fmt: skip
LEFT = [3, 5, 7, 9, 11, 13, 15]


def changed(**tables):
    """The shipped statistics with some numbers changed: table={field: number}; `joints` for all groups."""
    stats = statistics()
    for name, fields in tables.items():
        if name == "joints":
            groups = {g: msgspec.structs.replace(getattr(stats.joints, g), **fields) for g in GROUPS}
            stats = msgspec.structs.replace(stats, joints=msgspec.structs.replace(stats.joints, **groups))
        else:
            stats = msgspec.structs.replace(stats, **{name: msgspec.structs.replace(getattr(stats, name), **fields)})
    return stats


EXACT = changed(
    joints={"bias": 0, "jitter": 0, "hidden": 0, "moved": 0, "astray": 0, "confidence": 1.5, "drop": 0, "spread": 0, "lower": 0.5, "width_tail": 0, "second": 0},
    hidden={"difficulty": 1, "missed": 0}, swaps={"body": 0, "legs": 0, "arms": 0, "pair": 0},
    outside={"mirrored": 0, "limb": 0, "reach": 0}, shape={"lost": 0},
)  # fmt: skip


def people(size=64, views=4):
    return np.repeat(STANDING[None] * size, views, 0), np.zeros((views, 17), bool)


def draws(stats, count, *, hide=False, uv=None, seed=0):
    """Errors [count,C,17] in shares of the side and confidences of many independent instants."""
    at, hidden = people()
    at = at if uv is None else uv
    hidden[:] = hide
    rng, out = np.random.default_rng(seed), np.empty((4, 64, 64, 17), np.float32)
    seen = [observe(rng, at, hidden, stats=stats, out=out) for _ in range(count)]
    off = np.array([s.peaks for s in seen]) - at
    return off / 64, np.array([s.conf for s in seen])


@given(seed=st.integers(0, 2**32), size=st.sampled_from([32, 64, 96]), shift=st.floats(-0.8, 0.8), hide=st.booleans())
@settings(max_examples=60, deadline=None)
def test_maps_are_finite_probabilities_and_their_peaks_are_the_confidences(seed, size, shift, hide):
    uv, hidden = people(size)
    seen = observe(np.random.default_rng(seed), uv + shift * size, hidden | hide, size=size)
    assert seen.maps.shape == (4, size, size, 17)
    assert seen.maps.dtype == np.float32
    assert np.isfinite(seen.maps).all()
    assert seen.maps.min() >= 0
    assert seen.maps.max() <= 1
    np.testing.assert_array_equal(seen.conf, seen.maps.max(axis=(1, 2)))
    there = seen.conf > 0
    assert np.isfinite(seen.peaks[there]).all()
    assert np.isnan(seen.peaks[~there]).all()
    assert (seen.peaks[there] >= 0).all()
    assert (seen.peaks[there] <= size - 1).all()


@given(x=st.floats(8, 55), y=st.floats(8, 55))
@settings(max_examples=40, deadline=None)
def test_without_errors_the_peak_lies_where_the_joint_is(x, y):
    uv, hidden = people()
    uv[:, 9] = x, y
    seen = observe(np.random.default_rng(0), uv, hidden, stats=EXACT)
    np.testing.assert_allclose(seen.peaks, uv, atol=0.25)  # the decoder looks at seven cells
    row, column = np.unravel_index(seen.maps[0, :, :, 9].argmax(), (64, 64))
    assert abs(column - x) <= 0.75
    assert abs(row - y) <= 0.75


def test_the_same_seed_gives_the_same_maps_and_another_seed_others():
    uv, hidden = people()
    one, same, other = (observe(np.random.default_rng(seed), uv, hidden) for seed in (5, 5, 6))
    np.testing.assert_array_equal(one.maps, same.maps)
    np.testing.assert_array_equal(one.peaks, same.peaks)
    assert (one.maps != other.maps).any()


def test_what_was_written_before_into_out_does_not_matter():
    uv, hidden = people()
    out = np.full((4, 64, 64, 17), np.nan, np.float32)
    seen = observe(np.random.default_rng(5), uv, hidden, out=out)
    assert seen.maps is out
    np.testing.assert_array_equal(out, observe(np.random.default_rng(5), uv, hidden).maps)


def test_a_view_without_the_person_is_empty():
    uv, hidden = people()
    uv[2] = np.nan
    uv[1, 9] = np.nan
    seen = observe(np.random.default_rng(0), uv, hidden, stats=EXACT)
    assert not seen.maps[2].any()
    assert not seen.conf[2].any()
    assert np.isnan(seen.peaks[2]).all()
    assert not seen.conf[1, 9]
    assert (seen.conf[0] > 0).all()


def test_hidden_joints_are_found_worse_and_less_surely():
    seen, sure = draws(statistics(), 600)
    hidden, unsure = draws(statistics(), 600, hide=True)
    assert (unsure.mean(axis=(0, 1)) < sure.mean(axis=(0, 1)) - 0.05).all()
    error, more = (np.nanmedian(np.linalg.norm(e, axis=-1), axis=(0, 1)) for e in (seen, hidden))
    assert (more > 1.2 * error).all()


def test_low_peaks_are_worse():
    off, conf = draws(statistics(), 1500)
    error = np.linalg.norm(off, axis=-1)
    for j in range(5, 17):
        low, high = np.quantile(conf[..., j], [0.2, 0.8])
        assert np.median(error[..., j][conf[..., j] < low]) > 1.1 * np.median(error[..., j][conf[..., j] > high])


def test_ten_thousand_draws_have_the_spread_of_the_file():
    stats = changed(joints={"bias": 0, "tail": 0, "second": 0, "astray": 0}, swaps={"body": 0, "legs": 0, "arms": 0, "pair": 0}, shape={"lost": 0, "longer": 0})  # fmt: skip
    off, conf = draws(stats, 10_000)
    for j, group in enumerate(["head"] * 5 + [g for g in GROUPS[1:] for _ in range(2)]):
        wanted = getattr(stats.joints, group)
        assert np.sqrt(np.nanmean(off[..., j, :] ** 2)) == pytest.approx(wanted.jitter, rel=0.05)
        logit = np.log(conf[..., j] / (1 - conf[..., j]))
        assert logit.std() == pytest.approx(np.hypot(wanted.drop, wanted.spread), rel=0.1)


@pytest.mark.parametrize(("table", "joints"), [("body", range(1, 17)), ("legs", range(11, 17)), ("arms", range(7, 11))])
def test_swaps_are_as_frequent_as_the_file_says(table, joints):
    stats = msgspec.structs.replace(EXACT, swaps=msgspec.structs.replace(EXACT.swaps, **{table: 0.1, "doubt": 4.0}))
    off, _ = draws(stats, 4000)
    other = np.hypot(*(off.transpose(3, 0, 1, 2))) > 0.02
    for j in range(1, 17):
        assert other[..., j].mean() == pytest.approx(0.1 if j in joints else 0, abs=0.015)


def test_a_body_seen_from_behind_is_taken_for_its_front_more_often():
    stats = msgspec.structs.replace(EXACT, swaps=msgspec.structs.replace(EXACT.swaps, body=0.05, behind=4.0))
    uv = people()[0]
    front, _ = draws(stats, 2000, uv=uv)
    behind, _ = draws(stats, 2000, uv=uv * [-1, 1] + [64, 0])
    assert (np.abs(front[..., 5, 0]) > 0.05).mean() == pytest.approx(0.05, abs=0.015)
    assert (np.abs(behind[..., 5, 0]) > 0.05).mean() == pytest.approx(0.2, abs=0.03)


def test_second_peaks_lie_on_the_other_person_where_there_is_one():
    second = msgspec.structs.replace(EXACT.second, mirrored=0, other=1, limb=0, tail=0)
    elbows = msgspec.structs.replace(EXACT.joints.elbows, second=0.5)
    stats = msgspec.structs.replace(EXACT, second=second, joints=msgspec.structs.replace(EXACT.joints, elbows=elbows))
    uv, hidden = people()
    others = uv[:, None] * 0.5
    rng = np.random.default_rng(0)
    seen = [observe(rng, uv, hidden, stats=stats, others=others).maps[0, 13, 21, 7] for _ in range(400)]
    alone = [observe(rng, uv, hidden, stats=stats).maps[0, 13, 21, 7] for _ in range(100)]
    assert 0.3 < np.mean(np.array(seen) > 0.02) < 0.6
    assert not np.any(alone)


def test_joints_outside_of_the_crop_have_low_peaks_at_its_edge():
    uv, hidden = people()
    uv[:, 15] += [0, 16]
    seen = observe(np.random.default_rng(0), uv, hidden, stats=EXACT)
    assert (seen.conf[:, 15] < 0.5 * seen.conf[:, 16]).all()
    assert (seen.peaks[:, 15, 1] > 60).all()


def test_errors_of_a_track_last():
    uv, hidden = people()
    peaks, conf = observe_track(np.random.default_rng(0), np.repeat(uv[None], 3000, 0), np.repeat(hidden[None], 3000, 0), fps=30)
    assert peaks.shape == (3000, 4, 17, 2)
    assert conf.shape == (3000, 4, 17)
    off = np.clip(peaks - uv, -2, 2)
    off = np.nan_to_num(off - np.nanmean(off, axis=0))
    lag = [np.mean(off[k:] * off[: len(off) - k]) / np.mean(off * off) for k in (1, 30, 300)]
    assert lag[0] > 0.4
    assert lag[0] > lag[1] > lag[2] - 0.02
    assert abs(lag[2]) < 0.1


def test_a_track_of_one_instant_is_an_observation():
    uv, hidden = people()
    peaks, conf = observe_track(np.random.default_rng(3), uv[None], hidden[None], fps=30)
    seen = observe(np.random.default_rng(3), uv, hidden)
    np.testing.assert_array_equal(peaks[0], seen.peaks)
    np.testing.assert_array_equal(conf[0], seen.conf)


def test_the_instants_of_one_person_share_its_offsets():
    stats = msgspec.structs.replace(EXACT, joints=changed(joints={"bias": 0.02, "jitter": 0, "second": 0, "astray": 0}).joints)
    uv, hidden = people()
    noise = Noise(np.random.default_rng(0), 4, stats=stats)
    one, later = noise.step(uv, hidden), noise.step(uv, hidden)
    np.testing.assert_allclose(one.peaks, later.peaks, atol=0.5)
    assert np.abs(one.peaks - uv).max() > 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"uv": np.zeros((4, 16, 2))}, r"uv has shape \[4, 16, 2\], not \[4, 17, 2\]"),
        ({"hidden": np.zeros((3, 17), bool)}, r"hidden has shape \[3, 17\], not \[4, 17\]"),
        ({"others": np.zeros((4, 17, 2))}, r"others has shape \[4, 17, 2\], not \[4, 17, 17, 2\]"),
        ({"out": np.zeros((4, 32, 32, 17), np.float32)}, r"out has shape \[4, 32, 32, 17\], not \[4, 64, 64, 17\]"),
        ({"out": np.zeros((4, 64, 64, 17))}, "out is float64, not float32"),
    ],
)
def test_arrays_of_another_shape_are_refused(wrong, message):
    uv, hidden = people()
    with pytest.raises(ValueError, match=message):
        observe(np.random.default_rng(0), **({"uv": uv, "hidden": hidden} | wrong))


def test_statistics_without_arguments_are_the_shipped_ones():
    assert Statistics() == statistics() == statistics(SHIPPED)
    assert statistics().network == "blazepose.full"


def test_a_file_may_name_only_the_tables_that_differ(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text('network = "own"\n[times]\nerror_s = 2.0\ndifficulty_s = 0.1\nmistake_s = 0.1\n')
    own = statistics(path)
    assert own.times.error_s == 2
    assert own.joints == statistics().joints


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("jitter = ", "jiter = ", r"jiter.*\$\.joints\.head"),
        ("astray = ", "astray = 1 # ", None),
        ("astray = ", "astray = 2 # ", r"<= 1.*\$\.joints\.head\.astray"),
        ("near = ", "near = 0 # ", r"> 0.*\$\.swaps\.near"),
        ("lost = ", "lost = 'x' # ", r"Expected `float`.*\$\.shape\.lost"),
        ("[times]", "[time]", "unknown field `time`"),
        ("[times]", "[times", "no TOML"),
    ],
)
def test_wrong_files_are_refused_by_field(tmp_path, old, new, message):
    path = tmp_path / "noise.toml"
    path.write_text(SHIPPED.read_text().replace(old, new, 1))
    if message is None:
        assert statistics(path).joints.head.astray == 1
        return
    with pytest.raises(RigError, match=message) as caught:
        statistics(path)
    assert str(path) in str(caught.value)
    assert caught.value.hint


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(RigError, match="cannot be read: No such file"):
        statistics(tmp_path / "none.toml")
