"""Our VIBE, SPIN and SMPL beside the published code, with the same random weights. The code is the user's own checkout; the body is made up."""

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
import smpl_kit

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'posepipe[train]'")

from posepipe.calib.smpl import FACE_AND_FEET, SPIN49, load_smpl, of_local  # noqa: E402
from posepipe.engines.models.vibe import official, published  # noqa: E402
from posepipe.engines.models.vibe.smpl import Smpl, project  # noqa: E402

DIRECTORY = os.environ.get("POSEPIPE_REFERENCE_VIBE", "")
PEOPLE, INSTANTS = 2, 16

pytestmark = pytest.mark.skipif(not DIRECTORY, reason="POSEPIPE_REFERENCE_VIBE names no checkout of github.com/mkocabas/VIBE")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the files that the published code looks for, their numbers made up."""
    folder = tmp_path_factory.mktemp("reference")
    (data := folder / "data" / "vibe_data").mkdir(parents=True)
    smpl_kit.write_plain(data / "SMPL_NEUTRAL.pkl", smpl_kit.made_up())
    np.save(data / "J_regressor_extra.npy", smpl_kit.extra())
    pose = np.tile([1, 0, 0, 1, 0, 0], 24) + np.random.default_rng(3).normal(0, 0.2, 144)
    np.savez(data / "smpl_mean_params.npz", pose=pose.astype(np.float32), shape=np.full(10, 0.2), cam=np.float32([0.9, 0, 0]))
    return folder


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Iterator[Any]:
    """The published modules: `.vibe`, `.spin`, `.motion_discriminator`."""
    assert Path(DIRECTORY, "lib", "models").is_dir(), f"{DIRECTORY} is no such checkout: it has no folder lib/models"
    sys.path.insert(0, str(Path(DIRECTORY).resolve()))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # it looks for its files below the working directory
        try:
            yield SimpleNamespace(**{n: importlib.import_module(f"lib.models.{n}") for n in ("vibe", "spin", "motion_discriminator")})
        except ModuleNotFoundError as e:
            pytest.skip(f"the published code needs the package {e.name}: pip install smplx scipy yacs torchvision")
        finally:
            sys.path.remove(str(Path(DIRECTORY).resolve()))


def made_up(net: Any, seed: int) -> Any:
    """Random weights under which numbers keep their size and people do not stand alike."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in net.named_parameters():
            if ".dec" in name or name.startswith("dec"):
                p.normal_(0, 0.02, generator=generator)
            elif "bn" in name or "downsample.1" in name:
                p.uniform_(0.3, 0.7, generator=generator)
            else:
                p.normal_(0, (1.5 / p[0].numel()) ** 0.5 if p.ndim > 1 else 0.1, generator=generator)
        for name, b in net.named_buffers():
            if name.endswith("running_mean"):
                b.normal_(0, 0.1, generator=generator)
            elif name.endswith("running_var"):
                b.uniform_(0.5, 1.5, generator=generator)
    return net.eval()


@pytest.fixture(scope="module")
def both(theirs: Any, folder: Path) -> tuple[Any, Any]:
    """The published generator and ours, by way of a checkpoint as the published trainer writes it."""
    sizes = {"n_layers": 2, "hidden_size": 1024, "add_linear": True, "bidirectional": False, "use_residual": True}
    generator = made_up(theirs.vibe.VIBE(seqlen=INSTANTS, batch_size=PEOPLE, pretrained=None, **sizes), 0)
    torch.save({"epoch": 1, "gen_state_dict": generator.state_dict(), "performance": np.float64(56.56)}, folder / "vibe.pth.tar")
    return generator, official.vibe(folder / "vibe.pth.tar")


@pytest.fixture(scope="module")
def said(both: tuple[Any, Any]) -> tuple[Any, Any]:
    features = torch.randn(PEOPLE, INSTANTS, 2048, generator=torch.Generator().manual_seed(5)).abs()
    with torch.inference_mode():
        return both[0](features)[0], both[1](features)


def apart(a: Any, b: Any) -> float:
    return float(np.abs(np.asarray(a) - np.asarray(b)).max())


def test_keys_and_shapes_are_the_same(both: tuple[Any, Any]) -> None:
    a, b = ({key: t.shape for key, t in net.state_dict().items() if ".smpl." not in key} for net in both)
    assert a == b


def test_the_generator_says_the_same(said: tuple[Any, Any]) -> None:
    a, b = said
    print(f"theta {apart(a['theta'], b.theta):.1e} of {float(a['theta'].abs().max()):.1f}, rotations {apart(a['rotmat'], b.rotations):.1e}")
    assert apart(a["theta"], b.theta) < 1e-5
    assert apart(a["rotmat"], b.rotations) < 1e-5


def test_the_discriminator_says_the_same(theirs: Any, folder: Path) -> None:
    sizes = {"rnn_size": 1024, "input_size": 69, "num_layers": 2, "output_size": 1}
    attention = {"feature_pool": "attention", "attention_size": 1024, "attention_layers": 3, "attention_dropout": 0.2}
    net = made_up(theirs.motion_discriminator.MotionDiscriminator(**sizes, **attention), 1)
    torch.save({"disc_motion_state_dict": net.state_dict()}, folder / "disc.pth.tar")
    motion = torch.randn(3, INSTANTS, 69) * 0.5
    with torch.inference_mode():
        off = apart(net(motion), official.motion_discriminator(folder / "disc.pth.tar")(motion))
    print(f"discriminator {off:.1e}")
    assert off < 1e-6


def test_spin_says_the_same(theirs: Any, folder: Path) -> None:
    net = made_up(theirs.spin.HMR(theirs.spin.Bottleneck, [3, 4, 6, 3], "data/vibe_data/smpl_mean_params.npz"), 2)
    torch.save({"model": {k: v for k, v in net.state_dict().items() if not k.startswith("smpl.")}}, folder / "spin.pth.tar")
    deep, regressor = official.spin(folder / "spin.pth.tar")
    pictures = torch.randn(2, 3, published.PICTURE_PX, published.PICTURE_PX)
    with torch.inference_mode():
        wanted, found = net.feature_extractor(pictures), deep(pictures)
        theta, ours = net(pictures)[0]["theta"], regressor.from_mean(found)[0]
    print(
        f"features {apart(wanted, found):.1e} of {float(wanted.max()):.0f}, theta {apart(theta, ours):.1e} of {float(theta.abs().max()):.0f}"
    )
    assert apart(wanted, found) < 2e-5
    assert apart(theta, ours) < 1e-4


def test_the_body_is_the_same(said: tuple[Any, Any], folder: Path) -> None:
    a = {name: array.reshape(PEOPLE * INSTANTS, *array.shape[2:]).numpy() for name, array in said[0].items()}
    data = folder / "data" / "vibe_data"
    body = load_smpl(data / "SMPL_NEUTRAL.pkl", extra=data / "J_regressor_extra.npy")
    arrays = {name: getattr(body.arrays, name) for name in ("template", "shapes", "poses", "regressor", "weights")} | {"extra": body.extra}
    net = Smpl(arrays, parents=body.parents, picked=FACE_AND_FEET, chosen=SPIN49)
    cam, shape = a["theta"][:, :3], a["theta"][:, 75:]
    with torch.inference_mode():
        vertices, joints = net(torch.from_numpy(a["rotmat"]), torch.from_numpy(shape))
        seen = project(joints, torch.from_numpy(cam))
    off = (apart(a["verts"], vertices), apart(a["kp_3d"], joints), apart(a["kp_2d"], seen))
    print(f"vertices {off[0]:.1e} m, joints {off[1]:.1e} m, in the crop {off[2]:.1e}")
    assert max(off[:2]) < 2e-6
    assert off[2] < 1e-4
    for n in range(0, PEOPLE * INSTANTS, 7):
        root = body.arrays.regressor[0] @ (body.arrays.template + body.arrays.shapes @ shape[n])
        posed = body.pose(shape[n], of_local(a["rotmat"][n : n + 1]), root[None])
        assert apart(posed.vertices_m(0), a["verts"][n]) < 2e-6
        assert apart(posed.joints_m("spin49")[0], a["kp_3d"][n]) < 2e-6
