"""The torch runtime gives what ONNX Runtime gives of every network that comes with posepipe. Without a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from posepipe.engines.assets import asset, catalogue
from posepipe.engines.card import Packaged

pytest.importorskip("torch", reason="torch is not installed: pip install posepipe[train]")

from tests.unit.engines.torch_kit import both, engine, noise

F32 = NDArray[np.float32]


def file(name: str) -> Path:
    return asset(name).path(asset(name).files[0].name)


MEMORY = next(v for v in onnx.load(file("vibe.smooth")).graph.input if v.name == "state").type.tensor_type.shape.dim[1].dim_value


def share(*shape: int, seed: int = 0) -> F32:
    return np.random.default_rng(seed).random(shape, np.float32)


def people(n: int) -> dict[str, F32]:
    """A window of vibe.smooth in which four of five joints are seen, of people who begin."""
    window = noise(n, 9, 17, 5)
    window[..., 3], window[..., 4] = 0.02, share(n, 9, 17) < 0.8
    return {"state": np.zeros((n, MEMORY), np.float32), "window": window, "after_s": np.full((n, 9), 0.03, np.float32)}


def views(n: int, v: int) -> dict[str, F32]:
    return {"shapes": noise(n, v, 17, 14), "agreement": noise(n, v, 17, 19), "seen": (share(n, v, 17) < 0.8).astype(np.float32)}


# What goes in, twice: of one person, and of several with other sizes where they are open.
INPUTS: dict[str, list[dict[str, F32]]] = {
    "action.skeleton": [{"clip": noise(n, 24, 13, 7)} for n in (1, 3)],
    "lifter.baseline": [{"view": noise(n, 54)} for n in (1, 3)],
    "triangulation.confidence": [views(1, 4), views(3, 2)],
    "triangulation.posture": [{"joints": noise(n, 17, 20)} for n in (1, 3)],
    "triangulation.slim": [{"volume": share(n, 32, 32, 32, 17) ** 4} for n in (1, 2)],
    "vibe.smooth": [people(1), people(3)],
}
# A share of the largest number of an output. bf16 keeps 8 binary digits; what is smoothed is 20 layers deep, and goes in again.
NEAR = {"fp32": 1e-5, "bf16": 0.05}


def test_all_that_come_along_are_here() -> None:
    assert set(INPUTS) == {name for name, one in catalogue().items() if isinstance(one.source, Packaged)}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", INPUTS)
def test_it_gives_the_same(name: str, precision: Any) -> None:
    for inputs in INPUTS[name]:
        torchs, reference = both(file(name), inputs, precision=precision, threads=1)
        assert torchs.keys() == reference.keys()
        for output, want in reference.items():
            assert (torchs[output].shape, torchs[output].dtype) == (want.shape, want.dtype)
            assert np.abs(torchs[output] - want).max() <= NEAR[precision] * max(1.0, float(np.abs(want).max())), output


def test_what_is_remembered_of_a_person_stays_the_same_over_many_instants() -> None:
    name, given = "vibe.smooth", people(2)
    with engine(file(name), threads=1) as one:
        states = [given["state"]]
        for _ in range(20):
            states.append(one({**given, "state": states[-1]})["state_after"].copy())
    (_, reference) = both(file(name), {**given, "state": states[-2]}, threads=1)
    assert states[-1] == pytest.approx(reference["state_after"], abs=1e-4)
    assert np.abs(states[-1] - states[1]).max() > 0.1
