"""A recording is readable whatever happens to the studio that writes it."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import node_kit
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from quota import file_limit

from posepipe.nodes.record_jsonl import RecordJsonl, encode, read_recording
from posepipe.pipeline.errors import RecordError
from posepipe.pipeline.node import Caps
from posepipe.pipeline.packet import Actions, Packet, Poses, Sync
from posepipe.pipeline.skeleton import COCO17

JOINTS = len(COCO17.joints)


def poses(people: int = 2, *, seed: int = 0) -> Poses:
    rng = np.random.default_rng(seed)
    conf = rng.uniform(0.1, 1, (people, JOINTS)).astype(np.float32)
    conf[:, 3] = 0
    return Poses(
        cameras=("north", "south"),
        skeleton="coco17",
        sync=Sync(1200, (0,), (1,), (0.125, None), (-3.25, None), (1.0, 0.9)),
        tier="algebraic",
        ids=np.arange(people) + 7,
        xyz_m=rng.uniform(-3, 3, (people, JOINTS, 3)).astype(np.float32),
        conf=conf,
        sigma_m=rng.uniform(0, 0.1, (people, JOINTS)).astype(np.float32),
        reproj_px=rng.uniform(0, 20, people).astype(np.float32),
        views_used=np.full((people, JOINTS), 2, np.uint8),
    )


def packet(seq: int, body: Poses | None = None) -> Packet[Poses]:
    return Packet(seq, 1_700_000_000_000_000_000 + seq, "smooth", body or poses(seed=seq), (), ())


class Studio(node_kit.Studio):
    """The runner's side of one recorder."""

    def __init__(self) -> None:
        super().__init__(("north", "south"))

    def recorder(self, file: Path, *, overwrite: bool = False, actions: tuple[str, ...] = ()) -> RecordJsonl:
        node = RecordJsonl(RecordJsonl.Settings(file=str(file), overwrite=overwrite))
        try:
            ports = {"poses": Caps(skeleton="coco17"), **({"actions": Caps(actions=actions)} if actions else {})}
            node.open(self.context(name="record", key="record", caps=ports))
        except RecordError:
            node.close()
            raise
        return node


@pytest.fixture
def studio() -> Studio:
    return Studio()


def test_what_is_written_is_read_back(tmp_path: Path, studio: Studio) -> None:
    node = studio.recorder(tmp_path / "takes" / "one.jsonl")
    for seq in range(5):
        node.step(packet(seq))
    node.close()
    recording = read_recording(tmp_path / "takes" / "one.jsonl")
    assert (recording.header.studio, recording.header.skeleton, recording.header.cameras) == ("hall", "coco17", ("north", "south"))
    assert recording.header.joints == COCO17.joints
    assert recording.header.bones == COCO17.bones
    instants = list(recording)
    assert [i.seq for i in instants] == [0, 1, 2, 3, 4]
    assert recording.torn == ""
    for seq, instant in enumerate(instants):
        want = poses(seed=seq)
        assert msgspec.to_builtins(instant.sync) == msgspec.to_builtins(want.sync)
        for p, person in enumerate(instant.people):
            assert person.id == 7 + p
            assert person.xyz_m[3] is None
            seen = [j for j in range(JOINTS) if j != 3]
            np.testing.assert_allclose(np.array([person.xyz_m[j] for j in seen], np.float64), want.xyz_m[p, seen], atol=0.51e-5)
            np.testing.assert_allclose(person.sigma_m, want.sigma_m[p], atol=0.51e-5)
            np.testing.assert_allclose(person.conf, want.conf[p], atol=0.51e-3)


def test_the_text_has_no_digits_that_were_not_asked_for() -> None:
    line = msgspec.json.decode(encode(packet(0), [None, None]))
    numbers = [n for person in line["people"] for xyz in person["xyz_m"] if xyz for n in xyz]
    assert max(len(str(n).partition(".")[2]) for n in numbers) <= 5


def test_actions_and_bodies_are_read_back(tmp_path: Path, studio: Studio) -> None:
    node = studio.recorder(tmp_path / "a.jsonl", actions=("walking", "boxing"))
    made = node_kit.bodies(2)
    made.shape[1] = np.nan
    body = replace(poses(), bodies=made)
    node.step(packet(0, body), Actions(np.array([8, 99]), np.array([-1, 0]), np.array([[0.5004, 0.4996], [1, 0]], np.float32)))
    node.step(packet(1, body), None)
    node.step(packet(2), None)
    node.close()
    recording = read_recording(tmp_path / "a.jsonl")
    assert recording.header.actions == ("walking", "boxing", "unknown")
    (seven, eight), without, bare = (i.people for i in recording)
    assert seven.action is None
    assert eight.action is not None
    assert (eight.action.label, eight.action.p) == (2, (0.5, 0.5, 0))
    assert [p.action for p in without] == [p.action for p in bare] == [None, None]
    assert [p.body for p in bare] == [None, None]
    assert eight.body is None
    assert seven.body is not None
    assert seven.body.model == "posepipe.adult"
    np.testing.assert_allclose(seven.body.pose, made.pose[0], atol=0.51e-4)
    np.testing.assert_allclose(seven.body.shape, made.shape[0], atol=0.51e-4)
    np.testing.assert_allclose(seven.body.root_m, made.root_m[0], atol=0.51e-5)


def test_files_of_earlier_posepipes_have_neither(tmp_path: Path) -> None:
    file = tmp_path / "old.jsonl"
    header = '{"v":1,"studio":"hall","skeleton":"coco17","joints":[],"bones":[],"cameras":[],"graph_sha256":""}\n'
    person = '{"id":1,"xyz_m":[null],"conf":[0],"sigma_m":[null],"reproj_px":null}'
    file.write_text(
        header + f'{{"seq":0,"t_capture_ns":1,"sync":{{"skew_ns":0,"views":[],"missing":[]}},"tier":"held","people":[{person}]}}\n'
    )
    recording = read_recording(file)
    assert recording.header.actions == ()
    assert [(p.action, p.body) for i in recording for p in i.people] == [(None, None)]


def test_nobody_there_is_an_instant_with_nobody(tmp_path: Path, studio: Studio) -> None:
    node = studio.recorder(tmp_path / "a.jsonl")
    node.step(packet(0, poses(0)))
    node.close()
    assert [i.people for i in read_recording(tmp_path / "a.jsonl")] == [()]


def test_an_existing_file_is_refused_and_stays(tmp_path: Path, studio: Studio) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text("the only take\n")
    with pytest.raises(RecordError) as e:
        studio.recorder(file)
    assert "exists" in e.value.what
    assert e.value.where == str(file)
    assert "{time}" in e.value.hint
    assert "overwrite: true" in e.value.hint
    assert file.read_text() == "the only take\n"


def test_overwrite_replaces_only_when_there_is_something_new(tmp_path: Path, studio: Studio) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text("an old take that is longer than what follows" * 500)
    studio.recorder(file, overwrite=True).close()
    assert file.read_text().startswith("an old take"), "a studio that failed to start must not empty the old recording"
    node = studio.recorder(file, overwrite=True)
    node.step(packet(0))
    node.close()
    assert [i.seq for i in read_recording(file)] == [0]


def test_a_run_without_skeletons_leaves_no_file_to_refuse_the_next(tmp_path: Path, studio: Studio) -> None:
    file = tmp_path / "a.jsonl"
    studio.recorder(file).close()
    assert not file.exists()


def test_the_start_time_is_put_into_the_name(tmp_path: Path, studio: Studio) -> None:
    node = studio.recorder(tmp_path / "take {time}.jsonl")
    node.step(packet(0))
    node.close()
    (name,) = [p.name for p in tmp_path.iterdir()]
    assert name.startswith("take 2023-11-1")
    assert ":" not in name


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path, studio: Studio) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError) as e:
        studio.recorder(tmp_path / "file" / "a.jsonl")
    assert "cannot be written" in e.value.what
    assert "folder" in e.value.hint


def test_a_quota_closes_the_recording_at_a_whole_line_and_the_node_goes_on(tmp_path: Path, studio: Studio) -> None:
    file = tmp_path / "a.jsonl"
    node = studio.recorder(file)
    with file_limit(20_000):
        for seq in range(30):
            node.step(packet(seq))
        node.close()
    recorded = [i.seq for i in read_recording(file)]
    assert 2 <= len(recorded) < 30
    assert recorded == list(range(len(recorded)))
    assert node.recorded == len(recorded)
    assert node.recorded + node.not_recorded == 30
    assert file.read_bytes().endswith(b"}\n")
    first, last = studio.warnings
    assert str(file) in first
    assert os.strerror(errno.EFBIG) in first
    assert "ulimit -f" in first
    assert f"{30 - len(recorded)} instants were not recorded" in last


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is a Linux device")
def test_a_full_disk_is_said_once_and_the_node_goes_on(studio: Studio) -> None:
    node = studio.recorder(Path("/dev/full"), overwrite=True)
    for seq in range(5):
        node.step(packet(seq))
    node.close()
    first, last = studio.warnings
    assert os.strerror(errno.ENOSPC) in first
    assert "free space" in first
    assert "the studio goes on" in first
    assert "5 instants were not recorded" in last


_WRITER = """
import sys; sys.path[:0] = [{folder!r}]
from pathlib import Path
from test_record_jsonl import Studio, packet
node = Studio().recorder(Path(sys.argv[1]))
seq = 0
while True:
    node.step(packet(seq)); seq += 1
    if seq == 20: print("twenty", flush=True)
"""


@pytest.mark.parametrize("repeat", range(3))
def test_kill_9_leaves_whole_lines(tmp_path: Path, repeat: int) -> None:
    file = tmp_path / "a.jsonl"
    code = _WRITER.format(folder=str(Path(__file__).parent))
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(file)], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"twenty\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    warnings: list[str] = []
    recorded = [i.seq for i in read_recording(file, warn=warnings.append)]
    assert recorded == list(range(len(recorded)))
    assert len(recorded) >= 20
    assert warnings == []


def recorded_bytes(folder: Path) -> bytes:
    file = folder / "whole.jsonl"
    node = Studio().recorder(file, overwrite=True)
    for seq in range(3):
        node.step(packet(seq, poses(1, seed=seq)))
    node.close()
    return file.read_bytes()


@given(cut=st.floats(0, 1))
def test_a_file_cut_anywhere_gives_its_whole_lines_and_says_what_is_missing(tmp_path_factory: pytest.TempPathFactory, cut: float) -> None:
    folder = tmp_path_factory.getbasetemp()
    data = recorded_bytes(folder)
    kept = data[: int(cut * len(data))]
    file = folder / "cut.jsonl"
    file.write_bytes(kept)
    lines = kept.count(b"\n")
    warnings: list[str] = []
    if lines == 0:
        with pytest.raises(RecordError, match="nothing was recorded"):
            read_recording(file, warn=warnings.append)
        return
    recording = read_recording(file, warn=warnings.append)
    assert len(list(recording)) == lines - 1
    torn = bool(kept) and not kept.endswith(b"\n")
    assert bool(recording.torn) == torn
    assert len(warnings) == torn
    assert all(f":{lines + 1}: the last line is cut" in w for w in warnings)


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lambda lines: [lines[0], b'{"seq": "x"}\n', *lines[2:]], 2),
        (lambda lines: [b'{"a":1}\n', *lines[1:]], 1),
        (lambda lines: [*lines[:3], b"\xff\n"], 4),
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, damage: Any, line: int) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_bytes(b"".join(damage(recorded_bytes(tmp_path).splitlines(keepends=True))))
    with pytest.raises(RecordError) as e:
        list(read_recording(file))
    assert e.value.where == f"{file}:{line}"
    assert "not a line of a recording" in e.value.what


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "new.jsonl"
    file.write_bytes(recorded_bytes(tmp_path).replace(b'{"v":1', b'{"v":2', 1))
    with pytest.raises(RecordError, match="version 2"):
        read_recording(file)


def test_a_recording_from_before_the_certificate_is_read(tmp_path: Path) -> None:
    file = tmp_path / "old.jsonl"
    certificate = b',"offset_ms":[0.125,null],"drift_ppm":[-3.25,null],"complete":[1.0,0.9]'
    recorded = recorded_bytes(tmp_path)
    assert certificate in recorded
    file.write_bytes(recorded.replace(certificate, b""))
    for instant in read_recording(file):
        assert (instant.sync.skew_ns, instant.sync.offset_ms, instant.sync.complete) == (1200, (), ())


def test_a_recording_from_before_the_views_is_read(tmp_path: Path) -> None:
    views = b',"views":[' + b",".join([b"2"] * JOINTS) + b"]"
    recorded = recorded_bytes(tmp_path)
    assert views in recorded
    (tmp_path / "old.jsonl").write_bytes(recorded.replace(views, b""))
    new, old = ([p for i in read_recording(tmp_path / name) for p in i.people] for name in ("whole.jsonl", "old.jsonl"))
    assert {p.views for p in new} == {(2,) * JOINTS}
    assert [msgspec.structs.replace(p, views=None) for p in new] == old


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError) as e:
        read_recording(tmp_path / "none.jsonl")
    assert e.value.where == str(tmp_path / "none.jsonl")
