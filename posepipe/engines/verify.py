"""How far a runtime and a precision move the key points of a network, on real pictures, against ONNX Runtime in float32.

Networks for joints in a cube are given volumes that others made of pictures: who verifies them brings these (`launch.volumes`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from ..pipeline.errors import EngineError
from ..pipeline.skeleton import skeleton
from . import verdicts
from .assets import Asset, asset, catalogue, find
from .bf16 import layers_of, wide_nodes
from .cache import sha256_of
from .convert import for_precision
from .crop import Pixels, Rois, crop_rgb, image_from_crop
from .crowd import Crowd
from .decoders import Joints, family, open_decoder
from .decoders.volume import InCube
from .engine import Arrays, Engine, EngineOptions, Precision
from .footage import pictures
from .models.openpose import networks
from .network import PersonDetector, onnx_of
from .protobuf import must_be_onnx
from .regions import Regions
from .rounding import rounded
from .runtimes import choose, opener, runtimes
from .verdicts import Verdict
from .volume import volume_card

RECORDING = "pose2sim.single"
INSTANTS = 25
"""Per camera: with four cameras a hundred crops."""
SEEN = 0.5
"""Key points that float32 itself is less sure of are left out: their peak is one of several of about the same height."""
MEDIAN_PX, P95_PX = 0.3, 1.5
"""For joints, where the card has no [tolerance]."""
MEDIAN_MM, P95_MM = 2.0, 6.0
"""For joints in a cube, the same: a tenth of what such a network itself is off."""
SIDE_M = 2.5
"""Of the cubes. Shares of a side are millimetres of this one."""
CERTAIN = 0.1
"""Joints with a larger deviation, as a share of the side, are left out: `lift.volumetric` does not give them either (max_sigma_m)."""
PEOPLE_MEDIAN, PEOPLE_P95 = 0.01, 0.02
"""For people, as shares of the network's picture: they only say where to cut, a quarter wider than the body, until joints are known."""
VERIFIABLE = ("joints", "people", "parts", "volume")
"""What the decoder of a network gives, where it can be verified."""
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "fp16", "int8")
ROUNDED = "rounded"
"""In the place of a runtime: the float32 network, rounded after every layer (`posepipe.engines.rounding`)."""
_BATCH = 4

Points = tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]]
Says = Callable[[str], None]
Cut = Callable[["Subject"], NDArray[Any]]
"""What makes the inputs [N, ...] of a network that is under test."""


@dataclass(frozen=True, slots=True)
class Shift:
    """What became different. moved: of every key point that the reference is sure of, in the unit of the subject (inf: none any more).
    raw_max, raw_rms: of the network's output that changed most. nan_share: inputs with an output that is no number."""

    moved: NDArray[np.float64]
    raw_max: float
    raw_rms: float
    nan_share: float

    @property
    def median(self) -> float:
        return float(np.median(self.moved))

    @property
    def p95(self) -> float:
        return float(np.percentile(self.moved, 95, method="higher"))


@dataclass(frozen=True, slots=True)
class Finding:
    """One runtime and precision: what it moves, and whether that is within limits; or why it cannot be run here."""

    runtime: str
    version: str
    precision: Precision
    cannot: str = ""
    shift: Shift | None = None
    verdict: Verdict | None = None


class Subject:
    """A network under test. card: its card. gives: what its decoder does. unit: `px` of the network's picture; `mm` in a cube of 2.5 m.
    limit_median, limit_p95: what the card allows."""

    def __init__(self, name: str) -> None:
        """By the name or the path of a card, or of an imported network. Raises PullError when it is not here, EngineError for a network
        without joints or people."""
        imported = name in networks.imported()
        self.card = Crowd(name).card if imported else find(name)
        if not _verifiable(self.card):
            hint = f"these can: {', '.join(verifiable())}"
            raise EngineError("only networks that give the joints of a person, or people, can be verified", where=name, hint=hint)
        self.name, self.gives = name, family(self.card).gives
        self.unit: Literal["px", "mm"] = "mm" if self.gives == "volume" else "px"
        self._crowd = Crowd(name) if self.gives == "parts" else None
        if self.gives == "volume":
            volume_card(name)
        self._path = self.card.path(self.card.files[0].name) if self._crowd is not None else onnx_of(self.card)
        must_be_onnx(self._path)
        ((self.input, tensor),) = self.card.inputs.items()
        self.shape = tensor.shape[1:]
        self._decode = open_decoder(self.card)
        self.limit_median, self.limit_p95 = self._limits()

    def _limits(self) -> tuple[float, float]:
        if self.card.tolerance is not None:
            return self.card.tolerance.limits(self.unit)
        if self.gives == "volume":
            return MEDIAN_MM, P95_MM
        if self.gives != "people" or self.card.preprocess is None:
            return MEDIAN_PX, P95_PX
        size = max(self.card.preprocess.size)
        return PEOPLE_MEDIAN * size, PEOPLE_P95 * size

    @property
    def path(self) -> Path:
        """Its ONNX file in float32; of a part affinity network the one for the pictures that were cut last."""
        return self._path if self._crowd is None else self._crowd.path

    def points(self, outputs: Arrays, near_px: NDArray[np.floating[Any]] | None = None) -> Points:
        """Key points [N,J,2] in pixels of the network's picture, and their confidence [N,J]; of a person detector the four points of the
        best person, or of the one next to `near_px` [N,4,2], since who of two is best may change; of a part affinity network everybody's,
        in the order of `near_px`; NaN and 0 where there is nobody. Joints in a cube [N,J,3] in millimetres, 1 where they are certain."""
        if self._crowd is not None:
            return self._crowd.points(outputs, near_px)
        found = self._decode(outputs)
        if isinstance(found, Joints):
            return found.uv_px, found.conf
        if isinstance(found, InCube):
            return found.xyz.astype(np.float64) * SIDE_M * 1000, (found.spread <= CERTAIN).astype(np.float64)
        uv_px, conf = np.full((len(found), 4, 2), np.nan), np.zeros((len(found), 4))
        for i, people in enumerate(found):
            if len(people.score):
                far = np.zeros(1) if near_px is None else np.linalg.norm(people.points_px - near_px[i], axis=2).sum(axis=1)
                one = int(np.argmin(far))
                uv_px[i], conf[i] = people.points_px[one], people.score[one]
        return uv_px, conf

    def cut(self, recording: Asset, *, instants: int = INSTANTS) -> NDArray[Any]:
        """Pictures of a recording as the network gets them in a studio [N, ...], always the same ones.

        For joints: the best person of every frame by the card's person detector (ONNX Runtime, float32); frames without a person give
        none. For people, and parts: whole frames. Raises EngineError when nobody is seen at all, and for a network that takes no pictures.
        """
        if self._crowd is not None:
            return self._crowd.cut(recording, instants=instants)
        if (p := self.card.preprocess) is None:
            raise EngineError("it takes no pictures", where=self.name, hint="`posepipe engines verify` makes volumes of a recording for it")
        scaled = self.card.files[0].name.endswith(".tflite")  # those are transcribed with mean and std inside
        pixels = Pixels(p.colour == "bgr", p.layout == "nchw", *(() if scaled else (p.mean, p.std)))
        detector = None
        if self.gives == "joints":
            regions = Regions(skeleton(self.card.skeleton), p)
            detector = PersonDetector(
                self.card.detector or "blazepose.detector", EngineOptions(runtime="onnxruntime", precision="fp32"), batch=1
            )
        cut: list[NDArray[Any]] = []
        for frame in pictures(recording, instants=instants):
            if detector is not None:
                rois = regions.of_detections(detector.detect([frame])[0][:1])
            else:
                across = max(frame.width * max(p.size) / p.size[0], frame.height * max(p.size) / p.size[1])
                rois = Rois((np.array([[frame.width, frame.height]], np.float64) - 1) / 2, np.full(1, across), np.zeros(1))
            if len(rois):
                picture = np.empty(p.shape, p.dtype)
                crop_rgb(frame, image_from_crop(rois, size=p.size)[0], picture, pixels)
                cut.append(picture)
        if detector is not None:
            detector.close()
        if not cut:
            raise EngineError(f"nobody is seen in {recording.name}", hint="name a recording of people; `posepipe pull` lists them")
        return np.stack(cut)


def verifiable() -> list[str]:
    """The names of the networks that can be verified."""
    return [*(name for name, card in catalogue().items() if _verifiable(card)), *networks.imported()]


def _verifiable(card: Asset) -> bool:
    gives = family(card).gives if card.kind == "model" and card.decoder else ""
    return gives in VERIFIABLE and (card.preprocess is not None or gives == "volume")


def verify(
    name: str,
    *,
    recording: str = RECORDING,
    only_runtimes: Sequence[str] = (),
    only_precisions: Sequence[str] = (),
    instants: int = INSTANTS,
    cut: Cut | None = None,
    say: Says = lambda text: None,
) -> list[Finding]:
    """Compare every usable runtime and precision (or the named ones) with ONNX Runtime in float32, and keep the verdicts.

    cut: makes what the network sees; without it, pictures of the recording are cut. What was named and cannot be run raises the EngineError
    that a studio would get; of the others the finding says why.
    """
    network = Subject(name)
    seen = seen_by(network, recording, instants=instants, cut=cut, say=say)
    for runtime in only_runtimes if "int8" in only_precisions else ():
        for_precision(network.path, runtime=runtime, precision="int8")  # where it is not, that is said before the others are looked at
    say("onnxruntime fp32, the reference")
    reference = run_all(open_for(network.path, "onnxruntime", "fp32"), network.input, seen)
    usable: dict[str, str] = {r.name: r.version for r in runtimes() if r.usable and r.name != "stub"}
    findings: list[Finding] = []
    for runtime in only_runtimes or (*usable, ROUNDED):
        for precision in PRECISIONS:
            if precision not in (only_precisions or PRECISIONS) or (runtime == ROUNDED and precision not in ("fp16", "bf16")):
                continue
            say(f"{runtime} {precision}")
            version = usable.get(runtime, "")
            try:
                found = run_all(open_for(network.path, runtime, precision), network.input, seen)
            except EngineError as e:
                if runtime in only_runtimes and precision in only_precisions:
                    raise
                findings.append(Finding(runtime, version, precision, cannot=e.what))
                continue
            shift = compare(network, reference, found)
            findings.append(Finding(runtime, version, precision, "", shift, _verdict(network, runtime, version, precision, shift)))
    verdicts.keep([f.verdict for f in findings if f.verdict is not None and f.runtime != ROUNDED])
    return findings


def seen_by(network: Subject, recording: str, *, instants: int, cut: Cut | None, say: Says) -> NDArray[Any]:
    """The inputs [N, ...] that it is looked at with. Raises as `Subject.cut`, or what `cut` raises."""
    if cut is not None:
        return cut(network)
    say(f"cutting crops from {recording}")
    return network.cut(asset(recording.removeprefix("pull:")), instants=instants)


def open_for(path: Path, runtime: str, precision: Precision) -> Engine:
    """Open it whatever was found before: `open_engine` heeds verdicts."""
    if runtime == ROUNDED:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / f"{precision}.onnx"
            model = onnx.load(path)
            kept = wide_nodes(model, frozenset(layers_of(path)), where=str(path)) if precision == "bf16" else frozenset()
            onnx.save(rounded(model, precision, kept=kept), file)  # type: ignore[arg-type]
            return open_for(file, "onnxruntime", "fp32")
    options = EngineOptions(runtime=runtime, precision=precision)  # type: ignore[arg-type]
    name, _ = choose(options, path)
    engine = opener(name)(for_precision(path, runtime=name, precision=precision), options, "verified")
    if engine.precision != precision:
        engine.close()
        raise EngineError(f"{runtime} runs it in {engine.precision}, not in {precision}", where=str(path))
    return engine


def run_all(engine: Engine, name: str, pictures: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """The outputs of all pictures, four at a time where the network takes that many; closes the engine."""
    batch = 1 if engine.inputs[0].shape[0] == 1 else _BATCH
    parts: list[dict[str, NDArray[Any]]] = []
    with engine:
        for i in range(0, len(pictures), batch):
            parts.append({n: a.copy() for n, a in engine({name: pictures[i : i + batch]}).items()})
    return {n: np.concatenate([p[n] for p in parts]) for n in parts[0]}


def compare(network: Subject, reference: Arrays, found: Arrays) -> Shift:
    """What became different between two sets of outputs. EngineError when the reference is sure of no key point."""
    whole = np.ones(len(next(iter(found.values()))), bool)
    for array in found.values():
        whole &= np.isfinite(array).reshape(len(array), -1).all(axis=1)
    points, conf = network.points(reference)
    sure = (conf > SEEN) & np.isfinite(points).all(axis=2)
    if not sure.any():
        raise EngineError("float32 is sure of no key point in these pictures", where=network.name, hint="name a recording of people")
    now = np.full(points.shape, np.nan)
    if whole.any():
        now[whole] = network.points({n: a[whole] for n, a in found.items()}, points[whole])[0]
    moved = np.linalg.norm(now[sure] - points[sure], axis=1)
    worst = rms = 0.0
    for name in network.card.outputs:
        error = found[name][whole].astype(np.float64) - reference[name][whole]
        if error.size:
            worst, rms = max(worst, float(np.abs(error).max())), max(rms, float(np.sqrt(np.mean(error**2))))
    return Shift(np.where(np.isfinite(moved), moved, np.inf), worst, rms, float(1 - whole.mean()))


def within(network: Subject, shift: Shift) -> bool:
    """Whether that is within what the card allows."""
    return shift.nan_share == 0 and shift.median <= network.limit_median and shift.p95 <= network.limit_p95


def _verdict(network: Subject, runtime: str, version: str, precision: str, shift: Shift) -> Verdict:
    return Verdict(
        network.name,
        sha256_of(network.path),
        runtime,
        version,
        precision,
        verdicts.cpu(),
        network.unit,
        shift.median if np.isfinite(shift.median) else None,
        shift.p95 if np.isfinite(shift.p95) else None,
        shift.nan_share,
        network.limit_median,
        network.limit_p95,
        within(network, shift),
    )
