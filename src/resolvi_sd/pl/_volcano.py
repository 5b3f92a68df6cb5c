"""Volcano plot of differential expression: the size and certainty of changes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from resolvi_sd._keys import DEFAULT_KEY, Keys
from resolvi_sd._tables import resolve_table
from resolvi_sd._validation import check_integer, check_key, group_names
from resolvi_sd.pl._colors import gray
from resolvi_sd.pl._comparisons import (
    DOWN,
    NOT_CALLED,
    UP,
    ComparisonResult,
    choose_comparisons,
    read_comparisons,
    warn_of_lost_cells,
)
from resolvi_sd.pl._docs import shared_docs
from resolvi_sd.pl._figures import check_figure, finish_figure, open_panels, settle_figure
from resolvi_sd.pl._labels import label_points

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

__all__ = ["volcano"]

_COLUMNS = ("gene", "proba_de", "bayes_factor", "lfc_mean", "lfc_std", "is_de_fdr")
_PANEL_SIZE, _N_COLUMNS = (3.3, 3.3), 4
_TINY = 1e-12
# Height of the band of genes that change in every draw, relative to the highest odds.
_BAND = 0.6


@shared_docs
def volcano(
    data: SpatialData | AnnData,
    *,
    group1: str | Sequence[str] | None = None,
    n_genes: int = 10,
    genes: Sequence[str] | None = None,
    table_key: str = "table",
    key_added: str = DEFAULT_KEY,
    ax: Axes | Sequence[Axes] | None = None,
    figsize: tuple[float, float] | None = None,
    title: str | Sequence[str] | None = None,
    save: str | Path | None = None,
    return_ax: bool = False,
) -> list[Axes] | None:
    """Draw the log fold change of each gene against the odds that it changes, one panel per comparison.

    Genes that were called at the false discovery rate of the test are vermilion if they are higher in the first group
    and blue if they are lower, with their numbers above the panel; all other genes are gray. The dashed line separates
    the least probable gene that was called from the most probable one that was not, if they can be separated: the odds
    are those of each gene alone, whereas calls take all genes into account. Probabilities are shares of the posterior
    draws: genes that change in every draw have no known odds, and are in a band at the top, above the dotted line, in
    the order of the mean change over its standard deviation.

    Parameters
    ----------
    {data}
        :func:`resolvi_sd.tl.differential_expression` must also have been run.
    group1
        Comparisons to draw, given by their first group, in this order. None: all comparisons.
    n_genes
        Number of genes to name in each panel: the highest of those that were called, half of them in each direction.
        Names for which there is no room are left out.
    genes
        Genes to name instead of these, called or not.
    {table}
    {axes}
    {end}

    Returns
    -------
    The axes, one per comparison, if `return_ax`, otherwise None.

    Raises
    ------
    KeyError
        If the table, the result, a group or a gene does not exist.
    ValueError
        If `n_genes` is negative, the result lacks columns, or there is a wrong number of axes or titles.

    Examples
    --------
    >>> import resolvi_sd as rsd
    >>> sdata = rsd.datasets.simulate_tissue(n_cells=300, n_genes=40, rng=0)
    >>> rsd.tl.fit(sdata, max_epochs=2, show_progress_bar=False)
    >>> rsd.tl.differential_expression(sdata, groupby="domain", n_samples=100, show_progress_bar=False)
    >>> axes = rsd.pl.volcano(sdata, group1="domain_0", return_ax=True)
    >>> axes[0].get_title()
    'domain_0 vs rest'
    """
    adata = resolve_table(data, table_key)
    keys = Keys(key_added)
    tool = keys.call("differential_expression")
    comparisons = read_comparisons(adata, keys.de, columns=_COLUMNS, tool=tool)
    comparisons = choose_comparisons(comparisons, group1, where=f"table.uns[{keys.de!r}]['group1']")
    warn_of_lost_cells(adata, comparisons, key=keys.de, tool=tool)
    check_integer(n_genes, 0, argument="n_genes")
    named = group_names(() if genes is None else genes)
    for gene in named:
        check_key(gene, comparisons[0].rows["gene"], argument="genes", where=f"table.uns[{keys.de!r}]['gene']")
    check_figure(figsize, save)
    axes = open_panels(
        [comparison.name for comparison in comparisons],
        ax=ax,
        size=_PANEL_SIZE,
        figsize=figsize,
        title=title,
        n_columns=_N_COLUMNS,
        sharey=True,
    )
    top = _top_of(comparisons)
    heights = [_heights(comparison.rows, top) for comparison in comparisons]
    for number, (panel, comparison, height) in enumerate(zip(axes, comparisons, heights, strict=True)):
        _draw_points(panel, comparison.rows, height, top)
        if ax is not None or number % _N_COLUMNS == 0:
            panel.set_ylabel("log odds of the change (nats)")
    settle_figure(axes)  # settles limits and sizes of the panels
    for panel, comparison, height in zip(axes, comparisons, heights, strict=True):
        rows = comparison.rows
        chosen = (
            _top_genes(rows, height, n_genes) if genes is None else rows["gene"].isin(named).to_numpy().nonzero()[0]
        )
        points = np.column_stack([rows["lfc_mean"].to_numpy(dtype=np.float64), height])
        label_points(panel, points, chosen.tolist(), rows["gene"].iloc[chosen].astype(str).tolist(), fontsize=8)
    finish_figure(axes, save)
    return axes if return_ax else None


def _odds(rows: pd.DataFrame) -> NDArray[np.float64]:
    return rows["bayes_factor"].to_numpy(dtype=np.float64)


def _certain(rows: pd.DataFrame) -> NDArray[np.bool_]:
    """Return whether each gene changes in every draw, so that its odds are unknown."""
    certain: NDArray[np.bool_] = rows["proba_de"].to_numpy(dtype=np.float64) == 1
    return certain


def _top_of(comparisons: Sequence[ComparisonResult]) -> float | None:
    """Return the odds that stand for those of genes that change in every draw; None if there are no such genes."""
    odds = np.concatenate([_odds(comparison.rows)[_certain(comparison.rows)] for comparison in comparisons])
    return float(odds.max()) if odds.size else None


def _heights(rows: pd.DataFrame, top: float | None) -> NDArray[np.float64]:
    """Return the heights of the genes: their odds or, if these are unknown, places in a band above all others."""
    height = _odds(rows).copy()
    certain = np.flatnonzero(_certain(rows))
    if top is None or not certain.size:
        return height
    change, spread = (rows[name].to_numpy(dtype=np.float64)[certain] for name in ("lfc_mean", "lfc_std"))
    order = np.argsort(np.abs(change) / np.maximum(spread, _TINY), kind="stable")
    height[certain[order]] = top + _BAND * abs(top) * np.arange(1, len(order) + 1) / len(order)
    return height


def _draw_points(ax: Axes, rows: pd.DataFrame, height: NDArray[np.float64], top: float | None) -> None:
    from matplotlib.ticker import MaxNLocator

    change, odds = rows["lfc_mean"].to_numpy(dtype=np.float64), _odds(rows)
    called = rows["is_de_fdr"].to_numpy(dtype=bool)
    ax.axvline(0, color=gray(0.85), linewidth=0.8, zorder=0)
    if called.any() and not called.all() and odds[called].min() > odds[~called].max():
        edge = (odds[called].min() + odds[~called].max()) / 2
        ax.axhline(edge, color=gray(0.6), linewidth=0.8, linestyle="--", zorder=0)
    sides = ((~called, NOT_CALLED), (called & (change > 0), UP), (called & (change <= 0), DOWN))
    for side, color in sides:
        ax.scatter(change[side], height[side], s=14, color=color, linewidths=0, rasterized=True)
    for place, (side, color), text, align in zip(
        (0.0, 1.0), reversed(sides[1:]), ("lower", "higher"), ("left", "right"), strict=True
    ):
        ax.text(place, 1.01, f"{side.sum():,} {text}", color=color, transform=ax.transAxes, ha=align, va="bottom",
                fontsize="small")  # fmt: skip
    ax.set_title(ax.get_title(), pad=16)
    reach = 1.12 * max(float(np.abs(change).max()), 0.1)
    ax.set(xlim=(-reach, reach), xlabel="log2 fold change (mean)")
    ax.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    ax.margins(y=0.12)
    scale = MaxNLocator(6, integer=True)
    ax.yaxis.set_major_locator(scale)
    if top is not None:
        ax.axhline(top, color=gray(0.6), linewidth=0.8, linestyle=":", zorder=0)
        low, high = ax.get_ylim()
        # Above the line, numbers would be meaningless.
        ax.set_yticks([odds for odds in scale.tick_values(low, high) if low <= odds <= top])
    ax.spines[["top", "right"]].set_visible(False)


def _top_genes(rows: pd.DataFrame, height: NDArray[np.float64], n_genes: int) -> NDArray[np.int64]:
    """Return the highest genes that were called; among equally high ones, those that change most.

    Half of them are higher and half are lower in the first group; if one half has fewer genes, the other has more.
    """
    called = np.flatnonzero(rows["is_de_fdr"].to_numpy(dtype=bool))
    change = rows["lfc_mean"].to_numpy(dtype=np.float64)
    ordered = called[np.lexsort((-np.abs(change[called]), -height[called]))]
    up, down = ordered[change[ordered] > 0], ordered[change[ordered] <= 0]
    n_down = min(len(down), max(n_genes // 2, n_genes - len(up)))
    chosen = np.isin(ordered, np.concatenate([up[: n_genes - n_down], down[:n_down]]))
    return ordered[chosen].astype(np.int64)
