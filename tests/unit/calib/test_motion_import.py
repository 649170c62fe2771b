"""BVH and ASF/AMC become clips with the joints where the recordings have them; what is broken is refused with its line."""

import json
import re

import motion_kit as kit
import numpy as np
import pytest

from posepipe.calib.body import BONES, load_body
from posepipe.calib.motion import fitted_shape, read_motion, retarget
from posepipe.calib.motion_import import quaternions, read_recording, write_motion
from posepipe.pipeline.errors import RecordError, SourceError

LIMBS = {
    "left_knee": ("LeftLeg", "LeftUpLeg"), "left_ankle": ("LeftFoot", "LeftLeg"), "right_knee": ("RightLeg", "RightUpLeg"),
    "right_ankle": ("RightFoot", "RightLeg"), "left_elbow": ("LeftForeArm", "LeftArm"), "left_wrist": ("LeftHand", "LeftForeArm"),
    "right_elbow": ("RightForeArm", "RightArm"), "right_wrist": ("RightHand", "RightForeArm"),
}  # fmt: skip
PARENT = {"knee": "hip", "ankle": "knee", "elbow": "shoulder", "wrist": "elbow"}


def bones_agree(clip, *, hz=30, tolerance_m=1e-4):
    """Every limb bone of the clip is, as a vector, that of the recording."""
    worst = 0.0
    for f in range(len(clip.joints24_m)):
        at = kit.truth(f / hz)
        for name, (far, near) in LIMBS.items():
            side, _, limb = name.partition("_")
            ours = clip.joints24_m[f, BONES.index(name)] - clip.joints24_m[f, BONES.index(f"{side}_{PARENT[limb]}")]
            x, y, z = at[far] - at[near]
            worst = max(worst, float(np.abs(ours - [x, -z, y]).max()))
    assert worst < tolerance_m


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "wave.bvh").write_text(kit.bvh())
    (tmp_path / "t.asf").write_text(kit.asf())
    (tmp_path / "t_01.amc").write_text(kit.amc())
    return tmp_path


def test_a_bvh_is_read(folder):
    clip = read_recording(folder / "wave.bvh", label="waving")
    assert (clip.name, clip.label, clip.fps) == ("wave", "waving", 30.0)
    assert len(clip.joints24_m) == 45
    bones_agree(clip)
    hips = clip.joints24_m[:, [BONES.index("left_hip"), BONES.index("right_hip")]].mean(axis=1)
    x, y, z = (kit.truth(0)["LeftUpLeg"] + kit.truth(0)["RightUpLeg"]) / 2
    assert hips[0] == pytest.approx([x, -z, y], abs=1e-4)


def test_an_amc_with_its_skeleton_is_read(folder):
    clip = read_recording(folder / "t_01.amc", skeleton=folder / "t.asf")
    assert len(clip.joints24_m) == 45
    bones_agree(clip)


def test_both_formats_of_one_motion_give_the_same_segments(folder):
    one = read_recording(folder / "wave.bvh")
    other = read_recording(folder / "t_01.amc", skeleton=folder / "t.asf")
    assert np.abs(one.segment_rotations() - other.segment_rotations()).max() < 1e-4


def test_a_z_up_file_in_metres_with_a_prefix_is_the_same(folder):
    z_up = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]])
    (folder / "z.bvh").write_text(kit.bvh(unit_m=1.0, prefix="mixamorig:", swap=z_up))
    one, other = (read_recording(folder / name) for name in ("wave.bvh", "z.bvh"))
    assert np.abs(one.joints24_m - other.joints24_m).max() < 1e-4


@pytest.mark.parametrize("hz", [24, 50, 60, 120])
def test_any_rate_becomes_thirty(folder, hz):
    (folder / "r.bvh").write_text(kit.bvh(frames=2 * hz + 1, hz=hz))
    clip = read_recording(folder / "r.bvh")
    assert len(clip.joints24_m) == 61
    bones_agree(clip, tolerance_m=1e-4 if hz in (60, 120) else 0.01)


def test_a_folder_of_clips_is_written_and_read(folder):
    clip = read_recording(folder / "wave.bvh", label="waving")
    write_motion([clip], folder / "clips", sources=["wave.bvh"])
    assert json.loads((folder / "clips" / "clips.json").read_text()) == {
        "wave": {"frames": 45, "fps": 30.0, "label": "waving", "source": "wave.bvh"}
    }
    back = read_motion(folder / "clips")
    assert list(back) == ["wave"]
    assert back["wave"].label == "waving"
    shift = back["wave"].joints24_m - clip.joints24_m
    assert np.ptp(shift[..., 2]) < 1e-5
    assert np.abs(shift[..., :2]).max() == 0
    assert abs(back["wave"].clearance_m) < 1e-5


def test_an_imported_clip_moves_the_body_that_fits_it(folder):
    write_motion([read_recording(folder / "wave.bvh")], folder / "clips", sources=["wave.bvh"])
    clip = read_motion(folder / "clips")["wave"]
    posed = retarget(clip, load_body(), fitted_shape(clip, load_body()))
    off = np.linalg.norm(posed.joints_m("smpl24") - clip.joints24_m, axis=2)
    assert off.mean() < 0.02
    assert off.max() < 0.05


def test_clips_are_not_written_over(folder):
    clip = read_recording(folder / "wave.bvh")
    write_motion([clip], folder / "clips", sources=["wave.bvh"])
    with pytest.raises(RecordError, match="there are clips already"):
        write_motion([clip], folder / "clips", sources=["wave.bvh"])


def test_two_files_of_one_name_are_refused(folder):
    clip = read_recording(folder / "wave.bvh")
    with pytest.raises(SourceError, match=r"a\.bvh and b\.bvh would both be the clip 'wave'"):
        write_motion([clip, clip], folder / "clips", sources=["a.bvh", "b.bvh"])


BVH = kit.bvh(frames=20)
BVH_LINES = BVH.splitlines()
MOTION_LINE = BVH_LINES.index("MOTION") + 1


def without(text, word):
    return "\n".join(line for line in text.splitlines() if word not in line) + "\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"wave\.bvh:1: the file ends where HIERARCHY should be"),
        ("hello\n", r"wave\.bvh:1: a BVH file begins with HIERARCHY"),
        (BVH.replace("OFFSET 10.000000", "OFFSET ten", 1), r"wave\.bvh:\d+: OFFSET of 'LeftUpLeg': 'ten' is not a number"),
        (BVH.replace("CHANNELS 3 Zrotation Xrotation", "CHANNELS 3 Zrotation Wrotation", 1), r"wave\.bvh:\d+: CHANNELS, their number and names"),
        (BVH.replace("Frames: 20", "Frames: many"), rf"wave\.bvh:{MOTION_LINE + 1}: Frames:: 'many' is not a whole number"),
        (BVH.replace("Frames: 20", "Frames: 21"), rf"wave\.bvh:{MOTION_LINE + 22}: the file ends where instant 21 of 21 should be"),
        (BVH.replace("Frame Time: 0.0", "Frame Time: -0.0"), rf"wave\.bvh:{MOTION_LINE + 2}: Frame Time: -0\.01\d+ is not above 0"),
        ("\n".join(BVH_LINES[:-1]) + "\n1 2 3\n", rf"wave\.bvh:{MOTION_LINE + 22}: instant 20 has 3 numbers, not 66"),
        ("\n".join([*BVH_LINES[:-1], BVH_LINES[-1].replace(" 0.000000", " nan", 1)]), r"wave\.bvh:\d+: instant 20: nan is not finite"),
        (BVH.replace("LeftForeArm", "Thing"), r"no joint is recognised as left_elbow; it has Hips, LeftUpLeg"),
        (BVH.replace("JOINT Head", "JOINT Skip"), r"no joint is recognised as head"),
        (BVH.replace("JOINT LeftLeg", "JOINT LeftUpLeg"), r"there are two joints 'LeftUpLeg'"),
        (kit.bvh(frames=20, unit_m=0.2), r"a leg of 4\.156 units is one of a person in none of metres"),
    ],
)  # fmt: skip
def test_a_broken_bvh_is_refused_with_its_line(folder, content, message):
    (folder / "wave.bvh").write_text(content)
    with pytest.raises(SourceError) as e:
        read_recording(folder / "wave.bvh")
    assert re.search(message, str(e.value)), str(e.value)


def test_the_scale_may_be_stated(folder):
    (folder / "odd.bvh").write_text(kit.bvh(frames=20, unit_m=0.2))
    bones_agree(read_recording(folder / "odd.bvh", unit_m=0.2))


ASF, AMC = kit.asf(), kit.amc(frames=8)


@pytest.mark.parametrize(
    ("skeleton", "motion", "message"),
    [
        (ASF, without(AMC, "ltibia"), r"t_01\.amc:\d+: frame 1 ends without bone 'ltibia'"),
        (ASF, AMC.replace("ltibia", "lshin"), r"t_01\.amc:\d+: t\.asf has no bone 'lshin' that moves"),
        (ASF, AMC.replace("lfoot 0.0", "lfoot x", 1), r"t_01\.amc:\d+: bone 'lfoot': 'x\d*' is not a number"),
        (ASF, AMC.replace("rfoot ", "rfoot 1 ", 1), r"t_01\.amc:\d+: bone 'rfoot' has 4 numbers, not 3"),
        (ASF, "root 0 0 0 0 0 0\n", r"t_01\.amc:1: a frame number should come first"),
        (ASF, "# nothing\n", r"there is no frame in it"),
        ("HIERARCHY\n", AMC, r"this is no ASF skeleton"),
        (ASF.replace("length 0.45", "length 0"), AMC, r"t\.asf:\d+: length 0\.0 is not above 0"),
        (ASF.replace("dof rx ry rz", "dof rx ry rw", 1), AMC, r"t\.asf:\d+: 'rw' is no degree of freedom"),
        (ASF.replace("root to_lfemur", "root to_nothing"), AMC, r"t\.asf:\d+: the hierarchy names 'to_nothing' below 'root'"),
        (ASF.replace("name ltibia", "name lfemur"), AMC, r"t\.asf:\d+: there are two bones 'lfemur'"),
        (ASF[: ASF.index("name lhumerus")], AMC, r"t\.asf:\d+: the file ends where end of a bone should be"),
        (":oops\n", AMC, r"t\.asf:1: ASF files have no section :oops"),
    ],
)  # fmt: skip
def test_a_broken_amc_or_skeleton_is_refused_with_its_line(folder, skeleton, motion, message):
    (folder / "t.asf").write_text(skeleton)
    (folder / "t_01.amc").write_text(motion)
    with pytest.raises(SourceError) as e:
        read_recording(folder / "t_01.amc", skeleton=folder / "t.asf")
    assert re.search(message, str(e.value)), str(e.value)


def test_an_amc_without_skeleton_says_what_to_give(folder):
    with pytest.raises(SourceError, match="needs the skeleton") as e:
        read_recording(folder / "t_01.amc")
    assert "--skeleton t.asf" in str(e.value)


@pytest.mark.parametrize("name", ["walk.fbx", "walk"])
def test_other_formats_are_refused(folder, name):
    with pytest.raises(SourceError, match="no format of motion"):
        read_recording(folder / name)


def test_bytes_that_are_no_text_are_refused(folder):
    (folder / "b.bvh").write_bytes(b"\xff\xfe\x00\x80" * 10)
    with pytest.raises(SourceError, match="no text file"):
        read_recording(folder / "b.bvh")


def test_quaternions_of_half_turns():
    for axis in range(3):
        r = -np.eye(3)
        r[axis, axis] = 1
        assert np.abs(np.abs(quaternions(r)) - np.eye(4)[axis]).max() < 1e-9
