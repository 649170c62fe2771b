"""What `chaos:` of a studio file may say, and what it is told when it says something else."""

from __future__ import annotations

from pathlib import Path

import pytest
from memory_nodes import MEMORY

from posepipe.pipeline.chaos import Kill, harmed_cameras, worker_of
from posepipe.pipeline.errors import GraphError
from posepipe.pipeline.graph import Plan, load_plan

NODES = """\
nodes:
  capture: {use: mem.camera, each: {north: {}, south: {}}}
  instants: {use: mem.instants, from: capture}
  work: {use: mem.work, from: instants}
  sink: {use: mem.sink, from: work}
  strict: {use: mem.sink, from: work, process: own, queue: {full: block}}
chaos:
"""
PUBLISHING = "expect: {publishing: true}"


def plan(folder: Path, *entries: str) -> Plan:
    file = folder / "hall.yaml"
    file.write_text(NODES + "".join(f"  - {entry}\n" for entry in entries))
    return load_plan(file, MEMORY)


def refused(folder: Path, *entries: str) -> str:
    with pytest.raises(GraphError) as caught:
        plan(folder, *entries)
    return str(caught.value).replace(f"{folder}/", "")


def test_entries_stand_in_the_order_of_their_times(tmp_path: Path) -> None:
    made = plan(
        tmp_path,
        f"{{at_s: 60, fill_disk: strict, for_s: 1, {PUBLISHING}}}",
        "{at_s: 4, kill: capture/north, expect: {back_within_s: 2, missing: [north], others_lose: 0}}",
        "{at_s: 10, kill: main, expect: {published_again_within_s: 3}}",
        f"{{at_s: 16, stall: work, for_ms: 800, {PUBLISHING}}}",
        f"{{at_s: 20, skew: south, by_ms: -30, for_s: 3, {PUBLISHING}}}",
        f"{{at_s: 30, drop: instants, share: 0.1, for_s: 3, {PUBLISHING}}}",
        f"{{at_s: 40, corrupt: strict, share: 0.05, for_s: 3, {PUBLISHING}}}",
    )
    assert [entry.text for entry in made.chaos] == [
        "kill capture/north",
        "kill main",
        "stall work for 800 ms",
        "skew south by -30 ms for 3 s",
        "drop 10 % of what comes to instants for 3 s",
        "corrupt 5 % of what comes to strict for 3 s",
        "fill the disk of strict for 1 s",
    ]
    assert [worker_of(entry, made.nodes) for entry in made.chaos] == [
        "capture/north",
        "main",
        "main",
        "capture/south",
        "main",
        "strict",
        "strict",
    ]
    assert [harmed_cameras(entry, made.nodes) for entry in made.chaos] == [("north",), (), (), ("south",), (), (), ()]


def test_a_studio_without_chaos_has_none(tmp_path: Path) -> None:
    assert plan(tmp_path).chaos == ()


def test_a_killed_worker_takes_all_its_cameras_away(tmp_path: Path) -> None:
    file = tmp_path / "hall.yaml"
    text = NODES.replace("each: {north: {}, south: {}}", "each: {north: {}, south: {}}, process: grabber")
    file.write_text(text + f"  - {{at_s: 1, kill: capture/south, {PUBLISHING}}}\n")
    made = load_plan(file, MEMORY)
    assert harmed_cameras(made.chaos[0], made.nodes) == ("north", "south")


def test_an_entry_is_judged_for_as_long_as_it_may_take(tmp_path: Path) -> None:
    skew = "{at_s: 10, skew: south, by_ms: 30, for_s: 3, expect: {back_within_s: 2}}"
    made = plan(tmp_path, skew, f"{{at_s: 20, stall: work, for_ms: 5000, {PUBLISHING}}}")
    assert [entry.judged_until_s for entry in made.chaos] == [10 + 3 + 2 + 1.5, 20 + 5 + 1.5]
    assert isinstance(plan(tmp_path, skew, f"{{at_s: 16.5, kill: main, {PUBLISHING}}}").chaos[1], Kill), "not a moment longer"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (f"{{at_s: 4, kil: main, {PUBLISHING}}}", "hall.yaml:8: an entry of chaos has the unknown key 'kil'\n  -> did you mean 'kill'?"),
        (f"{{at_s: 4, {PUBLISHING}}}", "does one of kill, stall, skew, drop, corrupt, fill_disk; this one none"),
        (f"{{at_s: 4, kill: main, stall: work, {PUBLISHING}}}", "this one kill and stall"),
        ("kill", "hall.yaml:8: an entry of chaos does one of kill"),
        (f"{{at_s: 4, kill: mian, {PUBLISHING}}}", "hall.yaml:8: kill: there is no node or worker 'mian'\n  -> did you mean 'main'?"),
        (f"{{at_s: 4, kill: north, {PUBLISHING}}}", "kill: there is no node or worker 'north'"),
        (f"{{at_s: 4, stall: wrok, for_ms: 5, {PUBLISHING}}}", "stall: there is no node 'wrok'\n  -> did you mean 'work'?"),
        (f"{{at_s: 4, skew: nort, by_ms: 5, for_s: 1, {PUBLISHING}}}", "skew: there is no camera 'nort'\n  -> did you mean 'north'?"),
        (f"{{at_s: 4, stall: work, {PUBLISHING}}}", "stall in chaos needs for_ms"),
        (f"{{kill: main, {PUBLISHING}}}", "kill in chaos needs at_s"),
        (f"{{at_s: 0, kill: main, {PUBLISHING}}}", "at_s is 0: Expected `float` > 0.0"),
        (f"{{at_s: .nan, kill: main, {PUBLISHING}}}", "at_s is nan"),
        (f"{{at_s: .inf, kill: main, {PUBLISHING}}}", "at_s is inf"),
        (f"{{at_s: soon, kill: main, {PUBLISHING}}}", "at_s is 'soon': Expected `float`, got `str`"),
        (f"{{at_s: 4, kill: main, for_s: 1, {PUBLISHING}}}", "kill in chaos has no key 'for_s'"),
        (f"{{at_s: 4, drop: instants, share: 1.1, for_s: 1, {PUBLISHING}}}", "share is 1.1: Expected `float` <= 1.0"),
        (f"{{at_s: 4, drop: instants, share: 0, for_s: 1, {PUBLISHING}}}", "share is 0: Expected `float` > 0.0"),
        (f"{{at_s: 4, drop: work, share: 0.1, for_s: 1, {PUBLISHING}}}", "drop: no other process sends anything to 'work'"),
        (f"{{at_s: 4, drop: strict, share: 0.1, for_s: 1, {PUBLISHING}}}", "drop: 'strict' has the queue block, whose links lose nothing"),
        ("{at_s: 4, kill: main}", "kill in chaos needs expect"),
        ("{at_s: 4, kill: main, expect: }", "kill: nothing is expected, so nothing can be judged"),
        ("{at_s: 4, kill: main, expect: {gap_s: 3}}", "kill: nothing is expected, so nothing can be judged"),
        ("{at_s: 4, kill: main, expect: {publishin: true}}", "expect in chaos has no key 'publishin'\n  -> did you mean 'publishing'?"),
        ("{at_s: 4, kill: main, expect: {publishing: false}}", "publishing is False"),
        ("{at_s: 4, kill: main, expect: {missing: [nort]}}", "missing: there is no camera 'nort'\n  -> did you mean 'north'?"),
        ("{at_s: 4, kill: main, expect: {others_lose: -1}}", "others_lose is -1"),
        (
            "{at_s: 4, stall: work, for_ms: 9, expect: {back_within_s: 2}}",
            "stall work for 9 ms: nothing goes away that could be back within 2 s",
        ),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, entry: str, message: str) -> None:
    assert message in refused(tmp_path, entry)


def test_entries_do_not_overlap(tmp_path: Path) -> None:
    message = refused(tmp_path, "{at_s: 4, kill: main, expect: {published_again_within_s: 3}}", f"{{at_s: 8, kill: main, {PUBLISHING}}}")
    assert message == "hall.yaml:9: kill main comes at 8 s, while kill main (at 4 s) is judged until 8.5 s\n  -> at_s: 8.5 or later"


def test_chaos_is_a_list(tmp_path: Path) -> None:
    file = tmp_path / "hall.yaml"
    file.write_text(NODES + "  kill: main\n")
    with pytest.raises(GraphError, match="want a list"):
        load_plan(file, MEMORY)
