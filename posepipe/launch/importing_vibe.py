"""`posepipe import vibe`: a user's own checkpoints of VIBE (and of SPIN, whose features it takes) become ONNX files and cards in a folder."""

from __future__ import annotations

from pathlib import Path

from posepipe.pipeline.errors import EngineError

from .importing_common import CARD_FILE, NETWORK_FILE, facts, keep, must_run, need_torch

STEP, FEATURES = "vibe.step", "vibe.features"
FEATURES_FILE, FEATURES_CARD = "features.onnx", "features.toml"
_FURTHEST = 1e-3

LICENCE = """\
VIBE's weights are Max Planck's: for non-commercial scientific research, education or art only, not to be passed on, nor to train what is sold.
posepipe keeps them on this machine and changes nothing about that; the licences came with the files, and hold for what they compute."""


def import_vibe(checkpoint: Path, *, out: Path, spin: Path | None = None, smpl_mean: Path | None = None) -> int:
    """Read a checkpoint of VIBE, write one step of it (state in and out) as ONNX with a card into the folder `out`, and run both beside each other.

    spin: SPIN's checkpoint: its ResNet-50 is written beside it, from crops to features. smpl_mean: `smpl_mean_params.npz`, for a checkpoint without its
    mean. Raises EngineError: torch is not installed; a folder with a network in it; a file that is not whole, is no checkpoint or of another network
    (with the first differences); numbers that are not finite, or not the checkpoint's.
    """
    if (out / CARD_FILE).exists() or (out / FEATURES_CARD).exists():
        raise EngineError("there is a network in it already", where=str(out), hint="give another folder with --out, or remove this one")
    need_torch(checkpoint)
    from posepipe.engines.models.vibe import official, published

    net = official.vibe(checkpoint, mean=None if smpl_mean is None else official.smpl_mean(smpl_mean))
    files = {NETWORK_FILE: published.step_network(net)}
    if spin is not None:
        files[FEATURES_FILE] = published.features_network(official.spin(spin)[0])
    apart = 0.0

    def cards() -> dict[str, str]:
        texts = {CARD_FILE: _HEAD + _STEP_CARD + facts(STEP, checkpoint, {NETWORK_FILE: files[NETWORK_FILE]})}
        if spin is not None:
            texts[FEATURES_CARD] = _HEAD + _FEATURES_CARD + facts(FEATURES, spin, {FEATURES_FILE: files[FEATURES_FILE]})
        return texts

    def run(card: Path) -> None:
        nonlocal apart
        must_run(card)
        if card.name == CARD_FILE:
            apart = published.apart(net, card.with_name(NETWORK_FILE))
            if not apart < _FURTHEST:
                what = f"the file that was made is {apart:.1g} off the checkpoint in its rotations"
                raise EngineError(what, where=str(checkpoint), hint="compare the checkpoint's sum with the publisher's")

    keep(out, files, cards, run)
    size = sum(len(content) for content in files.values()) / 1e6
    print(f"{STEP}: {sum(p.numel() for p in net.parameters()):,} numbers from {checkpoint}; rotations as torch's to {apart:.0e}")
    print(f"{STEP}: kept in {out} ({size:.0f} MB: {', '.join(files)}); docs/vibe.md says what each takes and gives, and how to run them")
    print(LICENCE)
    return 0


_HEAD = "# Made by `posepipe import vibe` from a file of the user's own.\n\n"
_STEP_CARD = f"""\
[{STEP}]
kind = "model"
summary = "SMPL parameters of one person from features of its crops, one instant at a time (VIBE, Kocabas et al. 2020, imported)"
licence = "Max Planck: non-commercial scientific research, education or art only; not to be passed on"

[{STEP}.inputs]
features = {{shape = [-1, 2048], dtype = "float32", meaning = "of the person's crop, as SPIN's ResNet-50 gives them"}}
state = {{shape = [-1, 2, 1024], dtype = "float32", meaning = "state_after of the person's instant before; zeros for who begins"}}

[{STEP}.outputs]
theta = {{shape = [-1, 85], dtype = "float32", meaning = "camera s, tx, ty; 24 rotations as axis times angle; shape, 10"}}
rotations = {{shape = [-1, 24, 3, 3], dtype = "float32", meaning = "the same: the pelvis in the camera's axes, each bone against its parent"}}
state_after = {{shape = [-1, 2, 1024], dtype = "float32", meaning = "for the next instant"}}
"""
_FEATURES_CARD = f"""\
[{FEATURES}]
kind = "model"
summary = "features of one person's crop for VIBE (ResNet-50 of SPIN, Kolotouros et al. 2019, imported)"
licence = "code BSD-3-Clause; weights from data sets for academic research only"

[{FEATURES}.inputs]
picture = {{shape = [-1, 3, 224, 224], dtype = "float32", meaning = "a square around the person, RGB, (value - mean) / std"}}

[{FEATURES}.outputs]
features = {{shape = [-1, 2048], dtype = "float32", meaning = "mean over the picture"}}

[{FEATURES}.preprocess]
size = [224, 224]
colour = "rgb"
layout = "nchw"
dtype = "float32"
mean = [123.675, 116.28, 103.53]
std = [58.395, 57.12, 57.375]
fit = "affine"
padding = 1.1
"""
