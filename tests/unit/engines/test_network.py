"""Networks by their cards: generated ONNX files of the families' signatures, run by real runtimes from frames to key points."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from engine_kit import read_frames
from hypothesis import given, settings
from hypothesis import strategies as st
from network_kit import HIGH, SIMCC_CARD, TABLE_CARD, WIDE, own_card, ready_net, simcc_net, spot, table_net
from numpy.typing import NDArray

from posepipe.engines.assets import Asset, catalogue, user_card
from posepipe.engines.card import Preprocess
from posepipe.engines.crop import Pixels, Rois, crop_rgb, image_from_crop, to_image
from posepipe.engines.engine import EngineOptions
from posepipe.engines.network import Network, PersonDetector, TopDown, onnx_of
from posepipe.engines.onnxruntime import OnnxruntimeEngine
from posepipe.engines.regions import Detection, Regions
from posepipe.pipeline.errors import EngineError, PullError
from posepipe.pipeline.skeleton import BLAZEPOSE33, COCO17

CPU = EngineOptions(runtime="onnxruntime", threads=1)
STUB = EngineOptions(runtime="stub")
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def one(x: float, y: float, side: float, angle: float = 0.0) -> Rois:
    return Rois(np.array([[x, y]]), np.array([side]), np.array([angle]))


# the crop, in the form that a network takes


def coloured(wide: int = WIDE, high: int = HIGH) -> Any:
    rng = np.random.default_rng(3)
    frame = spot(100, 100)
    planes = tuple(
        np.kron(rng.integers(16, 235, (p.shape[0] // 8, p.shape[1] // 8)), np.ones((8, 8))).astype(np.uint8) for p in frame.planes
    )
    return replace(frame, planes=planes)


@pytest.mark.parametrize("bgr", [False, True])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize(("dtype", "mean", "std"), [("float32", MEAN, STD), ("float32", (0, 0, 0), (1, 1, 1)), ("int32", (0, 0, 0), (1, 1, 1)), ("uint8", (0, 0, 0), (1, 1, 1))])  # fmt: skip
def test_one_pass_writes_what_several_would(bgr: bool, planar: bool, dtype: str, mean: Any, std: Any) -> None:
    frame, map_ = coloured(), image_from_crop(one(300, 200, 300, 0.3), size=(96, 128))[0]
    plain = np.empty((128, 96, 3), np.uint8)
    crop_rgb(frame, map_, plain)
    want = (plain[..., ::-1] if bgr else plain).astype(np.float64)
    want = (want - mean) / std
    want = want.transpose(2, 0, 1) if planar else want
    out = np.full(want.shape, 7, dtype)
    crop_rgb(frame, map_, out, Pixels(bgr, planar, tuple(map(float, mean)), tuple(map(float, std))))
    np.testing.assert_allclose(out, want, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([(192, 256), (256, 192), (128, 128)]), st.floats(50, 900), st.floats(-3, 3))
def test_a_region_has_the_shape_of_the_crop(size: tuple[int, int], side: float, angle: float) -> None:
    m = image_from_crop(one(300, 200, side, angle), size=size)
    wide, high = size
    corners = to_image(m, np.array([[[-0.5, -0.5], [wide - 0.5, -0.5], [-0.5, high - 0.5], [(wide - 1) / 2, (high - 1) / 2]]]))[0]
    np.testing.assert_allclose(corners[3], [300, 200], atol=1e-9)
    assert np.linalg.norm(corners[1] - corners[0]) == pytest.approx(side * wide / max(size))
    assert np.linalg.norm(corners[2] - corners[0]) == pytest.approx(side * high / max(size))


# regions


def body(skeleton: Any, height: float = 400.0) -> NDArray[np.float64]:
    from posepipe.engines.decoders import figure

    return figure(skeleton.joints) * (height, height) + (100, 50)


@settings(max_examples=50, deadline=None)
@given(st.sampled_from([(192, 256), (256, 192)]), st.floats(30, 1500), st.integers(0, 2**17 - 1))
def test_a_box_around_a_body_holds_it_with_padding(size: tuple[int, int], height: float, hidden: int) -> None:
    uv = body(COCO17, height)[None]
    conf = np.array([[0.0 if hidden >> j & 1 else 0.9 for j in range(17)]])
    conf[0, [11, 12]] = 0.5
    rois = Regions(COCO17, Preprocess(size=size, fit="affine", padding=1.25)).of_joints(uv, conf)
    assert rois.there.all()
    assert rois.angle_rad[0] == 0
    m = image_from_crop(rois, size=size)[0]
    crop = (uv[0] - m[:, 2]) @ np.linalg.inv(m[:, :2]).T
    seen = crop[conf[0] > 0]
    assert seen.min() >= -0.5
    assert (seen <= np.array(size) - 0.5).all()
    share = np.ptp(seen, axis=0) / size
    assert share.max() <= 1 / 1.25 + 1e-6


def test_without_trunk_there_is_no_box() -> None:
    conf = np.ones((1, 17))
    conf[0, [5, 6, 11, 12]] = 0
    assert not Regions(COCO17, Preprocess(size=(192, 256), fit="affine")).of_joints(body(COCO17)[None], conf).there.any()
    nothing = Regions(COCO17, Preprocess(size=(192, 256), fit="affine")).of_joints(body(COCO17)[None], conf * 0)
    assert not nothing.there.any()


def test_a_layout_without_feet_has_room_for_them() -> None:
    shared = [BLAZEPOSE33.index(n) for n in COCO17.joints]
    uv = body(BLAZEPOSE33)
    square = Preprocess(size=(256, 256))
    with_feet = Regions(BLAZEPOSE33, square).of_joints(uv[None], np.ones((1, 33))).side_px[0]
    without = Regions(COCO17, square).of_joints(uv[None, shared], np.ones((1, 17))).side_px[0]
    assert without == pytest.approx(with_feet, rel=0.03)


def test_a_detection_gives_an_upright_box_or_a_turned_square() -> None:
    leaning = Detection(0.9, np.zeros(4), np.array([[100.0, 200], [160, 120], [0, 0], [0, 0]]))
    assert Regions(COCO17, Preprocess(size=(192, 256), fit="affine")).of_detections([leaning]).angle_rad[0] == 0
    square = Regions(COCO17, Preprocess(size=(256, 256))).of_detections([leaning])
    assert square.angle_rad[0] == pytest.approx(np.arctan2(60, 80))
    assert square.side_px[0] == pytest.approx(2 * 1.25 * 100)


# generated networks, end to end


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_network_of_rtmposes_signature_finds_the_spot(tmp_path: Path, runtime: str) -> None:
    if runtime == "openvino":
        pytest.importorskip("openvino", reason="OpenVINO is not installed: pip install posepipe[openvino]")
    simcc_net(tmp_path / "net.onnx")
    top = TopDown(own_card(tmp_path), EngineOptions(runtime=runtime, precision="fp32", threads=1), batch=2)  # type: ignore[arg-type]
    places = [(300.0, 200.0), (350.0, 260.0), (280.0, 310.0)]
    rois = Rois(np.tile([310.0, 240.0], (3, 1)), np.array([400.0, 300.0, 256.0]), np.array([0.0, 0.2, -0.1]))
    uv, conf = top.infer([spot(*p) for p in places], rois)
    assert uv.shape == (3, 17, 2)
    assert (conf > 0).all()
    for found, place, side in zip(uv, places, rois.side_px, strict=True):
        assert np.abs(found - place).max() < 0.8 * side / 256, "half a bin and a pixel of the crop"
    top.close()


def test_the_contract_of_rtmpose_is_met_by_its_signature(tmp_path: Path) -> None:
    for size in "sml":
        made = replace(catalogue()[f"rtmpose.{size}"], beside=tmp_path)
        simcc_net(tmp_path / made.files[0].name)
        network = Network(made, CPU, batch=1)
        found = network([spot(320, 240)], image_from_crop(one(320, 240, 400), size=network.size))
        assert np.abs(found.uv_px - (95.5, 127.5)).max() < 1
        network.close()


def test_a_network_that_divides_by_its_brightest_pixel_starts(tmp_path: Path) -> None:
    """No camera gives a picture that is black all over, and it is not tried with one."""
    simcc_net(tmp_path / "plain.onnx")
    model = onnx.load(tmp_path / "plain.onnx")
    scaled = [
        onnx.helper.make_node("ReduceMax", ["input"], ["brightest"], axes=[1, 2, 3]),
        onnx.helper.make_node("Div", ["input", "brightest"], ["scaled"]),
    ]
    for node in model.graph.node:
        node.input[:] = ["scaled" if name == "input" else name for name in node.input]
    for node in reversed(scaled):
        model.graph.node.insert(0, node)
    onnx.save(model, tmp_path / "net.onnx")
    top = TopDown(own_card(tmp_path), CPU, batch=2)
    uv, _ = top.infer([spot(300, 200)], one(310, 240, 400))
    assert np.abs(uv - (300, 200)).max() < 2
    top.close()


@pytest.mark.parametrize(("name", "side"), [("rtmdet.nano", 320), ("rtmdet.m", 640)])
def test_the_contract_of_rtmdet_is_met_by_its_signature(tmp_path: Path, name: str, side: int) -> None:
    made = replace(catalogue()[name], beside=tmp_path)
    box = (0.25 * side, 0.25 * side, 0.5 * side, 0.75 * side)
    ready_net(tmp_path / made.files[0].name, box, side=side)
    network = Network(made, CPU, batch=1)
    frames = [spot(1, 1), spot(2, 2)]
    people = network(frames, image_from_crop(Rois(np.zeros((2, 2)), np.full(2, float(side)), np.zeros(2)), size=network.size))
    assert [len(p.score) for p in people] == [1, 1], "the other box is of another class"
    np.testing.assert_allclose(people[0].box_px[0], np.array(box) - 0.5)
    network.close()


def test_a_network_with_a_fixed_batch_is_run_one_by_one(tmp_path: Path) -> None:
    rois = Rois(np.tile([310.0, 240.0], (3, 1)), np.array([400.0, 300.0, 256.0]), np.zeros(3))
    frames = [spot(300, 200), spot(350, 260), spot(280, 300)]
    answers = []
    for batch, said, at_once in (("n", -1, 1), (1, -1, 1), (1, 1, 1), (1, 1, 2)):
        folder = tmp_path / f"{batch}{said}{at_once}"
        card = own_card(folder, SIMCC_CARD.replace("[-1, 3, 256, 192]", f"[{said}, 3, 256, 192]"))
        simcc_net(folder / "net.onnx", batch=batch)
        top = TopDown(card, EngineOptions(runtime="onnxruntime", threads=1, instances=at_once), batch=3)
        answers.append(top.infer(frames, rois))
        top.close()
    for other in answers[1:]:
        for a, b in zip(answers[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_whole_picture_is_letterboxed_and_boxes_come_back_in_its_pixels() -> None:
    for frame in (spot(1, 1, wide=640, high=480), spot(1, 1, wide=480, high=640)):
        for name in ("yolox.nano", "rtmdet.nano", "movenet.multipose", "blazepose.detector"):
            (people,) = PersonDetector(name, STUB, batch=1).detect([frame])
            (person,) = people
            hips, _, chest, _ = person.points_px
            assert abs(hips[0] - (frame.width - 1) / 2) < 10, name
            assert abs(hips[1] - (frame.height - 1) / 2) < 0.05 * max(frame.width, frame.height), name
            assert chest[1] < hips[1]


@pytest.mark.parametrize("name", ["movenet.thunder", "movenet.lightning", "rtmpose.m", "blazepose.lite"])
def test_a_stub_of_every_card_shows_a_person_in_its_region(name: str) -> None:
    top = TopDown(name, STUB, batch=1)
    uv, conf = top.infer([spot(1, 1)], one(300, 200, 256))
    names = top.skeleton.joints
    assert conf.min() > 0.9
    nose, hip, ankle = (uv[0, names.index(n)] for n in ("nose", "left_hip", "left_ankle"))
    assert nose[1] < hip[1] < ankle[1]
    assert np.abs(uv[0].mean(axis=0) - (300, 200)).max() < 90


# bad networks


def test_nan_is_refused_by_name(tmp_path: Path) -> None:
    card = own_card(tmp_path, TABLE_CARD)
    table_net(tmp_path / "net.onnx", fill=np.nan)
    with pytest.raises(
        EngineError,
        match=r"mine.net: the network gave NaN or infinite numbers in t, items \[0\] of its batch\n  -> where its precision is not fp32",
    ):
        TopDown(card, CPU, batch=1)


def test_a_network_that_fails_at_its_first_run_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever wanted it has nothing to close."""
    closed: list[object] = []
    card = own_card(tmp_path, TABLE_CARD)
    table_net(tmp_path / "net.onnx", fill=np.nan)
    monkeypatch.setattr(OnnxruntimeEngine, "_close", lambda self: closed.append(self))
    with pytest.raises(EngineError, match="NaN or infinite"):
        TopDown(card, CPU, batch=1)
    assert len(closed) == 1


def test_a_file_that_is_not_a_network(tmp_path: Path) -> None:
    card = own_card(tmp_path)
    (tmp_path / "net.onnx").write_bytes(b"not a network at all")
    with pytest.raises(EngineError, match=r"net\.onnx: not a whole ONNX network: "):
        TopDown(card, CPU)


@pytest.mark.parametrize(
    ("made", "says"),
    [
        ({"channels": 1}, r"the input should be input float32 \[any, 3, 256, 192\], the network has input float32 \[any, 1, 256, 192\]"),
        ({"wide": 288, "high": 384}, r"the input should be .*256, 192\], the network has .*384, 288\]"),
        ({"joints": 26}, r"the output should be simcc_x float32 \[any, 17, 384\], the network has simcc_x float32 \[any, 26, 384\]"),
    ],
)
def test_a_network_that_is_not_the_cards(tmp_path: Path, made: dict[str, int], says: str) -> None:
    card = own_card(tmp_path)
    simcc_net(tmp_path / "net.onnx", **made)
    with pytest.raises(EngineError, match=says + r"\n  -> this is not the network of that card"):
        TopDown(card, CPU)


def test_what_a_card_must_say(tmp_path: Path) -> None:
    with pytest.raises(PullError, match=r"'net.onnx', which is not beside it"):
        TopDown(own_card(tmp_path), CPU)
    a, b = SIMCC_CARD.index("[mine.net.preprocess]"), SIMCC_CARD.index("[mine.net.decoder]")
    with pytest.raises(PullError, match=r"the card has no table \[preprocess\]"):
        TopDown(own_card(tmp_path, SIMCC_CARD[:a] + SIMCC_CARD[b:]), CPU)
    with pytest.raises(EngineError, match=r"the network gives the joints of one person, wanted are people in a picture"):
        PersonDetector(own_card(tmp_path), CPU)
    no_file = SIMCC_CARD.replace('[[mine.net.files]]\nname = "net.onnx"', "").replace('licence = "MIT"', 'licence = "MIT"\nfiles = []')
    whole = SIMCC_CARD.replace('fit = "affine"', 'fit = "letterbox"')
    with pytest.raises(PullError, match=r"does not look at whole pictures \(fit letterbox\)\n  -> write fit: affine"):
        TopDown(own_card(tmp_path, whole), CPU)
    with pytest.raises(EngineError, match="the card names no file"):
        onnx_of(user_card(Path(own_card(tmp_path, no_file))))


# the mirror's networks, on the recording


@pytest.mark.recording
@pytest.mark.parametrize("name", ["movenet.thunder", "movenet.lightning"])
def test_movenet_sees_the_body_that_blazepose_sees(pulled: Callable[[str], Asset], name: str) -> None:
    for needed in (name, "blazepose.full", "blazepose.detector"):
        pulled(needed)
    cameras = read_frames(pulled("pose2sim.single").path(), every=25)
    frames = [f for camera in cameras.values() for f in camera]
    people = [found[0] for found in PersonDetector("blazepose.detector", EngineOptions(), batch=1).detect(frames)]
    seen = []
    for network in (name, "blazepose.full"):
        top = TopDown(network, EngineOptions(), batch=1)
        uv, conf = top.infer(frames, top.regions.of_detections(people))
        uv, conf = top.infer(frames, top.regions.of_joints(uv, conf))
        at = [top.skeleton.index(n) for n in ("left_knee", "right_knee", "left_ankle", "right_ankle", "left_wrist", "right_wrist")]
        seen.append((uv[:, at], conf[:, at]))
    both = np.minimum(seen[0][1], seen[1][1]) > 0.5
    apart = np.linalg.norm(seen[0][0] - seen[1][0], axis=2)[both]
    assert both.mean() > 0.5
    assert np.median(apart) < 20, "of a body 700 px tall"


@pytest.mark.recording
@pytest.mark.parametrize("name", ["yolox.nano", "movenet.multipose"])
def test_detectors_find_the_performer(pulled: Callable[[str], Asset], name: str) -> None:
    for needed in (name, "blazepose.detector"):
        pulled(needed)
    cameras = read_frames(pulled("pose2sim.single").path(), every=25)
    frames = [f for camera in cameras.values() for f in camera]
    want = [found[0] for found in PersonDetector("blazepose.detector", EngineOptions(), batch=1).detect(frames)]
    near = 0
    for person, found in zip(want, PersonDetector(name, EngineOptions(), batch=1).detect(frames), strict=True):
        radius = np.linalg.norm(person.points_px[1] - person.points_px[0])
        near += any(np.linalg.norm(d.points_px[0] - person.points_px[0]) < 0.3 * radius for d in found)
    assert near >= 0.9 * len(frames)
