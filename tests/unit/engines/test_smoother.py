"""A network that smooths is opened by its card, and whatever is not one is refused with what it is."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import vibe_kit

from posepipe.engines.engine import EngineOptions
from posepipe.engines.smoother import SmootherNetwork, smoother_card, smoother_file
from posepipe.pipeline.errors import EngineError, PullError

OPTIONS = EngineOptions(runtime="onnxruntime", threads=1)


def test_one_step_of_two_people_and_what_it_remembers_goes_in_again(tmp_path: Path) -> None:
    network = SmootherNetwork(vibe_kit.network(tmp_path), OPTIONS, batch=2)
    state = np.zeros((2, network.memory), np.float32)
    window, after_s = network.nothing(2)
    window[0, 0, :, :3], window[0, 0, :, 4] = (1, 2, 3), 0.9
    after_s[:, 0] = 0.03
    first = network(state, window, after_s)
    assert first.joints[0] == pytest.approx(np.tile([1, 2, 3], (17, 1)))
    assert (first.joints[1] == 0).all()
    assert first.spread == pytest.approx(np.full((2, 17), vibe_kit.SPREAD_M))
    assert [a.shape for a in (first.pose, first.shape, first.root, first.state)] == [(2, 24, 6), (2, 16), (2, 3), (2, vibe_kit.MEMORY)]
    second = network(first.state, *network.nothing(2))
    assert second.joints[0] == pytest.approx(first.joints[0]), "it goes on from there"
    assert (first.joints[0] == [1, 2, 3]).all(), "the next call leaves alone what this one gave"
    network.close()


def test_it_runs_in_float32_and_for_real_whatever_the_studio_says(tmp_path: Path) -> None:
    network = SmootherNetwork(vibe_kit.network(tmp_path), EngineOptions(runtime="stub", precision="bf16", threads=1))
    assert network.engine.precision == "fp32"
    assert network.engine.runtime != "stub"
    network.close()


def test_how_much_it_remembers_is_read_from_the_file(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="`state` is of any size, so nobody knows how much it remembers\n  -> export it with a fixed"):
        SmootherNetwork(vibe_kit.network(tmp_path, memory="M"), OPTIONS)
    vibe_kit.card(tmp_path, memory=77)
    with pytest.raises(EngineError, match=r"the input should be state float32 \[any, 77\], the network has state float32 \[any, M?"):
        SmootherNetwork(str(tmp_path / "card.toml"), OPTIONS)


def test_numbers_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"card\.toml: the network gives numbers that are not finite\n  -> train it again"):
        SmootherNetwork(vibe_kit.network(tmp_path, scale=float("nan")), OPTIONS)


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"window": 5}, "window [-1, 5, 17, 5]"),
        (
            {"skeleton": "blazepose33"},
            "for blazepose33; wanted are state [-1, -1]; window [-1, 9, 17, 5]; after_s [-1, 9], and out of it joints",
        ),
    ],
)
def test_a_card_of_another_network(tmp_path: Path, other: dict[str, object], says: str) -> None:
    with pytest.raises(EngineError, match=re.escape(says)) as refused:
        smoother_card(vibe_kit.card(tmp_path, **other))
    assert "posepipe train vibe" in refused.value.hint


def test_a_network_of_another_kind_is_no_smoother() -> None:
    with pytest.raises(EngineError, match=r"there is no network 'lifter\.baseline' that smooths people"):
        smoother_card("lifter.baseline")


def test_without_its_file(tmp_path: Path) -> None:
    path = vibe_kit.network(tmp_path)
    assert smoother_file(path) == {path: tmp_path / "net.onnx"}
    (tmp_path / "net.onnx").unlink()
    with pytest.raises(PullError, match=r"the card names 'net\.onnx', which is not beside it"):
        smoother_file(path)
