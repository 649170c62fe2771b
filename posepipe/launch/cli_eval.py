"""The command `posepipe eval`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .arguments import positive


def add(commands: Any) -> None:
    """Add it to the command line."""
    evaluate = commands.add_parser(
        "eval",
        help="how good a recorded run is, against the truth or on its own",
        description="Compare what record.jsonl wrote with the truth of a synthetic recording, or say how steady it is (docs/eval.md).",
    )
    evaluate.add_argument("run", type=Path, metavar="RUN", help="a file of record.jsonl, or the folder that holds it")
    against = evaluate.add_mutually_exclusive_group(required=True)
    against.add_argument("--truth", type=Path, metavar="DIR", help="the synthetic recording that the run saw")
    against.add_argument("--rig", type=Path, metavar="FILE", help="no truth: the calibration of the run's cameras")
    evaluate.add_argument("--joints", choices=("body", "all"), default="body", help="shoulders to ankles, or all that have a truth (body)")
    evaluate.add_argument("--speed", type=positive, default=1.0, metavar="N", help="speed at which a live run played the recording (1)")
    evaluate.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON")
    evaluate.add_argument("--png", type=Path, metavar="FILE", help="draw them (needs posepipe[synth])")
    evaluate.set_defaults(command=_eval)


def _eval(args: argparse.Namespace) -> int:
    from .evaluating import evaluate

    return evaluate(args.run, truth=args.truth, rig=args.rig, joints=args.joints, speed=args.speed, json_file=args.json, png=args.png)
