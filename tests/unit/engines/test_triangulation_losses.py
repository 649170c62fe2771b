"""The paper's losses and the expectation over a volume, beside the plain formulas."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install posepipe[train]")

from posepipe.engines.models.triangulation.losses import clipped_mse, mae, soft_argmax_3d, volumetric_ce  # noqa: E402


def test_expectation_and_spread_are_the_means_over_all_voxels() -> None:
    logits = torch.from_numpy(np.random.default_rng(0).normal(0, 3, (2, 6, 6, 6, 3)))
    found = soft_argmax_3d(logits)
    at = np.linspace(-0.5, 0.5, 6)
    grid = np.stack(np.meshgrid(at, at, at, indexing="ij"), -1)
    for n in range(2):
        for j in range(3):
            p = np.exp(logits[n, ..., j].numpy())
            p /= p.sum()
            mean = (p[..., None] * grid).sum((0, 1, 2))
            deviation = np.sqrt((p[..., None] * (grid - mean) ** 2).sum() / 3)
            np.testing.assert_allclose(found.probability[n, ..., j], p, atol=1e-12)
            np.testing.assert_allclose(found.xyz[n, j], mean, atol=1e-12)
            np.testing.assert_allclose(found.spread[n, j], deviation, atol=1e-9)


def test_joints_may_stand_first_or_last() -> None:
    logits = torch.randn(2, 5, 5, 5, 4)
    last, first = soft_argmax_3d(logits), soft_argmax_3d(logits.movedim(-1, 1), joints_last=False)
    assert torch.equal(last.probability.movedim(-1, 1), first.probability)
    assert torch.equal(last.xyz, first.xyz)
    truth = torch.rand(2, 4, 3) - 0.5
    assert torch.equal(volumetric_ce(last.probability, truth), volumetric_ce(first.probability, truth, joints_last=False))


def test_one_sure_voxel_has_its_place_and_still_a_slope() -> None:
    logits = torch.zeros(1, 4, 4, 4, 1)
    logits[0, 3, 0, 1, 0] = 200
    logits.requires_grad_()
    found = soft_argmax_3d(logits)
    assert found.xyz[0, 0].tolist() == pytest.approx([0.5, -0.5, -1 / 6])
    assert found.spread.item() < 1e-5
    found.spread.sum().backward()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("shape", [(2, 4, 4, 5, 3), (4, 4, 4, 3), (1, 1, 1, 1, 17)])
def test_what_is_no_cube_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"volumes are \[N,n,n,n,J\] with n of 2 or more, these are"):
        soft_argmax_3d(torch.zeros(shape))


def test_cross_entropy_looks_at_the_nearest_voxel_also_of_a_truth_outside() -> None:
    p = torch.softmax(torch.randn(1, 4 * 4 * 4, 2), dim=1).view(1, 4, 4, 4, 2)
    truth = torch.tensor([[[0.5, -0.5, 0.18], [9.0, 0.15, -7.0]]])
    wanted = -(torch.log(p[0, 3, 0, 2, 0] + 1e-6) + torch.log(p[0, 3, 2, 0, 1] + 1e-6)) / 2
    assert volumetric_ce(p, truth).item() == pytest.approx(wanted.item(), rel=1e-6)
    only_first = volumetric_ce(p, torch.where(torch.tensor([True, False])[:, None], truth, torch.nan), torch.tensor([[1, 0]]))
    assert only_first.item() == pytest.approx(-torch.log(p[0, 3, 0, 2, 0] + 1e-6).item(), rel=1e-6)


def test_errors_are_means_per_coordinate_of_the_valid_joints_and_far_ones_are_flattened() -> None:
    truth = torch.zeros(1, 3, 3)
    predicted = torch.tensor([[[1.0, -2.0, 0.0], [30.0, 0.0, 0.0], [5.0, 5.0, 5.0]]], requires_grad=True)
    valid = torch.tensor([[1, 1, 0]])
    hidden = torch.where(valid[..., None] > 0, truth, torch.nan)
    assert mae(predicted, hidden, valid).item() == pytest.approx(33 / 6)
    loss = clipped_mse(predicted, hidden, valid)
    assert loss.item() == pytest.approx((1 + 4 + 900**0.1 * 400**0.9) / 6, rel=1e-6)
    loss.backward()
    assert torch.isfinite(predicted.grad).all()
    assert predicted.grad[0, 2].abs().max() == 0
    assert predicted.grad[0, 1, 0] < predicted.grad[0, 0].abs().max() * 30 / 2


def test_nothing_valid_costs_nothing() -> None:
    nothing = torch.zeros(1, 2)
    unknown = torch.full((1, 2, 3), torch.nan)
    p = torch.full((1, 3, 3, 3, 2), 1 / 27)
    guess = torch.zeros(1, 2, 3)
    assert [
        mae(guess, unknown, nothing).item(),
        clipped_mse(guess, unknown, nothing).item(),
        volumetric_ce(p, unknown, nothing).item(),
    ] == [0, 0, 0]
