"""BlazePose's networks, which are published as .tflite, as ONNX files that an engine opens."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ....pipeline.errors import EngineError
from ...assets import Asset, asset, home
from ...convert import damaged
from ...decoders import stub_answers
from ...engine import Contract, Engine, EngineOptions, open_engine
from ...files import cannot_keep, write_whole
from ...tflite_onnx import VERSION, transcribe

LANDMARKS = "blazepose.full"
SIZES = ("blazepose.lite", LANDMARKS, "blazepose.heavy")
DETECTOR = "blazepose.detector"


@dataclass(frozen=True, slots=True)
class View:
    """A part of a network: its wanted outputs (tflite name -> ours) and what its input is scaled to."""

    name: str
    outputs: Mapping[str, str]
    scale: float
    offset: float


HEATMAPS = View("heatmaps", {"Identity_3": "heatmaps"}, 1 / 255, 0.0)
ALL_HEADS = View(
    "all",
    {"Identity": "landmarks", "Identity_1": "presence", "Identity_2": "segmentation", "Identity_3": "heatmaps", "Identity_4": "world"},
    1 / 255,
    0.0,
)
PEOPLE = View("people", {"Identity": "boxes", "Identity_1": "scores"}, 2 / 255, -1.0)


def onnx_path(network: Asset, view: View) -> Path:
    """The network transcribed to ONNX, kept in the cache. Raises PullError when it was not fetched yet, EngineError."""
    (file,) = network.files
    kept = home() / "onnx" / f"{file.sha256[:16]}-{view.name}-v{VERSION}.onnx"
    if not kept.is_file():
        source = network.path(file.name)
        content = source.read_bytes()
        if hashlib.sha256(content).hexdigest() != file.sha256:
            raise EngineError(
                "the file is damaged: its sha256 is not the card's",
                where=str(source),
                hint=f"`posepipe pull {network.name}` fetches it again",
            )
        model = transcribe(content, where=str(source), outputs=view.outputs, scale=view.scale, offset=view.offset)
        try:
            write_whole(kept, model.SerializeToString())
        except OSError as e:
            raise cannot_keep("the transcribed network", kept.parent, e) from e
    return kept


def view_of(network: Asset) -> View:
    """The part of a .tflite network that its card asks for."""
    outputs = {tensor.origin: name for name, tensor in network.outputs.items()}
    known = next((v for v in (HEATMAPS, PEOPLE) if v.outputs == outputs), None)
    p = network.preprocess
    if p is None or not all(outputs) or len({*p.mean}) + len({*p.std}) > 2:
        what = "a .tflite network needs [preprocess] with the same mean and std for every colour, and the origin of every output"
        raise EngineError(what, where=network.name, hint="compare posepipe/engines/models/blazepose/card.toml")
    if (p.layout, p.dtype) != ("nchw", "uint8"):
        what = f"a .tflite network is transcribed for planes of bytes, its card says layout {p.layout}, dtype {p.dtype}"
        raise EngineError(
            what, where=network.name, hint='write layout = "nchw" and dtype = "uint8" in [preprocess], and shape [-1, 3, H, W]'
        )
    return View(known.name if known else "-".join(outputs.values()), outputs, 1 / p.std[0], -p.mean[0] / p.std[0])


def open_transcribed(network: Asset, options: EngineOptions, contract: Contract) -> Engine:
    """The engine of a .tflite network. Its transcription is made when it is not there, and again when it is damaged."""
    path = onnx_path(network, view_of(network))
    try:
        return open_engine(path, options, contract=contract)
    except EngineError:
        if not damaged(path):
            raise
    path.unlink()  # it was made here from the network's own file: make it again
    return open_engine(onnx_path(network, view_of(network)), options, contract=contract)


def stub_heatmaps() -> NDArray[np.float32]:
    """[39,64,64] logits with one peak (conf 0.98) for every joint, at fixed places in the crop."""
    maps: NDArray[np.float32] = stub_answers(asset(LANDMARKS))["heatmaps"]
    return maps
