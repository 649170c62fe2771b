"""What `ring` stands on: memory without a name, and the order in which two processors see it change."""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import mmap
import os
import platform
import secrets
import sys
from collections.abc import Callable

from .errors import RunError


def anonymous_memory(size: int) -> int:
    """A descriptor of `size` bytes of shared memory, zeroed and really there, that nothing in the file system names.

    When the last process that has it is gone, however it went, so is the memory. Where the kernel can, its size is sealed: no
    process can shrink it under the others, whose next touch would kill them. RunError when the machine has not that much.
    """
    fd = os.memfd_create("posepipe-ring", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING) if hasattr(os, "memfd_create") else _unlinked_at_once()
    try:
        os.ftruncate(fd, size)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(fd, 0, size)  # an error here, instead of SIGBUS at the first touch of a page that cannot be had
    except OSError as e:
        os.close(fd)
        raise RunError(
            f"no {size / 2**20:.0f} MiB of shared memory for frames: {e.strerror}",
            hint="fewer slots or smaller pictures, or more memory for this machine or container",
        ) from None
    if sys.platform == "linux" and hasattr(os, "memfd_create"):
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return fd


def _unlinked_at_once() -> int:
    """macOS and the BSDs: the name lives for one system call. (`multiprocessing.shared_memory` would keep it, and start a tracker.)"""
    posix = importlib.import_module("_posixshmem")
    name = f"/posepipe-{secrets.token_hex(8)}"
    fd: int = posix.shm_open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR, mode=0o600)
    posix.shm_unlink(name)
    return fd


def mapped(fd: int, size: int, *, writable: bool) -> mmap.mmap:
    """Map shared memory with every page present. Read-only for a reader: a write through a view is a ValueError, one past it a fault.

    The mapping goes when the last view into it does.
    """
    prot = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    return mmap.mmap(fd, size, flags=mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0), prot=prot)


def close(fd: int) -> None:
    with contextlib.suppress(OSError):
        os.close(fd)


def memory_fence() -> Callable[[], None]:
    """What keeps the loads and stores before it before those after it, as other processors see them.

    x86-64 needs nothing: it keeps stores in order among themselves, and loads among themselves (Intel SDM vol. 3, 9.2.2), and
    no compiler moves anything across Python's calls. arm64 (Jetson, Apple) keeps neither, and Python has no fence: there numba
    compiles one (`dmb ish`), some 70 ns a call. Only then is numba imported, so a capture worker on x86-64 starts without it.
    """
    return _no_fence if platform.machine().lower() in ("x86_64", "amd64") else compiled_fence()


def _no_fence() -> None:
    pass


def compiled_fence() -> Callable[[], None]:
    """A sequentially consistent fence of the machine this runs on."""
    import numba
    from numba.extending import intrinsic

    @intrinsic  # type: ignore[untyped-decorator]
    def emit(typing_context: object) -> object:
        def generate(context: object, builder: object, signature: object, arguments: object) -> object:
            builder.fence("seq_cst")  # type: ignore[attr-defined]
            return context.get_dummy_value()  # type: ignore[attr-defined]

        return numba.types.void(), generate

    @numba.njit  # type: ignore[untyped-decorator]
    def fence() -> None:
        emit()

    fence()
    compiled: Callable[[], None] = fence
    return compiled
