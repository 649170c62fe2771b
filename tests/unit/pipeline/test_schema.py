"""The schema that editors get says the same as the planner; `posepipe inspect` says what a node type needs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import jsonschema
import msgspec
import pytest
import yaml
from msgspec import Meta

from posepipe.pipeline.errors import GraphError
from posepipe.pipeline.graph import load_plan
from posepipe.pipeline.node import Latest, Node, NodeSettings, Source
from posepipe.pipeline.packet import Frame, FrameSet, Packet, Poses
from posepipe.pipeline.schema import describe, schema


class Corner(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    x_m: float
    y_m: float = 0.0


class Capture(Source):
    """A camera.

    It has a lens.
    """

    use = "kit.capture"

    class Settings(NodeSettings, frozen=True, kw_only=True):
        uri: Annotated[str, Meta(description="file or device", min_length=1)]
        fps: Annotated[float, Meta(description="frames per second", gt=0, le=1000)] | None = None
        loop: bool = False

    def step(self) -> Frame | None: ...


class Instants(Node):
    """Joins."""

    use = "kit.instants"
    fan_in = True

    def step(self, frame: Frame) -> list[FrameSet]: ...  # type: ignore[empty-body]


class Lift(Node):
    """Lifts."""

    use = "kit.lift"

    class Settings(NodeSettings, frozen=True, kw_only=True):
        method: Annotated[Literal["svd", "vote"], Meta(description="how")] = "vote"
        views: Annotated[int, Meta(ge=2, le=16)] = 2
        corners: tuple[Corner, ...] = ()

    def step(self, frames: FrameSet, last: Latest[Poses]) -> Poses: ...  # type: ignore[empty-body]


class View(Node):
    """Shows."""

    use = "kit.view"

    class Settings(NodeSettings, frozen=True, kw_only=True):
        size: int = 3
        file: str

    def step(self, frames: FrameSet, poses: Packet[Poses]) -> None: ...


class Say(Node):
    """Says it."""

    use = "kit.say"

    def step(self, poses: Packet[Poses], words: Poses | None = None) -> None: ...


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    runtime: Literal["auto", "stub"] = "auto"
    threads: int = 0


KIT: dict[str, type[Node]] = {cls.use: cls for cls in (Capture, Instants, Lift, View, Say)}
GOOD = """
studio: hall
rig: {file: hall.toml, image: {north: {scale: 1.5, offset_px: [0, -7.3]}, south: {scale: [1, 2]}}}
nodes:
  capture: {use: kit.capture, each: {north: north.mp4, south: {uri: south.mp4, fps: 25}}, loop: true}
  instants: {use: kit.instants, from: capture, queue: {size: 4}}
  lift: {use: kit.lift, from: instants, feedback: lift, method: svd, corners: [{x_m: 1.5}], process: fast}
  view: {use: kit.view, from: {frames: instants, poses: lift}, file: out.png, queue: {size: 1, full: drop_newest}}
  say: {use: kit.say, from: lift}
engines: {runtime: stub}
budgets: {lift_p95_ms: 18, end_to_end_p99_ms: 100.5}
metrics: {bind: "127.0.0.1:9464", otlp: "http://127.0.0.1:4318/v1/traces", sample: 0.5}
"""


@pytest.fixture(scope="module")
def validator() -> Any:
    made = schema(KIT, engines=Options)
    jsonschema.Draft202012Validator.check_schema(made)
    return jsonschema.Draft202012Validator(json.loads(json.dumps(made)))


def planner_accepts(text: str, folder: Path) -> bool:
    file = folder / "studio.yaml"
    file.write_text(text)
    try:
        load_plan(file, KIT, environment={})
    except GraphError:
        return False
    return True


def changed(old: str, new: str) -> str:
    assert GOOD.count(old) == 1, old
    return GOOD.replace(old, new)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("studio: hall", ""),
        ("rig: {file: hall.toml, image: {north: {scale: 1.5, offset_px: [0, -7.3]}, south: {scale: [1, 2]}}}", "rig: hall.toml"),
        ("fps: 25", "fps: null"),
        ("south: {uri: south.mp4, fps: 25}}, loop: true", "south: {fps: 25}}, uri: all.mp4"),
        ("from: instants, feedback", "from: {frames: instants}, feedback"),
        (", feedback: lift", ", feedback: {last: lift}"),
        (", feedback: lift", ""),
        ("{use: kit.say, from: lift}", "{use: kit.say, from: {poses: lift}}"),
        ("{use: kit.say, from: lift}", "{use: kit.say, from: {poses: lift, words: lift}}"),
    ],
)
def test_good_files_pass_both(validator: Any, tmp_path: Path, old: str, new: str) -> None:
    text = changed(old, new)
    assert [e.message for e in validator.iter_errors(yaml.safe_load(text))] == []
    assert planner_accepts(text, tmp_path)


VARIABLES = """
nodes:
  capture:
    use: kit.capture
    uri: ${CLIP:-north.mp4}
    fps: ${FPS:-30}
    loop: ${LOOP:-false}
  instants:
    use: kit.instants
    from: capture
    queue:
      size: ${SIZE:-3}
budgets:
  instants_p50_ms: ${LIMIT:-2.5}
metrics:
  bind: ${HOST:-127.0.0.1}:${PORT:-9464}
"""


def test_a_variable_stands_for_any_value(validator: Any, tmp_path: Path) -> None:
    assert [e.message for e in validator.iter_errors(yaml.safe_load(VARIABLES))] == []
    assert planner_accepts(VARIABLES, tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "want"),
    [
        ("studio: hall", "studio: 7", "not of type 'string'"),
        ("{use: kit.say, from: lift}", "{use: kit.say, from: {words: lift}}", "'poses' is a required property"),
        ("{use: kit.say, from: lift}", "{use: kit.say, from: {poses: lift, word: lift}}", "'word' was unexpected"),
        ('"127.0.0.1:9464"', "9464", "9464 is not valid under any of the given schemas"),
        ('"127.0.0.1:9464"', '"9464"', "'9464' is not valid under any of the given schemas"),
        ("sample: 0.5", "sample: 1.5", "1.5 is greater than the maximum of 1"),
        ("studio: hall", "stadio: hall", "'stadio' was unexpected"),
        ("use: kit.lift", "use: kit.lft", "kit.lft"),
        ("use: kit.lift, ", "", "'use' is a required property"),
        ("  lift: {use", "  end_to_end: {use", "end_to_end"),
        ("  lift: {use", "  a/b: {use", "a/b"),
        ("from: capture, ", "", "'from' is a required property"),
        ("from: {frames: instants, poses: lift}", "from: instants", "not of type 'object'"),
        ("from: {frames: instants, poses: lift}", "from: {frames: instants}", "'poses' is a required property"),
        ("from: {frames: instants, poses: lift}", "from: {frames: instants, poses: lift, extra: lift}", "'extra' was unexpected"),
        ("use: kit.capture, each", "use: kit.capture, from: lift, each", "'from' was unexpected"),
        ("use: kit.instants, from", "use: kit.instants, feedback: lift, from", "'feedback' was unexpected"),
        ("fps: 25", "fps: 0", "less than or equal to the minimum of 0"),
        ("fps: 25", "fps: fast", "does not match"),
        ("fps: 25", "fsp: 25", "'fsp' was unexpected"),
        ("method: svd", "method: svdd", "is not one of"),
        ("method: svd", "views: 1", "less than the minimum of 2"),
        ("corners: [{x_m: 1.5}]", "corners: [{y_m: 1.5}]", "'x_m' is a required property"),
        ("corners: [{x_m: 1.5}]", "corners: 3", "not of type 'array'"),
        ("south: {uri: south.mp4, fps: 25}", "south: {fps: 25}", "'uri' is a required property"),
        ("each: {north: north.mp4, south: {uri: south.mp4, fps: 25}}, ", "", "'uri' is a required property"),
        ("each: {north: north.mp4, south: {uri: south.mp4, fps: 25}}", "each: {}", "should be non-empty"),
        (", file: out.png", "", "'file' is a required property"),
        (", file: out.png", ", each: {a: 3}", "'file' is a required property"),
        ("queue: {size: 4}", "queue: {size: 0}", "less than the minimum of 1"),
        ("full: drop_newest", "full: drop", "is not one of"),
        ("queue: {size: 4}", "queue: 4", "not of type 'object'"),
        ("process: fast", "process: 3", "not of type 'string'"),
        ("lift_p95_ms: 18", "lift_p96_ms: 18", "does not match"),
        ("lift_p95_ms: 18", "lift_p95_ms: 0", "less than or equal to the minimum of 0"),
    ],
)
def test_bad_files_fail_both(validator: Any, tmp_path: Path, old: str, new: str, want: str) -> None:
    text = changed(old, new)

    def all_messages(errors: Any) -> list[str]:
        return [m for e in errors for m in (e.message, *all_messages(e.context))]

    messages = all_messages(validator.iter_errors(yaml.safe_load(text)))
    assert any(want in m for m in messages), messages
    assert not planner_accepts(text, tmp_path)


@pytest.mark.parametrize(("old", "new"), [("runtime: stub", "runtime: tpu"), ("runtime: stub", "speed: 3"), ("file: hall.toml, ", "")])
def test_what_the_rooms_above_check_is_in_the_schema_too(validator: Any, old: str, new: str) -> None:
    assert list(validator.iter_errors(yaml.safe_load(changed(old, new))))


def test_editors_find_descriptions_and_defaults() -> None:
    defs = schema(KIT)["$defs"]
    assert defs["kit.capture"]["properties"]["fps"]["description"] == "frames per second"
    assert defs["kit.lift"]["properties"]["views"]["default"] == 2
    assert {"const": "kit.capture", "description": "A camera."} in defs["node"]["properties"]["use"]["oneOf"]
    assert "FrameSet" in defs["kit.view"]["properties"]["from"]["description"]


def test_inspect() -> None:
    text = describe(Lift)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    for want in (
        "kit.lift",
        "Lifts.",
        "takes frames: FrameSet",
        "feedback last: Poses, the newest of a node further down",
        "gives Poses",
        "worker shared: main",
        "queue {size: 2, full: drop_oldest}",
        "method: svd | vote, default vote",
        "how",
        "views: whole number >= 2, <= 16, default 2",
        "corners: list, default []",
        "kit: {use: kit.lift, from: frames} # frames: a node that gives FrameSet",
    ):
        assert want in lines
    assert max(map(len, text.splitlines())) <= 100


def test_inspect_a_source_and_a_sink() -> None:
    source, sink = describe(Capture), describe(View)
    assert "It has a lens." in source
    assert "takes" not in source
    assert "queue" not in source
    assert "uri: text, required" in source
    assert "fps: number > 0, <= 1000, default none" in source
    assert "loop: true or false, default false" in source
    assert "kit: {use: kit.capture, uri: ...}" in source
    assert "gives     nothing (a sink)" in sink
    assert "kit: {use: kit.view, from: {frames: frames, poses: poses}, file: ...}" in sink


def test_inspect_an_input_that_may_be_left_out() -> None:
    text = describe(Say)
    assert "takes     poses: Poses\ntakes     words: Poses (may be left out)\n" in text
    assert "kit: {use: kit.say, from: poses}  # poses: a node that gives Poses" in text
    words = schema(KIT)["$defs"]["kit.say"]["properties"]["from"]["anyOf"][1]["properties"]["words"]
    assert words["description"] == "A node that gives Poses (may be left out)."


def test_the_example_of_inspect_fits_the_schema(validator: Any) -> None:
    for cls in KIT.values():
        example = re.search(r"^example\n(.*)", describe(cls), re.MULTILINE)
        assert example is not None
        assert list(validator.iter_errors({"nodes": yaml.safe_load(example[1])})) == []
