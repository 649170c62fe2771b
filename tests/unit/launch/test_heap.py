"""One heap for all threads, and nothing kept that is large: asked of the allocator itself, in processes of their own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

_PROGRAM = """
import ctypes, sys, threading
from posepipe.launch.heap import one_heap

told = one_heap(give_back_large=len(sys.argv) > 2) if sys.argv[1] == "told" else None
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]

def work():
    held = [libc.malloc(2000) for _ in range(50)]
    together.wait()
    for one in held:
        libc.free(one)

together = threading.Barrier(6)
threads = [threading.Thread(target=work) for _ in range(6)]
for t in threads: t.start()
for t in threads: t.join()
libc.free(libc.malloc(4_000_000))  # the largest one that was freed
held = libc.malloc(1_000_000)
libc.fopen.restype = ctypes.c_void_p
out = libc.fopen(b"/dev/stdout", b"w")
print(told, flush=True)
libc.malloc_info(0, ctypes.c_void_p(out))
libc.fclose(ctypes.c_void_p(out))
"""


def heaps(*how: str) -> tuple[str, int, int]:
    """What `one_heap` said, the heaps of a process with seven threads, and the blocks that the system gave it each by itself."""
    done = subprocess.run([sys.executable, "-c", _PROGRAM, *how], capture_output=True, text=True, check=True).stdout
    by_itself = re.findall(r'<total type="mmap" count="(\d+)"', done)
    return done.split("\n", 1)[0], len(re.findall(r"<heap nr=", done)), int(by_itself[-1])


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator is Linux's")
def test_all_threads_share_a_heap_and_large_blocks_go_back_to_the_system() -> None:
    said, many, few = heaps("not told")
    assert said == "None"
    if many == 1:
        pytest.skip("this allocator has one heap already")
    assert heaps("told") == ("True", 1, few)
    said, one, more = heaps("told", "give back")
    assert (said, one) == ("True", 1)
    assert more > few, "glibc alone keeps blocks of the size of one that was freed"


_NAMES = """
import sys
import posepipe.launch.supervisor
from posepipe.launch.heap import make_room_for_names

def anonymous_kb():
    return next(int(line.split()[1]) for line in open("/proc/self/smaps_rollup") if line.startswith("Anonymous:"))

if sys.argv[1:]:
    make_room_for_names()
before = anonymous_kb()
for k in range(20_000):
    sys.intern(f"name {k}")
print(anonymous_kb() - before)
"""


def growth_kb(*how: str) -> int:
    return int(subprocess.run([sys.executable, "-c", _NAMES, *how], capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="Linux says what a process has")
def test_names_that_come_and_go_later_cost_no_memory_once_room_was_made() -> None:
    if growth_kb() < 300:
        pytest.skip("this Python's table has room for them")
    assert growth_kb("room") < 150
