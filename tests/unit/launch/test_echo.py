from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from posepipe.launch.echo import line
from posepipe.pipeline.node import Caps
from posepipe.pipeline.packet import Actions, Bodies, Frame, FrameSet, Packet, Poses, Sync


def shown(body: Any, **caps: Any) -> dict[str, Any]:
    return dict(json.loads(line(Packet(7, 1_700_000_000_000_000_007, "node", body, (), ()), Caps(**caps)), parse_constant=int))


def poses(people: int, bodies: Bodies | None = None) -> Poses:
    xyz = np.full((people, 17, 3), 1 / 3, np.float32)
    xyz[0, 0] = np.nan
    sync = Sync(1200, (0,), (1,), (0.5, None))
    one = np.ones((people, 17), np.float32)
    return Poses(("a", "b"), "coco17", sync, "algebraic", np.arange(people), xyz, one, one, one[:, 0], one.astype(np.uint8), bodies)


def test_a_skeleton_is_shown_in_numbers() -> None:
    told = shown(poses(2))
    assert (told["seq"], told["t_capture_ns"], told["skeleton"], told["tier"]) == (7, 1_700_000_000_000_000_007, "coco17", "algebraic")
    assert told["ids"] == [0, 1]
    assert told["xyz_m"][0][:2] == [[None] * 3, [0.3333] * 3]
    assert told["sync"]["offset_ms"] == [0.5, None]
    assert told["bodies"] is None


def test_what_is_too_long_to_be_read_is_its_shape() -> None:
    assert shown(poses(11))["xyz_m"] == "float32[11, 17, 3]"


def test_a_body_is_its_model_shape_and_place() -> None:
    root = np.array([[1, 2, 0.9], [np.nan] * 3], np.float32)
    told = shown(poses(2, Bodies("posepipe.adult", np.zeros((2, 24, 6), np.float32), np.full((2, 16), 0.5, np.float32), root)))
    assert told["bodies"] == {
        "model": "posepipe.adult",
        "pose": "float32[2, 24, 6]",
        "shape": [[0.5] * 16] * 2,
        "root_m": [[1.0, 2.0, 0.9], [None] * 3],
    }


def test_actions_are_shown_by_their_names() -> None:
    body = Actions(np.array([4, 9, 11]), np.array([1, -1, 5]), np.array([[0.25, 0.75], [0.5, 0.5], [np.nan, 1]], np.float32))
    told = shown(body, actions=("walking", "boxing"))
    assert told["ids"] == [4, 9, 11]
    assert told["action"] == ["boxing", "unknown", "unknown"]
    assert told["p"] == [{"walking": 0.25, "boxing": 0.75}, {"walking": 0.5, "boxing": 0.5}, {"walking": None, "boxing": 1.0}]


def test_pictures_are_their_sizes() -> None:
    planes = (np.zeros((4, 6), np.uint8), np.zeros((2, 3), np.uint8), np.zeros((2, 3), np.uint8))
    frame = Frame("north", 3, 5, "i420", 6, 4, planes)
    told = shown(FrameSet(7, 5, ("north",), {"north": frame}, Sync(0, (0,), ())))
    assert told["frames"]["north"]["planes"] == ["uint8[4, 6]", "uint8[2, 3]", "uint8[2, 3]"]
    assert not {"slot", "lease"} & told["frames"]["north"].keys()


@dataclass(frozen=True, slots=True)
class Gaze:
    at: dict[str, float]
    far: float


def test_a_body_that_a_user_defines_is_shown_too() -> None:
    assert shown(Gaze({"door": 0.5}, float("inf"))) == {
        "seq": 7,
        "t_capture_ns": 1_700_000_000_000_000_007,
        "at": {"door": 0.5},
        "far": None,
    }
