"""The live studio beside its floor, in turns: a bare one-process script (decode threads, crops, one batched engine call, argmax; no
joining, no 3D, no smoothing, no publishing, no accounts) over the same four recordings at the same rate with the same engine.

    python tests/bench/bench_live.py [--seconds 20] [--rounds 3] [--rate 30]

Prints capture -> peaks (floor) and capture -> published (studio) in ms, and the ratio of the medians. On a shared machine only the ratio means anything.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path

STUDIO = Path(__file__).parents[2] / "examples" / "algebraic.yaml"


def floor(seconds: float, rate_hz: float) -> dict[str, float]:
    """The bare script: latencies from a frame's due time to the peaks of all views known."""
    import av
    import cv2
    import numpy as np

    from posepipe.engines.crop import Pixels, Rois, crop_rgb, image_from_crop
    from posepipe.engines.engine import EngineOptions
    from posepipe.engines.network import TopDown
    from posepipe.launch import studio
    from posepipe.nodes._video import Picture

    cv2.setNumThreads(1)
    plan = studio.load(STUDIO)
    resolve = studio.resolver(plan.folder)
    paths = [resolve(n.settings.uri) for n in plan.sources]
    engine = TopDown("blazepose.full", EngineOptions(), batch=1).engine
    crops, pixels = np.zeros((len(paths), 3, 256, 256), np.uint8), Pixels(planar=True)
    engine({"image": crops})
    frames: dict[int, dict[int, object]] = defaultdict(dict)
    ready = threading.Condition()
    begin = time.monotonic() + 0.2
    last = int(seconds * rate_hz)

    def decode(camera: int, path: Path) -> None:
        index = 0
        while index < last:
            with av.open(str(path)) as container:
                container.streams.video[0].codec_context.thread_type = "NONE"
                packets = container.demux(video=0)
                for packet in packets:
                    for picture in packet.decode():
                        frame = Picture(picture).frame(camera=str(camera), seq=index, t_capture_ns=0)
                        with ready:
                            frames[index][camera] = frame
                            ready.notify()
                        index += 1
                        wait = begin + index / rate_hz - time.monotonic()
                        if wait > 0:
                            time.sleep(wait)
                        if index >= last:
                            return

    for camera, path in enumerate(paths):
        threading.Thread(target=decode, args=(camera, path), daemon=True).start()
    late: list[float] = []
    done = -1
    cpu = time.process_time()
    while done < last - 1:
        with ready:
            while not (complete := [i for i, f in frames.items() if i > done and len(f) == len(paths)]):
                if not ready.wait(2.0):
                    break
            if not complete:
                break
            index = max(complete)
            views = frames[index]
            for old in [i for i in frames if i <= index]:
                del frames[old]
        for camera in range(len(paths)):
            frame = views[camera]
            centre = np.array([[frame.width / 2, frame.height / 2]])  # type: ignore[attr-defined]
            crop_rgb(frame, image_from_crop(Rois(centre, np.array([1100.0]), np.zeros(1)), size=256)[0], crops[camera], pixels)  # type: ignore[arg-type]
        heatmaps = engine({"image": crops})["heatmaps"]
        heatmaps.reshape(len(paths), 39, -1).argmax(axis=2)
        done = index
        late.append((time.monotonic() - begin - index / rate_hz) * 1e3)
    spent = time.monotonic() - begin
    p50, p95, p99 = np.percentile(late, [50, 95, 99])
    return {"p50": p50, "p95": p95, "p99": p99, "share": len(late) / last, "cores": (time.process_time() - cpu) / spent}


def ours(seconds: float, rate_hz: float) -> dict[str, float]:
    """`posepipe bench` on the example studio."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "bench.json"
        command = [sys.executable, "-m", "posepipe", "bench", str(STUDIO), "--seconds", str(seconds), "--json", str(out)]
        subprocess.run(
            [*command, "--set", f"nodes.capture.speed={rate_hz / 60}"], check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        figures = json.loads(out.read_text())
    assert figures["balance"] == 0
    return {**figures["end_to_end_ms"], "share": figures["published"] / figures["captured"], "cores": figures["cpu_percent"] / 100}


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--seconds", type=float, default=20)
    ap.add_argument("--rounds", type=int, default=3)
    ap.add_argument("--rate", type=float, default=30)
    ap.add_argument("--floor", action="store_true", help="run only the bare script once and print JSON")
    a = ap.parse_args()
    if a.floor:
        print(json.dumps(floor(a.seconds, a.rate)))
        return
    rows: dict[str, list[dict[str, float]]] = {"floor": [], "studio": []}
    print(f"{'':8} {'p50':>7} {'p95':>7} {'p99':>7} {'kept':>7} {'cores':>6}")
    for _ in range(a.rounds):
        command = [sys.executable, __file__, "--floor", "--seconds", str(a.seconds), "--rate", str(a.rate)]
        rows["floor"].append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        rows["studio"].append(ours(a.seconds, a.rate))
        for name, row in rows.items():
            r = row[-1]
            print(f"{name:8} {r['p50']:7.1f} {r['p95']:7.1f} {r['p99']:7.1f} {r['share']:7.1%} {r['cores']:6.2f}", flush=True)
    for key in ("p50", "p95"):
        ratios = [s[key] / f[key] for s, f in zip(rows["studio"], rows["floor"], strict=True)]
        print(f"studio / floor, {key}: median {statistics.median(ratios):.2f} (rounds: {', '.join(f'{r:.2f}' for r in ratios)})")


if __name__ == "__main__":
    main()
