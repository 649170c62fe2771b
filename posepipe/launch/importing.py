"""`posepipe import openpose`: a user's own copy of CMU's weights becomes a network that studio files name. It stays on this machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from posepipe.engines.engine import EngineOptions, open_engine
from posepipe.engines.models.openpose.caffe import matched, plan_of, read, scalars
from posepipe.engines.models.openpose.export import to_onnx
from posepipe.engines.models.openpose.networks import CARD_FILE, NETWORK_FILE, find, imported_folder
from posepipe.engines.models.openpose.plan import Conv, Plan, plan
from posepipe.pipeline.errors import EngineError

from .importing_common import facts, keep, must_be_name

_EXAMPLE = "openpose.studio_b"
_TRIED_PX = 64

LICENCE = """\
These weights are Carnegie Mellon University's: for academic or non-profit, non-commercial research only, not to be passed on.
posepipe keeps them on this machine and changes nothing about that; the licence came with the file, and holds for what it computes."""


def import_openpose(file: Path, *, model: str = "", name: str = "") -> int:
    """Read a .caffemodel, make an ONNX network of it, run that once, and keep it as `name` (`openpose.body25`, `openpose.coco18`).

    model: which network it must be (found out when left out). Raises EngineError for a file that is not whole, is of another network, or
    has numbers that are not finite, and for a name that is taken or is none.
    """
    wanted = plan(model) if model else None
    name = name or (f"openpose.{wanted.name}" if wanted else "")
    if name:
        must_be_name(name, example=_EXAMPLE)
    layers = read(file)
    network = wanted or plan_of(layers, where=str(file))
    layers = matched(network, layers, where=str(file))
    if not name:
        must_be_name(name := f"openpose.{network.name}", example=_EXAMPLE)
    content = to_onnx(network, layers).SerializeToString()
    folder = imported_folder(name)
    card, files = _card(name, network), {NETWORK_FILE: content}
    keep(folder, files, lambda: {CARD_FILE: card + facts(name, file, files)}, lambda _: _must_run(name))
    print(f"{name}: {scalars(layers):,} numbers in {len(layers)} layers of {file}")
    print(f"{name}: kept in {folder} ({len(content) / 1e6:.0f} MB), for nodes like {{use: heatmap.paf, from: instants, engine: {name}}}")
    print(LICENCE)
    return 0


def _card(name: str, network: Plan) -> str:
    channels = {layer.name: layer.channels[1] for layer in network.layers if isinstance(layer, Conv)}
    heatmaps, fields = channels[network.heatmaps], channels[network.fields]
    return f"""\
# Made by `posepipe import openpose` from a file of the user's own.

[{name}]
kind = "model"
summary = "{network.name} parts of everybody in a picture (CMU OpenPose, imported)"
licence = "CMU OpenPose: academic or non-profit non-commercial research use only; not to be passed on"
skeleton = "{network.name}"

[{name}.inputs]
picture = {{shape = [-1, 3, 368, 656], dtype = "float32", meaning = "BGR, value / 256 - 0.5; height and width may be others"}}

[{name}.outputs]
heatmaps = {{shape = [-1, {heatmaps}, 46, 82], dtype = "float32", meaning = "parts, then the background"}}
fields = {{shape = [-1, {fields}, 46, 82], dtype = "float32", meaning = "part affinity fields, x and y of every limb"}}

[{name}.preprocess]
size = [656, 368]
colour = "bgr"
layout = "nchw"
dtype = "float32"
mean = [128, 128, 128]
std = [256, 256, 256]
fit = "letterbox"

[{name}.decoder]
kind = "paf"
"""


def _must_run(name: str) -> None:
    """One small picture through what was kept: its card is read, its file opened, and its answers are numbers."""
    network = find(name)
    with open_engine(imported_folder(name) / NETWORK_FILE, EngineOptions(threads=1, precision="fp32")) as engine:
        grey = np.zeros((1, 3, _TRIED_PX, _TRIED_PX), np.float32)
        for output, array in engine({network.picture: grey}).items():
            if not np.isfinite(array).all():
                raise EngineError(f"the network gives numbers that are not finite in {output!r}", where=name, hint="compare the file's sum")
