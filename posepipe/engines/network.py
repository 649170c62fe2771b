"""A network by its card: frames are cut into its input, an engine runs it, its family's decoder reads what comes out.

`TopDown` and `PersonDetector` are what nodes use: joints of people whose regions are known, and people in whole pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..pipeline.errors import EngineError, PullError, did_you_mean
from ..pipeline.packet import Frame
from ..pipeline.skeleton import COCO17, Skeleton, skeleton
from .assets import Asset, asset, catalogue, find, imported_card, user_card
from .crop import Pixels, Rois, crop_rgb, image_from_crop, to_image, warm_up
from .decoders import Joints, MapLayout, People, decoder_options, family, open_decoder, open_maps_decoder, stub_answers
from .device import cores
from .engine import Contract, Engine, EngineOptions, open_engine
from .regions import Detection, Regions

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

STUB = "stub"


def topdown_card(name: str) -> Asset:
    """The card of a network for the joints of one person, by name or path. EngineError for a network of another kind; PullError."""
    return _card(name, "joints", default="blazepose.full")


def detector_card(name: str) -> Asset:
    """The card of a person detector, by name or path. EngineError for a network of another kind; PullError."""
    return _card(name, "people", default="blazepose.detector")


def _card(name: str, gives: str, *, default: str) -> Asset:
    if name == STUB:
        return asset(default)
    fit = [n for n, a in catalogue().items() if a.decoder and family(a).gives == gives]
    own = imported_card(name)
    if not name.endswith(".toml") and name not in fit and own is None:
        raise EngineError(f"there is no network {name!r} for this", hint=_made_by(name) or did_you_mean(name, (*fit, STUB)))
    card = find(name) if own is None else user_card(own)
    what = {"joints": "the joints of one person", "people": "people in a picture"}
    if (found := family(card).gives) != gives:
        raise EngineError(f"the network gives {what.get(found, found)}, wanted are {what[gives]}", where=name)
    decoder_options(card)
    if gives == "joints":
        skeleton(card.skeleton)
        if card.preprocess is not None and card.preprocess.fit == "letterbox":
            hint = "write fit: affine for an upright box around the body, crop for a square centred on the hips"
            raise PullError("a network for one person does not look at whole pictures (fit letterbox)", where=name, hint=hint)
    if card.preprocess is None:
        raise PullError("the card has no table [preprocess]", where=name, hint="docs/models.md shows a complete card")
    return card


def _made_by(name: str) -> str:
    """How networks of that kind come to be here, which nobody else may hand out; empty for others."""
    if name in catalogue():
        return ""
    if name.startswith("triangulation."):
        return "published weights are imported: `posepipe import triangulation weights.pth --kind algebraic` (docs/triangulation.md)"
    if name.startswith("openpose."):
        return "CMU's networks are for `use: heatmap.paf`: `posepipe import openpose FILE.caffemodel` makes them (docs/openpose.md)"
    return ""


def onnx_of(card: Asset) -> Path:
    """The ONNX file of a network, which must be here; a .tflite one is transcribed first. PullError, EngineError."""
    if not card.files:
        raise EngineError("the card names no file", where=card.name, hint="docs/models.md shows a complete card")
    path = card.path(card.files[0].name)
    if path.suffix != ".tflite":
        return path
    from .models.blazepose.networks import onnx_path, view_of

    return onnx_path(card, view_of(card))


def has_maps(name: str) -> bool:
    """Whether that network for the joints of one person has heatmaps of coco17's joints to hand out. Raises as `topdown_card`."""
    card = topdown_card(name)
    if not family(card).maps:
        return False
    try:
        open_maps_decoder(card)
    except PullError:  # it works as before without them
        return False
    return True


class Network:
    """An opened network: crops of frames in, what its decoder makes of them out. Not for several threads at once."""

    def __init__(self, card: Asset, options: EngineOptions, *, batch: int, maps: bool = False) -> None:
        """Open the network of a card and run it once for every batch size up to `batch`. The runtime `stub` sees an upright person in
        every crop. maps: hand out its heatmaps beside the joints. Raises PullError when it was not fetched or the card is wrong,
        EngineError when it cannot be run."""
        assert card.preprocess is not None, card.name
        self.card, p = card, card.preprocess
        self.map_layout: MapLayout | None = None
        if maps:
            self._decode, self.map_layout = open_maps_decoder(card)
        else:
            self._decode = open_decoder(card)
        contract = Contract.of(card.inputs, card.outputs)
        ((self._input, tensor),) = card.inputs.items()
        if tensor.shape[0] == 1 and options.instances == 1:
            # Pictures beside each other, each by one core, take a tenth less time than all cores on one after the other.
            options = msgspec.structs.replace(options, instances=max(1, min(batch, cores())))
        transcribed = bool(card.files) and card.files[0].name.endswith(".tflite")
        if options.runtime == "stub":
            self.engine: Engine = open_engine(Path(), options, contract=contract, answers=stub_answers(card))
        elif transcribed:
            from .models.blazepose.networks import open_transcribed

            self.engine = open_transcribed(card, options, contract)
        else:
            self.engine = open_engine(onnx_of(card), options, contract=contract)
        self._pixels = Pixels(p.colour == "bgr", p.layout == "nchw", *(() if transcribed else (p.mean, p.std)))
        self._one_by_one = self.engine.inputs[0].shape[0] == 1
        self.size = p.size
        # Noise, since black pictures are none that a camera gives: a network that divides by the brightest pixel would give NaN.
        noise = np.random.default_rng(0).integers(0, 256, (max(batch, 1), *p.shape)).astype(p.dtype)
        self._batch = noise if noise.dtype.kind in "iu" else noise / noise.dtype.type(255)
        try:
            warm_up(p.dtype)
            for n in range(1, len(self._batch) + 1):
                self._read(self._batch[:n])
        except BaseException:
            self.engine.close()  # nobody has it to close yet
            raise

    def __call__(self, frames: Sequence[Frame], frame_from_crop: F64) -> Any:
        """What the decoder gives for N crops, one of each frame: `decoders.Joints`, or a list of `decoders.People`.

        frame_from_crop [N,2,3]. Raises EngineError where the network gives NaN.
        """
        if len(frames) > len(self._batch):
            self._batch = np.empty((len(frames), *self._batch.shape[1:]), self._batch.dtype)
        crops = self._batch[: len(frames)]
        for frame, map_, crop in zip(frames, frame_from_crop, crops, strict=True):
            crop_rgb(frame, map_, crop, self._pixels)
        return self._read(crops)

    def _read(self, crops: NDArray[Any]) -> Any:
        if not self._one_by_one:
            return self._decode(self.engine({self._input: crops}))
        runs: list[dict[str, NDArray[Any]]] = []
        at_once = self.engine.instances
        for start in range(0, len(crops), at_once):
            under_way = [self.engine.submit({self._input: one[None]}) for one in crops[start : start + at_once]]
            runs += [{name: array.copy() for name, array in run.result().items()} for run in under_way]
        return self._decode({name: np.concatenate([one[name] for one in runs]) for name in self.card.outputs})

    def close(self) -> None:
        """Close the engine."""
        self.engine.close()


class TopDown:
    """Joints of people in known regions: crops, one batched engine call, decoding.

    engine: what runs the network. skeleton: the order of the joints. regions: where it wants to look. Not for several threads at once.
    """

    def __init__(self, name: str, options: EngineOptions, *, batch: int = 4, maps: bool = False) -> None:
        """Open a network by the name or path of its card (`blazepose.full`, `movenet.thunder`, `my_net/card.toml`, or `stub`) and run it
        once for every batch size up to `batch`. maps: for `infer_maps`, of a network that `has_maps`. Raises PullError when it was not
        fetched, EngineError when it cannot be run.
        """
        card = topdown_card(name)
        assert card.preprocess is not None
        self.skeleton: Skeleton = skeleton(card.skeleton)
        self.regions = Regions(self.skeleton, card.preprocess)
        self._network = Network(card, _options(name, options), batch=batch, maps=maps)
        self.engine = self._network.engine

    @property
    def map_shape(self) -> tuple[int, int, int] | None:
        """[h,w,17] of the heatmaps of one region; None when it was not opened for them."""
        layout = self._network.map_layout
        return None if layout is None else (layout.size[1], layout.size[0], len(COCO17.joints))

    def infer(self, frames: Sequence[Frame], rois: Rois) -> tuple[F32, F32]:
        """The joints in N regions, region i being of frames[i].

        Returns uv_px [N,J,2] (pixels of the frame, pixel centres at integers) and conf [N,J]; NaN and 0 where there is no region.
        """
        return self._infer(frames, rois)[:2]

    def infer_maps(self, frames: Sequence[Frame], rois: Rois) -> tuple[F32, F32, F32, F32]:
        """The joints and the heatmaps in N regions: uv_px and conf as of `infer`, then maps [N,h,w,17] (probabilities of coco17's joints) and
        the regions [N,4] that they cover, both as `ViewPoses` has them; zeros and NaN where there is no region."""
        layout = self._network.map_layout
        assert layout is not None, "opened without maps"
        uv_px, conf, found = self._infer(frames, rois)
        (at,) = np.nonzero(rois.there)
        covered = np.full((len(rois), 4), np.nan, np.float32)
        if found is None or found.maps is None:
            return uv_px, conf, np.zeros((len(rois), layout.size[1], layout.size[0], len(COCO17.joints)), np.float32), covered
        covered[at] = map_regions(Rois(rois.centre_px[at], rois.side_px[at], rois.angle_rad[at]), layout, size=self._network.size)
        if len(at) == len(rois):
            return uv_px, conf, found.maps, covered
        maps = np.zeros((len(rois), *found.maps.shape[1:]), np.float32)
        maps[at] = found.maps
        return uv_px, conf, maps, covered

    def _infer(self, frames: Sequence[Frame], rois: Rois) -> tuple[F32, F32, Joints | None]:
        if len(frames) != len(rois):
            raise EngineError(f"{len(rois)} regions need as many frames, given were {len(frames)}")
        joints = len(self.skeleton.joints)
        uv_px, conf = np.full((len(rois), joints, 2), np.nan, np.float32), np.zeros((len(rois), joints), np.float32)
        (at,) = np.nonzero(rois.there)
        if not len(at):
            return uv_px, conf, None
        maps = image_from_crop(Rois(rois.centre_px[at], rois.side_px[at], rois.angle_rad[at]), size=self._network.size)
        found: Joints = self._network([frames[i] for i in at.tolist()], maps)
        uv_px[at], conf[at] = to_image(maps, found.uv_px), found.conf
        return uv_px, conf, found

    def close(self) -> None:
        """Close the engine."""
        self._network.close()


class PersonDetector:
    """People in whole frames. engine: what runs the network. Not for several threads at once."""

    def __init__(self, name: str, options: EngineOptions, *, batch: int = 4) -> None:
        """Open a detector by the name or path of its card (`blazepose.detector`, `yolox.nano`, or `stub`) and run it once for every batch
        size up to `batch`. Raises PullError when it was not fetched, EngineError when it cannot be run.
        """
        self._network = Network(detector_card(name), _options(name, options), batch=batch)
        self.engine = self._network.engine

    def detect(self, frames: Sequence[Frame], rois: Rois | None = None) -> list[list[Detection]]:
        """The people of every frame (or of one region of it), best first, in pixels of the frame."""
        if not frames:
            return []
        wide, high = self._network.size
        if rois is None:
            size = np.array([(f.width, f.height) for f in frames], np.float64)
            side_px = (size * (max(wide, high) / wide, max(wide, high) / high)).max(axis=1)
            rois = Rois((size - 1) / 2, side_px, np.zeros(len(frames)))
        maps = image_from_crop(rois, size=(wide, high))
        people: list[People] = self._network(frames, maps)
        return [_in_frame(one, map_) for one, map_ in zip(people, maps, strict=True)]

    def close(self) -> None:
        """Close the engine."""
        self._network.close()


def map_regions(rois: Rois, layout: MapLayout, *, size: tuple[int, int]) -> F64:
    """What maps cover of the frame: centre, longer side and angle [N,4] of a region whose cells lie as `ViewPoses` says, for crops of `size`."""
    (wide, high), scale = layout.size, rois.side_px / max(size)
    middle = [layout.cell_px * cells / 2 + layout.offset_px - (pixels - 1) / 2 for cells, pixels in zip((wide, high), size, strict=True)]
    cos, sin = np.cos(rois.angle_rad), np.sin(rois.angle_rad)
    moved = np.stack([cos * middle[0] - sin * middle[1], sin * middle[0] + cos * middle[1]], axis=1) * scale[:, None]
    return np.column_stack([rois.centre_px + moved, scale * layout.cell_px * max(wide, high), rois.angle_rad])


def _options(name: str, options: EngineOptions) -> EngineOptions:
    return options if name != STUB else EngineOptions(runtime="stub")


def _in_frame(people: People, frame_from_crop: F64) -> list[Detection]:
    points = np.concatenate([people.box_px.reshape(-1, 2, 2), people.points_px], axis=1)
    px = to_image(np.broadcast_to(frame_from_crop, (len(points), 2, 3)), points)
    return [Detection(float(s), p[:2].ravel(), p[2:]) for s, p in zip(people.score, px, strict=True)]
