"""When /healthz says that a studio is well, and what it says otherwise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from outside_kit import MadeUp

from posepipe.launch.crew import State
from posepipe.launch.health import STALE_S, Health, health


@pytest.fixture
def studio(tmp_path: Path) -> MadeUp:
    made = MadeUp(tmp_path)
    made.beat("main", end_to_end_ns=[40_000_000])
    return made


def later(studio: MadeUp, seconds: float = 0.5) -> Health:
    """Its health so long after the last instant."""
    return health(studio, now_ns=studio.books.end_to_end.last_ns + int(seconds * 1e9))


def test_all_is_well(studio: MadeUp) -> None:
    now = later(studio)
    assert (now.ok, now.reasons, now.missing, now.since_instant_s, now.balance) == (True, (), (), 0.5, 0)
    assert json.loads(json.dumps(now.as_json())) == {
        "status": "ok",
        "reasons": [],
        "missing": [],
        "workers": {
            "capture/cam01": "running",
            "capture/cam02": "running",
            "capture/cam03": "running",
            "main": "running",
            "view": "running",
        },
        "seconds_since_instant": 0.5,
        "ledger_balance": 0,
    }


@pytest.mark.parametrize("state", [State.OPENING, State.WAITING, State.FAILED])
def test_what_leads_to_the_publication_is_needed(studio: MadeUp, state: State) -> None:
    studio.crew["main"].state = state
    assert later(studio).reasons == (f"worker main is {state}",)
    assert later(studio).as_json()["status"] == "unhealthy"


@pytest.mark.parametrize("worker", ["view", "capture/cam02"])
def test_a_view_and_a_camera_may_be_away(studio: MadeUp, worker: str) -> None:
    studio.crew[worker].state = State.FAILED
    assert (later(studio).reasons, later(studio).missing) == ((), (worker,))


def test_not_all_cameras_may_be_away(studio: MadeUp) -> None:
    for camera in ("capture/cam01", "capture/cam02", "capture/cam03"):
        studio.crew[camera].state = State.WAITING
    assert later(studio).reasons == tuple(f"worker capture/cam0{i} is waiting" for i in (1, 2, 3))


def test_recordings_that_have_ended_are_not_missed(studio: MadeUp) -> None:
    for camera in ("capture/cam01", "capture/cam02", "capture/cam03"):
        studio.crew[camera].state = State.DONE
    assert later(studio).ok
    assert later(studio).missing == ()


def test_a_studio_that_falls_silent(studio: MadeUp) -> None:
    assert later(studio, STALE_S - 0.1).ok
    assert later(studio, STALE_S + 0.1).reasons == ("no instant was published for 5.1 s",)


def test_a_studio_that_has_published_nothing(tmp_path: Path) -> None:
    studio = MadeUp(tmp_path)
    studio.seconds = 0.0
    assert health(studio).reasons == ("the studio has not started yet",)
    studio.seconds = 1.0
    assert health(studio).reasons == ("no instant was published yet",)
    studio.seconds = 9.0
    assert health(studio).reasons == ("no instant was published for 9.0 s",)
    assert health(studio).as_json()["seconds_since_instant"] is None


def test_a_studio_that_stops(studio: MadeUp) -> None:
    studio.stopping = True
    assert later(studio).reasons == ("the studio is stopping",)


def test_a_ledger_out_of_balance(studio: MadeUp) -> None:
    studio.books.ledger.captured += 3
    assert later(studio).reasons == ("the ledger is out of balance by 3 frames",)
