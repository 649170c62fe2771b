"""NVIDIA's run-time compiler, as the package `nvidia-cuda-nvrtc` brings it: CUDA C++ to machine code, with or without a GPU.

Called through ctypes, so that nothing but the library itself is needed. Builds are kept like compiled networks.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.util
from pathlib import Path
from typing import Any

from ..pipeline.errors import EngineError
from . import cache

HINT = "pip install nvidia-cuda-nvrtc, or posepipe[tensorrt]"


def library() -> Path | None:
    """Where the compiler lies, or None when its package is not installed."""
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        # nvidia/cu13/lib since CUDA 13, nvidia/cuda_nvrtc/lib before; the builtins beside it are not the compiler.
        for found in sorted(Path(folder).glob("*/lib/libnvrtc.so.*"), reverse=True):
            return found
    return None


@functools.cache
def _load() -> Any:
    path = library()
    if path is None:
        raise EngineError("CUDA code cannot be compiled: NVIDIA's run-time compiler is not installed", where="nvrtc", hint=HINT)
    try:
        return ctypes.CDLL(str(path))
    except OSError as e:
        raise EngineError(f"NVIDIA's run-time compiler cannot be loaded: {e}", where=str(path), hint=HINT) from e


def version() -> str:
    """Version of the compiler, such as `13.0`. EngineError when it is not installed."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    _call("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
    return f"{major.value}.{minor.value}"


def targets() -> list[str]:
    """What it compiles for: `sm75`, `sm80`, ... EngineError when it is not installed."""
    count = ctypes.c_int()
    _call("nvrtcGetNumSupportedArchs", ctypes.byref(count))
    numbers = (ctypes.c_int * count.value)()
    _call("nvrtcGetSupportedArchs", numbers)
    return [f"sm{n}" for n in numbers]


def compile_kernel(source: str, name: str, device: str) -> bytes:
    """Machine code (cubin) of CUDA C++ `source` for a device such as `sm89`, made once and kept.

    Raises EngineError: the compiler is not installed, does not know the device, or refuses the source (its words are in the error).
    """
    key = cache.BuildKey(hashlib.sha256(source.encode()).hexdigest(), "nvrtc", version(), device, "cubin", name)
    return cache.build(key, lambda: _compile(source, name, device))[0]


def _compile(source: str, name: str, device: str) -> bytes:
    if device not in (known := targets()):
        raise EngineError(f"CUDA {version()} does not compile for {device}", where=name, hint=f"it does for {', '.join(known)}")
    program = ctypes.c_void_p()
    _call("nvrtcCreateProgram", ctypes.byref(program), source.encode(), name.encode(), 0, None, None)
    try:
        options = [f"--gpu-architecture={device.replace('sm', 'sm_')}".encode()]
        status = _load().nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
        if status:
            text = _bytes(program, "nvrtcGetProgramLog").decode(errors="replace").rstrip("\0\n")
            raise EngineError(f"CUDA code does not compile for {device}: {text}", where=name)
        return _bytes(program, "nvrtcGetCUBIN")
    finally:
        _call("nvrtcDestroyProgram", ctypes.byref(program))


def _bytes(program: ctypes.c_void_p, what: str) -> bytes:
    size = ctypes.c_size_t()
    _call(f"{what}Size", program, ctypes.byref(size))
    content = ctypes.create_string_buffer(size.value)
    _call(what, program, content)
    return content.raw


def _call(name: str, *arguments: Any) -> None:
    nvrtc = _load()
    status = getattr(nvrtc, name)(*arguments)
    if status:
        nvrtc.nvrtcGetErrorString.restype = ctypes.c_char_p
        raise EngineError(f"{name}: {nvrtc.nvrtcGetErrorString(status).decode()}", where="nvrtc")
