"""Our networks of learnable triangulation beside the published code, with the same random weights. The code is the user's own checkout."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install posepipe[train]")

from triangulation_kit import around, made_up, projections  # noqa: E402

from posepipe.engines.models.official import fill  # noqa: E402
from posepipe.engines.models.triangulation.geometry import normalised, solve  # noqa: E402
from posepipe.engines.models.triangulation.losses import clipped_mse, mae, volumetric_ce  # noqa: E402
from posepipe.engines.models.triangulation.net import Algebraic, Volumetric  # noqa: E402

DIRECTORY = os.environ.get("POSEPIPE_REFERENCE_TRIANGULATION", "")
PX, N, SIDE_MM, VIEWS = 128, 32, 2500.0, 3

pytestmark = pytest.mark.skipif(
    not DIRECTORY, reason="POSEPIPE_REFERENCE_TRIANGULATION names no checkout of github.com/karfly/learnable-triangulation-pytorch"
)


@pytest.fixture(scope="module")
def published() -> Iterator[Any]:
    """The published modules: `.nets`, `.op`, `.loss`, `.multiview`, `.volumetric`."""
    assert Path(DIRECTORY, "mvn").is_dir(), f"{DIRECTORY} is no such checkout: it has no folder mvn"
    sys.path.insert(0, DIRECTORY)
    try:
        names = {
            "nets": "models.triangulation",
            "op": "utils.op",
            "loss": "models.loss",
            "multiview": "utils.multiview",
            "volumetric": "utils.volumetric",
        }
        yield SimpleNamespace(**{name: importlib.import_module(f"mvn.{module}") for name, module in names.items()})
    except ModuleNotFoundError as e:
        pytest.skip(f"the published code needs the package {e.name}: pip install scipy scikit-image")
    finally:
        sys.path.remove(DIRECTORY)


def config(depth: int, how: str = "softmax") -> Any:
    backbone = SimpleNamespace(
        num_layers=depth, num_joints=17, style="simple", init_weights=False, alg_confidences=False, vol_confidences=False, checkpoint=""
    )
    model = SimpleNamespace(
        backbone=backbone, use_confidences=True, heatmap_softmax=True, heatmap_multiplier=100.0, volume_aggregation_method=how,
        volume_softmax=True, volume_multiplier=1.0, volume_size=N, cuboid_side=SIDE_MM, kind="mpii", use_gt_pelvis=False,
    )  # fmt: skip
    return SimpleNamespace(model=model)


@pytest.mark.parametrize("depth", [50, 152])
def test_state_dictionaries_have_the_same_keys_and_shapes(published: Any, depth: int) -> None:
    for theirs, ours in (
        (published.nets.AlgebraicTriangulationNet(config(depth), device="cpu"), Algebraic(depth)),
        (published.nets.VolumetricTriangulationNet(config(depth, "conf"), device="cpu"), Volumetric(depth, how="conf")),
    ):
        wanted = {name: tuple(tensor.shape) for name, tensor in theirs.state_dict().items()}
        assert {name: tuple(tensor.shape) for name, tensor in ours.state_dict().items()} == wanted


def test_algebraic_network_gives_the_same_heatmaps_points_confidences_and_joints(published: Any) -> None:
    theirs = published.nets.AlgebraicTriangulationNet(config(50), device="cpu")
    made_up(theirs)
    ours = Algebraic(50).eval()
    fill(ours, {f"module.{k}": v for k, v in theirs.state_dict().items()}, where="the published network")
    pictures = torch.randn(2, VIEWS, 3, PX, PX, generator=torch.Generator().manual_seed(1))
    cameras = projections(VIEWS, unit=1000, size_px=PX).expand(2, -1, -1, -1)
    with torch.no_grad():
        joints, points, heatmaps, confidences = theirs(pictures, cameras, None)
        found = ours(pictures, cameras)
    report("algebraic", heatmaps=(heatmaps, found.probability), points=(points, found.points), confidences=(confidences, found.confidences))
    np.testing.assert_allclose(found.probability, heatmaps, atol=1e-5)
    np.testing.assert_allclose(found.points, points, atol=1e-3)  # pixels of the crop, up to 128
    np.testing.assert_allclose(found.confidences, confidences, atol=1e-5)
    # Random weights see points that do not meet, where the two ways of solving answer different questions: theirs with ours' numbers.
    again = published.multiview.triangulate_batch_of_points(cameras, found.points, confidences_batch=found.confidences)
    np.testing.assert_allclose(again, joints, atol=0.1, rtol=1e-3)


@pytest.mark.parametrize(("noise_px", "apart_mm", "worse"), [(0.0, 1.5, 0.01), (1.0, 1.5, 1.02), (5.0, 20.0, 1.02)])
def test_closed_form_is_as_near_to_the_truth_as_the_published_solve(published: Any, noise_px: float, apart_mm: float, worse: float) -> None:
    rng = np.random.default_rng(3)
    cameras = projections(4, unit=1000)
    truth = torch.from_numpy(rng.uniform([200, 1200, 0], [1800, 2800, 1800], (1, 300, 3)).astype(np.float32))
    image = torch.einsum("nvab,njb->nvja", cameras, torch.cat([truth, torch.ones(1, 300, 1)], dim=2))
    points = image[..., :2] / image[..., 2:] + torch.from_numpy(rng.normal(0, noise_px, (1, 4, 300, 2)).astype(np.float32))
    weights = normalised(torch.from_numpy(rng.uniform(0.2, 1, (1, 4, 300)).astype(np.float32)))
    theirs = published.multiview.triangulate_batch_of_points(cameras, points, confidences_batch=weights)
    ours = solve(points, cameras, weights)
    off, near = ((a - truth).norm(dim=2).mean().item() for a in (ours, theirs))
    apart = (ours - theirs).norm(dim=2)
    print(
        f"solve, noise {noise_px} px: apart mean {apart.mean():.4f} max {apart.max():.4f} mm; to the truth ours {off:.4f}, theirs {near:.4f} mm"
    )
    assert apart.max() < apart_mm
    assert off < worse * near


@pytest.mark.parametrize("how", ["sum", "max", "softmax", "conf", "conf_norm"])
def test_volumetric_network_gives_the_same_volumes_and_joints(published: Any, how: Any) -> None:
    theirs = published.nets.VolumetricTriangulationNet(config(50, how), device="cpu")
    made_up(theirs)
    with torch.no_grad():
        theirs.volume_net.output_layer.weight.mul_(30)  # so that the voxels differ
    ours = Volumetric(50, how=how).eval()
    fill(ours, {f"module.{k}": v for k, v in theirs.state_dict().items()}, where="the published network")
    pictures = torch.randn(1, VIEWS, 3, PX, PX, generator=torch.Generator().manual_seed(1))
    k, r, t = around(VIEWS, unit=1000, size_px=PX)
    cameras = [[published.multiview.Camera(r[v], t[v], k[v])] for v in range(VIEWS)]
    pelvis = np.array([1050.0, 1980.0, 900.0], np.float32)
    seed = np.zeros((17, 3), np.float32)
    seed[6] = pelvis
    given: list[Any] = []
    theirs.volume_net.register_forward_hook(lambda _, inputs, __: given.append(inputs[0]))
    with torch.no_grad():
        joints, _, volumes, trust, *_ = theirs(
            pictures, projections(VIEWS, unit=1000, size_px=PX), {"cameras": cameras, "pred_keypoints_3d": [seed]}
        )
        found = ours(pictures, projections(VIEWS, unit=1000, size_px=PX), torch.from_numpy(pelvis)[None], side=SIDE_MM, n=N)
    report(f"volumetric {how}", volume=(given[0], found.volume), probability=(volumes, found.probability), joints_mm=(joints, found.xyz))
    scale = given[0].abs().max().item()
    np.testing.assert_allclose(found.volume / scale, given[0] / scale, atol=1e-5)
    np.testing.assert_allclose(found.probability, volumes, atol=1e-5)
    np.testing.assert_allclose(found.xyz / SIDE_MM, joints / SIDE_MM, atol=1e-5)
    if how.startswith("conf"):
        trust_of_ours = found.confidences / found.confidences.sum(dim=1, keepdim=True) if how == "conf_norm" else found.confidences
        np.testing.assert_allclose(trust_of_ours, trust, atol=1e-5)


def test_cubes_turn_as_published(published: Any) -> None:
    from posepipe.engines.models.triangulation.geometry import coordinate_volume

    centre = torch.tensor([[100.0, -200.0, 900.0]])
    straight = coordinate_volume(centre, SIDE_MM, 4)[0]
    turned = published.volumetric.rotate_coord_volume(straight - centre[0], 0.7, [0, 0, 1]) + centre[0]
    np.testing.assert_allclose(coordinate_volume(centre, SIDE_MM, 4, torch.tensor([0.7]))[0], turned, atol=1e-3)


def test_losses_are_the_published_ones(published: Any) -> None:
    generator = torch.Generator().manual_seed(2)
    truth, predicted = torch.randn(2, 17, 3, generator=generator) * 20, torch.randn(2, 17, 3, generator=generator) * 20
    valid = torch.ones(2, 17, 1)
    valid[0, 3] = 0
    assert mae(predicted, truth, valid[..., 0]).item() == pytest.approx(published.loss.KeypointsMAELoss()(predicted, truth, valid).item())
    wanted = published.loss.KeypointsMSESmoothLoss(400)(predicted, truth, valid).item()
    assert clipped_mse(predicted, truth, valid[..., 0]).item() == pytest.approx(wanted, rel=1e-5)
    p = torch.softmax(torch.randn(2, 17, 512, generator=generator), dim=2).view(2, 17, 8, 8, 8)
    at = torch.linspace(-0.5, 0.5, 8)
    grid = torch.stack(torch.meshgrid(at, at, at, indexing="ij"), dim=-1).expand(2, 8, 8, 8, 3)
    shares = torch.rand(2, 17, 3, generator=generator) - 0.5
    wanted = published.loss.VolumetricCELoss()(grid, p, shares, torch.ones(2, 17, 1)).item()
    assert volumetric_ce(p, shares, joints_last=False).item() == pytest.approx(wanted, rel=1e-5)


def report(what: str, **pairs: tuple[Any, Any]) -> None:
    print(
        f"{what}: " + ", ".join(f"{name} {(a - b).abs().max().item():.1e} of {a.abs().max().item():.3g}" for name, (a, b) in pairs.items())
    )
