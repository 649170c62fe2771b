"""`host:` and `wire:` of a node: who runs where, and which links leave a machine."""

from __future__ import annotations

import pytest
from memory_nodes import Harness

from posepipe.pipeline import draw
from posepipe.pipeline.errors import GraphError
from posepipe.pipeline.hosts import WireFormat
from posepipe.pipeline.remote import wires

TWO = """
    capture: {use: mem.camera, each: {north: {host: edge1}, south: {host: edge2}, door: {}}}
    instants: {use: mem.instants, from: capture, wire: {codec: jpeg, quality: 70}}
    work: {use: mem.work, from: instants, host: gpu, wire: h264}
    plus: {use: mem.plus, from: work, host: gpu}
    sink: {use: mem.sink, from: plus}
"""


def test_a_worker_is_a_process_on_a_host(harness: Harness) -> None:
    plan = harness.plan(TWO)
    assert {n.name: (n.process, n.host) for n in plan.nodes} == {
        "capture/north": ("capture/north@edge1", "edge1"),
        "capture/south": ("capture/south@edge2", "edge2"),
        "capture/door": ("capture/door", ""),
        "instants": ("main", ""),
        "work": ("main@gpu", "gpu"),
        "plus": ("main@gpu", "gpu"),
        "sink": ("main", ""),
    }


def test_wires_know_whether_they_leave_the_machine(harness: Harness) -> None:
    found = {(w.writer, w.reader): w for w in wires(harness.plan(TWO))}
    assert {ends: (w.between_hosts, w.carries, w.in_rings, w.form) for ends, w in found.items()} == {
        ("capture/north", "instants"): (True, True, False, WireFormat("jpeg", 70)),
        ("capture/south", "instants"): (True, True, False, WireFormat("jpeg", 70)),
        ("capture/door", "instants"): (False, False, True, WireFormat("jpeg", 70)),
        ("instants", "work"): (True, True, False, WireFormat("h264")),
        ("plus", "sink"): (True, False, False, WireFormat()),
    }


def test_two_workers_of_one_far_host_share_no_memory(harness: Harness) -> None:
    plan = harness.plan("north: {use: mem.camera, host: a}\ninstants: {use: mem.instants, from: north, host: a}")
    assert [(w.from_worker, w.to_worker, w.carries) for w in wires(plan)] == [("north@a", "main@a", True)]


def test_the_drawing_says_which_links_leave_the_machine(harness: Harness) -> None:
    text = draw.text(harness.plan(TWO))
    assert "    <- instants: FrameSet, queue 2 drop_oldest, h264 over tcp" in text
    assert "worker main@gpu" in text


MISTAKES = {
    "host: 12": (
        "work: {use: mem.work, from: instants, host: 12}",
        "hall.yaml:6: host is 12, want a Ray resource label, or a node's name or address\n  -> host: edge1",
    ),
    "a wire that is none": (
        "work: {use: mem.work, from: instants, wire: png}",
        "hall.yaml:6: node 'work': wire is 'png': Invalid enum value 'png' - at `$.codec`\n"
        "  -> wire: raw | jpeg | h264, or wire: {codec: h264, quality: 80}",
    ),
    "a quality beyond 100": (
        "work: {use: mem.work, from: instants, wire: {codec: jpeg, quality: 101}}",
        "hall.yaml:6: node 'work': wire is {'codec': 'jpeg', 'quality': 101}: Expected `int` <= 100 - at `$.quality`\n"
        "  -> wire: raw | jpeg | h264, or wire: {codec: h264, quality: 80}",
    ),
    "a wire where no pictures go": (
        "work: {use: mem.work, from: instants}\n  plus: {use: mem.plus, from: work, wire: jpeg}",
        "hall.yaml:7: node 'plus' takes no pictures: wire says how they travel to it\n  -> leave wire: out",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_mistake_is_named_where_it_stands(harness: Harness, mistake: str) -> None:
    nodes, message = MISTAKES[mistake]
    with pytest.raises(GraphError) as error:
        harness.plan(f"north: {{use: mem.camera}}\ninstants: {{use: mem.instants, from: north}}\n{nodes}")
    assert str(error.value).replace(str(harness.folder) + "/", "") == message


def test_a_host_that_changes_changes_the_plan(harness: Harness) -> None:
    first = harness.plan(TWO).sha256
    assert harness.plan(TWO.replace("edge1", "edge3")).sha256 != first
