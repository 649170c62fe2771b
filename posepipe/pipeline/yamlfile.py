"""YAML with a memory: every value knows the line that it came from, so that a mistake can be shown where it stands."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from .errors import GraphError

Where = tuple[str, ...]
_LARGEST = 20_000
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


@dataclass(slots=True)
class YamlFile:
    """A parsed file: `value`, and the place of every path in it."""

    name: str
    value: dict[str, Any]
    text: str
    places: dict[Where, str] = field(default_factory=dict)

    def place(self, path: Where) -> str:
        """`studio.yaml:12` of a path, or of its nearest ancestor that stands in the file."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.places:
                return self.places[path[:end]]
        return self.name

    def override(self, text: str) -> None:
        """Apply one `--set nodes.smooth.min_cutoff=1.2`."""
        dotted, eq, raw = text.partition("=")
        path = tuple(dotted.split("."))
        place = f"--set {text}"
        if not eq or not all(path):
            raise GraphError("not of the form path.to.key=value", where=place, hint="for example --set nodes.smooth.min_cutoff=1.2")
        here: Any = self.value
        for depth, key in enumerate(path[:-1]):
            if not isinstance(here, dict) or key not in here:
                known = ", ".join(map(str, here)) if isinstance(here, dict) else "nothing below it"
                raise GraphError(f"there is no {'.'.join(path[: depth + 1])!r} in {self.name}", where=place, hint=f"there is: {known}")
            here = here[key]
        if not isinstance(here, dict):
            raise GraphError(f"{'.'.join(path[:-1])!r} is not a map", where=place, hint="name a key of a map, for example a node's setting")
        try:
            here[path[-1]] = _named(yaml.safe_load(raw))
        except (yaml.YAMLError, ValueError):
            raise GraphError(f"{raw!r} is not a YAML value", where=place, hint="quote it") from None
        self.places[path] = place


def _named(value: Any) -> Any:
    """The same value with names for keys, as the file has them: `{1: a.mp4}` is a camera called 1."""
    if isinstance(value, dict):
        return {str(key): _named(item) for key, item in value.items()}
    return [_named(item) for item in value] if isinstance(value, list) else value


def variables(text: str) -> set[str]:
    """Names of the environment variables that a studio file's text asks for."""
    return {match[1] for match in _VARIABLE.finditer(text)}


def load_yaml(path: Path, *, environment: Mapping[str, str] | None = None, text: str | None = None) -> YamlFile:
    """Read a studio file, or its `text` that came from elsewhere. GraphError, with the line, for what is not YAML, has a key twice, or names an unset variable."""
    try:
        text = path.read_text(encoding="utf-8") if text is None else text
    except FileNotFoundError:
        raise GraphError(
            "there is no such studio file", where=str(path), hint="give the path of a YAML file, e.g. examples/studio.yaml"
        ) from None
    except (OSError, UnicodeDecodeError) as e:
        raise GraphError(f"cannot be read: {e}", where=str(path), hint="a studio file is UTF-8 text") from None
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
    except yaml.reader.ReaderError as e:
        place = f"{path}:{text.count(chr(10), 0, e.position) + 1}"
        raise GraphError(
            f"character #x{ord(text[e.position]):02x} cannot stand in YAML", where=place, hint="a studio file is plain text"
        ) from None
    except yaml.YAMLError as e:
        mark = getattr(e, "problem_mark", None)
        line = text.splitlines()[mark.line : mark.line + 1] if mark else []
        hint = "inside { } and [ ] put ${...} in quotes" if "${" in "".join(line) else "check indentation, quotes and brackets there"
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        raise GraphError(f"not valid YAML: {getattr(e, 'problem', None) or e}", where=place, hint=hint) from None
    reader = _Reader(str(path), loader, os.environ if environment is None else environment)
    if not isinstance(root, yaml.MappingNode):
        raise GraphError("a studio file is a map with the keys studio, nodes, ...", where=str(path), hint="see examples/studio.yaml")
    value = reader.read(root, ())
    return YamlFile(str(path), value, text, reader.places)


class _Reader:
    def __init__(self, name: str, loader: yaml.SafeLoader, environment: Mapping[str, str]) -> None:
        self._name, self._loader, self._environment = name, loader, environment
        self._reading: list[yaml.Node] = []
        self.places: dict[Where, str] = {}

    def read(self, node: yaml.Node, path: Where) -> Any:
        place = f"{self._name}:{node.start_mark.line + 1}"
        self.places.setdefault(path, place)
        if len(self.places) > _LARGEST:
            raise GraphError(
                f"more than {_LARGEST} values", where=self._name, hint="aliases (*name) that hold aliases multiply; write the values out"
            )
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, place)
        if any(node is outer for outer in self._reading):
            raise GraphError("an alias (*) stands inside its own anchor (&)", where=self.places[path], hint="write the value out")
        self._reading.append(node)
        value: Any = (
            self._map(node, path)
            if isinstance(node, yaml.MappingNode)
            else [self.read(item, (*path, str(i))) for i, item in enumerate(node.value)]
        )
        self._reading.pop()
        return value

    def _map(self, node: yaml.MappingNode, path: Where) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for key_node, value_node in node.value:
            place = f"{self._name}:{key_node.start_mark.line + 1}"
            if not isinstance(key_node, yaml.ScalarNode):
                raise GraphError("a key is a list or a map", where=place, hint="keys are plain names")
            key = str(key_node.value)
            if key in out:
                first = self.places[(*path, key)].rsplit(":", 1)[1]
                raise GraphError(
                    f"{key!r} stands here twice (first in line {first})", where=place, hint="names are unique: rename one of them"
                )
            self.places[(*path, key)] = place
            out[key] = self.read(value_node, (*path, key))
        return out

    def _scalar(self, node: yaml.ScalarNode, place: str) -> Any:
        def fill(match: re.Match[str]) -> str:
            name, default = match.groups()
            value = self._environment.get(name) or default
            if value is None:
                raise GraphError(
                    f"the environment variable {name} is not set", where=place, hint=f"export {name}=..., or write ${{{name}:-default}}"
                )
            return value

        text = _VARIABLE.sub(fill, node.value)
        if text != node.value:
            # A plain scalar keeps its type (${FPS:-30} is a number), but whatever the variable holds, it stays one scalar.
            tag = self._loader.resolve(yaml.ScalarNode, text, (True, False)) if node.style is None else "tag:yaml.org,2002:str"
            node = yaml.ScalarNode(tag, text, node.start_mark, node.end_mark)
        try:
            return self._loader.construct_object(node)
        except (yaml.YAMLError, ValueError) as e:
            what = getattr(e, "problem", None) or e
            raise GraphError(f"{text!r} is not a value: {what}", where=place, hint="put it in quotes if it is text") from None
