"""One wrong studio file per mistake, and the message that it must give: file:line, the field, the value, what would be right."""

from __future__ import annotations

from pathlib import Path

import pytest

from posepipe.launch import studio
from posepipe.pipeline.errors import GraphError

GOOD = """\
studio: hall
rig: hall.rig.toml
nodes:
  capture:
    use: capture.video
    each:
      north: north.mp4
      south: south.mp4
    speed: 0.5
  instants: {use: sync.instant, from: capture}
  heatmaps: {use: heatmap.topdown, from: instants, feedback: smooth, engine: stub}
  pose3d: {use: lift.algebraic, from: heatmaps}
  smooth: {use: smooth.one_euro, from: pose3d}
  publish:
    use: publish.zmq
    from: smooth
engines: {runtime: auto}
budgets: {end_to_end_p95_ms: 100}
metrics: {bind: "127.0.0.1:9464"}
"""
TYPES = "capture.video, classify.action, heatmap.paf, heatmap.topdown, lift.algebraic, lift.auto, lift.baseline, lift.volumetric, publish.zmq, record.jsonl, smooth.butterworth, smooth.kalman, smooth.one_euro, smooth.savgol, smooth.vibe, sync.instant, view.mosaic"
INSPECT = "see posepipe inspect"


def load(folder: Path, text: str) -> str:
    """The message that the file gives, its folder cut off; empty when it is good."""
    file = folder / "hall.yaml"
    file.write_text(text)
    try:
        studio.load(file)
    except GraphError as e:
        return str(e).replace(f"{folder}/", "")
    return ""


def test_the_file_that_the_mistakes_are_made_in_is_good(tmp_path: Path) -> None:
    assert load(tmp_path, GOOD) == ""


MISTAKES = {
    "unknown key at the top": (
        ("budgets: {end", "budget: {end"),
        "hall.yaml:18: unknown key 'budget'\n  -> did you mean 'budgets'?",
    ),
    "a key at the top that is like none": (
        ("engines: {", "zzz: {"),
        "hall.yaml:17: unknown key 'zzz'\n  -> valid here: budgets, chaos, engines, metrics, nodes, rig, studio, truth",
    ),
    "unknown node type": (
        ("use: lift.algebraic", "use: lift.algebra"),
        "hall.yaml:12: node 'pose3d': there is no node type 'lift.algebra'\n  -> did you mean 'lift.algebraic'?",
    ),
    "a node type that is a list": (
        ("use: lift.algebraic", "use: [lift.algebraic]"),
        "hall.yaml:12: node 'pose3d': there is no node type ['lift.algebraic']\n  -> did you mean 'lift.algebraic'?",
    ),
    "no use": (("use: lift.algebraic, ", ""), f"hall.yaml:12: node 'pose3d' has no use:\n  -> valid here: {TYPES}"),
    "a node that is no map": (
        ("pose3d: {use: lift.algebraic, from: heatmaps}", "pose3d: lift.algebraic"),
        "hall.yaml:12: node 'pose3d' is 'lift.algebraic', want a map with use: ...\n  -> pose3d: {use: capture.video, ...}",
    ),
    "a name that budgets need": (
        ("  smooth: {use", "  end_to_end: {use"),
        "hall.yaml:13: 'end_to_end' cannot be a node's name\n  -> letters, digits, _ and -; end_to_end is taken by budgets",
    ),
    "a duplicate node": (
        ("  publish:", "  smooth:"),
        "hall.yaml:14: 'smooth' stands here twice (first in line 13)\n  -> names are unique: rename one of them",
    ),
    "a duplicate camera": (
        ("      south: ", "      north: "),
        "hall.yaml:8: 'north' stands here twice (first in line 7)\n  -> names are unique: rename one of them",
    ),
    "one camera in two captures": (
        ("  instants: {", "  more: {use: capture.video, each: {south: x.mp4}}\n  instants: {"),
        "hall.yaml:3: camera 'south' stands in two capture nodes\n  -> camera names are unique in a studio",
    ),
    "unknown setting": (
        ("from: pose3d}", "from: pose3d, min_cutof: 1.2}"),
        "hall.yaml:13: node 'smooth' (smooth.one_euro) has no setting 'min_cutof'\n  -> did you mean 'min_cutoff'?",
    ),
    "unknown setting shared by entries, said once": (
        ("    speed: 0.5", "    sped: 0.5"),
        "hall.yaml:9: node 'capture' (capture.video) has no setting 'sped'\n  -> did you mean 'speed'?",
    ),
    "unknown setting of one entry": (
        ("south: south.mp4", "south: {uri: south.mp4, fsp: 30}"),
        "hall.yaml:8: node 'capture' (capture.video) has no setting 'fsp'\n  -> did you mean 'fps'?",
    ),
    "wrong type of a setting": (
        ("from: pose3d}", "from: pose3d, beta: fast}"),
        f"hall.yaml:13: node 'smooth': beta is 'fast': Expected `float`, got `str`\n  -> {INSPECT} smooth.one_euro",
    ),
    "a setting out of range": (
        ("from: capture}", "from: capture, window_ms: 0}"),
        f"hall.yaml:10: node 'instants': window_ms is 0: Expected `float` > 0.0\n  -> {INSPECT} sync.instant",
    ),
    "a setting of one entry out of range": (
        ("south: south.mp4", "south: {uri: south.mp4, speed: -1}"),
        f"hall.yaml:8: node 'capture': speed is -1: Expected `float` > 0.0\n  -> {INSPECT} capture.video",
    ),
    "an entry that is a number": (
        ("south: south.mp4", "south: 5"),
        f"hall.yaml:8: node 'capture': uri is 5: Expected `str`, got `int`\n  -> {INSPECT} capture.video",
    ),
    "an entry without what it needs": (
        ("south: south.mp4", "south: {fps: 30}"),
        f"hall.yaml:8: node 'capture' (capture.video) needs the setting 'uri'\n  -> {INSPECT} capture.video",
    ),
    "each that is a list": (
        ("    each:\n      north: north.mp4\n      south: south.mp4", "    each: [north.mp4]"),
        "hall.yaml:6: node 'capture': each is ['north.mp4'], want a map with one entry a camera\n  -> each: {north: north.mp4}",
    ),
    "an entry with a stroke": (
        ("      south:", "      hall/south:"),
        "hall.yaml:8: 'hall/south' cannot be the name of an entry of each\n  -> letters, digits, _ and -",
    ),
    "engine that is none": (
        ("engine: stub", "engine: blazepose.ful"),
        "hall.yaml:11: node 'heatmaps': engine is 'blazepose.ful': there is no network 'blazepose.ful' for this\n  -> did you mean 'blazepose.full'?",
    ),
    "more views wanted than there are cameras": (
        ("from: capture}", "from: capture, min_views: 3}"),
        "hall.yaml:10: node 'instants': min_views is 3, but only 2 cameras come in: north, south\n  -> min_views: 2 or fewer",
    ),
    "no from": (
        ("use: lift.algebraic, from: heatmaps", "use: lift.algebraic"),
        "hall.yaml:12: node 'pose3d' (lift.algebraic) needs from: for views\n  -> from: capture",
    ),
    "from a node that is not there": (
        ("from: heatmaps}", "from: heatmap}"),
        "hall.yaml:12: node 'pose3d' takes 'heatmap', but there is no such node\n  -> did you mean 'heatmaps'?",
    ),
    "from a list": (
        ("from: heatmaps}", "from: [heatmaps]}"),
        "hall.yaml:12: node 'pose3d': from is ['heatmaps'], want a node's name or a map of them\n  -> from: capture",
    ),
    "from a map of lists": (
        ("from: heatmaps}", "from: {views: [heatmaps]}}"),
        "hall.yaml:12: node 'pose3d' takes ['heatmaps'], but there is no such node\n  -> did you mean 'heatmaps'?",
    ),
    "from into a port that is not there": (
        ("from: heatmaps}", "from: {view: heatmaps}}"),
        "2 mistakes in hall.yaml\n"
        "hall.yaml:12: node 'pose3d' (lift.algebraic) has no input 'view'\n  -> did you mean 'views'?\n"
        "hall.yaml:12: node 'pose3d' (lift.algebraic) also needs 'views'\n  -> from: {views: ...}",
    ),
    "from on a source": (
        ("    speed: 0.5", "    from: smooth"),
        "hall.yaml:9: node 'capture' (capture.video) has no input, but from: is 'smooth'\n  -> leave from: out",
    ),
    "feedback on a node without": (
        ("from: pose3d}", "from: pose3d, feedback: pose3d}"),
        "hall.yaml:13: node 'smooth' (smooth.one_euro) has no feedback, but feedback: is 'pose3d'\n  -> leave feedback: out",
    ),
    "feedback from a node that is not there": (
        ("feedback: smooth", "feedback: smoth"),
        "hall.yaml:11: node 'heatmaps' takes 'smoth', but there is no such node\n  -> did you mean 'smooth'?",
    ),
    "feedback of a wrong type": (
        ("feedback: smooth", "feedback: instants"),
        "hall.yaml:11: 'instants' gives FrameSet, but 'heatmaps' (heatmap.topdown) wants Poses at 'poses'\n  -> Poses comes from: pose3d, smooth",
    ),
    "a wrong type": (
        ("from: heatmaps}", "from: instants}"),
        "hall.yaml:12: 'instants' gives FrameSet, but 'pose3d' (lift.algebraic) wants ViewPoses at 'views'\n  -> ViewPoses comes from: heatmaps",
    ),
    "a sink as an input": (
        ("engines: {", "  again: {use: smooth.one_euro, from: publish}\nengines: {"),
        "hall.yaml:17: node 'again' takes 'publish', but publish.zmq is a sink: it has no output\n  -> take a node before it",
    ),
    "a cycle": (
        (
            "from: heatmaps}",
            "from: heatmaps}\n  a: {use: smooth.one_euro, from: c}\n  b: {use: smooth.one_euro, from: a}\n  c: {use: smooth.one_euro, from: b}",
        ),
        "hall.yaml:13: the graph has a cycle: a <- c <- b <- a\n  -> only feedback: may close a loop: on 'a', write feedback: c instead of from:",
    ),
    "a node that takes itself": (
        ("from: pose3d}", "from: smooth}"),
        "hall.yaml:13: the graph has a cycle: smooth <- smooth\n  -> only feedback: may close a loop: on 'smooth', write feedback: smooth instead of from:",
    ),
    "a queue of nothing": (
        ("from: pose3d}", "from: pose3d, queue: {size: 0}}"),
        "hall.yaml:13: node 'smooth': queue is {'size': 0}: a queue holds at least 1 packet\n  -> queue: {size: 2, full: drop_oldest | keep_newest | drop_newest | block}",
    ),
    "a queue with an unknown policy": (
        ("from: pose3d}", "from: pose3d, queue: {full: dorp}}"),
        "hall.yaml:13: node 'smooth': queue is {'full': 'dorp'}: Invalid enum value 'dorp' - at `$.full`\n"
        "  -> queue: {size: 2, full: drop_oldest | keep_newest | drop_newest | block}",
    ),
    "a process without a name": (
        ("from: pose3d}", "from: pose3d, process: 1}"),
        "hall.yaml:13: node 'smooth': process is 1, want own or a name\n  -> process: own",
    ),
    "unknown budget": (
        ("end_to_end_p95_ms", "end_to_end_p90_ms"),
        "hall.yaml:18: unknown budget 'end_to_end_p90_ms'\n  -> did you mean 'end_to_end_p99_ms'?",
    ),
    "a budget of a node that is not there": (
        ("end_to_end_p95_ms", "heatmap_p95_ms"),
        "hall.yaml:18: unknown budget 'heatmap_p95_ms'\n  -> did you mean 'heatmaps_p95_ms'?",
    ),
    "a budget that is no time": (
        ("_ms: 100", "_ms: 0"),
        "hall.yaml:18: budget end_to_end_p95_ms is 0, want milliseconds above 0\n  -> end_to_end_p95_ms: 50",
    ),
    "budgets that are a list": (
        ("budgets: {end_to_end_p95_ms: 100}", "budgets: [1]"),
        "hall.yaml:18: budgets is [1], want a map\n  -> budgets: {end_to_end_p95_ms: 100}",
    ),
    "unknown key of engines": (
        ("{runtime: auto}", "{runtme: auto}"),
        "hall.yaml:17: unknown key 'runtme' in engines\n  -> did you mean 'runtime'?",
    ),
    "unknown runtime": (
        ("runtime: auto", "runtime: opnvino"),
        "hall.yaml:17: engines: runtime is 'opnvino': Invalid enum value 'opnvino'\n  -> did you mean 'openvino'?",
    ),
    "threads that are no number": (
        ("runtime: auto", "threads: many"),
        "hall.yaml:17: engines: threads is 'many': Expected `int`, got `str`\n  -> for example engines: {threads: 0}",
    ),
    "engines that are no map": (
        ("engines: {runtime: auto}", "engines: openvino"),
        "hall.yaml:17: engines is 'openvino', want a map\n  -> engines: {runtime: auto}",
    ),
    "metrics that are no map": (
        ('metrics: {bind: "127.0.0.1:9464"}', "metrics: on"),
        'hall.yaml:19: metrics is True, want a map\n  -> metrics: {bind: "127.0.0.1:9464"}',
    ),
    "metrics that ask for nothing": (
        ('metrics: {bind: "127.0.0.1:9464"}', "metrics: {}"),
        'hall.yaml:19: metrics is empty\n  -> metrics: {bind: "127.0.0.1:9464"} opens the endpoint, metrics: {otlp: ...} sends spans',
    ),
    "unknown key of metrics": (
        ("{bind:", "{bnd:"),
        "hall.yaml:19: unknown key 'bnd' in metrics\n  -> did you mean 'bind'?",
    ),
    "an endpoint without a host": (
        ('"127.0.0.1:9464"', "9464"),
        'hall.yaml:19: metrics: bind is 9464, want HOST:PORT\n  -> bind: "127.0.0.1:9464"',
    ),
    "an endpoint with a scheme": (
        ('"127.0.0.1:9464"', '"http://127.0.0.1:9464"'),
        "hall.yaml:19: metrics: bind is 'http://127.0.0.1:9464', want HOST:PORT\n  -> bind: \"127.0.0.1:9464\"",
    ),
    "a port that cannot be": (
        ('"127.0.0.1:9464"', '"127.0.0.1:94640"'),
        "hall.yaml:19: metrics: bind is '127.0.0.1:94640', want HOST:PORT\n  -> bind: \"127.0.0.1:9464\"",
    ),
    "a collector without a scheme": (
        ('{bind: "127.0.0.1:9464"}', '{otlp: "127.0.0.1:4318"}'),
        "hall.yaml:19: metrics: otlp is '127.0.0.1:4318', want the http address of an OTLP collector\n"
        '  -> otlp: "http://127.0.0.1:4318/v1/traces"',
    ),
    "a sample of nothing": (
        ('{bind: "127.0.0.1:9464"}', '{otlp: "http://127.0.0.1:4318/v1/traces", sample: 0}'),
        "hall.yaml:19: metrics: sample is 0, want a share of the instants above 0, at most 1\n  -> sample: 0.01",
    ),
    "a sample without a collector": (
        ('{bind: "127.0.0.1:9464"}', "{sample: 0.5}"),
        "hall.yaml:19: sample has no effect without otlp\n"
        '  -> metrics: {bind: "127.0.0.1:9464"} opens the endpoint, metrics: {otlp: ...} sends spans',
    ),
    "a studio without a name": (("studio: hall", "studio: 12"), "hall.yaml:1: studio is 12, want a name\n  -> studio: hall"),
    "an unset variable": (
        ("north.mp4", "${NO_SUCH_VARIABLE_HERE}.mp4"),
        "hall.yaml:7: the environment variable NO_SUCH_VARIABLE_HERE is not set\n"
        "  -> export NO_SUCH_VARIABLE_HERE=..., or write ${NO_SUCH_VARIABLE_HERE:-default}",
    ),
    "not YAML": (
        ("engine: stub}", "engine: stub"),
        "hall.yaml:12: not valid YAML: expected ',' or '}', but got ':'\n  -> check indentation, quotes and brackets there",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_mistake_is_named_where_it_stands(tmp_path: Path, mistake: str) -> None:
    (wrong, right), message = MISTAKES[mistake]
    assert GOOD.count(wrong) == 1, "the change must be one place"
    assert load(tmp_path, GOOD.replace(wrong, right)) == message


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "- capture\n"])
def test_a_file_that_says_nothing(tmp_path: Path, text: str) -> None:
    assert load(tmp_path, text) == "hall.yaml: a studio file is a map with the keys studio, nodes, ...\n  -> see examples/studio.yaml"


@pytest.mark.parametrize("nodes", ["", "nodes:\n", "nodes: {}\n", "nodes: [capture]\n"])
def test_a_file_without_nodes(tmp_path: Path, nodes: str) -> None:
    line = 2 if nodes else 1
    assert load(tmp_path, f"studio: hall\n{nodes}") == (
        f"hall.yaml:{line}: there are no nodes\n  -> add nodes: with a capture, see examples/studio.yaml"
    )


def test_several_mistakes_are_reported_together(tmp_path: Path) -> None:
    text = GOOD.replace("speed: 0.5", "sped: 0.5").replace("use: sync.instant", "use: sync.instance").replace("rig: ", "rigg: ")
    assert load(tmp_path, text) == (
        "3 mistakes in hall.yaml\n"
        "hall.yaml:2: unknown key 'rigg'\n  -> did you mean 'rig'?\n"
        "hall.yaml:9: node 'capture' (capture.video) has no setting 'sped'\n  -> did you mean 'speed'?\n"
        "hall.yaml:10: node 'instants': there is no node type 'sync.instance'\n  -> did you mean 'sync.instant'?"
    )


def test_a_mistake_of_the_command_line_is_named_there(tmp_path: Path) -> None:
    file = tmp_path / "hall.yaml"
    file.write_text(GOOD)
    with pytest.raises(GraphError) as caught:
        studio.load(file, overrides=("nodes.smooth.beta=-2",))
    assert str(caught.value) == (
        "--set nodes.smooth.beta=-2: node 'smooth': beta is -2: Expected `float` >= 0.0\n  -> see posepipe inspect smooth.one_euro"
    )
