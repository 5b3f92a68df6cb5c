"""Calibration plot: predicted against true shares, and the coverage of posterior intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from resolvi_sd._keys import DEFAULT_KEY, Keys
from resolvi_sd._tables import resolve_table
from resolvi_sd._validation import check_key, check_positive_int, listing
from resolvi_sd.metrics import calibration as compare_shares
from resolvi_sd.pl._colors import BLUE, GREEN, PURPLE, VERMILION, gray
from resolvi_sd.pl._docs import shared_docs
from resolvi_sd.pl._figures import check_figure, finish_figure, open_panels
from resolvi_sd.pl._results import SHARE_TITLES, fit_record, read_shares

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

__all__ = ["calibration"]

_TRUE_KEYS = ("true_own_share", "true_leaked_share", "true_background_share")
_COLUMNS = ("level", "coverage", "standard_error")
_COVERAGE_TITLE = "intervals"
# Share of the cells that may lie outside a panel, so that single cells do not determine its range.
_BEYOND = 0.005
_PIXELS = 50  # pixels of the density across a panel
_PANEL = (3.0, 3.2)  # inches
_COLORS = (VERMILION, BLUE, GREEN, PURPLE)
_MARKERS = ("o", "s", "^", "D")


@shared_docs
def calibration(
    data: SpatialData | AnnData,
    *,
    true_keys: Sequence[str] = _TRUE_KEYS,
    coverage: pd.DataFrame | Mapping[str, pd.DataFrame] | None = None,
    n_bins: int = 10,
    table_key: str = "table",
    key_added: str = DEFAULT_KEY,
    ax: Axes | Sequence[Axes] | None = None,
    figsize: tuple[float, float] | None = None,
    title: str | Sequence[str] | None = None,
    save: str | Path | None = None,
    return_ax: bool = False,
) -> list[Axes] | None:
    """Draw the predicted against the true shares of each cell in simulated tissue.

    The three panels (own, from neighbors and background) show the number of cells with each pair of values (darker
    means more), the mean true share in bins of the predicted share with two standard errors, and the dashed line on
    which perfect predictions would lie. The numbers are those of :func:`resolvi_sd.metrics.calibration` over all cells
    with counts; ECE is the expected calibration error. Each panel has its own range, and at most 0.5 % of the cells lie
    beyond either end of it. With `coverage`, a fourth panel shows how many true values the posterior intervals contain,
    by nominal level.

    Parameters
    ----------
    {data}
    true_keys
        Columns of `obs` with the true own, leaked and background shares.
    coverage
        Result of :func:`resolvi_sd.metrics.coverage` at several levels, or a mapping of names to at most four of them.
    n_bins
        Number of bins of the predicted share, from 0 to 1.
    {table}
    {axes}
    {end}

    Returns
    -------
    The axes if `return_ax`, otherwise None.

    Raises
    ------
    KeyError
        If the table, the fit, its shares, or a column with the truth does not exist.
    TypeError
        If a column with the truth holds no numbers, or `coverage` is no table.
    ValueError
        If the values are not shares, `coverage` is not a result of that function, or the number of axes or titles
        differs from that of panels.

    Examples
    --------
    >>> import anndata, numpy as np, resolvi_sd as rsd
    >>> from matplotlib.figure import Figure
    >>> table = anndata.AnnData(np.ones((3, 2), dtype="float32"))
    >>> table.obs[["true_own_share", "true_leaked_share", "true_background_share"]] = [[0.7, 0.2, 0.1]] * 3
    >>> table.obs[["resolvi_true", "resolvi_diffusion", "resolvi_background"]] = [[0.8, 0.15, 0.05]] * 3
    >>> table.uns["resolvi"] = {"history": {}}  # a fit writes this and the shares
    >>> axes = rsd.pl.calibration(table, ax=list(Figure().subplots(1, 3)), return_ax=True)
    >>> axes[0].get_xlabel(), axes[0].get_ylabel()
    ('predicted share', 'true share')
    """
    adata = resolve_table(data, table_key)
    keys = Keys(key_added)
    fit_record(adata, keys)
    n_bins = check_positive_int(n_bins, argument="n_bins")
    predicted, true = read_shares(adata, keys), _read_truth(adata, true_keys)
    curves = _read_coverage(coverage)
    results = [compare_shares(x, y, n_bins=n_bins) for x, y in zip(predicted, true, strict=True)]
    check_figure(figsize, save)
    names = [*SHARE_TITLES, *([_COVERAGE_TITLE] if curves else [])]
    axes = open_panels(names, ax=ax, size=_PANEL, figsize=figsize, title=title, n_columns=len(names))
    for panel, x, y, result in zip(axes, predicted, true, results, strict=False):
        _draw_density(panel, x, y)
        bins = result.bins
        panel.errorbar(
            bins["predicted"],
            bins["true"],
            yerr=2 * bins["standard_error"].fillna(0.0),
            color=_COLORS[0],
            marker="o",
            markersize=4,
            linewidth=1.2,
        )
        _write_numbers(panel, f"ECE {result.error:.3f}\nbias {result.bias:+.3f}\nslope {result.slope:.2f}")
    axes[0].set_ylabel("true share")
    if curves:
        _draw_coverage(axes[-1], curves)
    finish_figure(axes, save)
    return axes if return_ax else None


def _read_truth(adata: AnnData, true_keys: Sequence[str]) -> list[NDArray[np.float64]]:
    if isinstance(true_keys, str) or len(true_keys) != len(_TRUE_KEYS):
        raise ValueError(f"`true_keys` must name three columns, own, leaked and background, not {true_keys!r}.")
    for key in true_keys:
        check_key(
            key,
            adata.obs.columns,
            argument="true_keys",
            where="table.obs",
            hint="Simulated tissue has the truth, see `resolvi_sd.datasets`.",
        )
        if not pd.api.types.is_numeric_dtype(adata.obs[key]):
            raise TypeError(f"`true_keys`: obs[{key!r}] must hold shares, but its type is {adata.obs[key].dtype}.")
    return [adata.obs[key].to_numpy(dtype=np.float64) for key in true_keys]


def _read_coverage(coverage: pd.DataFrame | Mapping[str, pd.DataFrame] | None) -> dict[str, pd.DataFrame]:
    """Return the curves to draw by name; the name of a single one is empty."""
    if coverage is None:
        return {}
    if not isinstance(coverage, pd.DataFrame | Mapping):
        raise TypeError(
            "`coverage` must be a result of `resolvi_sd.metrics.coverage`, or a mapping of names to several, not "
            f"{coverage!r}."
        )
    curves = {"": coverage} if isinstance(coverage, pd.DataFrame) else dict(coverage)
    if not 1 <= len(curves) <= len(_COLORS):
        raise ValueError(f"`coverage` must hold 1 to {len(_COLORS)} tables, not {len(curves)}.")
    for name, curve in curves.items():
        missing = [column for column in _COLUMNS if not isinstance(curve, pd.DataFrame) or column not in curve]
        if missing:
            raise ValueError(
                f"`coverage`{f' {name!r}' if name else ''} must be a result of `resolvi_sd.metrics.coverage`, but "
                f"lacks {listing(missing)}."
            )
    return curves


def _draw_density(ax: Axes, predicted: NDArray[np.float64], true: NDArray[np.float64]) -> None:
    """Draw the number of cells by predicted and true share, and the identity line."""
    from matplotlib.colors import PowerNorm

    known = np.isfinite(predicted) & np.isfinite(true)
    pair = np.stack([predicted[known], true[known]])
    low = max(float(np.quantile(pair, _BEYOND, axis=1).min()) - 0.02, 0.0)
    high = min(float(np.quantile(pair, 1 - _BEYOND, axis=1).max()) + 0.02, 1.0)
    n_cells, edges, _ = np.histogram2d(pair[0], pair[1], bins=_PIXELS, range=[[low, high], [low, high]])
    # The square root keeps single cells visible beside the thousands in the middle. The fullest pixels do not set the
    # scale, since they may be a heap of cells without background in a corner.
    full = float(np.quantile(n_cells[n_cells > 0], 0.99)) if n_cells.any() else 1.0
    ax.pcolormesh(
        edges,
        edges,
        np.ma.masked_equal(n_cells.T, 0),
        cmap="Greys",
        norm=PowerNorm(0.5, vmin=0, vmax=1.5 * full),
        rasterized=True,
    )
    _draw_identity(ax, low, high)
    ax.set(xlabel="predicted share")


def _draw_coverage(ax: Axes, curves: Mapping[str, pd.DataFrame]) -> None:
    for (name, curve), color, marker in zip(curves.items(), _COLORS, _MARKERS, strict=False):
        ordered = curve.sort_values("level")
        ax.errorbar(
            ordered["level"],
            ordered["coverage"],
            yerr=2 * ordered["standard_error"],
            color=color,
            marker=marker,
            markersize=4,
            linewidth=1.2,
            label=name,
        )
    _draw_identity(ax, 0.0, 1.0)
    ax.set(xlabel="nominal level", ylabel="truths inside")
    if any(curves):
        ax.legend(loc="upper left", frameon=False, fontsize="small")


def _draw_identity(ax: Axes, low: float, high: float) -> None:
    """Draw the dashed line of equal values, and give x and y the same range, scale and ticks."""
    from matplotlib.ticker import MaxNLocator

    ax.plot([low, high], [low, high], color=gray(0.2), linewidth=1, linestyle="--", zorder=1.5)
    ax.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    ax.spines[["top", "right"]].set_visible(False)


def _write_numbers(ax: Axes, text: str) -> None:
    """Write a text into the corner above the dashed line, over cells that may be there."""
    ax.annotate(
        text.replace("-", "−"),
        (0, 1),
        (5, -4),
        xycoords="axes fraction",
        textcoords="offset points",
        va="top",
        fontsize="small",
        bbox={"facecolor": gray(1), "alpha": 0.7, "edgecolor": "none", "pad": 1.0},
    )
