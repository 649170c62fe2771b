"""The one error tree. Every error says where, what, and what to do; nothing else reaches a user as a traceback.

* PosepipeError
  x GraphError       the studio file is wrong (refused before any camera opens)
  x RigError         a calibration is wrong, or does not fit the footage
  x SourceError      a camera or a recording cannot be opened or read
  x EngineError      a model or an inference runtime cannot do what is asked
  x PullError        a model or a recording cannot be fetched
    - ChecksumError  what was fetched is not what its card names
  x PublishError     the stream cannot be published (port in use, bad address)
  x RecordError      a recording cannot be written (disk full, no permission)
  x ClusterError     the hosts that a studio names cannot be had
  x RunError         a running studio stopped because of a fault
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PosepipeError(Exception):
    """Base of everything posepipe raises on purpose.

    Parameters
    ----------
    what: the fault, one sentence, with the offending value.
    where: the place in the user's own terms (``studio.yaml:12``, a file, a node name).
    hint: what to do about it.
    """

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        self.what, self.where, self.hint = what, where, hint
        super().__init__(what)

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        return f"{head}\n  -> {self.hint}" if self.hint else head


class GraphError(PosepipeError):
    """The studio file is wrong."""


class RigError(PosepipeError):
    """A calibration is wrong, or does not fit the footage."""


class SourceError(PosepipeError):
    """A camera or a recording cannot be opened or read."""


class EngineError(PosepipeError):
    """A model or an inference runtime cannot do what is asked."""


class PullError(PosepipeError):
    """A model or a recording cannot be fetched."""


class ChecksumError(PullError):
    """What was fetched is not what its card names."""


class PublishError(PosepipeError):
    """The stream cannot be published."""


class RecordError(PosepipeError):
    """A recording cannot be written."""


class ClusterError(PosepipeError):
    """The hosts that a studio names cannot be had."""


class RunError(PosepipeError):
    """A running studio stopped because of a fault."""


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """A hint naming the nearest valid name, or all of them when none is near."""
    names = sorted(valid)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"valid here: {', '.join(names)}" if names else "nothing is valid here"


def stopped_by(fault: BaseException) -> RunError:
    """The fault that ended a run, as the error that a user sees."""
    if isinstance(fault, RunError):
        return fault
    what, where, hint = (
        (fault.what, fault.where, fault.hint)
        if isinstance(fault, PosepipeError)
        else (f"{type(fault).__name__}: {fault}", "", "the log above shows where")
    )
    error = RunError(what, where=where or "the studio stopped", hint=hint)
    error.__cause__ = fault
    return error
