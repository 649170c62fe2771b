"""The runtimes without posepipe's interface, used as well as plain code can: what `posepipe bench --engine` compares engines with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from .bf16 import layers_of, marked
from .engine import Arrays

Call = Callable[[Arrays], object]


def bare(runtime: str, path: Path, *, precision: str, threads: int, batch: int) -> Mapping[str, Call]:
    """The ways of running a network with a runtime alone, by name, with the session settings of its engine; none for runtimes on a GPU
    and for the stub. `path`: the file that the engine opens."""
    if runtime == "onnxruntime":
        return {"session.run": _onnxruntime(path, threads)}
    if runtime == "openvino":
        return _openvino(path, precision, threads, batch)
    return {}


def _onnxruntime(path: Path, threads: int) -> Call:
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    settings.log_severity_level = 3
    session = ort.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return lambda inputs: session.run(names, inputs)


def _openvino(path: Path, precision: str, threads: int, batch: int) -> Mapping[str, Call]:
    """The whole batch in one request, and, where there are threads for it, a share of the batch in a request for each: compiled for their sizes where
    the network leaves its batch open and the shares are equal."""
    import openvino as ov

    core = ov.Core()
    native = {"bf16": "BF16", "int8": "BF16", "fp16": "FP16"}.get(precision, "none") in core.get_property(
        "CPU", "OPTIMIZATION_CAPABILITIES"
    )
    settings: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": ("f16" if precision == "fp16" else "bf16") if native else "f32",
        "ENABLE_CPU_PINNING": False,
    }
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    layers = layers_of(path) if precision == "bf16" and native else ()
    model = marked(core, path, layers) if layers else core.read_model(path)
    whole = core.compile_model(_of_size(model, batch), "CPU", settings)
    request = whole.create_infer_request()
    ways: dict[str, Call] = {"one request": lambda inputs: request.infer(inputs, share_inputs=True, share_outputs=True)}
    cores = int(whole.get_property("INFERENCE_NUM_THREADS"))
    parts = 1 << (min(batch, cores).bit_length() - 1)
    if parts > 1:
        streams = {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": parts, "INFERENCE_NUM_THREADS": cores}
        share = model if batch % parts else _of_size(model, batch // parts)
        compiled = core.compile_model(share, "CPU", {**settings, **streams})
        requests = [compiled.create_infer_request() for _ in range(parts)]
        slices = [slice(a, b) for a, b in pairwise(i * batch // parts for i in range(parts + 1))]

        def divided(inputs: Arrays) -> object:
            for one, part in zip(requests, slices, strict=True):
                one.start_async({name: array[part] for name, array in inputs.items()}, share_inputs=True)
            for one in requests:
                one.wait()
            return [one.results for one in requests]

        ways["divided"] = divided
    return ways


def _of_size(model: Any, batch: int) -> Any:
    shapes = [port.get_partial_shape() for port in model.inputs]
    if not all(len(s) and s[0].is_dynamic and all(d.is_static for d in list(s)[1:]) for s in shapes):
        return model
    fixed = model.clone()
    fixed.reshape({i: [batch, *(d.get_length() for d in list(s)[1:])] for i, s in enumerate(shapes)})
    return fixed
