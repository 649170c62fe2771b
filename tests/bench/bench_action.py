"""How well actions are told, how soon, and what an instant costs.

    python tests/bench/bench_action.py accuracy --motion DIR --out DIR [--folds 5] [--steps 700] [--width 36]
    python tests/bench/bench_action.py latency --motion DIR [--engine action.skeleton]
    python tests/bench/bench_action.py cost [--engine action.skeleton] [--people 4] [--rounds 300]

accuracy: trains a network for every fold (goes on where it stopped) and pools what each says of the recordings that it did not see. latency: recordings kept out
of the shipped network's training are joined, and the node is run on them. cost: one thread; ratios mean something on a shared machine, milliseconds only on
a quiet one.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime

from posepipe.calib.action_samples import Labelled, as_seen
from posepipe.calib.action_window import JOINTS, TICK_NS
from posepipe.engines.action import action_file
from posepipe.launch.training_action import FOLDS, Split, batches, judge_of, of_motion, pool_of, split
from posepipe.nodes.classify_action import ClassifyAction
from posepipe.pipeline.skeleton import BLAZEPOSE33

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "unit" / "nodes")]
from node_kit import T0_NS, Studio, caps, packet, poses  # noqa: E402
from people import standing  # noqa: E402

SEED = 1
LEAST = 3
IN_BLAZE = [BLAZEPOSE33.index(name) for name in JOINTS]


def accuracy(args: argparse.Namespace) -> None:
    from posepipe.engines.models.action.train import Plan, predictor, train

    found = of_motion(args.motion, seed=SEED)
    recordings = {label: {one.recording for one in found if one.label == label} for label in {one.label for one in found}}
    balanced = sorted(label for label, names in recordings.items() if len(names) >= LEAST)
    windows: dict[str, list[bool]] = {}
    whole: dict[str, list[bool]] = {}
    by_fold: list[tuple[float, float]] = []
    confused, asked = np.zeros((len(recordings), len(recordings))), np.zeros(len(recordings))
    for fold in range(args.folds):
        parts = split(found, fold=fold, count=args.folds, seed=SEED)
        judge = judge_of(parts, "motion", seed=SEED + 2)
        out = args.out / f"fold{fold}"
        plan = Plan(args.steps, parts.labels, args.width)
        train(batches(pool_of(parts, "motion", seed=SEED + 1)), judge, out, plan, threads=1)
        net = plan.build()
        _load(net, out)
        of_windows, of_takes = judge.recalls(predictor(net))
        for into, of in ((windows, of_windows), (whole, of_takes)):
            for label, right in of.items():
                into.setdefault(label, []).extend(right)
        there = np.array([len(of_windows.get(label, ())) for label in parts.labels])
        confused, asked = confused + judge.found * there[:, None], asked + there
        by_fold.append((_balanced(of_windows, balanced), _balanced(of_takes, balanced)))
        print(f"fold {fold}: balanced accuracy {by_fold[-1][0]:.3f} of windows, {by_fold[-1][1]:.3f} of takes", flush=True)
    print(f"\nall folds, {len(balanced)} labels with at least {LEAST} recordings, told among {len(recordings)}:")
    for name, pooled, k in (("windows", windows, 0), ("takes", whole, 1)):
        each = [f[k] for f in by_fold]
        spread = f"folds {np.mean(each):.3f} +- {np.std(each):.3f}"
        print(f"  balanced accuracy of {name}: {_balanced(pooled, balanced):.3f} ({spread}); chance {1 / len(recordings):.3f}")
    print("\nrecall of windows / of takes, recordings; of 100 windows of a label so many were called")
    labels = sorted(recordings)
    for k, label in enumerate(labels):
        shares = " ".join(f"{100 * share:3.0f}" for share in confused[k] / max(asked[k], 1))
        print(
            f"  {label:24} {np.mean(windows.get(label, [0])):.2f} / {np.mean(whole.get(label, [0])):.2f}, {len(recordings[label]):2}   {shares}"
        )


def _load(net: object, out: Path) -> None:
    """The mean of the weights, which is what is exported."""
    import torch

    net.load_state_dict(torch.load(out / "checkpoint.pt", weights_only=True)["average"])  # type: ignore[attr-defined]


def _balanced(right: dict[str, list[bool]], labels: list[str]) -> float:
    return float(np.mean([np.mean(right[label]) for label in labels if right.get(label)]))


def latency(args: argparse.Namespace) -> None:
    found = of_motion(args.motion, seed=SEED)
    parts: Split = split(found, fold=0, seed=SEED)
    rng = np.random.default_rng(5)
    by = {label: [one for one in parts.kept_out if one.label == label and one.t_s[-1] > 1.2] for label in parts.judged}
    names = [label for label, some in by.items() if some]
    node = ClassifyAction(ClassifyAction.Settings(engine=args.engine))
    node.open(Studio().context(caps=caps("poses", skeleton="blazepose33"), engines={"threads": 1}))
    labels = node._network.labels
    after: list[float] = []
    unsaid = wrong = instants = never = changes = 0
    t_ns = T0_NS
    for person in range(args.joins):
        a, b = rng.choice(len(names), 2, replace=False)
        old, new = (by[names[k]][rng.integers(len(by[names[k]]))] for k in (a, b))
        first, second = _seen(rng, old)[-60:], _seen(rng, new)[:90]
        second = second + (np.nanmean(first[-15:], axis=(0, 1)) - np.nanmean(second[:15], axis=(0, 1)))
        said = []
        for xyz in np.concatenate([first, second]):
            t_ns += TICK_NS
            whole = np.full((1, 33, 3), np.nan, np.float32)
            whole[0, IN_BLAZE] = xyz
            answer = node.step(packet(poses(whole, ids=(person,)), t_ns=t_ns))
            said.append(int(answer.label[0]) if len(answer.ids) else -1)
        t_ns += 5 * 10**9
        told = np.array(said)
        before, then = told[max(12, len(first) - 15) : len(first)], told[len(first) :]
        if not (before == labels.index(names[a])).any():
            continue  # what was not told before cannot be followed by something else
        changes += 1
        right = np.flatnonzero(then == labels.index(names[b]))
        if right.size:
            after.append((int(right[0]) + 1) * TICK_NS / 1e9)
        else:
            never += 1
        instants += len(then)
        unsaid += int((then < 0).sum())
        wrong += int(((then >= 0) & (then != labels.index(names[b]))).sum())
    node.close()
    q = np.percentile(after, (50, 90))
    print(f"{changes} changes: the new label is said after {q[0]:.2f} s (median), {q[1]:.2f} s (90 %); never in {never}")
    print(
        f"of all instants after a change {100 * unsaid / instants:.0f} % unknown, {100 * wrong / instants:.0f} % another label (the old one while it is followed, too)"
    )


def _seen(rng: np.random.Generator, one: Labelled) -> np.ndarray:
    xyz_m, seen = as_seen(rng, one.xyz_m, one.seen, one.t_s)
    return np.where(seen[..., None], xyz_m, np.nan)


def cost(args: argparse.Namespace) -> None:
    node = ClassifyAction(ClassifyAction.Settings(engine=args.engine))
    node.open(Studio().context(caps=caps("poses", skeleton="blazepose33"), engines={"threads": 1}))
    one = onnxruntime.SessionOptions()
    one.intra_op_num_threads = 1
    (path,) = action_file(args.engine).values()
    session = onnxruntime.InferenceSession(str(path), one, providers=["CPUExecutionProvider"])
    clips = np.random.default_rng(0).normal(0, 0.3, (args.people, 24, 13, 7)).astype(np.float32)
    people = np.stack([standing(0.4 * k - 0.6, 0.3 * k) for k in range(args.people)])
    t_ns = T0_NS
    bare = "bare ONNX Runtime, half of the people"
    spent: dict[str, list[tuple[float, float]]] = {"classify.action": [], "classify.action, each after another network": [], bare: []}
    for k in range(4 * args.rounds):
        t_ns += TICK_NS // 2
        body = packet(poses(people + np.sin(0.2 * k) * 0.01), t_ns=t_ns)
        alone = k // 50 % 2 == 0
        if not alone:
            spent[bare].append(_timed(lambda: session.run(None, {"clip": clips[: -(-args.people // 2)]})))
        took = _timed(lambda body=body: node.step(body))  # type: ignore[misc]
        if k % 50 > 2 and k > 100:
            spent["classify.action" if alone else "classify.action, each after another network"].append(took)
    print(f"{args.people} people at 30 Hz, {node.runs_on}")
    for name, times in spent.items():
        wall, cpu = (statistics.median(t[k] for t in times) * 1e3 for k in (0, 1))
        worst = np.percentile([t[1] for t in times], 95) * 1e3
        print(f"{name:44} {wall:6.3f} ms, {cpu:6.3f} ms of processor time (95 %: {worst:.3f})")
    node.close()


def _timed(call: Callable[[], object]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.thread_time()
    call()
    return time.perf_counter() - wall, time.thread_time() - cpu


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = options.add_subparsers(required=True)
    one = kinds.add_parser("accuracy")
    one.add_argument("--motion", type=Path, required=True)
    one.add_argument("--out", type=Path, required=True)
    one.add_argument("--folds", type=int, default=FOLDS)
    one.add_argument("--steps", type=int, default=700)
    one.add_argument("--width", type=int, default=36)
    one.set_defaults(do=accuracy)
    one = kinds.add_parser("latency")
    one.add_argument("--motion", type=Path, required=True)
    one.add_argument("--engine", default="action.skeleton")
    one.add_argument("--joins", type=int, default=200)
    one.set_defaults(do=latency)
    one = kinds.add_parser("cost")
    one.add_argument("--engine", default="action.skeleton")
    one.add_argument("--people", type=int, default=4)
    one.add_argument("--rounds", type=int, default=300)
    one.set_defaults(do=cost)
    args = options.parse_args()
    args.do(args)


if __name__ == "__main__":
    main()
