"""What the whole body says of every joint: how poses are described to the network, and the network that ships."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from posepipe.calib.sides import mirror_of
from posepipe.engines.engine import EngineOptions
from posepipe.engines.posture import FEATURES, VIEWS, Placed, Posture, describe, network_file
from posepipe.pipeline.errors import EngineError
from posepipe.pipeline.skeleton import COCO17

CPU = EngineOptions(runtime="onnxruntime", threads=1)
MIRROR = mirror_of(COCO17)


def placed(seed: int, people: int = 2, *, sigma: float = 0.01) -> Placed:
    rng = np.random.default_rng(seed)
    return Placed(rng.uniform(-0.3, 0.3, (people, 17, 3)), np.full((people, 17), sigma), rng.integers(0, 5, (people, 17)))


def seen(people: int = 2, cameras: int = 3) -> np.ndarray:
    return np.random.default_rng(9).random((people, cameras, 17)).astype(np.float32)


def test_columns_are_what_they_are_said_to_be() -> None:
    volume, fine, first = placed(0, sigma=0.02), placed(1, sigma=0.04), placed(2, sigma=1.0)
    joints, base = describe(volume, fine, first, seen())
    assert joints.shape == (2, 17, FEATURES)
    assert joints.dtype == base.dtype == np.float32
    np.testing.assert_allclose(base, fine.xyz, atol=1e-6)
    np.testing.assert_allclose(joints[..., :3], 2 * volume.xyz, atol=1e-6)
    np.testing.assert_allclose(joints[..., 3:6], np.clip(10 * (fine.xyz - volume.xyz), -3, 3), atol=1e-5)
    np.testing.assert_allclose(joints[..., 6:9], np.clip(10 * (first.xyz - volume.xyz), -3, 3), atol=1e-5)
    np.testing.assert_allclose(joints[..., 9:12], np.broadcast_to([0, np.log(2) / 2, np.log(15) / 2], (2, 17, 3)), atol=1e-6)
    assert (joints[..., 12:14] == 1).all()
    np.testing.assert_allclose(joints[..., 14], np.asarray(fine.views) / 4)
    np.testing.assert_allclose(joints[..., 15], np.asarray(first.views) / 4)
    assert (np.diff(joints[..., 16:], axis=2) <= 0).all()
    np.testing.assert_allclose(joints[..., 16], seen().max(axis=1))
    assert (joints[..., 16 + 3 :] == 0).all(), "three cameras have three confidences"


def test_more_cameras_than_count_are_their_best() -> None:
    joints, _ = describe(placed(0), placed(1), placed(2), conf := seen(cameras=7))
    np.testing.assert_allclose(joints[..., 16:], np.sort(conf, axis=1)[:, :-VIEWS-1:-1].transpose(0, 2, 1))  # fmt: skip


@pytest.mark.parametrize("nothing", [np.nan, np.inf])
def test_a_joint_without_a_point_is_where_the_volume_has_it(nothing: float) -> None:
    volume, fine, first = placed(0), placed(1), placed(2)
    fine.xyz[0, 3], first.sigma[1, 5] = nothing, nothing
    conf = seen()
    conf[0, 0, 0] = np.nan
    joints, base = describe(volume, fine, first, conf)
    assert np.isfinite(joints).all()
    np.testing.assert_allclose(base[0, 3], volume.xyz[0, 3], atol=1e-6)
    assert (joints[0, 3, 12], joints[0, 3, 13], joints[1, 5, 13]) == (0, 1, 0)
    assert (joints[0, 3, 3:6] == 0).all()


def test_nobody_is_described_by_nothing() -> None:
    joints, base = describe(placed(0, 0), placed(1, 0), placed(2, 0), seen(0))
    assert joints.shape == (0, 17, FEATURES)
    assert base.shape == (0, 17, 3)


def standing() -> np.ndarray:
    """A plain body in the cube of 2.5 m, hips in the middle; x from right to left."""
    half = {
        "nose": (0, -0.1, 0.62),
        "eye": (0.03, -0.09, 0.66),
        "ear": (0.07, 0, 0.65),
        "shoulder": (0.18, 0, 0.45),
        "elbow": (0.22, 0, 0.17),
    }
    half |= {"wrist": (0.23, -0.03, -0.08), "hip": (0.1, 0, 0), "knee": (0.11, 0, -0.43), "ankle": (0.11, 0.02, -0.84)}
    rows = []
    for name in COCO17.joints:
        x, y, z = next(at for part, at in half.items() if part in name)
        rows.append((-x if name.startswith("right") else x, y, z))
    return np.array(rows) / 2.5


def test_the_network_that_ships_leaves_a_body_that_all_agree_on() -> None:
    body = Placed(standing()[None], np.full((1, 17), 0.006), np.full((1, 17), 4))
    posture = Posture(CPU)
    shares, sigma = posture(body, body, body, np.full((1, 4, 17), 0.95, np.float32))
    posture.close()
    assert np.linalg.norm(shares[0] - body.xyz[0], axis=1).mean() * 2.5 < 0.02
    assert ((sigma > 0) & (sigma < 0.03)).all()


def test_the_network_that_ships_brings_back_an_ankle_that_nobody_sees() -> None:
    """Half a metre off, and said to be: where a leg ends, the rest of the body says."""
    body = Placed(standing()[None], np.full((1, 17), 0.006), np.full((1, 17), 4))
    off = replace(body, xyz=body.xyz.copy(), sigma=body.sigma.copy(), views=body.views.copy())
    ankle = COCO17.index("left_ankle")
    off.xyz[0, ankle, 0] += 0.2
    off.sigma[0, ankle], off.views[0, ankle] = 0.1, 0
    conf = np.full((1, 4, 17), 0.95, np.float32)
    conf[:, :, ankle] = 0.0
    posture = Posture(CPU)
    shares, sigma = posture(off, off, off, conf)
    posture.close()
    assert np.linalg.norm(shares[0, ankle] - body.xyz[0, ankle]) < 0.8 * 0.2
    assert sigma[0, ankle] > 2 * np.median(sigma)


def test_left_is_treated_as_right() -> None:
    """It was trained on everybody twice, the second time mirrored: what is left of a difference is small."""
    rng = np.random.default_rng(3)
    body = Placed(standing()[None] + rng.normal(0, 0.01, (1, 17, 3)), np.full((1, 17), 0.01), np.full((1, 17), 3))
    flipped = replace(body, xyz=body.xyz[:, MIRROR] * [-1, 1, 1])
    conf, posture = np.full((1, 3, 17), 0.8, np.float32), Posture(CPU)
    one, _ = posture(body, body, body, conf)
    other, _ = posture(flipped, flipped, flipped, conf)
    posture.close()
    assert np.abs(other[0, MIRROR] * [-1, 1, 1] - one[0]).mean() < 0.004


def test_another_network_is_refused(tmp_path: Path) -> None:
    (tmp_path / "posture.onnx").write_bytes((network_file().parent / "confidence.onnx").read_bytes())
    with pytest.raises(EngineError, match="the network has no input 'joints'"):
        Posture(CPU, path=tmp_path / "posture.onnx")
