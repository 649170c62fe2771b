"""`posepipe import triangulation`: a user's own checkpoint of a learnable triangulation network becomes ONNX files and cards on this machine."""

from __future__ import annotations

from pathlib import Path

from posepipe.pipeline.errors import EngineError

from .importing_common import CARD_FILE, NETWORK_FILE, facts, free_folder, keep, must_run, need_torch

VOLUME_CARD = "volume.toml"

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
    folder = free_folder(name, example="triangulation.hall_2")
    need_torch(file)
    from posepipe.engines.models.official import read
    from posepipe.engines.models.triangulation import export, official

    state, where = read(file), str(file)
    found = official.look(state, where=where)
    files: dict[str, bytes] = {}
    if kind == "algebraic":
        if aggregation:
            raise EngineError("the algebraic network has no volume to aggregate", hint="leave --aggregation out")
        algebraic = official.algebraic(state, where=where)
        files[NETWORK_FILE] = export.joints_network(algebraic)
        files["solve.onnx"] = export.solve_network()
        cards = {CARD_FILE: _joints_card(name, found.confidences != "")}
    else:
        volumetric = official.volumetric(state, how=aggregation or None, where=where)  # type: ignore[arg-type]
        files[NETWORK_FILE] = export.features_network(volumetric)
        files["unproject.onnx"] = export.unprojection(volumetric)
        files["volume.onnx"] = export.volume_network(volumetric)
        cards = {CARD_FILE: _features_card(name, volumetric.how), VOLUME_CARD: _volume_card(name)}
    own = {card: {part: content for part, content in files.items() if (part == "volume.onnx") == (card == VOLUME_CARD)} for card in cards}
    keep(folder, files, lambda: {card: _HEAD + text + facts(_title(text), file, own[card]) for card, text in cards.items()}, must_run)
    size = sum(len(content) for content in files.values()) / 1e6
    print(f"{name}: {found.numbers:,} numbers, {kind} network with ResNet-{found.depth}, from {file}")
    print(f"{name}: kept in {folder} ({size:.0f} MB: {', '.join(files)})")
    if kind == "algebraic":
        print(f"{name}: for nodes like {{use: heatmap.topdown, from: instants, engine: {folder / CARD_FILE}}}")
    else:
        print(f"{name}: views aggregated by {volumetric.how}; docs/triangulation.md says what each part takes and gives")
    print(LICENCE)
    return 0


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
