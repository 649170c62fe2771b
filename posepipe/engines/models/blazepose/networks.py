"""BlazePose's networks as files that an engine opens, and as stubs that need no file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from ....pipeline.errors import EngineError, did_you_mean
from ...assets import Asset, asset, home
from ...engine import Contract, Engine, EngineOptions, open_engine
from ...files import write_whole
from ...tflite_onnx import VERSION, transcribe
from .detector import anchors

LANDMARKS = "blazepose.full"
SIZES = ("blazepose.lite", LANDMARKS, "blazepose.heavy")
DETECTOR = "blazepose.detector"
STUB = "stub"


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
            hint = "free some space or make the folder writable, or set POSEPIPE_HOME to another"
            raise EngineError(f"cannot keep the transcribed network: {e.strerror or e}", where=str(kept.parent), hint=hint) from e
    return kept


def open_landmarks(name: str, options: EngineOptions) -> Engine:
    """The heatmap network of that name, one of SIZES (`stub`: the stub of BlazePose, whatever the options say)."""
    network = _known(name, SIZES, default=LANDMARKS)
    return _open(network, HEATMAPS, options if name != STUB else EngineOptions(runtime="stub"), {"heatmaps": stub_heatmaps()})


def open_detector(name: str, options: EngineOptions) -> Engine:
    """The detector of that name (`stub`: a stub that sees one person, in the middle of every picture)."""
    return _open(
        _known(name, (DETECTOR,), default=DETECTOR), PEOPLE, options if name != STUB else EngineOptions(runtime="stub"), stub_people()
    )


def _known(name: str, choice: tuple[str, ...], *, default: str) -> Asset:
    """The network of that name; the stub has the contract of the default."""
    if name not in (*choice, STUB):
        raise EngineError(f"there is no network {name!r} for this", hint=did_you_mean(name, (*choice, STUB)))
    return asset(default if name == STUB else name)


def _open(network: Asset, view: View, options: EngineOptions, answers: Mapping[str, NDArray[Any]]) -> Engine:
    contract = Contract.of(network.inputs, network.outputs)
    if options.runtime == "stub":
        return open_engine(Path(), options, contract=contract, answers=answers)
    path = onnx_path(network, view)
    try:
        return open_engine(path, options, contract=contract)
    except EngineError:
        if not _damaged(path):
            raise
    path.unlink()  # it was made here from the network's own file: make it again
    return open_engine(onnx_path(network, view), options, contract=contract)


def _damaged(path: Path) -> bool:
    """Whether a kept transcription is no ONNX file any more."""
    try:
        onnx.checker.check_model(onnx.load(path))
    except (onnx.checker.ValidationError, DecodeError, OSError):
        return True
    return False


# What the stubs see: a person who stands upright in the crop, shares of the crop's side. Left joints are on the right of the picture.
_FIGURE = {
    0: (0.50, 0.16), 2: (0.52, 0.14), 5: (0.48, 0.14), 7: (0.54, 0.15), 8: (0.46, 0.15), 9: (0.515, 0.18), 10: (0.485, 0.18),
    11: (0.58, 0.25), 12: (0.42, 0.25), 13: (0.63, 0.36), 14: (0.37, 0.36), 15: (0.65, 0.47), 16: (0.35, 0.47),
    17: (0.66, 0.50), 18: (0.34, 0.50), 19: (0.65, 0.51), 20: (0.35, 0.51), 21: (0.64, 0.49), 22: (0.36, 0.49),
    23: (0.55, 0.50), 24: (0.45, 0.50), 25: (0.56, 0.68), 26: (0.44, 0.68), 27: (0.56, 0.85), 28: (0.44, 0.85),
    29: (0.56, 0.88), 30: (0.44, 0.88), 31: (0.58, 0.89), 32: (0.42, 0.89),
    1: (0.51, 0.14), 3: (0.53, 0.14), 4: (0.49, 0.14), 6: (0.47, 0.14), 33: (0.50, 0.50), 34: (0.50, 0.10),
}  # fmt: skip


def stub_heatmaps() -> NDArray[np.float32]:
    """[39,64,64] logits with one peak (conf 0.98) for every joint, at fixed places in the crop."""
    cells = np.arange(64)
    maps = np.full((39, 64, 64), -10.0, np.float32)
    for j, (x, y) in _FIGURE.items():
        maps[j] = np.maximum(4.0 - ((cells[None] - 64 * x) ** 2 + (cells[:, None] - 64 * y) ** 2), -10.0)
    return maps


def stub_people() -> dict[str, NDArray[np.float32]]:
    """Raw detector outputs for one upright person in the middle of the picture, three quarters of its height tall."""
    at = int(np.argmin(np.abs(anchors() - 0.5).sum(axis=1)))
    scores, boxes = np.full((2254, 1), -20.0, np.float32), np.zeros((2254, 12), np.float32)
    hips, head = (0.5, 0.5), (0.5, 0.12)
    numbers = np.array([0.5, 0.25, 0.2, 0.2, *hips, *head, 0.5, 0.3, 0.5, 0.1])
    shift = np.tile(anchors()[at], 6)
    shift[2:4] = 0  # width and height are not counted from the anchor
    scores[at], boxes[at] = 4.0, 224 * (numbers - shift)
    return {"scores": scores, "boxes": boxes}
