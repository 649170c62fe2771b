"""The nodes of a converted network stand in an order that can be run."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from posepipe.engines import convert


@given(st.integers(2, 30), st.randoms(use_true_random=False))
def test_nodes_come_behind_those_they_take_from(count: int, chance: random.Random) -> None:
    nodes = [
        helper.make_node("Sum", [f"t{chance.randrange(i)}" for _ in range(chance.randint(1, 3))] if i else ["x"], [f"t{i}"])
        for i in range(count)
    ]
    chance.shuffle(nodes)
    graph = helper.make_graph(nodes, "g", [], [])
    convert._sort(graph)
    assert sorted(n.output[0] for n in graph.node) == sorted(n.output[0] for n in nodes)
    made = {"x"}
    for node in graph.node:
        assert made.issuperset(node.input)
        made.update(node.output)
