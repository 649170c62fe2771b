"""The processor and the GPUs of this machine, asked without importing any inference runtime."""

from __future__ import annotations

import ctypes
import functools
import os
import platform
from dataclasses import dataclass
from pathlib import Path

_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR of the CUDA driver API


@dataclass(frozen=True, slots=True)
class Gpu:
    """One NVIDIA GPU. capability: as compilers name it, sm89."""

    name: str
    capability: str


@dataclass(frozen=True, slots=True)
class Driver:
    """What the NVIDIA driver says. version: of CUDA, e.g. 13.0; why: empty when there is a GPU."""

    gpus: tuple[Gpu, ...] = ()
    version: str = ""
    why: str = ""


@functools.cache
def driver(library: str = "libcuda.so.1") -> Driver:
    """The GPUs that can be used here. The driver is asked, not a package: packages list GPUs that are not there, and some crash
    where the driver is missing. Not run on a device for this release."""
    try:
        cuda = ctypes.CDLL(library)
    except OSError:
        return Driver(why=f"no NVIDIA driver ({library})")
    count, version = ctypes.c_int(), ctypes.c_int()
    code = cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)) or cuda.cuDriverGetVersion(ctypes.byref(version))
    if code or not count.value:
        return Driver(why=f"the NVIDIA driver is there but gives no device (error {code})")
    gpus = []
    for index in range(count.value):
        name, major, minor = ctypes.create_string_buffer(128), ctypes.c_int(), ctypes.c_int()
        cuda.cuDeviceGetName(name, len(name), index)
        cuda.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, index)
        cuda.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, index)
        gpus.append(Gpu(name.value.decode(errors="replace"), f"sm{major.value}{minor.value}"))
    return Driver(tuple(gpus), f"{version.value // 1000}.{version.value % 1000 // 10}")


@functools.cache
def processor() -> str:
    """The processor's own name and how many cores this process may use: what a measured time, or code made for it, is good for."""
    return f"{cpu_model()} x {cores()}"


def cores() -> int:
    """Processors that this process may use; containers and taskset give fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_model() -> str:
    """The processor's own name."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()
