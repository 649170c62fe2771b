"""A training that has come to nothing says so instead of going on."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch: pip install 'posepipe[train]'")

from posepipe.engines.models.triangulation.train import Batch, Plan, train  # noqa: E402
from posepipe.pipeline.errors import EngineError  # noqa: E402


@pytest.mark.parametrize("broken", ["volume", "target"])
def test_a_loss_that_is_no_number_ends_it(tmp_path: Path, broken: str) -> None:
    """NaN in the heatmaps; or a batch in which no joint is known."""

    def batches() -> Iterator[Batch]:
        for number in range(9):
            volume, target = np.full((1, 32, 32, 32, 17), 0.1, np.float32), np.zeros((1, 17, 3), np.float32)
            if number == 2:
                {"volume": volume, "target": target}[broken][:] = np.nan
            yield Batch(volume, target)

    said: list[str] = []
    with pytest.raises(EngineError, match="the loss is nan at step 3") as told:
        train(batches(), lambda run: {"off": 1.0}, tmp_path, Plan(steps=6, every=2, widths=(4, 6, 8)), tell=said.append)
    assert "last checkpoint" in told.value.hint
    kept = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert kept["step"] == 2
    assert all(torch.isfinite(v).all() for v in kept["net"].values() if v.dtype.is_floating_point)
