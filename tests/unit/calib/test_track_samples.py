"""People who move: resampled without changing what they do, and seen as triangulation sees them."""

from __future__ import annotations

import numpy as np
import pytest

from posepipe.calib.body import load_body, rotations_of_6d
from posepipe.calib.sides import facing_of
from posepipe.calib.track_samples import Motion, resampled, watched
from posepipe.pipeline.skeleton import COCO17

BODY = load_body()
SHAPE = BODY.draw(np.random.default_rng(4))


def swaying(count: int = 60):  # type: ignore[no-untyped-def]
    """A body that sways with one second's period, arms asymmetric; 30 instants a second."""
    six = np.tile(np.eye(3)[:, :2].reshape(6), (count, 24, 1))
    rotations = rotations_of_6d(six)
    angle = 0.4 * np.sin(2 * np.pi * np.arange(count) / 30)
    c, s, o = np.cos(angle), np.sin(angle), np.zeros(count)
    bend = np.stack([o + 1, o, o, o, c, -s, o, s, c], axis=1).reshape(count, 3, 3)
    for bone in ("left_shoulder", "left_elbow", "left_wrist"):
        rotations[:, BODY.bones.index(bone)] = bend
    return BODY.pose(SHAPE, rotations, np.tile([0.0, 0.0, 0.95], (count, 1)))


def drawn(seed: int, fps: float = 30.0, count: int = 20) -> Motion:
    return resampled(np.random.default_rng(seed), "sway", swaying(), SHAPE, 30.0, fps=fps, count=count)


def lengths(joints_m: np.ndarray) -> np.ndarray:
    return np.asarray(np.linalg.norm(joints_m[:, [7, 9, 8, 10, 13, 15]] - joints_m[:, [5, 7, 6, 8, 11, 13]], axis=2))


@pytest.mark.parametrize("seed", range(6))
def test_the_same_body_moves_somewhere_else(seed: int) -> None:
    motion = drawn(seed)
    assert np.sort(lengths(motion.coco17_m)[0]) == pytest.approx(np.sort(lengths(swaying().joints_m("coco17"))[0]), rel=0.03)
    same = BODY.pose(SHAPE, motion.six, motion.root_m).joints_m("coco17")
    assert motion.coco17_m == pytest.approx(same, abs=1e-5)
    assert facing_of(COCO17).handed(motion.coco17_m[0]) > 0.9


def test_some_are_mirrored_and_then_the_other_arm_moves() -> None:
    moving = set()
    for seed in range(12):
        joints = drawn(seed).coco17_m
        joints = joints - joints[:, [11, 12]].mean(axis=1, keepdims=True)
        moving.add("left" if np.ptp(joints[:, 9], axis=0).max() > np.ptp(joints[:, 10], axis=0).max() else "right")
    assert moving == {"left", "right"}


@pytest.mark.parametrize("fps", [15.0, 25.0, 60.0])
def test_a_rate_changes_how_often_not_what(fps: float) -> None:
    joints = drawn(3, fps=fps, count=24).coco17_m
    wrist = np.linalg.norm(joints[:, [9, 10]] - joints[:, [5, 6]], axis=2)
    speed = np.abs(np.diff(joints - joints[:, [11, 12]].mean(axis=1, keepdims=True), axis=0)).max() * fps
    assert 0.5 < speed < 2.5
    assert wrist.max() < 0.8


def test_a_recording_that_is_too_short_is_refused() -> None:
    with pytest.raises(ValueError, match="sway has 60 instants, 77 are needed"):
        drawn(1, fps=15.0, count=39)


def test_triangulation_finds_most_of_it_and_things_hide_some() -> None:
    found, hidden = [], []
    for seed in range(8):
        motion = drawn(seed)
        seen = watched(np.random.default_rng(seed), motion.coco17_m, 30.0)
        off = np.linalg.norm(seen.xyz_m - motion.coco17_m, axis=2)
        assert 2 <= seen.views <= 4
        assert np.nanmedian(off) < 0.08
        assert ((seen.conf > 0) == np.isfinite(off)).all()
        found.append(np.isfinite(off).mean())
        sure = [watched(np.random.default_rng(seed), motion.coco17_m, 30.0, occlusion=o).sigma_m for o in (0.0, 1.0)]
        hidden.append(np.nanmedian(sure[1]) - np.nanmedian(sure[0]))
    assert np.mean(found) > 0.9
    assert np.mean(hidden) > 0


def test_limbs_are_bent_without_changing_the_body() -> None:
    plain = drawn(5).coco17_m
    bent = resampled(np.random.default_rng(5), "sway", swaying(), SHAPE, 30.0, fps=30.0, count=20, bent_rad=0.8)
    assert np.sort(lengths(bent.coco17_m), axis=1) == pytest.approx(np.sort(lengths(plain), axis=1), rel=0.2)
    bones = np.linalg.norm(np.diff(BODY.pose(SHAPE, bent.six, bent.root_m).heads_m[:, [16, 18, 20]], axis=1), axis=2)
    assert bones == pytest.approx(np.broadcast_to(bones[:1], bones.shape), abs=1e-6)
    wrists = [x[:, 9] - x[:, [11, 12]].mean(axis=1) for x in (plain, bent.coco17_m)]
    other = [x[:, 10] - x[:, [11, 12]].mean(axis=1) for x in (plain, bent.coco17_m)]
    assert max(np.linalg.norm(a - b, axis=1).mean() for a, b in (wrists, other)) > 0.05
