"""Layers that stay float32 in bf16: the few of a network that its card names (`[x.bf16]`), because rounding them moves key points most.

Which they are is found by measuring one group of layers after the other (docs/precision.md); 2 of 74 layers make half of what MoveNet is moved by.
"""

from __future__ import annotations

import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Set
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from ..pipeline.errors import EngineError
from .assets import find
from .convert import WEIGHTED, network_of
from .files import cannot_keep

if TYPE_CHECKING:
    import openvino as ov

_FIXED = frozenset({"Parameter", "Const", "Result"})


def layers_of(path: Path) -> tuple[int, ...]:
    """The layers with weights of a network file, counted from 0 in its order, that its card keeps in float32; none without a card."""
    name = network_of(path)
    card = find(name) if name else None
    return card.bf16.fp32_layers if card is not None and card.bf16 is not None else ()


def wide_nodes(model: onnx.ModelProto, layers: Set[int], *, where: str) -> frozenset[str]:
    """The nodes of these layers, by name or else by first output: each layer's own and what follows it, up to the next one with weights.

    Raises EngineError for a layer that the network does not have.
    """
    owner: dict[str, int] = {}
    wide: set[str] = set()
    count = 0
    for node in model.graph.node:
        if node.op_type in WEIGHTED:
            own, count = count, count + 1
        else:
            own = max((owner.get(name, -1) for name in node.input), default=-1)
        owner.update(dict.fromkeys(node.output, own))
        if own in layers:
            wide.add(node.name or node.output[0])
    if layers and max(layers) >= count:
        what = f"its card keeps layer {max(layers)} in float32, and it has {count} layers with weights, counted from 0"
        raise EngineError(what, where=where, hint="correct fp32_layers in the table [bf16] of the card")
    return frozenset(wide)


def marked(core: ov.Core, path: Path, layers: tuple[int, ...]) -> ov.Model:
    """The network of a file for OpenVINO, with the nodes of these layers marked as to be computed in float32.

    OpenVINO's processor plugin heeds the mark, and Python cannot set it on a network in memory: it is written to a file and read again. Raises
    EngineError as `wide_nodes` and where there is no room for that file, RuntimeError as OpenVINO.
    """
    network = onnx.load(path)
    wide = wide_nodes(network, frozenset(layers), where=str(path))
    # OpenVINO calls an operation as its node, or as what it gives where that is an output of the network.
    nodes = {name: n.name or n.output[0] for n in network.graph.node for name in (n.name, *n.output)}
    try:
        with tempfile.TemporaryDirectory(prefix="posepipe-") as folder:
            xml, weights = Path(folder) / "network.xml", Path(folder) / "network.bin"
            _write(core.read_model(path), xml, weights)
            tree, numbers = ET.parse(xml), weights.read_bytes()
    except OSError as e:
        raise cannot_keep("the network with its marks", Path(tempfile.gettempdir()), e) from e
    for layer in tree.getroot().iter("layer"):
        name = layer.get("name", "")
        # One node of the file may become several operations, with a word behind its name.
        node = nodes.get(name) or nodes.get(name.rpartition("/")[0])
        if layer.get("type") not in _FIXED and node in wide:
            info = layer.find("rt_info")
            if info is None:
                info = ET.Element("rt_info")
                layer.insert(0 if layer.find("data") is None else 1, info)
            ET.SubElement(info, "attribute", name="precise", version="0")
    return core.read_model(ET.tostring(tree.getroot()), numbers)


def _write(model: ov.Model, xml: Path, weights: Path) -> None:
    import openvino as ov

    ov.serialize(model, xml, weights)
