"""Fetching, against a package index that answers from memory."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import tarfile
import threading
import urllib.error
import zipfile
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
from engine_kit import Answer
from rich.console import Console

from posepipe.engines import assets, files, index, pull
from posepipe.engines.assets import Asset, Member, NpmPackage, Source, Wheel
from posepipe.pipeline.errors import ChecksumError, PullError

ONE, TWO = b"first " * 300, b"second " * 500
NAME = "toy-1-py3-none-any.whl"


def _sha(b: bytes) -> str:
    return hashlib.sha256(b).hexdigest()


def _wheel() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as z:
        z.writestr("toy/one.bin", ONE)
        z.writestr("toy/two.bin", TWO)
        z.writestr("toy/ballast.bin", b"x" * 5000)
    return out.getvalue()


WHEEL = _wheel()


def _asset(name: str, content: bytes, wheel: Source) -> Asset:
    member = Member(name=f"{name}.bin", member=f"toy/{name}.bin", sha256=_sha(content), bytes=len(content))
    return Asset(f"toy.{name}", "model", "", "MIT", wheel, (member,), "", {}, {}, {})


class Server:
    """A package index in memory. `faults` are taken from the left, one per request for the wheel."""

    def __init__(self) -> None:
        self.wheel, self.faults, self.ranges, self.pages, self.json = WHEEL, [], [], 0, False
        self.faults: list[str]
        self.ranges: list[str]

    def __call__(self, url: str, headers: dict[str, str]) -> Answer:
        if url.endswith("/toy/"):
            self.pages += 1
            listed = {"files": [{"filename": NAME, "url": f"../../files/{NAME}", "hashes": {}}]}
            if self.json:
                return Answer(json.dumps(listed).encode(), kind="application/vnd.pypi.simple.v1+json", url=url)
            return Answer(f'<a href="../../files/{NAME}#sha256=00">{NAME}</a>'.encode(), url=url)
        assert url == f"https://pypi.org/files/{NAME}"
        asked = headers.get("Range", "")
        self.ranges.append(asked)
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "gone":
            raise index.Unreachable(f"{url}: Name or service not known")
        if fault.isdigit():
            raise urllib.error.HTTPError(url, int(fault), "no", Message(), None)
        if not asked or fault == "no ranges":
            return Answer(self.wheel[:2000] if fault == "cut" else self.wheel, breaks=fault == "cut")
        start = int(asked.removeprefix("bytes=").removesuffix("-"))
        return Answer(self.wheel[start:], status=206, Content_Range=f"bytes {start}-{len(self.wheel) - 1}/{len(self.wheel)}")


@pytest.fixture
def server(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    wheel = Wheel(package="toy", version="1", filename=NAME, sha256=_sha(WHEEL), bytes=len(WHEEL))
    known = {a.name: a for a in (_asset("one", ONE, wheel), _asset("two", TWO, wheel))}
    monkeypatch.setattr(assets, "catalogue", lambda: known)
    monkeypatch.setattr(pull, "catalogue", lambda: known)
    monkeypatch.setattr(index, "index_url", lambda: index.PUBLIC_INDEX)
    monkeypatch.setattr(index.time, "sleep", lambda _s: None)
    made = Server()
    monkeypatch.setattr(index, "_get", made)
    return made


def _part(cache: Path) -> Path:
    return cache / "downloads" / f"{NAME}.part"


@pytest.mark.parametrize("as_json", [False, True])
def test_one_download_serves_every_name_of_its_wheel(cache: Path, server: Server, as_json: bool) -> None:
    server.json = as_json
    assert (pull.fetch("toy.one") / "one.bin").read_bytes() == ONE
    assert (pull.fetch("toy.two") / "two.bin").read_bytes() == TWO
    assert server.ranges == [""]
    assert not _part(cache).exists()
    assert not [p for p in (cache / "assets").rglob("*") if p.name.startswith(".")]


def test_a_broken_connection_goes_on_where_it_broke(server: Server) -> None:
    server.faults = ["cut", "503"]
    seen: list[int] = []
    pull.fetch("toy.one", progress=lambda _w, here, _s: seen.append(here))
    assert server.ranges == ["", "bytes=2000-", "bytes=2000-"]
    assert seen == [2000, len(WHEEL)]


def test_what_was_fetched_is_kept_for_the_next_call(cache: Path, server: Server) -> None:
    server.faults = ["cut", *["gone"] * 3]
    with pytest.raises(PullError) as e:
        pull.fetch("toy.one")
    assert "Name or service not known" in str(e.value)
    assert "run `posepipe pull toy.one` again" in str(e.value)
    assert "POSEPIPE_MIRROR" in str(e.value)
    assert "toy==1" in str(e.value)
    assert _part(cache).read_bytes() == WHEEL[:2000]
    server.ranges.clear()
    pull.fetch("toy.one")
    assert server.ranges == ["bytes=2000-"]


def test_a_server_without_ranges_starts_over(cache: Path, server: Server) -> None:
    server.faults = ["no ranges"]
    _part(cache).parent.mkdir(parents=True)
    _part(cache).write_bytes(b"?" * 700)
    assert (pull.fetch("toy.one") / "one.bin").read_bytes() == ONE


@pytest.mark.parametrize("size", [700, len(WHEEL) + 1])
def test_a_range_that_is_refused_starts_over(cache: Path, server: Server, size: int) -> None:
    server.faults = ["416"] if size == 700 else []
    _part(cache).parent.mkdir(parents=True)
    _part(cache).write_bytes(b"?" * size)
    assert (pull.fetch("toy.one") / "one.bin").read_bytes() == ONE


def test_a_missing_file_is_not_asked_for_again(server: Server) -> None:
    server.faults = ["404"]
    with pytest.raises(PullError, match="answers 404"):
        pull.fetch("toy.one")
    assert len(server.ranges) == 1


def test_a_wrong_download_is_removed_and_both_sums_are_named(cache: Path, server: Server) -> None:
    server.wheel = WHEEL[:-1] + b"?"
    with pytest.raises(ChecksumError) as e:
        pull.fetch("toy.one")
    assert _sha(WHEEL) in str(e.value)
    assert _sha(server.wheel) in str(e.value)
    assert not _part(cache).exists()
    assert not (cache / "assets").exists()


def test_a_server_that_sends_too_much_is_not_believed(cache: Path, server: Server) -> None:
    server.wheel = WHEEL + b"more"
    with pytest.raises(PullError, match="more than"):
        pull.fetch("toy.one")


def test_a_full_disk_is_a_message(cache: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(PullError) as e:
        pull.fetch("toy.one")
    assert "no space left" in str(e.value)
    assert "POSEPIPE_HOME" in str(e.value)
    assert list((cache / "assets" / "toy.one").iterdir()) == []
    monkeypatch.undo()
    assert _part(cache).stat().st_size == len(WHEEL)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_cache_that_cannot_be_written_is_a_message(cache: Path, server: Server) -> None:
    cache.mkdir(mode=0o500)
    with pytest.raises(PullError, match="POSEPIPE_HOME"):
        pull.fetch("toy.one")


def test_two_at_once_download_once(server: Server) -> None:
    together, folders = threading.Barrier(2), []

    def get() -> None:
        together.wait()
        folders.append(pull.fetch("toy.one"))

    threads = [threading.Thread(target=get) for _ in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(folders) == 2
    assert server.ranges == [""]


def test_a_mirror_may_hold_the_file_under_any_name(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mirror" / "deep").mkdir(parents=True)
    (tmp_path / "mirror" / "same-size").write_bytes(b"?" * len(ONE))
    (tmp_path / "mirror" / "deep" / "whatever").write_bytes(ONE)
    monkeypatch.setenv("POSEPIPE_MIRROR", str(tmp_path / "mirror"))
    assert (pull.fetch("toy.one") / "one.bin").read_bytes() == ONE
    assert server.pages == 0


def test_a_mirror_may_hold_the_wheel(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "x").write_bytes(WHEEL)
    monkeypatch.setenv("POSEPIPE_MIRROR", str(tmp_path / "mirror"))
    assert (pull.fetch("toy.two") / "two.bin").read_bytes() == TWO
    assert server.pages == 0
    assert (tmp_path / "mirror" / "x").exists()


def test_a_mirror_without_it_leads_to_the_index(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "x").write_bytes(b"?" * len(WHEEL))
    monkeypatch.setenv("POSEPIPE_MIRROR", str(tmp_path / "mirror"))
    pull.fetch("toy.one")
    assert server.pages == 1


def test_a_mirror_that_is_not_a_folder_is_refused(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSEPIPE_MIRROR", "/nowhere/at/all")
    with pytest.raises(PullError, match="POSEPIPE_MIRROR=/nowhere/at/all is not a folder"):
        pull.fetch("toy.one")


def test_a_card_that_disagrees_with_its_wheel_keeps_nothing(cache: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = assets.catalogue()["toy.one"].source
    monkeypatch.setattr(assets, "catalogue", lambda: {"toy.one": _asset("one", TWO, wheel)})
    monkeypatch.setattr(pull, "catalogue", assets.catalogue)
    with pytest.raises(ChecksumError, match=r"toy/one\.bin"):
        pull.fetch("toy.one")
    monkeypatch.setattr(assets, "catalogue", lambda: {"toy.one": _asset("zero", TWO, wheel)})
    monkeypatch.setattr(pull, "catalogue", assets.catalogue)
    with pytest.raises(PullError, match=r"toy/zero\.bin"):
        pull.fetch("toy.one")
    assert not _part(cache).exists()


def _npm(monkeypatch: pytest.MonkeyPatch, members: dict[str, bytes], *, bare: bytes = b"") -> tuple[bytes, list[str]]:
    """An npm package with these files, and the addresses that it was asked for."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as t:
        for name, content in members.items():
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(content)
            t.addfile(entry, io.BytesIO(content))
    packed = bare or out.getvalue()
    wheel = NpmPackage("@toy/one", "1.2", "one-1.2.tgz", _sha(packed), len(packed))
    known = {
        "toy.one": Asset("toy.one", "model", "", "MIT", wheel, (Member("one.bin", "package/one.bin", _sha(ONE), len(ONE)),), "", {}, {}, {})
    }
    monkeypatch.setattr(assets, "catalogue", lambda: known)
    monkeypatch.setattr(pull, "catalogue", lambda: known)
    asked: list[str] = []

    def get(url: str, headers: dict[str, str]) -> Answer:
        asked.append(url)
        return Answer(packed)

    monkeypatch.setattr(index, "_get", get)
    monkeypatch.setattr(index.time, "sleep", lambda _s: None)
    monkeypatch.delenv("NPM_CONFIG_REGISTRY", raising=False)
    return packed, asked


def test_a_file_of_an_npm_package_is_fetched(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, asked = _npm(monkeypatch, {"ballast.js": b"x" * 999, "one.bin": ONE})
    assert (pull.fetch("toy.one") / "one.bin").read_bytes() == ONE
    assert asked == ["https://registry.npmjs.org/@toy/one/-/one-1.2.tgz"]
    assert not list((cache / "downloads").glob("*.part"))


def test_npm_has_its_own_registry_and_mirror(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed, asked = _npm(monkeypatch, {"one.bin": ONE})
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "https://npm.example/all/")
    pull.fetch("toy.one")
    assert asked == ["https://npm.example/all/@toy/one/-/one-1.2.tgz"]
    monkeypatch.setenv("POSEPIPE_HOME", str(tmp_path / "other"))
    monkeypatch.setenv("POSEPIPE_MIRROR", str(tmp_path / "mirror"))
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "x").write_bytes(packed)
    assert (pull.fetch("toy.one") / "one.bin").read_bytes() == ONE
    assert len(asked) == 1


@pytest.mark.parametrize("content", [{"two.bin": TWO}, {}])
def test_an_npm_package_without_the_file_is_reported(cache: Path, monkeypatch: pytest.MonkeyPatch, content: dict[str, bytes]) -> None:
    _npm(monkeypatch, content)
    with pytest.raises(PullError, match=r"one-1\.2\.tgz.* does not hold what the card of 'toy\.one' names.*one\.bin"):
        pull.fetch("toy.one")


def test_an_npm_archive_that_is_none_is_reported(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _npm(monkeypatch, {}, bare=b"not packed at all")
    with pytest.raises(PullError, match="does not hold what the card"):
        pull.fetch("toy.one")


def test_without_network_it_says_how_npm_fetches_elsewhere(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _npm(monkeypatch, {"one.bin": ONE})

    def gone(url: str, headers: dict[str, str]) -> Answer:
        raise index.Unreachable(f"{url}: Name or service not known")

    monkeypatch.setattr(index, "_get", gone)
    with pytest.raises(PullError, match=r"npm pack @toy/one@1\.2 --pack-destination DIR"):
        pull.fetch("toy.one")


def test_an_unknown_name_is_refused(server: Server) -> None:
    with pytest.raises(PullError, match=r"toy\.onne"):
        pull.fetch("toy.onne")


def test_without_a_terminal_progress_is_plain_lines(server: Server) -> None:
    out = io.StringIO()
    with pull.on_terminal(Console(file=out, width=40)) as report:
        for here in range(0, 101, 5):
            report("toy.whl", here * 10**6, 100 * 10**6)
    lines = out.getvalue().splitlines()
    assert lines[1] == "toy.whl: 10 % of 100 MB"
    assert len(lines) == 11


def test_on_a_terminal_progress_is_a_bar(server: Server) -> None:
    out = io.StringIO()
    with pull.on_terminal(Console(file=out, force_terminal=True, width=100)) as report:
        report("toy.whl", 100, 100)
    assert "toy.whl" in out.getvalue()
    assert "100/100" in out.getvalue()
