"""The imported volumetric network, its three parts run by engines, beside the whole network in torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install posepipe[train]")

from triangulation_kit import made_up, projections  # noqa: E402

from posepipe.engines.engine import EngineOptions  # noqa: E402
from posepipe.engines.models.triangulation import export, resnet  # noqa: E402
from posepipe.engines.models.triangulation.net import Volumetric  # noqa: E402
from posepipe.engines.models.triangulation.published import PublishedVolumetric  # noqa: E402
from posepipe.pipeline.errors import EngineError  # noqa: E402

PX, N, VIEWS = 128, 32, 3
OPTIONS = EngineOptions(runtime="onnxruntime", precision="fp32", threads=1, device="cpu")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Volumetric, Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(resnet.BLOCKS, 14, (1, 1, 1, 1))
        net = Volumetric(14, how="conf_norm")
    made_up(net)
    with torch.no_grad():
        net.volume_net.output_layer.weight.mul_(30)  # so that the voxels differ
    folder = tmp_path_factory.mktemp("published")
    (folder / "network.onnx").write_bytes(export.features_network(net, size_px=PX))
    (folder / "unproject.onnx").write_bytes(export.unprojection(net, cells=PX // 4, n=N))
    (folder / "volume.onnx").write_bytes(export.volume_network(net, n=N))
    return net, folder


def test_it_gives_what_the_network_gives_in_torch(made: tuple[Volumetric, Path]) -> None:
    net, folder = made
    pictures = torch.randn(2, VIEWS, 3, PX, PX, generator=torch.Generator().manual_seed(1))
    cameras = torch.cat([projections(VIEWS, size_px=PX, seed=s) for s in (0, 1)])
    centre, yaw = torch.tensor([[1.0, 2.0, 0.9], [1.2, 1.9, 1.0]]), torch.tensor([0.4, -1.2])
    seen = torch.tensor([[True, True, True], [True, False, True]])
    with torch.no_grad():
        wanted = net(pictures, cameras, centre, side=2.0, n=N, yaw=yaw, seen=seen)
    with PublishedVolumetric(folder, OPTIONS) as published:
        assert (published.side_px, published.n) == (PX, N)
        given: tuple[Any, ...] = (pictures.numpy(), cameras.numpy().astype(np.float64), centre.numpy().astype(np.float64))
        found = published(*given, side=2.0, yaw_rad=yaw.numpy().astype(np.float64), seen=seen.numpy())
        np.testing.assert_allclose(found.xyz, wanted.xyz, atol=1e-4)
        np.testing.assert_allclose(found.spread, wanted.spread, atol=1e-4)
        with pytest.raises(EngineError, match=r"2 people in 3 views need .* given were \[2, 2, 3, 4\], \[2, 3\]"):
            published(given[0], given[1][:, :2], given[2])


def test_a_folder_without_the_parts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"there is no network\.onnx") as e:
        PublishedVolumetric(tmp_path, OPTIONS)
    assert "--kind volumetric" in e.value.hint
