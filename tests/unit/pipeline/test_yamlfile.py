"""Every value of a studio file knows its line, and nothing that a text editor can produce ends in a traceback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from posepipe.pipeline.errors import GraphError
from posepipe.pipeline.yamlfile import YamlFile, load_yaml


@pytest.fixture
def read(tmp_path: Path) -> Any:
    def read(text: str | bytes, **environment: str) -> YamlFile:
        file = tmp_path / "hall.yaml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_yaml(file, environment=environment)

    return read


def refused(read: Any, text: str | bytes, **environment: str) -> str:
    """The message, with the folder cut off."""
    with pytest.raises(GraphError) as caught:
        read(text, **environment)
    head, _, rest = str(caught.value).partition("hall.yaml")
    assert not head or head.endswith("/")
    return "hall.yaml" + rest


FILE = """\
studio: hall

nodes:
  capture:
    use: capture.video
    each: {north: n.mp4,
           south: s.mp4}
  list:
    - one
    - two: 2
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ((), 1),
        (("studio",), 1),
        (("nodes",), 3),
        (("nodes", "capture"), 4),
        (("nodes", "capture", "use"), 5),
        (("nodes", "capture", "each", "north"), 6),
        (("nodes", "capture", "each", "south"), 7),
        (("nodes", "list", "1"), 10),
        (("nodes", "list", "1", "two"), 10),
        (("nodes", "capture", "each", "south", "fps"), 7),
        (("nodes", "smooth", "beta"), 3),
        (("budgets",), 1),
    ],
)
def test_every_path_has_its_line_or_that_of_its_nearest_ancestor(read: Any, path: tuple[str, ...], line: int) -> None:
    assert read(FILE).place(path).endswith(f"hall.yaml:{line}")


def test_values_have_the_types_of_yaml_and_keys_are_names(read: Any) -> None:
    text = "a: 1\nb: 2.5\nc: true\nd: 'true'\ne: ~\nf: [1, x]\n7: seven\nyes: no\n"
    assert read(text).value == {"a": 1, "b": 2.5, "c": True, "d": "true", "e": None, "f": [1, "x"], "7": "seven", "yes": False}


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]))
)
names = st.text(st.characters(codec="ascii", categories=["Ll", "Nd"]), min_size=1, max_size=8)


@given(
    st.dictionaries(
        names,
        st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=8),
        min_size=1,
    )
)
def test_it_reads_what_yaml_reads(tmp_path_factory: pytest.TempPathFactory, value: dict[str, Any]) -> None:
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_text(yaml.safe_dump(value, allow_unicode=True), encoding="utf-8")
    if "${" not in file.read_text(encoding="utf-8"):
        assert load_yaml(file, environment={}).value == value


# variables ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "environment", "want"),
    [
        ("${FPS:-30}", {}, 30),
        ("${FPS:-30}", {"FPS": "59.94"}, 59.94),
        ("${FPS:-30}", {"FPS": ""}, 30),
        ("${ON:-true}", {}, True),
        ("${X:-}", {}, None),
        ("'${FPS:-30}'", {}, "30"),
        ('"${FPS:-30}"', {"FPS": "25"}, "25"),
        ("tcp://127.0.0.1:${PORT:-5570}", {}, "tcp://127.0.0.1:5570"),
        ("${HOST}:${PORT:-1}", {"HOST": "a", "PORT": "2"}, "a:2"),
        ("[1, '${A}']", {"A": "2"}, [1, "2"]),
        # what a variable holds is one value, whatever it looks like
        ("${A}", {"A": "*:5570"}, "*:5570"),
        ("${A}", {"A": "b: [c, d"}, "b: [c, d"),
        ("${A}", {"A": "@host #1"}, "@host #1"),
        ("${A}", {"A": "${B}"}, "${B}"),
        ("$A and $${A}", {"A": "x"}, "$A and $x"),
        ("${1A}", {}, "${1A}"),
    ],
)
def test_variables(read: Any, text: str, environment: dict[str, str], want: Any) -> None:
    got = read(f"a: {text}\n", **environment).value["a"]
    assert got == want
    assert type(got) is type(want)


def test_an_unset_variable_is_refused_at_its_line(read: Any) -> None:
    assert refused(read, "studio: hall\nrig: ${RIG}\n") == (
        "hall.yaml:2: the environment variable RIG is not set\n  -> export RIG=..., or write ${RIG:-default}"
    )


def test_the_environment_of_the_process_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.yaml").write_text("a: ${POSEPIPE_TEST_VALUE}\n")
    monkeypatch.setenv("POSEPIPE_TEST_VALUE", "12")
    assert load_yaml(tmp_path / "a.yaml").value == {"a": 12}


# what is not a studio file ----------------------------------------------------------------------------------------------------

NOT_YAML = "hall.yaml:{}: not valid YAML: {}\n  -> check indentation, quotes and brackets there"
NO_MAP = "hall.yaml: a studio file is a map with the keys studio, nodes, ...\n  -> see examples/studio.yaml"
QUOTE = "\n  -> put it in quotes if it is text"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", NO_MAP),
        ("# only this\n", NO_MAP),
        ("- a\n- b\n", NO_MAP),
        ("studio\n", NO_MAP),
        ("a: 1\nb: [1, 2\n", NOT_YAML.format(3, "expected ',' or ']', but got '<stream end>'")),
        ("a: 1\nb: 'open\n", NOT_YAML.format(3, "found unexpected end of stream")),
        ("a:\n\tb: 1\n", NOT_YAML.format(2, "found character '\\t' that cannot start any token")),
        ("a: 1\n b: 2\n", NOT_YAML.format(2, "mapping values are not allowed here")),
        ("a: 1\n---\nb: 2\n", NOT_YAML.format(2, "but found another document")),
        ("a: {b: ${C}}\n", "hall.yaml:1: not valid YAML: expected ',' or '}', but got '{'\n  -> inside { } and [ ] put ${...} in quotes"),
        ("a: *nobody\n", NOT_YAML.format(1, "found undefined alias 'nobody'")),
        ("a: 1\nb: x\x01y\n", "hall.yaml:2: character #x01 cannot stand in YAML\n  -> a studio file is plain text"),
        (
            b"\xff\xfe\x00",
            "hall.yaml: cannot be read: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte\n  -> a studio file is UTF-8 text",
        ),
        (
            "a: 1\nb: !include x.yaml\n",
            f"hall.yaml:2: 'x.yaml' is not a value: could not determine a constructor for the tag '!include'{QUOTE}",
        ),
        ("day: 2024-13-45\n", f"hall.yaml:1: '2024-13-45' is not a value: month must be in 1..12{QUOTE}"),
        ("a: &a\n  b: *a\n", "hall.yaml:2: an alias (*) stands inside its own anchor (&)\n  -> write the value out"),
        ("? [a, b]\n: 1\n", "hall.yaml:1: a key is a list or a map\n  -> keys are plain names"),
        ("a: 1\nb: {c: 1,\n    c: 2}\n", "hall.yaml:3: 'c' stands here twice (first in line 2)\n  -> names are unique: rename one of them"),
    ],
)
def test_what_is_not_a_studio_file_is_refused(read: Any, text: str | bytes, message: str) -> None:
    assert refused(read, text) == message


def test_an_anchor_used_twice_is_no_mistake(read: Any) -> None:
    file = read("a: &a {x: 1}\nb: *a\nc: *a\n")
    assert file.value == {"a": {"x": 1}, "b": {"x": 1}, "c": {"x": 1}}
    assert file.place(("c",)).endswith(":3")


def test_a_byte_order_mark_is_no_mistake(read: Any) -> None:
    assert read("\ufeffstudio: hall\n").value == {"studio": "hall"}


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match=r"there is no such studio file\n  -> give the path of a YAML file, e\.g\. examples/studio\.yaml"):
        load_yaml(tmp_path / "none.yaml")
    with pytest.raises(GraphError, match=r"cannot be read: .*Is a directory"):
        load_yaml(tmp_path)


# --set ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "path", "want"),
    [
        ("studio=yard", ("studio",), "yard"),
        ("nodes.capture.fps=29.97", ("nodes", "capture", "fps"), 29.97),
        ("nodes.capture.each.north=x=y.mp4", ("nodes", "capture", "each", "north"), "x=y.mp4"),
        ("nodes.capture.each={1: a.mp4, 2: b.mp4}", ("nodes", "capture", "each"), {"1": "a.mp4", "2": "b.mp4"}),
        ("nodes.list=[1, {2: 3}]", ("nodes", "list"), [1, {"2": 3}]),
        ("nodes.capture.fps=", ("nodes", "capture", "fps"), None),
        ("rig=r.toml", ("rig",), "r.toml"),
    ],
)
def test_set_overrides_and_is_the_place_of_its_value(read: Any, text: str, path: tuple[str, ...], want: Any) -> None:
    file = read(FILE)
    file.override(text)
    value: Any = file.value
    for key in path:
        value = value[key]
    assert value == want
    assert file.place(path) == f"--set {text}"
    assert file.place(("nodes", "capture", "use")).endswith("hall.yaml:5")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("studio", "--set studio: not of the form path.to.key=value\n  -> for example --set nodes.smooth.min_cutoff=1.2"),
        ("=1", "--set =1: not of the form path.to.key=value\n  -> for example --set nodes.smooth.min_cutoff=1.2"),
        ("a..b=1", "--set a..b=1: not of the form path.to.key=value\n  -> for example --set nodes.smooth.min_cutoff=1.2"),
        ("nodes.smoth.beta=1", "--set nodes.smoth.beta=1: there is no 'nodes.smoth' in FILE\n  -> there is: capture, list"),
        ("studio.x.y=1", "--set studio.x.y=1: there is no 'studio.x' in FILE\n  -> there is: nothing below it"),
        ("studio.x=1", "--set studio.x=1: 'studio' is not a map\n  -> name a key of a map, for example a node's setting"),
        ("rig=[1", "--set rig=[1: '[1' is not a YAML value\n  -> quote it"),
        ("rig=2024-13-45", "--set rig=2024-13-45: '2024-13-45' is not a YAML value\n  -> quote it"),
    ],
)
def test_set_refuses(read: Any, text: str, message: str) -> None:
    file = read(FILE)
    with pytest.raises(GraphError) as caught:
        file.override(text)
    assert str(caught.value).replace(file.name, "FILE") == message
