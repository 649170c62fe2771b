"""A worker process that says that it is open has nothing left to do before its first frame."""

from __future__ import annotations

import threading
import types
import weakref
from typing import Any

import pytest

from posepipe.launch import letters, workshop
from posepipe.launch.workshop import Workshop
from posepipe.pipeline.errors import RunError


class Litter:
    """What compilers leave behind: objects that refer to themselves, which only the collector finds."""

    def __init__(self) -> None:
        self.itself = self


def test_what_opening_leaves_behind_is_cleared_before_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cameras that begin meanwhile would not be listened to: a first run lost up to 40 of 400 frames."""
    left: list[weakref.ref[Litter]] = []
    there: list[tuple[type, bool]] = []
    shop: Any = object.__new__(Workshop)  # without its process: signals and logging stay as they are
    monkeypatch.setattr(workshop.gc, "freeze", lambda: None)  # this process goes on
    shop._line = types.SimpleNamespace(send=lambda letter: there.append((type(letter), left[0]() is not None)))
    shop._go = threading.Event()
    shop._shared = types.SimpleNamespace(stop=threading.Event(), failure=RunError("stopped"))
    shop._shared.stop.set()
    part: Any = types.SimpleNamespace(slots={}, open=lambda: left.append(weakref.ref(Litter())))
    workshop.gc.disable()
    try:
        assert isinstance(shop._work(part), RunError)
    finally:
        workshop.gc.enable()
    assert there == [(letters.Opened, False)]
