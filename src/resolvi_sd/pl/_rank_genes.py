"""Plot of the genes that distinguish groups: size and certainty of the change, and share of cells with the gene."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from resolvi_sd._keys import DEFAULT_KEY, Keys
from resolvi_sd._ratio import ratio
from resolvi_sd._tables import resolve_table
from resolvi_sd._validation import check_positive_int
from resolvi_sd.pl._colors import gray
from resolvi_sd.pl._comparisons import choose_comparisons, read_comparisons, warn_of_lost_cells
from resolvi_sd.pl._docs import shared_docs
from resolvi_sd.pl._draw import ColorScale
from resolvi_sd.pl._figures import check_figure, figure_of, finish_figure, label_inches, open_panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from spatialdata import SpatialData

__all__ = ["rank_genes"]

_COLUMNS = ("gene", "proba_de", "lfc_mean", "lfc_std", "is_de_fdr", "corrected_fraction1")
_ROW_HEIGHT, _MARGIN, _N_COLUMNS = 0.22, 0.9, 4
# Width of a panel beside the names of its genes, and at least of both together, in inches.
_BESIDE_NAMES, _LEAST_WIDTH = 2.0, 2.7
# Smallest height of a panel, which leaves room for the label of the color bar, in rows.
_LEAST_ROWS = 10
# Largest length of the color bar, its width, and its distance from the panels, in inches.
_BAR = (4.0, 0.15)
_PAD = 0.2
# Areas of the dots of genes detected in no cell and in all cells, in points squared.
_AREAS = (6.0, 110.0)
_LEGEND_FRACTIONS = (0.1, 0.5, 1.0)


@shared_docs
def rank_genes(
    data: SpatialData | AnnData,
    *,
    group1: str | Sequence[str] | None = None,
    n_genes: int = 10,
    table_key: str = "table",
    key_added: str = DEFAULT_KEY,
    ax: Axes | Sequence[Axes] | None = None,
    figsize: tuple[float, float] | None = None,
    cmap: str | Colormap = "viridis",
    title: str | Sequence[str] | None = None,
    save: str | Path | None = None,
    return_ax: bool = False,
) -> list[Axes] | None:
    """Draw the top genes of each group, with the spread of their log fold changes.

    There is one panel per comparison. A dot shows the mean log2 fold change between the group means as drawn by
    :func:`resolvi_sd.tl.differential_expression`, with a bar of one standard deviation of the draws to either side. The
    color is the probability of the change, a dark rim marks genes that were called at the false discovery rate of the
    test, and the area of the dot grows with the fraction of the group's cells in which the gene is detected in the
    corrected counts. Genes are in the order of `uns['resolvi_rank_genes_groups']`, by mean over standard deviation, so
    that `scanpy.pl.rank_genes_groups_dotplot`, which needs groups named by text, shows the same genes.

    Parameters
    ----------
    {data}
        :func:`resolvi_sd.tl.differential_expression` must also have been run.
    group1
        Comparisons to draw, given by their first group, in this order. None: all comparisons.
    n_genes
        Number of genes in each panel.
    {table}
    {axes}
    cmap
        Colormap of the probabilities.
    {end}

    Returns
    -------
    The axes, one per comparison, if `return_ax`, otherwise None.

    Raises
    ------
    KeyError
        If the table, the result or a group does not exist.
    ValueError
        If `n_genes` is below one, the result lacks columns, or there is a wrong number of axes or titles.

    Examples
    --------
    >>> import resolvi_sd as rsd
    >>> sdata = rsd.datasets.simulate_tissue(n_cells=300, n_genes=40, rng=0)
    >>> rsd.tl.fit(sdata, max_epochs=2, show_progress_bar=False)
    >>> rsd.tl.differential_expression(sdata, groupby="domain", n_samples=100, show_progress_bar=False)
    >>> axes = rsd.pl.rank_genes(sdata, group1=["domain_0", "domain_1"], n_genes=5, return_ax=True)
    >>> len(axes), len(axes[0].get_yticklabels())
    (2, 5)
    """
    adata = resolve_table(data, table_key)
    keys = Keys(key_added)
    check_positive_int(n_genes, argument="n_genes")
    tool = keys.call("differential_expression")
    comparisons = read_comparisons(adata, keys.de, columns=_COLUMNS, tool=tool)
    comparisons = choose_comparisons(comparisons, group1, where=f"table.uns[{keys.de!r}]['group1']")
    warn_of_lost_cells(adata, comparisons, key=keys.de, tool=tool)
    tops = [_top_genes(comparison.rows, n_genes) for comparison in comparisons]
    probability = np.concatenate([top["proba_de"].to_numpy(dtype=np.float64) for top in tops])
    low = min(np.floor(10 * float(probability.min())) / 10, 0.9)
    scale = ColorScale.of(probability, cmap, (low, 1.0), "probability of the change")
    check_figure(figsize, save)
    names = label_inches([str(gene) for top in tops for gene in top["gene"]], fontsize=10)
    height = _ROW_HEIGHT * max(_LEAST_ROWS, *(len(top) for top in tops)) + _MARGIN
    axes = open_panels(
        [comparison.name for comparison in comparisons],
        ax=ax,
        size=(max(_BESIDE_NAMES + names, _LEAST_WIDTH), height),
        figsize=figsize,
        title=title,
        n_columns=_N_COLUMNS,
        labels=names,
    )
    for panel, top in zip(axes, tops, strict=True):
        _draw_panel(panel, top, scale)
    _add_legends(axes, scale, beside=ax is None)
    finish_figure(axes, save)
    return axes if return_ax else None


def _top_genes(rows: pd.DataFrame, n_genes: int) -> pd.DataFrame:
    change, spread = (rows[name].to_numpy(dtype=np.float64) for name in ("lfc_mean", "lfc_std"))
    score = ratio(change, spread, otherwise=0.0)
    return rows.iloc[np.argsort(-score, kind="stable")[:n_genes]]


def _draw_panel(ax: Axes, top: pd.DataFrame, scale: ColorScale) -> None:
    change, spread = (top[name].to_numpy(dtype=np.float64) for name in ("lfc_mean", "lfc_std"))
    fraction = top["corrected_fraction1"].to_numpy(np.float64)
    called = top["is_de_fdr"].to_numpy(dtype=bool)
    row = np.arange(len(top))
    ax.axvline(0, color=gray(0.85), linewidth=0.8, zorder=0)
    ax.hlines(row, change - spread, change + spread, color=gray(0.6), linewidth=1.5, zorder=1)
    ax.scatter(
        change,
        row,
        s=_areas(fraction),
        c=top["proba_de"].to_numpy(np.float64),
        cmap=scale.cmap,
        norm=scale.norm,
        edgecolors=[gray(0) if yes else "none" for yes in called],
        linewidths=1.2,
        zorder=2,
    )
    ax.set_yticks(row, top["gene"].astype(str))
    ax.margins(x=0.1)  # keeps the largest dots from being cut
    ax.set(ylim=(len(top) - 0.4, -0.6), xlabel="log2 FC (mean ± SD)")
    ax.spines[["top", "right"]].set_visible(False)


def _areas(fraction: NDArray[np.float64]) -> NDArray[np.float64]:
    return _AREAS[0] + (_AREAS[1] - _AREAS[0]) * fraction


def _add_legends(axes: list[Axes], scale: ColorScale, *, beside: bool) -> None:
    """Explain color, size and rim, beside the panels of a new figure or in the last of the given ones."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.lines import Line2D

    figure = figure_of(axes[0])
    areas = np.sqrt(_areas(np.array(_LEGEND_FRACTIONS)))
    handles = [
        Line2D(
            [],
            [],
            linestyle="",
            marker="o",
            color=gray(0.6),
            markeredgewidth=0,
            markersize=size,
            label=f"in {fraction:.0%} of cells",
        )
        for fraction, size in zip(_LEGEND_FRACTIONS, areas, strict=True)
    ]
    handles.append(Line2D([], [], linestyle="", marker="o", color=gray(0.6), markeredgecolor=gray(0), markersize=7,
                          markeredgewidth=1.2, label="called"))  # fmt: skip
    if beside:
        height = figure.get_size_inches()[1]
        length = min(height, _BAR[0])
        figure.colorbar(
            ScalarMappable(scale.norm, scale.cmap),
            ax=axes,
            label=scale.label,
            shrink=length / height,
            aspect=length / _BAR[1],
            anchor=(0.0, 1.0),
            pad=_PAD / figure.get_figwidth(),
        )
        n_columns = len(axes) if len(axes) < 3 else len(handles)  # no wider than the panels
        figure.legend(handles=handles, loc="outside lower center", ncols=n_columns, frameon=False)
    else:
        figure.colorbar(ScalarMappable(scale.norm, scale.cmap), ax=axes, label=scale.label)
        axes[-1].legend(handles=handles, fontsize="small")
