"""tflite to ONNX: the reader, and the transcription against a tflite runtime."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import tflite
from engine_kit import read_frames
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from posepipe.engines import tflite_onnx
from posepipe.engines.assets import Asset, asset
from posepipe.engines.crop import Pixels, Rois, crop_rgb, image_from_crop
from posepipe.engines.engine import EngineOptions, open_engine
from posepipe.engines.models.blazepose.decode import decode_heatmaps
from posepipe.engines.models.blazepose.networks import ALL_HEADS, HEATMAPS, PEOPLE, View, onnx_path, view_of
from posepipe.engines.tflite_graph import Graph, Level, Operator, Tensor, densify, read
from posepipe.pipeline.errors import EngineError, PullError


def test_densify_by_hand() -> None:
    # [[0, 7, 0], [0, 0, 0], [5, 0, 9]]: three dense rows, columns in compressed form
    rows, columns = Level(3), Level(0, np.array([0, 1, 1, 3]), np.array([1, 0, 2]))
    dense = densify(np.array([7, 5, 9], np.float16), [rows, columns], (3, 3))
    assert dense.dtype == np.float16
    assert dense.tolist() == [[0, 7, 0], [0, 0, 0], [5, 0, 9]]


def test_densify_two_compressed_levels() -> None:
    # Rows 0 and 2 are stored; row 0 has column 1, row 2 has columns 0 and 1.
    levels = [Level(0, np.array([0, 2]), np.array([0, 2])), Level(0, np.array([0, 1, 3]), np.array([1, 0, 1]))]
    assert densify(np.array([1.0, 2.0, 3.0]), levels, (3, 2)).tolist() == [[0, 1], [0, 0], [2, 3]]


@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 6), st.randoms())
def test_densify_undoes_compression(a: int, b: int, c: int, random: Any) -> None:
    dense = np.array([random.choice((0, 0, random.uniform(-1, 1))) for _ in range(a * b * c)]).reshape(a, b, c)
    kept = [np.flatnonzero(row) for row in dense.reshape(-1, c)]
    segments = np.concatenate([[0], np.cumsum([len(k) for k in kept])])
    levels = [Level(a), Level(b), Level(0, segments.astype(np.uint8), np.concatenate(kept).astype(np.uint8))]
    np.testing.assert_array_equal(densify(dense[dense != 0], levels, (a, b, c)), dense)


@pytest.mark.parametrize(
    ("levels", "says"),
    [
        ([Level(2), Level(0, np.array([0, 1, 3]), np.array([1, 0, 2]))], "dense level of 2"),
        ([Level(3), Level(0, np.array([0, 1, 3]), np.array([1, 0, 2]))], "do not fit"),
        ([Level(3), Level(0, np.array([0, 1, 1, 3]), np.array([1, 0, 3]))], "do not fit"),
        ([Level(3), Level(0, np.array([0, 1, 0, 3]), np.array([1, 0, 2]))], "do not fit"),
        ([Level(3), Level(3)], "stores 3 values for 9 places"),
    ],
)
def test_densify_refuses_parts_that_do_not_fit(levels: list[Level], says: str) -> None:
    with pytest.raises(EngineError, match=says):
        densify(np.ones(3), levels, (3, 3))


def test_read_refuses_what_is_not_tflite() -> None:
    with pytest.raises(EngineError, match=r"x\.tflite: not a tflite file"):
        read(b"hello, world", where="x.tflite")


def test_read_refuses_a_damaged_file() -> None:
    with pytest.raises(EngineError, match="damaged"):
        read(b"\xff\xff\xff\x7fTFL3", where="x.tflite")


CONV = {"Padding": tflite.Padding.SAME, "StrideH": 1, "StrideW": 1, "DilationHFactor": 1, "DilationWFactor": 1, "DepthMultiplier": 1}


class Options:
    """Settings of an operator, by the names of the schema."""

    def __init__(self, **values: int) -> None:
        self._values = {"FusedActivationFunction": tflite.ActivationFunctionType.NONE, **values}

    def __getattr__(self, name: str) -> Callable[[], int]:
        return lambda: self._values[name]


def _refused(monkeypatch: pytest.MonkeyPatch, kind: str, options: Options, *constants: NDArray[Any]) -> str:
    tensors = [Tensor("in", (1, 4, 4, 3), None), Tensor("out", (1, 4, 4, 3), None), *(Tensor("c", c.shape, c) for c in constants)]
    op = Operator(kind, (0, *range(2, 2 + len(constants))), (1,), options)
    graph = Graph(tuple(tensors), (op,), (0,), (1,))
    monkeypatch.setattr(tflite_onnx, "read", lambda *_, **__: graph)
    with pytest.raises(EngineError) as e:
        tflite_onnx.transcribe(b"", where="x.tflite", outputs={"out": "y"}, scale=1.0, offset=0.0)
    return str(e.value)


def test_unknown_operators_and_settings_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    w, b = np.zeros((1, 3, 3, 3), np.float32), np.zeros(3, np.float32)
    assert "SOFTMAX" in _refused(monkeypatch, "SOFTMAX", Options())
    assert "activation 4" in _refused(monkeypatch, "CONV_2D", Options(**CONV, FusedActivationFunction=4), w, b)
    assert "dilation [2, 1]" in _refused(monkeypatch, "CONV_2D", Options(**CONV | {"DilationHFactor": 2}), w, b)
    assert "multiplier 2" in _refused(monkeypatch, "DEPTHWISE_CONV_2D", Options(**CONV | {"DepthMultiplier": 2}), w, b)
    assert "PAD by" in _refused(monkeypatch, "PAD", Options(), np.array([[0, 0], [1, 1], [1, 1], [0, 2]], np.int32))
    assert "in a way that" in _refused(monkeypatch, "PAD", Options(), np.array([[0, 0], [1, 1], [1, 1], [0, 0]], np.int32))
    assert "half-pixel" in _refused(monkeypatch, "RESIZE_BILINEAR", Options(AlignCorners=1, HalfPixelCenters=0))
    assert "MAX_POOL_2D with padding" in _refused(monkeypatch, "MAX_POOL_2D", Options(Padding=tflite.Padding.SAME))
    assert "CONCATENATION" in _refused(monkeypatch, "CONCATENATION", Options(Axis=3))
    assert "RESHAPE" in _refused(monkeypatch, "RESHAPE", Options())


def test_an_output_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = Graph((Tensor("in", (1, 4, 4, 3), None),), (), (0,), (0,))
    monkeypatch.setattr(tflite_onnx, "read", lambda *_, **__: graph)
    with pytest.raises(EngineError, match=r"no output \['heat'\]; it has \['in'\]"):
        tflite_onnx.transcribe(b"", where="x", outputs={"heat": "y"}, scale=1.0, offset=0.0)


@pytest.mark.parametrize("offset", [0.0, -1.0])
@pytest.mark.parametrize("kinds", [("CONV_2D",), ("MAX_POOL_2D",), ("CONV_2D", "MAX_POOL_2D")])
def test_the_network_sees_the_picture_scaled_whoever_looks_at_it_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kinds: tuple[str, ...], offset: float
) -> None:
    rng = np.random.default_rng(3)
    w, b = rng.normal(size=(3, 3, 3, 3)).astype(np.float32), rng.normal(size=3).astype(np.float32)
    tensors = [Tensor("in", (1, 4, 4, 3), None), Tensor("w", w.shape, w), Tensor("b", b.shape, b)]
    ops, outputs = [], {}
    for kind in kinds:
        conv = kind == "CONV_2D"
        tensors.append(Tensor(kind, (1, 4, 4, 3) if conv else (1, 2, 2, 3), None))
        pool = Options(Padding=tflite.Padding.VALID, FilterHeight=2, FilterWidth=2, StrideH=2, StrideW=2)
        ops.append(Operator(kind, (0, 1, 2) if conv else (0,), (len(tensors) - 1,), Options(**CONV) if conv else pool))
        outputs[kind] = kind.lower()
    graph = Graph(tuple(tensors), tuple(ops), (0,), tuple(range(3, len(tensors))))
    monkeypatch.setattr(tflite_onnx, "read", lambda *_, **__: graph)
    model = tflite_onnx.transcribe(b"", where="x", outputs=outputs, scale=2 / 255, offset=offset)
    file = tmp_path / "x.onnx"
    file.write_bytes(model.SerializeToString())
    picture = rng.integers(0, 256, (2, 3, 4, 4)).astype(np.uint8)
    with open_engine(file, EngineOptions(runtime="onnxruntime", precision="fp32", threads=1)) as engine:
        got = {name: array.copy() for name, array in engine({"image": picture}).items()}
    seen = picture * np.float32(2 / 255) + np.float32(offset)
    padded = np.pad(seen, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    want = {
        "conv_2d": np.einsum("ncyxij,oijc->noyx", windows, w) + b[:, None, None],
        "max_pool_2d": seen.reshape(2, 3, 2, 2, 2, 2).max(axis=(3, 5)),
    }
    for name, array in got.items():
        np.testing.assert_allclose(array, want[name], atol=1e-5)


def test_a_card_of_interleaved_pictures_is_told_what_to_write() -> None:
    full = asset("blazepose.full")
    assert full.preprocess is not None
    own = replace(full, preprocess=msgspec.structs.replace(full.preprocess, layout="nhwc"))
    with pytest.raises(EngineError, match=r'its card says layout nhwc, dtype uint8\n  -> write layout = "nchw"'):
        view_of(own)


def _pictures(size: int) -> NDArray[np.uint8]:
    """[4,3,size,size]: two smooth pictures with a figure in them, and two of noise."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:size, :size] / size
    figure = ((abs(x - 0.5) < 0.12) & (abs(y - 0.5) < 0.35)) | ((x - 0.5) ** 2 + (y - 0.13) ** 2 < 0.005)
    smooth = [np.where(figure[..., None], tone, 255 * np.stack([x, y, 1 - x], -1)) for tone in (60, 200)]
    return np.ascontiguousarray(np.stack([*smooth, *rng.integers(0, 256, (2, size, size, 3))]).astype(np.uint8).transpose(0, 3, 1, 2))


def _reference(path: Path, pictures: NDArray[np.uint8], view: View) -> dict[str, NDArray[np.float32]]:
    litert = pytest.importorskip("ai_edge_litert.interpreter", reason="needs a tflite runtime: pip install ai-edge-litert")
    interpreter = litert.Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    outputs = {d["name"]: d["index"] for d in interpreter.get_output_details()}
    found: dict[str, list[NDArray[np.float32]]] = {new: [] for new in view.outputs.values()}
    for picture in pictures:
        scaled = picture.transpose(1, 2, 0)[None].astype(np.float32) * np.float32(view.scale) + np.float32(view.offset)
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], scaled)
        interpreter.invoke()
        for old, new in view.outputs.items():
            value = interpreter.get_tensor(outputs[old])
            found[new].append(value.transpose(0, 3, 1, 2) if value.ndim == 4 else value)
    return {name: np.concatenate(values) for name, values in found.items()}


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(
    ("name", "view"),
    [
        ("blazepose.lite", HEATMAPS),
        ("blazepose.lite", ALL_HEADS),
        ("blazepose.full", HEATMAPS),
        ("blazepose.full", ALL_HEADS),
        ("blazepose.heavy", HEATMAPS),
        ("blazepose.detector", PEOPLE),
    ],
)
def test_transcription_equals_the_original(pulled: Callable[[str], Asset], name: str, view: View, runtime: Any, batch: int) -> None:
    pytest.importorskip(runtime, reason=f"pip install {runtime}")
    network = pulled(name)
    pictures = _pictures(224 if view is PEOPLE else 256)[:batch]
    want = _reference(network.path(network.files[0].name), pictures, view)
    with open_engine(onnx_path(network, view), EngineOptions(runtime=runtime, precision="fp32", threads=1)) as engine:
        got = engine({"image": pictures})
        assert set(got) == set(want)
        for output in {"heatmaps", "boxes", "scores"} & set(want):
            assert np.abs(got[output] - want[output]).max() < 2e-3, output
        if "heatmaps" in want:
            uv_px, conf = decode_heatmaps(got["heatmaps"])
            want_px, want_conf = decode_heatmaps(want["heatmaps"])
            assert np.abs(uv_px - want_px).max() < 1e-3
            assert np.abs(conf - want_conf).max() < 1e-4
        if "presence" in want:
            assert np.abs(got["presence"] - want["presence"]).max() < 1e-4
            assert np.abs(got["segmentation"] - want["segmentation"]).mean() < 1e-5 * np.abs(want["segmentation"]).max()


@pytest.mark.recording
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_landmarks_of_real_people_equal_the_original(pulled: Callable[[str], Asset], runtime: Any) -> None:
    pytest.importorskip(runtime, reason=f"pip install {runtime}")
    network = pulled("blazepose.full")
    frames = [f[0] for f in read_frames(pulled("pose2sim.single").path(), every=100).values()]
    crops = np.empty((len(frames), 3, 256, 256), np.uint8)
    for frame, crop in zip(frames, crops, strict=True):
        region = Rois(np.array([[frame.width / 2, frame.height / 2]]), np.array([1200.0]), np.zeros(1))
        crop_rgb(frame, image_from_crop(region, size=256)[0], crop, Pixels(planar=True))
    want = _reference(network.path(network.files[0].name), crops, ALL_HEADS)
    with open_engine(onnx_path(network, ALL_HEADS), EngineOptions(runtime=runtime, precision="fp32", threads=1)) as engine:
        got = engine({"image": crops})
    difference = np.abs(got["landmarks"] - want["landmarks"]).reshape(-1, 39, 5)
    assert difference[:, :, :2].max() < 1e-3  # pixels
    assert np.abs(got["world"] - want["world"]).max() < 1e-4  # metres
    assert np.abs(got["heatmaps"] - want["heatmaps"]).max() < 1e-3


def test_the_transcription_is_kept(pulled: Callable[[str], Asset], monkeypatch: pytest.MonkeyPatch) -> None:
    network = pulled("blazepose.full")
    first = onnx_path(network, HEATMAPS)
    made = first.stat().st_mtime_ns
    assert onnx_path(network, HEATMAPS).stat().st_mtime_ns == made
    assert network.files[0].sha256[:16] in first.name
    assert f"v{tflite_onnx.VERSION}" in first.name


def test_a_network_that_was_not_fetched_says_how(cache: Path) -> None:
    with pytest.raises(PullError, match=r"posepipe pull blazepose\.full"):
        onnx_path(asset("blazepose.full"), HEATMAPS)
