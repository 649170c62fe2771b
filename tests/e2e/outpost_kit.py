"""Outposts without a cluster: a process on this machine for each worker, in a network name space of its own if there is one for its host."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import msgspec

from posepipe.launch.abroad import Abroad
from posepipe.launch.outpost import Brief, Hello, Outpost

ROOT = Path(__file__).parents[2]


class Processes(Abroad):
    """namespaces: host -> (network name space, address in it); hosts that are not there are 127.0.0.1."""

    def __init__(self, brief: Brief, *, ip: str = "127.0.0.1", namespaces: dict[str, tuple[str, str]] | None = None) -> None:
        super().__init__(brief)
        self._ip, self._namespaces = ip, namespaces or {}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.born = 0
        self.lock = threading.Lock()

    def connect(self) -> str:
        return self._ip

    def reach(self, worker: str) -> Hello:
        space, ip = self._namespaces.get(worker.rpartition("@")[2], ("", "127.0.0.1"))
        command = [*(["ip", "netns", "exec", space] if space else []), sys.executable, __file__, worker, ip]
        there = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)})
        assert there.stdout is not None
        with self.lock:
            self.processes[worker] = there
            self.born += 1
        return msgspec.json.decode(there.stdout.readline(), type=Hello)

    def serve(self, worker: str, brief: Brief) -> int:
        there = self.processes[worker]
        assert there.stdin is not None
        there.stdin.write(msgspec.json.encode(brief))
        there.stdin.close()
        return there.wait()

    def kill(self, worker: str) -> None:
        self.processes[worker].kill()

    def disconnect(self) -> None:
        for there in self.processes.values():
            there.kill()
            there.wait()


def main(worker: str, ip: str) -> Any:
    outpost = Outpost()
    print(msgspec.json.encode(outpost.hello()).decode(), flush=True)
    brief = msgspec.json.decode(sys.stdin.buffer.read(), type=Brief)
    os._exit(outpost.serve(worker, brief, ip=ip))


if __name__ == "__main__":
    main(*sys.argv[1:])
