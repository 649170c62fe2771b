"""Arguments that several commands take, and what they are refused with."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from posepipe.pipeline.telemetry import address as host_and_port


def studio_arguments(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    """The studio file, and `--set`."""
    parser.add_argument("studio", type=Path, metavar="STUDIO", nargs="?" if optional else None, help="studio file (YAML)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="overrides",
        metavar="PATH=VALUE",
        help="override a value, e.g. nodes.heatmaps.engine=blazepose.lite",
    )


def positive(text: str) -> float:
    """A number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value


def names(text: str) -> tuple[str, ...]:
    """`a,b` as a tuple; `all` is none named."""
    return () if text == "all" else tuple(filter(None, text.split(",")))


def batches(text: str) -> tuple[int, ...]:
    """`1,4,8`: numbers of pictures."""
    found = text.split(",")
    for one in found:
        if not one.isdigit() or not 1 <= int(one) <= 1024:
            raise argparse.ArgumentTypeError(f"{one or text} is not a number of pictures from 1 to 1024")
    return tuple(map(int, found))


def threads(text: str) -> int:
    """A number of threads, 0 or more."""
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text} is not a number of threads")
    return int(text)


def address(text: str) -> str:
    """HOST:PORT."""
    try:
        host_and_port(text)
    except ValueError as e:
        raise argparse.ArgumentTypeError(f"{e}, for example 127.0.0.1:9464") from None
    return text


def count(text: str) -> int:
    """A whole number."""
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text} is not a number of subscribers")
    return int(text)
