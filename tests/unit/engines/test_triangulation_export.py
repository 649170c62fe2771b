"""What is exported of the published networks gives in every runtime what torch gives."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install posepipe[train]")

from triangulation_kit import made_up, projections  # noqa: E402

from posepipe.engines.convert import to_fp16  # noqa: E402
from posepipe.engines.engine import EngineOptions, open_engine  # noqa: E402
from posepipe.engines.models.triangulation import export, geometry, resnet  # noqa: E402
from posepipe.engines.models.triangulation.net import Algebraic, Volumetric  # noqa: E402
from posepipe.engines.tensorrt_build import build_plan  # noqa: E402
from posepipe.pipeline.errors import EngineError  # noqa: E402

PX, N = 128, 32
CELLS = PX // 4


@pytest.fixture(scope="module", autouse=True)
def depth() -> Iterator[int]:
    """A backbone with one block in every stage has every kind of layer, and is a quarter of the work."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(resnet.BLOCKS, 14, (1, 1, 1, 1))
        yield 14


@pytest.fixture(scope="module")
def algebraic(depth: int) -> Algebraic:
    net = Algebraic(depth)
    made_up(net)
    return net


@pytest.fixture(scope="module")
def volumetric(depth: int) -> Volumetric:
    net = Volumetric(depth, how="conf")
    made_up(net)
    with torch.no_grad():
        net.volume_net.output_layer.weight.mul_(30)  # so that the voxels differ
    return net


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, algebraic: Algebraic, volumetric: Volumetric) -> Path:
    made = {
        "joints": export.joints_network(algebraic, size_px=PX),
        "solve": export.solve_network(),
        "whole": export.algebraic_network(algebraic, size_px=PX),
        "features": export.features_network(volumetric, size_px=PX),
        "volume": export.volume_network(volumetric, n=N),
    }
    made |= {how: export.unprojection(Volumetric(14, how=how), cells=CELLS, n=N) for how in ("sum", "max", "softmax", "conf", "conf_norm")}
    folder = tmp_path_factory.mktemp("onnx")
    for name, content in made.items():
        (folder / f"{name}.onnx").write_bytes(content)
    return folder


@pytest.fixture(params=["onnxruntime", "openvino"])
def runtime(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(request.param, reason=f"pip install {request.param}")
    return str(request.param)


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("POSEPIPE_HOME", str(tmp_path_factory.getbasetemp() / "home"))
    return


def ran(path: Path, runtime: str, precision: Any = "fp32", **inputs: Any) -> dict[str, np.ndarray[Any, Any]]:
    with open_engine(path, EngineOptions(runtime=runtime, precision=precision, threads=1, device="cpu")) as engine:
        return {name: array.copy() for name, array in engine({n: t.numpy() for n, t in inputs.items()}).items()}


def random(*shape: int) -> Any:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5))


def test_norms_are_folded_and_the_3d_network_has_the_published_layers(folder: Path) -> None:
    counts = {p.stem: Counter(n.op_type for n in onnx.load(p).graph.node) for p in folder.glob("*.onnx")}
    assert not any(c["BatchNormalization"] for c in counts.values())
    assert [counts["volume"][o] for o in ("Conv", "ConvTranspose", "MaxPool")] == [47, 5, 5]
    assert counts["softmax"]["GridSample"] == 1


def test_joints_and_heatmaps(folder: Path, runtime: str, algebraic: Algebraic) -> None:
    pictures = random(3, 3, PX, PX)
    found = ran(folder / "joints.onnx", runtime, picture=pictures)
    with torch.no_grad():
        maps = algebraic.backbone(pictures)
        cells, _ = geometry.soft_argmax_2d(maps.heatmaps)
    np.testing.assert_allclose(found["heatmaps"], maps.heatmaps, atol=1e-4 * maps.heatmaps.abs().max())
    np.testing.assert_allclose(found["joints"][..., :2], 4 * cells, atol=0.02)
    np.testing.assert_allclose(found["joints"][..., 2], maps.confidences, atol=1e-4)


@pytest.mark.parametrize("views", [2, 5])
def test_the_solve_takes_any_number_of_views(folder: Path, runtime: str, views: int) -> None:
    cameras = projections(views, unit=1000).repeat(3, 1, 1, 1)
    image = torch.einsum("nvab,njb->nvja", cameras, torch.cat([1000 + 500 * random(3, 17, 3), torch.ones(3, 17, 1)], dim=2))
    points = image[..., :2] / image[..., 2:] + 3 * random(3, views, 17, 2)
    trust = torch.rand(3, views, 17) + 0.1
    wanted = geometry.solve(points, cameras, trust / trust.sum(dim=1, keepdim=True))
    for precision in ("fp32", "fp16"):
        found = ran(folder / "solve.onnx", runtime, precision, joints=torch.cat([points, trust[..., None]], dim=-1), projections=cameras)
        np.testing.assert_allclose(found["xyz"], wanted, rtol=1e-3, atol=0.5)  # millimetres


@pytest.mark.parametrize(("precision", "px", "share"), [("fp32", 0.02, 1e-4), ("fp16", 2.0, 5e-3)])
def test_the_whole_algebraic_network(folder: Path, runtime: str, algebraic: Algebraic, precision: str, px: float, share: float) -> None:
    pictures, cameras = random(2, 4, 3, PX, PX), projections(4, size_px=PX).repeat(2, 1, 1, 1)
    found = ran(folder / "whole.onnx", runtime, precision, pictures=pictures, projections=cameras)
    with torch.no_grad():
        wanted = algebraic(pictures, cameras)
    np.testing.assert_allclose(found["points"], wanted.points, atol=px)
    np.testing.assert_allclose(found["confidences"], wanted.confidences, atol=share)
    again = geometry.solve(torch.from_numpy(found["points"]), cameras, torch.from_numpy(found["confidences"]))
    np.testing.assert_allclose(found["xyz"], again, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("how", ["sum", "max", "softmax", "conf", "conf_norm"])
def test_unprojection_with_a_missing_view(folder: Path, runtime: str, how: Any) -> None:
    features, trust, seen = random(2, 3, 32, CELLS, CELLS), torch.rand(2, 3, 32), torch.tensor([[1.0, 0, 1], [1, 1, 1]])
    cubes = geometry.coordinate_volume(torch.tensor([[1.0, 2, 0.9], [1.3, 2.1, 1]]), 2.5, N).flatten(1, 3)
    cameras = geometry.of_maps(projections(3, size_px=PX), picture=(PX, PX), maps=(CELLS, CELLS)).repeat(2, 1, 1, 1)
    grid = geometry.sampling_grid(cameras, cubes, size=(CELLS, CELLS))
    more = {"confidences": trust} if how.startswith("conf") else {}
    found = ran(folder / f"{how}.onnx", runtime, features=features, grid=grid, seen=seen, **more)["volume"]
    wanted = geometry.aggregate(geometry.sample(features, grid), how, confidences=trust, seen=seen > 0)
    assert found.shape == (2, N, N, N, 32)
    np.testing.assert_allclose(found.reshape(2, -1, 32), wanted.transpose(1, 2), atol=1e-4)


def test_features_with_their_confidences(folder: Path, runtime: str, volumetric: Volumetric) -> None:
    pictures = random(2, 3, PX, PX)
    found = ran(folder / "features.onnx", runtime, picture=pictures)
    with torch.no_grad():
        maps = volumetric.backbone(pictures)
        features = volumetric.process_features(maps.features)
    np.testing.assert_allclose(found["features"], features, atol=1e-4 * features.abs().max())
    np.testing.assert_allclose(found["confidences"], maps.confidences, atol=1e-4)


@pytest.mark.parametrize(("precision", "share"), [("fp32", 1e-4), ("fp16", 5e-3)])
def test_the_3d_network_takes_any_batch_in_both_precisions(
    folder: Path, runtime: str, volumetric: Volumetric, precision: str, share: float
) -> None:
    volume = random(2, N, N, N, 32)
    found = ran(folder / "volume.onnx", runtime, precision, volume=volume)
    with torch.no_grad():
        whole = volumetric.volume_net(volume.permute(0, 4, 1, 2, 3))
    from posepipe.engines.models.triangulation.losses import soft_argmax_3d

    wanted = soft_argmax_3d(whole, joints_last=False)
    print(
        f"{runtime} {precision}: xyz {np.abs(found['xyz'] - wanted.xyz.numpy()).max():.1e}, spread {np.abs(found['spread'] - wanted.spread.numpy()).max():.1e}"
    )
    np.testing.assert_allclose(found["xyz"], wanted.xyz, atol=share)
    np.testing.assert_allclose(found["spread"], wanted.spread, atol=share)


@pytest.mark.parametrize("name", ["joints", "solve", "features", "volume"])
def test_the_torch_runtime_runs_every_part_but_the_unprojection(folder: Path, name: str) -> None:
    inputs = {
        "joints": {"picture": random(2, 3, PX, PX)},
        "solve": {"joints": random(2, 4, 17, 3).abs(), "projections": projections(4).repeat(2, 1, 1, 1)},
        "features": {"picture": random(2, 3, PX, PX)},
        "volume": {"volume": random(1, N, N, N, 32)},
    }[name]
    found, wanted = (ran(folder / f"{name}.onnx", runtime, **inputs) for runtime in ("torch", "onnxruntime"))
    for output, want in wanted.items():
        np.testing.assert_allclose(found[output], want, rtol=1e-3, atol=1e-4 * max(1.0, np.abs(want).max()))


def test_the_torch_runtime_refuses_what_it_cannot_run_before_it_runs(folder: Path) -> None:
    with pytest.raises(EngineError, match=r"of node .* (is not known here|not known before it runs)"):
        open_engine(folder / "softmax.onnx", EngineOptions(runtime="torch", device="cpu"))


def test_float16_inside_leaves_expectation_and_solve_in_float32(folder: Path) -> None:
    for name, last in (("joints", "joints"), ("volume", "xyz")):
        graph = onnx.shape_inference.infer_shapes(onnx.load(to_fp16(folder / f"{name}.onnx"))).graph
        assert {o.name: o.type.tensor_type.elem_type for o in graph.output}[last] == onnx.TensorProto.FLOAT
        kinds = {v.name: v.type.tensor_type.elem_type for v in graph.value_info}
        for node in graph.node:
            if node.op_type in ("Softmax", "ReduceSum", "Sqrt"):
                assert kinds.get(node.input[0], onnx.TensorProto.FLOAT) == onnx.TensorProto.FLOAT, (name, node.name)
        assert any(kinds.get(node.input[0]) == onnx.TensorProto.FLOAT16 for node in graph.node if node.op_type == "Conv")
    for name in ("solve", "softmax", "conf"):
        graph = onnx.shape_inference.infer_shapes(onnx.load(to_fp16(folder / f"{name}.onnx"))).graph
        assert all(v.type.tensor_type.elem_type != onnx.TensorProto.FLOAT16 for v in graph.value_info), f"{name} has no weights"


@pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed: pip install tensorrt-rtx-cu13")
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", ["joints", "solve", "features", "softmax", "conf", "volume"])
def test_tensorrt_for_rtx_builds_it(folder: Path, name: str, precision: Any) -> None:
    four = {
        "solve": {"joints": (-1, 4, 17, 3), "projections": (-1, 4, 3, 4)},
        "softmax": {"features": (-1, 4, 32, CELLS, CELLS), "grid": (-1, 4, N**3, 2), "seen": (-1, 4)},
    }
    four["conf"] = {**four["softmax"], "confidences": (-1, 4, 32)}
    options = EngineOptions(runtime="tensorrt_rtx", precision=precision, max_batch=2)
    assert len(build_plan(folder / f"{name}.onnx", options=options, capability="sm89", shapes=four.get(name))) > 10_000
