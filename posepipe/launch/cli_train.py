"""The command `posepipe train`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .arguments import positive


def add(commands: Any) -> None:
    """Add it to the command line."""
    train = commands.add_parser("train", help="train a network on motion, without pictures")
    kinds = train.add_subparsers(metavar="NETWORK", required=True)
    one = kinds.add_parser(
        "triangulation",
        help="the slim volumetric network of lift.volumetric",
        description="Draw people from motion, see them with random cameras through a detector's errors, and train. Goes on where it stopped.",
    )
    _common(one, steps=15_000)
    one.set_defaults(command=_triangulation)
    one = kinds.add_parser(
        "lifter",
        help="the lifter of lift.baseline, which makes do with one view",
        description="Draw people from motion, see them with one random camera, and train. Goes on where it stopped.",
    )
    _common(one, steps=40_000, draws=False)
    one.add_argument(
        "--recipe", choices=("live", "published"), default="live", help="the form for studios, or the paper's, to compare (live)"
    )
    one.add_argument("--width", type=int, default=512, metavar="N", help="neurons of a layer of the live form (512)")
    one.set_defaults(command=_lifter)
    one = kinds.add_parser(
        "vibe",
        help="the network of smooth.vibe",
        description="Draw people who move before random cameras, triangulate what a detector would see of them, and train. Goes on where it stopped.",
    )
    _common(one, steps=4_000)
    one.add_argument("--sequences", type=int, default=10_000, metavar="N", help="sequences to draw, 100 instants each (10000)")
    one.set_defaults(command=_vibe)
    _action_arguments(
        kinds.add_parser(
            "action",
            help="a network of classify.action, from labelled motion or from your own recordings",
            description="Learn what people do from recordings of record.jsonl with NAME.csv beside NAME.jsonl (start_s,end_s,label), or from "
            "labelled motion. Some recordings are kept out to judge by. Goes on where it stopped.",
        )
    )
    one = kinds.add_parser(
        "confidence",
        help="how far lift.algebraic believes every view (weights: triangulation.confidence)",
        description="Draw people from motion, see them with random cameras through a detector's errors, and train through the triangulation.",
    )
    _in_and_out(one, "the network goes here")
    one.add_argument("--examples", type=int, default=60_000, metavar="N", help="people to draw (60000; 25 kB of memory each)")
    one.add_argument("--seed", type=int, default=1)
    one.set_defaults(command=_confidence)
    one = kinds.add_parser(
        "posture",
        help="what the whole body says of every joint (posture: true of lift.volumetric)",
        description="Draw people from motion, take them the way of lift.volumetric, and learn what is still wrong with them.",
    )
    _in_and_out(one, "the network goes here")
    one.add_argument("--examples", type=int, default=80_000, metavar="N", help="people to draw (80000)")
    one.add_argument("--workers", type=int, default=1, metavar="N", help="processes that draw them (1)")
    one.add_argument("--engine", default="triangulation.slim", metavar="NAME", help="the network in the cube (triangulation.slim)")
    one.add_argument("--seed", type=int, default=1)
    one.set_defaults(command=_posture)


def _action_arguments(one: argparse.ArgumentParser) -> None:
    source = one.add_mutually_exclusive_group(required=True)
    source.add_argument("--recordings", type=Path, metavar="DIR", help="recordings (NAME.jsonl) with their labels (NAME.csv)")
    source.add_argument("--motion", type=Path, metavar="DIR", help="motion with labels, as `posepipe motion import` writes it")
    one.add_argument("--out", type=Path, required=True, metavar="DIR", help="checkpoint, curves, network and card go here")
    one.add_argument("--name", default="my.actions", metavar="A.B", help="what the card calls the network (my.actions)")
    one.add_argument(
        "--begin-with", default="", metavar="NAME", help="a trained network to begin with: action.skeleton, or other/card.toml (none)"
    )
    one.add_argument("--steps", type=int, default=700, metavar="N", help="length of the whole training (700)")
    one.add_argument("--width", type=int, default=36, metavar="N", help="features of a layer (36, or as what it begins with)")
    _limits(one)
    one.set_defaults(command=_action)


def _common(one: argparse.ArgumentParser, *, steps: int, draws: bool = True) -> None:
    _in_and_out(one, "checkpoint, curves and network go here")
    one.add_argument("--steps", type=int, default=steps, metavar="N", help=f"length of the whole training ({steps})")
    if draws:
        one.add_argument("--workers", type=int, default=1, metavar="N", help="processes that draw samples (1)")
    _limits(one)


def _limits(one: argparse.ArgumentParser) -> None:
    one.add_argument("--minutes", type=positive, metavar="M", help="stop after so long; the same command goes on from there")
    one.add_argument("--threads", type=int, default=1, metavar="N", help="threads of the training itself (1)")
    one.add_argument("--seed", type=int, default=1)
    one.add_argument("--fresh", action="store_true", help="begin anew, whatever DIR holds")


def _in_and_out(one: argparse.ArgumentParser, out: str) -> None:
    one.add_argument(
        "--motion", type=Path, required=True, metavar="DIR", help="motion to learn from, as `posepipe motion import` writes it"
    )
    one.add_argument("--out", type=Path, required=True, metavar="DIR", help=out)


def _triangulation(args: argparse.Namespace) -> int:
    from .training import triangulation

    triangulation(
        args.motion, args.out, steps=args.steps, minutes=args.minutes, workers=args.workers, threads=args.threads, seed=args.seed,
        fresh=args.fresh,
    )  # fmt: skip
    return 0


def _lifter(args: argparse.Namespace) -> int:
    from .training_lifter import lifter

    lifter(
        args.motion, args.out, recipe=args.recipe, width=args.width, steps=args.steps, minutes=args.minutes, threads=args.threads,
        seed=args.seed, fresh=args.fresh,
    )  # fmt: skip
    return 0


def _vibe(args: argparse.Namespace) -> int:
    from .training_vibe import vibe

    vibe(
        args.motion, args.out, steps=args.steps, minutes=args.minutes, count=args.sequences, workers=args.workers, threads=args.threads,
        seed=args.seed, fresh=args.fresh,
    )  # fmt: skip
    return 0


def _action(args: argparse.Namespace) -> int:
    from .training_action import action

    action(
        args.motion, args.recordings, args.out, name=args.name, begin_with=args.begin_with, steps=args.steps, width=args.width,
        minutes=args.minutes, threads=args.threads, seed=args.seed, fresh=args.fresh,
    )  # fmt: skip
    return 0


def _posture(args: argparse.Namespace) -> int:
    from .training_posture import from_motion

    from_motion(args.motion, args.out, examples=args.examples, seed=args.seed, engine=args.engine, workers=args.workers)
    return 0


def _confidence(args: argparse.Namespace) -> int:
    from .training_confidence import from_motion

    from_motion(args.motion, args.out, examples=args.examples, seed=args.seed)
    return 0
