"""Kept builds: made once, by one process, whole or not at all; damaged ones made again; a folder that cannot be written stops nothing."""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import threading
from dataclasses import replace
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest

from posepipe.engines import cache as room
from posepipe.engines.cache import BuildKey, Built, build, find, kept, sweep, watched

KEY = BuildKey("ab" * 32, "openvino", "2026.4", "Some CPU x 2", "bf16", "layout 1")


@pytest.fixture(autouse=True)
def home(cache: Path) -> Path:
    return cache


def never() -> bytes:
    raise AssertionError("built, and should have been found")


def test_what_was_built_is_found_and_not_built_again() -> None:
    assert find(KEY) is None
    assert build(KEY, lambda: b"engine\nwith lines\n") == (b"engine\nwith lines\n", True)
    assert find(KEY) == b"engine\nwith lines\n"
    assert build(KEY, never) == (b"engine\nwith lines\n", False)


@pytest.mark.parametrize("field", ["model_sha256", "runtime", "version", "device", "precision", "shapes"])
def test_any_change_of_the_key_is_another_build(field: str) -> None:
    other = replace(KEY, **{field: "other"})
    build(KEY, lambda: b"one")
    assert find(other) is None
    assert build(other, lambda: b"two") == (b"two", True)
    assert (find(KEY), find(other)) == (b"one", b"two")


def test_a_build_under_the_name_of_another_key_is_not_taken() -> None:
    """As after a file was copied by hand."""
    build(KEY, lambda: b"one")
    other = replace(KEY, device="Another CPU x 2")
    (room.folder() / KEY.name).rename(room.folder() / other.name)
    assert find(other) is None


def damage(content: bytes, how: str) -> bytes:
    line, _, made = content.partition(b"\n")
    return {
        "cut": content[:-1],
        "empty": b"",
        "longer": content + b"x",
        "flipped": content[:-2] + bytes([content[-2] ^ 1]) + content[-1:],
        "head only": line,
        "no json": b"{" + content,
        "list": b"[1]\n" + made,
        "other text": b"\xff\xfe\x00" + content,
        "no key": b'{"size": 6, "sha256": "00"}\n' + made,
    }[how]


@pytest.mark.parametrize("how", ["cut", "empty", "longer", "flipped", "head only", "no json", "list", "other text", "no key"])
def test_a_damaged_build_is_made_again_and_replaced(how: str, caplog: Any) -> None:
    build(KEY, lambda: b"engine")
    path = room.folder() / KEY.name
    path.write_bytes(damage(path.read_bytes(), how))
    assert find(KEY) is None
    assert [room.whole(one) for one in room.kept()] == [False]
    assert build(KEY, lambda: b"engine") == (b"engine", True)
    assert caplog.messages == [f"{path}: a compiled network is damaged, so it is compiled anew"]
    assert build(KEY, never) == (b"engine", False)
    assert [room.whole(one) for one in room.kept()] == [True]
    assert len(caplog.messages) == 1


def test_what_does_not_serve_is_made_again_when_told_so() -> None:
    build(KEY, lambda: b"does not load")
    assert build(KEY, lambda: b"loads", again=True) == (b"loads", True)
    assert find(KEY) == b"loads"


def test_a_build_that_fails_leaves_nothing_and_blocks_nobody() -> None:
    with pytest.raises(ZeroDivisionError):
        build(KEY, lambda: bytes(1 // 0))
    assert find(KEY) is None
    assert kept() == []
    assert build(KEY, lambda: b"engine") == (b"engine", True)


def _builder(home: str, start: Barrier, log: Any, number: int) -> None:
    os.environ["POSEPIPE_HOME"] = home

    def make() -> bytes:
        log.put(("made", number))
        return b"engine" * 100_000

    start.wait(60)
    found, made = build(KEY, make)
    log.put(("done", number, made, found == b"engine" * 100_000))


def test_of_processes_that_want_the_same_build_at_once_one_makes_it(home: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    start, log = spawn.Barrier(3), spawn.Queue()
    builders = [spawn.Process(target=_builder, args=(str(home), start, log, i)) for i in range(3)]
    for b in builders:
        b.start()
    said = [log.get(timeout=60) for _ in range(4)]
    for b in builders:
        b.join(60)
    assert [s[0] for s in said].count("made") == 1
    assert sorted(s[2] for s in said if s[0] == "done") == [False, False, True]
    assert all(s[3] for s in said if s[0] == "done")


def _dies(home: str) -> None:
    os.environ["POSEPIPE_HOME"] = home
    build(KEY, lambda: os._exit(9))  # type: ignore[arg-type, return-value]


def test_a_builder_that_is_killed_leaves_the_way_free(home: Path) -> None:
    dying = multiprocessing.get_context("spawn").Process(target=_dies, args=(str(home),))
    dying.start()
    dying.join(60)
    assert dying.exitcode == 9
    assert build(KEY, lambda: b"engine") == (b"engine", True)


def test_threads_of_one_process_wait_for_each_other_too() -> None:
    inside, go = threading.Event(), threading.Event()
    made: list[int] = []

    def slow() -> bytes:
        made.append(1)
        inside.set()
        go.wait(30)
        return b"engine"

    def second() -> None:
        assert build(KEY, never) == (b"engine", False)
        made.append(2)

    first, other = threading.Thread(target=lambda: build(KEY, slow)), threading.Thread(target=second)
    first.start()
    assert inside.wait(30)
    other.start()
    go.set()
    first.join(30)
    other.join(30)
    assert made == [1, 2]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_a_build_that_cannot_be_written_is_used_and_said(code: int, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(room, "write_whole", full)
    with watched() as seen, caplog.at_level(logging.WARNING, logger="posepipe"):
        assert build(KEY, lambda: b"engine") == (b"engine", True)
    assert [(b.how, b.why) for b in seen] == [("not kept", os.strerror(code))]
    assert os.strerror(code) in caplog.text
    assert "POSEPIPE_HOME" in caplog.text


def test_a_folder_that_cannot_be_made_is_said_and_the_build_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("POSEPIPE_HOME", str(tmp_path / "file" / "home"))
    with caplog.at_level(logging.WARNING, logger="posepipe"):
        assert build(KEY, lambda: b"engine") == (b"engine", True)
    assert "cannot keep a compiled network" in caplog.text
    assert str(tmp_path / "file" / "home") in caplog.text


def test_builds_in_a_folder_that_is_read_only_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    build(KEY, lambda: b"engine")

    def refused(path: Path) -> None:
        raise PermissionError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "utime", refused)
    assert build(KEY, never) == (b"engine", False)


def test_what_became_of_every_wish_is_told() -> None:
    with watched() as outer:
        build(KEY, lambda: b"engine")
        with watched() as inner:
            build(KEY, never)
    build(KEY, never)
    assert [b.how for b in outer] == ["built", "kept"]
    assert [b.how for b in inner] == ["kept"]
    assert isinstance(inner[0], Built)
    assert inner[0].key == KEY


def test_who_stops_listening_stops_nobody_else() -> None:
    """Lists that have seen the same are equal, and not the same."""
    with watched() as outer:
        with watched():
            pass
        build(KEY, lambda: b"engine")
    assert [b.how for b in outer] == ["built"]


def test_the_list_has_the_last_used_first_and_names_what_is_no_build(tmp_path: Path) -> None:
    network = tmp_path / "network.onnx"
    build(KEY, lambda: b"one", source=network)
    build(replace(KEY, precision="fp32"), lambda: b"two")
    (room.folder() / "junk.engine").write_bytes(b"junk")
    for age, name in ((30, KEY.name), (20, replace(KEY, precision="fp32").name), (10, "junk.engine")):
        stat = (room.folder() / name).stat()
        os.utime(room.folder() / name, (stat.st_atime - age, stat.st_mtime - age))
    junk, two, one = kept()
    assert (junk.key, junk.source) == (None, "")
    assert (one.key, one.source) == (KEY, str(network))
    assert one.size_bytes > 3
    assert 29 < one.used_s - junk.used_s + 10 < 31
    find(KEY)
    assert kept()[0].key == KEY, "opening it makes it the last used"
    assert two.key == replace(KEY, precision="fp32")


# locks ---------------------------------------------------------------------------------------------------------------------------


def test_sweeping_takes_locks_that_nobody_holds_and_old_halves() -> None:
    build(KEY, lambda: b"engine")
    lock = room.folder() / f".{KEY.name}.lock"
    assert lock.exists()
    fresh, old = room.folder() / f".{KEY.name}.abc", room.folder() / f".{KEY.name}.def"
    fresh.touch()
    old.touch()
    os.utime(old, (0, 0))
    with room.alone("held"):
        assert sweep() == 2
        assert (room.folder() / ".held.lock").exists()
    assert fresh.exists()
    assert not old.exists()
    assert not lock.exists()
    assert find(KEY) == b"engine"


def test_a_lock_that_is_swept_away_while_one_waits_is_made_anew() -> None:
    """The one who waits must not end up with a lock on a file that newcomers no longer see."""
    order: list[str] = []
    inside = threading.Event()

    def waits() -> None:
        inside.set()
        with room.alone("x"):
            order.append("second")
            assert (room.folder() / ".x.lock").exists()

    waiter = threading.Thread(target=waits)
    with room.alone("x"):
        waiter.start()
        assert inside.wait(30)
        (room.folder() / ".x.lock").unlink()
        order.append("first")
    waiter.join(30)
    assert order == ["first", "second"]


def test_a_file_system_without_locks_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(handle: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(room.fcntl, "flock", none)
    open_before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    with watched() as told:
        assert build(KEY, lambda: b"engine") == (b"engine", True)
    assert (told[0].how, told[0].why) == ("not kept", "No locks available")
    assert not open_before or len(os.listdir("/proc/self/fd")) == open_before


def test_sweeping_where_nothing_is() -> None:
    assert sweep() == 0
    assert kept() == []
