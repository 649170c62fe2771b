"""The machine a figure was taken on: without it no latency means anything."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil

from posepipe.engines.device import cores, cpu_model


def memory_mb(pids: Iterable[int]) -> float:
    """What these processes take together in MB, pages that they share counted once (Linux: PSS; elsewhere RSS)."""
    total = 0.0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024 / 1e6
        except (OSError, StopIteration, ValueError):
            with contextlib.suppress(psutil.Error):
                total += psutil.Process(pid).memory_info().rss / 1e6
    return round(total, 1)


def processor_s(pids: Iterable[int]) -> float:
    """Processor time that these processes have taken, with those of their children that have ended."""
    total = 0.0
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            total += sum(psutil.Process(pid).cpu_times()[:4])
    return total


class Machine:
    """This machine, and what this process (with its children) takes of it between construction and `stop`."""

    def __init__(self) -> None:
        self._load_start = _load()
        self._cpu_start_s, self._start_s = self._cpu_s(), time.monotonic()
        self._stopped = False
        self.cpu_percent = 0.0
        self.rss_mb = 0.0
        self._load_end = self._load_start

    def stop(self, *, memory_mb: float | None = None, before_s: float = 0.0) -> None:
        """Take the figures at the end of the run; later calls change nothing.

        Of a studio of several processes: memory_mb, and before_s, the processor time that they had taken before the start (the
        system tells of children when they have ended, and then of their whole life).
        """
        if self._stopped:
            return
        self._stopped = True
        spent_s = time.monotonic() - self._start_s
        self.cpu_percent = round(100 * (self._cpu_s() - self._cpu_start_s - before_s) / spent_s, 1) if spent_s > 0 else 0.0
        self.rss_mb = memory_mb if memory_mb is not None else round(psutil.Process().memory_info().rss / 1e6, 1)
        self._load_end = _load()

    @staticmethod
    def _cpu_s() -> float:
        children = os.times()
        return time.process_time() + children.children_user + children.children_system

    def facts(self) -> dict[str, Any]:
        """Model of the processor, cores, load averages over one minute at start and end, system and Python."""
        return {
            "cpu": cpu_model(),
            "cores": cores(),
            "load_start": self._load_start,
            "load_end": self._load_end,
            "os": f"{platform.system()} {platform.release()}",
            "python": platform.python_version(),
        }


def _load() -> float:
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else 0.0
