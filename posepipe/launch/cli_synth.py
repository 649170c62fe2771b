"""`posepipe synth render`: recordings of people who never were, with the truth."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

from posepipe.pipeline.errors import PosepipeError

from .arguments import positive

_WHERE = "posepipe synth render"


def add(commands: Any) -> None:
    """Add it to the command line."""
    synth = commands.add_parser("synth", help="recordings of a synthetic studio, with exact truth")
    kinds = synth.add_subparsers(metavar="render", required=True)
    render = kinds.add_parser(
        "render",
        help="draw a scene into one video a camera, a rig and the truth",
        description="Draw people in a room as several cameras see them, and write what is true of every frame beside it. "
        "The same options give the same recording on the same machine.",
    )
    render.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to make")
    render.add_argument("--seed", type=_whole(0, 2**32 - 1), default=1, metavar="N", help="chance: another seed is another scene (1)")
    render.add_argument("--cameras", type=_whole(2, 16), metavar="N", help="so many cameras around the room, 2 to 16 (4)")
    render.add_argument("--rig", type=Path, metavar="FILE", help="these cameras instead: any calibration that a studio can name")
    render.add_argument("--people", type=_whole(0, 8), default=1, metavar="N", help="so many people, 0 to 8 (1)")
    render.add_argument("--seconds", type=positive, default=4.0, metavar="N", help="how long (4)")
    render.add_argument("--fps", type=positive, default=30.0, metavar="N", help="pictures a second (30)")
    render.add_argument("--size", type=_size, metavar="WxH", help="size of the pictures of random cameras (1280x720)")
    render.add_argument("--motion", type=Path, metavar="FILE|DIR", help="clips of posepipe motion import; without: walks, reaches, squats")
    render.add_argument("--clip", action="append", default=[], metavar="NAME", help="this clip (again for the next person; else by chance)")
    render.add_argument("--maps", action="store_true", help="also the part, u, v and depth of every pixel (large)")
    render.add_argument("--furniture", type=_whole(0, 12), default=3, metavar="N", help="boxes and columns that hide people (3)")
    render.add_argument("--shake", type=_amount, default=0.0, metavar="MM", help="cameras tremble by so much; the rig does not say so (0)")
    render.add_argument("--drift", type=_amount, default=0.0, metavar="PPM", help="clocks of cameras drift by up to so much (0)")
    render.add_argument("--exposure", type=_amount, default=0.0, metavar="EV", help="cameras are brighter or darker by up to so much (0)")
    render.set_defaults(command=_render)


def _whole(least: int, most: int) -> Any:
    def number(text: str) -> int:
        if not text.isdigit() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text} is not a whole number from {least} to {most}")
        return int(text)

    return number


def _amount(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number of 0 or more")
    return value


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit() and 64 <= int(width) <= 7680 and 64 <= int(height) <= 4320):
        raise argparse.ArgumentTypeError(f"{text} is not a size such as 1280x720 (64x64 to 7680x4320)")
    if int(width) % 2 or int(height) % 2:
        raise argparse.ArgumentTypeError(f"{text}: H.264 films have even widths and heights")
    return int(width), int(height)


def _render(args: argparse.Namespace) -> int:
    if args.rig is not None and (args.size or args.cameras):
        raise PosepipeError(
            "--rig with --size or --cameras",
            where=_WHERE,
            hint="a rig says itself how many cameras there are and how large their pictures are",
        )
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from posepipe.calib.synthetic import Options, studio
    from posepipe.calib.synthetic_film import render

    options = Options(
        seed=args.seed,
        cameras=args.cameras or 4,
        rig=args.rig,
        people=args.people,
        seconds=args.seconds,
        fps=args.fps,
        size_px=args.size or (1280, 720),
        motion=args.motion,
        clips=tuple(args.clip),
        furniture=args.furniture,
        shake_mm=args.shake,
        drift_ppm=args.drift,
        exposure_ev=args.exposure,
    )
    scene = studio(options)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("instants"), TimeRemainingColumn()
    with Progress(*columns, transient=True) as bar:
        task = bar.add_task(f"drawing {len(scene.rig)} cameras", total=options.frames)
        truth = render(scene, args.out, maps=args.maps, progress=lambda done: bar.update(task, completed=done))
    seen = truth.coco17_visible.mean() * 100 if truth.coco17_visible.size else 0.0
    who = ", ".join(f"{p.clip} ({p.label or 'no label'})" for p in truth.scene.people) or "nobody"
    print(
        f"{args.out}: {len(scene.rig)} cameras, {options.frames} frames at {options.fps:g} fps, {who}; {seen:.0f} % of key points in sight"
    )
    return 0
