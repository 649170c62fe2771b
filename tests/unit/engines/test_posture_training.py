"""The network of the whole body learns what is wrong with poses, says how sure it is, and its file answers as it does."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch: pip install 'posepipe[train]'")

from posepipe.calib.sides import mirror_of  # noqa: E402
from posepipe.engines.models.triangulation.posture import Examples, Net, Plan, export, off_mm, train  # noqa: E402
from posepipe.engines.posture import FEATURES, describe  # noqa: E402
from posepipe.pipeline.skeleton import COCO17  # noqa: E402

from test_posture import placed, seen, standing  # noqa: E402  # isort: skip

PLAN = Plan(steps=150, batch=64, every=150)


def drooping(count: int, seed: int = 0) -> Examples:
    """People whose joints were all found 5 cm too low, and a little anywhere else."""
    rng = np.random.default_rng(seed)
    truth = standing()[None] + rng.normal(0, 0.01, (count, 1, 3))
    found = [placed(k, count) for k in range(3)]
    for one in found:
        one.xyz[:] = truth - [0, 0, 0.02] + rng.normal(0, 0.004, truth.shape)
    joints, base = describe(*found, seen(count))
    return Examples(joints, base, truth.astype(np.float32))


def test_training_learns(tmp_path: Path) -> None:
    said: list[str] = []
    kept_out = drooping(50, seed=1)
    before = off_mm(Net(), kept_out, side_m=2.5)
    path = train(drooping(400), tmp_path, PLAN, judge=lambda net: f"{off_mm(net, kept_out, side_m=2.5):.2f}", tell=said.append)
    assert path == tmp_path / "posture.onnx"
    assert said[-1].startswith("step 150 of 150, ")
    assert 50 < before < 60
    assert float(said[-1].rpartition(" ")[2]) < 0.5 * before


def test_what_is_not_trained_changes_nothing() -> None:
    shift, sigma = Net()(torch.rand(3, 17, FEATURES))
    assert (shift == 0).all()
    assert torch.allclose(sigma, torch.full_like(sigma, 2 * np.exp(-4.2)))


def test_mirrored_twice_is_as_before() -> None:
    mirror = mirror_of(COCO17)
    given = drooping(4)
    twice = given.mirrored(mirror).mirrored(mirror)
    for name in Examples.__slots__:
        np.testing.assert_array_equal(getattr(given, name), getattr(twice, name))


def test_mirrored_examples_are_what_is_described_of_mirrored_people() -> None:
    mirror = mirror_of(COCO17)
    found, conf = [placed(k) for k in range(3)], seen()
    other = [type(p)(p.xyz[:, mirror] * [-1, 1, 1], p.sigma[:, mirror], p.views[:, mirror]) for p in found]
    joints, base = describe(*found, conf)
    ours = Examples(joints, base, base.copy()).mirrored(mirror)
    theirs = describe(*other, conf[:, :, mirror])
    np.testing.assert_allclose(ours.joints, theirs[0], atol=1e-6)
    np.testing.assert_allclose(ours.base, theirs[1], atol=1e-6)


def test_the_file_answers_as_the_network_does(tmp_path: Path) -> None:
    import onnxruntime

    torch.manual_seed(2)
    net = Net()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    session = onnxruntime.InferenceSession(str(export(net, tmp_path / "posture.onnx")))
    joints = torch.rand(3, 17, FEATURES)
    with torch.inference_mode():
        wanted = net(joints)
    for people in (1, 3):
        found = session.run(["shift", "sigma"], {"joints": joints[:people].numpy()})
        for ours, theirs in zip(found, wanted, strict=True):
            np.testing.assert_allclose(ours, theirs[:people].numpy(), atol=2e-3)  # weights are kept as fp16
