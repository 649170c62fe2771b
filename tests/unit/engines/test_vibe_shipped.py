"""The network of smooth.vibe that comes along: what it is worth on a body that moves, seen with errors of 25 mm."""

from __future__ import annotations

import numpy as np
import pytest

from posepipe.calib.body import load_body, rotations_of_6d
from posepipe.engines.engine import EngineOptions
from posepipe.engines.smoother import SmootherNetwork
from posepipe.pipeline.skeleton import COCO17

BODY = load_body()
COUNT, PEOPLE = 150, 3
ELBOW = COCO17.index("left_elbow")


def walk(elbow_off_m: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """People who walk on the spot, 30 instants a second: truth [T,P,17,3], and what is seen of it. elbow_off_m: the left elbow is seen, and wanted, that far
    beside the body's, in the frame of its upper arm."""
    rng = np.random.default_rng(3)
    t = np.arange(COUNT) / 30
    joints = []
    for k in range(PEOPLE):
        rotations = rotations_of_6d(np.tile(np.eye(3)[:, :2].reshape(6), (COUNT, 24, 1)))
        for side, phase in (("left", 0.0), ("right", np.pi)):
            swing = 0.5 * np.sin(2 * np.pi * t + phase + k)
            for limb, share in (("hip", 1.0), ("knee", 0.3), ("ankle", 0.3), ("shoulder", -0.7), ("elbow", -1.0), ("wrist", -1.0)):
                c, s, o = np.cos(share * swing), np.sin(share * swing), np.zeros(COUNT)
                rotations[:, BODY.bones.index(f"{side}_{limb}")] = np.stack([o + 1, o, o, o, c, -s, o, s, c], axis=1).reshape(COUNT, 3, 3)
        root = np.stack([np.full(COUNT, k - 1.0), 0.3 * np.sin(t), np.full(COUNT, 0.95)], axis=1)
        one = BODY.pose(BODY.draw(rng), rotations, root).joints_m("coco17").astype(np.float64)
        one[:, ELBOW] += elbow_off_m * rotations[:, BODY.bones.index("left_shoulder"), :, 2]
        joints.append(one)
    truth = np.stack(joints, axis=1)
    return truth, truth + rng.normal(0, 0.025 / np.sqrt(3), truth.shape)


def followed(given: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the network makes of it: joints [T,P,17,3], those of its bodies, and lengths of their bones [T,P,4]."""
    network = SmootherNetwork("vibe.smooth", EngineOptions(threads=1, runtime="onnxruntime", device="cpu"), batch=PEOPLE)
    window, after_s = network.nothing(PEOPLE)
    after_s[:, 0] = 1 / 30
    state, joints, bodies, bones = np.zeros((PEOPLE, network.memory), np.float32), [], [], []
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
            bodies.append([b.joints_m("coco17")[0] for b in posed])
    network.close()
    return np.array(joints), np.array(bodies), np.array(bones)


@pytest.fixture(scope="module")
def seen() -> tuple[np.ndarray, ...]:
    """Truth, what is seen, and what the network makes of it: joints, those of its bodies, bone lengths."""
    truth, given = walk()
    return truth, given, *followed(given)


def test_it_is_calmer_than_what_is_seen_and_not_further_off_than_a_hand(seen: tuple[np.ndarray, ...]) -> None:
    truth, given, joints, _, _ = (x[30:] for x in seen)
    off = np.linalg.norm(joints - truth, axis=-1)
    assert off.mean() < 0.05
    jerky, calm = (np.linalg.norm(np.diff(x - truth, 2, axis=0), axis=-1).mean() for x in (given, joints))
    assert calm < jerky / 4


def test_bones_keep_their_length_once_the_shape_is_fitted(seen: tuple[np.ndarray, ...]) -> None:
    bones = seen[4]
    assert (np.std(bones[30:], axis=0) / bones.mean(axis=0)).max() < 0.02
    assert (np.std(bones[95:], axis=0) / bones.mean(axis=0)).max() < 1e-3


def test_joints_are_the_bodys_to_within_how_a_person_differs_from_it(seen: tuple[np.ndarray, ...]) -> None:
    apart = np.linalg.norm(seen[2] - seen[3], axis=-1)
    assert apart.max() < 0.15
    assert np.median(apart) < 0.03


def test_an_elbow_that_is_always_seen_beside_the_bodys_is_given_there() -> None:
    """As with detectors whose elbow is another than the body's: the network before this one drew it to the body's for ever."""
    beside_m = 0.05
    truth, given = walk(beside_m)
    usual, _ = walk()
    joints, _, _ = followed(given)
    way = (truth - usual)[60:, :, ELBOW] / beside_m
    found = ((joints - usual)[60:, :, ELBOW] * way).sum(-1).mean(axis=0)
    assert (found > 0.6 * beside_m).all()
