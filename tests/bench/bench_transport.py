"""One way from process to process: a 1920x1080 frame, beside ZeroMQ payloads, iceoryx2 and dora-rs in the same run.

    python tests/bench/bench_transport.py                       # everything, about four minutes
    python tests/bench/bench_transport.py --cameras 1 --size i420 --rounds 1

From just before the producer's copy until the consumer has looked at one byte of every page. Frames are freshly written before
they are timed, as a decoder leaves them. `rgb24` moves the bytes of an RGB picture (twice those of I420). iceoryx2 and dora-rs
take part where they are installed: pip install iceoryx2 flatbuffers dora-rs dora-rs-cli. Ratios mean something on a shared
machine, absolute times only on a quiet one.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from transport_clip import Clip, ways_to_copy
from transport_ends import BYTES, TRANSPORTS, Consumer, producer_of

RATE_HZ = 30.0
PEERS = {"iceoryx2": "iceoryx2", "dora": "dora_cli"}


def warm_up(frames: int) -> int:
    """How many of the first frames do not count."""
    return min(15, frames // 4)


def resources() -> tuple[float, int]:
    """Private memory in MiB (without the shared ring) and open descriptors of this process."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["RssAnon"].split()[0]) / 1024, len(os.listdir("/proc/self/fd"))


# the producing process ----------------------------------------------------------------------------------------------------------


def produce(args: argparse.Namespace) -> None:
    producer = producer_of(args.transport)(Path(args.work), args.index, args.size, tuple(args.fds))
    frames, fresh_s = args.frames, 0.0
    sends_ns = np.zeros(frames, np.int64)
    sends_ns += 1  # takes its memory now
    print("ready", flush=True)
    start_ns = int(sys.stdin.readline())
    cpu_s, first = 0.0, resources()
    for i in range(frames):
        time.sleep(max(0.0, (start_ns + i * 1e9 / RATE_HZ - time.monotonic_ns()) / 1e9))
        if i == warm_up(frames):
            cpu_s, fresh_s, first = time.process_time(), 0.0, resources()
        begin = time.thread_time()
        producer.prepare(i)
        fresh_s += time.thread_time() - begin
        t0 = time.monotonic_ns()
        producer.send(i, t0)
        sends_ns[i] = time.monotonic_ns() - t0
    counted = frames - warm_up(frames)
    last = resources()
    said = {
        "frames": frames,
        "cpu_ms": (time.process_time() - cpu_s - fresh_s) / counted * 1e3,
        "send_us": float(np.median(sends_ns)) / 1e3,
    }
    print(json.dumps({**said, "mib": last[0] - first[0], "fds": last[1] - first[1], **producer.notes()}), flush=True)
    sys.stdin.readline()  # what is under way still belongs to this process
    producer.close()


# the measuring process ----------------------------------------------------------------------------------------------------------


def run(transport: str, size: str, cameras: int, frames: int) -> dict[str, Any]:
    """One transport: `cameras` producers of so many frames each, at 30 Hz."""
    with tempfile.TemporaryDirectory() as work:
        consumer: Consumer = TRANSPORTS[transport](Path(work), cameras, size)
        command = [sys.executable, __file__, "--produce", "--transport", transport, "--size", size, "--work", work, "--frames", str(frames)]
        producers = [
            subprocess.Popen(
                [*command, "--index", str(i), "--fds", *map(str, consumer.fds(i))],
                pass_fds=consumer.fds(i),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for i in range(cameras)
        ]
        try:
            return {"transport": transport, "size": size, "cameras": cameras, **_measured(consumer, producers, frames)}
        finally:
            for process in producers:
                process.kill()
                process.wait()
            consumer.close()


def _measured(consumer: Consumer, producers: list[subprocess.Popen[str]], frames: int) -> dict[str, Any]:
    def line(process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        said = process.stdout.readline()
        if not said:
            raise SystemExit("a producer ended early; its message is above")
        return said

    def tell(text: str) -> None:
        for process in producers:
            assert process.stdin is not None
            process.stdin.write(text)
            process.stdin.flush()

    for process in producers:
        line(process)
    consumer.connected()
    begin_ns = time.monotonic_ns() + 200_000_000
    tell(f"{begin_ns}\n")
    expected = frames * len(producers)
    us, count, counted_from = np.full(expected, np.nan), 0, warm_up(frames) * len(producers)
    cpu_s, first = time.process_time(), resources()
    while count < expected and (hop := consumer.receive(1.0)) is not None:
        us[count] = (hop.t_touched_ns - hop.t0_ns) / 1e3
        count += 1
        if count == counted_from:
            cpu_s, first = time.process_time(), resources()
    wall_s, cpu_s, last = (time.monotonic_ns() - begin_ns) / 1e9, time.process_time() - cpu_s, resources()
    said = [json.loads(line(process)) for process in producers]
    tell("done\n")
    return {
        "us": us[counted_from:count],
        "lost": expected - count,
        "fps": count / wall_s,
        "producer_cpu_ms": float(np.mean([s["cpu_ms"] for s in said])),
        "consumer_cpu_ms": cpu_s / max(count - counted_from, 1) * 1e3,
        "growth_mib": [last[0] - first[0], max(s["mib"] for s in said)],
        "growth_fds": [last[1] - first[1], max(s["fds"] for s in said)],
        "lapped": consumer.lapped,
        **{key: float(np.mean([s[key] for s in said])) for key in ("send_us", "decode_us") if key in said[0]},
    }


def run_dora(size: str, cameras: int, frames: int) -> dict[str, Any]:
    """dora starts the processes itself, so its consumer is a node that leaves what it measured in a file."""
    script = Path(__file__).with_name("transport_dora.py")
    with tempfile.TemporaryDirectory() as work:
        out, seconds = Path(work) / "hops.json", frames / RATE_HZ
        common = {"SIZE": size, "FRAMES": frames, "RATE": RATE_HZ, "CAMERAS": cameras, "OUT": str(out)}
        sources = [
            {"id": f"camera{i}", "path": str(script), "outputs": ["frame"], "env": {**common, "ROLE": "produce"}} for i in range(cameras)
        ]
        inputs = {f"camera{i}": f"camera{i}/frame" for i in range(cameras)}
        graph = {"nodes": [*sources, {"id": "sink", "path": str(script), "inputs": inputs, "env": {**common, "ROLE": "consume"}}]}
        (Path(work) / "graph.yml").write_text(json.dumps(graph))  # JSON is YAML
        dora = Path(sys.executable).with_name("dora")
        path = f"{dora.parent}{os.pathsep}{os.environ['PATH']}"
        command = [str(dora), "run", "graph.yml", "--stop-after", f"{seconds + 8:.0f}s"]
        ran = subprocess.run(
            command,
            cwd=work,
            env={**os.environ, "PATH": path, "VIRTUAL_ENV": sys.prefix},
            capture_output=True,
            text=True,
            timeout=seconds + 30,
        )
        if not out.exists():
            raise SystemExit(f"dora did not run: {(ran.stdout or ran.stderr)[-1500:]}")
        hops = json.loads(out.read_text())
    us = [(t1 - t0) / 1e3 for t0, t1 in hops["hops"][warm_up(frames) * cameras :]]
    cpu = {"producer_cpu_ms": float("nan"), "consumer_cpu_ms": hops["cpu_ms"]}
    return {"transport": "dora", "size": size, "cameras": cameras, "us": us, "lost": frames * cameras - len(hops["hops"]), **cpu}


# the report ---------------------------------------------------------------------------------------------------------------------


def together(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """The rounds of one transport as one row: the hops of all of them, and the median of the round that was disturbed least."""
    us = np.concatenate([r["us"] for r in rounds])
    row = {**rounds[0], **dict(zip(("p50_us", "p99_us", "max_us"), np.percentile(us, (50, 99, 100)).tolist(), strict=True))}
    row |= {"best_us": min(float(np.median(r["us"])) for r in rounds), "lost": sum(r["lost"] for r in rounds), "hops": len(us)}
    row |= {key: float(np.median([r[key] for r in rounds])) for key in ("producer_cpu_ms", "consumer_cpu_ms")}
    del row["us"]
    return row


def table(rows: list[dict[str, Any]]) -> None:
    ours = {(r["size"], r["cameras"]): r["best_us"] for r in rows if r["transport"] == "ring"}
    print(
        f"{'microseconds':19s} {'size':6s} cams {'best p50':>9s} {'x ring':>7s} {'p50':>8s} {'p99':>8s} {'max':>8s}   CPU ms prod + cons   lost"
    )
    for r in rows:
        ratio = r["best_us"] / ours.get((r["size"], r["cameras"]), float("nan"))
        print(
            f"{r['transport']:19s} {r['size']:6s} {r['cameras']:4d} {r['best_us']:9.0f} {ratio:7.2f} {r['p50_us']:8.0f} {r['p99_us']:8.0f} {r['max_us']:8.0f}"
            f"  {r['producer_cpu_ms']:8.2f} + {r['consumer_cpu_ms']:4.2f}    {r['lost']:6d}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transport", nargs="*", default=[*TRANSPORTS, "dora"], help="which, all by default")
    parser.add_argument("--size", nargs="*", default=["i420", "rgb24"], choices=list(BYTES))
    parser.add_argument("--cameras", nargs="*", type=int, default=[1, 4])
    parser.add_argument("--frames", type=int, default=45, help="of each camera, at 30 Hz, in one round of one transport")
    parser.add_argument("--rounds", type=int, default=3, help="the transports take turns, so that a disturbance does not hit one alone")
    parser.add_argument("--produce", action="store_true", help=argparse.SUPPRESS)
    for name, kind in {"work": str, "index": int}.items():
        parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)
    parser.add_argument("--fds", nargs="*", type=int, default=[], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.produce:
        args.transport, args.size = args.transport[0], args.size[0]
        produce(args)
        return
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, {time.strftime('%H:%M')}")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        clip = Clip.made(Path(folder) / "clip.mp4")
        os.environ["POSEPIPE_BENCH_CLIP"] = str(clip.path)
        for cameras in args.cameras:
            for size in args.size:
                runs = [_row(t, size, cameras, args.frames) for _ in range(args.rounds) for t in args.transport if _takes_part(t, size)]
                rows += [together(rounds) for t in args.transport if (rounds := [r for r in runs if r["transport"] == t])]
        table(rows)
        if "ring-decoder" in args.transport:
            print("decoder -> slot, one process, us: " + ", ".join(f"{name} {us:.0f}" for name, us in ways_to_copy(clip).items()))
    print(json.dumps(rows))


def _takes_part(transport: str, size: str) -> bool:
    if transport == "ring-decoder" and size != "i420":
        return False  # a decoder makes no RGB
    module = PEERS.get(transport)
    if module is not None and importlib.util.find_spec(module) is None:
        print(f"{transport} is not installed: left out")
        return False
    return True


def _row(transport: str, size: str, cameras: int, frames: int) -> dict[str, Any]:
    return run_dora(size, cameras, frames) if transport == "dora" else run(transport, size, cameras, frames)


if __name__ == "__main__":
    main()
