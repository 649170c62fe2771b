"""Compiled engines, kept on this machine: built once, by one process, whole or not at all, and built again when they are damaged.

A kept build is a file of `folder()`: one line of JSON (its key, the network's file, its size, the SHA-256 of what follows), then the
bytes of the runtime. A folder that cannot be written is no reason not to run: what was built is used, and a warning says what to do.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from .assets import home
from .files import write_whole

SUFFIX = ".engine"
_LOG = logging.getLogger("posepipe")


@dataclass(frozen=True, slots=True)
class BuildKey:
    """What a build depends on. shapes: of the inputs it was made for, with the batch sizes, or settings that went into it; "" where
    any will do."""

    model_sha256: str
    runtime: str
    version: str
    device: str
    precision: str
    shapes: str = ""

    @property
    def name(self) -> str:
        """The file's name: readable in front, unambiguous behind."""
        text = json.dumps(asdict(self), sort_keys=True)
        return f"{self.model_sha256[:12]}-{self.runtime}-{self.precision}-{hashlib.sha256(text.encode()).hexdigest()[:16]}{SUFFIX}"


@dataclass(frozen=True, slots=True)
class Kept:
    """One build on this machine. key: None when the file is no build. source: the network's file, "" when not said.
    used_s: seconds since it was last opened."""

    path: Path
    key: BuildKey | None
    source: str
    size_bytes: int
    used_s: float


@dataclass(frozen=True, slots=True)
class Built:
    """What became of one wish for a build: it was there, was built and kept, or was built and could not be kept (why)."""

    key: BuildKey
    how: Literal["kept", "built", "not kept"]
    seconds: float
    why: str = ""


_watchers: list[list[Built]] = []


def folder() -> Path:
    """Where builds are kept."""
    return home() / "engines"


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def find(key: BuildKey) -> bytes | None:
    """The build of that key, or None when it was never made or is damaged."""
    path = folder() / key.name
    try:
        content = path.read_bytes()
    except OSError:
        return None
    with contextlib.suppress(OSError):  # a folder that cannot be written holds builds all the same
        os.utime(path)
    return _unwrap(content, key)


def build(key: BuildKey, make: Callable[[], bytes], *, source: Path | None = None, again: bool = False) -> tuple[bytes, bool]:
    """The build of that key, made by `make` when it is not there; and whether it was made now.

    Two processes that want the same build at once: one makes it, the other waits and takes it. source: the network's file, for
    `posepipe engines`. again: what is kept does not serve, make it anew. A build that cannot be kept is used, with a warning.
    """
    start = time.perf_counter()
    if not again and (found := find(key)) is not None:
        _tell(Built(key, "kept", time.perf_counter() - start))
        return found, False
    try:
        with alone(key.name):
            if not again and (found := find(key)) is not None:
                _tell(Built(key, "kept", time.perf_counter() - start))
                return found, False
            if not again and (folder() / key.name).exists():
                _LOG.warning("%s: a compiled network is damaged, so it is compiled anew", folder() / key.name)
            made = make()
            facts = {"source": str(source.absolute()) if source else "", "size": len(made), "sha256": hashlib.sha256(made).hexdigest()}
            try:
                write_whole(folder() / key.name, json.dumps({**asdict(key), **facts}).encode() + b"\n" + made)
            except OSError as e:
                return _unkept(key, made, start, e), True
    except NoLock as e:
        return _unkept(key, make(), start, e), True
    _tell(Built(key, "built", time.perf_counter() - start))
    return made, True


@contextlib.contextmanager
def watched() -> Iterator[list[Built]]:
    """A list that grows by what becomes of every wish for a build, of all threads, while the block runs."""
    seen: list[Built] = []
    _watchers.append(seen)
    try:
        yield seen
    finally:
        _watchers[:] = [w for w in _watchers if w is not seen]  # two that have seen the same are equal


def kept() -> list[Kept]:
    """Every build on this machine, the one used last first."""
    found = []
    now = time.time()
    for path in folder().glob(f"*{SUFFIX}"):
        with contextlib.suppress(OSError):
            stat = path.stat()
            key, source = _head_of(path)
            found.append(Kept(path, key, source, stat.st_size, max(0.0, now - stat.st_mtime)))
    return sorted(found, key=lambda k: k.used_s)


def whole(one: Kept) -> bool:
    """Whether every byte of a build is as it was made; it is read for that. True for one that is gone meanwhile."""
    try:
        return one.key is not None and _unwrap(one.path.read_bytes(), one.key) is not None
    except OSError:
        return True


class NoLock(OSError):
    """The folder of builds cannot be written, or its file system has no locks."""


@contextlib.contextmanager
def alone(name: str) -> Iterator[None]:
    """One holder of a name at a time, of all processes. It goes with its holder, also when that is killed. Raises NoLock."""
    path = folder() / f".{name}.lock"
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as e:
            raise NoLock(e.errno, e.strerror, str(path)) from e
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as e:  # file systems of a network that have no locks
            os.close(handle)
            raise NoLock(e.errno, e.strerror, str(path)) from e
        if _is(path, handle):
            break
        os.close(handle)  # it was swept away while we waited: whoever comes next makes another
    try:
        yield
    finally:
        os.close(handle)


def sweep(*, older_s: float = 3600.0) -> int:
    """Remove locks that nobody holds, and half-written files of processes that were killed (not touched for so long); how many."""
    gone, now = 0, time.time()
    for path in folder().glob(".*"):
        with contextlib.suppress(OSError):
            if path.name.endswith(".lock"):
                gone += _sweep_lock(path)
            elif now - path.stat().st_mtime > older_s:
                path.unlink()
                gone += 1
    return gone


def _sweep_lock(path: Path) -> bool:
    handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if whole := _is(path, handle):
            path.unlink()  # while it is held: who waits for it sees that it is gone, and takes a new one
        return whole
    except BlockingIOError:
        return False
    finally:
        os.close(handle)


def _is(path: Path, handle: int) -> bool:
    """Whether the opened file is still the one of that path."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False


def _head_of(path: Path) -> tuple[BuildKey | None, str]:
    with path.open("rb") as f:
        try:
            head = json.loads(f.readline(65536))
            return BuildKey(**{name: str(head[name]) for name in BuildKey.__dataclass_fields__}), str(head.get("source", ""))
        except (ValueError, KeyError, TypeError, AttributeError):
            return None, ""


def _unwrap(content: bytes, key: BuildKey) -> bytes | None:
    line, _, made = content.partition(b"\n")
    try:
        head: dict[str, Any] = json.loads(line)
        mine = {name: head[name] for name in BuildKey.__dataclass_fields__} == asdict(key)
        whole = mine and head["size"] == len(made) and head["sha256"] == hashlib.sha256(made).hexdigest()
    except (ValueError, KeyError, TypeError):
        return None
    return made if whole else None


def _unkept(key: BuildKey, made: bytes, start: float, e: OSError) -> bytes:
    why = e.strerror or str(e)
    hint = "free some space or make the folder writable, or set POSEPIPE_HOME to another"
    _LOG.warning("%s: cannot keep a compiled network, so it is compiled at every start: %s (%s)", folder(), why, hint)
    _tell(Built(key, "not kept", time.perf_counter() - start, why))
    return made


def _tell(built: Built) -> None:
    for seen in _watchers:
        seen.append(built)
