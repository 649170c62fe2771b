"""`posepipe import lifter`: a user's own checkpoint of Martinez' single-view lifter becomes an ONNX file and a card on this machine."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import shutil
import tempfile
from pathlib import Path

import numpy as np

from posepipe.engines.assets import catalogue, home, user_card
from posepipe.engines.engine import Contract, EngineOptions, open_engine
from posepipe.engines.files import cannot_keep, write_whole
from posepipe.pipeline.errors import EngineError

CARD_FILE, NETWORK_FILE = "card.toml", "network.onnx"
_NAME = re.compile(r"[a-z][a-z0-9_]*\.[a-z0-9][a-z0-9_-]*")

LICENCE = """\
The code of the published lifter is MIT; weights and statistics made from Human3.6M fall under that data set's licence: academic research only,
no commercial use. posepipe keeps them on this machine and changes nothing about that; it holds for what they compute."""


def import_lifter(
    file: Path, *, stats_3d: Path, stats_2d: Path | None = None, max_norm: bool | None = None, name: str = "lifter.human36m"
) -> int:
    """Read a checkpoint and its statistics, write the network with both as ONNX with a card, run it once and keep it as `name`.

    max_norm: of a TensorFlow checkpoint, whether it was trained with --max_norm. Raises EngineError: torch is not installed; a file that is not
    whole, is no checkpoint, is of another network (with the first differences), or no statistics; a name that is taken or is none; a network that
    gives numbers that are not finite.
    """
    folder = _free_folder(name)
    if importlib.util.find_spec("torch") is None:
        raise EngineError("reading a checkpoint needs torch, which is not installed", where=str(file), hint="pip install posepipe[train]")
    from posepipe.engines.models.lifter import official

    net = official.Published(official.load(file, max_norm=max_norm), official.statistics(stats_3d, stats_2d))
    with tempfile.TemporaryDirectory() as scratch:
        official.export(net, path := Path(scratch) / NETWORK_FILE)
        content = path.read_bytes()
    try:
        write_whole(folder / NETWORK_FILE, content)
        write_whole(folder / CARD_FILE, _card(name, content, file, official.JOINTS, pixels=stats_2d is not None).encode())
    except OSError as e:
        shutil.rmtree(folder, ignore_errors=True)
        raise cannot_keep("the network", folder, e) from e
    try:
        _must_run(folder / CARD_FILE)
    except EngineError:
        shutil.rmtree(folder)
        raise
    takes = "pixels of the pictures that its statistics are of" if stats_2d is not None else "key points that you have normalised"
    print(f"{name}: {sum(p.numel() for p in net.net.parameters()):,} numbers from {file}")
    print(f"{name}: kept in {folder} ({len(content) / 1e6:.0f} MB); takes {takes}; docs/lifter.md says in which order")
    print(LICENCE)
    return 0


def _free_folder(name: str) -> Path:
    example = "choose one with --name, for example lifter.hall_2"
    if not _NAME.fullmatch(name):
        raise EngineError(f"{name!r} cannot be a network's name", hint=f"two words with a dot between: {example}")
    folder = home() / "imported" / name
    if name in catalogue() or (folder / CARD_FILE).is_file():
        hint = example if name in catalogue() else f"{example}, or remove the folder"
        raise EngineError(f"{name!r} is the name of another network", where="" if name in catalogue() else str(folder), hint=hint)
    return folder


def _card(name: str, content: bytes, file: Path, joints: tuple[str, ...], *, pixels: bool) -> str:
    unit = "pixels" if pixels else "(pixels - mean) / std of the training set"
    source = file if file.is_file() else file.with_name(file.name + ".index")
    with source.open("rb") as f:
        digest = hashlib.file_digest(f, "sha256").hexdigest()
    given = ", ".join(joint for joint in joints if joint != "neck_nose")
    return f"""\
# Made by `posepipe import lifter` from a file of the user's own.

[{name}]
kind = "model"
summary = "3D joints from the 2D joints of one view (Martinez et al. 2017, imported)"
licence = "made from Human3.6M: academic research only, no commercial use"

[{name}.source]
kind = "mirror"
publisher = "imported from a file with SHA-256 {digest}"
filename = {json.dumps(source.name)}

[[{name}.files]]
name = "{NETWORK_FILE}"
sha256 = "{hashlib.sha256(content).hexdigest()}"
bytes = {len(content)}

[{name}.inputs]
joints = {{shape = [-1, 16, 2], dtype = "float32", meaning = "{unit}: {given}"}}

[{name}.outputs]
xyz_mm = {{shape = [-1, 17, 3], dtype = "float32", meaning = "millimetres from the hip in the camera's axes: {", ".join(joints)}"}}
"""


def _must_run(card: Path) -> None:
    """The card is read, the network opened as it says, and its answer is numbers."""
    network = user_card(card)
    contract = Contract.of(network.inputs, network.outputs)
    options = EngineOptions(threads=1, precision="fp32", runtime="onnxruntime", device="cpu")
    with open_engine(network.path(NETWORK_FILE), options, contract=contract) as engine:
        answer = engine({"joints": np.zeros((2, 16, 2), np.float32)})["xyz_mm"]
    if not np.isfinite(answer).all():
        raise EngineError(
            "the network gives numbers that are not finite", where=network.name, hint="compare the checkpoint with the publisher's"
        )
