"""What made the skeletons is counted where they are published, told to the supervisor, and read as a metric."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
from outside_kit import MadeUp
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from posepipe.launch import letters
from posepipe.launch.metrics import StudioCollector
from posepipe.pipeline.packet import Poses, Sync, Tier
from posepipe.pipeline.stats import Quality


def poses(tier: Tier, people: int = 1) -> Poses:
    joints = np.zeros((people, 17), np.float32)
    arrays = (np.zeros((people, 17, 3), np.float32), joints, joints, np.full(people, 3, np.float32), joints.astype(np.uint8))
    return Poses(("north",), "coco17", Sync(0, (0,), ()), tier, np.arange(people), *arrays)


def test_tiers_are_counted_and_told_on() -> None:
    here, there = Quality(), Quality()
    for tier, people in (("volumetric", 1), ("volumetric", 2), ("algebraic", 1), ("held", 1), ("volumetric", 0)):
        here.add(poses(tier, people))  # type: ignore[arg-type]
    assert here.tiers == {"volumetric": 3, "algebraic": 1, "held": 1}
    told = here.since(1)
    assert [(people, tier) for people, _, tier in told] == [(2, "volumetric"), (1, "algebraic"), (1, "held"), (0, "volumetric")]
    beat = letters.Beat({}, b"", told, None, None, 0)
    there.extend(msgspec.msgpack.decode(msgspec.msgpack.encode(beat), type=letters.Beat).quality)
    assert there.tiers == {"volumetric": 2, "algebraic": 1, "held": 1}
    assert there.medians() == (1.0, 3.0)


def test_the_metric_is_one_counter_a_tier(tmp_path: Path) -> None:
    studio = MadeUp(tmp_path)
    studio.books.note("main", letters.Beat({}, b"", [(1, 2.0, "volumetric")] * 3 + [(1, 2.0, "held")], None, None, 0))  # type: ignore[arg-type]
    registry = CollectorRegistry()
    registry.register(StudioCollector(studio))
    lines = [line for line in generate_latest(registry).decode().splitlines() if line.startswith("posepipe_instants_total{")]
    assert sorted(line.partition("tier=")[2] for line in lines) == ['"held"} 1.0', '"volumetric"} 3.0']
