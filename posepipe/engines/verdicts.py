"""What `posepipe engines verify` found on this machine, kept, and heeded when a network is opened.

A verdict holds for one network (SHA-256 of its ONNX file), runtime and version, precision and processor.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from ..pipeline.errors import EngineError
from .assets import home
from .cache import alone, sha256_of
from .device import processor
from .engine import EngineOptions
from .files import cannot_keep, write_whole

_LOG = logging.getLogger("posepipe")
_AUTO = {"openvino": "bf16", "torch": "fp16", "tensorrt": "fp16", "tensorrt_rtx": "fp16"}
"""The half precision that `auto` takes with a runtime, where the device has it. ONNX Runtime takes none."""


class Verdict(msgspec.Struct, frozen=True):
    """How far a precision moves key points from those of ONNX Runtime fp32; None: they are not found any more.

    median, p95 and their limits: in pixels of the crop, or in millimetres in a cube of 2.5 m, as `unit` says. nan_share: inputs with an output
    that is no number. within: the shift is within limits and nan_share is 0.
    """

    network: str
    sha256: str
    runtime: str
    version: str
    precision: str
    cpu: str
    unit: Literal["px", "mm"]
    median: float | None
    p95: float | None
    nan_share: float
    limit_median: float
    limit_p95: float
    within: bool

    def holds_for(self, other: Verdict) -> bool:
        """Whether both speak of the same thing."""
        return all(getattr(self, f) == getattr(other, f) for f in ("sha256", "runtime", "version", "precision", "cpu"))

    def __str__(self) -> str:
        if self.median is None or self.p95 is None:
            shift = "loses key points"
        else:
            of = "of the crop" if self.unit == "px" else "in a cube of 2.5 m"
            shift = f"moves key points by {self.median:.2f} {self.unit} (median) and {self.p95:.2f} {self.unit} (p95) {of}"
        limits = f"{self.limit_median:g} and {self.limit_p95:g} {self.unit} are allowed"
        broken = f", and gave {self.nan_share:.0%} of the {'crops' if self.unit == 'px' else 'cubes'} no numbers" if self.nan_share else ""
        return f"{shift}{broken}; {limits}"


def kept() -> list[Verdict]:
    """All verdicts on this machine; none, with a warning, when the file cannot be read: what was refused is not refused then."""
    try:
        return msgspec.json.decode(_file().read_bytes(), type=list[Verdict])
    except FileNotFoundError:
        return []
    except (OSError, msgspec.DecodeError) as e:
        _LOG.warning("%s: what was verified cannot be read (%s), so nothing is refused for it; verify again", _file(), e)
        return []


def keep(found: Sequence[Verdict]) -> None:
    """Add verdicts; those of the same network, runtime and precision take the place of older ones. EngineError when they cannot be kept."""
    try:
        with alone("verified"):
            old = [v for v in kept() if not any(v.holds_for(new) for new in found)]
            write_whole(_file(), msgspec.json.format(msgspec.json.encode([*old, *found]), indent=1) + b"\n")
    except OSError as e:
        raise cannot_keep("what was found", _file(), e) from e


def heed(path: Path, options: EngineOptions, *, runtime: str, version: str, reason: str) -> tuple[EngineOptions, str]:
    """The options and the reason to open a network with, as the verdicts allow.

    Raises EngineError for a precision that was asked for and was found to move key points too far; `auto` takes fp32 in the place of the
    half precision that it would take with this runtime, if that was.
    """
    here = [v for v in kept() if not v.within and (v.runtime, v.version, v.cpu) == (runtime, version, cpu())]
    if not here:
        return options, reason
    sha256 = sha256_of(path)
    failed = {v.precision: v for v in here if v.sha256 == sha256}
    if options.precision in failed:
        verdict = failed[options.precision]
        hint = "write `precision: auto` or `precision: fp32`; `posepipe engines verify` measures again"
        raise EngineError(f"{options.precision} with {runtime} {verdict}", where=verdict.network, hint=hint)
    half = _AUTO.get(runtime, "")
    if options.precision != "auto" or half not in failed:
        return options, reason
    return msgspec.structs.replace(options, precision="fp32"), f"{reason}; fp32 because {half} {failed[half]}"


def _file() -> Path:
    return home() / "engines" / "verified.json"


def cpu() -> str:
    """The processor's name. How many of its cores a process may use changes times, not answers."""
    return processor().rpartition(" x ")[0]
