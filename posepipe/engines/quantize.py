"""An int8 version of a network, made from pictures of a recording: as many layers in 8 bits as its card's tolerance allows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx

from .convert import layers, to_int8
from .runtimes import ON_CPU, runtimes
from .verify import INSTANTS, RECORDING, Cut, Says, Subject, compare, open_for, run_all, seen_by, within

_STEPS = (0, 4, 8, 12, 16, 24, 32)


@dataclass(frozen=True, slots=True)
class Quantised:
    """An int8 version: where it is, how many of the layers with weights it has, how many of them stayed float32, and whether the pictures
    that were held back moved within the card's tolerance."""

    path: Path
    layers: int
    floats: int
    within: bool


def quantize(
    name: str, *, recording: str = RECORDING, instants: int = INSTANTS, cut: Cut | None = None, say: Says = lambda text: None
) -> Quantised:
    """Make the int8 version of a network, which `precision: int8` opens from then on.

    Every other crop of the recording (or of what `cut` makes, as in `verify`) gives the ranges, the rest is looked at: while their key points move too far in one of the runtimes
    here, more of the first layers stay float32. When nothing suffices the last try is kept, and `verify` says that it exceeds. Raises EngineError, PullError.
    """
    network = Subject(name)
    seen = seen_by(network, recording, instants=instants, cut=cut, say=say)
    ranges, held = seen[::2], seen[1::2]
    reference = run_all(open_for(network.path, "onnxruntime", "fp32"), network.input, held)
    usable = [r.name for r in runtimes() if r.usable and r.name in ON_CPU]
    count = len(layers(onnx.load(network.path, load_external_data=False)))
    for first in (n for n in _STEPS if n < count or n == 0):
        say(f"int8 with the first {first} of {count} layers in float32")
        path = to_int8(network.path, [{network.input: ranges[i : i + 1]} for i in range(len(ranges))], first_floats=first)
        tried = (run_all(open_for(network.path, runtime, "int8"), network.input, held) for runtime in usable)
        if good := all(within(network, compare(network, reference, found)) for found in tried):
            break
    return Quantised(path, count, first, good)
