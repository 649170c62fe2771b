"""`posepipe motion import` on the command line: what it writes, what it says, what it refuses."""

import logging

import motion_kit as kit
import pytest

from posepipe.calib.motion import read_motion
from posepipe.launch.cli import main


@pytest.fixture(autouse=True)
def logs_as_before():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "wave.bvh").write_text(kit.bvh())
    (tmp_path / "t.asf").write_text(kit.asf())
    (tmp_path / "t_01.amc").write_text(kit.amc())
    return tmp_path


def test_recordings_become_a_folder_of_clips(folder, capsys):
    files = [str(folder / name) for name in ("wave.bvh", "t_01.amc")]
    assert main(["motion", "import", *files, "--skeleton", str(folder / "t.asf"), "--label", "waving", "--out", str(folder / "out")]) == 0
    said = capsys.readouterr().out
    assert "wave.bvh: 45 instants, 1.5 s" in said
    assert "2 recordings, 2 clips without jumps, 3 s in all" in said
    assert {clip.label for clip in read_motion(folder / "out").values()} == {"waving"}


def test_rate_and_scale_may_be_stated(folder):
    command = ["motion", "import", str(folder / "t_01.amc"), "--skeleton", str(folder / "t.asf")]
    assert main([*command, "--amc-rate", "60", "--fps", "60", "--scale", "0.1128", "--out", str(folder / "out")]) == 0
    (clip,) = read_motion(folder / "out").values()
    assert (clip.fps, len(clip.joints24_m)) == (60.0, 180)
    assert clip.joints24_m[0, 0, 2] > 1.6


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["t_01.amc"], "needs the skeleton"),
        (["missing.bvh"], "cannot be read: No such file"),
        (["wave.bvh", "wave.bvh"], "would both be the clip 'wave'"),
    ],
)
def test_what_cannot_be_read_is_refused_and_nothing_is_written(folder, capsys, files, message):
    assert main(["motion", "import", *(str(folder / name) for name in files), "--out", str(folder / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (folder / "out").exists()


def test_clips_that_are_there_are_refused_before_anything_is_read(folder, capsys):
    (folder / "out").mkdir()
    (folder / "out" / "clips.json").write_text("{}")
    assert main(["motion", "import", str(folder / "missing.bvh"), "--out", str(folder / "out")]) == 2
    assert "there are clips already" in capsys.readouterr().err
