"""Clips are read, cleaned and put on bodies; the training poses that come of them are people on the floor."""

import json

import numpy as np
import pytest

from posepipe.calib.body import BONES, load_body
from posepipe.calib.motion import JOINTS24, SEGMENTS, Clip, fitted_shape, read_motion, retarget
from posepipe.calib.motion_clips import UP, matrices, pieces
from posepipe.calib.motion_import import quaternions
from posepipe.calib.motion_retarget import soles_m
from posepipe.calib.posebank import bank
from posepipe.pipeline.errors import SourceError
from posepipe.pipeline.skeleton import COCO17

BODY = load_body()
RIGID = {"hand": "radius", "wrist": "radius", "elbow": "radius", "shoulder": "humerus", "collar": "clavicle"} | {
    "foot": "foot",
    "ankle": "foot",
    "knee": "tibia",
    "hip": "femur",
}
OWN = {"pelvis": "root", "spine1": "lowerback", "spine2": "upperback", "spine3": "thorax", "neck": "lowerneck", "head": "head"}


def about(axis, radians):
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(radians) * cross + (1 - np.cos(radians)) * cross @ cross


def made(shape, *, frames=60, fps=30.0, name="made"):
    """A clip of a body of known shape that squats and swings its arms, its joints24 those of the body itself."""
    turns = np.empty((frames, len(SEGMENTS), 3, 3))
    for t in range(frames):
        s = np.sin(2 * np.pi * t / 30)
        facing = about(np.array([0, 0, 1.0]), 0.02 * t)
        of = {"lfemur": 0.4 + 0.4 * s, "rfemur": 0.4 + 0.4 * s, "ltibia": -0.4 - 0.4 * s, "rtibia": -0.4 - 0.4 * s}
        of |= {"lhumerus": s, "rhumerus": -s, "lradius": s + 0.5, "rradius": 0.5 - s, "head": 0.2 * s}
        for k, segment in enumerate(SEGMENTS):
            turns[t, k] = facing @ about(np.array([-1.0, 0, 0]), of.get(segment, 0.0))
    rotations = np.stack([turns[:, SEGMENTS.index(moved_by(bone))] for bone in BONES], axis=1)
    posed = BODY.pose(shape, rotations, np.tile([2.0, -1.0, 0.9], (frames, 1)))
    posed = posed.shifted(soles_m(posed).min(axis=1)[:, None] * [0, 0, -1])
    quat = quaternions(UP.T @ turns @ UP).astype(np.float32)
    return Clip(name, fps, "squats", posed.joints_m("smpl24"), quat, (posed.heads_m[:, 0] @ UP).astype(np.float32))


def moved_by(bone):
    side, _, limb = bone.partition("_")
    return OWN.get(bone) or side[0] + RIGID[limb]


def folder(tmp_path, *clips, about=None):
    arrays = {f"{c.name}/{key}": getattr(c, key) for c in clips for key in ("joints24_m", "segment_quat_xyzw", "root_m")}
    np.savez(tmp_path / "m.npz", **arrays)
    (tmp_path / "clips.json").write_text(
        json.dumps(about if about is not None else {c.name: {"label": c.label, "fps": c.fps} for c in clips})
    )
    return tmp_path


@pytest.mark.parametrize("seed", range(6))
def test_a_clip_on_its_own_body_is_the_clip(seed):
    shape = BODY.draw(np.random.default_rng(seed))
    clip = made(shape)
    posed = retarget(clip, BODY, shape)
    assert np.linalg.norm(posed.joints_m("smpl24") - clip.joints24_m, axis=2).max() < 0.03


@pytest.mark.parametrize("seed", range(4))
def test_a_clip_of_an_unknown_person_finds_their_proportions(seed):
    clip = made(BODY.draw(np.random.default_rng(seed)) * 0.6)
    posed = retarget(clip, BODY, fitted_shape(clip, BODY))
    assert np.linalg.norm(posed.joints_m("smpl24") - clip.joints24_m, axis=2).max() < 0.03


def test_the_head_turns_as_in_the_clip_and_limbs_do_not_twist():
    clip = made(np.zeros(16))
    posed = retarget(clip, BODY, np.zeros(16))
    turns = clip.segment_rotations()
    assert posed.rotations[:, BONES.index("head")] == pytest.approx(turns[:, SEGMENTS.index("head")], abs=1e-4)
    for bone in ("left_hip", "right_knee", "left_shoulder", "right_elbow"):
        between = posed.rotations[:, BONES.index(bone)] @ turns[:, SEGMENTS.index(moved_by(bone))].transpose(0, 2, 1)
        assert np.trace(between, axis1=1, axis2=2).min() > 1 + 2 * np.cos(np.radians(2))


def test_feet_of_any_body_are_on_the_floor_and_steps_fit_its_legs():
    clip = made(np.zeros(16))
    for seed in range(5):
        shape = BODY.draw(np.random.default_rng(seed))
        posed = retarget(clip, BODY, shape)
        lowest = min(float(posed.vertices_m(t)[:, 2].min()) for t in range(0, len(posed), 10))
        assert -0.04 < lowest < 0.03


def test_toes_stay_level_when_the_heel_is_up():
    clip = made(np.zeros(16))
    turns = clip.segment_rotations()
    for side in "lr":
        k = SEGMENTS.index(f"{side}foot")
        turns[:, k] = turns[:, k] @ about(np.array([1.0, 0, 0]), 0.6)
    joints = clip.joints24_m.copy()
    for side in ("left", "right"):
        ankle, ball = BONES.index(f"{side}_ankle"), BONES.index(f"{side}_foot")
        down = turns[:, SEGMENTS.index(f"{side[0]}foot")]
        joints[:, ball] = joints[:, ankle] + down @ (BODY.rest(np.zeros(16)).joints_m[ball] - BODY.rest(np.zeros(16)).joints_m[ankle])
    tiptoe = Clip("tip", 30.0, "", joints, quaternions(UP.T @ turns @ UP).astype(np.float32), clip.root_m)
    posed = retarget(tiptoe, BODY, np.zeros(16))
    toes = posed.rotations[:, BONES.index("left_foot")] @ np.array([0, -1.0, 0])
    foot = posed.rotations[:, BONES.index("left_ankle")] @ np.array([0, -1.0, 0])
    assert foot[:, 2].max() < -0.4
    assert np.abs(toes[:, 2]).max() < 0.05


def test_a_recording_is_cut_where_the_body_jumps():
    clip = made(np.zeros(16), frames=90)
    joints = clip.joints24_m.copy()
    joints[0, JOINTS24.index("left_wrist")] += [0.9, 0, 0.5]
    joints[40:, JOINTS24.index("neck")] += [0.4, 0, 0]
    joints[80, JOINTS24.index("right_ankle")] += 1
    parts = pieces(Clip("turns", 30.0, "x", joints, clip.segment_quat_xyzw, clip.root_m))
    assert [(p.name, p.recording, len(p.joints24_m)) for p in parts] == [("turns", "turns", 33), ("turns#2", "turns", 34)]
    assert (parts[1].segment_quat_xyzw == clip.segment_quat_xyzw[43:77]).all()


def test_a_recording_is_cut_where_the_pelvis_turns_over():
    clip = made(np.zeros(16), frames=60)
    quat = clip.segment_quat_xyzw.copy()
    quat[30:, SEGMENTS.index("root")] = quaternions(matrices(quat[30:, SEGMENTS.index("root")]) @ about(np.array([1.0, 0, 0]), 0.4))
    parts = pieces(Clip("over", 30.0, "x", clip.joints24_m, quat.astype(np.float32), clip.root_m))
    assert [len(p.joints24_m) for p in parts] == [27, 27]


def test_a_leap_of_the_whole_body_and_a_kick_are_no_jumps():
    clip = made(np.zeros(16))
    joints = clip.joints24_m.copy()
    joints[30:] += [1.0, 0, 0]
    joints[20, JOINTS24.index("right_foot")] += [0.4, 0, 0]
    assert len(pieces(Clip("kick", 30.0, "", joints, clip.segment_quat_xyzw, clip.root_m))) == 1


def test_recordings_are_put_on_the_floor(tmp_path):
    clip = made(np.zeros(16))
    high = Clip("high", 30.0, "", clip.joints24_m + np.float32([0, 0, 0.4]), clip.segment_quat_xyzw, clip.root_m)
    read = read_motion(folder(tmp_path, high))["high"]
    assert abs(read.clearance_m) < 1e-5
    assert np.abs(read.joints24_m - clip.joints24_m).max() < 0.03


def test_a_folder_or_its_npz_may_be_named_and_rates_may_be_missing(tmp_path):
    clip = made(np.zeros(16))
    folder(tmp_path, clip, about={"made": {"label": "squats"}})
    for path in (tmp_path, tmp_path / "m.npz"):
        assert [(c.label, c.fps) for c in read_motion(path).values()] == [("squats", 30.0)]


def spoiled(clip, **arrays):
    return Clip(clip.name, clip.fps, clip.label, *(arrays.get(k, getattr(clip, k)) for k in ("joints24_m", "segment_quat_xyzw", "root_m")))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ({"joints24_m": np.zeros((60, 17, 3), np.float32)}, r"made/joints24_m has shape \(60, 17, 3\), not \[T,24,3\]"),
        ({"root_m": np.zeros((59, 3), np.float32)}, "the arrays of clip 'made' differ in length"),
        ({"root_m": np.full((60, 3), np.nan, np.float32)}, "made/root_m has numbers that are not finite"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, spoil, message):
    folder(tmp_path, spoiled(made(np.zeros(16)), **spoil))
    with pytest.raises(SourceError, match=message):
        read_motion(tmp_path)


def test_folders_that_hold_no_clips_are_refused(tmp_path):
    with pytest.raises(SourceError, match=r"has one \.npz, this one has 0") as e:
        read_motion(tmp_path)
    assert "posepipe motion import" in str(e.value)
    with pytest.raises(SourceError, match="there is no such file"):
        read_motion(tmp_path / "nothing.npz")
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 rubbish")
    (tmp_path / "clips.json").write_text("{}")
    with pytest.raises(SourceError, match="this is no file of clips"):
        read_motion(tmp_path)
    folder_of_one = tmp_path / "short"
    folder_of_one.mkdir()
    short = made(np.zeros(16), frames=3)
    with pytest.raises(SourceError, match=r"no clip in it has 0\.4 s"):
        read_motion(folder(folder_of_one, short))
    (tmp_path / "bad.npz").unlink()
    np.savez(tmp_path / "m.npz", **{"made/joints24_m": short.joints24_m})
    with pytest.raises(SourceError, match="made/segment_quat_xyzw is missing"):
        read_motion(tmp_path)


def test_the_bank_has_people_of_many_shapes_on_the_floor():
    clips = [made(np.zeros(16)), made(np.zeros(16), name="other#2")]
    tracks = bank(clips, shapes=3, seed=1)
    assert [t.name for t in tracks] == ["made"] * 3 + ["other"] * 3
    assert all(t.coco17_m.shape == (60, 17, 3) and t.coco17_m.dtype == np.float32 and t.label == "squats" for t in tracks)
    legs = [np.linalg.norm(t.coco17_m[0, 11] - t.coco17_m[0, 13]) for t in tracks]
    assert np.ptp(legs) > 0.01
    for t in tracks:
        assert 0.0 < t.coco17_m[..., 2].min() < 0.15
        nose, ears = t.coco17_m[:, COCO17.index("nose")], (t.coco17_m[:, 3] + t.coco17_m[:, 4]) / 2
        across = t.coco17_m[:, COCO17.index("left_shoulder")] - t.coco17_m[:, COCO17.index("right_shoulder")]
        assert (np.cross(across, nose - ears)[:, 2] < 0).all()


def test_the_bank_of_a_part_is_a_part_of_the_bank():
    clips = [made(np.zeros(16)), made(np.zeros(16), name="other")]
    whole, part = bank(clips, shapes=2, seed=7), bank(clips[1:], shapes=2, seed=7)
    assert all((a.coco17_m == b.coco17_m).all() for a, b in zip(whole[2:], part, strict=True))
    other = bank(clips[1:], shapes=2, seed=8)
    assert np.abs(other[0].coco17_m - part[0].coco17_m).max() > 0.005


def test_quaternions_and_matrices_undo_each_other():
    q = np.random.default_rng(0).standard_normal((50, 4))
    q /= np.linalg.norm(q, axis=1, keepdims=True)
    q *= np.sign(q[:, 3:])
    assert quaternions(matrices(q)) == pytest.approx(q, abs=1e-9)


@pytest.mark.parametrize("fps", [0, -30, "30", None, True, float("inf")])
def test_rates_that_are_none_are_refused(tmp_path, fps):
    folder(tmp_path, made(np.zeros(16)), about={"made": {"fps": fps}})
    with pytest.raises(SourceError, match=r"clip 'made' the rate .*, not one above 0"):
        read_motion(tmp_path)


def test_what_is_said_of_a_clip_is_a_table(tmp_path):
    folder(tmp_path, made(np.zeros(16)), about={"made": 30})
    with pytest.raises(SourceError, match="says 30 of clip 'made', not its label and fps"):
        read_motion(tmp_path)


def test_rotations_of_no_length_are_refused(tmp_path):
    clip = made(np.zeros(16))
    quat = clip.segment_quat_xyzw.copy()
    quat[3, 4] = 0
    folder(tmp_path, spoiled(clip, segment_quat_xyzw=quat))
    with pytest.raises(SourceError, match="quaternions that are no rotations"):
        read_motion(tmp_path)


def test_a_clip_whose_bytes_are_wrong_is_read_or_refused(tmp_path):
    clip = made(np.zeros(16))
    arrays = {f"made/{key}": getattr(clip, key) for key in ("joints24_m", "segment_quat_xyzw", "root_m")}
    (tmp_path / "clips.json").write_text("{}")
    np.savez_compressed(tmp_path / "m.npz", **arrays)
    whole, refused = (tmp_path / "m.npz").read_bytes(), 0
    for at in range(0, len(whole), len(whole) // 150):
        (tmp_path / "m.npz").write_bytes(whole[:at] + bytes([whole[at] ^ 0x5A]) + whole[at + 1 :])
        try:
            read_motion(tmp_path)
        except SourceError:
            refused += 1
    assert refused > 50
