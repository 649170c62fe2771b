"""An engine without a network: the same answer for every picture. For tests of graphs, and to try a studio file without models."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..pipeline.errors import EngineError
from .engine import Arrays, Contract, Engine, fits


class StubEngine(Engine):
    """Checks what it is given like any engine, and answers with `answers` (one item of every output) once per item of the batch."""

    def __init__(self, contract: Contract, answers: Arrays) -> None:
        self.inputs, self.outputs = contract.inputs, contract.outputs
        self.runtime, self.precision, self.device, self.reason = "stub", "fp32", "none", "asked for"
        for spec in self.outputs:
            answer = answers.get(spec.name)
            if answer is None or answer.dtype != spec.dtype or not fits(answer.shape, spec.shape[1:]):
                given = "nothing" if answer is None else f"{answer.dtype} {list(answer.shape)}"
                raise EngineError(f"one item of {spec} is wanted as an answer, given was {given}", where="stub")
        self._answers = {spec.name: answers[spec.name] for spec in self.outputs}

    def _run(self, inputs: Arrays, instance: int) -> dict[str, NDArray[Any]]:
        batch = len(next(iter(inputs.values())))
        return {name: np.broadcast_to(answer, (batch, *answer.shape)) for name, answer in self._answers.items()}

    def _close(self) -> None:
        return
