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
            here[path[-1]] = yaml.safe_load(raw)
        except yaml.YAMLError:
            raise GraphError(f"{raw!r} is not a YAML value", where=place, hint="quote it") from None
        self.places[path] = place


def load_yaml(path: Path, *, environment: Mapping[str, str] | None = None) -> YamlFile:
    """Read a studio file. GraphError, with the line, for what is not YAML, has a key twice, or names an unset variable."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise GraphError(
            "there is no such studio file", where=str(path), hint="give the path of a YAML file, e.g. examples/studio.yaml"
        ) from None
    except (OSError, UnicodeDecodeError) as e:
        raise GraphError(f"cannot be read: {e}", where=str(path), hint="a studio file is UTF-8 text") from None
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
    except yaml.YAMLError as e:
        mark = getattr(e, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise GraphError(
            f"not valid YAML: {getattr(e, 'problem', None) or e}",
            where=f"{path}{line}",
            hint="check indentation, quotes and brackets there",
        ) from None
    reader = _Reader(str(path), loader, os.environ if environment is None else environment)
    if not isinstance(root, yaml.MappingNode):
        raise GraphError("a studio file is a map with the keys studio, nodes, ...", where=str(path), hint="see examples/studio.yaml")
    value = reader.read(root, ())
    return YamlFile(str(path), value, text, reader.places)


class _Reader:
    def __init__(self, name: str, loader: yaml.SafeLoader, environment: Mapping[str, str]) -> None:
        self._name, self._loader, self._environment = name, loader, environment
        self.places: dict[Where, str] = {}

    def read(self, node: yaml.Node, path: Where) -> Any:
        place = f"{self._name}:{node.start_mark.line + 1}"
        self.places.setdefault(path, place)
        if isinstance(node, yaml.MappingNode):
            return self._map(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.read(item, (*path, str(i))) for i, item in enumerate(node.value)]
        return self._scalar(node, place)

    def _map(self, node: yaml.MappingNode, path: Where) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            place = f"{self._name}:{key_node.start_mark.line + 1}"
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
        if node.style is None and text != node.value:
            return yaml.safe_load(text)  # a plain scalar keeps its type: ${FPS:-30} is a number
        if text != node.value:
            return text
        return self._loader.construct_object(node)
