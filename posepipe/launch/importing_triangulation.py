"""`posepipe import triangulation`: a user's own checkpoint of a learnable triangulation network becomes ONNX files and cards on this machine."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from posepipe.engines.assets import catalogue, home, user_card
from posepipe.engines.engine import Contract, EngineOptions, open_engine
from posepipe.engines.files import cannot_keep, write_whole
from posepipe.pipeline.errors import EngineError

CARD_FILE, VOLUME_CARD = "card.toml", "volume.toml"
_NAME = re.compile(r"[a-z][a-z0-9_]*\.[a-z0-9][a-z0-9_-]*")

LICENCE = """\
The published weights were trained on Human3.6M: that data set's licence allows academic research only, no commercial use.
posepipe keeps them on this machine and changes nothing about that; it holds for what they compute."""


def import_triangulation(file: Path, *, kind: str, aggregation: str = "", name: str = "") -> int:
    """Read a checkpoint (`weights.pth`), write its network as ONNX parts with cards, run each once, and keep them as `name`
    (`triangulation.paper-algebraic`, `triangulation.paper-volumetric`).

    kind: `algebraic` or `volumetric`. aggregation: how the volumetric one was trained to join its views (empty: softmax, or conf where it has
    confidences). Raises EngineError: torch is not installed; a file that is not whole, is no checkpoint or of another network (with the first
    differences); an aggregation that cannot be; a name that is taken or is none; a network that gives numbers that are not finite.
    """
    name = name or f"triangulation.paper-{kind}"
    folder = _free_folder(name)
    if importlib.util.find_spec("torch") is None:
        raise EngineError("reading a checkpoint needs torch, which is not installed", where=str(file), hint="pip install posepipe[train]")
    from posepipe.engines.models.official import read
    from posepipe.engines.models.triangulation import export, official

    state, where = read(file), str(file)
    found = official.look(state, where=where)
    files: dict[str, bytes] = {}
    if kind == "algebraic":
        if aggregation:
            raise EngineError("the algebraic network has no volume to aggregate", hint="leave --aggregation out")
        algebraic = official.algebraic(state, where=where)
        files["network.onnx"] = export.joints_network(algebraic)
        files["solve.onnx"] = export.solve_network()
        cards = {CARD_FILE: _joints_card(name, found.confidences != "")}
    else:
        volumetric = official.volumetric(state, how=aggregation or None, where=where)  # type: ignore[arg-type]
        files["network.onnx"] = export.features_network(volumetric)
        files["unproject.onnx"] = export.unprojection(volumetric)
        files["volume.onnx"] = export.volume_network(volumetric)
        cards = {CARD_FILE: _features_card(name, volumetric.how), VOLUME_CARD: _volume_card(name)}
    try:
        with file.open("rb") as f:
            source = hashlib.file_digest(f, "sha256").hexdigest()
        for part, content in files.items():
            write_whole(folder / part, content)
        for card, text in cards.items():
            own = ["volume.onnx"] if card == VOLUME_CARD else [part for part in files if part != "volume.onnx"]
            write_whole(folder / card, (_HEAD + text + _facts(_title(text), file, source, {p: files[p] for p in own})).encode())
    except OSError as e:
        shutil.rmtree(folder, ignore_errors=True)
        raise cannot_keep("the network", folder, e) from e
    try:
        for card in cards:
            _must_run(folder / card)
    except EngineError:
        shutil.rmtree(folder)
        raise
    size = sum(len(content) for content in files.values()) / 1e6
    print(f"{name}: {found.numbers:,} numbers, {kind} network with ResNet-{found.depth}, from {file}")
    print(f"{name}: kept in {folder} ({size:.0f} MB: {', '.join(files)})")
    if kind == "algebraic":
        print(f"{name}: for nodes like {{use: heatmap.topdown, from: instants, engine: {folder / CARD_FILE}}}")
    else:
        print(f"{name}: views aggregated by {volumetric.how}; docs/triangulation.md says what each part takes and gives")
    print(LICENCE)
    return 0


def _free_folder(name: str) -> Path:
    example = "choose one with --name, for example triangulation.hall_2"
    if not _NAME.fullmatch(name):
        raise EngineError(f"{name!r} cannot be a network's name", hint=f"two words with a dot between: {example}")
    folder = home() / "imported" / name
    if name in catalogue() or (folder / CARD_FILE).is_file():
        hint = example if name in catalogue() else f"{example}, or remove the folder"
        raise EngineError(f"{name!r} is the name of another network", where="" if name in catalogue() else str(folder), hint=hint)
    return folder


_HEAD = "# Made by `posepipe import triangulation` from a file of the user's own.\n\n"
_PICTURE = """\
picture = {shape = [-1, 3, 384, 384], dtype = "float32", meaning = "a square around the person, BGR, (value - mean) / std"}
"""
# ImageNet's numbers in the order red, green, blue, for pictures in the order blue, green, red: the networks were trained like this.
_PREPROCESS = """\
size = [384, 384]
colour = "bgr"
layout = "nchw"
dtype = "float32"
mean = [123.675, 116.28, 103.53]
std = [58.395, 57.12, 57.375]
fit = "affine"
"""


def _joints_card(name: str, learned: bool) -> str:
    trust = "confidence of the view, learned" if learned else "1"
    return f"""\
[{name}]
kind = "model"
summary = "17 joints of one person, learned with their triangulation (Iskakov et al. 2019, algebraic, imported)"
licence = "trained on Human3.6M: academic research only, no commercial use"
skeleton = "human36m17"

[{name}.inputs]
{_PICTURE}
[{name}.outputs]
joints = {{shape = [-1, 17, 3], dtype = "float32", meaning = "x and y in pixels of the input, {trust}"}}
heatmaps = {{shape = [-1, 17, 96, 96], dtype = "float32", meaning = "before the softmax, which is over 100 times their values"}}

[{name}.preprocess]
{_PREPROCESS}
[{name}.decoder]
kind = "regression"
output = "joints"
order = "xys"
unit = "px"
"""


def _features_card(name: str, how: str) -> str:
    trust = 'confidences = {shape = [-1, 32], dtype = "float32", meaning = "of the view, for every channel"}\n' if "conf" in how else ""
    return f"""\
[{name}]
kind = "model"
summary = "features of one person for a volume, aggregated by {how} (Iskakov et al. 2019, volumetric, imported)"
licence = "trained on Human3.6M: academic research only, no commercial use"
skeleton = "human36m17"

[{name}.inputs]
{_PICTURE}
[{name}.outputs]
features = {{shape = [-1, 32, 96, 96], dtype = "float32", meaning = "what is carried into the volume"}}
{trust}
[{name}.preprocess]
{_PREPROCESS}"""


def _volume_card(name: str) -> str:
    return f"""\
[{name}-volume]
kind = "model"
summary = "17 joints out of a volume of 64 x 64 x 64 (Iskakov et al. 2019, volumetric, imported)"
licence = "trained on Human3.6M: academic research only, no commercial use"
skeleton = "human36m17"

[{name}-volume.inputs]
volume = {{shape = [-1, 64, 64, 64, 32], dtype = "float32", meaning = "features in a cube of 2.5 m around the pelvis; x, y, z of the cube"}}

[{name}-volume.outputs]
xyz = {{shape = [-1, 17, 3], dtype = "float32", meaning = "shares of the cube's side, -0.5 to 0.5, in its axes"}}
spread = {{shape = [-1, 17], dtype = "float32", meaning = "one standard deviation per axis, shares of the side"}}

[{name}-volume.decoder]
kind = "volume"
"""


def _title(card: str) -> str:
    return card.partition("[")[2].partition("]")[0]


def _facts(title: str, file: Path, source_sha256: str, files: Mapping[str, bytes]) -> str:
    text = f"""
[{title}.source]
kind = "mirror"
publisher = "imported from a file with SHA-256 {source_sha256}"
filename = {json.dumps(file.name)}
"""
    for part, content in files.items():
        text += f"""
[[{title}.files]]
name = "{part}"
sha256 = "{hashlib.sha256(content).hexdigest()}"
bytes = {len(content)}
"""
    return text


def _must_run(card: Path) -> None:
    """A card's network is opened as the card says, and gives numbers for grey."""
    network = user_card(card)
    contract = Contract.of(network.inputs, network.outputs)
    path = network.path(network.files[0].name)
    options = EngineOptions(threads=1, precision="fp32", runtime="onnxruntime", device="cpu")
    with open_engine(path, options, contract=contract) as engine:
        grey: dict[str, Any] = {i.name: np.zeros([1 if n < 0 else n for n in i.shape], i.dtype) for i in contract.inputs}
        for output, array in engine(grey).items():
            if not np.isfinite(array).all():
                what = f"the network gives numbers that are not finite in {output!r}"
                raise EngineError(what, where=network.name, hint="compare the checkpoint's sum with the publisher's")
