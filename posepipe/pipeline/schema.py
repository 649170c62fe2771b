"""The JSON schema of studio files, for completion and checks in editors, and the description of one node type.

Both are read off the registry, so they cannot differ from what `posepipe check` accepts. (The schema cannot see links: whether a
named node exists, or gives what is wanted, is for `posepipe check`.)
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, get_args

import msgspec

from .chaos import KINDS
from .graph import RESERVED, Registry
from .links import Full
from .node import Node, Port, Ports, Source, ports
from .packet import Frame, FrameSet
from .restart import Policy
from .telemetry import Telemetry

DRAFT = "https://json-schema.org/draft/2020-12/schema"
Schema = dict[str, Any]

_VARIABLE: Schema = {"$ref": "#/$defs/variable"}
_NUMBERS: Schema = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
_QUEUE: Schema = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "size": {"description": "Packets that may wait on each link.", "anyOf": [{"type": "integer", "minimum": 1}, _VARIABLE]},
        "full": {"description": "What a packet too many does. block: the writer waits, nothing is lost.", "enum": list(get_args(Full))},
    },
}
_RESTART: Schema = {
    "description": "What happens when the node's process dies, fails or hangs.",
    "anyOf": [
        {"enum": list(get_args(Policy))},
        {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "policy": {"description": "always: also when it ended by itself.", "enum": list(get_args(Policy))},
                "backoff_s": {"description": "First wait, doubled with every death (0.1).", "type": "number", "minimum": 0},
                "window_s": {"description": "Deaths longer ago are forgotten (60).", "type": "number", "exclusiveMinimum": 0},
                "max": {"description": "Given up after so many deaths in the window (5).", "type": "integer", "minimum": 0},
                "hang_s": {"description": "A call that lasts longer is a hang (10).", "type": "number", "exclusiveMinimum": 0},
                "open_s": {"description": "An open that lasts longer is a hang (60).", "type": "number", "exclusiveMinimum": 0},
            },
        },
    ],
}
_HOST: Schema = {
    "description": "Another machine of the cluster: a Ray resource label, or a node's name or address. Default: where posepipe run is typed.",
    "anyOf": [{"type": "string", "pattern": "^[A-Za-z0-9_][A-Za-z0-9_.:-]*$"}, _VARIABLE],
}
_WIRE: Schema = {
    "description": "How pictures travel to this node when they come from another host.",
    "anyOf": [
        {"enum": ["raw", "jpeg", "h264"]},
        {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "codec": {"description": "raw: as they are.", "enum": ["raw", "jpeg", "h264"]},
                "quality": {"description": "Of jpeg and h264 (80).", "type": "integer", "minimum": 1, "maximum": 100},
            },
        },
    ],
}
_RIG: Schema = {
    "description": "The calibration: a file beside the studio file, or a map with the file and how footage was rescaled after the calibration.",
    "anyOf": [
        {"type": "string", "minLength": 1},
        {
            "type": "object",
            "required": ["file"],
            "additionalProperties": False,
            "properties": {
                "file": {"type": "string", "minLength": 1, "description": "Calibration file; its format is recognised."},
                "image": {
                    "description": "Camera -> transform of its footage: u_calibration = scale * u_video + offset_px, the same for v.",
                    "type": "object",
                    "additionalProperties": {
                        "type": "object",
                        "additionalProperties": False,
                        "properties": {"scale": {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, _NUMBERS]}, "offset_px": _NUMBERS},
                    },
                },
            },
        },
    ],
}


def schema(registry: Registry, *, engines: type[msgspec.Struct] | None = None) -> Schema:
    """JSON schema (draft 2020-12) of a studio file with these node types. engines: the options that `engines:` takes (None: any)."""
    defs: Schema = {
        "variable": {"type": "string", "pattern": r"\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?\}", "description": "${VAR} or ${VAR:-default}"}
    }
    uses = sorted(registry)
    for use in uses:
        defs[use] = _node(registry[use], defs)
    chosen = [{"if": {"required": ["use"], "properties": {"use": {"const": use}}}, "then": {"$ref": f"#/$defs/{use}"}} for use in uses]
    named = {"oneOf": [{"const": use, "description": _first_line(registry[use])} for use in uses]}
    defs["node"] = {"type": "object", "required": ["use"], "properties": {"use": named}, "allOf": chosen}
    budget = {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, _VARIABLE]}
    return {
        "$schema": DRAFT,
        "title": "posepipe studio",
        "type": "object",
        "required": ["nodes"],
        "additionalProperties": False,
        "properties": {
            "studio": {"type": "string", "minLength": 1, "description": "Name of the studio, part of every topic that it publishes."},
            "rig": _RIG,
            "truth": {
                "type": "string",
                "minLength": 1,
                "description": "The synthetic recording that the cameras play: the summary of an offline run says how far off it was.",
            },
            "nodes": {
                "description": "Name -> node. `from` joins them into a graph.",
                "type": "object",
                "minProperties": 1,
                "propertyNames": {"pattern": r"^[^/.]+$", "not": {"const": "end_to_end"}},
                "additionalProperties": {"$ref": "#/$defs/node"},
            },
            "engines": _struct(engines, "engines", defs) if engines else {"type": "object"},
            "budgets": {
                "description": "NODE_p95_ms: the most that a node may take; end_to_end_p95_ms: from capture to publishing. p50, p95 or p99.",
                "type": "object",
                "patternProperties": {"^.+_(p50|p95|p99)_ms$": budget},
                "additionalProperties": False,
            },
            "metrics": {**_struct(Telemetry, "metrics", defs), "description": "Where the studio is seen from outside.", "minProperties": 1},
            "chaos": {
                "description": "Harm that posepipe chaos does to the studio, and the recovery that is expected. posepipe run leaves it alone.",
                "type": "array",
                "items": {"anyOf": [_struct(cls, "chaos", defs) for cls in KINDS.values()]},
            },
        },
        "$defs": defs,
    }


def _struct(struct: type[msgspec.Struct], prefix: str, defs: Schema) -> Schema:
    """The schema of a struct; structs inside it go to `defs` under names that begin with `prefix`."""
    (ref,), components = msgspec.json.schema_components([struct], ref_template=f"#/$defs/{prefix}:{{name}}")
    own = ref["$ref"].rpartition(":")[2]
    defs.update({f"{prefix}:{name}": body for name, body in components.items() if name != own})
    body: Schema = components[own]
    body.pop("title", None)
    body["properties"] = {name: _setting(field) for name, field in body["properties"].items()}
    return body


def _setting(field: Schema) -> Schema:
    """One setting: a value of its type, or a ${VARIABLE} that becomes one; the description where editors look for it."""
    out = {key: field[key] for key in ("description", "default") if key in field}
    inner = {key: value for key, value in field.items() if key not in out}
    options = inner["anyOf"] if set(inner) == {"anyOf"} else [inner]
    for option in options:
        out.setdefault("description", option.get("description", ""))
    options = [{k: v for k, v in option.items() if k != "description"} for option in options]
    if not any(option.get("type") == "string" and not {"enum", "pattern"} & set(option) for option in options):
        options = [*options, _VARIABLE]
    if not out["description"]:
        del out["description"]
    return {**out, **(options[0] if len(options) == 1 else {"anyOf": options})}


def _node(cls: type[Node], defs: Schema) -> Schema:
    """A node of one type: its settings and the reserved keys."""
    settings = _struct(cls.Settings, cls.use, defs)
    fields, required = settings["properties"], settings["required"]
    takes = ports(cls)
    entry: Schema = {"type": "object", "properties": {"host": _HOST, **fields}, "additionalProperties": False}
    first = next(iter(fields.values()), None)
    reserved: Schema = {
        "use": {"const": cls.use},
        "each": {
            "description": "One node for every entry: its name (a camera's name) -> its own settings, or just its first setting.",
            "type": "object",
            "minProperties": 1,
            "additionalProperties": {"anyOf": [entry, first]} if first else entry,
        },
        "queue": {**_QUEUE, "description": f"What may wait for this node. Default {_queue(cls)}."},
        "process": {"type": "string", "description": f"Worker: own, or a name that several nodes share. Default {_place(cls)}."},
    }
    reserved |= {"restart": _RESTART, "host": _HOST}
    if any(p.type in (Frame, FrameSet) for p in takes.inputs):
        reserved["wire"] = _WIRE
    if takes.inputs:
        reserved["from"] = _links(takes.inputs, needed=True)
    if takes.feedback:
        reserved["feedback"] = _links(takes.feedback, needed=False)
    assert set(reserved) <= set(RESERVED)
    out: Schema = {
        "description": _doc(cls),
        "type": "object",
        "required": ["use", *(["from"] if takes.inputs else [])],
        "properties": {**reserved, **fields},
        "additionalProperties": False,
    }
    if required:
        out["allOf"] = [_given(key, in_plain_entry=key == next(iter(fields))) for key in required]
    return out


def _given(key: str, *, in_plain_entry: bool) -> Schema:
    """A required setting stands on the node or in every entry of `each`; an entry that is not a map is the first setting."""
    entry: Schema = {"required": [key]} if in_plain_entry else {"type": "object", "required": [key]}
    return {"anyOf": [{"required": [key]}, {"required": ["each"], "properties": {"each": {"additionalProperties": entry}}}]}


def _links(inputs: tuple[Port, ...], *, needed: bool) -> Schema:
    """`from:` or `feedback:`: a node's name when there is one port, or a map from ports to names."""
    names: Schema = {p.name: {"type": "string", "description": f"A node that gives {_given_by(p)}."} for p in inputs}
    ports_map: Schema = {"type": "object", "properties": names, "additionalProperties": False, "minProperties": 1}
    if needed:
        ports_map["required"] = [p.name for p in inputs if not p.optional]
    text = "; ".join(f"{p.name}: a node that gives {_given_by(p)}" for p in inputs)
    single = [{"type": "string"}] if not needed or len(ports_map["required"]) == 1 else []
    return {"description": text, "anyOf": [*single, ports_map]}


def _given_by(port: Port) -> str:
    return f"{port.type.__name__}{' (may be left out)' if port.optional else ''}"


def _queue(cls: type[Node]) -> str:
    size, full = cls.default_queue
    return f"{{size: {size}, full: {full}}}"


def _place(cls: type[Node]) -> str:
    return "own" if cls.own_process else "main"


def _doc(cls: type[Node]) -> str:
    return inspect.cleandoc(cls.doc or cls.__doc__ or "")


def _first_line(cls: type[Node]) -> str:
    return _doc(cls).partition("\n")[0]


# posepipe inspect -----------------------------------------------------------------------------------------------------------


def describe(cls: type[Node]) -> str:
    """What a node type does, takes and gives, its settings, and a line of YAML to start from."""
    takes = ports(cls)
    blocks = [f"{cls.use}\n", f"{_filled(_doc(cls), 2)}\n", *_port_lines(cls, takes)]
    fields = _struct(cls.Settings, cls.use, {})
    if fields["properties"]:
        lines = [line for name, field in fields["properties"].items() for line in _setting_lines(name, field, name in fields["required"])]
        blocks += ["\nsettings", *lines]
    return "\n".join([*blocks, "\nexample", f"  {_example(cls, takes, fields)}"])


def _port_lines(cls: type[Node], takes: Ports) -> Iterator[str]:
    for port in takes.inputs:
        yield f"takes     {port.name}: {_given_by(port)}{' of several nodes' if cls.fan_in else ''}"
    for port in takes.feedback:
        yield f"feedback  {port.name}: {port.type.__name__}, the newest of a node further down"
    yield f"gives     {takes.output.__name__ if takes.output else 'nothing (a sink)'}"
    yield f"worker    {'one of its own' if cls.own_process else 'shared: main'}"
    if not issubclass(cls, Source):
        yield f"queue     {_queue(cls)}"


def _setting_lines(name: str, field: Schema, required: bool) -> Iterator[str]:
    default = "required" if required else f"default {_plain(field.get('default'))}"
    yield f"  {name}: {_type(field)}, {default}"
    if "description" in field:
        yield _filled(field["description"], 6)


def _filled(text: str, indent: int) -> str:
    """Paragraphs at 98 columns."""
    space = " " * indent
    return "\n\n".join(textwrap.fill(p, 98, initial_indent=space, subsequent_indent=space) for p in text.split("\n\n"))


def _type(field: Schema) -> str:
    options = [o for o in field.get("anyOf", [field]) if o != _VARIABLE and o.get("type") != "null"]
    return " or ".join(map(_one_type, options))


def _one_type(option: Schema) -> str:
    if "enum" in option:
        return " | ".join(map(str, option["enum"]))
    words = {"string": "text", "integer": "whole number", "boolean": "true or false", "array": "list", "object": "map"}
    kind = option.get("type", "map")
    limits = (("exclusiveMinimum", ">"), ("minimum", ">="), ("exclusiveMaximum", "<"), ("maximum", "<="))
    bounds = ", ".join(f"{sign} {option[key]:g}" for key, sign in limits if key in option)
    return f"{words.get(kind, kind)} {bounds}".rstrip()


def _plain(value: Any) -> str:
    """As it would stand in YAML."""
    if value is None or value == "":
        return "none"
    if isinstance(value, tuple):
        return str(list(value))
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _example(cls: type[Node], takes: Ports, fields: Mapping[str, Any]) -> str:
    parts = [f"use: {cls.use}"]
    if len(takes.needed) == 1:
        parts.append(f"from: {takes.needed[0].name}")
    elif takes.needed:
        parts.append(f"from: {{{', '.join(f'{p.name}: {p.name}' for p in takes.needed)}}}")
    parts += [f"{name}: ..." for name in fields["required"]]
    comment = "; ".join(f"{p.name}: a node that gives {p.type.__name__}" for p in takes.needed)
    return f"{cls.use.partition('.')[0]}: {{{', '.join(parts)}}}" + (f"  # {comment}" if comment else "")
