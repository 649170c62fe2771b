"""`posepipe build` compiles a studio's networks ahead of time; `posepipe engines list|gc` shows and clears what was compiled."""

from __future__ import annotations

import contextlib
import functools
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import get_args

import msgspec
from rich.console import Console
from rich.table import Table

from posepipe.calib.rig import Rig
from posepipe.engines import cache
from posepipe.engines.assets import Asset, catalogue, find, home
from posepipe.engines.decoders import family
from posepipe.engines.engine import Contract, Engine, EngineOptions, RuntimeName, for_small, must_agree, open_engine
from posepipe.engines.network import Network
from posepipe.engines.protobuf import must_be_onnx
from posepipe.engines.runtimes import runtimes
from posepipe.engines.timings import random_inputs
from posepipe.pipeline.errors import EngineError, PullError
from posepipe.pipeline.graph import Plan

from . import studio

_TRANSCRIBED = re.compile(r"[0-9a-f]{16}-[a-z]+-v(\d+)\.onnx")
_CONVERTED = re.compile(r"([0-9a-f]{16})-(?:fp16|int8)-v(\d+)-ort(.+)\.onnx")
_SIZED = re.compile(r"[0-9a-f]{16}-paf-\d+x\d+-v(\d+)\.onnx")
_TARGET = re.compile(r"sm\d{2,3}")


def build(path: Path, *, overrides: tuple[str, ...] = (), targets: str | None = None) -> int:
    """Compile what the studio's nodes will open, and keep it; 1 when something could not be kept. targets: GPU architectures.

    Raises PullError when a network is not on this machine, EngineError when one cannot be compiled.
    """
    plan = studio.load(path, overrides=overrides)
    if absent := studio.missing(plan):
        raise PullError(f"not on this machine yet: {', '.join(absent)}", where=str(path), hint=f"posepipe pull {' '.join(absent)}")
    options = msgspec.convert(plan.engines, EngineOptions)
    if options.runtime == "stub":
        print(f"{path}: engines: runtime is stub: nothing to compile")
        return 0
    whole = studio.complete(plan)
    wanted = networks(plan, whole.rig)
    for name in dict.fromkeys(name for node in plan.nodes for name in node.cls.needs(node.settings) if name not in wanted):
        print(f"{name}: its node does not tell its file, so it is compiled when the studio first starts")
    if not wanted:
        print(f"{path}: nothing to compile ahead")
        return 0
    if targets is not None:
        return _ahead(wanted, options, architectures(targets))
    failed = [name for name, file in wanted.items() if not _here(name, file, options, batch=len(plan.cameras))]
    return 1 if failed else 0


def networks(plan: Plan, rig: Rig | None) -> dict[str, Path]:
    """The network files that the studio's nodes will open, by name, in the order of the file."""
    found: dict[str, Path] = {}
    for node in plan.nodes:
        found |= node.cls.networks(node.settings, rig)
    return found


def architectures(text: str) -> list[str]:
    """`sm89,sm120` -> a list. EngineError for what is no GPU architecture."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names or [text]:
        if not _TARGET.fullmatch(name):
            hint = "for example --for sm89,sm120 (RTX 40 is sm89, RTX 50 sm120)"
            raise EngineError(f"{name!r} is no GPU architecture", where="posepipe build --for", hint=hint)
    return list(dict.fromkeys(names))


def _here(name: str, path: Path, options: EngineOptions, *, batch: int) -> bool:
    """Open the network as its node would, run it for every batch size so that all its variants are compiled, and say what happened."""
    start = time.perf_counter()
    with cache.watched() as seen, _opened(name, path, options, batch=batch) as engine:
        pass
    mine = [b for b in seen if b.key.runtime == engine.runtime]
    how = next((h for h in ("not kept", "built", "kept") if any(b.how == h for b in mine)), "nothing to compile")
    print(f"{name}: {engine.runtime} {engine.precision} ({engine.device}), {time.perf_counter() - start:.2f} s, {how} ({engine.reason})")
    return how != "not kept"


@contextlib.contextmanager
def _opened(name: str, path: Path, options: EngineOptions, *, batch: int) -> Iterator[Engine]:
    """Its engine, run for every size of batch up to `batch`. A network of pictures is held against its card and its decoder as at a start."""
    card = _card(name)
    if card is not None and card.decoder and family(card).gives in ("joints", "people"):
        network = Network(card, options, batch=batch)
        try:
            yield network.engine
        finally:
            network.close()
        return
    with open_engine(path, for_small(options) if _is_small(name) else options, contract=_contract(name)) as engine:
        for n in range(1, batch + 1):
            if (inputs := random_inputs(engine.inputs, n)) is not None:
                engine(inputs)
        yield engine


def _card(name: str) -> Asset | None:
    """The card of a network that has one of its own; an imported one is held against its checkpoint."""
    return find(name) if name in catalogue() or name.endswith(".toml") else None


def _is_small(name: str) -> bool:
    """Whether a node opens it with `open_small`: a network of pictures or volumes has a decoder, one of numbers has none."""
    return (card := _card(name)) is not None and not card.decoder


def _contract(name: str) -> Contract | None:
    """What its card says that it takes and gives; None where its node knows better (parts of any size of picture, volumes), or none does."""
    card = _card(name)
    if card is None or not card.inputs or (card.decoder and family(card).gives not in ("joints", "people")):
        return None
    return Contract.of(card.inputs, card.outputs)


def _ahead(wanted: Mapping[str, Path], options: EngineOptions, targets: list[str]) -> int:
    """Build for GPUs that need not be here. Not run on a device for this release; that the builds are made is."""
    from posepipe.engines.tensorrt_build import MODULES, build_plan, describe, module_for

    if options.runtime not in ("auto", *MODULES):
        hint = "write `runtime: tensorrt_rtx`, or leave --for out"
        raise EngineError(f"--for is for TensorRT, engines: names {options.runtime}", where="posepipe build", hint=hint)
    # Only TensorRT for RTX builds where no GPU is.
    names = (options.runtime,) if options.runtime != "auto" else tuple(reversed(MODULES))
    here = {r.name for r in runtimes() if r.version}
    runtime, _ = module_for(msgspec.structs.replace(options, runtime=next((n for n in names if n in here), names[0])))
    options = msgspec.structs.replace(options, runtime=runtime)
    failed = 0
    for name, path in wanted.items():
        if _is_small(name):
            print(f"{name}: runs on the processor by rule, so there is nothing to build for a GPU")
            continue
        must_be_onnx(path)
        if (contract := _contract(name)) is not None:
            must_agree(describe(path, options=options), contract, str(path))
        for target in targets:
            start = time.perf_counter()
            with cache.watched() as seen:
                plan = build_plan(path, options=options, capability=target, progress=lambda line: print(f"  {line}", flush=True))
            last = seen[-1]
            failed += last.how == "not kept"
            took = f"{time.perf_counter() - start:.2f} s, {last.how}"
            print(f"{name}: {runtime} {last.key.precision} ({target}), {took} ({len(plan) / 1e6:.1f} MB)", flush=True)
    return 1 if failed else 0


def show() -> int:
    """Print what is kept."""
    found = cache.kept()
    if not found:
        print(f"nothing is kept in {cache.folder()}; the first start of a network, or `posepipe build STUDIO`, keeps what it compiles")
        return 0
    table = Table("network", "runtime", "precision", "device", "files", "size", "last used", box=None, pad_edge=False, header_style="bold")
    rows: dict[tuple[str, str, str, str, str], list[cache.Kept]] = {}
    for one in found:  # some runtimes keep a file for each size of batch
        k = one.key
        runtime = "" if k is None else f"{k.runtime} {_short(k.version)}"
        row = ("damaged", "", "", "", "") if k is None else (network_name(one), runtime, k.precision, k.device, k.model_sha256)
        rows.setdefault(row, []).append(one)
    for (*facts, _), files in rows.items():
        size = f"{sum(one.size_bytes for one in files) / 1e6:.1f} MB"
        table.add_row(*facts, str(len(files)), size, _ago(min(one.used_s for one in files)))
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, 140)  # a file has room
    console.print(table)
    print(
        f"\n{sum(one.size_bytes for one in found) / 1e6:.1f} MB in {cache.folder()}; posepipe engines gc removes what is not used any more"
    )
    return 0


def gc(*, days: float | None = None, everything: bool = False) -> int:
    """Remove what nothing here uses any more (or all), and say what and why; 1 when something could not be removed.

    days: also what was not opened for so long.
    """
    installed: dict[str, str] = {r.name: r.version for r in runtimes() if r.version}
    why = {one.path: "all" if everything else useless(one, installed, days=days) for one in cache.kept()}
    why |= old_networks(installed)
    freed = failed = removed = 0
    for path, reason in why.items():
        if not reason:
            continue
        try:
            size = path.stat().st_size
            path.unlink()
        except FileNotFoundError:
            continue  # another gc was faster
        except OSError as e:
            print(f"{path}: cannot be removed: {e.strerror}")
            failed += 1
            continue
        print(f"{path.name}: removed, {size / 1e6:.1f} MB: {reason}")
        freed, removed = freed + size, removed + 1
    if everything:
        for path in (cache.folder() / "timings.json", *cache.folder().glob("*.timings")):
            path.unlink(missing_ok=True)
    left = cache.sweep()
    print(f"{freed / 1e6:.1f} MB freed, {removed} removed{f', and {left} locks and unfinished files' if left else ''}")
    return 1 if failed else 0


def useless(one: cache.Kept, installed: Mapping[str, str], *, days: float | None = None) -> str:
    """Why no start here will open this build again; empty when one may. installed: version of every runtime that is here."""
    if one.key is None or not cache.whole(one):
        return "damaged"
    if one.source:
        if not Path(one.source).is_file():
            return f"its network is gone: {one.source}"
        if cache.sha256_of(Path(one.source)) != one.key.model_sha256:
            return f"its network is another by now: {one.source}"
    version = installed.get(one.key.runtime, "")
    if not version and one.key.runtime in get_args(RuntimeName):
        return f"{one.key.runtime} is not installed"
    if version[:1].isdigit() and not one.key.version.startswith(version):
        return f"of {one.key.runtime} {_short(one.key.version)}, here is {version}"
    if days is not None and one.used_s > days * 86400:
        return f"not used for {one.used_s / 86400:.0f} days"
    return ""


def old_networks(installed: Mapping[str, str]) -> dict[Path, str]:
    """Network files that an older posepipe, or another ONNX Runtime, made from others, and that are not opened any more: and why."""
    from posepipe.engines import convert, tflite_onnx
    from posepipe.engines.models.openpose import networks as paf

    found = {}
    for path in sorted((home() / "onnx").glob("*.onnx")):
        if match := _TRANSCRIBED.fullmatch(path.name):
            old = int(match[1]) < tflite_onnx.VERSION
        elif match := _SIZED.fullmatch(path.name):
            old = int(match[1]) < paf.VERSION
        elif match := _CONVERTED.fullmatch(path.name):
            old = int(match[2]) < convert.VERSION
            if not old and match[3] != installed.get("onnxruntime", match[3]):
                found[path] = f"converted by onnxruntime {match[3]}, here is {installed['onnxruntime']}"
        else:
            continue
        if old:
            found[path] = "made by an older posepipe"
    return found


def network_name(one: cache.Kept) -> str:
    """The card's name of the network behind a build, else its file's name."""
    source = _origin(Path(one.source))
    imported = sorted((home() / "imported").glob("*/*.onnx"))
    if source in imported:
        return source.parent.name
    for network in imported if source.parent == home() / "onnx" else ():
        with contextlib.suppress(OSError):
            if source.name.startswith(_sum(network)[:16]):
                return network.parent.name
    for name, card in catalogue().items():  # several networks that come with posepipe share a folder
        if any(source == card.folder / f.name for f in card.files):
            return name
    for name, card in catalogue().items():
        if source.parent == card.folder or any(f.sha256 and source.name.startswith(f.sha256[:16]) for f in card.files):
            return name
    if source.name:  # of a user's own: several folders may hold a net.onnx
        return f"{source.parent.name}/{source.name}"
    return one.key.model_sha256[:12] if one.key else ""


def _origin(source: Path) -> Path:
    """What a network in other numbers was converted from, where that is on this machine."""
    if not (found := _CONVERTED.fullmatch(source.name)):
        return source
    everything = (*(home() / "onnx").glob("*.onnx"), *(home() / "assets").glob("*/*.onnx"))
    return next((path for path in everything if _sum(path).startswith(found[1])), source)


@functools.cache
def _sum(path: Path) -> str:
    return cache.sha256_of(path)


def _short(version: str) -> str:
    return version.split("-")[0]


def _ago(seconds: float) -> str:
    for unit, name in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name} ago"
    return "just now"
