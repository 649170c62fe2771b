"""VIBE and SPIN as published: keys, sizes, the facts of their layers, one step at a time; their checkpoints and what is said of others; SMPL in torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import smpl_kit
from hypothesis import given, settings
from hypothesis import strategies as st

from posepipe.calib.smpl import FACE_AND_FEET, SPIN49, load_smpl, of_local
from posepipe.pipeline.errors import EngineError

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'posepipe[train]'")

from posepipe.engines.models.triangulation import resnet  # noqa: E402
from posepipe.engines.models.vibe import official, published  # noqa: E402
from posepipe.engines.models.vibe.core import Attention, MotionDiscriminator, Regressor, matrices  # noqa: E402
from posepipe.engines.models.vibe.smpl import Smpl, project  # noqa: E402

GRU = {
    f"{name}_l{layer}": shape
    for layer, inputs in ((0, 2048), (1, 1024))
    for name, shape in (("weight_ih", (3072, inputs)), ("weight_hh", (3072, 1024)), ("bias_ih", (3072,)), ("bias_hh", (3072,)))
}
REGRESSOR = {
    "fc1.weight": (1024, 2205), "fc1.bias": (1024,), "fc2.weight": (1024, 1024), "fc2.bias": (1024,), "decpose.weight": (144, 1024),
    "decpose.bias": (144,), "decshape.weight": (10, 1024), "decshape.bias": (10,), "deccam.weight": (3, 1024), "deccam.bias": (3,),
    "init_pose": (1, 144), "init_shape": (1, 10), "init_cam": (1, 3),
}  # fmt: skip


def numbers(net: Any) -> int:
    return sum(p.numel() for p in net.parameters())


def shapes(net: Any) -> dict[str, tuple[int, ...]]:
    return {key: tuple(t.shape) for key, t in net.state_dict().items()}


@pytest.fixture(scope="module")
def net() -> Any:
    torch.manual_seed(0)
    net = published.Vibe().eval()
    with torch.no_grad():
        for head in (net.regressor.decpose, net.regressor.decshape, net.regressor.deccam):
            head.weight.normal_(0, 0.01)
        net.regressor.init_shape.uniform_(-1, 1)
    return net


@pytest.fixture(scope="module")
def features() -> Any:
    return torch.randn(2, 12, 2048, generator=torch.Generator().manual_seed(1)).abs()


@pytest.fixture(scope="module")
def checkpoint(net: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As the publisher's program writes it: numpy's numbers and SMPL's buffers beside the weights."""
    path = tmp_path_factory.mktemp("vibe") / "vibe_model_wo_3dpw.pth.tar"
    generator = {**net.state_dict(), "regressor.smpl.v_template": torch.zeros(6890, 3), "regressor.smpl.betas": torch.zeros(64, 10)}
    optimizer = {"state": {0: {"step": 9}}, "param_groups": [{"lr": 5e-5, "params": [0]}]}
    held = {"epoch": 20, "gen_state_dict": generator, "performance": np.float64(56.56), "gen_optimizer": optimizer}
    torch.save({**held, "disc_motion_state_dict": MotionDiscriminator().state_dict(), "disc_motion_optimizer": optimizer}, path)
    return path


@pytest.fixture
def shallow() -> Iterator[None]:
    """A backbone with one block in every stage."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(resnet.BLOCKS, 50, (1, 1, 1, 1))
        yield


def saved(path: Path, held: Any) -> Path:
    torch.save(held, path)
    return path


def test_the_generator_has_the_published_keys_and_sizes(net: Any) -> None:
    encoder = {f"gru.{key}": shape for key, shape in GRU.items()} | {"linear.weight": (2048, 1024), "linear.bias": (2048,)}
    assert shapes(net) == {f"encoder.{k}": s for k, s in encoder.items()} | {f"regressor.{k}": s for k, s in REGRESSOR.items()}
    assert (numbers(net.encoder.gru), numbers(net.encoder.linear), numbers(net.regressor)) == (15_740_928, 2_099_200, 3_469_469)


def test_the_motion_discriminator_has_the_published_keys_and_sizes() -> None:
    net = MotionDiscriminator()
    gru = {f"gru.{key}": (3072, 69) if key == "weight_ih_l0" else shape for key, shape in GRU.items()}
    gru["gru.weight_ih_l1"] = (3072, 1024)
    attention = {
        f"attention.attention.{k}.{part}": s
        for k, n in ((0, 1024), (3, 1024), (6, 1))
        for part, s in (("weight", (n, 1024)), ("bias", (n,)))
    }
    assert shapes(net) == gru | attention | {"fc.weight": (1, 1024), "fc.bias": (1,)}
    assert (numbers(net.gru), numbers(net.attention), numbers(net.fc)) == (9_661_440, 2_100_225, 1_025)


def test_features_and_regressor_together_have_the_keys_of_spin() -> None:
    features = published.Features()
    assert numbers(features) == 23_508_032
    stages = {"layer1": 3, "layer2": 4, "layer3": 6, "layer4": 3}
    norms = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    wanted = {"conv1.weight", *(f"bn1.{n}" for n in norms)}
    for stage, blocks in stages.items():
        for block in range(blocks):
            for k in (1, 2, 3):
                wanted |= {f"{stage}.{block}.conv{k}.weight", *(f"{stage}.{block}.bn{k}.{n}" for n in norms)}
        wanted |= {f"{stage}.0.downsample.0.weight", *(f"{stage}.0.downsample.1.{n}" for n in norms)}
    assert set(features.state_dict()) == wanted
    assert shapes(published.MeanRegressor()) == REGRESSOR
    assert len(wanted) + len(REGRESSOR) == 331


def test_one_instant_at_a_time_is_the_whole_sequence(net: Any, features: Any) -> None:
    with torch.inference_mode():
        whole, state, rotations = net(features), None, []
        for t in range(features.shape[1]):
            one = net(features[:, t : t + 1], state)
            state = one.state
            rotations.append(one.rotations)
    assert whole.theta.shape == (2, 12, 85)
    assert torch.cat(rotations, dim=1).numpy() == pytest.approx(whole.rotations.numpy(), abs=1e-5)
    assert state.numpy() == pytest.approx(whole.state.numpy(), abs=1e-5)


def test_nothing_is_seen_before_it_happens(net: Any, features: Any) -> None:
    other = features.clone()
    other[:, 7:] += 1
    with torch.inference_mode():
        a, b = net(features).theta, net(other).theta
    assert a[:, :7].numpy() == pytest.approx(b[:, :7].numpy(), abs=1e-5)
    assert float((a[:, 7:] - b[:, 7:]).abs().max()) > 1e-3


def test_the_step_as_a_file_is_the_network(net: Any, features: Any, tmp_path: Path) -> None:
    (path := tmp_path / "network.onnx").write_bytes(published.step_network(net))
    assert published.apart(net, path) < 1e-5
    step = published.Step(net)
    with torch.inference_mode():
        _, _, state = step(features[:, 0], torch.zeros(2, 2, 1024))
        both = step(features[:, 1], state)
        alone = step(features[1:, 1], state[1:])
    for a, b in zip(both, alone, strict=True):
        assert a[1:].numpy() == pytest.approx(b.numpy(), abs=1e-5)


def test_features_are_added_to_what_the_encoder_says(net: Any, features: Any) -> None:
    quiet = published.Vibe().eval()
    torch.nn.init.zeros_(quiet.encoder.linear.weight)
    torch.nn.init.zeros_(quiet.encoder.linear.bias)
    with torch.inference_mode():
        seen, _ = quiet.encoder(features.transpose(0, 1))
        hidden, _ = net.encoder.gru(features.transpose(0, 1))
        loud, _ = net.encoder(features.transpose(0, 1))
        wanted = net.encoder.linear(hidden.clamp_min(0)) + features.transpose(0, 1)
    assert torch.equal(seen, features.transpose(0, 1))
    assert loud.numpy() == pytest.approx(wanted.numpy(), abs=1e-5)


def test_nothing_bends_between_the_layers_of_the_regressor() -> None:
    """Corrections by layers without an activation are affine in everything: a sum of inputs gives the sum of outputs."""
    net = Regressor(16, 32).eval().double()
    rng = torch.Generator().manual_seed(2)
    a, b = ([torch.randn(4, n, generator=rng, dtype=torch.float64) for n in (16, 144, 10, 3)] for _ in range(2))
    zero = [torch.zeros_like(x) for x in a]
    with torch.inference_mode():
        both, one, two, none = (net(*x) for x in ([p + q for p, q in zip(a, b, strict=True)], a, b, zero))
    for together, left, right, offset in zip(both, one, two, none, strict=True):
        assert (together + offset).numpy() == pytest.approx((left + right).numpy(), abs=1e-9)


def test_six_numbers_are_two_columns_row_by_row() -> None:
    turned = matrices(torch.tensor([1.0, 9.0, 2.0, 0.5, 2.0, -4.0])).numpy()
    assert turned[:, 0] == pytest.approx(np.array([1, 2, 2]) / 3, abs=1e-6)
    second = np.array([9, 0.5, -4]) - turned[:, 0] * (turned[:, 0] @ [9, 0.5, -4])
    assert turned[:, 1] == pytest.approx(second / np.linalg.norm(second), abs=1e-6)
    assert turned[:, 2] == pytest.approx(np.cross(turned[:, 0], turned[:, 1]), abs=1e-6)


def test_theta_is_camera_then_rotations_then_shape(net: Any) -> None:
    quiet = published.MeanRegressor().eval()
    for head in (quiet.decpose, quiet.decshape, quiet.deccam):
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.zeros_(head.bias)
    quiet.init_cam[:] = torch.tensor([[0.9, 0.1, -0.2]])
    quiet.init_shape[:] = torch.arange(10.0)
    quiet.init_pose[0, 6:12] = torch.tensor([0.0, -1.0, 1.0, 0.0, 0.0, 0.0])  # a quarter about z
    with torch.inference_mode():
        theta, rotations = quiet.from_mean(torch.rand(3, 2048))
    assert theta[2, :3].numpy() == pytest.approx([0.9, 0.1, -0.2])
    assert theta[2, 3:75].reshape(24, 3)[1].numpy() == pytest.approx([0, 0, np.pi / 2], abs=1e-6)
    assert theta[2, 3:75].reshape(24, 3)[2:].abs().max() == 0
    assert theta[2, 75:].numpy() == pytest.approx(np.arange(10))
    assert rotations[2, 1].numpy() == pytest.approx(np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]]), abs=1e-6)


def turn(axis: Any, angle: float) -> Any:
    """Rodrigues' formula."""
    x, y, z = axis = np.asarray(axis, float) / np.linalg.norm(axis)
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k


@given(st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda a: np.linalg.norm(a) > 0.1), st.floats(0, np.pi))
@settings(max_examples=200, deadline=None)
def test_axis_and_angle_give_the_rotation_back(axis: Any, angle: float) -> None:
    rotation = turn(axis, angle)
    found = published.axis_angle(torch.from_numpy(rotation)).numpy()
    assert np.linalg.norm(found) == pytest.approx(angle, abs=1e-6)
    assert turn(found if angle > 1e-9 else [1, 0, 0], float(np.linalg.norm(found))) == pytest.approx(rotation, abs=1e-6)


def test_no_instant_counts_more_than_the_bound_of_its_score() -> None:
    """Scores end in a hyperbolic tangent, so that shares differ by e squared at most, whatever the layers say."""
    net = Attention(8).eval()
    with torch.no_grad():
        net.attention[6].weight.fill_(100.0)
    seen = torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(3)) * 50
    scores = net.attention(seen)[0, :, 0].detach()
    assert float(scores.max()) == pytest.approx(1.0)
    assert float(scores.min()) == pytest.approx(-1.0)
    shares = torch.softmax(scores, dim=0)
    assert net(seen).detach().numpy() == pytest.approx((shares[:, None] * seen[0]).sum(0, keepdim=True).numpy(), rel=1e-5)


def test_a_published_checkpoint_is_the_same_network(net: Any, checkpoint: Path, tmp_path: Path) -> None:
    bare = saved(tmp_path / "bare.pth", {f"module.{k}": v for k, v in net.state_dict().items()})
    for path in (checkpoint, bare):
        found = official.vibe(path)
        assert not found.training
        assert all(torch.equal(value, net.state_dict()[key]) for key, value in found.state_dict().items())
    assert numbers(official.motion_discriminator(checkpoint)) == 9_661_440 + 2_100_225 + 1_025


def test_spin_gives_features_and_the_regressor_that_vibe_began_as(shallow: None, tmp_path: Path) -> None:
    torch.manual_seed(4)
    deep, regressor = published.Features().eval(), published.MeanRegressor()
    state = {**deep.state_dict(), **regressor.state_dict()}
    path = saved(
        tmp_path / "spin.pth.tar", {"model": state, "optimizer": {}, "epoch": 1, "dataset_perm": np.arange(4), "total_step_count": 9}
    )
    found, again = official.spin(path)
    picture = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        assert found(picture).shape == (2, 2048)
        assert found(picture).numpy() == pytest.approx(deep(picture).numpy(), abs=1e-4)
    assert torch.equal(again.fc1.weight, regressor.fc1.weight)
    with pytest.raises(EngineError, match="these are the weights of SPIN, not of VIBE") as refused:
        official.vibe(path)
    assert refused.value.hint == "give it with --spin, and vibe_model_wo_3dpw.pth.tar with --checkpoint"
    del state["layer4.0.conv3.weight"]
    state["fc1.weight"] = torch.zeros(1024, 2048)
    with pytest.raises(EngineError, match=r"not the weights of SPIN \(\d+ keys, the network has \d+\): layer4.0.conv3.weight is missing"):
        official.spin(saved(path, {"model": state}))


def test_other_weights_are_refused_with_the_first_differences(net: Any, checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "vibe.pth.tar"
    state = dict(net.state_dict())
    del state["encoder.gru.bias_hh_l1"]
    state["encoder.gru.weight_ih_l0_reverse"] = torch.zeros(3072, 2048)
    state["encoder.linear.weight"] = torch.zeros(2048, 2048)
    state["regressor.fc2.bias"] = torch.full((1024,), float("nan"))
    with pytest.raises(EngineError) as refused:
        official.vibe(saved(path, {"gen_state_dict": state}))
    assert refused.value.what.endswith(
        "encoder.gru.bias_hh_l1 is missing; encoder.gru.weight_ih_l0_reverse is too much; "
        "encoder.linear.weight is [2048, 2048] instead of [2048, 1024]; regressor.fc2.bias has numbers that are not finite"
    )
    assert "two layers of 1024, forwards only" in refused.value.hint
    with pytest.raises(EngineError, match="these are the weights of VIBE, not of SPIN"):
        official.spin(checkpoint)
    with pytest.raises(EngineError, match="there is no gen_state_dict in it: it begins with epoch, arch"):
        official.vibe(saved(path, {"epoch": 1, "arch": "x"}))
    with pytest.raises(EngineError, match="there is no motion discriminator in it"):
        official.motion_discriminator(saved(path, {"gen_state_dict": {}}))
    path.write_bytes(checkpoint.read_bytes()[:100_000])
    with pytest.raises(EngineError, match="not a whole checkpoint"):
        official.vibe(path)


def test_the_mean_comes_with_the_checkpoint_or_from_its_file(net: Any, tmp_path: Path) -> None:
    path, file = tmp_path / "vibe.pth.tar", tmp_path / "smpl_mean_params.npz"
    mean = {key.removeprefix("init_"): getattr(net.regressor, key)[0].numpy() for key in ("init_pose", "init_shape", "init_cam")}
    np.savez(file, **mean)
    lacking = {key: value for key, value in net.state_dict().items() if ".init_" not in key}
    saved(path, {"gen_state_dict": lacking})
    with pytest.raises(EngineError, match=r"lacks the mean that it begins at \(init_pose, init_shape, init_cam\)") as refused:
        official.vibe(path)
    assert "--smpl-mean" in refused.value.hint
    assert torch.equal(official.vibe(path, mean=official.smpl_mean(file)).regressor.init_pose, net.regressor.init_pose)
    np.savez(file, **{**mean, "cam": mean["cam"] + 1})
    saved(path, {"gen_state_dict": net.state_dict()})
    with pytest.raises(EngineError, match="the mean is another one than the checkpoint was trained with"):
        official.vibe(path, mean=official.smpl_mean(file))
    np.savez(file, **{**mean, "shape": np.zeros(300)})
    with pytest.raises(EngineError, match="shape has 300 numbers instead of 10"):
        official.smpl_mean(file)
    for content in (b"<html>", b"PK\x03\x04 and nothing"):
        file.write_bytes(content)
        with pytest.raises(EngineError, match="this is no mean of SMPL's parameters"):
            official.smpl_mean(file)
    with pytest.raises(EngineError, match="cannot read the mean: No such file"):
        official.smpl_mean(tmp_path / "none.npz")


def test_smpl_in_torch_is_smpl_in_numpy(tmp_path: Path) -> None:
    np.savez(tmp_path / "smpl.npz", **smpl_kit.made_up())
    np.save(tmp_path / "extra.npy", smpl_kit.extra())
    body = load_smpl(tmp_path / "smpl.npz", extra=tmp_path / "extra.npy")
    a = body.arrays
    arrays = {
        "template": a.template,
        "shapes": a.shapes,
        "poses": a.poses,
        "regressor": a.regressor,
        "weights": a.weights,
        "extra": body.extra,
    }
    rng = np.random.default_rng(5)
    rotations = matrices(torch.from_numpy(rng.standard_normal((2, 24, 6)))).float()
    shape = rng.standard_normal((2, 10)).astype(np.float32)
    net = Smpl(arrays, parents=body.parents, picked=FACE_AND_FEET, chosen=SPIN49)  # type: ignore[arg-type]
    vertices, joints = net(rotations, torch.from_numpy(shape))
    for n in range(2):
        root = a.regressor[0] @ (a.template + a.shapes @ shape[n])
        posed = body.pose(shape[n], of_local(rotations[n : n + 1].numpy()), root[None])
        assert posed.vertices_m(0) == pytest.approx(vertices[n].numpy(), abs=1e-5)
        assert posed.joints_m("spin49")[0] == pytest.approx(joints[n].numpy(), abs=1e-5)


def test_a_body_of_the_size_of_its_camera_fills_the_crop() -> None:
    """At s = 0.9 a metre is nearly half a crop, and tx moves to the right; what is nearer is larger."""
    cam = torch.tensor([[0.9, 0.0, 0.0], [0.9, 0.5, 0.0]])
    joints = torch.tensor([[0.0, 0, 0], [1.0, -1.0, 0], [1.0, 0, -0.5]]).expand(2, 3, 3)
    seen = project(joints, cam).numpy()
    assert seen[0, 0] == pytest.approx([0, 0])
    assert seen[0, 1] == pytest.approx([0.9, -0.9], rel=1e-4)
    assert seen[1, 0] == pytest.approx([0.45, 0], rel=1e-4)
    assert seen[0, 2, 0] > seen[0, 1, 0]
