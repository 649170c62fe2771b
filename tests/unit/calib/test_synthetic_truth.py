"""The truth of a synthetic recording is read as it was written, and what is no truth is refused with its file's name."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import msgspec
import numpy as np
import pytest
from synthetic_kit import made_up_truth

from posepipe.calib.synthetic_truth import ARRAYS, SCENE, read_scene, read_truth, write_truth
from posepipe.pipeline.errors import RecordError, SourceError


def test_what_was_written_is_read(tmp_path: Path) -> None:
    truth = made_up_truth(people=2, cameras=3, frames=5)
    write_truth(tmp_path, truth)
    read = read_truth(tmp_path)
    assert read.scene == truth.scene
    assert read.cameras == ("cam1", "cam2", "cam3")
    for field in dataclasses.fields(truth):
        if isinstance(value := getattr(truth, field.name), np.ndarray):
            np.testing.assert_array_equal(getattr(read, field.name), value)
            assert getattr(read, field.name).dtype == value.dtype
            assert not getattr(read, field.name).flags.writeable
    assert read.joints_m("body25").shape == (2, 5, 25, 3)


def test_a_recording_of_nobody(tmp_path: Path) -> None:
    write_truth(tmp_path, made_up_truth(people=0, cameras=2, frames=3))
    assert read_truth(tmp_path).coco17_m.shape == (0, 3, 17, 3)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"there is no folder .*nowhere[\s\S]*synth render"):
        read_truth(tmp_path / "nowhere")


def test_a_folder_that_is_no_recording(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no synthetic recording: it has no scene\.json"):
        read_truth(tmp_path)


def test_another_format(tmp_path: Path) -> None:
    write_truth(tmp_path, made_up_truth())
    (tmp_path / SCENE).write_text((tmp_path / SCENE).read_text().replace("posepipe-synthetic-1", "posepipe-synthetic-9"))
    with pytest.raises(SourceError, match=r"scene\.json: format 'posepipe-synthetic-9'"):
        read_scene(tmp_path)


@pytest.mark.parametrize("text", ["", "{", '{"format": "posepipe-synthetic-1"}', "\xff"])
def test_a_damaged_scene(tmp_path: Path, text: str) -> None:
    (tmp_path / SCENE).write_bytes(text.encode("latin-1"))
    with pytest.raises(SourceError, match=r"scene\.json: damaged"):
        read_truth(tmp_path)


def test_arrays_that_are_missing_cut_off_or_of_another_recording(tmp_path: Path) -> None:
    write_truth(tmp_path, made_up_truth(frames=5))
    whole = (tmp_path / ARRAYS).read_bytes()
    (tmp_path / ARRAYS).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceError, match=r"truth\.npz: damaged or cut off"):
        read_truth(tmp_path)
    (tmp_path / ARRAYS).unlink()
    with pytest.raises(SourceError, match=r"has no truth\.npz"):
        read_truth(tmp_path)
    np.savez(tmp_path / ARRAYS, t_s=np.zeros(5))
    with pytest.raises(SourceError, match=r"truth\.npz: it lacks capture_t_s"):
        read_truth(tmp_path)
    (tmp_path / ARRAYS).write_bytes(whole)
    write_scene = made_up_truth(frames=6).scene
    (tmp_path / SCENE).write_bytes(msgspec.json.encode(write_scene))
    with pytest.raises(SourceError, match=r"t_s has shape \[5\], not \[6\]"):
        read_truth(tmp_path)


def test_wherever_a_byte_is_wrong_it_is_read_or_refused(tmp_path: Path) -> None:
    """Some damage is found by the zip, some by the decompression, which raises an error of its own."""
    write_truth(tmp_path, made_up_truth(frames=5))
    whole, refused = (tmp_path / ARRAYS).read_bytes(), 0
    for at in range(0, len(whole), max(1, len(whole) // 400)):
        (tmp_path / ARRAYS).write_bytes(whole[:at] + bytes([whole[at] ^ 0x5A]) + whole[at + 1 :])
        try:
            read_truth(tmp_path)
        except SourceError:
            refused += 1
    assert refused > 100


def test_a_folder_that_takes_nothing(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="cannot be written"):
        write_truth(tmp_path / "nowhere", made_up_truth())
