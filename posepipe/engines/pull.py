"""Fetch what the cards name: from a mirror folder, else from the package index; every file is checked before it counts."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import fnmatch
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
from .assets import Asset, Download, Member, MirrorOnly, NpmPackage, Packaged, Source, Wheel, asset, catalogue, home
from .files import write_whole

Report = Callable[[str, int, int], None]
"""Called with (what is moving, bytes that are here, bytes wanted)."""


def fetch(name: str, *, progress: Report | None = None) -> Path:
    """Make every file of an asset be here, and return its folder. Nothing is fetched twice, and two processes may ask at once.

    Looked for, in this order: the cache, `$POSEPIPE_MIRROR` (a folder with the files or the archive, under any name), the source that
    the card names. An archive is removed afterwards; everything else that posepipe wants from it is unpacked on the way.
    Raises PullError (unknown name, no network, no space, no permission) and ChecksumError.
    """
    wanted = asset(name)
    report: Report = progress if progress is not None else _silent
    if wanted.present():
        return wanted.folder
    if isinstance(wanted.source, Packaged):
        return wanted.path()  # says what is missing: it is nowhere to be fetched
    try:
        with _alone(wanted, report):
            if wanted.present() or _from_mirror(wanted, report):
                return wanted.folder
            wheel = _download(wanted, report)
            try:
                for other in catalogue().values():
                    if other.source == wanted.source:
                        _unpack(wheel, other)
            except PullError:
                wheel.unlink()
                raise
            wheel.unlink()
    except OSError as e:
        raise _disk(e, wanted) from e
    return wanted.folder


def intact(wanted: Asset) -> bool:
    """Whether every file of an asset has the sum that its card names; a file that has not is removed, to be fetched again. What came with
    posepipe is never removed: ChecksumError."""
    wrong = [path for f in wanted.files if (path := wanted.folder / f.name).is_file() and not _accepted(f, _sha256(path))]
    if wrong and isinstance(wanted.source, Packaged):
        raise ChecksumError("posepipe's own file is not what its card names", where=str(wrong[0]), hint="reinstall posepipe")
    for path in wrong:
        path.unlink()
    return not wrong and wanted.present()


def _silent(_what: str, _here: int, _size: int) -> None:
    return


def _disk(e: OSError, wanted: Asset) -> PullError:
    if e.errno in (errno.ENOSPC, errno.EDQUOT):
        need = (wanted.download_bytes + wanted.size_bytes) / 1e6
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
def _alone(wanted: Asset, report: Report) -> Iterator[None]:
    """One process at a time works on an archive; the others wait, and then find the files."""
    with (_downloads() / f"{wanted.source.filename or wanted.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("another posepipe is fetching this, waiting", 0, wanted.download_bytes)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _sha256(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _download(wanted: Asset, report: Report) -> Path:
    source = wanted.source
    if isinstance(source, MirrorOnly):
        hint = f"put {wanted.files[0].name} into a folder and set POSEPIPE_MIRROR to that; it is found by its sha256 {wanted.files[0].sha256} ({source.publisher})"
        raise PullError(f"{wanted.name!r} is nowhere to be downloaded in this form", hint=hint)
    assert not isinstance(source, Packaged), "there is nothing to download"
    part = _downloads() / f"{source.filename}.part"
    try:
        if not (source.bytes and part.exists() and part.stat().st_size == source.bytes):
            index.download(_address(source), part, source.bytes, moved=lambda here, size: report(source.filename, here, size))
    except index.Unreachable as e:
        kept = part.stat().st_size if part.exists() else 0
        goes_on = f" (it goes on after the {kept / 1e6:.1f} MB that are here)" if source.bytes else ""
        again = f"run `posepipe pull {wanted.name}` again{goes_on}"
        elsewhere = f"on a machine with network `{_by_hand(source)}`, bring DIR here and set POSEPIPE_MIRROR=DIR"
        raise PullError(f"cannot fetch {wanted.name!r}: {e}", hint=f"{again}, or {elsewhere}") from e
    got = _sha256(part)
    if not source.sha256:
        report(f"{source.filename}: its card names no sum to check; what came has SHA-256 {got}", 0, 0)
    elif got != source.sha256:
        part.unlink()
        hint = f"it was removed; run `posepipe pull {wanted.name}` again, and if it repeats, distrust the index in use"
        raise _wrong(source.filename, got, source.sha256, hint)
    return part


def _address(source: Wheel | NpmPackage | Download) -> str:
    if isinstance(source, Download):
        return source.url
    return (index.npm_file if isinstance(source, NpmPackage) else index.find_file)(source.package, source.filename)


def _by_hand(source: Wheel | NpmPackage | Download) -> str:
    """The command that fetches the same into a folder."""
    if isinstance(source, Download):
        return f"curl -L --create-dirs -o DIR/{source.filename} {source.url}"
    if isinstance(source, NpmPackage):
        return f"npm pack {source.package}@{source.version} --pack-destination DIR"
    pip = "pip download --no-deps --only-binary=:all: --python-version 3.11 --platform manylinux2014_x86_64"
    return f"{pip} {source.package}=={source.version} -d DIR"


def _wrong(file: str, got: str, want: str, hint: str) -> ChecksumError:
    return ChecksumError(f"{file} has SHA-256 {got}, its card names {want}", hint=hint)


def _unpack(archive: Path, into: Asset) -> None:
    try:
        with _opened(archive, into.source) as read:
            for file in into.missing():
                _place(read(file.member), file, into.folder)
    except (zipfile.BadZipFile, tarfile.TarError, KeyError) as e:
        raise PullError(
            f"{archive.name.removesuffix('.part')} does not hold what the card of {into.name!r} names: {e}",
            hint="the card is wrong: report it",
        ) from e


@contextlib.contextmanager
def _opened(path: Path, source: Source) -> Iterator[Callable[[str], bytes]]:
    """The members of an archive by their names, of a downloaded zip also by a pattern. KeyError for one that is not there."""
    if isinstance(source, NpmPackage):
        with tarfile.open(path, "r:gz") as packed:

            def unpacked(name: str) -> bytes:
                found = packed.extractfile(name)
                if found is None:
                    raise KeyError(f"{name!r} is not a file")
                return found.read()

            yield unpacked
        return
    if isinstance(source, Download) and not source.filename.endswith(".zip"):
        yield lambda _name: path.read_bytes()
        return
    with zipfile.ZipFile(path) as archive:

        def unzipped(name: str) -> bytes:
            found = fnmatch.filter(archive.namelist(), name) if isinstance(source, Download) else [name]
            if len(found) != 1:
                raise KeyError(f"{len(found)} files match {name!r}")
            return archive.read(found[0])

        yield unzipped


def _place(content: bytes, file: Member, folder: Path) -> None:
    got = hashlib.sha256(content).hexdigest()
    if not _accepted(file, got):
        raise _wrong(file.member or file.name, got, file.sha256, "nothing was kept; the card and the package disagree: report it")
    write_whole(folder / file.name, content)


def _accepted(file: Member, sha256: str) -> bool:
    return sha256 in (file.sha256, *file.also) or not file.sha256


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
        if file.sha256 and (found := _match(by_size, file.bytes, file.sha256, *file.also)):
            _place(found.read_bytes(), file, wanted.folder)
    if wanted.missing() and (found := _in_mirror(by_size, wanted.source)):
        _unpack(found, wanted)
    return wanted.present()


def _in_mirror(by_size: dict[int, list[Path]], source: Source) -> Path | None:
    if source.sha256:
        return _match(by_size, source.bytes, source.sha256)
    named = (p for paths in by_size.values() for p in paths if isinstance(source, Download) and p.name == source.filename)
    return next(named, None)


def _match(by_size: dict[int, list[Path]], size: int, *sums: str) -> Path | None:
    """The file with one of these sums; it may be of any size where several are accepted or the card names none."""
    candidates = by_size.get(size, []) if size and len(sums) == 1 else [p for paths in by_size.values() for p in paths]
    return next((p for p in candidates if _sha256(p) in sums), None)


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
