"""Weights out of a .caffemodel: the layers of a Caffe NetParameter, read from the protobuf wire format without Caffe.

Numbers of the fields: caffe.proto (BVLC Caffe). NetParameter {layers: 2 (old), layer: 100}; LayerParameter {name: 1, blobs: 7}, the old one
{name: 4, blobs: 6}; BlobProto {shape: 7, data: 5, double_data: 8, num, channels, height, width: 1 to 4 (old)}; BlobShape {dim: 1}.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ....pipeline.errors import EngineError
from ...protobuf import BYTES, VARINT, Broken, Field, fields, varint
from .plan import PLANS, Plan, Shape

if TYPE_CHECKING:
    from .net import OpenPose

Blobs = tuple[NDArray[np.float32], ...]
Layers = Mapping[str, Blobs]

_SHOWN = 5


def read(path: Path) -> dict[str, Blobs]:
    """Every layer that has numbers, by name, in the order of the file.

    Raises EngineError: no such file, not a caffemodel, one that ends in the middle.
    """
    where = str(path)
    try:
        content = path.read_bytes()
    except OSError as e:
        raise EngineError(f"cannot read the weights: {e.strerror or e}", where=where, hint="give the path of the .caffemodel") from e
    try:
        return _layers(content)
    except Broken as e:
        hint = "give the .caffemodel itself (not the .prototxt), and compare its size with the publisher's: a broken download ends early"
        raise EngineError(f"not a whole caffemodel: {e}", where=where, hint=hint) from e


def _layers(content: bytes) -> dict[str, Blobs]:
    found: dict[str, Blobs] = {}
    for message in fields(content, 0, len(content)):
        if message.number not in (2, 100) or message.kind != BYTES:
            continue
        name_at, blobs_at = (1, 7) if message.number == 100 else (4, 6)
        name, blobs = "", []
        for part in fields(content, message.begin, message.end):
            if part.number == name_at:
                name = content[part.begin : part.end].decode("utf-8", "replace")
            elif part.number == blobs_at:
                blobs.append(part)
        if blobs:
            found[name] = tuple(_blob(content, b, name) for b in blobs)
    if not found:
        raise Broken("it holds no layer with numbers")
    return found


def _blob(content: bytes, blob: Field, layer: str) -> NDArray[np.float32]:
    parts: list[NDArray[Any]] = []
    shape: list[int] = []
    old = [0, 0, 0, 0]
    for field in fields(content, blob.begin, blob.end):
        if 1 <= field.number <= 4:
            old[field.number - 1] = field.value
        elif field.number in (5, 8):
            size, length = 4 if field.number == 5 else 8, field.end - field.begin
            if length % size:
                raise Broken(f"the numbers of layer {layer!r} are cut off")
            parts.append(np.frombuffer(content, f"<f{size}", length // size, field.begin).astype(np.float32))
        elif field.number == 7:
            shape = _dims(content, field)
    data = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    if not shape and any(old):
        shape = old
    if np.prod(shape, dtype=np.float64) != data.size:
        raise Broken(f"layer {layer!r} should have numbers of the shape {shape} and has {data.size}")
    return data.reshape(shape)


def _dims(content: bytes, shape: Field) -> list[int]:
    found = []
    for field in fields(content, shape.begin, shape.end):
        if field.number == 1 and field.kind == VARINT:
            found.append(field.value)
        elif field.number == 1:
            at = field.begin
            while at < field.end:
                dim, at = varint(content, at, field.end)
                found.append(dim)
    return found


def scalars(layers: Layers) -> int:
    """How many numbers these layers have."""
    return sum(blob.size for blobs in layers.values() for blob in blobs)


def plan_of(layers: Layers, *, where: str) -> Plan:
    """The network that most of the layers' names belong to. EngineError when it is none that posepipe knows."""
    best = max(PLANS.values(), key=lambda p: len(p.blobs().keys() & layers.keys()) / len(p.blobs()))
    if 2 * len(best.blobs().keys() & layers.keys()) < len(best.blobs()):
        hint = "posepipe imports the BODY_25 and the COCO model of CMU OpenPose"
        raise EngineError(f"these are the weights of another network: its layers are {_some(list(layers))}", where=where, hint=hint)
    return best


def matched(plan: Plan, layers: Layers, *, where: str) -> dict[str, Blobs]:
    """The layers with the shapes that the plan has, in its order.

    Raises EngineError that lists the first differences: layers that are missing, too many, or of another shape; or numbers not finite.
    """
    wanted = plan.blobs()
    if (other := plan_of(layers, where=where)) is not plan:
        raise EngineError(f"these are the weights of {other.name}, not of {plan.name}", where=where, hint=f"write --model {other.name}")
    wrong = [f"{name} is missing" for name in wanted if name not in layers]
    wrong += [f"{name} is too much" for name in layers if name not in wanted]
    found: dict[str, Blobs] = {}
    for name, shapes in wanted.items():
        blobs = layers.get(name, ())
        if name in layers and [_plain(b.shape) for b in blobs] != [_plain(s) for s in shapes]:
            given, right = (" and ".join(str(list(s)) for s in part) for part in ([b.shape for b in blobs], shapes))
            wrong.append(f"{name} has {given} instead of {right}")
        elif not all(np.isfinite(b).all() for b in blobs):
            wrong.append(f"{name} has numbers that are not finite")
        else:
            found[name] = tuple(b.reshape(s) for b, s in zip(blobs, shapes, strict=False))
    if wrong:
        have, want = scalars(layers), sum(int(np.prod(s)) for shapes in wanted.values() for s in shapes)
        total = f" ({have:,} numbers, {plan.name} has {want:,})" if have != want else ""
        raise EngineError(
            f"the weights do not fit {plan.name}{total}: {_some(wrong, '; ')}",
            where=where,
            hint="take the file that the publisher names for this network, unchanged",
        )
    return found


def _plain(shape: Shape) -> Shape:
    """Old files write every shape with four numbers, ones in front."""
    first = next((i for i, n in enumerate(shape) if n != 1), len(shape) - 1)
    return tuple(shape[first:])


def _some(texts: list[str], between: str = ", ") -> str:
    more = f"{between}and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return between.join(texts[:_SHOWN]) + more


def load_into(net: OpenPose, path: Path) -> None:
    """Fill a network with the weights of a file. Raises EngineError as `read` and `matched` do; the network is then unchanged."""
    import torch

    found = matched(net.plan, read(path), where=str(path))
    with torch.no_grad():
        for name, parameters in net.layers().items():
            for parameter, blob in zip(parameters, found[name], strict=True):
                parameter.copy_(torch.from_numpy(blob))
