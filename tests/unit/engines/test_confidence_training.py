"""The differentiable solve against numpy, and a training on made-up examples whose truth is known."""

import numpy as np
import pytest
from people import looking_at

from posepipe.calib import Camera, Rig, project, triangulate, undistort

torch = pytest.importorskip("torch", reason="training needs torch (pip install 'posepipe[train]')")

from posepipe.engines.models.triangulation import confidence as trained  # noqa: E402

MATRIX = np.array([[1400.0, 0, 960], [0, 1400, 540], [0, 0, 1]])
SIDE, SIGMA = 800.0, 0.012


def made(count=64, views=4, seed=0):
    """Examples whose last view is wrong by ten deviations where the first number of `shapes` says so, else all by one. Their places are up to
    10 cm from the truth."""
    rng = np.random.default_rng(seed)
    angles = 0.3 + 2 * np.pi * np.arange(views) / views
    rig = Rig(
        tuple(
            Camera(f"c{k}", 1920, 1080, MATRIX, np.zeros(5), looking_at((4 * np.cos(a), 4 * np.sin(a), 1.5))) for k, a in enumerate(angles)
        )
    )
    e = trained.Examples(
        *(
            np.zeros((count, *s), np.float32)
            for s in ((views, 17, 14), (views, 17, 19), (views, 17), (views, 17, 6), (views, 17, 3), (views, 17), (17, 3))
        )
    )
    centre = np.array([c.centre_m for c in rig.cameras])[:, None]
    uv_px, truth = np.empty((count, views, 17, 2)), rng.uniform([-0.5, -0.5, 0.5], [0.5, 0.5, 1.5], (count, 17, 3))
    for k in range(count):
        bad = rng.random(17) < 0.5
        off = rng.normal(0, SIGMA * SIDE, (views, 17, 2)) * np.where(bad & (np.arange(views) == views - 1)[:, None], 10.0, 1.0)[..., None]
        uv_px[k] = project(rig, truth[k]).uv_px + off
        e.shapes[k, -1, :, 0], e.seen[k] = bad, 1
        rays = undistort(rig, uv_px[k][None])[0]
        direction = np.einsum("cki,cjk->cji", rig.camera_from_world[:, :, :3], np.concatenate([rays, np.ones((views, 17, 1))], -1))
        direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
        e.truth[k] = rng.uniform(-10, 10, (17, 3))
        o = (centre - truth[k]) * 100 + e.truth[k]
        sharp = (1400 / (np.linalg.norm(o, axis=-1) * SIGMA * SIDE)) ** 2
        a = sharp[..., None, None] * (np.eye(3) - direction[..., :, None] * direction[..., None, :])
        e.normal[k], e.onto[k] = a[..., [0, 0, 0, 1, 1, 2], [0, 1, 2, 1, 2, 2]], np.einsum("cjab,cjb->cja", a, o)
        e.rest[k] = np.einsum("cja,cja->cj", e.onto[k], o)
    return rig, uv_px, truth, e


def test_the_solve_is_the_triangulation_that_runs():
    rig, uv_px, truth, e = made(8)
    weight = np.random.default_rng(1).uniform(0.2, 1, e.seen.shape).astype(np.float32)
    found = trained.solve(*(torch.from_numpy(a) for a in (e.normal, e.onto, e.rest, weight))).numpy()
    kernel = triangulate(rig, undistort(rig, uv_px), weight, inlier_px=0.05 * SIDE, sigma_px=SIGMA * SIDE).xyz_m
    alike = e.shapes[:, -1, :, 0] == 0  # with a view that is far off the kernel votes, and there is no slope in that
    apart, error = (
        np.linalg.norm((found - e.truth) / 100 - (kernel - truth), axis=-1)[alike],
        np.linalg.norm(kernel - truth, axis=-1)[alike],
    )
    assert np.median(apart) < 0.1 * np.median(error)
    assert 0.005 < np.median(error) < 0.05


def test_nearest_solves_the_normal_equations():
    _, _, _, e = made(4)
    weight = np.random.default_rng(1).uniform(0, 1, e.seen.shape).astype(np.float32)
    found = trained.nearest(torch.from_numpy(e.normal), torch.from_numpy(e.onto), torch.from_numpy(weight)).numpy()
    full = e.normal[..., [0, 1, 2, 1, 3, 4, 2, 4, 5]].reshape(*e.normal.shape[:-1], 3, 3)
    a = np.einsum("mvj,mvjab->mjab", weight, full).astype(np.float64) + 1e-5 * np.eye(3)
    b = np.einsum("mvj,mvja->mja", weight, e.onto).astype(np.float64)
    assert found == pytest.approx(np.linalg.solve(a, b[..., None])[..., 0], abs=1e-3)


def test_the_slope_reaches_every_weight_and_is_finite_without_views():
    _, _, _, e = made(3)
    weight = torch.full(e.seen.shape, 0.5, requires_grad=True)
    point = trained.solve(torch.from_numpy(e.normal), torch.from_numpy(e.onto), torch.from_numpy(e.rest), weight)
    point.square().sum().backward()
    assert weight.grad is not None
    assert torch.isfinite(weight.grad).all()
    assert (weight.grad != 0).float().mean() > 0.9
    nothing = trained.solve(torch.from_numpy(e.normal), torch.from_numpy(e.onto), torch.from_numpy(e.rest), torch.zeros(e.seen.shape))
    assert not nothing.any()


def test_rows_keep_every_view_that_sees_something():
    """Also behind one that sees nothing; those at the end that nobody sees anything in are padding."""
    e = made(6, views=5)[3]
    e.seen[:, 4] = 0
    e.seen[2:4, 1] = 0
    some = e.rows(np.array([2, 3]))
    assert some.seen.shape[:2] == (2, 4)
    assert some.seen[:, 3].all()
    assert np.array_equal(some.onto, e.onto[2:4, :4])
    assert np.array_equal(some.truth, e.truth[2:4])
    e.seen[:] = 0
    assert e.rows(np.array([0])).seen.shape[:2] == (1, 1)


def test_a_short_training_learns_which_view_to_distrust(tmp_path):
    import onnxruntime

    examples, kept_out = made(256)[3], made(128, seed=1)[3]
    examples.truth[0, 3] = np.nan
    lines = []
    path = trained.train(examples, tmp_path, trained.Plan(steps=150, batch=32, every=150), kept_out=kept_out, tell=lines.append)
    assert lines[0].startswith("step 150 of 150")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (conf,) = session.run(None, {"shapes": kept_out.shapes, "agreement": kept_out.agreement, "seen": kept_out.seen})
    bad = kept_out.shapes[:, -1, :, 0] > 0
    assert conf[:, -1][bad].mean() < 0.3 * conf[:, -1][~bad].mean()
    even = trained.judged(lambda shapes, agreement, seen: torch.ones_like(seen), kept_out)
    learned = trained.judged(lambda shapes, agreement, seen: torch.from_numpy(conf), kept_out)
    assert learned[0] < 0.9 * even[0]
    assert learned[1] < 0.9 * even[1]


def test_the_exported_network_gives_what_torch_gives(tmp_path):
    import onnxruntime

    net, rng = trained.Net().eval(), np.random.default_rng(0)
    path = trained.export(net, tmp_path / "confidence.onnx")
    for people, views in ((1, 2), (3, 8)):
        given = [rng.normal(size=(people, views, 17, n)).astype(np.float32) for n in (14, 19)]
        given.append((rng.random((people, views, 17)) < 0.7).astype(np.float32))
        with torch.inference_mode():
            wanted = net(*(torch.from_numpy(a) for a in given)).numpy()
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (found,) = session.run(None, dict(zip(("shapes", "agreement", "seen"), given, strict=True)))
        assert found == pytest.approx(wanted, abs=1e-5)
