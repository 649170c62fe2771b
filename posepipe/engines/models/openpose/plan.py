"""The two networks, layer by layer: what `net` makes of it in torch, `export` in ONNX, and what `caffe` expects in a file.

Layers have the names of the published networks. Tables: CMU OpenPose, BODY_25 (VGG-19 trunk with PReLU, dense blocks of three 3x3
convolutions, PAF stages first) and COCO (VGG-19 trunk, 7x7 stages, both branches at once).
"""

from __future__ import annotations

from dataclasses import dataclass

from ....pipeline.errors import EngineError, did_you_mean

Shape = tuple[int, ...]
_TRUNK = (
    ("conv1_1", 64), ("conv1_2", 64), ("pool1", 0), ("conv2_1", 128), ("conv2_2", 128), ("pool2", 0),
    ("conv3_1", 256), ("conv3_2", 256), ("conv3_3", 256), ("conv3_4", 256), ("pool3", 0),
    ("conv4_1", 512), ("conv4_2", 512), ("conv4_3_CPM", 256), ("conv4_4_CPM", 128),
)  # fmt: skip
_PRELU_TRUNK = ("conv4_2", "conv4_3_CPM", "conv4_4_CPM")
FEATURES = "conv4_4_CPM"
PICTURE = "picture"


@dataclass(frozen=True, slots=True)
class Conv:
    """A convolution of stride 1 that keeps the size, of its sources side by side, and what follows it.

    after: `relu`, the name of a PReLU layer, or nothing.
    """

    name: str
    sources: tuple[str, ...]
    channels: tuple[int, int]
    kernel: int
    after: str = "relu"

    @property
    def prelu(self) -> str:
        """The name of its PReLU layer, empty when it has none."""
        return "" if self.after == "relu" else self.after


@dataclass(frozen=True, slots=True)
class Pool:
    """The largest of 2 x 2."""

    name: str
    source: str


@dataclass(frozen=True, slots=True)
class Plan:
    """A network: its layers in order, and the layers whose results leave it."""

    name: str
    layers: tuple[Conv | Pool, ...]
    heatmaps: str
    fields: str

    def blobs(self) -> dict[str, tuple[Shape, ...]]:
        """The shapes of every layer's numbers: a convolution's weights OIHW and bias, a PReLU's slope per channel."""
        found: dict[str, tuple[Shape, ...]] = {}
        for layer in self.layers:
            if isinstance(layer, Conv):
                into, out = layer.channels
                found[layer.name] = ((out, into, layer.kernel, layer.kernel), (out,))
                if layer.prelu:
                    found[layer.prelu] = ((out,),)
        return found


class _Builder:
    def __init__(self, prelu: bool) -> None:
        self.layers: list[Conv | Pool] = []
        self._out = {PICTURE: 3}
        last = PICTURE
        for name, width in _TRUNK:
            if width:
                last = self.conv(name, (last,), width, 3, name.replace("conv", "prelu") if prelu and name in _PRELU_TRUNK else "relu")
            else:
                self.layers.append(Pool(name, last))
                self._out[name], last = self._out[last], name

    def conv(self, name: str, sources: tuple[str, ...], width: int, kernel: int, after: str = "relu") -> str:
        self.layers.append(Conv(name, sources, (sum(self._out[s] for s in sources), width), kernel, after))
        self._out[name] = width
        return name


def _body25() -> Plan:
    build = _Builder(prelu=True)

    def stage(end: str, sources: tuple[str, ...], out: int, *, first: bool) -> str:
        for block in range(1, 6):
            parts: tuple[str, ...] = ()
            for k in range(3):
                into = parts[-1:] or sources
                parts += (build.conv(f"Mconv{block}_{end}_{k}", into, 96 if first else 128, 3, f"Mprelu{block}_{end}_{k}"),)
            sources = parts
        wide = build.conv(f"Mconv6_{end}", sources, 256 if first else 512, 1, f"Mprelu6_{end}")
        return build.conv(f"Mconv7_{end}", (wide,), out, 1, "")

    fields = stage("stage0_L2", (FEATURES,), 52, first=True)
    for s in (1, 2, 3):
        fields = stage(f"stage{s}_L2", (FEATURES, fields), 52, first=False)
    heat = stage("stage0_L1", (FEATURES, fields), 26, first=True)
    heat = stage("stage1_L1", (FEATURES, heat, fields), 26, first=False)
    return Plan("body25", tuple(build.layers), heat, fields)


def _coco18() -> Plan:
    build = _Builder(prelu=False)

    def first(branch: str, out: int) -> str:
        last = FEATURES
        for k, (width, kernel) in enumerate(((128, 3), (128, 3), (128, 3), (512, 1)), 1):
            last = build.conv(f"conv5_{k}_CPM_{branch}", (last,), width, kernel)
        return build.conv(f"conv5_5_CPM_{branch}", (last,), out, 1, "")

    def later(s: int, branch: str, sources: tuple[str, ...], out: int) -> str:
        for k in range(1, 6):
            sources = (build.conv(f"Mconv{k}_stage{s}_{branch}", sources, 128, 7),)
        last = build.conv(f"Mconv6_stage{s}_{branch}", sources, 128, 1)
        return build.conv(f"Mconv7_stage{s}_{branch}", (last,), out, 1, "")

    fields, heat = first("L1", 38), first("L2", 19)
    for s in range(2, 7):
        sources = (fields, heat, FEATURES)
        fields, heat = later(s, "L1", sources, 38), later(s, "L2", sources, 19)
    return Plan("coco18", tuple(build.layers), heat, fields)


PLANS = {plan.name: plan for plan in (_body25(), _coco18())}


def plan(name: str) -> Plan:
    """The network of that name (`body25`, `coco18`); EngineError with the nearest name when there is none."""
    try:
        return PLANS[name]
    except KeyError:
        raise EngineError(f"there is no OpenPose network {name!r}", hint=did_you_mean(name, PLANS)) from None
