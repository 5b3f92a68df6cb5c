"""Plot of the distributions of own, diffused and background shares over the cells of groups."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from resolvi_sd._keys import DEFAULT_KEY, Keys
from resolvi_sd._tables import resolve_table
from resolvi_sd.pl._colored_groups import ColoredGroups, Palette, one_colored_group, read_colored_groups
from resolvi_sd.pl._docs import shared_docs
from resolvi_sd.pl._figures import check_figure, finish_figure, label_inches, open_panels
from resolvi_sd.pl._results import SHARE_TITLES, read_shares

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

__all__ = ["shares"]

# Share of the cells of a group that may lie beyond either end of an axis, so that single cells do not set its range.
_BEYOND = 0.005
# Bins of the densities across a panel, and maximum number of bins from 0 to 1.
_BINS, _MOST_BINS = 400, 20_000
# Half the height of a distribution at its peak; rows are 1 apart.
_HALF_HEIGHT = 0.42
# Groups of fewer cells than this are drawn without a density.
_FEW = 10
_ROW_HEIGHT, _PANEL_WIDTH, _MARGIN, _NAMES = 0.32, 3.0, 1.0, 1.5  # inches; the last is the width reserved for names
_FONTSIZE = 10


@shared_docs
def shares(
    data: SpatialData | AnnData,
    *,
    groupby: str | None = None,
    table_key: str = "table",
    key_added: str = DEFAULT_KEY,
    ax: Axes | Sequence[Axes] | None = None,
    figsize: tuple[float, float] | None = None,
    palette: Palette | None = None,
    title: str | Sequence[str] | None = None,
    save: str | Path | None = None,
    return_ax: bool = False,
) -> list[Axes] | None:
    """Draw the distributions of the own, diffused and background shares over the cells of each group.

    The three panels (own, from neighbors and background) have one row per group: the density of the cells, scaled to
    the same height in all rows, with a bar from the first to the third quartile and a dot at the median; for fewer than
    ten cells, one dot per cell instead of the density. The number of cells is in parentheses; cells without counts have
    no shares and are left out. Each panel has its own range, and at most 0.5 % of the cells of a group lie beyond
    either end of it.

    Parameters
    ----------
    {data}
    groupby
        Column of `obs` with the groups, such as cell types or samples; cells without a value are left out. None: all
        cells together.
    {table}
    {axes}
    {palette}
    {end}

    Returns
    -------
    The three axes if `return_ax`, otherwise None.

    Raises
    ------
    KeyError
        If the table, the fit, its shares or the column does not exist.
    ValueError
        If no cell has shares and a group, or there is a wrong number of axes, titles or colors.

    Examples
    --------
    >>> import anndata, numpy as np, resolvi_sd as rsd
    >>> from matplotlib.figure import Figure
    >>> table = anndata.AnnData(np.ones((4, 2), dtype="float32"))
    >>> table.obs["sample"] = ["a", "a", "b", "b"]
    >>> table.obs[["resolvi_true", "resolvi_diffusion", "resolvi_background"]] = [[0.8, 0.15, 0.05]] * 4
    >>> table.uns["resolvi"] = {"history": {}}  # a fit writes this and the shares
    >>> axes = rsd.pl.shares(table, groupby="sample", ax=list(Figure().subplots(1, 3)), return_ax=True)
    >>> [label.get_text() for label in axes[0].get_yticklabels()]
    ['a (2)', 'b (2)']
    """
    adata = resolve_table(data, table_key)
    keys = Keys(key_added)
    values = np.column_stack(read_shares(adata, keys))
    groups = one_colored_group(adata.n_obs, "all cells")
    if groupby is not None:
        groups = read_colored_groups(adata, groupby, argument="groupby", palette=palette)
    usable = np.isfinite(values).all(axis=1) & (groups.codes >= 0)
    if not usable.any():
        raise ValueError("There is nothing to draw: no cell has shares" + (f" and a {groupby}." if groupby else "."))
    check_figure(figsize, save)
    size = (_PANEL_WIDTH, _ROW_HEIGHT * len(groups.names) + _MARGIN)
    axes = open_panels(
        SHARE_TITLES,
        ax=ax,
        size=size,
        figsize=figsize,
        title=title,
        n_columns=len(SHARE_TITLES),
        sharey=True,
        beside=max(0.0, label_inches(groups.names, fontsize=_FONTSIZE) - _NAMES),
    )
    for panel, share in zip(axes, values.T, strict=True):
        _draw_panel(panel, share[usable], groups, groups.codes[usable])
    axes[0].set_ylabel(groups.key)
    for panel in axes[1:]:
        panel.tick_params(labelleft=False)  # all panels have the same rows
    finish_figure(axes, save)
    return axes if return_ax else None


def _draw_panel(ax: Axes, share: NDArray[np.float64], groups: ColoredGroups, codes: NDArray[np.int64]) -> None:
    from matplotlib.ticker import MaxNLocator

    members = [share[codes == row] for row in range(len(groups.names))]
    low, high = _limits([values for values in members if values.size])
    for row, (values, color) in enumerate(zip(members, groups.colors, strict=True)):
        if values.size:
            _draw_row(ax, row, values, color, n_bins=min(int(_BINS / (high - low)), _MOST_BINS))
    labels = [f"{name} ({values.size:,})" for name, values in zip(groups.names, members, strict=True)]
    ax.set_yticks(np.arange(len(labels)), labels)
    ax.set(xlim=(low, high), ylim=(len(labels) - 0.5, -0.5), xlabel="share of molecules")
    ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.spines[["top", "right"]].set_visible(False)


def _draw_row(ax: Axes, row: int, values: NDArray[np.float64], color: NDArray[np.float64], *, n_bins: int) -> None:
    first, median, third = np.quantile(values, (0.25, 0.5, 0.75))
    if values.size < _FEW:
        ax.scatter(values, np.full(values.size, row), s=25, color=color, alpha=0.7, linewidths=0)
    else:
        middle = (np.arange(n_bins) + 0.5) / n_bins
        inside = (middle >= values.min() - 1 / n_bins) & (middle <= values.max() + 1 / n_bins)
        height = _HALF_HEIGHT * _density(values, n_bins)[inside]
        ax.fill_between(middle[inside], row - height, row + height, facecolor=color, edgecolor="0.25", linewidth=0.5)
        ax.plot([first, third], [row, row], color="0.15", linewidth=3, solid_capstyle="butt")
    ax.plot([median], [row], marker="o", markersize=4, color="white", markeredgecolor="0.15", markeredgewidth=0.8)


def _limits(members: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    """Return a range that contains nearly all cells of every group, at least a hundredth of that from 0 to 1."""
    low = float(min(np.quantile(values, _BEYOND) for values in members))
    high = float(max(np.quantile(values, 1 - _BEYOND) for values in members))
    margin = max(0.02 * (high - low), 0.005)
    return max(low - margin, 0.0), min(high + margin, 1.0)


def _density(values: NDArray[np.float64], n_bins: int) -> NDArray[np.float64]:
    """Return the density in equal bins from 0 to 1, scaled to a peak of 1.

    This is a histogram smoothed with Scott's bandwidth, which takes the same time for any number of cells. It is
    reflected at 0 and 1, as there are no shares beyond.
    """
    counts = np.histogram(values, n_bins, (0, 1))[0].astype(np.float64)
    bandwidth = 1.06 * float(values.std()) * values.size**-0.2
    smooth: NDArray[np.float64] = gaussian_filter1d(counts, max(bandwidth * n_bins, 1.0), mode="reflect")
    return np.asarray(smooth / smooth.max())
