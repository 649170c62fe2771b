"""From a studio file to something that can run: the plan, the rig, the files it names, and what has to be pulled first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import msgspec

from posepipe.calib.formats import load_rig
from posepipe.calib.rig import ImageTransform, Rig
from posepipe.engines.assets import catalogue
from posepipe.engines.assets import resolve as resolve_pulled
from posepipe.engines.engine import EngineOptions
from posepipe.nodes import Catalogue
from posepipe.pipeline.errors import GraphError, RigError, did_you_mean
from posepipe.pipeline.graph import Plan, load_plan
from posepipe.pipeline.yamlfile import Where

PULLED = "pull:"


class _Image(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    scale: float | tuple[float, float] = 1.0
    offset_px: tuple[float, float] = (0.0, 0.0)

    def transform(self) -> ImageTransform:
        return ImageTransform(self.scale if isinstance(self.scale, tuple) else (self.scale, self.scale), self.offset_px)


class _RigEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`rig: {file: ..., image: {cam01: {scale: [1.0074, 1.0074], offset_px: [0, -7.3]}}}`"""

    file: str
    image: dict[str, _Image] = {}


@dataclass(frozen=True, slots=True)
class Studio:
    """A checked studio file. `rig` is None when the file names none."""

    plan: Plan
    rig: Rig | None
    resolve: Callable[[str], Path]


def load(path: Path, *, overrides: tuple[str, ...] = (), environment: Mapping[str, str] | None = None, text: str | None = None) -> Plan:
    """The checked plan of a studio file; nothing is opened or fetched. environment, text: instead of this process's, and the file's."""
    plan = load_plan(path, Catalogue(), overrides=overrides, environment=environment, text=text)
    fields = {f.name: f for f in msgspec.structs.fields(EngineOptions)}
    for key, value in plan.engines.items():
        place = plan.file.place(("engines", key))
        if key not in fields:
            raise GraphError(f"unknown key {key!r} in engines", where=place, hint=did_you_mean(key, fields))
        try:
            msgspec.convert(value, fields[key].type)
        except msgspec.ValidationError as e:
            choices = get_args(fields[key].type) if get_origin(fields[key].type) is Literal else ()
            hint = did_you_mean(str(value), choices) if choices else f"for example engines: {{{key}: {fields[key].default!r}}}"
            raise GraphError(f"engines: {key} is {value!r}: {e}", where=place, hint=hint) from None
    _check_pulled(plan)
    return plan


def _check_pulled(plan: Plan) -> None:
    for path, text in _strings(plan.file.value):
        if text.startswith(PULLED):
            name, _, file = text.removeprefix(PULLED).partition("/")
            place = plan.file.place(path)
            if name not in catalogue():
                raise GraphError(
                    f"{text!r}: there is nothing to pull that is called {name!r}", where=place, hint=did_you_mean(name, catalogue())
                )
            files = [f.name for f in catalogue()[name].files]
            if file and file not in files:
                raise GraphError(f"{text!r}: {name} has no file {file!r}", where=place, hint=did_you_mean(file, files))


def complete(plan: Plan, *, rig_folder: Path | None = None) -> Studio:
    """The plan with its rig. RigError when the calibration cannot be read or lacks a camera. rig_folder: with what `rig_files` gave."""
    resolve = resolver(plan.folder)
    return Studio(plan, _rig(plan, resolve if rig_folder is None else lambda text: rig_folder / Path(text).name), resolve)


def rig_files(plan: Plan) -> dict[str, str]:
    """The texts of the calibration, by name: one file, or those of a folder."""
    if plan.rig is None:
        return {}
    path = resolver(plan.folder)(plan.rig if isinstance(plan.rig, str) else plan.rig["file"])
    if path.is_dir():
        return {f"{path.name}/{file.name}": file.read_text() for file in sorted(path.iterdir()) if file.is_file()}
    return {path.name: path.read_text()}


def resolver(folder: Path) -> Callable[[str], Path]:
    """How a studio file names inputs: `pull:NAME/FILE`, an absolute path, or a path beside the studio file."""

    def resolve(text: str) -> Path:
        return resolve_pulled(text) if text.startswith(PULLED) else folder / Path(text).expanduser()

    return resolve


def wanted(plan: Plan) -> list[str]:
    """Names of the models and recordings that the studio needs, in the order of the file."""
    names = dict.fromkeys(text.removeprefix(PULLED).split("/")[0] for _, text in _strings(plan.file.value) if text.startswith(PULLED))
    for node in plan.nodes:
        names.update(dict.fromkeys(n for n in node.cls.needs(node.settings) if n in catalogue()))
    return list(names)


def missing(plan: Plan) -> list[str]:
    """Those of `wanted` that are not on this machine."""
    return [n for n in wanted(plan) if not catalogue()[n].present()]


def _strings(value: Any, path: Where = ()) -> Iterator[tuple[Where, str]]:
    """Every text in the file, and where it stands."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _strings(item, (*path, key))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _strings(item, (*path, str(i)))


def _rig(plan: Plan, resolve: Callable[[str], Path]) -> Rig | None:
    if plan.rig is None:
        return None
    place = plan.file.place(("rig",))
    raw = {"file": plan.rig} if isinstance(plan.rig, str) else plan.rig
    try:
        entry = msgspec.convert(raw, _RigEntry)
    except msgspec.ValidationError as e:
        raise RigError(
            f"rig is {plan.rig!r}: {e}",
            where=place,
            hint="rig: FILE, or rig: {file: FILE, image: {cam01: {scale: [1, 1], offset_px: [0, 0]}}}",
        ) from None
    try:
        image = {name: one.transform() for name, one in entry.image.items()}
        return load_rig(resolve(entry.file), image=image).select(plan.cameras)
    except RigError as e:
        e.where = f"{place}: {e.where}" if e.where else place
        raise
