"""Made-up truths for tests that need no pictures, and what tests with pictures need."""

from __future__ import annotations

import numpy as np
import pytest

from posepipe.calib.synthetic_truth import FORMAT, Person, Scene, Truth


def made_up_truth(*, people: int = 1, cameras: int = 2, frames: int = 4, seed: int = 0) -> Truth:
    """Random numbers in the right shapes; the last frame lacks every person."""
    rng = np.random.default_rng(seed)
    names = tuple(f"cam{c + 1}" for c in range(cameras))
    who = tuple(Person(id=p, shape=[0.5] * 16, colours={"shirt": [0.1, 0.2, 0.3]}, clip="walk", label="walking") for p in range(people))
    scene = Scene(
        format=FORMAT, seed=seed, fps=30.0, frames=frames, size_px=(640, 480), cameras=names, actions=("walking",), people=who, options={}
    )

    def random(*shape: int) -> np.ndarray:
        array = rng.normal(size=shape).astype(np.float32)
        array[:, -1] = np.nan
        return array

    t_s = np.arange(frames) / 30.0
    return Truth(
        where="made up",
        scene=scene,
        t_s=t_s,
        capture_t_s=np.tile(t_s, (cameras, 1)),
        camera_from_world=rng.normal(size=(cameras, frames, 3, 4)),
        coco17_m=random(people, frames, 17, 3),
        body25_m=random(people, frames, 25, 3),
        smpl24_m=random(people, frames, 24, 3),
        root_m=random(people, frames, 3),
        coco17_uv_px=rng.normal(size=(cameras, people, frames, 17, 2)).astype(np.float32),
        coco17_visible=rng.random((cameras, people, frames, 17)) < 0.5,
        action=np.zeros((people, frames), np.int16),
    )


def needs_egl() -> None:
    """Skip, saying what is missing, where nothing can be drawn."""
    moderngl = pytest.importorskip("moderngl", reason='needs moderngl: pip install "posepipe[synth]"')
    try:
        moderngl.create_context(standalone=True, require=330, backend="egl").release()
    except Exception as error:  # the binding raises bare Exception
        pytest.skip(f"needs OpenGL through EGL (apt install libegl1 libgl1-mesa-dri): {error}")
