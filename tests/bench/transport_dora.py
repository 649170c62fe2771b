"""The two nodes of `bench_transport`'s dora-rs graph; dora starts them, what they are told is in the environment."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from dora import Node
from transport_ends import BYTES, POOL, touched


def produce(node: Any, size: int, frames: int, rate_hz: float) -> None:
    pool = [np.zeros(size, np.uint8) for _ in range(POOL)]
    time.sleep(1)
    start = time.monotonic()
    for i in range(frames):
        time.sleep(max(0.0, start + i / rate_hz - time.monotonic()))
        pool[i % POOL] += 1
        t0_ns = time.monotonic_ns()
        with node.send_output_raw("frame", size, {"t0": t0_ns}) as buffer:
            np.frombuffer(buffer, np.uint8)[:] = pool[i % POOL]
    time.sleep(1)  # what is under way still belongs to this process


def consume(node: Any, count: int) -> dict[str, Any]:
    hops: list[tuple[int, int]] = []
    cpu_s = 0.0
    for event in node:
        if event["type"] == "INPUT":
            pixels = event["value"].to_numpy(zero_copy_only=True)
            touched_ns = touched(pixels)
            hops.append((event["metadata"]["t0"], touched_ns))
            cpu_s = cpu_s or time.process_time()
        if len(hops) == count or event["type"] == "STOP":
            break
    return {"hops": hops, "cpu_ms": (time.process_time() - cpu_s) / max(len(hops), 1) * 1e3}


def main() -> None:
    node = Node()
    size, frames, cameras = BYTES[os.environ["SIZE"]], int(os.environ["FRAMES"]), int(os.environ["CAMERAS"])
    if os.environ["ROLE"] == "produce":
        produce(node, size, frames, float(os.environ["RATE"]))
        return
    hops = consume(node, frames * cameras)
    out = Path(os.environ["OUT"])
    out.with_suffix(".part").write_text(json.dumps(hops))
    out.with_suffix(".part").rename(out)


if __name__ == "__main__":
    main()
