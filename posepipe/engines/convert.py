"""A network in other numbers: float16 inside, or int8 with ranges read from real pictures. Its inputs and outputs stay as they were.

Conversions are kept in the cache. The number types are rewritten by the tools of ONNX Runtime (MIT licence): `onnxruntime.transformers.float16`
and `onnxruntime.quantization`.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import tempfile
from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.checker
import onnx.version_converter
from google.protobuf.message import DecodeError

from ..pipeline.errors import EngineError
from .assets import catalogue, home
from .cache import sha256_of
from .engine import Arrays, Precision
from .files import cannot_keep, write_whole

VERSION = 2
"""Counts changes of what is written here, so that conversions of an older posepipe are not used."""

_MARK = "posepipe.precision"
# Sums over many numbers, and what is raised to a power, leave float16's range (65504) or its 11 bits first.
_WIDE = (
    "Softmax", "LogSoftmax", "Exp", "Log", "Pow", "ReduceSum", "ReduceMean", "ReduceSumSquare", "ReduceL1", "ReduceL2", "ReduceLogSum",
    "ReduceLogSumExp", "ReduceProd", "CumSum", "LayerNormalization", "InstanceNormalization", "GroupNormalization",
)  # fmt: skip
_ARRANGING = frozenset({"Transpose", "Cast", "Mul", "Add", "Sub", "Div", "Reshape", "Concat", "Gather", "Split", "Slice"})
WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


def for_precision(path: Path, *, runtime: str, precision: str) -> Path:
    """The file that a runtime opens for a precision: the network itself, or its conversion where the precision lives in the file.

    Makes the float16 file when it is not there. Raises EngineError when there is no int8 file, and as `to_fp16`.
    """
    if runtime not in ("onnxruntime", "openvino"):
        return path  # TensorRT and torch have ways of their own
    if precision == "fp16":
        return to_fp16(path)
    if precision != "int8":
        return path
    if (kept := kept_int8(path)) is not None:
        return kept
    name = network_of(path)
    hint = f"`posepipe engines quantize {name or 'CARD'}` makes it from pictures of a recording"
    raise EngineError("there is no int8 version of this network on this machine", where=name or str(path), hint=hint)


def damaged(path: Path) -> bool:
    """Whether a file that was made here is no ONNX network any more."""
    try:
        onnx.checker.check_model(onnx.load(path))
    except (onnx.checker.ValidationError, DecodeError, OSError):
        return True
    return False


def network_of(path: Path) -> str:
    """The name of the card that a network file belongs to, or the path of the user's card beside it; empty when there is none."""
    for name, one in catalogue().items():  # several networks that come with posepipe share a folder
        if any(path == one.folder / f.name for f in one.files):
            return name
    for name, one in catalogue().items():
        if path.parent == one.folder or any(f.sha256 and path.name.startswith(f.sha256[:16]) for f in one.files):
            return name
    card = path.parent / "card.toml"
    return str(card) if card.is_file() else ""


def to_fp16(path: Path) -> Path:
    """The network with float16 inside, made when it is not in the cache yet. A network that has float16 inside already is its own.

    Inputs and outputs keep names, shapes and number types. Softmax, sums, means, norms, powers and exponentials stay float32, what scales
    an integer input, and what is behind the last layers with weights. Weights that float16 cannot hold become its largest number: `posepipe engines verify` tells what that does.
    Raises EngineError for a file that is not an ONNX network, one with weights outside the file, and when the result cannot be kept.
    """
    kept = _kept(path, "fp16")
    if kept.is_file():
        return kept
    model = _load(path)
    if _marked(model) or not _has_floats(model):
        return path
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    name_nodes(model)
    _own_empty_scales(model.graph)
    own = {n.name for n in model.graph.node}
    try:
        with _silence():
            half = convert_float_to_float16(
                model,
                keep_io_types=True,
                op_block_list=DEFAULT_OP_BLOCK_LIST,
                node_block_list=sorted(stays_wide(model)),
            )
    except (ValueError, RuntimeError, AssertionError, onnx.shape_inference.InferenceError) as e:
        raise EngineError(f"cannot be converted to float16: {e}", where=str(path), hint="run it with `precision: fp32`") from e
    _without_detours(half.graph, own)
    _sort(half.graph)
    _keep(half, kept, "fp16")
    return kept


def kept_int8(path: Path) -> Path | None:
    """The int8 version of a network, if `to_int8` made one on this machine."""
    kept = _kept(path, "int8")
    return kept if kept.is_file() else None


def to_int8(path: Path, samples: Sequence[Arrays], *, first_floats: int = 0) -> Path:
    """The network with 8-bit convolutions, made anew: weights per output channel, ranges of activations as the samples have them.

    samples: inputs of the network, the batch first, such as it will see in use: a hundred crops of a recording do. Static QDQ, unsigned
    activations, which OpenVINO and ONNX Runtime turn into integer kernels. float32 stay: the layers behind which no other layer has weights
    (the heads), whose outputs are decoded; the first `first_floats` layers with weights, whose pictures are large and whose ranges are wide;
    and additions, so that what skips layers is not rounded again and again. Raises EngineError as `to_fp16`, and when there is no sample.
    """
    if not samples:
        raise EngineError("no picture to read the ranges of activations from", where=str(path), hint="name a recording with people in it")
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        """The samples, one call after the other."""

        def __init__(self) -> None:
            self._left: Iterator[Arrays] = iter(samples)

        def get_next(self) -> dict[str, Any] | None:
            found = next(self._left, None)
            return None if found is None else dict(found)

    kept = _kept(path, "int8")
    model = at_least(_load(path), 13)  # before, scales per channel are not known
    name_nodes(model)
    weighted = layers(model)
    added = [n.name for n in model.graph.node if n.op_type in ("Add", "Resize")]
    with tempfile.TemporaryDirectory() as folder, _silence():
        file = Path(folder) / "int8.onnx"
        try:
            quantize_static(
                model,
                file,
                Reader(),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=[*_heads(model), *weighted[:first_floats], *added],
                calibrate_method=CalibrationMethod.MinMax,
            )
            quantised = onnx.load(file)
        except (ValueError, RuntimeError, OSError, onnx.shape_inference.InferenceError) as e:
            raise EngineError(f"cannot be quantised: {e}", where=str(path), hint="run it with `precision: auto`") from e
    _keep(quantised, kept, "int8")
    return kept


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """The tools advise on the root log, which is everybody's: only what their own files say there is left out, errors excepted."""
    import onnxruntime

    tools = Path(onnxruntime.__file__).parent

    def of_others(record: logging.LogRecord) -> bool:
        return record.levelno > logging.WARNING or not Path(record.pathname).is_relative_to(tools)

    spoken_to = [logging.root, logging.getLogger("onnxruntime.transformers.float16")]
    taken = logging.NullHandler()  # who speaks on a root log without a handler gives it one that prints
    logging.root.addHandler(taken)
    for log in spoken_to:
        log.addFilter(of_others)
    try:
        yield
    finally:
        for log in spoken_to:
            log.removeFilter(of_others)
        logging.root.removeHandler(taken)


def at_least(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """The same network in this version of the operators, or a newer one that it has already. EngineError when it cannot be raised."""
    if max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=opset) >= opset:
        return model
    try:
        return onnx.version_converter.convert_version(model, opset)
    except (onnx.version_converter.ConvertError, RuntimeError) as e:
        raise EngineError(f"cannot be raised to opset {opset}: {e}", hint="export it again with a newer opset") from e


def layers(model: onnx.ModelProto) -> list[str]:
    """The names of the nodes with weights, in order."""
    return [n.name for n in model.graph.node if n.op_type in WEIGHTED]


def stays_wide(model: onnx.ModelProto) -> Set[str]:
    """The names of the nodes that float32 is kept for. All nodes must have names."""
    return {*_preamble(model), *_tail(model), *(n.name for n in model.graph.node if n.op_type in _WIDE)}


def _kept(path: Path, precision: Precision) -> Path:
    """Where a conversion is kept: named by what it is made from and by what makes it."""
    if not path.is_file():
        raise EngineError("there is no such network file", where=str(path), hint="`posepipe pull` lists the networks that it fetches")
    tool = importlib.metadata.version("onnxruntime")
    return home() / "onnx" / f"{sha256_of(path)[:16]}-{precision}-v{VERSION}-ort{tool}.onnx"


def _load(path: Path) -> onnx.ModelProto:
    try:
        model = onnx.load(path)
    except DecodeError as e:
        raise EngineError(f"not an ONNX network: {e}", where=str(path), hint="export it again") from e
    except OSError as e:
        hint = "keep the weights in the file itself (onnx.save without external data)"
        raise EngineError(f"the network cannot be read: {e}", where=str(path), hint=hint) from e
    if not model.graph.node:
        raise EngineError("not an ONNX network: there is no graph in it", where=str(path), hint="export it again")
    return model


def _keep(model: onnx.ModelProto, kept: Path, precision: Precision) -> None:
    mark = model.metadata_props.add()
    mark.key, mark.value = _MARK, precision
    try:
        write_whole(kept, model.SerializeToString())
    except OSError as e:
        raise cannot_keep("the converted network", kept.parent, e) from e


def _marked(model: onnx.ModelProto) -> bool:
    return any(p.key == _MARK for p in model.metadata_props)


def _has_floats(model: onnx.ModelProto) -> bool:
    """Whether there are float32 weights to convert."""
    constants = [a.t for n in model.graph.node if n.op_type == "Constant" for a in n.attribute if a.name == "value"]
    return any(t.data_type == onnx.TensorProto.FLOAT for t in (*model.graph.initializer, *constants))


def name_nodes(model: onnx.ModelProto) -> None:
    """The tools address nodes by name."""
    taken = {n.name for n in model.graph.node}
    for i, node in enumerate(model.graph.node):
        if not node.name:
            node.name = next(name for k in range(len(taken) + 2) if (name := f"node_{i}_{k}") not in taken)
            taken.add(node.name)


def _preamble(model: onnx.ModelProto) -> list[str]:
    """The nodes in front of the first layers with weights that turn integer inputs into scaled numbers: 255 levels deserve float32."""
    integers = {i.name for i in model.graph.input if i.type.tensor_type.elem_type not in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)}
    reached, names = set(integers), []
    for node in model.graph.node:
        if node.op_type in _ARRANGING and reached.intersection(node.input):
            reached.update(node.output)
            names.append(node.name)
    return names


def _tail(model: onnx.ModelProto) -> list[str]:
    """What is behind the last layers with weights: decoding, where indices are counted that float16 cannot tell apart."""
    weighted = set(layers(model))
    return [name for name in _heads(model) if name not in weighted]


def _heads(model: onnx.ModelProto) -> list[str]:
    """The layers with weights that no other layer with weights is behind, and everything behind them."""
    behind: set[str] = set()
    heads: list[str] = []
    for node in reversed(model.graph.node):
        if behind.intersection(node.output):
            behind.update(node.input)
            continue
        heads.append(node.name)
        if node.op_type in WEIGHTED:
            behind.update(node.input)
    return heads


def _own_empty_scales(graph: onnx.GraphProto) -> None:
    """A Resize that is given sizes names an empty array as its scales. Shared with an input that becomes float16, it would be reached through
    a cast, behind which nobody sees that it is empty."""
    empty = {i.name: i for i in graph.initializer if i.data_type == onnx.TensorProto.FLOAT and 0 in i.dims}
    for k, node in enumerate(graph.node):
        if node.op_type == "Resize" and len(node.input) > 2 and node.input[2] in empty:
            own = graph.initializer.add()
            own.CopyFrom(empty[node.input[2]])
            own.name = node.input[2] = f"{own.name}/scales/{k}"


def _without_detours(graph: onnx.GraphProto, own: Set[str]) -> None:
    """Between two nodes that stay float32, and from an input to one, the converter goes to float16 and back, which costs time and digits, and
    the range; and for two that take the same numbers it writes the same cast twice, which is no network. own: the network's own nodes."""
    casts: set[str] = set()
    for node in list(graph.node):
        if node.op_type == "Cast" and node.output[0] in casts:
            graph.node.remove(node)
        elif node.op_type == "Cast":
            casts.add(node.output[0])
    narrowed = {n.output[0]: n for n in graph.node if n.name not in own and _casts_to(n, onnx.TensorProto.FLOAT16)}
    for node in graph.node:
        if _casts_to(node, onnx.TensorProto.FLOAT) and node.input[0] in narrowed:
            wide = narrowed[node.input[0]].input[0]
            node.CopyFrom(onnx.helper.make_node("Identity", [wide], [node.output[0]], name=node.name))
    used = {name for node in graph.node for name in node.input} | {o.name for o in graph.output}
    for name, node in narrowed.items():
        if name not in used:
            graph.node.remove(node)
    made = {name for node in graph.node for name in node.output}
    stated = [v for v in graph.value_info if v.name in made]
    del graph.value_info[:]
    graph.value_info.extend(stated)


def _casts_to(node: onnx.NodeProto, kind: int) -> bool:
    return node.op_type == "Cast" and [a.i for a in node.attribute if a.name == "to"] == [kind]


def _sort(graph: onnx.GraphProto) -> None:
    """Every node behind those that it takes from, as the format demands; the converter appends its casts at the end."""
    made_by = {name: i for i, node in enumerate(graph.node) for name in node.output}
    nodes = list(graph.node)
    order: list[int] = []
    done = np.zeros(len(nodes), bool)
    for start in range(len(nodes)):
        stack = [start]
        while stack:
            i = stack[-1]
            missing = [made_by[n] for n in nodes[i].input if n in made_by and not done[made_by[n]]]
            if done[i] or not missing:
                stack.pop()
                if not done[i]:
                    done[i] = True
                    order.append(i)
            else:
                stack.extend(missing)
    ordered = [nodes[i] for i in order]
    del graph.node[:]
    graph.node.extend(ordered)
