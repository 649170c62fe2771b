"""From an ONNX file to a TensorRT plan, for the modules `tensorrt` (10, 11) and `tensorrt_rtx`. TensorRT for RTX needs no GPU for it.

Networks are strongly typed: the precision is what the ONNX file says. fp32 is float32 throughout (TF32, which keeps only 10 of the 23 bits of
a product's factors, stays off: it would be neither the reference nor as fast as fp16); fp16 is the file that `convert.to_fp16` makes.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from google.protobuf.message import DecodeError

from ..pipeline.errors import EngineError
from . import cache, device
from .assets import find
from .engine import EngineOptions, Precision, TensorSpec
from .files import write_whole

Shapes = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
"""The least, the usual and the largest."""

Progress = Callable[[str], None]
"""Takes one line for every phase of a build."""

MODULES = ("tensorrt", "tensorrt_rtx")
PORTABLE = "portable"
"""Device of a TensorRT for RTX plan that runs on every GPU from sm80 on, when none is named and none is here."""

_USUAL = 4  # the batch that kernels are chosen for: the views of a small studio
log = logging.getLogger(__name__)


def module_for(options: EngineOptions) -> tuple[str, Any]:
    """(name, module) of the TensorRT that the options name; `auto` takes the one that is installed. EngineError when it is not."""
    wanted = (options.runtime,) if options.runtime in MODULES else MODULES
    name = next((n for n in wanted if importlib.util.find_spec(n) is not None), None)
    if name is None:
        hint = f"pip install posepipe[{wanted[0].replace('_', '-')}]" if len(wanted) == 1 else "pip install posepipe[tensorrt-rtx]"
        raise EngineError(f"{' or '.join(wanted)} is not installed", hint=hint)
    try:
        return name, importlib.import_module(name)
    except (ImportError, OSError) as e:
        raise EngineError(f"{name} is installed but does not load: {e}", hint="install it again, with the libraries it names") from e


def build_plan(
    path: Path,
    *,
    options: EngineOptions,
    capability: str | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    progress: Progress = log.info,
    again: bool = False,
) -> bytes:
    """The plan of a network, made once and kept (again: made anew, since what is kept does not serve).

    capability: the GPU it is for, such as `sm89`; None: the first GPU here, without one any from sm80 on (TensorRT for RTX only).
    shapes: of inputs whose height, width, ... the file leaves open, -1 for the batch; None: as the network's card states them. Batches run
    from 1 to `options.max_batch`.
    Raises EngineError: not installed, a precision or a GPU that it does not build for, a network that it does not take (with its words).
    """
    name, trt = module_for(options)
    capability = capability or (device.driver().gpus[0].capability if device.driver().gpus else None)
    _must_build_for(name, trt, capability)
    chosen = settle(options, path)
    shapes = _stated(path) if shapes is None else shapes
    key = plan_key(path, options, chosen, capability, shapes)
    made = _Build(name, trt, chosen.source, options.max_batch, capability, dict(shapes), progress)
    plan, new = cache.build(key, made.run, source=path, again=again)
    progress(f"{path.name}: {'built' if new else 'kept'} for {key.device}, {key.precision}, {len(plan) / 1e6:.1f} MB")
    return plan


@dataclass(frozen=True, slots=True)
class Described:
    """What a plan takes and gives. profile: the shapes that it is made for, of inputs that the file leaves open."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    profile: Mapping[str, Shapes]


def describe(path: Path, *, options: EngineOptions, shapes: Mapping[str, tuple[int, ...]] | None = None) -> Described:
    """What `build_plan` would make, read without building: a plan itself cannot be opened without a GPU. Raises EngineError as it does."""
    name, trt = module_for(options)
    chosen, fixed = settle(options, path), dict(_stated(path) if shapes is None else shapes)
    parts = _Build(name, trt, chosen.source, options.max_batch, None, fixed, log.debug).defined(Told(trt))
    network = parts.network
    ends = ([network.get_input(i) for i in range(network.num_inputs)], [network.get_output(i) for i in range(network.num_outputs)])
    inputs, outputs = (tuple(TensorSpec(t.name, tuple(t.shape), np.dtype(trt.nptype(t.dtype))) for t in end) for end in ends)
    return Described(inputs, outputs, parts.profile)


def plan_key(
    path: Path, options: EngineOptions, chosen: Settled, capability: str | None, shapes: Mapping[str, tuple[int, ...]] | None = None
) -> cache.BuildKey:
    """What the plan that `build_plan` makes depends on."""
    name, trt = module_for(options)
    made_from = "" if chosen.source == path else f" of {chosen.source.name}"
    fixed = "".join(f" {n} {list(s)}" for n, s in sorted((_stated(path) if shapes is None else shapes).items()))
    inside = f"batch 1..{options.max_batch}{fixed}{made_from}"
    return cache.BuildKey(cache.sha256_of(path), name, trt.__version__, capability or PORTABLE, chosen.precision, inside)


def _stated(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the inputs whose sizes the file leaves open and its card states; the batch as the file has it. PullError for a bad card."""
    from .convert import network_of

    if not (name := network_of(path)):
        return {}
    stated, found = find(name).input_shapes, {}
    for value in _model(path).graph.input:
        dims, shape = _dims(value), stated.get(value.name, ())
        if min(dims[1:], default=1) < 1 and len(shape) == len(dims) and min(shape[1:]) > 0:
            found[value.name] = (dims[0], *shape[1:])
    return found


def _dims(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    return tuple(d.dim_value if d.HasField("dim_value") else -1 for d in value.type.tensor_type.shape.dim)


@dataclass(frozen=True, slots=True)
class Settled:
    """In what numbers a network is built, from which file, and why."""

    precision: Precision
    source: Path
    why: str


def settle(options: EngineOptions, path: Path) -> Settled:
    """`auto` is fp16, or fp32 for a network that cannot be converted. EngineError for what TensorRT does not take from a file."""
    wanted = options.precision
    if not path.is_file():
        raise EngineError("there is no such network file", where=str(path), hint="`posepipe pull` lists the networks that it fetches")
    if wanted == "bf16":
        raise EngineError(
            "TensorRT's parser does not take bf16 networks", where=str(path), hint="write `precision: fp16`, which loses less"
        )
    if wanted == "int8":
        what = "TensorRT's parser takes int8 only without zero points, which ONNX Runtime's has"
        raise EngineError(what, where=str(path), hint="write `precision: fp16`")
    if wanted == "fp32":
        return Settled("fp32", path, "precision asked for")
    from .convert import to_fp16

    try:
        source = to_fp16(path)
    except (EngineError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as e:
        what = f"this network cannot be had in fp16: {e.what if isinstance(e, EngineError) else e}"
        if wanted == "fp16":
            raise EngineError(what, where=str(path), hint="write `precision: fp32`, or `auto`") from e
        return Settled("fp32", path, f"precision auto: fp32, since {what}")
    return Settled("fp16", source, "precision asked for" if wanted == "fp16" else "precision auto: fp16, which GPUs multiply faster")


def capabilities(trt: Any) -> list[str]:
    """The GPUs that TensorRT for RTX builds for ahead of time: sm75, sm80, ..."""
    members = getattr(getattr(trt, "ComputeCapability", None), "__members__", {})
    return sorted((m.lower() for m in members if m.startswith("SM")), key=lambda m: int(m[2:]))


def no_plan(options: EngineOptions, capability: str) -> str:
    """Why the TensorRT that the options name makes no plan for that GPU, as far as it says so before it tries; empty when it does."""
    try:
        _must_build_for(*module_for(options), capability)
    except EngineError as e:
        return e.what
    return ""


def _must_build_for(name: str, trt: Any, capability: str | None) -> None:
    if name == "tensorrt":
        here = device.driver()
        if here.why or not here.gpus:
            raise EngineError(
                f"tensorrt builds only where its GPU is: {here.why}", hint="build there, or use tensorrt_rtx, which needs none"
            )
        if capability not in (have := {g.capability for g in here.gpus}):
            what = f"tensorrt builds for the GPU that it runs on ({', '.join(sorted(have))}), not for {capability}"
            raise EngineError(what, hint="build there, or use tensorrt_rtx")
    elif capability is not None and capability not in (known := capabilities(trt)):
        hint = f"it builds for {', '.join(known)}; others want `runtime: tensorrt`"
        raise EngineError(f"tensorrt_rtx {trt.__version__} does not build for {capability}", hint=hint)


@dataclass(frozen=True, slots=True)
class _Defined:
    """A network before it is built. All four are kept as long as one is used: TensorRT's objects lean on each other."""

    builder: Any
    network: Any
    config: Any
    profile: dict[str, Shapes]


@dataclass(frozen=True, slots=True)
class _Build:
    name: str
    trt: Any
    source: Path
    most: int
    capability: str | None
    shapes: dict[str, tuple[int, ...]]
    progress: Progress

    def run(self) -> bytes:
        told = Told(self.trt)
        parts = self.defined(told)
        config = parts.config
        if hasattr(config, "progress_monitor"):
            config.progress_monitor = _monitor(self.trt, self.progress)
        timings = self._timings(config)
        plan = parts.builder.build_serialized_network(parts.network, config)
        if plan is None:
            turing = self.name == "tensorrt_rtx" and self.capability == "sm75"
            hint = (
                "for Turing GPUs it has no float32 products: write `runtime: tensorrt`, or `device: cpu`"
                if turing
                else "run it with another runtime"
            )
            raise EngineError(f"{self.name} cannot build this network: {told.last()}", where=str(self.source), hint=hint)
        if timings is not None and (learned := config.get_timing_cache()) is not None:
            try:
                write_whole(timings, bytes(learned.serialize()))
            except OSError as e:
                log.warning("what was measured for a build cannot be kept, the next one takes as long: %s", e)
        return bytes(plan)

    def defined(self, told: Told) -> _Defined:
        """Everything that a build is made from."""
        trt = self.trt
        builder = trt.Builder(told.logger)
        network = builder.create_network(_flags(trt))
        _parse(trt, network, told, self.source, self.shapes)
        config = builder.create_builder_config()
        if hasattr(trt.BuilderFlag, "TF32"):
            config.clear_flag(trt.BuilderFlag.TF32)
        if self.name == "tensorrt_rtx" and self.capability is not None:
            config.num_compute_capabilities = 1
            config.set_compute_capability(getattr(trt.ComputeCapability, self.capability.upper()), 0)
        return _Defined(builder, network, config, self._profile(builder, network, config))

    def _profile(self, builder: Any, network: Any, config: Any) -> dict[str, Shapes]:
        """Shapes of every input whose batch the file leaves open: 1 to the most."""
        profile, found = builder.create_optimization_profile(), {}
        for i in range(network.num_inputs):
            tensor = network.get_input(i)
            shape = tuple(tensor.shape)
            if min(shape[1:], default=1) < 1:
                what = f"the input {tensor.name!r} has the shape {list(shape)}: TensorRT wants to know every number but the batch"
                raise EngineError(
                    what, where=str(self.source), hint="state them in the inputs of the network's card, or export it with a fixed size"
                )
            if shape[:1] == (-1,):
                least, usual, most = ((n, *shape[1:]) for n in (1, min(_USUAL, self.most), self.most))
                profile.set_shape(tensor.name, least, usual, most)
                found[tensor.name] = (least, usual, most)
        if found:
            config.add_optimization_profile(profile)
        return found

    def _timings(self, config: Any) -> Path | None:
        """Give the builder what it measured before on this GPU; where to keep what it learns. None where it measures nothing."""
        if not hasattr(config, "create_timing_cache") or self.name == "tensorrt_rtx":
            return None
        path = cache.folder() / f"{self.name}-{self.trt.__version__}-{self.capability}.timings"
        known = config.create_timing_cache(path.read_bytes() if path.is_file() else b"")
        if known is None or not config.set_timing_cache(known, False):
            # Of another version or damaged: measured anew.
            config.set_timing_cache(config.create_timing_cache(b""), False)
        return path


def _flags(trt: Any) -> int:
    """Version 10 has to be told what 11 and RTX take for granted."""
    member = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if member is None else 1 << int(member)


def _parse(trt: Any, network: Any, told: Told, source: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    parser = trt.OnnxParser(network, told.logger)
    if parser.parse(_load(source, shapes), str(source)):
        return
    errors = [parser.get_error(i) for i in range(parser.num_errors)]
    what = "; ".join(_gist(e) for e in errors) or told.last()
    raise EngineError(
        f"TensorRT does not take this network: {what}", where=str(source), hint="run it with another runtime, or export it anew"
    )


def _load(source: Path, shapes: Mapping[str, tuple[int, ...]]) -> bytes:
    """The file with the sizes that it leaves open, and inputs of bytes turned into floats first: TensorRT takes bytes for nothing but that.

    What is between the input and the file's own Cast moves numbers about (Transpose, Reshape); 0..255 are exact in float32.
    """
    model = _model(source)
    # Here and not in the profile: the plan's inputs then have these sizes, where it would leave them open to whoever runs it.
    for value in (v for v in model.graph.input if v.name in shapes):
        stated, shape = _dims(value), shapes[value.name]
        if len(shape) != len(stated) or any(a not in (-1, b) for a, b in zip(stated, shape, strict=True)):
            what = f"the input {value.name!r} has the shape {list(stated)}, which is not to be had as {list(shape)}"
            raise EngineError(what, where=str(source), hint="correct the inputs or the size in the network's card, or export it anew")
        for dim, n in zip(value.type.tensor_type.shape.dim, shape, strict=True):
            if n > 0:
                dim.dim_value = n
    bytewise = [i.name for i in model.graph.input if i.type.tensor_type.elem_type == onnx.TensorProto.UINT8]
    for name in bytewise:
        for node in model.graph.node:
            node.input[:] = [f"{name}/as_float" if n == name else n for n in node.input]
        cast = onnx.helper.make_node("Cast", [name], [f"{name}/as_float"], name=f"{name}/as_float", to=onnx.TensorProto.FLOAT)
        model.graph.node.insert(0, cast)
    if bytewise or shapes:
        # Number types and sizes that the file states for tensors in between would contradict.
        del model.graph.value_info[:]
    return bytes(model.SerializeToString())


def _model(path: Path) -> onnx.ModelProto:
    try:
        return onnx.load(path)
    except (DecodeError, OSError) as e:
        raise EngineError(f"not an ONNX network: {e}", where=str(path), hint="export it again, with its weights in the file") from e


def _gist(error: Any) -> str:
    node = f"{error.node_operator()} node {error.node_name()!r}: " if error.node_operator() else ""
    return f"{node}{error.desc().strip()}"


class Told:
    """TensorRT's own messages: warnings and worse go to the log, the last errors are kept for ours. `logger` is what it wants."""

    def __init__(self, trt: Any) -> None:
        errors: list[str] = []

        class Logger(trt.ILogger):  # type: ignore[misc]
            """Called by TensorRT from any thread."""

            def log(self, severity: Any, message: str) -> None:
                if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                    errors.append(message)
                    log.debug("%s", message)
                elif severity == trt.ILogger.Severity.WARNING:
                    log.debug("%s", message)

        self.logger = Logger()
        self._errors = errors

    def last(self) -> str:
        """The last error since this was asked before, or that there was none: an old one would be blamed for what comes later."""
        found = self._errors[-1].strip() if self._errors else "it gives no reason"
        self._errors.clear()
        return found


def _monitor(trt: Any, progress: Progress) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """One line for every phase that is not part of another."""

        def __init__(self) -> None:
            super().__init__()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if not parent_phase:
                progress(f"{phase_name}: {num_steps} steps")

        def step_complete(self, phase_name: str, step: int) -> bool:
            return True

        def phase_finish(self, phase_name: str) -> None:
            return

    return Monitor()


def with_runtime(options: EngineOptions, name: str) -> EngineOptions:
    """The options with `auto` settled."""
    return msgspec.structs.replace(options, runtime=name)
