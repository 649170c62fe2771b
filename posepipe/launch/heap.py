"""How much memory a process that runs for days keeps for itself: what glibc's allocator is told, and why."""

from __future__ import annotations

import ctypes
import sys

_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
_LARGE = 64 * 1024


def one_heap(*, give_back_large: bool = False) -> bool:
    """Make malloc serve all threads of this process from one heap. Before the first thread; False where the allocator is not glibc's.

    By default every few threads have a heap of their own, and what one frees stays with its heap: a worker of the demo grew by 4 MB in ten minutes
    while nothing in it grew, and by 0.05 MB with one heap. Its threads seldom allocate at the same time (they share Python's lock).

    give_back_large: blocks from 64 kB on come from the system each by itself, and go back to it. glibc otherwise keeps the size of the largest one that was
    freed, and statistics over more and more durations free larger and larger ones. For processes that ask for few: each costs page faults.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    done = mallopt(_M_ARENA_MAX, 1)
    if give_back_large:
        done &= mallopt(_M_MMAP_THRESHOLD, _LARGE)
    return bool(done)


def make_room_for_names() -> None:
    """Let Python's table of names (interned strings) double now. It doubles when as many have come as it has room for, those included that are gone
    since: in a supervisor of the demo by 0.9 MB, some minute or other. 12 ms."""
    for k in range(1 << 15):
        sys.intern(f"~{k}")
