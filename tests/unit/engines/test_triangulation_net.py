"""The networks of learnable triangulation: keys and sizes as published, geometry, and checkpoints that do not fit."""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install posepipe[train]")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from triangulation_kit import made_up, projections  # noqa: E402

from posepipe.engines.models.official import fill, read  # noqa: E402
from posepipe.engines.models.triangulation import geometry, official  # noqa: E402
from posepipe.engines.models.triangulation.net import Algebraic, Volumetric  # noqa: E402
from posepipe.engines.models.triangulation.resnet import ConfidenceHead, PoseResNet  # noqa: E402
from posepipe.engines.models.triangulation.v2v import V2V  # noqa: E402
from posepipe.pipeline.errors import EngineError  # noqa: E402
from posepipe.pipeline.skeleton import skeleton  # noqa: E402


def numbers(net: Any) -> int:
    return sum(p.numel() for p in net.parameters())


def test_networks_are_as_large_as_published() -> None:
    with torch.device("meta"):
        assert numbers(PoseResNet(152)) == 68_635_473
        assert numbers(V2V()) == 11_944_353
        assert round(numbers(PoseResNet(50)) / 1e6, 1) == 34.0
        assert round(numbers(ConfidenceHead(17)) / 1e6, 2) == 10.89


def test_keys_are_those_of_the_published_checkpoints() -> None:
    with torch.device("meta"):
        algebraic, volumetric = Algebraic(152).state_dict(), Volumetric(152).state_dict()
    for key in (
        "backbone.conv1.weight", "backbone.bn1.running_var", "backbone.layer1.0.downsample.1.weight", "backbone.layer3.35.conv3.weight",
        "backbone.deconv_layers.6.weight", "backbone.deconv_layers.7.num_batches_tracked", "backbone.final_layer.bias",
    ):  # fmt: skip
        assert key in algebraic
        assert key in volumetric
    assert {"backbone.alg_confidences.features.5.weight", "backbone.alg_confidences.head.4.bias"} <= algebraic.keys()
    assert not any("confidences" in key for key in volumetric)
    assert {
        "process_features.0.weight", "volume_net.front_layers.0.block.1.weight", "volume_net.front_layers.1.skip_con.0.weight",
        "volume_net.front_layers.2.res_branch.4.bias", "volume_net.encoder_decoder.decoder_upsample5.block.0.weight",
        "volume_net.encoder_decoder.mid_res.res_branch.3.weight", "volume_net.encoder_decoder.skip_res1.res_branch.0.weight",
        "volume_net.back_layers.2.block.0.weight", "volume_net.output_layer.weight",
    } <= volumetric.keys()  # fmt: skip
    assert volumetric["volume_net.output_layer.weight"].shape == (17, 32, 1, 1, 1)


def test_there_are_only_the_published_depths() -> None:
    with pytest.raises(EngineError, match="no ResNet-18"):
        PoseResNet(18)


def test_joints_have_the_published_order() -> None:
    layout = skeleton("human36m17")
    assert len(layout.joints) == 17
    assert layout.joints[6] == "pelvis"
    raw = [
        "Hip",
        "RHip",
        "RKnee",
        "RFoot",
        "LHip",
        "LKnee",
        "LFoot",
        "Spine",
        "Thorax",
        "Neck/Nose",
        "Head",
        "LShoulder",
        "LElbow",
        "LWrist",
        "RShoulder",
        "RElbow",
        "RWrist",
    ]
    names = {"Hip": "pelvis", "Neck/Nose": "nose", "RFoot": "right_ankle", "LFoot": "left_ankle"}
    order = [3, 2, 1, 4, 5, 6, 0, 7, 8, 10, 16, 15, 14, 11, 12, 13, 9]
    sides = {"R": "right_", "L": "left_"}
    assert layout.joints == tuple(
        names.get(r) or (sides[r[0]] + r[1:].lower() if r[0] in sides else r.lower()) for r in (raw[i] for i in order)
    )
    assert {b for bone in layout.bones for b in bone} == set(range(17))


# geometry -------------------------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 8), st.floats(0.01, 2000), st.integers(0, 2**31))
def test_rays_that_meet_are_solved_in_every_unit(views: int, unit: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    cameras = projections(views, unit=unit, seed=seed)
    truth = torch.from_numpy((rng.uniform([0.2, 1.2, 0], [1.8, 2.8, 1.8], (1, 20, 3)) * unit).astype(np.float32))
    image = torch.einsum("nvab,njb->nvja", cameras, torch.cat([truth, torch.ones(1, 20, 1)], dim=2))
    weights = torch.from_numpy(rng.uniform(0.2, 1, (1, views, 20)).astype(np.float32))
    weights[:, 2:] *= torch.from_numpy(rng.integers(0, 2, (1, views, 20))[:, 2:].astype(np.float32))  # some are not seen everywhere
    off = (geometry.solve(image[..., :2] / image[..., 2:], cameras, weights) - truth).norm(dim=2) / unit
    # Two cameras that face each other see the line between them badly.
    assert off.median() < 1e-4


def test_one_view_gives_finite_numbers_and_a_view_without_weight_none() -> None:
    cameras, points = projections(3), torch.full((1, 3, 1, 2), 200.0)
    one = torch.tensor([1.0, 0, 0]).view(1, 3, 1)
    assert torch.isfinite(geometry.solve(points, cameras, one)).all()
    assert torch.isfinite(geometry.solve(points, cameras, 0 * one)).all()
    two = torch.tensor([1.0, 1, 0]).view(1, 3, 1)
    wild = points.clone()
    wild[:, 2] = 1e4
    torch.testing.assert_close(
        geometry.solve(wild, cameras, two), geometry.solve(points[:, :2], cameras[:, :2], two[:, :2]), atol=1e-3, rtol=1e-3
    )


def test_the_solve_has_a_slope_towards_points_and_weights() -> None:
    points = (torch.rand(1, 4, 3, 2) * 300).requires_grad_()
    weights = torch.rand(1, 4, 3).requires_grad_()
    geometry.solve(points, projections(4), weights).square().sum().backward()
    assert points.grad.abs().min() > 0
    assert weights.grad.abs().min() > 0


def test_voxels_include_the_corners_and_turn_about_the_vertical() -> None:
    centre = torch.tensor([[1.0, 2.0, 0.9], [0.0, 0.0, 1.0]])
    cubes = geometry.coordinate_volume(centre, 2.5, 5)
    assert cubes.shape == (2, 5, 5, 5, 3)
    assert cubes[0, 0, 4, 2].tolist() == pytest.approx([1 - 1.25, 2 + 1.25, 0.9])
    turned = geometry.coordinate_volume(centre, 2.5, 5, torch.tensor([math.pi / 2, 0.0]))
    assert turned[0, 4, 2, 0].tolist() == pytest.approx([1.0, 2 + 1.25, 0.9 - 1.25], abs=1e-6)
    assert torch.equal(turned[1], cubes[1])
    yaw = geometry.random_yaw(500, torch.Generator().manual_seed(0))
    assert yaw.min() >= 0
    assert yaw.max() < 2 * math.pi
    assert yaw.std() == pytest.approx(2 * math.pi / 12**0.5, rel=0.1)


def test_points_behind_a_camera_and_beside_the_map_give_nothing() -> None:
    cameras = torch.tensor([[[[10.0, 0, 4, 0], [0, 10, 2, 0], [0, 0, 1, 0]]]])
    points = torch.tensor([[[0.0, 0, 1], [0, 0, -1], [0, 0, 0], [5, 0, 1]]])
    features = torch.ones(1, 1, 2, 4, 8)  # a map that is not square
    values = geometry.sample(features, geometry.sampling_grid(cameras, points, size=(4, 8)))
    assert values[0, 0, 0].tolist() == [1, 0, 0, 0]


def test_views_that_are_missing_do_not_count() -> None:
    values = torch.randn(1, 3, 2, 5)
    trust = torch.rand(1, 3, 2)
    seen = torch.tensor([[True, False, True]])
    for how in ("sum", "max", "softmax", "conf", "conf_norm"):
        some = geometry.aggregate(values, how, confidences=trust, seen=seen)
        torch.testing.assert_close(some, geometry.aggregate(values[:, ::2], how, confidences=trust[:, ::2]))
    with pytest.raises(ValueError, match="conf needs confidences"):
        geometry.aggregate(values, "conf")


# checkpoints ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def algebraic() -> Algebraic:
    net = Algebraic(50)
    made_up(net)
    return net


def saved(state: Any, path: Path, **how: Any) -> Path:
    torch.save({f"module.{k}": v for k, v in state.items()}, path, **how)
    return path


@pytest.mark.parametrize("zip_file", [True, False], ids=["today's format", "the format of 2019"])
def test_a_checkpoint_is_read_and_recognised(algebraic: Algebraic, tmp_path: Path, zip_file: bool) -> None:
    state = algebraic.state_dict()
    path = saved(state, tmp_path / "weights.pth", _use_new_zipfile_serialization=zip_file)
    held = read(path)
    assert official.look(held, where="x") == official.Found("algebraic", 50, "algebraic", numbers(algebraic))
    again = official.algebraic(held, where="x").state_dict()
    assert all(torch.equal(again[k], v) for k, v in state.items())
    with pytest.raises(EngineError, match="weights of the algebraic network") as e:
        official.volumetric(held, where="x")
    assert "--kind algebraic" in e.value.hint
    path.write_bytes(path.read_bytes()[:-50_000])
    with pytest.raises(EngineError, match="not a whole checkpoint") as e:
        read(path)
    assert "a broken download ends early" in e.value.hint


def test_keys_that_older_torch_did_not_write_may_be_missing(algebraic: Algebraic) -> None:
    state = {k: v for k, v in algebraic.state_dict().items() if not k.endswith("num_batches_tracked")}
    official.algebraic(state, where="x")


def test_the_first_differences_are_listed(algebraic: Algebraic) -> None:
    state = dict(algebraic.state_dict())
    del state["backbone.bn1.weight"]
    state["backbone.extra.weight"] = torch.zeros(1)
    state["backbone.final_layer.weight"] = torch.zeros(16, 256, 1, 1)
    state["backbone.final_layer.bias"] = torch.full((17,), torch.nan)
    net = Algebraic(50)
    before = net.backbone.conv1.weight.clone()
    with pytest.raises(EngineError) as e:
        fill(net, state, where="weights.pth")
    assert str(e.value) == (
        "weights.pth: the weights do not fit (358 keys, the network has 358): backbone.bn1.weight is missing; backbone.extra.weight is too much; "
        "backbone.final_layer.weight is [16, 256, 1, 1] instead of [17, 256, 1, 1]; backbone.final_layer.bias has numbers that are not finite\n"
        "  -> take the file that the publisher names for this network, unchanged"
    )
    assert torch.equal(net.backbone.conv1.weight, before)


def test_many_differences_are_counted(algebraic: Algebraic) -> None:
    state = {k: v for k, v in algebraic.state_dict().items() if "layer2" not in k}
    with pytest.raises(EngineError, match=r"backbone\.layer2\.0\.conv1\.weight is missing; .*; and \d+ more"):
        official.algebraic(state, where="x")


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        (("features.0.weight", "classifier.bias"), "weights of another network: it begins with features.0.weight, classifier.bias"),
        (("conv1.weight", "final_layer.weight"), "this is the 2D network alone"),
        (("backbone.conv1.weight", "backbone.layer3.1.conv1.weight"), "its backbone has 2 blocks in layer3"),
    ],
)
def test_other_networks_are_refused(keys: tuple[str, ...], says: str) -> None:
    with pytest.raises(EngineError, match=says):
        official.look({f"module.{k}": torch.zeros(1) for k in keys}, where="x")


def test_the_aggregation_must_go_with_the_heads_that_are_there() -> None:
    for how, hint in (("conf", "softmax, sum or max"), ("softmax", "conf or conf_norm")):
        net = Volumetric(50, how="softmax" if how == "conf" else "conf")
        assert official.look(net.state_dict(), where="x").kind == "volumetric"
        with pytest.raises(EngineError, match=r"which (conf|softmax) does not go with") as e:
            official.volumetric(net.state_dict(), how=how, where="x")
        assert hint in e.value.hint
    with pytest.raises(EngineError, match="weights of the volumetric network"):
        official.algebraic(net.state_dict(), where="x")


class _Harm:
    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit",)


def test_what_is_no_checkpoint_is_refused_and_nothing_in_it_is_run(tmp_path: Path) -> None:
    def refused(content: bytes) -> str:
        (path := tmp_path / "weights.pth").write_bytes(content)
        with pytest.raises(EngineError) as e:
            read(path)
        return str(e.value)

    for content in (b"", b"hello, this is a text", b"\x89HDF"):
        assert "not a checkpoint: it does not begin like a file of torch" in refused(content)
    assert "not a whole checkpoint" in refused(b"PK\x03\x04 and no archive")
    assert "not a checkpoint" in refused(b"\x80\x02 and no pickle")
    assert "the file holds more than tensors" in refused(pickle.dumps({"a": _Harm()}, protocol=2))
    torch.save([1, 2], tmp_path / "list.pth")
    assert "no dictionary of tensors" in refused((tmp_path / "list.pth").read_bytes())
    torch.save({"epoch": 3, "config": "x"}, tmp_path / "dict.pth")
    assert "no dictionary of tensors" in refused((tmp_path / "dict.pth").read_bytes())
    with pytest.raises(EngineError, match="there is no such file"):
        read(tmp_path / "nowhere.pth")
