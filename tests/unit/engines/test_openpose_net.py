"""The networks in torch, the weights of a file in them, and the ONNX file made of the same weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from caffe_kit import caffemodel, made_up

from posepipe.engines.models.openpose.caffe import load_into
from posepipe.engines.models.openpose.export import OPSET, fix, fixed_size, load, to_onnx
from posepipe.engines.models.openpose.plan import PLANS, plan
from posepipe.pipeline.errors import EngineError

torch = pytest.importorskip("torch", reason="torch is not installed: pip install posepipe[train]")
from posepipe.engines.models.openpose.net import OpenPose  # noqa: E402

PUBLISHED = {"body25": 26_166_084, "coco18": 52_311_446}


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_the_networks_have_the_published_number_of_parameters(name: str) -> None:
    with torch.device("meta"):
        net = OpenPose(name)
    assert sum(p.numel() for p in net.parameters()) == PUBLISHED[name]


def test_another_name_is_refused() -> None:
    with pytest.raises(EngineError, match="no OpenPose network 'body26'") as e:
        OpenPose("body26")
    assert e.value.hint == "did you mean 'body25'?"


@pytest.mark.parametrize(("name", "parts", "fields"), [("body25", 26, 52), ("coco18", 19, 38)])
def test_onnx_and_torch_give_the_same_maps_at_any_size(tmp_path: Path, name: str, parts: int, fields: int) -> None:
    layers = made_up(plan(name))
    (path := tmp_path / "x.caffemodel").write_bytes(caffemodel(layers))
    net = OpenPose(name).eval()
    load_into(net, path)
    model = to_onnx(plan(name), layers)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", OPSET)]
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for batch, height, width in ((1, 16, 32), (2, 32, 16)):
        picture = np.random.default_rng(1).uniform(-0.5, 0.5, (batch, 3, height, width)).astype(np.float32)
        heat, paf = session.run(["heatmaps", "fields"], {"picture": picture})
        with torch.no_grad():
            want = net(torch.from_numpy(picture))
        assert heat.shape == (batch, parts, height // 8, width // 8)
        assert paf.shape == (batch, fields, height // 8, width // 8)
        for have, other in zip((heat, paf), want, strict=True):
            assert have == pytest.approx(other.numpy(), abs=1e-3 * float(other.abs().max()))
            assert float(other.abs().max()) > 1e-3


def test_weights_that_do_not_fit_leave_the_network_as_it_was(tmp_path: Path) -> None:
    net = OpenPose("body25")
    before = net.convs["conv1_1"].weight.detach().clone()
    layers = made_up(plan("body25"))
    layers["Mconv7_stage1_L1"] = layers["Mconv7_stage1_L1"][:1]
    (path := tmp_path / "x.caffemodel").write_bytes(caffemodel(layers))
    with pytest.raises(EngineError, match=r"Mconv7_stage1_L1 has \[26, 512, 1, 1\] instead of \[26, 512, 1, 1\] and \[26\]"):
        load_into(net, path)
    assert torch.equal(net.convs["conv1_1"].weight, before)


def test_a_file_can_be_fixed_to_one_size_of_picture() -> None:
    model = to_onnx(PLANS["body25"], made_up(plan("body25")))
    assert fixed_size(model) is None
    fix(model, width=48, height=32)
    model = load(model.SerializeToString(), where="")
    assert fixed_size(model) == (48, 32)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert [(o.name, o.shape[1:]) for o in session.get_outputs()] == [("heatmaps", [26, 4, 6]), ("fields", [52, 4, 6])]


@pytest.mark.parametrize("content", [b"", b"no onnx at all", bytes(40)])
def test_what_is_no_onnx_file_is_refused(content: bytes) -> None:
    with pytest.raises(EngineError, match="not an ONNX file"):
        load(content, where="x")
