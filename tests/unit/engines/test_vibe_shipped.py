"""The network of smooth.vibe that comes along: what it is worth on a body that moves, seen with errors of 25 mm."""

from __future__ import annotations

import numpy as np
import pytest

from posepipe.calib.body import load_body, rotations_of_6d
from posepipe.engines.engine import EngineOptions
from posepipe.engines.smoother import SmootherNetwork

BODY = load_body()
COUNT, PEOPLE = 150, 3


@pytest.fixture(scope="module")
def seen() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """People who walk on the spot, 30 instants a second: truth [T,P,17,3], what is seen of it, what the network makes of that, and bone lengths [T,P,4]."""
    rng = np.random.default_rng(3)
    t = np.arange(COUNT) / 30
    bodies = []
    for k in range(PEOPLE):
        rotations = rotations_of_6d(np.tile(np.eye(3)[:, :2].reshape(6), (COUNT, 24, 1)))
        for side, phase in (("left", 0.0), ("right", np.pi)):
            swing = 0.5 * np.sin(2 * np.pi * t + phase + k)
            for limb, share in (("hip", 1.0), ("knee", 0.3), ("ankle", 0.3), ("shoulder", -0.7), ("elbow", -1.0), ("wrist", -1.0)):
                c, s, o = np.cos(share * swing), np.sin(share * swing), np.zeros(COUNT)
                rotations[:, BODY.bones.index(f"{side}_{limb}")] = np.stack([o + 1, o, o, o, c, -s, o, s, c], axis=1).reshape(COUNT, 3, 3)
        root = np.stack([np.full(COUNT, k - 1.0), 0.3 * np.sin(t), np.full(COUNT, 0.95)], axis=1)
        bodies.append(BODY.pose(BODY.draw(rng), rotations, root).joints_m("coco17"))
    truth = np.stack(bodies, axis=1).astype(np.float64)
    given = truth + rng.normal(0, 0.025 / np.sqrt(3), truth.shape)
    network = SmootherNetwork("vibe.smooth", EngineOptions(threads=1, runtime="onnxruntime", device="cpu"), batch=PEOPLE)
    window, after_s = network.nothing(PEOPLE)
    after_s[:, 0] = 1 / 30
    state, joints, bones = np.zeros((PEOPLE, network.memory), np.float32), [], []
    chain = [BODY.bones.index(b) for b in ("left_hip", "left_knee", "left_ankle", "right_shoulder", "right_elbow", "right_wrist")]
    for k in range(-6, COUNT):
        window[:, 0, :, :3], window[:, 0, :, 3], window[:, 0, :, 4] = given[max(k, 0)], 0.02, 0.8
        step = network(state, window, after_s)
        state = step.state
        if k >= 0:
            joints.append(step.joints)
            posed = [BODY.pose(step.shape[p], step.pose[p][None], step.root[p][None]) for p in range(PEOPLE)]
            heads = np.array([b.heads_m[0, chain] for b in posed])
            bones.append(np.linalg.norm(np.diff(heads, axis=1), axis=2)[:, [0, 1, 3, 4]])
            for p, b in enumerate(posed):
                assert b.joints_m("coco17")[0] == pytest.approx(step.joints[p], abs=2e-4)
    network.close()
    return truth, given, np.array(joints), np.array(bones)


def test_it_is_calmer_than_what_is_seen_and_not_further_off_than_a_hand(seen: tuple[np.ndarray, ...]) -> None:
    truth, given, joints, _ = (x[30:] for x in seen)
    off = np.linalg.norm(joints - truth, axis=-1)
    assert off.mean() < 0.05
    jerky, calm = (np.linalg.norm(np.diff(x - truth, 2, axis=0), axis=-1).mean() for x in (given, joints))
    assert calm < jerky / 4


def test_bones_keep_their_length_once_the_shape_is_fitted(seen: tuple[np.ndarray, ...]) -> None:
    bones = seen[3]
    assert (np.std(bones[30:], axis=0) / bones.mean(axis=0)).max() < 0.02
    assert (np.std(bones[95:], axis=0) / bones.mean(axis=0)).max() < 1e-3
