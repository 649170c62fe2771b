"""The runtimes that posepipe knows of: which are usable here, which one `auto` takes and why, and how each is opened."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import msgspec

from ..pipeline.errors import EngineError
from .device import Gpu, driver
from .engine import Engine, EngineOptions, RuntimeName
from .verdicts import heed

Opener = Callable[[Path, EngineOptions, str], Engine]
"""Opens an ONNX file with the options; the text says why this runtime was chosen. EngineError when it cannot."""

ON_GPU: tuple[RuntimeName, ...] = ("tensorrt", "tensorrt_rtx", "torch")
"""Runtimes for `device: cuda`. auto measures those that are here and open the network; the first stays unless another is a tenth faster."""
ON_CPU: tuple[RuntimeName, ...] = ("openvino", "onnxruntime")
"""Runtimes that auto chooses from on a processor, the usually faster first. torch runs there too, as a reference, when it is asked for."""

_INSTALL = {
    "openvino": "pip install posepipe[openvino]",
    "onnxruntime": "pip install onnxruntime",
    "tensorrt": "pip install posepipe[tensorrt]",
    "tensorrt_rtx": "pip install posepipe[tensorrt-rtx]",
    "torch": "pip install torch",
}
_PACKAGES = {
    "tensorrt": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"),
    "tensorrt_rtx": ("tensorrt-rtx-cu13", "tensorrt-rtx-cu12", "tensorrt-rtx", "tensorrt-rtx-cu13-bindings"),
}
"""Modules whose package has another name than they."""
_NONE: Mapping[RuntimeName, str] = MappingProxyType({})


def opener(name: RuntimeName) -> Opener:
    """What opens a network with that runtime. Imports the runtime."""
    if name == "openvino":
        from .openvino import OpenvinoEngine

        return OpenvinoEngine
    if name == "onnxruntime":
        from .onnxruntime import OnnxruntimeEngine

        return OnnxruntimeEngine
    if name in ("tensorrt", "tensorrt_rtx"):
        from .tensorrt import TensorrtEngine

        return functools.partial(TensorrtEngine, module=name)
    if name == "torch":
        from .torch import TorchEngine

        return TorchEngine
    raise EngineError(f"there is nothing that opens a network with {name}", hint="write `runtime: auto`")


def open_chosen(path: Path, options: EngineOptions) -> Engine:
    """Open a network with the runtime that `choose` takes.

    Where that is one for a GPU that `auto` took, and it refuses the network, the next one is taken, at last the processor's, and the reason
    says why; a runtime that was named is never replaced. Raises EngineError as `choose`, and in the words of the runtime that refuses.
    """
    refused: dict[RuntimeName, str] = {}
    while True:
        name, reason = choose(options, path, refused)
        replaceable = options.runtime == "auto" and name in ON_GPU
        try:
            return open_with(name, path, _on_the_gpu(options) if replaceable else options, reason)
        except EngineError as e:
            if not replaceable:
                raise
            refused[name] = e.what


def _on_the_gpu(options: EngineOptions) -> EngineOptions:
    """The options for a GPU that auto took: a torch that finds none would take the processor without a word."""
    return msgspec.structs.replace(options, device="cuda") if options.device == "auto" else options


def open_with(name: RuntimeName, path: Path, options: EngineOptions, reason: str) -> Engine:
    """Open a network with that runtime. fp16 and int8 live in the file, so a converted one is opened for them, and made again when it is
    damaged; a precision that `posepipe engines verify` found to move key points too far is refused, and not taken by auto."""
    options, reason = heed(path, options, runtime=name, version=version_of(name), reason=reason)
    if options.precision in ("fp16", "int8"):
        from .convert import damaged, for_precision

        made = for_precision(path, runtime=name, precision=options.precision)
        try:
            return opener(name)(made, options, reason)
        except EngineError:
            if made == path or not damaged(made):
                raise
        made.unlink(missing_ok=True)
        path = for_precision(path, runtime=name, precision=options.precision)
    return opener(name)(path, options, reason)


@dataclass(frozen=True, slots=True)
class Runtime:
    """One runtime, for `posepipe doctor`. usable: it can run networks here; why: empty when it can. version: "" when not installed."""

    name: RuntimeName
    usable: bool
    version: str
    why: str


def runtimes() -> list[Runtime]:
    """All runtimes that posepipe knows of, whether they can be used here, and if not why. Imports none of them: without an NVIDIA
    driver some of them crash when they are merely touched."""
    return [
        *(_plain(name) for name in ON_CPU),
        *(_for_gpu(name) for name in ("tensorrt", "tensorrt_rtx")),
        _plain("torch"),
        Runtime("stub", True, "", ""),
    ]


def choose(options: EngineOptions, path: Path, refused: Mapping[RuntimeName, str] = _NONE) -> tuple[RuntimeName, str]:
    """The runtime for a network, and why, also why a GPU that is here is left idle. refused: those for a GPU that auto tried in vain, and
    their words. EngineError, with what to do: the one asked for cannot be used here, or none can."""
    known = {r.name: r for r in runtimes()}
    if options.runtime != "auto":
        _must_run(known[options.runtime], options)
        return options.runtime, "asked for"
    why = ""
    if options.device != "cpu":
        taken, why = _for_this_gpu(known, options, path, refused)
        if taken is not None:
            return taken, why
        if options.device != "auto":
            hint = "write `device: auto`, which takes the processor then"
            raise EngineError(f"device is {options.device}: {why}", where=str(path), hint=hint)
    idle = f"; {driver().gpus[0].name} is idle: {why}" if why and driver().gpus else ""
    names = [name for name in ON_CPU if known[name].usable and _takes(name, options)]
    if not names:
        precision = f" that can do {options.precision}" if options.precision != "auto" else ""
        raise EngineError(f"no inference runtime{precision} is installed", hint="pip install posepipe[openvino], or onnxruntime")
    if len(names) > 1:
        from .timings import fastest

        name, reason = fastest(path, options, {name: known[name].version for name in names})
        return name, reason + idle
    if names == ["onnxruntime"] and not known["openvino"].usable:
        return "onnxruntime", "auto: OpenVINO is not installed (`pip install posepipe[openvino]` is up to twice as fast)" + idle
    return names[0], f"auto: the only one here{' for ' + options.precision if options.precision != 'auto' else ''}" + idle


def _for_this_gpu(
    known: Mapping[RuntimeName, Runtime], options: EngineOptions, path: Path, refused: Mapping[RuntimeName, str]
) -> tuple[RuntimeName | None, str]:
    """What auto takes for a network on the GPU of the options, and why; None, and why not, where nothing here runs it there.

    Not run on a device for this release; exercised with made-up runtimes and times.
    """
    gpus, index = driver().gpus, int(options.device.partition(":")[2] or 0)
    if not gpus:
        return None, driver().why
    if index >= len(gpus):
        hint = f"the first is cuda:0, the last cuda:{len(gpus) - 1}"
        raise EngineError(f"device is {options.device}: this machine has {len(gpus)} GPU{'s' * (len(gpus) > 1)}", hint=hint)
    gpu = gpus[index]
    here = [name for name in ON_GPU if known[name].usable and _on_gpu(known[name]) and _takes(name, options)]
    skipped = {name: why for name in here if (why := refused.get(name) or _no_plan(name, gpu))}
    left = {name: known[name].version for name in here if name not in skipped}
    taken, reason = next(iter(left), None), f"auto: the only one {'left' if skipped else 'here'} for {gpu.name}"
    if len(left) > 1:
        from .timings import NoneOpens, fastest

        try:
            taken, reason = fastest(path, _on_the_gpu(options), left, gpu=gpu.name)
        except NoneOpens as e:
            taken, skipped = None, skipped | e.refusals
    if taken is None:
        return None, _idle(known, options, skipped)
    return taken, "; ".join([reason, *(f"not {name}: {why}" for name, why in skipped.items())])


def _no_plan(name: RuntimeName, gpu: Gpu) -> str:
    """Why that runtime makes no plan for that GPU, where it can be known before it is tried."""
    if name != "tensorrt_rtx":
        return ""
    from .tensorrt_build import no_plan

    return no_plan(EngineOptions(runtime=name), gpu.capability)


def _idle(known: Mapping[RuntimeName, Runtime], options: EngineOptions, skipped: Mapping[RuntimeName, str]) -> str:
    """Why no runtime uses the GPU that is here."""
    installed = [known[name] for name in ON_GPU if known[name].version and _on_gpu(known[name])]
    if not installed:
        return "no runtime for the GPU is installed (`pip install posepipe[tensorrt]`, or torch)"
    lacks = f"has no {options.precision}"
    return "; ".join(
        f"not {r.name}: {skipped[r.name]}" if r.name in skipped else f"{r.name} {lacks if r.usable else f'is {r.why}'}" for r in installed
    )


def _takes(name: RuntimeName, options: EngineOptions) -> bool:
    """What auto need not try: ONNX Runtime has no bf16 on a processor, TensorRT takes neither bf16 nor int8 from a file, torch no int8."""
    gpu = ("bf16", "int8")
    lacks: Mapping[str, tuple[str, ...]] = {"onnxruntime": ("bf16",), "tensorrt": gpu, "tensorrt_rtx": gpu, "torch": ("int8",)}
    return options.precision not in lacks.get(name, ())


def _on_gpu(runtime: Runtime) -> bool:
    return runtime.name != "torch" or not runtime.version.endswith("+cpu")


def _must_run(runtime: Runtime, options: EngineOptions) -> None:
    name = runtime.name
    if not runtime.usable:
        raise EngineError(f"the runtime {name} cannot be used here: {runtime.why}", hint="install it, or write `runtime: auto`")
    if options.device.startswith("cuda") and name not in ON_GPU:
        hint = "write `device: cpu` or `device: auto`, or a runtime for GPUs: tensorrt, tensorrt_rtx, torch"
        raise EngineError(f"device is {options.device}, and {name} runs networks on the processor", hint=hint)
    if options.device == "cpu" and name in ("tensorrt", "tensorrt_rtx"):
        raise EngineError(f"device is cpu, and {name} needs a GPU", hint="write `device: auto`, or `runtime: auto`")


def _plain(name: RuntimeName) -> Runtime:
    version = version_of(name)
    return Runtime(name, True, version, "") if version else Runtime(name, False, "", f"not installed: {_INSTALL[name]}")


def _for_gpu(name: RuntimeName) -> Runtime:
    version, why = version_of(name), driver().why
    if not version:
        return Runtime(name, False, "", f"not installed, and {why}" if why else f"not installed: {_INSTALL[name]}")
    if why:
        return Runtime(name, False, version, f"installed, {version}, but {why}")
    if not version_of("pycuda"):
        return Runtime(name, False, version, f"installed, {version}, but pycuda is not: {_INSTALL[name]}")
    return Runtime(name, True, version, "")


def version_of(name: str) -> str:
    """The version of an installed module, "" when there is none. It is not imported."""
    if importlib.util.find_spec(name) is None:
        return ""
    for package in _PACKAGES.get(name, (name,)):
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "unknown version"
