"""Plots of the stored runs, beside `RESULTS.md`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from cases import METHODS, OURS, REFERENCE
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator
from render import per_epoch
from score import POWERS

Run = dict[str, Any]

COLORS = {OURS: "C0", REFERENCE: "C1"}
FILES = {"curves": "removal.png", "growth": "growth.png"}


def draw(runs: list[Run], folder: Path) -> None:
    """Draw what there are runs for."""
    curves = [run for run in runs if run["kind"] == "quality" and run["method"] in COLORS and _curve(run)]
    curves = [run for run in curves if run["case"] != "reach"]
    if curves:
        _draw_curves(curves).savefig(folder / FILES["curves"], dpi=110)
    speeds = [run for run in runs if run["kind"] == "speed" and run["method"] in COLORS]
    if speeds:
        _draw_growth(speeds).savefig(folder / FILES["growth"], dpi=110)
    plt.close("all")


def _curve(run: Run, recipe: str = "default") -> list[list[float]] | None:
    return run["scores"].get("counts", {}).get(recipe, {}).get("curve")


def _whole(run: Run) -> list[tuple[float, float]]:
    """Own and foreign molecules removed by the whole corrected counts."""
    found = [run["scores"]["counts"].get(recipe) for recipe in ("fpr_5", "whole", "fpr_10")]
    return [(counts["own_removed"], counts["foreign_removed"]) for counts in found if counts]


def _draw_curves(runs: list[Run]) -> Any:
    """Foreign against own molecules removed, made weaker and stronger; one panel per regime, one line per seed."""
    regimes = list(dict.fromkeys(run["regime"] for run in runs))
    columns = min(3, len(regimes))
    rows = -(-len(regimes) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(4 * columns, 3.4 * rows), squeeze=False, layout="constrained", sharex=True, sharey=True
    )
    for axis, regime in zip(axes.flat, regimes, strict=False):
        for method, color in COLORS.items():
            for recipe, style in (("default", "-"), ("weighted", "--")):
                found = [_curve(run, recipe) for run in runs if run["regime"] == regime and run["method"] == method]
                for i, curve in enumerate(c for c in found if c):
                    name = METHODS[method].label + ("" if recipe == "default" else ", own-share recipe")
                    own, foreign = zip(*curve, strict=True)
                    axis.plot(own, foreign, style, color=color, label=None if i else name)
                    at = POWERS.index(1.0)
                    axis.plot(own[at], foreign[at], "o", color=color, markersize=5)
        ours = [run for run in runs if run["regime"] == regime and run["method"] == OURS]
        points = [point for run in ours for point in _whole(run)]
        if points:
            axis.plot(*zip(*points, strict=True), "D", color="C2", markersize=4, label="resolvi_sd, whole molecules")
        axis.set_title(regime)
        axis.set_xlim(0, 0.3)
        axis.set_ylim(0, 0.9)
    for axis in axes.flat[len(regimes) :]:
        axis.set_axis_off()
    figure.supxlabel("own molecules removed")
    figure.supylabel("foreign molecules removed")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
    return figure


def _draw_growth(runs: list[Run]) -> Any:
    """Time and memory against the number of cells and of genes, on logarithmic axes."""
    few, many = ([run for run in runs if run["regime"] == regime] for regime in ("xenium", "deep"))
    by_cells, by_genes = "cells (300 genes)", "genes (5,000 cells; 2,500 with 5,000)"
    panels: list[tuple[list[Run], str, str, str, Callable[[Run], float]]] = [
        (few, "n_cells", by_cells, "training, ms per cell and epoch", per_epoch),
        (few, "n_cells", by_cells, "peak memory, MB", lambda run: run["peak_memory_mb"]),
        (many, "n_genes", by_genes, "training, ms per cell and epoch", per_epoch),
        (many, "n_genes", by_genes, "peak memory, MB", lambda run: run["peak_memory_mb"]),
    ]
    figure, axes = plt.subplots(1, len(panels), figsize=(4 * len(panels), 3.6), layout="constrained")
    for axis, (chosen, size, xlabel, ylabel, measure) in zip(axes, panels, strict=True):
        for method, color in COLORS.items():
            of_method = [run for run in chosen if run["method"] == method]
            sizes = sorted({run[size] for run in of_method})
            values = [median(measure(run) for run in of_method if run[size] == n) for n in sizes]
            if sizes:
                axis.loglog(sizes, values, "o-", color=color, label=METHODS[method].label)
        _plain_ticks(axis, sorted({run[size] for run in chosen}))
        axis.set_xlabel(xlabel)
        axis.set_ylabel(ylabel)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False)
    return figure


def _plain_ticks(axis: Axes, sizes: list[int]) -> None:
    """Mark the sizes that were measured, and some measurements, as plain numbers."""
    axis.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axis.xaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter("{x:,g}")
    axis.yaxis.set_minor_formatter(NullFormatter())
