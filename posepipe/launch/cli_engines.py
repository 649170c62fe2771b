"""The commands about networks: `posepipe build`, `import`, `engines list|gc|verify|quantize`."""

from __future__ import annotations

import argparse
from pathlib import Path
from types import ModuleType
from typing import Any

from .arguments import names, positive, studio_arguments


def add(commands: Any) -> None:
    """Add them to the command line."""
    _importing(commands)
    build = commands.add_parser(
        "build",
        help="compile a studio's networks ahead of time",
        description="Compile every network that a studio file needs for the runtime that it names, and keep what was compiled.",
    )
    studio_arguments(build)
    build.add_argument("--for", dest="targets", metavar="GPU,...", help="for these GPUs, e.g. sm89,sm120, with TensorRT: none need be here")
    build.set_defaults(command=_build)
    _engines(commands)


def _engines(commands: Any) -> None:
    engines = commands.add_parser("engines", help="compiled networks on this machine")
    kinds = engines.add_subparsers(metavar="COMMAND", required=True)
    listing = kinds.add_parser("list", help="what is kept: network, runtime, precision, device, files, size, last used")
    listing.set_defaults(command=lambda a: _building().show())
    gc = kinds.add_parser("gc", help="remove what no network and no runtime that is here uses any more")
    which = gc.add_mutually_exclusive_group()
    which.add_argument("--days", type=positive, metavar="N", help="also what was not used for N days")
    which.add_argument("--all", action="store_true", help="everything: the next start compiles anew")
    gc.set_defaults(command=lambda a: _building().gc(days=a.days, everything=a.all))
    _verifying(kinds)


def _verifying(kinds: Any) -> None:
    verify = kinds.add_parser(
        "verify",
        help="do faster precisions still see the same key points?",
        description="Compare runtimes and precisions with ONNX Runtime fp32 on real pictures. Exit 1: one moves key points too far.",
    )
    verify.add_argument("--runtime", type=names, default=(), metavar="all|NAME,...", help="these runtimes (all)")
    verify.add_argument("--precision", type=names, default=(), metavar="all|NAME,...", help="these precisions (all)")
    verify.set_defaults(
        command=lambda a: _verify().verify(a.model, recording=a.recording, only_runtimes=a.runtime, only_precisions=a.precision)
    )
    quantize = kinds.add_parser("quantize", help="make the int8 version of a network, from pictures of a recording, and verify it")
    quantize.set_defaults(command=lambda a: _verify().quantize(a.model, recording=a.recording))
    for one in (verify, quantize):
        one.add_argument("model", metavar="MODEL", help="a card's name, e.g. blazepose.full, or its path")
        one.add_argument(
            "--recording", default="pose2sim.single", metavar="NAME", help="pictures, or cubes, of this recording (pose2sim.single)"
        )


def _verify() -> ModuleType:
    from . import verifying

    return verifying


def _building() -> ModuleType:
    from . import building

    return building


def _importing(commands: Any) -> None:
    importing = commands.add_parser("import", help="make a network of weights of your own, which stay on this machine")
    kinds = importing.add_subparsers(metavar="openpose|triangulation|lifter|vibe", required=True)
    openpose = kinds.add_parser("openpose", help="CMU OpenPose's .caffemodel (BODY_25 or COCO), for heatmap.paf")
    openpose.add_argument("file", type=Path, metavar="FILE.caffemodel")
    openpose.add_argument("--model", choices=("body25", "coco18"), default="", help="which it must be (found out when left out)")
    openpose.add_argument("--name", default="", metavar="NAME", help="what studio files call it (openpose.body25, openpose.coco18)")
    openpose.set_defaults(command=_import_openpose)
    lifting = kinds.add_parser("triangulation", help="a checkpoint of learnable triangulation (weights.pth), algebraic or volumetric")
    lifting.add_argument("file", type=Path, metavar="weights.pth")
    lifting.add_argument("--kind", choices=("algebraic", "volumetric"), required=True, help="which of the two networks it is")
    how = "how the volumetric one joins its views (softmax, or conf where it has confidences)"
    lifting.add_argument("--aggregation", choices=("softmax", "sum", "max", "conf", "conf_norm"), default="", help=how)
    lifting.add_argument(
        "--name", default="", metavar="NAME", help="what it is kept as (triangulation.paper-algebraic, triangulation.paper-volumetric)"
    )
    lifting.set_defaults(command=_import_triangulation)
    baseline = kinds.add_parser("lifter", help="a checkpoint of the single-view lifter of Martinez et al., torch's or TensorFlow's")
    baseline.add_argument("file", type=Path, metavar="CHECKPOINT", help="gt_ckpt_best.pth.tar, or checkpoint-4874200 of TensorFlow")
    baseline.add_argument("--stats-3d", type=Path, required=True, metavar="FILE", help="mean and std of what comes out (stat_3d.pth.tar)")
    baseline.add_argument(
        "--stats-2d", type=Path, metavar="FILE", help="those of what goes in; without it the network takes normalised key points"
    )
    scaled = "TensorFlow's: whether it was trained with --max_norm, which the file does not say"
    baseline.add_argument("--max-norm", choices=("yes", "no"), help=scaled)
    baseline.add_argument("--name", default="lifter.human36m", metavar="NAME", help="what it is kept as (lifter.human36m)")
    baseline.set_defaults(command=_import_lifter)
    vibe = kinds.add_parser("vibe", help="checkpoints of VIBE and of SPIN, as ONNX files to run from Python")
    vibe.add_argument(
        "--checkpoint", type=Path, required=True, metavar="FILE", help="vibe_model_wo_3dpw.pth.tar, or vibe_model_w_3dpw.pth.tar"
    )
    vibe.add_argument(
        "--spin", type=Path, metavar="FILE", help="spin_model_checkpoint.pth.tar: the network before it, from crops to features"
    )
    vibe.add_argument(
        "--smpl-mean", type=Path, metavar="FILE", help="smpl_mean_params.npz, for a checkpoint without the mean that it begins at"
    )
    vibe.add_argument("--out", type=Path, required=True, metavar="DIR", help="the networks and their cards go here")
    vibe.set_defaults(command=_import_vibe)


def _build(args: argparse.Namespace) -> int:
    return int(_building().build(args.studio, overrides=tuple(args.overrides), targets=args.targets))


def _import_openpose(args: argparse.Namespace) -> int:
    from .importing import import_openpose

    return import_openpose(args.file, model=args.model, name=args.name)


def _import_triangulation(args: argparse.Namespace) -> int:
    from .importing_triangulation import import_triangulation

    return import_triangulation(args.file, kind=args.kind, aggregation=args.aggregation, name=args.name)


def _import_lifter(args: argparse.Namespace) -> int:
    from .importing_lifter import import_lifter

    max_norm = None if args.max_norm is None else args.max_norm == "yes"
    return import_lifter(args.file, stats_3d=args.stats_3d, stats_2d=args.stats_2d, max_norm=max_norm, name=args.name)


def _import_vibe(args: argparse.Namespace) -> int:
    from .importing_vibe import import_vibe

    return import_vibe(args.checkpoint, out=args.out, spin=args.spin, smpl_mean=args.smpl_mean)
