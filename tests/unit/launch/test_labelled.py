"""Recordings with labels beside them, and every way in which a label file can be wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from labelled_kit import labels, record

from posepipe.calib.action_window import JOINTS
from posepipe.launch.labelled import read_intervals, read_labelled, tracks
from posepipe.pipeline.errors import RecordError, SourceError

LEFT_WRIST = JOINTS.index("left_wrist")


def test_what_is_labelled_is_cut_out_and_the_rest_is_left(tmp_path: Path) -> None:
    record(tmp_path / "a.jsonl", 6, up=(2, 4))
    labels(tmp_path / "a.csv", "0.5,1.5,down", "2,4,up")
    down, up = read_labelled(tmp_path)
    assert (down.recording, down.label, down.where) == ("a", "down", f"{tmp_path}/a.csv:2")
    assert (up.label, len(up.t_s), up.t_s[0]) == ("up", 60, 0)
    assert up.t_s[-1] == pytest.approx(59 / 30)
    assert up.xyz_m[:, LEFT_WRIST, 2].mean() - down.xyz_m[:, LEFT_WRIST, 2].mean() == pytest.approx(1, abs=0.01)
    assert up.seen.all()


def test_a_line_without_id_is_about_everybody_and_one_with_id_about_one(tmp_path: Path) -> None:
    record(tmp_path / "a.jsonl", 4, ids=(3, 8))
    labels(tmp_path / "a.csv", "0,2,talk,", "2,4,wave,8", "2,4,bow,3", columns="start_s,end_s,label,id")
    assert [one.label for one in read_labelled(tmp_path)] == ["talk", "talk", "wave", "bow"]


def test_a_person_who_was_away_is_two_pieces(tmp_path: Path) -> None:
    path = record(tmp_path / "a.jsonl", 4)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:40] + lines[70:]))
    labels(tmp_path / "a.csv", "0,3.9,walk")
    assert [len(one.t_s) for one in read_labelled(tmp_path)] == [39, 48]


def test_recordings_without_labels_are_left_out_and_it_is_said(tmp_path: Path) -> None:
    for name in "abc":
        record(tmp_path / f"{name}.jsonl", 1)
    labels(tmp_path / "b.csv", "0,0.9,walk")
    said: list[str] = []
    assert [one.recording for one in read_labelled(tmp_path, tell=said.append)] == ["b"]
    assert said == ["without labels, left out: a.jsonl, c.jsonl"]


def test_files_of_a_spreadsheet_are_read(tmp_path: Path) -> None:
    record(tmp_path / "a.jsonl", 3)
    (tmp_path / "a.csv").write_bytes('\ufeffstart_s,label,end_s\r\n0,"sit, then rise",1.5\r\n\r\n'.encode())
    assert [one.label for one in read_labelled(tmp_path)] == ["sit, then rise"]


@pytest.mark.parametrize("layout", ["coco17", "human36m17", "body25"])
def test_any_layout_will_do(tmp_path: Path, layout: str) -> None:
    record(tmp_path / "a.jsonl", 1, layout=layout)
    (track,) = tracks(tmp_path / "a.jsonl")
    assert track.xyz_m.shape == (30, 13, 3)
    assert track.xyz_m[:, LEFT_WRIST, 2] == pytest.approx(0.88, abs=0.05)


WRONG = [
    (["0,2,walk", "1,3,run"], 3, "1 to 3 s (run) overlaps 0 to 2 s (walk) of line 2", "one label at a time"),
    (["2,3,run", "0,2.5,walk"], 2, "2 to 3 s (run) overlaps 0 to 2.5 s (walk) of line 3", "one label at a time"),
    (["0,9,walk"], 2, "0 to 9 s is not inside the recording, which lasts 3.97 s", "seconds count from the recording's first instant"),
    (["-1,2,walk"], 2, "-1 to 2 s is not inside the recording", "seconds count"),
    (["2,2,walk"], 2, "it ends at 2 s, and begins at 2 s", "end_s after start_s"),
    (["0,one,walk"], 2, "end_s is 'one', not a number of seconds", "write 12.5"),
    (["0,nan,walk"], 2, "end_s is 'nan', not a number of seconds", "write 12.5"),
    (["0,1,walk", "1,2, "], 3, "'' cannot be a label", "leave the line out"),
    (["0,1,unknown"], 2, "'unknown' cannot be a label", "leave the line out"),
    (["0,1,walk,fast"], 2, "4 values for 3 columns", "put a label with a comma into quotes"),
    (["0,1"], 2, "2 values for 3 columns", "put a label"),
    (['0,1,"walk'], 2, "not a line of CSV", "docs/actions.md"),
    ([], 1, "no line says what anybody does", "docs/actions.md"),
]


@pytest.mark.parametrize(("lines", "number", "what", "hint"), WRONG)
def test_a_wrong_line_is_named_with_what_to_do(tmp_path: Path, lines: list[str], number: int, what: str, hint: str) -> None:
    record(tmp_path / "a.jsonl", 4)
    path = labels(tmp_path / "a.csv", *lines)
    with pytest.raises(SourceError) as e:
        read_labelled(tmp_path)
    assert what in e.value.what
    assert e.value.where == f"{path}:{number}"
    assert hint in e.value.hint


@pytest.mark.parametrize(
    ("columns", "what", "hint"),
    [
        ("start_s,end_s,lable", "there is no column 'lable'", "did you mean 'label'?"),
        ("start_s,end_s", "the column 'label' is missing", "the first line is start_s,end_s,label"),
        ("start_s;end_s;label", "columns are divided by semicolons", "save it with commas"),
        ("start_s,end_s,label,label", "a column is there twice", "the first line is"),
    ],
)
def test_wrong_columns_are_named(tmp_path: Path, columns: str, what: str, hint: str) -> None:
    path = labels(tmp_path / "a.csv", "0,1,walk", columns=columns)
    with pytest.raises(SourceError) as e:
        read_intervals(path, until_s=4, people={0})
    assert (e.value.what, e.value.where) == (what, f"{path}:1")
    assert hint in e.value.hint


def test_identities_are_whole_numbers_that_are_in_the_recording(tmp_path: Path) -> None:
    path = labels(tmp_path / "a.csv", "0,1,walk,5", columns="start_s,end_s,label,id")
    with pytest.raises(SourceError, match=r"nobody in the recording has the id 5\n  -> there are 0, 2"):
        read_intervals(path, until_s=4, people={2, 0})
    labels(path, "0,1,walk,anna", columns="start_s,end_s,label,id")
    with pytest.raises(SourceError, match="id is 'anna', not a whole number"):
        read_intervals(path, until_s=4, people={2, 0})


def test_different_people_may_do_different_things_but_everybody_is_everybody(tmp_path: Path) -> None:
    path = labels(tmp_path / "a.csv", "0,2,walk,0", "1,3,run,1", columns="start_s,end_s,label,id")
    assert len(read_intervals(path, until_s=4, people={0, 1})) == 2
    labels(path, "0,2,walk,0", "1,3,run,", columns="start_s,end_s,label,id")
    with pytest.raises(SourceError, match="overlaps"):
        read_intervals(path, until_s=4, people={0, 1})


def test_folders_and_files_that_are_not_what_they_should_be(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="there is no such folder"):
        read_labelled(tmp_path / "none")
    record(tmp_path / "take1.jsonl", 1)
    with pytest.raises(SourceError, match=r"1 recordings are here, and no file of labels\n  -> put NAME\.csv beside NAME\.jsonl"):
        read_labelled(tmp_path)
    labels(tmp_path / "take2.csv", "0,1,walk")
    with pytest.raises(SourceError, match=r"these are labels of take2\.jsonl, which is not beside them\n  -> did you mean 'take1\.jsonl'"):
        read_labelled(tmp_path)
    (tmp_path / "take2.csv").rename(tmp_path / "take1.csv")
    (tmp_path / "take1.csv").write_bytes(b"start_s,end_s,label\n0,1,\xff\xfe\n")
    with pytest.raises(SourceError, match=r"the labels cannot be read: .*\n  -> save it as CSV in UTF-8"):
        read_labelled(tmp_path)
    (tmp_path / "take1.jsonl").write_text('{"v": 1}\n')
    with pytest.raises(RecordError, match=r"take1\.jsonl:1: not a line of a recording"):
        read_labelled(tmp_path)


def test_a_recording_of_nobody_or_of_half_bodies_is_refused(tmp_path: Path) -> None:
    path = record(tmp_path / "a.jsonl", 1, ids=())
    with pytest.raises(SourceError, match="nobody is in it"):
        tracks(path)
    path.write_text(path.read_text().replace('"left_wrist"', '"left_paw"'))
    with pytest.raises(SourceError, match="its skeletons have no left_wrist"):
        tracks(path)
