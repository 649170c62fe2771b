"""A package index over HTTP(S) with the standard library: find one exact file, download it, resume what was cut."""

from __future__ import annotations

import base64
import http.client
import json
import os
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

from ..pipeline.errors import PullError

PUBLIC_INDEX = "https://pypi.org/simple"
PUBLIC_NPM = "https://registry.npmjs.org"
_ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.5, text/html;q=0.2"
_TIMEOUT_S = 30.0
_ATTEMPTS = 4
_BLOCK = 1 << 18

Moved = Callable[[int, int], None]
"""Called with (bytes that are here, bytes wanted) while something moves."""


class Unreachable(Exception):
    """The index or the file server did not answer as it should; the text says how. Never leaves this room."""


def index_url() -> str:
    """Base address of the simple index: `PIP_INDEX_URL`, else pip's own setting, else the public one."""
    if url := os.environ.get("PIP_INDEX_URL"):
        return url.rstrip("/")
    for section in ("global", "install"):
        try:
            ask = [sys.executable, "-m", "pip", "config", "get", f"{section}.index-url"]
            asked = subprocess.run(ask, capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            break
        if asked.returncode == 0 and asked.stdout.strip():
            return asked.stdout.strip().rstrip("/")
    return PUBLIC_INDEX


def bare(url: str) -> str:
    """The address without a user name or password, for messages."""
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _trust() -> ssl.SSLContext:
    for name in ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        if path := os.environ.get(name):
            try:
                return ssl.create_default_context(cafile=path)
            except OSError as e:
                raise PullError(f"{name}={path} cannot be read as certificates: {e}", hint=f"correct or unset {name}") from e
    return ssl.create_default_context()


def _get(url: str, headers: dict[str, str]) -> http.client.HTTPResponse:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise Unreachable(f"{bare(url)} is neither http nor https")
    request = urllib.request.Request(bare(url), headers={"User-Agent": "posepipe", "Accept-Encoding": "identity", **headers})
    if parts.username:
        secret = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
        request.add_unredirected_header("Authorization", "Basic " + base64.b64encode(secret.encode()).decode())
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=_trust()))
    try:
        answer: http.client.HTTPResponse = opener.open(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError:
        raise
    except (OSError, http.client.HTTPException) as e:
        raise Unreachable(f"{bare(url)}: {getattr(e, 'reason', None) or e}") from e
    return answer


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        href = dict(attrs).get("href")
        if tag == "a" and href:
            file = urllib.parse.unquote(urllib.parse.urlsplit(href).path.rpartition("/")[2])
            self.found.setdefault(file, href)


def find_file(package: str, filename: str) -> str:
    """The address of one exact file of a package. Raises Unreachable."""
    page = f"{index_url()}/{package}/"
    try:
        with _get(page, {"Accept": _ACCEPT}) as answer:
            kind, final, body = answer.headers.get_content_type(), answer.geturl(), answer.read().decode("utf-8", "replace")
    except urllib.error.HTTPError as e:
        raise Unreachable(f"{bare(page)} answers {e.code} {e.reason}") from e
    except (OSError, http.client.HTTPException) as e:
        raise Unreachable(f"{bare(page)}: {e}") from e
    if kind.endswith("json"):
        try:
            found = {f["filename"]: f["url"] for f in json.loads(body)["files"]}
        except (ValueError, KeyError, TypeError) as e:
            raise Unreachable(f"{bare(page)} answers JSON that is not a package page") from e
    else:
        links = _Links()
        links.feed(body)
        found = links.found
    if filename not in found:
        raise Unreachable(f"{bare(page)} does not list {filename}")
    return _keep_login(page, urllib.parse.urldefrag(urllib.parse.urljoin(final, found[filename])).url)


def npm_file(package: str, filename: str) -> str:
    """The address of an archive of an npm package, at npm's own setting of its registry, else the public one."""
    registry = os.environ.get("NPM_CONFIG_REGISTRY") or PUBLIC_NPM
    return f"{registry.rstrip('/')}/{package}/-/{filename}"


def _keep_login(page: str, url: str) -> str:
    """A private index serves its files behind the same log-in, which does not go out in the clear when the page came encrypted."""
    a, b = urllib.parse.urlsplit(page), urllib.parse.urlsplit(url)
    same = a.hostname == b.hostname and a.port == b.port and not b.username and (a.scheme, b.scheme) != ("https", "http")
    return urllib.parse.urlunsplit(b._replace(netloc=a.netloc)) if same else url


def download(url: str, part: Path, size: int, *, moved: Moved, pause_s: float = 1.0) -> None:
    """Fetch `url` into `part` until it has `size` bytes (0: as many as the server says), going on from what is there; a few attempts,
    then Unreachable."""
    why = ""
    if not size:
        part.unlink(missing_ok=True)  # nothing tells whether what is there is the beginning of what is wanted
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(pause_s * 2 ** (attempt - 1))
        here = part.stat().st_size if part.exists() else 0
        if here > size > 0:
            part.unlink()
            here = 0
        if here == size > 0:
            return
        try:
            with _get(url, {"Range": f"bytes={here}-"} if here else {}) as answer:
                size = size or int(answer.headers.get("Content-Length") or 0)
                if not size:
                    raise Unreachable(f"{bare(url)} does not say how much it sends")
                goes_on = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {here}-")
                _pour(answer, part, here if goes_on else 0, size, moved)
        except urllib.error.HTTPError as e:
            why = f"{bare(url)} answers {e.code} {e.reason}"
            if e.code == 416:
                part.unlink(missing_ok=True)
            elif e.code < 500 and e.code not in (408, 429):
                break
        except Unreachable as e:
            why = str(e)
    if part.exists() and part.stat().st_size == size:
        return
    raise Unreachable(why or f"{bare(url)} keeps ending early")


def _pour(answer: http.client.HTTPResponse, part: Path, start: int, size: int, moved: Moved) -> None:
    with part.open("r+b" if start else "wb") as f:
        f.seek(start)
        here = start
        while here <= size:
            try:
                block = answer.read(_BLOCK)
            except (TimeoutError, ConnectionError, ssl.SSLError, http.client.HTTPException) as e:
                raise Unreachable(f"the connection broke after {here} of {size} bytes ({e})") from e
            if not block:
                return
            f.write(block)
            here += len(block)
            moved(here, size)
    raise Unreachable(f"the server sends more than the {size} bytes that the card names")
