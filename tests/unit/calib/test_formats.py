"""Calibration files: what is read is what was written, and a bad file is told by name, key and remedy."""

import textwrap

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from people import looking_at
from rigs import camera, ring

from posepipe.calib import Camera, ImageTransform, Rig, load_rig, save_rig
from posepipe.pipeline.errors import RecordError, RigError


def assert_same(a, b, exact=False):
    assert a.names == b.names
    for x, y in zip(a.cameras, b.cameras, strict=True):
        assert (x.width_px, x.height_px) == (y.width_px, y.height_px)
        for key in ("matrix", "distortion", "camera_from_world"):
            ours, theirs = getattr(x, key), getattr(y, key)
            assert (ours == theirs).all() if exact else ours == pytest.approx(theirs, abs=1e-7), key


def refused(path, **kwargs):
    with pytest.raises(RigError) as error:
        load_rig(path, **kwargs)
    assert error.value.hint
    assert str(path.name) in error.value.where or path.is_dir()
    return str(error.value)


def qualisys(rig, **replace):
    """The rig as Qualisys writes it."""
    cameras = []
    for c in rig.cameras:
        rows = np.diag([1.0, -1, -1]) @ c.camera_from_world[:, :3]
        turn = " ".join(f'r{i + 1}{j + 1}="{float(rows[i, j])!r}"' for i in range(3) for j in range(3))
        place = " ".join(f'{axis}="{v * 1000!r}"' for axis, v in zip("xyz", c.centre_m.tolist(), strict=True))
        (fx, _, cx), (_, fy, cy), _ = (c.matrix * 64).tolist()
        k1, k2, p1, p2, k3 = c.distortion.tolist()
        cameras.append(
            f'<camera serial="{c.name}"><fov_video left="0" right="{c.width_px - 1}" top="0" bottom="{c.height_px - 1}"/>'
            f"<transform {turn} {place}/>"
            f'<intrinsic focalLengthU="{fx!r}" focalLengthV="{fy!r}" centerPointU="{cx!r}" centerPointV="{cy!r}" '
            f'radialDistortion1="{k1!r}" radialDistortion2="{k2!r}" radialDistortion3="{k3!r}" '
            f'tangentalDistortion1="{p1!r}" tangentalDistortion2="{p2!r}"/></camera>'
        )
    text = f"<?xml version='1.0' encoding='ASCII'?><calibration><cameras>{''.join(cameras)}</cameras></calibration>"
    for old, new in replace.items():
        text = text.replace(old, new)
    return text


def opencv_file(path, entries):
    storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_WRITE)
    for key, value in entries.items():
        storage.write(key, value)
    storage.release()


def opencv_entries(rig, *, rodrigues=False, scale=1.0):
    entries = {}
    for c in rig.cameras:
        rotation = c.camera_from_world[:, :3].copy()
        entries |= {
            f"K_{c.name}": c.matrix.copy(),
            f"D_{c.name}": c.distortion[None].copy(),
            f"R_{c.name}": cv2.Rodrigues(rotation)[0] if rodrigues else rotation,
            f"T_{c.name}": c.camera_from_world[:, 3:] * scale,
            f"size_{c.name}": np.array([[c.width_px, c.height_px]], np.int32),
        }
    return entries


def anipose(rig, *, scale=1.0, metadata="adjusted = false\nerror = 0.0", **replace):
    text = ""
    for k, c in enumerate(rig.cameras):
        text += textwrap.dedent(f"""
            [cam_{k}]
            name = "{c.name}"
            size = [ {c.width_px}.0, {c.height_px}.0,]
            matrix = {c.matrix.tolist()}
            distortions = {c.distortion.tolist()}
            rotation = {cv2.Rodrigues(c.camera_from_world[:, :3].copy())[0].ravel().tolist()}
            translation = {(c.camera_from_world[:, 3] * scale).tolist()}
            fisheye = false
            """)
    for old, new in replace.items():
        text = text.replace(old, new)
    return f"{text}\n[metadata]\n{metadata}\n"


def test_qualisys_is_read_as_it_means(tmp_path):
    path = tmp_path / "hall.qca.txt"
    path.write_text(qualisys(ring(3)))
    assert_same(load_rig(path), ring(3))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('serial="cam02"', 'serial="cam01"', "camera 'cam01' is there twice"),
        ('serial="cam02"', 'serial=""', "camera number 2 has no serial"),
        ("focalLengthU", "focalLength", "<intrinsic>: key 'focalLengthU' is missing"),
        ('focalLengthU="', 'focalLengthU="x', "'focalLengthU' is 'x"),
        ('x="', 'x="nan" was="', "'x' is 'nan'"),
        ('r11="', 'r11="9" was="', "the rotation is not one"),
        ('right="1087"', 'right="1086.5"', "'right' holds 1087.5"),
        ("<transform", "<Transform", "<transform> is missing"),
        ("<camera ", "<kamera ", "not well-formed XML"),
        ("</cameras>", "", "not well-formed XML"),
        ("<calibration>", '<!DOCTYPE c [<!ENTITY a "b">]><calibration>', "declares a document type"),
    ],
)
def test_a_bad_qualisys_file_is_refused(tmp_path, old, new, message):
    path = tmp_path / "hall.qca.txt"
    path.write_text(qualisys(ring(2), **{old: new}))
    assert message in refused(path)


def test_xml_without_cameras_is_refused(tmp_path):
    path = tmp_path / "hall.qca.txt"
    path.write_text("<calibration/>")
    assert "holds no <camera>" in refused(path)


@pytest.mark.parametrize("rodrigues", [False, True])
def test_opencv_in_one_file(tmp_path, rodrigues):
    path = tmp_path / "hall.yml"
    opencv_file(path, opencv_entries(ring(3), rodrigues=rodrigues))
    assert_same(load_rig(path), ring(3))
    body = path.read_text().split("\n", 1)[1]
    for header in ("%YAML:1.0", "%YAML 1.2", "%YAML:1.0\r"):
        path.write_text(f"{header}\n{body}")
        assert_same(load_rig(path), ring(3))


def test_opencv_in_two_files_with_names_and_one_size(tmp_path):
    entries = opencv_entries(ring(2))
    opencv_file(tmp_path / "intrinsics.yml", {k: v for k, v in entries.items() if k[0] in "KD"})
    opencv_file(tmp_path / "extrinsics.yml", {k: v for k, v in entries.items() if k[0] in "RT"})
    with (tmp_path / "intrinsics.yml").open("a") as file:
        file.write("names: [cam02, cam01]\nsize: [1088, 1920]\n")
    assert_same(load_rig(tmp_path), ring(2).select(["cam02", "cam01"]))
    (tmp_path / "extrinsics.yml").unlink()
    assert "extrinsics.yml is missing" in refused(tmp_path)


def test_opencv_one_file_per_camera(tmp_path):
    for c in ring(2).cameras:
        opencv_file(
            tmp_path / f"{c.name}.yml",
            {
                "image_width": c.width_px,
                "image_height": c.height_px,
                "camera_matrix": c.matrix.copy(),
                "distortion_coefficients": c.distortion[:, None].copy(),
                "rvec": cv2.Rodrigues(c.camera_from_world[:, :3].copy())[0],
                "tvec": c.camera_from_world[:, 3:].copy(),
            },
        )
    assert_same(load_rig(tmp_path), ring(2))


def test_opencv_millimetres_are_refused_until_the_file_says_so(tmp_path):
    path = tmp_path / "hall.yml"
    opencv_file(path, opencv_entries(ring(2), scale=1000))
    assert "seems to be in millimetres" in refused(path)
    path.write_text(path.read_text() + "units: mm\n")
    assert_same(load_rig(path), ring(2))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("K_", "k_", "no camera in the file"),
        ("D_cam02", "d_cam02", "camera 'cam02': key 'D_cam02' is missing"),
        ("T_cam02", "t_cam02", "camera 'cam02': key 'T_cam02' is missing"),
        ("!!opencv-matrix", "!!python/object/apply:os.getcwd", "not OpenCV YAML"),
        ("rows: 3", "rows: 7", "an opencv-matrix that is not one"),
        ("[ 1680.,", "[ .Nan,", "'K_cam01' holds a number that is not finite"),
        ("K_cam01: !!opencv-matrix", "K_cam01: &a !!opencv-matrix", "alias"),
        ("---", "[", "not OpenCV YAML"),
        ("size_cam01", "units: furlong\nsize_cam01", "'units' is 'furlong'"),
    ],
)
def test_a_bad_opencv_file_is_refused(tmp_path, old, new, message):
    path = tmp_path / "hall.yml"
    opencv_file(path, opencv_entries(ring(2)))
    text = path.read_text().replace(old, new)
    if message == "alias":
        text += "K_cam03: *a\n"
    path.write_text(text)
    assert message in refused(path)


def test_pose2sim_and_anipose(tmp_path):
    path = tmp_path / "Calib.toml"
    path.write_text(anipose(ring(3)))
    assert_same(load_rig(path), ring(3))
    path.write_text(anipose(ring(3), scale=1000))
    assert 'add units = "mm" to [metadata]' in refused(path)
    path.write_text(anipose(ring(3), scale=1000, metadata='units = "mm"'))
    assert_same(load_rig(path), ring(3))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("matrix", "matrx", "[cam_0]: key 'matrix' is missing"),
        ("fisheye = false", "fisheye = true", "the camera is a fisheye"),
        ("1088.0, 1920.0,", "1088.5, 1920", "'size' holds 1088.5"),
        ("1088.0, 1920.0,", "1088", "'size' has shape [1]"),
        ("translation = [", "translation = ['a', ", "'translation' is not an array of numbers"),
        ("translation = [", "translation = [nan, nan, nan] # ", "'translation' holds a number that is not finite"),
        ("[cam_1]", "[cam_0]", "not TOML"),
        ('"cam02"', '"cam01"', "camera 'cam01' is there twice"),
        ("1680.0", f"1{'0' * 400}", "'matrix' is not an array of numbers"),
    ],
)
def test_a_bad_toml_is_refused(tmp_path, old, new, message):
    path = tmp_path / "Calib.toml"
    path.write_text(anipose(ring(2), **{old: new}))
    assert message in refused(path)


names = st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8), min_size=1, max_size=4, unique=True)
small = st.floats(-1, 1)


@settings(max_examples=80, deadline=None)
@given(
    names=names,
    lens=st.lists(small, min_size=5, max_size=5),
    focal=st.floats(1, 1e5),
    at=st.tuples(st.floats(1, 3), small, small),
    scale=st.floats(0.1, 10),
)
def test_our_own_format_gives_back_every_bit(tmp_path_factory, names, lens, focal, at, scale):
    path = tmp_path_factory.mktemp("rig") / "a.rig.toml"
    matrix = np.array([[focal, 0, 1 / 3], [0, focal / 3, 0.1], [0, 0, 1]])
    image = ImageTransform((scale, 1.0), (0.1, -scale))
    rig = Rig(tuple(Camera(n, 640, 480, matrix, np.array(lens), looking_at(at), image) for n in names))
    save_rig(rig, path)
    again = load_rig(path)
    assert_same(again, rig, exact=True)
    assert [c.calibration_from_video for c in again.cameras] == [image] * len(names)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("posepipe-rig-1", "posepipe-rig-9", "rig format 'posepipe-rig-9'"),
        ('format = "posepipe-rig-1"', "", "rig format None"),
        ("size_px", "size", "[[camera]] number 1: key 'size_px' is missing"),
        ("scale = [", "scale = [0.0, 1.0] # ", "not TOML"),
        ("scale = [2.0, 2.0]", "scale = [0.0, 2.0]", "image transform with scale [0.0, 2.0]"),
        ("[[camera]]", "[camera]", "camera is not a list"),
    ],
)
def test_a_bad_rig_file_is_refused(tmp_path, old, new, message):
    path = tmp_path / "a.rig.toml"
    save_rig(Rig((camera(image=ImageTransform((2.0, 2.0), (0.5, 0.5))),)), path)
    path.write_text(path.read_text().replace(old, new))
    assert message in refused(path)


def test_files_that_are_no_calibration(tmp_path):
    missing = tmp_path / "hal.toml"
    (tmp_path / "hall.toml").write_text(anipose(ring(2)))
    assert "no such calibration file" in refused(missing)
    assert "did you mean 'hall.toml'?" in refused(missing)
    assert "does not exist" in refused(tmp_path / "nowhere" / "hall.toml")
    for name, data, message in (
        ("empty.toml", b" \n", "the calibration file is empty"),
        ("movie.toml", b"\x00\xff\xfe\x80", "not a text file"),
        ("big.toml", b" " * (5 << 20), "is no calibration"),
        ("pickle.pkl", b"cos\nsystem\n(S'true'\ntR.", "no calibration that can be read"),
        ("rig.json", b"{}", "readable are Qualisys .qca.txt"),
        ("list.yml", b"- 1\n", "not a map of keys"),
        ("deep.toml", b"a = " + b"[" * 100_000, "not TOML"),
        ("deep.yml", b"[" * 100_000, "not OpenCV YAML"),
        ("none.toml", b"[metadata]\nadjusted = false\n", "no camera in the file"),
    ):
        path = tmp_path / name
        path.write_bytes(data)
        assert message in refused(path), name
    folder = tmp_path / "folder"
    folder.mkdir()
    assert "holds no .yml file" in refused(folder)


def test_a_studios_image_transforms_are_applied(tmp_path):
    path = tmp_path / "hall.rig.toml"
    save_rig(ring(2), path)
    image = ImageTransform((1.0074, 1.0074), (0.0, -7.3))
    rig = load_rig(path, image={"cam02": image})
    assert [c.calibration_from_video for c in rig.cameras] == [ImageTransform(), image]
    assert "names camera 'cam2'" in refused(path, image={"cam2": image})


def test_a_rig_that_cannot_be_written(tmp_path):
    with pytest.raises(RecordError, match=r"hall\.rig\.toml"):
        save_rig(ring(2), tmp_path / "hall.yml")
    with pytest.raises(RecordError, match="cannot be written"):
        save_rig(ring(2), tmp_path / "no" / "hall.rig.toml")
