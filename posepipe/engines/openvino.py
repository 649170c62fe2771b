"""OpenVINO on the CPU."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from ..pipeline.errors import EngineError
from . import cache
from .bf16 import layers_of, marked
from .device import processor
from .engine import OTHERWISE, Arrays, Engine, EngineOptions, Precision, TensorSpec

_LOG = logging.getLogger("posepipe")
_LAYOUT = 2
"""Counts changes of what is kept: one line of JSON with the names and shapes of the file, then what OpenVINO exports."""
_PIECE = 4
"""Larger batches are not faster by the picture, and each size is compiled and held in memory by itself."""


class OpenvinoEngine(Engine):
    """One compiled network, set for latency. A batch is cut into pieces of at most four, each compiled for its size: BlazePose takes a tenth more
    time where its batch is left open. What was compiled is kept, so that only the first start of a network compiles.

    A batch is divided among the threads, each of which runs its share by itself. Threads that work on one picture together wait for each other at every
    layer, which costs a tenth of their time on two cores, and more where decoders keep taking one of the cores away. A batch of one is run by all
    threads. Of several instances each has its part of the threads, and buffers of its own.
    precision auto: bf16 where the processor multiplies it natively (AVX512-BF16 or AMX; OpenVINO says), else fp32.
    """

    def __init__(self, path: Path, options: EngineOptions, reason: str) -> None:
        self._core = ov.Core()
        precision, can = options.precision, self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        native = "BF16" in can
        if precision == "bf16" and not native:
            raise EngineError("this processor has no native bf16", where=str(path), hint="write `precision: auto` or `precision: fp32`")
        done: Precision = ("bf16" if native else "fp32") if precision == "auto" else precision
        inside = {"bf16": "bf16", "fp32": "f32", "fp16": "f16" if "FP16" in can else "f32", "int8": "bf16" if native else "f32"}[done]
        self._settings: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": inside,
            "ENABLE_CPU_PINNING": False,  # other engines and the decoders share the cores
        }
        if options.threads:
            self._settings["INFERENCE_NUM_THREADS"] = options.threads
        self._path = path
        self._wide = layers_of(path) if done == "bf16" else ()
        # Threads and streams are not in the key: what is exported is loaded for any number of them.
        self._key = cache.BuildKey(
            cache.sha256_of(path), "openvino", ov.__version__, processor(), done, f"layout {_LAYOUT} inside {inside}{_except(self._wide)}"
        )
        self.instances = options.instances
        self._compiled: dict[tuple[int, int], Any] = {}
        first = self._load(1, 1)
        self._threads: int = first.get_property("INFERENCE_NUM_THREADS")
        self._opening = threading.Lock()
        self._pieces: dict[tuple[int, int], _Pieces] = {}
        self._divisible = _divisible([*self.inputs, *self.outputs])
        self._requests: list[Any] = [] if self._divisible else [first.create_infer_request() for _ in range(self.instances)]
        self.runtime, self.precision, self.device = "openvino", done, "CPU"
        self.reason = f"{reason}; {_why(precision, done, inside)}{_except(self._wide)}"

    def _load(self, size: int, parts: int) -> Any:
        """The network for batches of this size (for any, where its batch is not what is left open), so many of them at a time in each instance: from
        what is kept, or compiled, and then kept. Sets `inputs` and `outputs`.

        What is exported holds the network with its weights as compiling left them, good for any number of threads and streams: loading it takes half
        the time of compiling or less, and gives the same answers to the last bit.
        """
        if (size, parts) in self._compiled:
            return self._compiled[size, parts]
        streams = parts * self.instances
        settings = self._settings | ({"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": streams} if streams > 1 else {})
        if parts > 1:
            settings["INFERENCE_NUM_THREADS"] = self._threads
        key = self._key if size == 1 else replace(self._key, shapes=f"{self._key.shapes} batch {size}")
        made_now: list[Any] = []

        def make() -> bytes:
            ports, found = self._compile(settings, size)
            made_now[:] = [found]
            return json.dumps(ports).encode() + b"\n" + bytes(found.export_model().getvalue())

        kept, made = cache.build(key, make, source=self._path)
        if not made:
            try:
                self._compiled[size, parts] = self._import(kept, settings)
                return self._compiled[size, parts]
            except (RuntimeError, ValueError, KeyError, TypeError) as e:
                _LOG.warning("%s: what was compiled before does not load (%s): compiled anew", self._path, _gist(e))
            kept, _ = cache.build(key, make, source=self._path, again=True)
        self._ports(kept)
        self._compiled[size, parts] = made_now[0]
        return made_now[0]

    def _compile(self, settings: Mapping[str, Any], size: int) -> tuple[dict[str, Any], Any]:
        try:
            model = self._core.read_model(self._path)
            # Names and shapes as the file has them: compiling merges tensors, and then a port may go by another one's name.
            ports = {"inputs": [_said(p) for p in model.inputs], "outputs": [_said(p) for p in model.outputs]}
            if self._wide:
                model = marked(self._core, self._path, self._wide)
            if _divisible([TensorSpec(n, tuple(s), np.dtype(t)) for n, s, t in (*ports["inputs"], *ports["outputs"])]):
                # One that some sizes of batch do not fit says so when it is run.
                with contextlib.suppress(RuntimeError):
                    model.reshape({name: [size, *shape[1:]] for name, shape, _ in ports["inputs"]})
            return ports, self._core.compile_model(model, "CPU", dict(settings))
        except RuntimeError as e:
            raise EngineError(f"not a network that OpenVINO can load: {_gist(e)}", where=str(self._path), hint=OTHERWISE) from e

    def _import(self, kept: bytes, settings: Mapping[str, Any]) -> Any:
        return self._core.import_model(self._ports(kept), "CPU", dict(settings))

    def _ports(self, kept: bytes) -> bytes:
        """What OpenVINO exported; the names and shapes in front of it become those of this engine."""
        head, _, blob = kept.partition(b"\n")
        ports = json.loads(head)
        self.inputs, self.outputs = (tuple(TensorSpec(n, tuple(s), np.dtype(t)) for n, s, t in ports[k]) for k in ("inputs", "outputs"))
        return blob

    def _run(self, inputs: Arrays, instance: int) -> dict[str, NDArray[Any]]:
        batch = len(next(iter(inputs.values())))
        try:
            if not self._divisible:
                found = self._requests[instance].infer(dict(inputs), share_inputs=True, share_outputs=True)
                return {spec.name: found[i] for i, spec in enumerate(self.outputs)}
            if (batch, instance) not in self._pieces:
                self._pieces[batch, instance] = self._cut(batch)
            return self._pieces[batch, instance].run(inputs)
        except RuntimeError as e:
            raise self._failed(_gist(e), str(self._path)) from e

    def _cut(self, batch: int) -> _Pieces:
        # Powers of two, so that a machine with many cores compiles few variants.
        parts = 1 << (min(batch, max(1, self._threads // self.instances)).bit_length() - 1)
        bounds = [i * batch // parts for i in range(parts + 1)]
        shares = [[slice(at, min(at + _PIECE, b)) for at in range(a, b, _PIECE)] for a, b in pairwise(bounds)]
        with self._opening:
            rounds = [
                [(part, self._load(part.stop - part.start, parts).create_infer_request()) for part in turn if part is not None]
                for turn in zip_longest(*shares)
            ]
        return _Pieces(rounds, self.outputs, batch)

    def _close(self) -> None:
        self._core = None
        self._requests, self._compiled, self._pieces = [], {}, {}


class _Pieces:
    """A batch of one size in pieces, those of one round at the same time; their outputs are slices of one array each."""

    def __init__(self, rounds: list[list[tuple[slice, Any]]], outputs: tuple[TensorSpec, ...], batch: int) -> None:
        self._rounds = rounds
        self._outputs = {spec.name: np.empty((batch, *spec.shape[1:]), spec.dtype) for spec in outputs}
        for part, request in (one for turn in rounds for one in turn):
            for i, array in enumerate(self._outputs.values()):
                request.set_output_tensor(i, ov.Tensor(array[part], shared_memory=True))

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        for turn in self._rounds:
            for part, request in turn:
                request.start_async({name: array[part] for name, array in inputs.items()}, share_inputs=True)
            failed: RuntimeError | None = None
            for _, request in turn:  # all of them, also when one fails: they write into what the next run writes into
                try:
                    request.wait()
                except RuntimeError as e:
                    failed = failed or e
            if failed is not None:
                raise failed
        return dict(self._outputs)


def _divisible(specs: Sequence[TensorSpec]) -> bool:
    """Whether the batch, and nothing else, is left open."""
    return all(s.shape and s.shape[0] < 0 and min(s.shape[1:], default=0) >= 0 for s in specs)


def _why(asked: str, done: str, inside: str) -> str:
    if asked == "auto":
        return f"precision auto: this processor {'has' if done == 'bf16' else 'lacks'} native bf16"
    if done == "fp16" and inside == "f32":
        return "precision asked for: weights rounded to fp16, computed in fp32, since this processor has no native fp16"
    return "precision asked for"


def _except(layers: tuple[int, ...]) -> str:
    return f", of {len(layers)} layers float32 ({', '.join(map(str, layers))})" if layers else ""


def _said(port: Any) -> tuple[str, list[int], str]:
    shape = [d.get_length() if d.is_static else -1 for d in port.get_partial_shape()]
    return port.get_any_name(), shape, np.dtype(port.get_element_type().to_dtype()).name


def _gist(e: Exception) -> str:
    """OpenVINO puts the places in its own source first and the reason last."""
    lines = [line.strip() for line in str(e).splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
