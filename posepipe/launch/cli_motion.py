"""The command about recorded motion: `posepipe motion import`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .arguments import positive


def add(commands: Any) -> None:
    """Add it to the command line."""
    motion = commands.add_parser("motion", help="recorded human motion, for the synthetic studio and for training")
    kinds = motion.add_subparsers(metavar="import", required=True)
    importing = kinds.add_parser(
        "import",
        help="make clips of BVH, or of AMC with its ASF skeleton",
        description="Read recordings of other programs and write a folder of clips, which synth and train read. The folder stays on this machine.",
    )
    importing.add_argument("files", nargs="+", type=Path, metavar="FILE", help=".bvh or .amc files; each becomes a clip with its name")
    importing.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write: motion.npz and clips.json")
    importing.add_argument("--skeleton", type=Path, metavar="FILE.asf", help="the skeleton of the .amc files")
    importing.add_argument("--label", default="", metavar="TEXT", help="what is done in them, e.g. walking")
    importing.add_argument("--fps", type=positive, default=30.0, metavar="HZ", help="instants a second of the clips (30)")
    importing.add_argument(
        "--amc-rate", type=positive, default=120.0, metavar="HZ", help="instants a second of .amc files, which do not say (120)"
    )
    importing.add_argument(
        "--scale", type=positive, metavar="METRES", help="metres per unit of the files (found out from the length of the legs)"
    )
    importing.set_defaults(command=_import)


def _import(args: argparse.Namespace) -> int:
    from posepipe.calib.motion import read_motion
    from posepipe.calib.motion_import import must_be_new, read_recording, write_motion

    must_be_new(args.out)
    clips = []
    for file in args.files:
        clips.append(
            read_recording(file, skeleton=args.skeleton, label=args.label, amc_hz=args.amc_rate, unit_m=args.scale or 0.0, fps=args.fps)
        )
        print(f"{file}: {len(clips[-1].joints24_m)} instants, {len(clips[-1].joints24_m) / args.fps:.1f} s", flush=True)
    write_motion(clips, args.out, sources=[file.name for file in args.files])
    usable = read_motion(args.out)
    seconds = sum(len(clip.joints24_m) / clip.fps for clip in usable.values())
    print(f"{args.out}: {len(clips)} recordings, {len(usable)} clips without jumps, {seconds:.0f} s in all")
    return 0
