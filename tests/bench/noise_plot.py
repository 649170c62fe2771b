"""The picture of docs/noise.md: what a network gave (dots) and what is generated (lines). Needs matplotlib (the extra `synth`)."""

from __future__ import annotations

import itertools
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from noise_figures import Figures

from posepipe.calib.synthetic_noise_stats import GROUPS

_HIDDEN = ("behind itself", "covered")
_COLOURS = {"seen": "#1f5fa8", "hidden": "#c2571a", "outside": "#5b5b5b"}
_KINDS = {"seen": ("seen",), "hidden": _HIDDEN, "outside": ("outside",)}


def plot(real: Figures, ours: Figures, path: Path) -> None:
    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25})
    figure, axes = plt.subplots(2, 3, figsize=(13, 7.6), constrained_layout=True)
    _errors(axes[0, 0], real, ours, ("seen", "hidden"), "error: median; 9 of 10 below (small)")
    _distribution(axes[0, 1], real, ours, "how often an error is larger than ...", "error, % of the crop's side")
    _given_confidence(axes[0, 2], real, ours)
    _heights(axes[1, 0], real, ours)
    _widths(axes[1, 1], real, ours)
    _seconds(axes[1, 2], real, ours)
    figure.suptitle("blazepose.full on recordings (dots) and drawn with posepipe/calib/noise.toml (lines)", fontsize=12)
    figure.savefig(path, dpi=90)


def _chosen(f: Figures, kind: str, group: str | None = None) -> np.ndarray:
    return f.of(group, *_KINDS[kind]) & (~f.swapped if group else True)


def _errors(ax: plt.Axes, real: Figures, ours: Figures, kinds: tuple[str, ...], title: str) -> None:
    x = np.arange(len(GROUPS))
    for kind in kinds:
        for f, style, size in ((real, "o", 1.0), (ours, "-", 1.0)):
            q = np.array([np.quantile(f.error[_chosen(f, kind, g)], [0.5, 0.9]) for g in GROUPS]) * 100
            label = kind if style == "-" else None
            ax.plot(x, q[:, 0], style, color=_COLOURS[kind], ms=6 * size, lw=1.8, label=label)
            ax.plot(x, q[:, 1], style if style == "o" else "--", color=_COLOURS[kind], ms=3.5 * size, lw=1.0)
    ax.set(yscale="log", title=title, ylabel="% of the crop's side", xticks=x)
    ax.set_xticklabels(GROUPS, rotation=25, ha="right")
    ax.set_yticks([1, 2, 5, 10, 20], ["1", "2", "5", "10", "20"])
    ax.legend(frameon=False)


def _distribution(ax: plt.Axes, real: Figures, ours: Figures, title: str, label: str) -> None:
    edges = np.geomspace(0.2, 60, 40)
    for kind, colour in _COLOURS.items():
        for f, style in ((real, "o"), (ours, "-")):
            error = f.error[f.of(None, *_KINDS[kind])] * 100
            above = np.array([(error > e).mean() for e in edges])
            every = slice(None, None, 2) if style == "o" else slice(None)
            ax.plot(
                edges[every],
                np.where(above > 0, above, np.nan)[every],
                style,
                color=colour,
                ms=4,
                lw=1.6,
                label=kind if style == "-" else None,
            )
    ax.set(xscale="log", yscale="log", ylim=(1e-3, 1.1), title=title, xlabel=label, ylabel="share (with exchanged sides)")
    ax.set_xticks([0.2, 1, 5, 20, 60], ["0.2", "1", "5", "20", "60"])
    ax.legend(frameon=False, loc="lower left")


def _given_confidence(ax: plt.Axes, real: Figures, ours: Figures) -> None:
    edges = np.array([0.05, 0.25, 0.4, 0.5, 0.6, 0.7, 0.78, 0.84, 0.89, 0.94, 1.0])
    for f, style in ((real, "o"), (ours, "-")):
        conf = 1 / (1 + np.exp(-f.logit))
        m = f.of(None, "seen", *_HIDDEN) & ~f.swapped
        rows = [(conf[b].mean(), *(np.quantile(f.error[b], [0.5, 0.9]) * 100)) for b in (m & (conf >= lo) & (conf < hi) for lo, hi in itertools.pairwise(edges)) if b.sum() > 30]  # fmt: skip
        c, median, ninth = np.array(rows).T
        ax.plot(c, median, style, color="#1f5fa8", ms=6, lw=1.8, label="median" if style == "-" else None)
        ax.plot(c, ninth, style if style == "o" else "--", color="#1f5fa8", ms=3.5, lw=1.0, label="9 of 10 below" if style == "-" else None)
    ax.set(yscale="log", title="error given the confidence", xlabel="height of the peak", ylabel="% of the crop's side")
    ax.set_yticks([1, 2, 5, 10, 20], ["1", "2", "5", "10", "20"])
    ax.legend(frameon=False)


def _heights(ax: plt.Axes, real: Figures, ours: Figures) -> None:
    edges = np.linspace(0, 1, 26)
    for kind, colour in _COLOURS.items():
        for f, style in ((real, "o"), (ours, "-")):
            conf = 1 / (1 + np.exp(-f.logit[f.of(None, *_KINDS[kind])]))
            count, _ = np.histogram(conf, edges, density=True)
            ax.plot((edges[1:] + edges[:-1]) / 2, count, style, color=colour, ms=4, lw=1.6, label=kind if style == "-" else None)
    ax.set(title="height of the peak (confidence)", xlabel="confidence", ylabel="density")
    ax.legend(frameon=False)


def _widths(ax: plt.Axes, real: Figures, ours: Figures) -> None:
    edges = np.linspace(1, 6, 26)
    for kind in ("seen", "hidden"):
        for f, style in ((real, "o"), (ours, "-")):
            radius = f.radius[f.of(None, *_KINDS[kind])]
            count, _ = np.histogram(radius, edges, density=True)
            ax.plot((edges[1:] + edges[:-1]) / 2, count, style, color=_COLOURS[kind], ms=4, lw=1.6, label=kind if style == "-" else None)
    ax.set(title="size of what is above half of the peak", xlabel="radius, cells of 64", ylabel="density")
    ax.legend(frameon=False)


def _seconds(ax: plt.Axes, real: Figures, ours: Figures) -> None:
    x = np.arange(len(GROUPS))
    for kind in ("seen", "hidden"):
        for f, style in ((real, "o"), (ours, "-")):
            share = [(f.second[_chosen(f, kind, g)] < 3).mean() * 100 for g in GROUPS]
            ax.plot(x, share, style, color=_COLOURS[kind], ms=6, lw=1.6, label=kind if style == "-" else None)
    ax.set(title="second peaks, at most 3 logits lower", ylabel="%", xticks=x)
    ax.set_xticklabels(GROUPS, rotation=25, ha="right")
    ax.legend(frameon=False)
