"""What a user gets to read when something is wrong: one message that says where, what, and what to do; no traceback, and nothing is lost silently."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

import people
import pytest
from clips import encode, rewrite
from studio_files import SIZE, Listener, StudioFiles

from posepipe.calib import save_rig


def refused(hall: StudioFiles, *says: str, arguments: tuple[str, ...] = ("--offline",), command: str = "run", **environment: str) -> str:
    """Run it; it must be refused before start with exit code 2 and these words."""
    done = hall.run(*arguments, command=command, **environment)
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    assert done.stderr.count("posepipe: ") >= 1
    for words in says:
        assert words in done.stderr, done.stderr
    return done.stderr


# cameras ----------------------------------------------------------------------------------------------------------------------


def test_a_missing_file(hall: StudioFiles) -> None:
    hall.nodes["capture"]["each"]["east"] = "eest.mp4"
    refused(hall, "camera east", "there is no file", "eest.mp4", "beside it there is: east.mp4, north.mp4, south.mp4")


def test_an_empty_file(hall: StudioFiles) -> None:
    (hall.folder / "east.mp4").write_bytes(b"")
    refused(hall, "camera east", "is empty (0 bytes)", "-> record or copy it again")


def test_a_file_cut_off_before_its_index(hall: StudioFiles) -> None:
    raw = (hall.folder / "east.mp4").read_bytes()
    (hall.folder / "east.mp4").write_bytes(raw[: len(raw) // 2])
    refused(hall, "camera east", "is not a video that can be read", "truncated")


def test_a_file_that_is_no_video(hall: StudioFiles) -> None:
    (hall.folder / "east.mp4").write_text("not a video at all\n" * 100)
    refused(hall, "camera east", "is not a video that can be read")


def test_a_codec_without_a_decoder(hall: StudioFiles) -> None:
    raw = (hall.folder / "east.mp4").read_bytes()
    (hall.folder / "east.mp4").write_bytes(raw.replace(b"avc1", b"xyz1"))
    refused(hall, "camera east", "no decoder for its codec", "-> re-encode")


def test_a_file_truncated_in_the_middle_plays_to_where_it_ends(hall: StudioFiles) -> None:
    whole = hall.folder / "whole.mp4"
    rewrite(hall.folder / "east.mp4", whole, lambda i, p: p, options={"movflags": "faststart"})
    raw = whole.read_bytes()
    (hall.folder / "east.mp4").write_bytes(raw[: int(len(raw) * 0.6)])
    done = hall.run("--offline", "--summary", "s.json")
    assert done.returncode == 0, done.stderr
    assert "camera east" in done.stderr
    assert "of 30 frames: the file is truncated" in done.stderr
    figures = json.loads((hall.folder / "s.json").read_text())
    assert figures["instants"] == 30
    assert figures["balance"] == 0


def test_different_frame_counts_are_said_and_the_rest_goes_on(hall: StudioFiles) -> None:
    encode(hall.folder / "east.mp4", 24, size=SIZE)
    listener = Listener(hall.address)
    done = hall.run("--offline", "--await-subscribers", "1", "--summary", "s.json")
    instants = listener.stop()
    assert done.returncode == 0, done.stderr
    assert "cameras of different lengths: east has 24 frames" in done.stderr
    assert [m["sync"]["missing"] for m in instants] == [[]] * 24 + [[1]] * 6
    assert json.loads((hall.folder / "s.json").read_text())["captured"] == 84


def test_different_rates_are_refused_with_the_line_to_add(hall: StudioFiles) -> None:
    encode(hall.folder / "east.mp4", 60, fps=60, size=SIZE)
    refused(hall, "east has 60 frames/s", "has 30", "fps: 30 in the capture node", "studio.yaml:")
    hall.nodes["capture"]["fps"] = 30
    assert hall.run("--offline").returncode == 0


# calibration ------------------------------------------------------------------------------------------------------------------


def test_a_calibration_that_lacks_a_camera(hall: StudioFiles) -> None:
    save_rig(people.ring(2, width=SIZE[0], height=SIZE[1]), hall.folder / "hall.rig.toml")
    refused(hall, "the calibration lacks camera 'south'", "it has north, east")


def test_an_image_transform_for_an_unknown_camera(hall: StudioFiles) -> None:
    hall.graph["rig"] = {"file": "hall.rig.toml", "image": {"sauth": {"scale": 1.01}}}
    refused(hall, "'sauth'", "did you mean 'south'?", "studio.yaml:")


def test_a_calibration_of_another_image_size(hall: StudioFiles) -> None:
    save_rig(people.ring(3, width=640, height=480), hall.folder / "hall.rig.toml")
    for command in ("run", "check"):
        refused(hall, "320x240", "640x480", "scale: [2", arguments=(), command=command)
    hall.graph["rig"] = {"file": "hall.rig.toml", "image": {n: {"scale": 2.0, "offset_px": [0.5, 0.5]} for n in people.NAMES[:3]}}
    assert hall.run("--offline").returncode == 0


def test_a_missing_calibration(hall: StudioFiles) -> None:
    hall.graph["rig"] = "hall.rig.tml"
    refused(hall, "hall.rig.tml", "studio.yaml:")


def test_a_studio_without_a_rig(hall: StudioFiles) -> None:
    del hall.graph["rig"]
    refused(hall, "the studio has no rig", "-> add rig: FILE")


# the rest ---------------------------------------------------------------------------------------------------------------------


def test_a_port_in_use(hall: StudioFiles) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", hall.port))
        other.listen()
        refused(hall, f"tcp://127.0.0.1:{hall.port} is already in use", "--set nodes.publish.bind=")


def test_a_model_file_that_is_none(hall: StudioFiles, tmp_path: Path) -> None:
    """The cache holds a file with the right size and the wrong content."""
    from posepipe.engines.assets import asset

    hall.nodes["heatmaps"]["engine"] = "blazepose.full"
    for name in ("blazepose.full", "blazepose.detector"):
        (file,) = asset(name).files
        at = tmp_path / "home" / "assets" / name / file.name
        at.parent.mkdir(parents=True)
        at.write_bytes(os.urandom(1024) + bytes(file.bytes - 1024))
    text = refused(hall, "blazepose.", POSEPIPE_HOME=str(tmp_path / "home"))
    assert ".tflite" in text


def test_no_network(hall: StudioFiles, tmp_path: Path) -> None:
    hall.nodes["heatmaps"]["engine"] = "blazepose.full"
    refused(
        hall,
        "cannot fetch",
        "POSEPIPE_MIRROR=DIR",
        POSEPIPE_HOME=str(tmp_path / "home"),
        PIP_INDEX_URL="http://127.0.0.1:9/simple",
        PIP_CONFIG_FILE=os.devnull,
    )


def test_a_full_disk_while_recording(hall: StudioFiles) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full on this system")
    hall.nodes["record"] = {"use": "record.jsonl", "from": "smooth", "file": "out.jsonl"}
    (hall.folder / "out.jsonl").symlink_to("/dev/full")
    hall.nodes["record"]["overwrite"] = True
    done = hall.run("--offline", "--summary", "s.json")
    assert done.returncode == 0, done.stderr
    assert "warning" in done.stderr
    assert "No space left" in done.stderr
    assert json.loads((hall.folder / "s.json").read_text())["published"] == 90


def test_live_is_refused_what_only_recordings_can(hall: StudioFiles) -> None:
    refused(hall, "--offline and --seconds exclude each other", arguments=("--offline", "--seconds", "3"))


def test_a_damaged_model_is_fetched_again(hall: StudioFiles, tmp_path: Path) -> None:
    """Right size, wrong bytes: run says what to do, and doing it helps."""
    from posepipe.engines.assets import asset

    if not asset("blazepose.detector").present():
        pytest.skip("needs blazepose.detector: run `posepipe pull blazepose.detector`")
    home, mirror = tmp_path / "home", tmp_path / "mirror"
    mirror.mkdir()
    names = ("blazepose.full", "blazepose.detector")
    for name in names:
        (file,) = asset(name).files
        good = asset(name).path(file.name).read_bytes()
        (mirror / file.name).write_bytes(good)
        at = home / "assets" / name / file.name
        at.parent.mkdir(parents=True)
        at.write_bytes(good[: len(good) // 2] + bytes(1000) + good[len(good) // 2 + 1000 :])
    hall.nodes["heatmaps"]["engine"] = "blazepose.full"
    places = {"POSEPIPE_HOME": str(home), "POSEPIPE_MIRROR": str(mirror), "PIP_INDEX_URL": "http://127.0.0.1:9/simple"}
    assert "its sha256 is not the card's" in refused(hall, "posepipe pull blazepose", **places)
    line = [sys.executable, "-m", "posepipe", "pull", *names]
    pulled = subprocess.run(line, capture_output=True, text=True, timeout=60, env={**os.environ, **places})
    assert pulled.returncode == 0, pulled.stderr
    assert pulled.stdout.count("fetched") == 2
    assert hall.run("--offline", **places).returncode == 0
    for kept in (home / "onnx").glob("*.onnx"):  # what was made of it is damaged: it is made again
        kept.write_text("hello")
    assert hall.run("--offline", **places).returncode == 0


def test_a_phone_video_stored_on_its_side(hall: StudioFiles) -> None:
    raw = bytearray((hall.folder / "east.mp4").read_bytes())
    identity = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
    turned = struct.pack(">9i", 0, 0x10000, 0, -0x10000, 0, 0, SIZE[1] << 16, 0, 0x40000000)
    at = raw.rindex(identity)  # the track's matrix; the movie's comes first
    raw[at : at + len(turned)] = turned
    (hall.folder / "east.mp4").write_bytes(raw)
    refused(hall, "studio.yaml:", "camera east", "is stored turned by", "ffmpeg -i IN")


def test_a_shorter_camera_in_a_container_that_does_not_count(hall: StudioFiles) -> None:
    encode(hall.folder / "east.mkv", 20, size=SIZE)
    hall.nodes["capture"]["each"]["east"] = "east.mkv"
    done = hall.run("--offline")
    assert done.returncode == 0, done.stderr
    assert "cameras of different lengths: east has 20 frames" in done.stderr


def test_nothing_publishes(hall: StudioFiles) -> None:
    del hall.nodes["publish"]
    refused(hall, "nothing publishes", arguments=("--await-subscribers", "1"))
    assert "nothing in this studio publishes" in hall.run(command="check").stdout


def test_standard_output_is_full(hall: StudioFiles) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full on this system")
    with open("/dev/full", "w") as full:
        line = [sys.executable, "-m", "posepipe", "run", str(hall.write()), "--offline"]
        done = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, cwd=hall.folder)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "No space left" in done.stderr


def test_an_ipc_socket_leaves_no_file(hall: StudioFiles, tmp_path: Path) -> None:
    hall.nodes["publish"]["bind"] = f"ipc://{tmp_path}/s"
    assert hall.run("--offline").returncode == 0
    assert not (tmp_path / "s").exists()


def test_aliases_that_multiply(hall: StudioFiles) -> None:
    bomb = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    (hall.folder / "bomb.yaml").write_text("\n".join(bomb))
    line = [sys.executable, "-m", "posepipe", "check", "bomb.yaml"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=30, cwd=hall.folder)
    assert done.returncode == 2
    assert "more than 20000 values" in done.stderr
