"""Weights out of caffemodels: files with random numbers of the right shapes stand for the published ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from caffe_kit import Layers, caffemodel, made_up
from hypothesis import given
from hypothesis import strategies as st

from posepipe.engines.models.openpose.caffe import matched, plan_of, read, scalars
from posepipe.engines.models.openpose.plan import PLANS, plan
from posepipe.pipeline.errors import EngineError

SMALL: Layers = {
    "a": (np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2), np.array([1.5, -2.0], np.float32)),
    "b": (np.full(200, 0.25, np.float32),),
}


@pytest.fixture(scope="module")
def body25() -> Layers:
    return made_up(plan("body25"))


@pytest.mark.parametrize(("name", "count", "layers"), [("body25", 26_166_084, 213), ("coco18", 52_311_446, 92)])
def test_the_networks_have_the_published_numbers_of_numbers(name: str, count: int, layers: int) -> None:
    blobs = PLANS[name].blobs()
    assert sum(int(np.prod(s)) for shapes in blobs.values() for s in shapes) == count
    assert len(blobs) == layers


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("doubles", [False, True])
def test_what_was_written_is_read(tmp_path: Path, old: bool, doubles: bool) -> None:
    (path := tmp_path / "x.caffemodel").write_bytes(caffemodel(SMALL, old=old, doubles=doubles))
    found = read(path)
    assert list(found) == ["a", "b"]
    for name, arrays in SMALL.items():
        for have, want in zip(found[name], arrays, strict=True):
            assert have.dtype == np.float32
            assert have.ravel().tolist() == want.ravel().tolist()
            assert [n for n in have.shape if n > 1] == [n for n in want.shape if n > 1]


@pytest.mark.parametrize("old", [False, True])
def test_a_whole_body25_file_fits_its_network(tmp_path: Path, body25: Layers, old: bool) -> None:
    (path := tmp_path / "pose_iter_584000.caffemodel").write_bytes(caffemodel(body25, old=old))
    found = read(path)
    assert scalars(found) == 26_166_084
    assert plan_of(found, where="") is plan("body25")
    layers = matched(plan("body25"), found, where="")
    assert list(layers) == list(plan("body25").blobs())
    for name, blobs in layers.items():
        for have, want in zip(blobs, body25[name], strict=True):
            assert np.array_equal(have, want)


def test_a_file_of_the_other_network_is_named(body25: Layers) -> None:
    with pytest.raises(EngineError, match="these are the weights of body25, not of coco18") as e:
        matched(plan("coco18"), body25, where="x")
    assert e.value.hint == "write --model body25"


def test_another_network_is_refused_by_its_layers() -> None:
    with pytest.raises(EngineError, match="weights of another network: its layers are a, b"):
        plan_of(SMALL, where="x")


def test_the_first_differences_are_listed_and_the_count(body25: Layers) -> None:
    layers = dict(body25)
    del layers["conv1_1"]
    layers["conv9_9"] = (np.zeros(7, np.float32),)
    layers["prelu4_2"] = (np.zeros(511, np.float32),)
    with pytest.raises(EngineError) as e:
        matched(plan("body25"), layers, where="x")
    text = e.value.what
    assert "26,164,298 numbers, body25 has 26,166,084" in text
    assert "conv1_1 is missing; conv9_9 is too much; prelu4_2 has [511] instead of [512]" in text


def test_more_differences_than_anyone_reads_are_counted(body25: Layers) -> None:
    layers = {name: blobs for k, (name, blobs) in enumerate(body25.items()) if k % 3}
    with pytest.raises(EngineError, match=r"conv1_1 is missing; .* and 66 more"):
        matched(plan("body25"), layers, where="x")


def test_numbers_that_are_not_finite_are_refused(body25: Layers) -> None:
    layers = {**body25, "prelu4_2": (np.full(512, np.nan, np.float32),)}
    with pytest.raises(EngineError, match="prelu4_2 has numbers that are not finite"):
        matched(plan("body25"), layers, where="x")


@given(st.integers(1, len(caffemodel(SMALL)) - 3))
def test_a_file_cut_anywhere_is_refused(tmp_path_factory: pytest.TempPathFactory, at: int) -> None:
    (path := tmp_path_factory.mktemp("cut") / "x.caffemodel").write_bytes(caffemodel(SMALL)[:at])
    try:
        found = read(path)
    except EngineError as e:
        refused = e.what
    else:  # cut between two layers: the file is whole, and its network will miss a layer
        refused = "not a whole caffemodel" if list(found) == ["a"] else ""
    assert refused.startswith("not a whole caffemodel")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "it holds no layer with numbers"),
        (b'name: "OpenPose - BODY_25"\ninput: "image"\n', "not a whole caffemodel"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "not a whole caffemodel"),
        (bytes(50), "not a whole caffemodel"),
        (b"\xff" * 30, "not a whole caffemodel"),
        (caffemodel({"a": SMALL["a"]})[:90], "ends in the middle"),
    ],
)
def test_what_is_no_caffemodel_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    (path := tmp_path / "x.caffemodel").write_bytes(content)
    with pytest.raises(EngineError, match=says) as e:
        read(path)
    assert e.value.where == str(path)
    assert "not the .prototxt" in e.value.hint


def test_a_shape_that_its_numbers_do_not_fill_is_refused(tmp_path: Path) -> None:
    content = caffemodel({"a": (np.zeros((2, 3), np.float32),)})
    (path := tmp_path / "x.caffemodel").write_bytes(content.replace(b"\x0a\x02\x02\x03", b"\x0a\x02\x02\x04"))
    with pytest.raises(EngineError, match=r"layer 'a' should have numbers of the shape \[2, 4\] and has 6"):
        read(path)


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="cannot read the weights: No such file"):
        read(tmp_path / "none.caffemodel")
