"""What heatmaps look like in numbers, and the network that makes weights of it."""

import numpy as np
import onnxruntime
import pytest

from posepipe.calib.sides import mirror_of
from posepipe.engines import device, runtimes, timings
from posepipe.engines.confidence import AGREEMENTS, KINDS, SHAPES, Confidence, describe, network_file
from posepipe.engines.engine import EngineOptions
from posepipe.pipeline.errors import EngineError
from posepipe.pipeline.skeleton import BLAZEPOSE33, COCO17

CPU = EngineOptions(runtime="onnxruntime", threads=1)
MIRROR = mirror_of(COCO17)


def peaks(*at, high=64, wide=64, logit=1.5, width=1.0, ratio=1.0):
    """One view's maps [1,1,h,w,17], the same for all joints: logistic peaks (column, row, logit) of a width and a ratio of the axes."""
    r, c = np.mgrid[:high, :wide]
    maps = np.full((high, wide), -12.0)
    for column, row, *less in at:
        away2 = ((c - column) / (width * ratio)) ** 2 + ((r - row) / (width / ratio)) ** 2
        maps = np.maximum(maps, logit - sum(less) - away2 / 2)
    return np.repeat((1 / (1 + np.exp(-maps))).astype(np.float32)[None, None, ..., None], 17, axis=-1)


def test_height_place_and_edge():
    for high, wide in ((64, 64), (40, 64), (64, 50), (33, 31)):
        seen = describe(peaks((20, 12), high=high, wide=wide))[0, 0, 4]
        side = max(high, wide)
        assert seen[0] == pytest.approx(1.5 / 4, abs=1e-4)
        assert seen[7:10] == pytest.approx(
            [(20 - wide / 2) / side, (12 - high / 2) / side, min(20, 12, wide - 21, high - 13) / side], abs=1e-6
        )


def test_a_second_peak_and_how_far_away_it_is():
    seen = describe(peaks((20, 20), (44, 20, 1.0)))[0, 0, 8]
    assert seen[1] == pytest.approx(0.5 / 4, abs=0.01)
    assert seen[2] == pytest.approx(24 / 64, abs=0.04)
    alone = describe(peaks((20, 20)))[0, 0, 8]
    assert alone[1] < -1
    near = describe(peaks((20, 20), (22, 20, 1.0)))[0, 0, 8]
    assert near[1] < 0


@pytest.mark.parametrize("width", [0.8, 1.2, 2.0])
@pytest.mark.parametrize("ratio", [1.0, 1.3])
def test_the_curvature_at_the_peak_is_its_width(width, ratio):
    seen = describe(peaks((30, 30), width=width, ratio=ratio))[0, 0, 0]
    assert np.exp(seen[12]) == pytest.approx(width, rel=0.02)
    assert np.exp(2 * seen[13]) == pytest.approx(ratio**4, rel=0.05)


def test_a_wider_peak_says_so_in_every_number():
    narrow, wide = (describe(peaks((30, 30), width=w))[0, 0, 0] for w in (0.9, 1.8))
    for k in (3, 5, 6, 12):
        assert wide[k] > narrow[k] + 0.2, k


def test_what_the_map_shows_where_the_other_side_is():
    maps = peaks((20, 20)).copy()
    maps[..., MIRROR[9]] = peaks((40, 20), (20, 20, 2.0))[..., 0]
    wrist, other = describe(maps)[0, 0, [9, 10]]
    assert wrist[11] == other[11] == pytest.approx(20 / 64)
    assert wrist[10] < -1
    assert other[10] == pytest.approx(-0.5 / 4, abs=1e-3)
    nose = describe(maps)[0, 0, 0]
    assert nose[11] == 0


def test_maps_of_zeros_and_of_packets_are_no_error():
    maps = np.zeros((2, 3, 64, 64, 17), np.float32)
    maps.setflags(write=False)
    seen = describe(maps)
    assert seen.shape == (2, 3, 17, SHAPES)
    assert np.isfinite(seen).all()
    assert describe(maps[:0]).shape == (0, 3, 17, SHAPES)


def test_views_and_people_are_described_one_by_one():
    rng = np.random.default_rng(0)
    maps = rng.random((2, 3, 20, 24, 17)).astype(np.float32)
    every = describe(maps)
    for p in range(2):
        for c in range(3):
            assert np.array_equal(every[p, c], describe(maps[p : p + 1, c : c + 1])[0, 0])


def given(rng, people=2, views=4):
    shapes = rng.normal(size=(people, views, 17, SHAPES)).astype(np.float32)
    agreement = rng.normal(size=(people, views, 17, AGREEMENTS)).astype(np.float32)
    return shapes, agreement, (rng.random((people, views, 17)) < 0.8).astype(np.float32)


def test_the_shipped_network_knows_no_order_of_the_views():
    session = onnxruntime.InferenceSession(network_file(), providers=["CPUExecutionProvider"])
    inputs = dict(zip(("shapes", "agreement", "seen"), given(np.random.default_rng(0)), strict=True))
    (conf,) = session.run(None, inputs)
    order = [2, 0, 3, 1]
    (moved,) = session.run(None, {k: a[:, order].copy() for k, a in inputs.items()})
    seen = inputs["seen"][:, order] > 0
    assert moved[seen] == pytest.approx(conf[:, order][seen], abs=1e-5)
    assert conf.min() >= 0
    assert conf.max() <= 1
    assert network_file().stat().st_size <= 1_000_000


def test_the_shipped_network_takes_any_number_of_views_and_does_not_look_at_absent_ones():
    session = onnxruntime.InferenceSession(network_file(), providers=["CPUExecutionProvider"])
    shapes, agreement, seen = given(np.random.default_rng(1), people=1, views=3)
    (three,) = session.run(None, {"shapes": shapes, "agreement": agreement, "seen": seen})
    filled = [np.concatenate([a, np.full_like(a[:, :2], value)], axis=1) for a, value in ((shapes, 9.0), (agreement, -9.0), (seen, 0.0))]
    (five,) = session.run(None, dict(zip(("shapes", "agreement", "seen"), filled, strict=True)))
    assert five[:, :3][seen > 0] == pytest.approx(three[seen > 0], abs=1e-5)


def test_a_wide_and_lone_peak_weighs_less_than_a_sharp_one_that_agrees():
    network = Confidence(CPU)
    maps = np.concatenate([peaks((30, 30), width=0.9, logit=2.5)] * 3 + [peaks((30, 30), (50, 40, 0.1), width=2.2, logit=-0.5)], axis=1)
    agreement = np.zeros((1, 4, 17, AGREEMENTS), np.float32)
    agreement[..., 0], agreement[..., 1:5], agreement[..., 6:8] = -0.5, [1, 1, 1, 1], -0.3
    agreement[:, 3, :, 0], agreement[:, 3, :, 1] = 1.0, 0.0
    weights = network(maps, np.broadcast_to(np.arange(17), (1, 4, 17)), agreement, np.full((1, 4, 17), 0.8))
    assert (weights[0, 3] < 0.5 * weights[0, :3].min(axis=0)).all()
    network.close()


def test_what_is_not_seen_weighs_nothing_and_other_joints_keep_their_peaks():
    network = Confidence(CPU, BLAZEPOSE33)
    at = [BLAZEPOSE33.index(j) for j in COCO17.joints]
    conf = np.random.default_rng(0).uniform(0.3, 1, (1, 2, 33))
    conf[0, 1, at[3]] = 0
    order = np.broadcast_to(np.arange(33), (1, 2, 33))
    agreement = np.zeros((1, 2, 33, AGREEMENTS), np.float32)
    weights = network(np.repeat(peaks((30, 30)), 2, axis=1), order, agreement, conf)
    others = np.setdiff1d(np.arange(33), at)
    assert np.array_equal(weights[..., others], conf[..., others])
    assert weights[0, 1, at[3]] == 0
    assert (weights[0, 0, at] >= 1e-3).all()
    assert network(np.zeros((0, 2, 64, 64, 17), np.float32), order[:0], agreement[:0], conf[:0]).shape == (0, 2, 33)
    network.close()


def test_key_points_of_the_other_side_bring_their_own_heatmaps():
    network = Confidence(CPU)
    maps = np.repeat(peaks((30, 30)), 2, axis=1).copy()
    maps[0, 0, ..., 5] = peaks((20, 20), width=2.5, logit=-1.0)[0, 0, ..., 0]
    order, conf = np.tile(np.arange(17), (1, 2, 1)), np.full((1, 2, 17), 0.8)
    agreement = np.zeros((1, 2, 17, AGREEMENTS), np.float32)
    own = network(maps, order, agreement, conf)
    order[0, 0] = MIRROR
    exchanged = network(maps, order, agreement, conf)
    maps[0, 0] = maps[0, 0][..., MIRROR]
    assert exchanged == pytest.approx(network(maps, np.tile(np.arange(17), (1, 2, 1)), agreement, conf), abs=1e-6)
    assert np.abs(exchanged[0, 0, [5, 6]] - own[0, 0, [5, 6]]).min() > 1e-3
    network.close()


def test_a_file_of_another_shape_is_refused(tmp_path):
    path = tmp_path / "confidence.onnx"
    path.write_bytes(b"no network")
    with pytest.raises(EngineError):
        Confidence(CPU, path=path)


def test_every_joint_has_a_kind():
    assert [KINDS[COCO17.index(j)] for j in ("nose", "left_ear", "right_shoulder", "left_ankle")] == [0, 0, 1, 6]
    assert np.array_equal(KINDS, KINDS[MIRROR])


@pytest.fixture
def with_gpu(monkeypatch):
    """A machine where a plan would be made: a GPU, TensorRT for RTX and pycuda."""
    there = device.Driver((device.Gpu("Made Up 9000", "sm89"),), "13.0")
    versions = {"tensorrt": "10.13", "tensorrt_rtx": "1.7.1", "pycuda": "2026.1"}
    real = runtimes.version_of
    monkeypatch.setattr(device, "driver", lambda: there)
    monkeypatch.setattr(runtimes, "driver", lambda: there)
    monkeypatch.setattr(runtimes, "version_of", lambda name: versions.get(name) or real(name))
    monkeypatch.setattr(timings, "fastest", lambda path, options, found, gpu="": (next(iter(found)), "auto: measured"))


@pytest.mark.parametrize("asked", [{}, {"device": "cuda"}, {"runtime": "tensorrt_rtx"}, {"runtime": "tensorrt", "device": "cuda:0"}])
def test_beside_networks_on_a_gpu_it_runs_on_the_processor_and_says_so(with_gpu, asked):
    """A plan would be refused: nobody states the number of views."""
    options = EngineOptions(**{"threads": 1, "precision": "fp32", **asked})
    assert runtimes.choose(options, network_file())[0] in ("tensorrt", "tensorrt_rtx")
    network = Confidence(options)
    assert network.engine.runtime in runtimes.ON_CPU
    assert network.engine.device == "CPU"
    assert network.engine.reason.startswith("on the processor by rule: it is small")
    maps, order, agreement, conf = (
        peaks((30, 30)),
        np.arange(17)[None, None],
        np.zeros((1, 1, 17, AGREEMENTS), np.float32),
        np.full((1, 1, 17), 0.8),
    )
    reference = Confidence(CPU)
    assert network(maps, order, agreement, conf) == pytest.approx(reference(maps, order, agreement, conf), abs=1e-3)
    network.close()
    reference.close()


@pytest.mark.parametrize("asked", [{}, {"runtime": "openvino"}, {"runtime": "stub"}, {"runtime": "onnxruntime", "device": "cpu"}])
def test_where_a_processor_is_meant_nothing_is_said(monkeypatch, asked):
    monkeypatch.setattr(device, "driver", lambda: device.Driver(why="no NVIDIA driver"))
    network = Confidence(EngineOptions(**asked))
    assert (network.engine.device, network.engine.precision) == ("CPU", "fp32")
    assert "by rule" not in network.engine.reason
    network.close()
