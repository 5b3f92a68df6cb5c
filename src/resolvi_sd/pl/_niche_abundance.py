"""Plot of the neighborhoods of the cells of each group, and of how the groups differ."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from resolvi_sd._keys import DEFAULT_KEY, Keys
from resolvi_sd._tables import resolve_table
from resolvi_sd._validation import check_result, listing
from resolvi_sd.pl._colored_groups import ColoredGroups, read_colored_groups
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
from resolvi_sd.pl._draw import ColorScale
from resolvi_sd.pl._figures import (
    check_figure,
    finish_figure,
    given_axes,
    label_inches,
    panel_titles,
    scaled,
    title_panels,
    wrapped,
)
from resolvi_sd.pl._panels import add_colorbar

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from spatialdata import SpatialData

__all__ = ["niche_abundance"]

_COLUMNS = ("label", "lfc_mean", "lfc_low", "lfc_high", "is_da_fdr", "groupby", "labels_key", "weighting")
_COMPOSITION = "mean neighborhood"
# In inches: a row, the margins above and below the rows, a column of the heatmap, the margins beside the columns
# without the names, the panel of a comparison, and the smallest room for names; the largest for those of a column.
_ROW, _ROW_MARGIN, _COLUMN, _COLUMN_MARGIN, _PANEL, _LEAST_NAME = 0.28, 0.7, 0.42, 1.4, 1.8, 0.8
_LONGEST_NAME = 2.0
# A heatmap is at least this many columns wide, which leaves room for its color bar.
_FEWEST_COLUMNS = 3
_FONTSIZE = 10
_PER_ROW = 6


@shared_docs
def niche_abundance(
    data: SpatialData | AnnData,
    *,
    groupby: str | None = None,
    group1: str | Sequence[str] | None = None,
    table_key: str = "table",
    key_added: str = DEFAULT_KEY,
    ax: Axes | Sequence[Axes] | None = None,
    figsize: tuple[float, float] | None = None,
    cmap: str | Colormap = "viridis",
    title: str | Sequence[str] | None = None,
    save: str | Path | None = None,
    return_ax: bool = False,
) -> list[Axes] | None:
    """Draw the composition of the neighborhoods of groups of cells, and how the groups differ.

    The first panel shows the mean share (%) of each label among the neighbors of the cells of each group. If
    :func:`resolvi_sd.tl.differential_niche_abundance` compared these groups by the same labels, one panel per
    comparison follows, with the same rows: the mean log2 fold change of the share with its 95 % interval (`lfc_low` to
    `lfc_high`). Dots are filled if the change was called at the false discovery rate of the test: vermilion if the
    label is more abundant around the first group, blue if it is less abundant. The false discovery rate is that of all
    calls of a comparison together, so the interval of a single call may include zero.

    Parameters
    ----------
    {data}
        :func:`resolvi_sd.tl.niche_abundance` or :func:`resolvi_sd.tl.differential_niche_abundance` must also have
        been run.
    groupby
        Column of `obs` with the groups; cells without a value are left out. None: the groups that were compared.
    group1
        Comparisons to draw, given by their first group, in this order. None: all of groups in `groupby`, if any.
    {table}
    {axes}
    cmap
        Colormap of the shares.
    {end}

    Returns
    -------
    The axes, with that of the composition first, if `return_ax`, otherwise None.

    Raises
    ------
    KeyError
        If the table, the result, the column or a requested comparison does not exist.
    ValueError
        If the names of the labels do not match the result, a group has no cell with a niche, the requested comparisons
        are of other labels, or the number of axes or titles differs from that of panels.

    Examples
    --------
    >>> import resolvi_sd as rsd
    >>> sdata = rsd.datasets.simulate_tissue(n_cells=300, n_genes=40, rng=0)
    >>> rsd.tl.fit(sdata, max_epochs=2, show_progress_bar=False)
    >>> rsd.tl.niche_abundance(sdata, labels_key="cell_type")
    >>> axes = rsd.pl.niche_abundance(sdata, groupby="domain", return_ax=True)
    >>> [label.get_text() for label in axes[0].get_yticklabels()][:2]
    ['type_0', 'type_1']
    """
    adata = resolve_table(data, table_key)
    keys = Keys(key_added)
    niche, labels = _read_niche(adata, keys)
    if groupby is None:
        if keys.dna not in adata.uns:
            raise ValueError(
                "No groups have been compared yet: name the column of `obs` with the groups to draw, groupby=..., or "
                "run `resolvi_sd.tl.differential_niche_abundance` first."
            )
        groupby = str(adata.uns[keys.dna]["groupby"].iloc[0])
    groups = read_colored_groups(adata, groupby, argument="groupby", palette=None)
    composition = 100 * _mean_niche(niche, groups)
    comparisons = _find_comparisons(adata, keys, groups, group1)
    check_figure(figsize, save)
    names = [_COMPOSITION, *(comparison.name for comparison in comparisons)]
    titles = panel_titles(names, title)
    columns = [wrapped(name, _LONGEST_NAME, fontsize=_FONTSIZE) for name in groups.names]
    scale = ColorScale.of(composition, cmap, (0.0, float(composition.max())), "share (%)")
    axes = _make_axes(labels, columns, len(comparisons), figsize) if ax is None else given_axes(ax, names)
    lines = [wrapped(text, _PANEL, fontsize=_FONTSIZE) for text in titles]
    title_panels(axes, lines, title, fontsize="medium")
    _draw_composition(axes[0], composition, labels, groups.key, columns, scale)
    for panel, comparison in zip(axes[1:], comparisons, strict=True):
        _draw_comparison(panel, comparison.rows, labels)
        if ax is not None:
            panel.tick_params(labelleft=False)  # all panels have the same rows
    finish_figure(axes, save)
    return axes if return_ax else None


def _read_niche(adata: AnnData, keys: Keys) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    tool = keys.call("niche_abundance")
    check_result(keys.niche, adata.obsm, where="table.obsm", tool=tool)
    check_result(keys.niche_labels, adata.uns, where="table.uns", tool=tool)
    niche = np.asarray(adata.obsm[keys.niche], dtype=np.float64)
    labels = tuple(str(name) for name in adata.uns[keys.niche_labels])
    if niche.shape[1] != len(labels):
        raise ValueError(
            f"`table.obsm[{keys.niche!r}]` has {niche.shape[1]} columns, but `table.uns[{keys.niche_labels!r}]` names "
            f"{len(labels)}: {listing(labels)}. Please run `{keys.call('niche_abundance')}` again."
        )
    around = np.flatnonzero(np.nansum(niche, axis=0) > 0)  # a category may be left from removed cells
    return niche[:, around], tuple(labels[column] for column in around)


def _mean_niche(niche: NDArray[np.float64], groups: ColoredGroups) -> NDArray[np.float64]:
    """Return the mean share of each label around the cells of each group, labels × groups."""
    known = ~np.isnan(niche).any(axis=1)
    members = [known & (groups.codes == code) for code in range(len(groups.names))]
    empty = [name for name, rows in zip(groups.names, members, strict=True) if not rows.any()]
    if empty:
        raise ValueError(f"groupby={groups.key!r}: no cell has labeled neighbors in the groups {listing(empty)}.")
    return np.column_stack([niche[rows].mean(axis=0) for rows in members])


def _find_comparisons(
    adata: AnnData, keys: Keys, groups: ColoredGroups, group1: str | Sequence[str] | None
) -> list[ComparisonResult]:
    if group1 is None and keys.dna not in adata.uns:
        return []
    tool = keys.call("differential_niche_abundance")
    comparisons = read_comparisons(adata, keys.dna, columns=_COLUMNS, tool=tool)
    groupby, *compared = (str(adata.uns[keys.dna][name].iloc[0]) for name in ("groupby", "labels_key", "weighting"))
    drawn = [str(adata.uns.get(key, "")) for key in (keys.niche_labels_key, keys.niche_weighting)]
    if group1 is None and (groupby, compared) != (groups.key, drawn):
        return []
    if compared != drawn:
        raise ValueError(
            f"`table.uns[{keys.dna!r}]` compares shares of the labels of {_described(*compared)}, but the shares "
            f"drawn are those of {_described(*drawn)}. Run `resolvi_sd.tl.differential_niche_abundance` for these, or "
            "leave `group1` out."
        )
    chosen = choose_comparisons(comparisons, group1, where=f"table.uns[{keys.dna!r}]['group1']")
    warn_of_lost_cells(adata, chosen, key=keys.dna, tool=tool)
    return chosen


def _described(labels_key: str, weighting: str) -> str:
    return f"{f'obs[{labels_key!r}]' if labels_key else 'the fit'} (weighting={weighting!r})"


def _make_axes(
    labels: Sequence[str], groups: Sequence[str], n_comparisons: int, figsize: tuple[float, float] | None
) -> list[Axes]:
    """Return the panel of the composition and, beside it and in further rows below it, those of the comparisons."""
    import matplotlib.pyplot as plt

    heat = _COLUMN * max(len(groups), _FEWEST_COLUMNS)
    beside, below = (max(label_inches(names, fontsize=_FONTSIZE), _LEAST_NAME) for names in (labels, groups))
    span = math.ceil(heat / _PANEL)
    n_columns = max(_PER_ROW + 1, span)
    if n_comparisons <= _PER_ROW:
        widths = [[heat] + [_PANEL] * n_comparisons]
    else:
        n_below = math.ceil((span + n_comparisons) / n_columns) - 1
        widths = [[span * _PANEL] + [_PANEL] * (n_columns - span)] + [[_PANEL] * n_columns] * n_below
    height = _ROW * len(labels) + _ROW_MARGIN
    heights = [height + below] + [height + _LEAST_NAME] * (len(widths) - 1)
    figure = plt.figure(figsize=figsize or scaled(sum(widths[0]) + _COLUMN_MARGIN + beside, sum(heights)))
    figure.set_layout_engine("constrained", w_pad=0.08)
    # Each row has a grid of its own, so that the color bar takes room in the first only.
    grid = figure.add_gridspec(len(widths), 1, height_ratios=heights)
    axes: list[Axes] = []
    for row, columns in enumerate(widths):
        places = grid[row].subgridspec(1, len(columns), width_ratios=columns)
        for column in range(min(len(columns), 1 + n_comparisons - len(axes))):
            axes.append(figure.add_subplot(places[0, column], sharey=axes[0] if axes else None))
            axes[-1].tick_params(labelleft=column == 0)
    return axes


def _draw_composition(
    ax: Axes,
    composition: NDArray[np.float64],
    labels: Sequence[str],
    groupby: str,
    columns: Sequence[str],
    scale: ColorScale,
) -> None:
    ax.imshow(composition, cmap=scale.cmap, norm=scale.norm, aspect="auto", interpolation="nearest")
    for row, column in np.ndindex(composition.shape):
        share = float(composition[row, column])
        ax.text(column, row, f"{share:.0f}", ha="center", va="center", fontsize=7, color=scale.text_color(share))
    ax.set_xticks(np.arange(len(columns)), columns, rotation=90)
    ax.set_yticks(np.arange(len(labels)), labels)
    ax.set(xlabel=groupby, ylabel="label of the neighbors")
    add_colorbar([ax], scale, width=max(0.05, 0.3 / max(len(columns), _FEWEST_COLUMNS)))


def _draw_comparison(ax: Axes, rows: pd.DataFrame, labels: Sequence[str]) -> None:
    place = {name: row for row, name in enumerate(labels)}
    known = rows[rows["label"].astype(str).isin(place)]
    row = np.array([place[str(name)] for name in known["label"]])
    change, low, high = (known[name].to_numpy(dtype=np.float64) for name in ("lfc_mean", "lfc_low", "lfc_high"))
    called = known["is_da_fdr"].to_numpy(dtype=bool)
    color = np.where(~called, NOT_CALLED, np.where(change > 0, UP, DOWN)).tolist()
    filled = [shade if yes else gray(1) for shade, yes in zip(color, called, strict=True)]
    ax.axvline(0, color=gray(0.85), linewidth=0.8, zorder=0)
    ax.hlines(row, low, high, color=color, linewidth=1.5, zorder=1)
    ax.scatter(change, row, s=30, c=filled, edgecolors=color, linewidths=1.5, zorder=2)
    ax.set_yticks(np.arange(len(labels)), labels)
    ax.set(ylim=(len(labels) - 0.5, -0.5), xlabel="log2 FC of the share\n(95 % interval)")
    ax.spines[["top", "right"]].set_visible(False)
