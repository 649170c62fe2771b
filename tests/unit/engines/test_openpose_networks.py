"""Part affinity networks by name and by card: found, sized, opened, refused. Pictures of a painted person through a network that repeats them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from engine_kit import frame
from onnx import TensorProto, helper, numpy_helper

from posepipe.engines.assets import Asset, asset
from posepipe.engines.decoders import open_decoder, stub_answers
from posepipe.engines.engine import EngineOptions
from posepipe.engines.models.openpose.bottomup import BottomUp, frame_from_input, input_size
from posepipe.engines.models.openpose.layout import COCO18
from posepipe.engines.models.openpose.networks import find, known, open_network
from posepipe.engines.models.openpose.paint import paint, upright
from posepipe.engines.onnxruntime import OnnxruntimeEngine
from posepipe.pipeline.errors import EngineError, PullError
from posepipe.pipeline.skeleton import skeleton

ROWS, COLUMNS = 32, 48
ORT = EngineOptions(runtime="onnxruntime", threads=1)

CARD = """
[mine.net]
kind = "model"
summary = "gives the same maps for every picture, brighter for brighter ones"
licence = "mine"
skeleton = "coco18"
files = [{name = "net.onnx"}]
inputs.data = {shape = [-1, 3, 256, 384], dtype = "float32"}
outputs.pafs = {shape = [-1, 38, 32, 48], dtype = "float32"}
outputs.heat = {shape = [-1, 19, 32, 48], dtype = "float32"}
preprocess = {size = [384, 256], colour = "bgr", layout = "nchw", dtype = "float32", fit = "letterbox"}
decoder = {kind = "paf", heatmaps = "heat", fields = "pafs", min_peak = 0.1}
"""


def person() -> Any:
    """Off the middle, so that right is not taken for left or up for down."""
    return np.add(upright(skeleton("coco18").joints, rows=ROWS, columns=COLUMNS), [6, 2])


@pytest.fixture
def card(tmp_path: Path) -> Path:
    """A card with a network that paints the person into every picture: maps x the picture's mean over 100."""
    maps = dict(zip(("heat", "pafs"), paint(COCO18, person(), rows=ROWS, columns=COLUMNS), strict=True))
    nodes = [helper.make_node("ReduceMean", ["data"], ["mean"], axes=[1, 2, 3]), helper.make_node("Div", ["mean", "hundred"], ["bright"])]
    nodes += [helper.make_node("Mul", ["bright", f"{name}/map"], [name]) for name in maps]
    constants = [numpy_helper.from_array(m[None], f"{name}/map") for name, m in maps.items()]
    constants.append(numpy_helper.from_array(np.array(100, np.float32), "hundred"))
    data = helper.make_tensor_value_info("data", TensorProto.FLOAT, ["n", 3, "h", "w"])
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", len(m), "r", "c"]) for name, m in maps.items()]
    graph = helper.make_graph(nodes, "net", [data], outputs, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "net.onnx")
    (path := tmp_path / "card.toml").write_text(CARD)
    return path


def bright(width: int, height: int) -> Any:
    """A frame whose colours are 100."""
    return frame(np.full((height, width), 102, np.uint8))


@pytest.mark.usefixtures("cache")
def test_a_users_card_is_enough(card: Path) -> None:
    network = BottomUp(str(card), ORT, pictures_px=[(384, 256)])
    assert (network.width, network.height, network.skeleton.name) == (384, 256, "coco18")
    (bodies,) = network.infer([bright(384, 256)])
    assert bodies.points.shape == (1, 18, 3)
    assert bodies.points[0, :, :2] == pytest.approx(8 * (person()[0] + 0.5) - 0.5, abs=0.5)
    network.close()


@pytest.mark.usefixtures("cache")
def test_a_network_that_fails_at_its_first_run_is_closed(card: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[object] = []
    monkeypatch.setattr(OnnxruntimeEngine, "_close", lambda self: closed.append(self))
    monkeypatch.setattr(OnnxruntimeEngine, "_run", lambda self, inputs, instance: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        BottomUp(str(card), ORT, pictures_px=[(384, 256)])
    assert len(closed) == 1


@pytest.mark.usefixtures("cache")
def test_points_are_those_of_the_frame_whatever_its_size(card: Path) -> None:
    network = BottomUp(str(card), ORT, pictures_px=[(384, 256)])
    found = network.infer([bright(768, 512), bright(384, 256)])
    assert (found[0].points[0, :, :2] + 0.5) / 2 == pytest.approx(found[1].points[0, :, :2] + 0.5, abs=0.1)
    assert network.cell_px(768, 512) == 16
    network.close()


@pytest.mark.usefixtures("cache")
def test_one_file_is_kept_for_each_size_of_picture(card: Path, cache: Path) -> None:
    for _ in range(2):
        open_network(find(str(card)), ORT, width=384, height=256).close()
    (kept,) = (cache / "onnx").iterdir()
    assert kept.name.split("-", 1)[1] == "paf-384x256-v1.onnx"
    whole = kept.read_bytes()
    kept.write_bytes(whole[:100])
    open_network(find(str(card)), ORT, width=384, height=256).close()
    assert kept.read_bytes() == whole, "made again when it is damaged"


@pytest.mark.usefixtures("cache")
def test_a_network_of_one_size_keeps_it(card: Path) -> None:
    model = onnx.load(card.parent / "net.onnx")
    for d, n in zip(model.graph.input[0].type.tensor_type.shape.dim[2:], (256, 384), strict=True):
        d.dim_value = n
    onnx.save(model, card.parent / "net.onnx")
    with pytest.raises(EngineError, match="takes pictures of 384 x 256 only, wanted were 192 x 128") as e:
        BottomUp(str(card), ORT, pictures_px=[(384, 256)], short_px=128)
    assert "leave short_px out" in e.value.hint


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    ("old", "new", "error", "says"),
    [
        ('kind = "paf"', 'kind = "simcc"', EngineError, "has no part affinity fields"),
        ('"coco18"', '"coco17"', EngineError, "no parts and limbs are known for the skeleton 'coco17'"),
        ("min_peak", "min_paek", PullError, "min_paek"),
        ('heatmaps = "heat"', 'heatmaps = "haet"', PullError, r"card.toml: .* no output 'haet'\n  -> did you mean 'heat'"),
        ("min_peak = 0.1", "stride = 4", PullError, r"card.toml: .* by stride = 4\n  -> write stride = 8"),
        ('"net.onnx"', '"nte.onnx"', PullError, "which is not beside it"),
        ('fit = "letterbox"}', 'fit = "letterbox", mean = [1, 2, 3], colour2 = 1}', PullError, "colour2"),
    ],
)
def test_cards_that_are_wrong_are_refused(card: Path, old: str, new: str, error: type[Exception], says: str) -> None:
    card.write_text(CARD.replace(old, new))
    with pytest.raises(error, match=says):
        BottomUp(str(card), ORT, pictures_px=[(384, 256)])


def test_the_names_that_there_are(cache: Path) -> None:
    assert known() == ("openpose.light", "stub")
    light = find("openpose.light")
    assert (light.short_px, light.picture, light.parts is COCO18, light.pixels.bgr, light.pixels.planar) == (256, "data", True, True, True)
    with pytest.raises(EngineError, match="no part affinity network 'stbu'") as e:
        find("stbu")
    assert e.value.hint == "did you mean 'stub'?"


def test_other_networks_that_were_imported_are_not_its_own(cache: Path) -> None:
    """A card that cannot be read is listed: who asks for it is told what is wrong with it."""
    for name, text in (
        ("openpose.mine", CARD),
        ("triangulation.hall", CARD.replace('kind = "paf"', 'kind = "simcc"')),
        ("openpose.torn", "["),
    ):
        (folder := cache / "imported" / name).mkdir(parents=True)
        (folder / "card.toml").write_text(text)
        (folder / "net.onnx").write_bytes(b"net")
    assert known() == ("openpose.light", "openpose.mine", "openpose.torn", "stub")
    with pytest.raises(EngineError, match=r"no part affinity network 'triangulation\.hall'"):
        find("triangulation.hall")
    with pytest.raises(PullError, match=r"card\.toml"):
        find("openpose.torn")


def test_what_was_not_pulled_says_how(cache: Path) -> None:
    with pytest.raises(PullError, match=r"'openpose.light' is not on this machine") as e:
        BottomUp("openpose.light", ORT, pictures_px=[(640, 480)])
    assert "POSEPIPE_MIRROR" in e.value.hint


def test_a_damaged_file_is_refused(cache: Path) -> None:
    file = asset("openpose.light").files[0]
    (path := cache / "assets" / "openpose.light" / file.name).parent.mkdir(parents=True)
    path.write_bytes(bytes(file.bytes))
    with pytest.raises(EngineError, match="the file is damaged: its sha256 is not the card's") as e:
        BottomUp("openpose.light", ORT, pictures_px=[(640, 480)])
    assert "posepipe pull openpose.light" in e.value.hint


def test_the_cards_decoder_finds_the_stubs_person() -> None:
    card = asset("openpose.light")
    answers = stub_answers(card)
    (bodies,) = open_decoder(card)({name: array[None] for name, array in answers.items()})
    want = upright(skeleton("coco18").joints, rows=32, columns=57)
    assert bodies.points[0, :, :2] == pytest.approx(8 * (want[0] + 0.5) - 0.5, abs=1)


def test_the_light_network_finds_nobody_in_grey_and_runs_batches(pulled: Callable[[str], Asset]) -> None:
    pulled("openpose.light")
    network = BottomUp("openpose.light", ORT, pictures_px=[(320, 240)], short_px=64, batch=2)
    found = network.infer([bright(320, 240), bright(320, 240), bright(320, 240)])
    assert [len(b.points) for b in found] == [0, 0, 0]
    network.close()


@pytest.mark.parametrize(
    ("pictures", "short", "want"),
    [
        ([(1920, 1080)], 256, (464, 256)),
        ([(1080, 1920)], 256, (256, 464)),
        ([(1920, 1080), (1088, 1920)], 256, (464, 464)),
        ([(640, 480)], 368, (496, 368)),
        ([(656, 368)], 368, (656, 368)),
    ],
)
def test_the_input_takes_all_pictures(pictures: list[tuple[int, int]], short: int, want: tuple[int, int]) -> None:
    assert input_size(pictures, short) == want


def test_pictures_without_a_size_are_refused() -> None:
    with pytest.raises(EngineError, match="pictures of the sizes"):
        input_size([], 256)


def test_corners_meet() -> None:
    corner = frame_from_input(4.0) @ [-0.5, -0.5, 1]
    assert corner.tolist() == [-0.5, -0.5]
