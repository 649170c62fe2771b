from __future__ import annotations

import base64
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from engine_kit import Answer

from posepipe.engines import index
from posepipe.pipeline.errors import PullError


def _pip(monkeypatch: pytest.MonkeyPatch, answers: dict[str, str]) -> None:
    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        found = answers.get(command[-1], "")
        return subprocess.CompletedProcess(command, 0 if found else 1, found, "")

    monkeypatch.setattr(index.subprocess, "run", run)


def test_the_index_is_that_of_pip(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _pip(monkeypatch, {})
    assert index.index_url() == "https://pypi.org/simple"
    _pip(monkeypatch, {"global.index-url": "https://a.example/simple/\n"})
    assert index.index_url() == "https://a.example/simple"
    monkeypatch.setenv("PIP_INDEX_URL", "https://b.example/simple/")
    assert index.index_url() == "https://b.example/simple"


def test_a_machine_without_pip_uses_the_public_index(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: Any, **__: Any) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(index.subprocess, "run", none)
    assert index.index_url() == index.PUBLIC_INDEX


class _Opener:
    def __init__(self) -> None:
        self.asked: list[urllib.request.Request] = []

    def open(self, request: urllib.request.Request, timeout: float) -> None:
        self.asked.append(request)
        raise OSError("no route to host")


def test_a_password_is_sent_and_never_shown(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opener = _Opener()
    monkeypatch.setattr(index.urllib.request, "build_opener", lambda *_: opener)
    monkeypatch.setenv("PIP_INDEX_URL", "https://me:s%40cret@private.example:8443/simple")
    with pytest.raises(index.Unreachable) as e:
        index.find_file("toy", "toy.whl")
    assert "cret" not in str(e.value)
    assert "https://private.example:8443/simple/toy/: no route to host" in str(e.value)
    (request,) = opener.asked
    assert "cret" not in request.full_url
    assert request.unredirected_hdrs["Authorization"] == "Basic " + base64.b64encode(b"me:s@cret").decode()


def test_the_login_goes_along_to_files_of_the_same_host_only() -> None:
    page = "https://me:pw@a.example/simple/toy/"
    assert index._keep_login(page, "https://a.example/f.whl") == "https://me:pw@a.example/f.whl"
    assert index._keep_login(page, "https://b.example/f.whl") == "https://b.example/f.whl"
    assert index._keep_login(page, "https://a.example:1/f.whl") == "https://a.example:1/f.whl"
    assert index._keep_login(page, "http://a.example/f.whl") == "http://a.example/f.whl", "not in the clear"
    assert index._keep_login(page.replace("https", "http"), "https://a.example/f.whl") == "https://me:pw@a.example/f.whl"


def test_certificates_that_cannot_be_read_are_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CERT", "/nowhere.pem")
    monkeypatch.setenv("PIP_INDEX_URL", "https://a.example/simple")
    with pytest.raises(PullError, match=r"PIP_CERT=/nowhere\.pem cannot be read"):
        index.find_file("toy", "toy.whl")


def test_other_schemes_are_refused(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "file:///etc")
    with pytest.raises(index.Unreachable, match="neither http nor https"):
        index.find_file("passwd", "x")


@pytest.mark.parametrize(
    ("kind", "body", "says"),
    [
        ("text/html", b"<html></html>", "does not list"),
        ("application/vnd.pypi.simple.v1+json", b"{}", "not a package page"),
        ("application/json", b"<html>", "not a package page"),
    ],
)
def test_pages_that_do_not_help_are_said_to(cache: Path, monkeypatch: pytest.MonkeyPatch, kind: str, body: bytes, says: str) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://a.example/simple")
    monkeypatch.setattr(index, "_get", lambda url, _h: Answer(body, kind=kind, url=url))
    with pytest.raises(index.Unreachable, match=says):
        index.find_file("toy", "toy.whl")
