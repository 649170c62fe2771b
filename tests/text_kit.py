"""Cards and studio files as text: what the tests of several rooms write down, and change where they must be refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

HALL = """\
studio: hall
rig: hall.rig.toml
nodes:
  capture:
    use: capture.video
    each:
      north: north.mp4
      east: east.mp4
  instants: {use: sync.instant, from: capture}
  heatmaps: {use: heatmap.topdown, from: instants, engine: stub}
"""


def card(
    outputs: Mapping[str, Sequence[int]],
    decoder: str,
    *,
    size: tuple[int, int],
    preprocess: str = "",
    file: str = "",
    summary: str = "joints of one person",
) -> str:
    """A card of `mine.net` for joints of coco17. size: width and height; decoder, preprocess, file: lines that are added to their tables."""
    wide, high = size
    named = "".join(f'{name} = {{shape = {list(shape)}, dtype = "float32"}}\n' for name, shape in outputs.items())
    return f"""
[mine.net]
kind = "model"
summary = "{summary}"
licence = "MIT"
skeleton = "coco17"
[[mine.net.files]]
name = "net.onnx"
{file}[mine.net.inputs]
input = {{shape = [-1, 3, {high}, {wide}], dtype = "float32"}}
[mine.net.outputs]
{named}[mine.net.preprocess]
size = [{wide}, {high}]
layout = "nchw"
dtype = "float32"
{preprocess}[mine.net.decoder]
{decoder}
"""


MEAN_AND_STD = "mean = [123.675, 116.28, 103.53]\nstd = [58.395, 57.12, 57.375]\n"
BOX = 'fit = "affine"\npadding = 1.25\n'


def simcc_card(file: str = "") -> str:
    """A card with the signature of RTMPose."""
    outputs = {"simcc_x": (-1, 17, 384), "simcc_y": (-1, 17, 512)}
    return card(outputs, 'kind = "simcc"', size=(192, 256), preprocess=MEAN_AND_STD + BOX, file=file)
