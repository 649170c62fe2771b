"""The step of smooth.vibe: its body is the body, it does not care where and how a person is turned, it learns, and its ONNX file computes what torch does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'posepipe[train]'")
pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install 'posepipe[train]'")

from posepipe.calib.body import load_body, rotations_of_6d  # noqa: E402
from posepipe.calib.body_tables import tables  # noqa: E402
from posepipe.engines.engine import EngineOptions, open_engine  # noqa: E402
from posepipe.engines.models.checkpoint import steps_done  # noqa: E402
from posepipe.engines.models.vibe.core import MotionDiscriminator, matrices, six_of  # noqa: E402
from posepipe.engines.models.vibe.forward import Forward  # noqa: E402
from posepipe.engines.models.vibe.smooth import CARRIED_BY, FITTED, WINDOW, SmoothStep  # noqa: E402
from posepipe.engines.models.vibe.train import Batch, Plan, export, runner, train, windows  # noqa: E402
from posepipe.pipeline.errors import EngineError  # noqa: E402

BODY = load_body()
TABLES = tables(BODY)
SMALL = Plan(8, features=16, hidden=16, rounds=1, every=4)


def posed(rng: np.random.Generator, count: int, shape: np.ndarray):  # type: ignore[no-untyped-def]
    """A body that turns and wobbles about where it stands."""
    six = np.tile(np.eye(3)[:, :2].reshape(6), (count, 24, 1)) + rng.normal(0, 0.15, (1, 24, 6))
    turn = rng.uniform(0, 6) + np.arange(count) * 0.02
    c, s, o = np.cos(turn), np.sin(turn), np.zeros(count)
    about = np.stack([c, -s, o, s, c, o, o, o, o + 1], axis=1).reshape(count, 1, 3, 3)
    root = np.stack([rng.uniform(-1, 1) + 0.01 * np.arange(count), np.full(count, 0.3), np.full(count, 0.95)], axis=1)
    return BODY.pose(shape, about @ rotations_of_6d(six), root)


def batches(people: int = 4, count: int = 6) -> Iterator[Batch]:
    rng = np.random.default_rng(1)
    long = count + WINDOW - 1
    while True:
        shapes = [BODY.draw(rng) for _ in range(people)]
        bodies = [posed(rng, long, shape) for shape in shapes]
        joints = np.stack([b.joints_m("coco17") for b in bodies], axis=1)
        six = np.stack([b.rotations[..., :2].reshape(long, 24, 6) for b in bodies], axis=1).astype(np.float32)
        root = np.stack([b.heads_m[:, 0] for b in bodies], axis=1).astype(np.float32)
        seen = (joints + rng.normal(0, 0.02, joints.shape)).astype(np.float32)
        sigma, conf = (np.full(joints.shape[:3], x, np.float32) for x in (0.02, 0.8))
        t = np.repeat(np.arange(long)[:, None] / 30, people, axis=1).astype(np.float32)
        ahead = np.arange(people) % 3
        apart, known = np.zeros((people, 17, 3), np.float32), np.arange(people) % 2 == 1
        yield Batch(seen, sigma, conf, t, ahead, joints[:count], six[:count], root[:count], np.stack(shapes), apart, known)


def test_kinematics_in_torch_are_the_bodys() -> None:
    rng = np.random.default_rng(2)
    shape = BODY.draw(rng)
    body = posed(rng, 5, shape)
    rotations = torch.tensor(body.rotations, dtype=torch.float32)
    heads, joints = Forward(TABLES)(rotations, torch.tensor(shape).expand(5, -1), torch.tensor(body.heads_m[:, 0], dtype=torch.float32))
    assert heads.numpy() == pytest.approx(body.heads_m, abs=1e-5)
    assert joints.numpy() == pytest.approx(body.joints_m("coco17"), abs=1e-5)
    assert matrices(six_of(rotations)).numpy() == pytest.approx(body.rotations, abs=1e-5)


def test_a_state_of_zeros_begins_where_the_person_is_seen() -> None:
    net = SmoothStep(TABLES, features=16, hidden=16, rounds=1)
    window, after = windows(next(batches()))
    joints, _, _, shape, _, state = runner(net)(np.zeros((4, net.memory), np.float32), window[0], after[0])
    seen = window[0, :, 0, :, :3]
    assert np.linalg.norm(joints - seen, axis=2).mean() < 0.4
    assert np.linalg.norm(joints.mean(axis=1) - seen.mean(axis=1), axis=1).max() < 0.3
    assert (np.abs(shape) <= 3).all()
    assert np.isfinite(state).all()


def test_place_and_heading_do_not_matter() -> None:
    net, people = SmoothStep(TABLES, features=16, hidden=16, rounds=2), 4
    window, after = windows(next(batches(people)))
    c, s = np.cos(1.3), np.sin(1.3)
    turn, shift = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]], np.float32), np.array([2.0, -1.0, 0.5], np.float32)
    moved = window.copy()
    moved[..., :3] = np.where(window[..., 4:] > 0, window[..., :3] @ turn.T + shift, 0)
    run, here, there = runner(net), np.zeros((people, net.memory), np.float32), np.zeros((people, net.memory), np.float32)
    for k in range(len(window)):
        first, second = run(here, window[k], after[k]), run(there, moved[k], after[k])
        here, there = first[-1], second[-1]
        assert second[0] == pytest.approx(first[0] @ turn.T + shift, abs=2e-3)
    assert second[3] == pytest.approx(first[3], abs=1e-3)


def test_what_is_not_seen_is_not_looked_at() -> None:
    net = SmoothStep(TABLES, features=16, hidden=16, rounds=1)
    window, after = windows(next(batches()))
    other = window.copy()
    other[1, :, :, 3, 4] = window[1, :, :, 3, 4] = 0
    other[1, :, :, 3, :4] = 77.0
    run, state = runner(net), np.zeros((4, net.memory), np.float32)
    state = run(state, window[0], after[0])[-1]
    for one, two in zip(run(state, window[1], after[1]), run(state, other[1], after[1]), strict=True):
        assert np.array_equal(one, two)


def test_the_shape_stays_once_it_is_fitted() -> None:
    net = SmoothStep(TABLES, features=16, hidden=16, rounds=1)
    window, after = windows(next(batches()))
    run, state, shapes = runner(net), np.zeros((4, net.memory), np.float32), []
    for _ in range(FITTED + 5):
        out = run(state, window[0], after[0])
        state = out[-1]
        shapes.append(out[3])
    assert np.array_equal(shapes[-1], shapes[-6])
    assert not np.array_equal(shapes[10], shapes[11])


def test_how_key_points_lie_is_remembered_in_the_frame_of_their_bone() -> None:
    """An elbow that is seen five centimetres from the body's is given there when nobody sees it, too, wherever the arm has gone."""
    net = SmoothStep(TABLES, features=16, hidden=16, rounds=1)
    given, later = windows(next(batches(2)))
    window, after = torch.from_numpy(given), torch.from_numpy(later)
    lying = torch.zeros(2, 17, 3)
    lying[1, 7, 0] = 0.05
    fresh = net.step(torch.zeros(2, net.memory), window[0], after[0]).state
    state = net.acquainted(fresh, torch.tensor([False, True]), torch.zeros(2, 16), lying)
    assert torch.equal(state[0], fresh[0])
    unseen = window[1].clone()
    unseen[..., 4] = 0
    now = net.step(state, unseen, after[1])
    _, body = net.body(now.rotations, now.shape, now.heads[:, 0])
    away = (now.joints - body).detach()
    assert (now.rotations[1, CARRIED_BY[7]].T @ away[1, 7]).detach().numpy() == pytest.approx([0.05, 0, 0], abs=1e-5)
    assert away[1, [k for k in range(17) if k != 7]].abs().max() < 1e-5


def test_windows_hold_what_may_be_looked_at() -> None:
    batch = next(batches())
    window, after = windows(batch)
    assert window.shape == (6, 4, WINDOW, 17, 5)
    for n, ahead in enumerate(batch.ahead):
        assert np.array_equal(window[2, n, : ahead + 1, :, :3], batch.xyz_m[2 : 3 + ahead, n])
        assert (window[:, n, ahead + 1 :] == 0).all()
        assert (after[:, n, ahead + 1 :] == 0).all()
        assert after[:, n, : ahead + 1] == pytest.approx(np.tile(np.arange(1, ahead + 2) / 30, (6, 1)), abs=1e-5)


def test_it_learns_goes_on_and_refuses_another_network(tmp_path: Path) -> None:
    said: list[str] = []
    held = next(batches())
    window, after = windows(held)

    def judge(step, memory):  # type: ignore[no-untyped-def]
        state, errors = np.zeros((4, memory), np.float32), []
        for k in range(len(window)):
            out = step(state, window[k], after[k])
            state = out[-1]
            errors.append(np.linalg.norm(out[0] - held.joints_m[k], axis=-1).mean() * 1e3)
        return {"error": float(np.mean(errors))}

    train(batches(), judge, tmp_path, SMALL, TABLES, tell=said.append)
    path = train(batches(), judge, tmp_path, Plan(60, features=16, hidden=16, rounds=1, every=26), TABLES, tell=said.append)
    assert path == tmp_path / "smooth.onnx"
    assert steps_done(tmp_path) == 60
    assert "going on at step 8 of 60" in " ".join(said)
    errors = [float(line.rpartition("error ")[2]) for line in said if "error" in line]
    assert errors[-1] < 0.8 * errors[0]
    assert (tmp_path / "curve.png").stat().st_size > 1000
    with pytest.raises(EngineError, match="the checkpoint is of another network"):
        train(batches(), judge, tmp_path, Plan(90, features=32, hidden=16, rounds=1), TABLES, tell=said.append)


def test_the_file_computes_what_torch_does(tmp_path: Path) -> None:
    net = SmoothStep(TABLES, features=16, hidden=16, rounds=2)
    window, after = windows(next(batches(people=3)))
    path = export(net, tmp_path / "s.onnx")
    run, state = runner(net), np.zeros((3, net.memory), np.float32)
    with open_engine(path, EngineOptions(threads=1, runtime="onnxruntime", device="cpu", precision="fp32")) as engine:
        for k in range(4):
            found = engine({"state": state, "window": window[k], "after_s": after[k]})
            out = run(state, window[k], after[k])
            for name, value in zip(("joints", "spread", "pose", "shape", "root", "state_after"), out, strict=True):
                assert found[name] == pytest.approx(value, abs=2e-3), name
            state = out[-1]


def test_the_discriminator_tells_recorded_motion_from_noise() -> None:
    torch.manual_seed(0)
    critic = MotionDiscriminator(6, 16, layers=1, attention_layers=1, dropout=0.0)
    optimizer = torch.optim.Adam(critic.parameters(), lr=5e-3)
    for _ in range(120):
        phase = torch.rand(32, 1, 6) * 6
        real, fake = torch.sin(phase + torch.linspace(0, 3, 12)[None, :, None]), torch.randn(32, 12, 6)
        loss = ((critic(real) - 1) ** 2).mean() + (critic(fake) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert critic(real).mean().item() > critic(fake).mean().item() + 0.5
