"""Which joint of a recording is which of a body, by the names that programs give them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from posepipe.pipeline.errors import SourceError

from .motion_source import Source

_STYLES: tuple[dict[str, tuple[str, ...]], ...] = (
    {"hip": ("femur",), "knee": ("tibia",), "ankle": ("foot",), "toe": ("toes",)}
    | {"collar": ("clavicle",), "shoulder": ("humerus",), "elbow": ("radius",), "wrist": ("wrist", "hand")},
    {"hip": ("upleg",), "knee": ("leg", "lowleg"), "ankle": ("foot",), "toe": ("toebase", "toe")}
    | {"collar": ("shoulder",), "shoulder": ("arm", "uparm"), "elbow": ("forearm", "lowarm"), "wrist": ("hand",)},
    {"hip": ("thigh", "upperleg"), "knee": ("shin", "calf", "lowerleg"), "ankle": ("foot",), "toe": ("toe", "ball", "toes")}
    | {"collar": ("clavicle", "shoulder"), "shoulder": ("upperarm",), "elbow": ("forearm", "lowerarm"), "wrist": ("hand",)},
    {"hip": ("hip",), "knee": ("knee",), "ankle": ("ankle",), "toe": ("toe", "foot")}
    | {"collar": ("collar",), "shoulder": ("shoulder",), "elbow": ("elbow",), "wrist": ("wrist",)},
)
"""CMU's skeletons; Mixamo, MotionBuilder and CMU's as BVH; Blender and Unreal; Poser and SMPL."""
_NEEDED = ("hip", "knee", "ankle", "shoulder", "elbow", "wrist")


@dataclass(frozen=True, slots=True)
class Roles:
    """Positions in `Source.names`. limbs: `left_knee` and so on; toe and collar only where there are some. spine: between the root and the neck, from below."""

    limbs: dict[str, int]
    spine: tuple[int, ...]
    neck: int
    head: int


def roles_of(source: Source) -> Roles:
    """By names, whatever the prefix ("mixamorig:"), case and separators. SourceError with the joints that there are when one is missing."""
    plain = {_plain(name): n for n, name in reversed(list(enumerate(source.names)))}
    best: dict[str, int] = {}
    for style in _STYLES:
        found = {
            f"{side}_{limb}": n
            for side in ("left", "right")
            for limb, words in style.items()
            for n in [_find(plain, side, words)]
            if n is not None
        }
        if _score(found) > _score(best):
            best = found
    missing = [f"{side}_{limb}" for limb in _NEEDED for side in ("left", "right") if f"{side}_{limb}" not in best]
    head = next((n for word, n in sorted(plain.items()) if word in ("head", "skull")), None)
    if missing or head is None:
        raise SourceError(
            f"no joint is recognised as {', '.join([*missing, *(['head'] if head is None else [])])}; it has {', '.join(source.names)}",
            where=source.where,
            hint="joints are known by their names in CMU's, Mixamo's, MotionBuilder's, Blender's, Unreal's and Poser's skeletons",
        )
    above = _path(source, head)
    neck = next((n for n in above if _plain(source.names[n]) in ("neck", "lowerneck", "neck1")), above[-1])
    return Roles(best, tuple(n for n in above if n in _path(source, neck)), neck, head)


def _path(source: Source, joint: int) -> list[int]:
    """From below the root to above the joint."""
    out: list[int] = []
    while (joint := source.parents[joint]) > 0:
        out.insert(0, joint)
    return out


def _score(found: dict[str, int]) -> int:
    return sum(key.partition("_")[2] in _NEEDED for key in found) * 10 + len(found)


def _find(plain: dict[str, int], side: str, words: tuple[str, ...]) -> int | None:
    for word in words:
        for pattern in (f"{side}{word}", f"{side[0]}{word}", f"{word}{side}", f"{word}{side[0]}"):
            if pattern in plain:
                return plain[pattern]
    return None


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", re.split(r"[:|]", name)[-1].lower())
