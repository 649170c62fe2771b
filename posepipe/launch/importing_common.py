"""What every `posepipe import` does: a name that is free, a card, files that are kept whole or not at all, and one run of each network."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from posepipe.engines.assets import catalogue, home, user_card
from posepipe.engines.engine import Contract, EngineOptions, open_engine
from posepipe.engines.files import cannot_keep, write_whole
from posepipe.pipeline.errors import EngineError

CARD_FILE, NETWORK_FILE = "card.toml", "network.onnx"
_NAME = re.compile(r"[a-z][a-z0-9_]*\.[a-z0-9][a-z0-9_-]*")


def must_be_name(name: str, *, example: str) -> None:
    """EngineError for what cannot be a network's name, or is that of one that posepipe knows."""
    if not _NAME.fullmatch(name):
        raise EngineError(f"{name!r} cannot be a network's name", hint=f"two words with a dot between, for example {example}")
    if name in catalogue():
        raise EngineError(f"{name!r} is the name of another network", hint=f"choose one with --name, for example {example}")


def free_folder(name: str, *, example: str) -> Path:
    """Where a network of that name goes. EngineError as of `must_be_name`, and for a name that another import has."""
    must_be_name(name, example=example)
    folder = home() / "imported" / name
    if (folder / CARD_FILE).is_file():
        hint = f"choose one with --name, for example {example}, or remove the folder"
        raise EngineError(f"{name!r} is the name of another network", where=str(folder), hint=hint)
    return folder


def need_torch(file: Path) -> None:
    """EngineError where checkpoints cannot be read."""
    if importlib.util.find_spec("torch") is None:
        raise EngineError("reading a checkpoint needs torch, which is not installed", where=str(file), hint="pip install posepipe[train]")


def facts(title: str, source: Path, files: Mapping[str, bytes]) -> str:
    """The last tables of a card: the file that the network was made of, and the files that were made."""
    with source.open("rb") as f:
        digest = hashlib.file_digest(f, "sha256").hexdigest()
    text = f"""
[{title}.source]
kind = "mirror"
publisher = "imported from a file with SHA-256 {digest}"
filename = {json.dumps(source.name)}
"""
    for part, content in files.items():
        text += f"""
[[{title}.files]]
name = "{part}"
sha256 = "{hashlib.sha256(content).hexdigest()}"
bytes = {len(content)}
"""
    return text


def keep(folder: Path, files: Mapping[str, bytes], cards: Callable[[], Mapping[str, str]], run: Callable[[Path], None]) -> None:
    """Write files and cards (texts by name, made when the disk may be asked) into a folder, and run each card's network.

    EngineError where they cannot be written or do not run; nothing of them is then left.
    """
    new = not folder.exists()
    written: list[Path] = []
    try:
        contents = {**files, **{name: text.encode() for name, text in cards().items()}}
        for name, content in contents.items():
            written.append(folder / name)
            write_whole(folder / name, content)
        for name in contents.keys() - files.keys():
            run(folder / name)
    except (OSError, EngineError) as e:
        for path in written:
            path.unlink(missing_ok=True)
        if new:
            with contextlib.suppress(OSError):
                folder.rmdir()
        if isinstance(e, EngineError):
            raise
        raise cannot_keep("the network", folder, e) from e


def must_run(card: Path) -> None:
    """The first file of a card is opened as the card says, and gives numbers for zeros."""
    network = user_card(card)
    contract = Contract.of(network.inputs, network.outputs)
    options = EngineOptions(threads=1, precision="fp32", runtime="onnxruntime", device="cpu")
    with open_engine(network.path(network.files[0].name), options, contract=contract) as engine:
        zeros = {i.name: np.zeros([1 if n < 0 else n for n in i.shape], i.dtype) for i in contract.inputs}
        for output, array in engine(zeros).items():
            if not np.isfinite(array).all():
                what = f"the network gives numbers that are not finite in {output!r}"
                raise EngineError(what, where=network.name, hint="compare the checkpoint's sum with the publisher's")
