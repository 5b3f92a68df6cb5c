"""Co-expression of exclusive genes before and after a correction, and how many molecules the right cells keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from resolvi_sd._analysis import CONTROL, CORRECTED, RAW
from resolvi_sd._keys import DEFAULT_KEY, Keys
from resolvi_sd._random import RandomLike
from resolvi_sd._tables import resolve_table
from resolvi_sd._validation import check_integer
from resolvi_sd.pl._coexpression_rates import Points, find_pairs, kept_genes, pair_rates, read_layers
from resolvi_sd.pl._colored_groups import read_colored_groups
from resolvi_sd.pl._colors import gray
from resolvi_sd.pl._docs import shared_docs
from resolvi_sd.pl._figures import check_figure, finish_figure, open_panels, settle_figure
from resolvi_sd.pl._labels import label_points
from resolvi_sd.pl._layers import layer_mark

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

__all__ = ["coexpression"]

_TITLES = ("exclusive genes in one cell", "the same genes in their own type")
_PANEL = (4.4, 4.4)  # inches
# On square-root axes: candidate ticks in order of priority, and the smallest distance between two ticks, as a fraction
# of the length of the axis.
_TICKS, _TICK_STEP = (0.0, 1.0, 5.0, 10.0, 20.0, 40.0, 60.0, 80.0, 100.0, 2.0, 0.1, 0.5, 15.0, 30.0, 90.0), 0.065
# Smallest range of molecules per cell that is shown, and range below which multiples of 2 and 5 have ticks besides the
# powers of ten.
_LEAST_RANGE, _WIDE_RANGE = 5.0, 100.0
_LEAST_RATE = 0.5  # %, up to which the axes of rates extend even if all rates are zero
_MEANS = 4  # order of drawing
_MOST_OPAQUE = 100  # number of points
_LINE_POINTS = 100  # points on the line of no change, which names should not cover


@shared_docs
def coexpression(
    data: SpatialData | AnnData,
    labels_key: str,
    *,
    pairs: pd.DataFrame | Sequence[tuple[str, str]] | None = None,
    markers: Mapping[str, Sequence[str]] | None = None,
    n_names: int = 3,
    corrected_layer: str | None = None,
    rng: RandomLike = 0,
    table_key: str = "table",
    key_added: str = DEFAULT_KEY,
    ax: Axes | Sequence[Axes] | None = None,
    figsize: tuple[float, float] | None = None,
    title: str | Sequence[str] | None = None,
    save: str | Path | None = None,
    return_ax: bool = False,
) -> list[Axes] | None:
    """Draw how often exclusive genes occur in the same cell before and after the correction, and what that cost.

    In the first panel, each point is a pair of genes of different cell types. It shows, among the cells with either
    gene, the share of cells with both, in the raw counts (x) and in the corrected counts (y, filled) or in raw counts
    from which as many molecules were removed at random (y, gray, :func:`resolvi_sd.metrics.depth_matched`). The further
    a point is below the dashed line, the more was removed; a reduction below the gray points exceeds chance. The axes
    have square-root scales, so that small rates can be distinguished while a constant ratio remains a straight line.
    Large marks are means.

    Deleting everything would also lower these rates. In the second panel, each point is therefore one of these genes in
    the cells of its own type, the type with the largest share of that gene among its raw molecules: raw molecules per
    cell (x), and how many of them were kept (y). Here, higher is better.

    Parameters
    ----------
    {data}
    labels_key
        Column of `obs` with the type of each cell, determined independently of the fit; cells without a value only
        count in the first panel.
    pairs
        Exclusive genes: the result of :func:`resolvi_sd.metrics.exclusive_pairs` on a reference, or pairs of names.
    markers
        For each type, the genes that it expresses and no other type does, instead of `pairs`. If both are None, genes
        that are exclusive in the raw counts are used, as in :func:`resolvi_sd.tl.audit`.
    n_names
        Number of pairs and of genes to name: the pairs with the highest corrected rate, and the genes of which the
        smallest share was kept. Names for which there is no room are left out.
    {corrected_layer}
    rng
        Seed or generator of the random removal.
    {table}
    {axes}
    {end}

    Returns
    -------
    The two axes if `return_ax`, otherwise None.

    Raises
    ------
    KeyError
        If the table, the fit, the column, the layer or a gene does not exist.
    ValueError
        If both `pairs` and `markers` are given, values in `corrected_layer` are not between 0 and the counts, there is
        only one type, there are no exclusive genes or no cell has them, `n_names` is negative, or the number of axes or
        titles differs from that of panels.

    Examples
    --------
    >>> import resolvi_sd as rsd
    >>> sdata = rsd.datasets.simulate_tissue(n_cells=300, n_genes=40, rng=0)
    >>> rsd.tl.fit(sdata, max_epochs=2, show_progress_bar=False)
    >>> axes = rsd.pl.coexpression(sdata, labels_key="cell_type", return_ax=True)
    >>> axes[0].get_xlabel(), axes[0].get_ylabel()
    ('raw (% of the cells with either)', 'after the removal (%)')
    """
    adata = resolve_table(data, table_key)
    check_integer(n_names, 0, argument="n_names")
    layers = read_layers(adata, Keys(key_added), corrected_layer, rng)
    groups = read_colored_groups(adata, labels_key, argument="labels_key", palette=None)
    chosen = find_pairs(layers[RAW], adata, groups, pairs, markers)
    rates, genes = pair_rates(layers, adata.var_names, chosen)
    kept = kept_genes(layers, adata.var_names, groups, genes)
    check_figure(figsize, save)
    axes = open_panels(_TITLES, ax=ax, size=_PANEL, figsize=figsize, title=title, n_columns=2)
    names = {CONTROL: "depth-matched", CORRECTED: corrected_layer or "corrected"}
    _draw_rates(axes[0], rates, names)
    _draw_kept(axes[1], kept, names)
    settle_figure(axes)  # settles limits and sizes of the panels
    unchanged = np.linspace(*axes[0].get_xlim(), _LINE_POINTS)
    _name_points(axes[0], rates, -rates.after[CORRECTED], n_names, avoid=np.column_stack([unchanged, unchanged]))
    _name_points(axes[1], kept, kept.after[CORRECTED], n_names, avoid=np.empty((0, 2)))
    finish_figure(axes, save)
    return axes if return_ax else None


def _draw_rates(ax: Axes, rates: Points, names: Mapping[str, str]) -> None:
    most = max(float(values.max()) for values in (rates.raw, *rates.after.values()))
    high = min(max(1.06 * most, _LEAST_RATE), 100.0)
    ax.plot([0, high], [0, high], color=gray(0.2), linewidth=1, linestyle="--", zorder=1)
    _draw_points(ax, rates, float(rates.raw.mean()), names)
    pairs = f"{len(rates.names):,} {'pair' if len(rates.names) == 1 else 'pairs'}"
    _add_legend(ax, f"mean of {pairs}\nraw: {_percent(float(rates.raw.mean()))}", "upper left")
    _set_roots(ax, high)
    ax.set(xlabel="raw (% of the cells with either)", ylabel="after the removal (%)", aspect="equal")


def _draw_kept(ax: Axes, kept: Points, names: Mapping[str, str]) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    ax.axhline(100, color=gray(0.2), linewidth=1, linestyle="--", zorder=1)
    # On a logarithmic axis, the mean of x is the geometric mean.
    _draw_points(ax, kept, float(np.exp(np.log(kept.raw).mean())), names)
    _add_legend(ax, f"mean of {len(kept.names):,} genes", "lower left")
    ax.set_xscale("log")
    low, high = float(kept.raw.min()), float(kept.raw.max())
    margin = max(1.15, (_LEAST_RANGE * low / high) ** 0.5)
    ax.set(xlim=(low / margin, high * margin), ylim=(0, 104))
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < _WIDE_RANGE * low else (1,)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set(xlabel="raw molecules per cell of the type", ylabel="kept (%)")


def _draw_points(ax: Axes, points: Points, middle: float, names: Mapping[str, str]) -> None:
    """Draw the values after both kinds of removal against the raw values, and their named means at x = `middle`."""
    alpha = float(np.clip(np.sqrt(_MOST_OPAQUE / len(points.names)), 0.25, 0.9))
    for layer in (CONTROL, CORRECTED):
        style = layer_mark(layer) | {"markersize": 4.5, "markeredgewidth": 0}
        ax.plot(*points.places(layer).T, linestyle="", alpha=alpha, clip_on=False, rasterized=True, **style)
    for layer in (CONTROL, CORRECTED):
        style = layer_mark(layer) | {"markersize": 9, "markeredgecolor": gray(0)}
        label = f"{names[layer]}: {_percent(points.mean(layer))}"
        ax.plot([middle], [points.mean(layer)], linestyle="", zorder=_MEANS, label=label, **style)
    ax.spines[["top", "right"]].set_visible(False)


def _add_legend(ax: Axes, title: str, place: Literal["upper left", "lower left"]) -> None:
    ax.legend(
        title=title,
        loc=place,
        frameon=False,
        fontsize="small",
        title_fontsize="small",
        alignment="left",
        handletextpad=0.3,
        borderaxespad=0.2,
    )


def _percent(value: float) -> str:
    return f"{value:.1f}%" if value >= 1 else f"{value:.2f}%"


def _set_roots(ax: Axes, high: float) -> None:
    """Scale both axes by the square root, which stretches small values and is defined at zero."""
    ax.set_xscale("function", functions=(_root, _square))
    ax.set_yscale("function", functions=(_root, _square))
    ticks: list[float] = []
    for tick in _TICKS:
        if tick <= high and all(abs(tick**0.5 - other**0.5) >= _TICK_STEP * high**0.5 for other in ticks):
            ticks.append(tick)
    for set_ticks in (ax.set_xticks, ax.set_yticks):
        set_ticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.set(xlim=(0, high), ylim=(0, high))


def _root(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.sign(values) * np.sqrt(np.abs(values))


def _square(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.sign(values) * np.square(values)


def _name_points(
    ax: Axes, points: Points, order: NDArray[np.float64], n_names: int, *, avoid: NDArray[np.float64]
) -> None:
    """Name the corrected points with the lowest values of `order`, as far as there is room."""
    chosen = np.argsort(order, kind="stable")[:n_names]
    means = np.concatenate([line.get_xydata() for line in ax.lines if line.get_zorder() == _MEANS])
    every = np.concatenate([points.places(CORRECTED), points.places(CONTROL), means, avoid])
    label_points(ax, every, chosen.tolist(), [points.names[i] for i in chosen], fontsize=7)
