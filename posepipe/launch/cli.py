"""The command line: `posepipe run|check|graph|inspect|schema|bench|eval|pull|import|build|engines|doctor`.

Exit codes: 0 done, 1 a fault while running, 2 refused before start (the message says where, what, what to do),
3 a latency budget was missed, 4 the recovery from harm was not the expected one, 130 stopped by Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

from posepipe import __version__
from posepipe.pipeline.errors import GraphError, PosepipeError, RunError, did_you_mean

from . import cli_engines, cli_eval, cli_motion, cli_synth, cli_train, logs
from .arguments import address, batches, count, names, positive, studio_arguments, threads

REFUSED, FAULT, OVER_BUDGET, NOT_RECOVERED = 2, 1, 3, 4


def main(argv: list[str] | None = None) -> int:
    """Run one command; the exit code."""
    args = _parser().parse_args(argv)
    logs.configure(getattr(args, "log_format", "text"), verbose=args.verbose)
    try:
        code = args.command(args)
        sys.stdout.flush()
    except RunError as e:
        return _say(e, FAULT)
    except PosepipeError as e:
        return _say(e, REFUSED)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output has gone (posepipe ... | head)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as e:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        what = f"{e.filename}: {e.strerror}" if e.filename else f"standard output or another file: {e.strerror}"
        return _say(PosepipeError(what, hint="free some space, or write elsewhere"), FAULT)
    return int(code)


def _say(error: PosepipeError, code: int) -> int:
    sys.stdout.flush()
    logs.say_error(error)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="posepipe", description="Live, metric, multi-person 3D human pose from several synced cameras.")
    parser.add_argument("--version", action="version", version=f"posepipe {__version__}")
    parser.add_argument("-v", "--verbose", action="store_true", help="log what the nodes do")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    run = commands.add_parser(
        "run", help="run a studio", description="Run a studio file. Ctrl-C stops it; what is under way is finished and accounted for."
    )
    studio_arguments(run)
    run.add_argument("--offline", action="store_true", help="recordings only: every frame in order, nothing dropped, as fast as it goes")
    run.add_argument("--seconds", type=positive, metavar="N", help="stop after N seconds; recordings loop for that long")
    run.add_argument("--cluster", metavar="ADDRESS", help="run nodes with host: in a Ray cluster: auto, HOST:6379, ray://HOST:10001, local")
    run.add_argument("--await-subscribers", type=count, default=0, metavar="N", help="hold the cameras until N subscribers are connected")
    run.add_argument(
        "--await-seconds", type=positive, default=60.0, metavar="N", help="give up waiting for subscribers after N seconds (60)"
    )
    run.add_argument("--summary", type=Path, metavar="FILE", help="write the summary as JSON")
    run.add_argument("--trace", type=Path, metavar="FILE", help="write a Chrome/Perfetto trace")
    run.add_argument("--metrics", type=address, metavar="HOST:PORT", help="Prometheus endpoint: /metrics and /healthz there")
    run.add_argument("--log-format", choices=get_args(logs.Style), default="text", help="json: one JSON object a line on standard error")
    run.set_defaults(command=_run)

    bench = commands.add_parser(
        "bench",
        help="measure a studio, or a network",
        description="Run a studio for a time and report the latency of every node (exit 3: over budget), or measure a network: --engine.",
    )
    studio_arguments(bench, optional=True)
    bench.add_argument("--seconds", type=positive, metavar="N", help="how long (20, of a network each line 2); recordings loop")
    bench.add_argument("--json", dest="summary", type=Path, metavar="FILE", help="write the figures as JSON")
    bench.add_argument("--trace", type=Path, metavar="FILE", help="write a Chrome/Perfetto trace")
    bench.add_argument("--engine", metavar="NAME", help="measure this network (a card's name, or an ONNX file) instead of a studio")
    bench.add_argument("--runtime", type=names, default=(), metavar="all|NAME,...", help="with --engine: these runtimes (all)")
    bench.add_argument("--precision", type=names, default=("auto",), metavar="all|NAME,...", help="with --engine: these precisions (auto)")
    bench.add_argument("--batch", type=batches, default=(1, 4, 8), metavar="N,...", help="with --engine: pictures a call (1,4,8)")
    bench.add_argument("--threads", type=threads, default=0, metavar="N", help="with --engine: threads (0: the runtime chooses)")
    bench.set_defaults(command=_bench)

    chaos = commands.add_parser(
        "chaos",
        help="harm a running studio, and judge how it recovers",
        description="Run a studio, do the harm that its chaos: lists, and judge every entry. Exit 4: a recovery was not as expected.",
    )
    studio_arguments(chaos)
    chaos.add_argument("--seconds", type=positive, metavar="N", help="how long (until the last entry is judged); recordings loop")
    chaos.add_argument("--json", type=Path, metavar="FILE", help="write the verdicts as JSON")
    chaos.set_defaults(command=_chaos)

    check = commands.add_parser(
        "check", help="validate a studio file", description="Check a studio file, its calibration and its recordings without running."
    )
    studio_arguments(check)
    check.set_defaults(command=_check)

    graph = commands.add_parser("graph", help="draw a studio file")
    studio_arguments(graph)
    form = graph.add_mutually_exclusive_group()
    form.add_argument("--dot", action="store_true", help="Graphviz")
    form.add_argument("--mermaid", action="store_true", help="Mermaid")
    graph.set_defaults(command=_graph)

    inspect = commands.add_parser("inspect", help="describe node types")
    inspect.add_argument("node_type", nargs="?", metavar="NODE_TYPE", help="all when left out")
    inspect.set_defaults(command=_inspect)

    schema = commands.add_parser("schema", help="print the JSON schema of studio files, for editors")
    schema.set_defaults(command=_schema)

    pull = commands.add_parser(
        "pull", help="fetch models and recordings", description="Without names: what is there and what would be fetched."
    )
    pull.add_argument("names", nargs="*", metavar="NAME")
    pull.add_argument("--all", action="store_true", help="fetch everything")
    pull.add_argument("--for", dest="studio", type=Path, metavar="STUDIO", help="fetch what this studio file needs")
    pull.set_defaults(command=_pull)

    cli_engines.add(commands)
    cli_motion.add(commands)
    cli_eval.add(commands)
    cli_synth.add(commands)
    cli_train.add(commands)
    _attaching(commands)

    doctor = commands.add_parser("doctor", help="what this machine can run, and why not the rest")
    doctor.set_defaults(command=_doctor)
    return parser


def _attaching(commands: Any) -> None:
    ps = commands.add_parser("ps", help="the processes of the studios that run on this machine")
    ps.add_argument("--json", action="store_true", dest="as_json", help="as a JSON list")
    ps.set_defaults(command=lambda a: attached().ps(as_json=a.as_json))

    top = commands.add_parser("top", help="watch a running studio from another terminal")
    top.set_defaults(command=lambda a: attached().top(pid=a.pid))

    topic = commands.add_parser("topic", help="what the nodes of a running studio give")
    kinds = topic.add_subparsers(metavar="list|hz|echo", required=True)
    listing = kinds.add_parser("list", help="every node's output, its type and rate")
    listing.set_defaults(command=lambda a: attached().topics(pid=a.pid))
    hz = kinds.add_parser("hz", help="the rate of one, every second")
    hz.set_defaults(command=lambda a: attached().hz(a.node, pid=a.pid, count=a.count))
    echo = kinds.add_parser("echo", help="the results themselves, one JSON object a line (a fast node's are sampled)")
    echo.set_defaults(command=lambda a: attached().echo(a.node, pid=a.pid, count=a.count))
    for one in (hz, echo):
        one.add_argument("node", metavar="NODE")
        one.add_argument("-n", dest="count", type=count, metavar="N", help="end after N")

    stop = commands.add_parser("stop", help="stop a running studio in order")
    stop.set_defaults(command=lambda a: attached().stop(pid=a.pid))
    for one in (top, listing, hz, echo, stop):
        one.add_argument("--pid", type=int, help="which studio, when several run (posepipe ps)")


def attached() -> ModuleType:
    from . import attach

    return attach


def _run(args: argparse.Namespace) -> int:
    from .run import run

    done = run(
        args.studio,
        overrides=tuple(args.overrides),
        cluster=args.cluster,
        offline=args.offline,
        seconds=args.seconds,
        subscribers=args.await_subscribers,
        subscribers_within_s=args.await_seconds,
        summary=args.summary,
        trace=args.trace,
        metrics=args.metrics,
    )
    return 130 if done.interrupted else 0


def _bench(args: argparse.Namespace) -> int:
    if (args.studio is None) == (args.engine is None):
        raise PosepipeError("either a studio file or --engine NAME", where="posepipe bench", hint="for example --engine blazepose.full")
    if args.engine is not None:
        from .engine_bench import SECONDS, bench

        if args.overrides or args.trace:
            raise PosepipeError("--set and --trace are for studios", where="posepipe bench --engine")
        return bench(
            args.engine,
            only_runtimes=args.runtime,
            only_precisions=args.precision,
            batches=args.batch,
            seconds=args.seconds or SECONDS,
            threads=args.threads,
            file=args.summary,
        )
    from .run import run

    done = run(
        args.studio, overrides=tuple(args.overrides), seconds=args.seconds or 20.0, summary=args.summary, trace=args.trace, bench=True
    )
    if done.interrupted:
        return 130
    return 0 if done.within_budget else OVER_BUDGET


def _chaos(args: argparse.Namespace) -> int:
    from .chaos import chaos

    passed, interrupted = chaos(args.studio, overrides=tuple(args.overrides), seconds=args.seconds, file=args.json)
    if interrupted:
        return 130
    return 0 if passed else NOT_RECOVERED


def _check(args: argparse.Namespace) -> int:
    from . import preflight, studio
    from .truth import witness

    plan = studio.load(args.studio, overrides=tuple(args.overrides))
    absent = studio.missing(plan)
    if absent:
        print(f"{args.studio}: the graph is right. Not on this machine yet: {', '.join(absent)} (posepipe pull {' '.join(absent)})")
        return 0
    whole = studio.complete(plan)
    witness(whole)
    infos = preflight.probe_recordings(plan, whole.resolve)
    for warning in preflight.purpose(plan) + preflight.check(plan, whole.rig, infos):
        print(f"{args.studio}: {warning}")
    cameras = f"{len(plan.cameras)} camera{'s' if len(plan.cameras) != 1 else ''}"
    print(f"{args.studio}: good: {cameras} ({', '.join(plan.cameras)}), {len(plan.nodes)} nodes, {len(infos)} recordings read")
    return 0


def _graph(args: argparse.Namespace) -> int:
    from posepipe.pipeline import draw

    from . import studio

    plan = studio.load(args.studio, overrides=tuple(args.overrides))
    print(draw.dot(plan) if args.dot else draw.mermaid(plan) if args.mermaid else draw.text(plan))
    return 0


def _inspect(args: argparse.Namespace) -> int:
    from posepipe.nodes import Catalogue
    from posepipe.pipeline.schema import describe

    types = Catalogue()
    if args.node_type is None:
        for use, cls in types.items():
            print(f"{use:20} {(cls.__doc__ or '').strip().splitlines()[0]}")
        return 0
    if args.node_type not in types:
        raise GraphError(f"there is no node type {args.node_type!r}", hint=did_you_mean(args.node_type, types))
    print(describe(types[args.node_type]))
    return 0


def _schema(args: argparse.Namespace) -> int:
    from posepipe.engines.engine import EngineOptions
    from posepipe.nodes import Catalogue
    from posepipe.pipeline.schema import schema

    print(json.dumps(schema(Catalogue(), engines=EngineOptions), indent=2))
    return 0


def _pull(args: argparse.Namespace) -> int:
    from . import pulling, studio

    names = list(args.names)
    if args.studio is not None:
        names += studio.wanted(studio.load(args.studio))
    return pulling.pull(names, everything=args.all, listing=not names and not args.all and args.studio is None)


def _doctor(args: argparse.Namespace) -> int:
    from .doctor import doctor

    return doctor()
