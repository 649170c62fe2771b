"""`posepipe import lifter`: a user's own checkpoint of Martinez' single-view lifter becomes an ONNX file and a card on this machine."""

from __future__ import annotations

from pathlib import Path

from .importing_common import CARD_FILE, NETWORK_FILE, facts, free_folder, keep, must_run, need_torch

LICENCE = """\
The code of the published lifter is MIT; weights and statistics made from Human3.6M fall under that data set's licence: academic research only,
no commercial use. posepipe keeps them on this machine and changes nothing about that; it holds for what they compute."""


def import_lifter(
    file: Path, *, stats_3d: Path, stats_2d: Path | None = None, max_norm: bool | None = None, name: str = "lifter.human36m"
) -> int:
    """Read a checkpoint and its statistics, write the network with both as ONNX with a card, run it once and keep it as `name`.

    max_norm: of a TensorFlow checkpoint, whether it was trained with --max_norm. Raises EngineError: torch is not installed; a file that is not
    whole, is no checkpoint, is of another network (with the first differences), or no statistics; a name that is taken or is none; a network that
    gives numbers that are not finite.
    """
    folder = free_folder(name, example="lifter.hall_2")
    need_torch(file)
    from posepipe.engines.models.lifter import official

    net = official.Published(official.load(file, max_norm=max_norm), official.statistics(stats_3d, stats_2d))
    content = official.export(net)
    text = _card(name, official.JOINTS, pixels=stats_2d is not None)
    source = file if file.is_file() else file.with_name(file.name + ".index")
    keep(folder, {NETWORK_FILE: content}, lambda: {CARD_FILE: text + facts(name, source, {NETWORK_FILE: content})}, must_run)
    takes = "pixels of the pictures that its statistics are of" if stats_2d is not None else "key points that you have normalised"
    print(f"{name}: {sum(p.numel() for p in net.net.parameters()):,} numbers from {file}")
    print(f"{name}: kept in {folder} ({len(content) / 1e6:.0f} MB); takes {takes}; docs/lifter.md says in which order")
    print(LICENCE)
    return 0


def _card(name: str, joints: tuple[str, ...], *, pixels: bool) -> str:
    unit = "pixels" if pixels else "(pixels - mean) / std of the training set"
    given = ", ".join(joint for joint in joints if joint != "neck_nose")
    return f"""\
# Made by `posepipe import lifter` from a file of the user's own.

[{name}]
kind = "model"
summary = "3D joints from the 2D joints of one view (Martinez et al. 2017, imported)"
licence = "made from Human3.6M: academic research only, no commercial use"

[{name}.inputs]
joints = {{shape = [-1, 16, 2], dtype = "float32", meaning = "{unit}: {given}"}}

[{name}.outputs]
xyz_mm = {{shape = [-1, 17, 3], dtype = "float32", meaning = "millimetres from the hip in the camera's axes: {", ".join(joints)}"}}
"""
