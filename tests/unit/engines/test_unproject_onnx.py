"""The graph against the kernel: the same volumes."""

import importlib.util

import numpy as np
import onnx
import onnxruntime
import pytest
from people import looking_at

from posepipe.calib import Camera, Rig, project
from posepipe.calib.unproject import Cube, shares, sight, sight_pinhole, unproject, unproject_pinhole
from posepipe.engines.engine import EngineOptions
from posepipe.engines.models.triangulation.unproject_onnx import unproject_graph
from posepipe.engines.tensorrt_build import build_plan

MATRIX = np.array([[1400.0, 0, 960], [0, 1390, 530], [0, 0, 1]])
LENS = np.array([-0.08, 0.05, 0.002, -0.001, 0.01])
CENTRES = [(4.0, 0.5, 2.0), (-3.0, 2.0, 1.0), (0.5, -4.0, 2.5), (0.3, 0.2, 1.2)]
CUBES = [Cube(np.array([0.1, 0.2, 1.0]), 2.3, 0.7), Cube(np.array([-0.6, 0.4, 0.8]), 1.8, -2.0)]


def rig():
    return Rig(tuple(Camera(f"c{k}", 1920, 1080, MATRIX, LENS, looking_at(centre)) for k, centre in enumerate(CENTRES)))


def run(model, inputs):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(None, inputs)[0]


def inputs_of(maps, sights, share):
    names = ("camera", "lens", "fold2", "near", "cells")
    stacked = {name: np.concatenate([getattr(s, name) for s in sights]) for name in names}
    return stacked | {"maps": np.concatenate(maps).transpose(0, 3, 1, 2).copy(), "share": np.concatenate(share)}


@pytest.mark.parametrize("how", ["sum", "conf", "softmax"])
@pytest.mark.parametrize("people", [None, 2])
def test_the_graph_gives_what_the_kernel_gives(how, people):
    """Two people, four cameras of which one stands inside of the cube and one has no view of the second person; maps that are not square."""
    r, rng, n = rig(), np.random.default_rng(0), 12
    maps = [3 * rng.random((4, 20, 14, 17)).astype(np.float32) for _ in range(2)]
    middle = project(r, np.array([[0, 0, 1.0]])).uv_px[:, 0]
    rois = [
        np.column_stack([np.nan_to_num(middle, nan=500), np.full(4, side), np.full(4, angle)])
        for side, angle in ((900.0, 0.3), (700.0, -2.0))
    ]
    rois[1][1] = np.nan
    conf = [rng.random((4, 17)) for _ in range(2)]
    wanted = np.stack([unproject(r, m, roi, cube, n=n, how=how, conf=c) for m, roi, cube, c in zip(maps, rois, CUBES, conf, strict=True)])
    sights = [sight(r, roi, cube, (14, 20)) for roi, cube in zip(rois, CUBES, strict=True)]
    share = [shares(s.there, 17, how, c) for s, c in zip(sights, conf, strict=True)]
    found = run(unproject_graph(views=4, joints=17, size=(14, 20), n=n, how=how, people=people), inputs_of(maps, sights, share))
    assert found.shape == (2, n, n, n, 17)
    assert found == pytest.approx(wanted, abs=1e-4)
    assert wanted.max() > 1


def test_the_graph_in_the_published_geometry():
    rng, cube = np.random.default_rng(1), CUBES[0]
    maps = rng.random((4, 24, 24, 32)).astype(np.float32)
    small = np.diag([24 / 1920, 24 / 1080, 1]) @ MATRIX
    projections = np.stack([small @ c.camera_from_world for c in rig().cameras])
    seen = sight_pinhole(projections, cube, 24)
    graph = unproject_graph(views=4, joints=32, size=(24, 24), n=16, how="softmax")
    found = run(graph, inputs_of([maps], [seen], [shares(seen.there, 32, "softmax", None)]))
    assert found[0] == pytest.approx(unproject_pinhole(projections, maps, cube, n=16, how="softmax"), abs=1e-4)


def test_one_grid_sample_of_rank_four_does_it():
    model = unproject_graph(views=4, joints=17, size=(64, 64), n=8, how="softmax", people=1)
    assert [n.op_type for n in model.graph.node].count("GridSample") == 1
    assert {i.name: [d.dim_value for d in i.type.tensor_type.shape.dim] for i in model.graph.input}["maps"] == [4, 17, 64, 64]


@pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None,
    reason="tensorrt_rtx is not installed (pip install tensorrt-rtx-cu13, 95 MB to download)",
)
@pytest.mark.parametrize("how", ["conf", "softmax"])
@pytest.mark.parametrize("people", [None, 1])
def test_it_becomes_a_plan_of_tensorrt_for_rtx(tmp_path, monkeypatch, how, people):
    monkeypatch.setenv("POSEPIPE_HOME", str(tmp_path))
    path = tmp_path / "unproject.onnx"
    onnx.save(unproject_graph(views=4, joints=17, size=(64, 64), n=32, how=how, people=people), path)
    assert b"volume" in build_plan(path, options=EngineOptions(runtime="tensorrt_rtx", precision="fp32"), capability="sm89")
