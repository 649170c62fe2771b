"""A plan as a picture: text for the terminal, Graphviz, Mermaid. What runs where, what each link carries, what happens when it is full."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .graph import Plan, PlanNode
from .packet import Actions, Frame, FrameSet, Poses


@dataclass(frozen=True, slots=True)
class _Link:
    """One arrow. `queue` is empty for feedback, which has none."""

    writer: str
    reader: str
    port: str
    body: str
    queue: str

    @property
    def feedback(self) -> bool:
        return not self.queue


def _links(plan: Plan) -> Iterator[_Link]:
    for node in plan.nodes:
        types = {p.name: p.type.__name__ for p in (*node.ports.inputs, *node.ports.feedback)}
        for port, writers in node.inputs.items():
            for writer in writers:
                yield _Link(writer, node.name, port, types[port], _queue(node, plan[writer]))
        for port, base in node.feedback.items():
            for writer in (n.name for n in plan.nodes if n.base == base):
                yield _Link(writer, node.name, port, types[port], "")


def _queue(node: PlanNode, writer: PlanNode) -> str:
    """The policy of a link; between hosts also how its pictures travel."""
    by_wire = (writer.host or node.host) and writer.ports.output in (Frame, FrameSet)
    return f"{node.queue.size} {node.queue.full}" + (f", {node.wire.codec} over tcp" if by_wire else "")


def _workers(plan: Plan) -> dict[str, list[PlanNode]]:
    workers: dict[str, list[PlanNode]] = {}
    for node in plan.nodes:
        workers.setdefault(node.process, []).append(node)
    return workers


def _caps(node: PlanNode) -> str:
    """What leaves the node, beyond its type."""
    if node.ports.output is None:
        return "sink"
    rate = f"{node.caps.frame_rate_hz:g} Hz" if node.caps.frame_rate_hz else ""
    maps = "with heatmaps" if node.caps.maps else ""
    labels = f"{len(node.caps.actions)} labels" if node.caps.actions and node.ports.output is Actions else ""
    body = f"body {node.caps.body}" if node.caps.body and node.ports.output is Poses else ""
    return ", ".join(filter(None, (node.ports.output.__name__, node.caps.skeleton, maps, body, labels, rate)))


def text(plan: Plan) -> str:
    """The plan for a terminal: every node with its type, what it gives, its worker, and below it what it takes.

    Entries of an `each` differ in their settings only and share a line.
    """
    groups: dict[str, list[PlanNode]] = {}
    for node in plan.nodes:
        groups.setdefault(node.base, []).append(node)
    names = {base: base if len(nodes) == 1 else f"{base} x{len(nodes)}" for base, nodes in groups.items()}
    rows = [(names[base], nodes[0].use, f"-> {_caps(nodes[0])}", _worker(nodes)) for base, nodes in groups.items()]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = [f"studio {plan.studio}: {_cameras(plan.cameras)}", ""]
    for row, nodes in zip(rows, groups.values(), strict=True):
        lines.append("  ".join((row[0].ljust(widths[0]), row[1].ljust(widths[1]), row[2].ljust(widths[2]), row[3])))
        types = {p.name: p.type.__name__ for p in (*nodes[0].ports.inputs, *nodes[0].ports.feedback)}
        for port, writers in nodes[0].inputs.items():
            (base,) = {plan[w].base for w in writers}
            lines.append(f"    <- {names[base]}: {types[port]}, queue {_queue(nodes[0], plan[writers[0]])}")
        for port, base in nodes[0].feedback.items():
            lines.append(f"    <- {names[base]}: {types[port]}, feedback: the newest")
    if plan.budgets:
        lines += ["", *(f"budget {b.node} {b.percentile}: {b.limit_ms:g} ms" for b in plan.budgets)]
    return "\n".join(lines)


def _worker(nodes: list[PlanNode]) -> str:
    workers = dict.fromkeys(n.process for n in nodes)
    return f"worker {nodes[0].process}" if len(workers) == 1 else f"{len(workers)} workers of their own"


def _cameras(cameras: tuple[str, ...]) -> str:
    return f"{len(cameras)} camera{'' if len(cameras) == 1 else 's'} ({', '.join(cameras)})" if cameras else "no camera"


def dot(plan: Plan) -> str:
    """The plan for Graphviz: `posepipe graph studio.yaml --dot | dot -Tsvg`."""
    lines = [
        f"digraph {_quoted(plan.studio)} {{",
        '  rankdir=LR; node [shape=box, style="rounded,filled", fillcolor=white, fontname="Helvetica", fontsize=11];',
        '  edge [fontname="Helvetica", fontsize=9];',
    ]
    for number, (worker, nodes) in enumerate(_workers(plan).items()):
        lines.append(
            f'  subgraph cluster_{number} {{ label={_quoted(f"worker {worker}")}; style="rounded,filled"; color="#dddddd"; fontsize=10;'
        )
        lines += [f"    {_quoted(n.name)} [label={_quoted(_label(n))}];" for n in nodes]
        lines.append("  }")
    for link in _links(plan):
        label = _quoted(f"{link.body}\n{link.queue}" if link.queue else link.body)
        look = ", style=dashed, constraint=false" if link.feedback else ""
        lines.append(f"  {_quoted(link.writer)} -> {_quoted(link.reader)} [label={label}{look}];")
    return "\n".join([*lines, "}"])


def mermaid(plan: Plan) -> str:
    """The plan for Mermaid, as Markdown pages show it."""
    ids = {node.name: f"n{number}" for number, node in enumerate(plan.nodes)}
    lines = ["flowchart LR"]
    for number, (worker, nodes) in enumerate(_workers(plan).items()):
        lines.append(f'  subgraph w{number}["worker {_escaped(worker)}"]')
        lines += [f'    {ids[n.name]}["{_escaped(_label(n))}"]' for n in nodes]
        lines.append("  end")
    for link in _links(plan):
        label = _escaped(f"{link.body}\n{link.queue}" if link.queue else link.body)
        arrow = f'-. "{label}" .->' if link.feedback else f'-- "{label}" -->'
        lines.append(f"  {ids[link.writer]} {arrow} {ids[link.reader]}")
    return "\n".join(lines)


def _label(node: PlanNode) -> str:
    return "\n".join((node.name, node.use, *([_caps(node)] if node.ports.output is not None else [])))


def _quoted(value: str) -> str:
    """A DOT string."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _escaped(value: str) -> str:
    """Text inside a Mermaid label in quotes."""
    return value.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace("\n", "<br/>")
