"""What a picture of the synthetic studio costs: processor milliseconds of each step, and its share of the whole.

    python tests/bench/bench_synthetic.py [--size 800x600] [--people 1] [--pictures 24]

Processor time of this process over all its threads (the software rasteriser has some of its own), so that a busy machine says the same. The
floor is drawing alone; everything beside it is what lens, noise and film add.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from posepipe.calib.synthetic import Options, studio
from posepipe.calib.synthetic_film import _Film, _Grain, _pose
from posepipe.calib.synthetic_gl import Renderer
from posepipe.calib.synthetic_lens import lens_of
from posepipe.calib.synthetic_rig import middle


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="800x600")
    parser.add_argument("--people", type=int, default=1)
    parser.add_argument("--pictures", type=int, default=24)
    args = parser.parse_args()
    width, _, height = args.size.partition("x")
    scene = studio(Options(people=args.people, size_px=(int(width), int(height)), cameras=2, seconds=2.0))
    spent: dict[str, float] = {}

    def timed(name: str, call: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
        start = time.process_time()
        result = call(*arguments, **more)
        spent[name] = spent.get(name, 0.0) + time.process_time() - start
        return result

    lens = lens_of(scene.rig.cameras[0])
    renderer = Renderer(scene.room, [a.mesh for a in scene.actors], sun=scene.sun, middle_m=middle(scene.rig))
    grain = _Grain(1, 1.0)
    with tempfile.TemporaryDirectory() as folder, closing(_Film(Path(folder) / "a.mp4", 30.0)) as film:
        for k in range(-2, args.pictures):
            if k == 0:
                spent.clear()  # the first pictures compile shaders and kernels
            timed("pose and shadow", _pose, renderer, scene, float(scene.t_s[k % len(scene.t_s)]))
            shot = timed("draw and read back", renderer.shoot, lens.flat, scene.rig.camera_from_world[0])
            picture = timed("lens", lens.picture, shot.rgb)
            noisy = timed("noise", grain.over, picture)
            timed("film", film.add, noisy)
        timed("film", film.finish)
    renderer.close()
    whole = sum(spent.values())
    for name, seconds in spent.items():
        print(f"{name:20s}{seconds / args.pictures * 1e3:8.1f} ms {seconds / whole:6.0%}")
    print(f"{'picture':20s}{whole / args.pictures * 1e3:8.1f} ms, {whole / spent['draw and read back']:.1f} times drawing alone")


if __name__ == "__main__":
    main()
