"""Plot of what the removal of whole molecules costs and achieves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from resolvi_sd._analysis import MIN_OWN
from resolvi_sd._keys import DEFAULT_KEY, Keys
from resolvi_sd._tables import resolve_table
from resolvi_sd._validation import check_integer, check_result, listing
from resolvi_sd.pl._colors import VERMILION, gray
from resolvi_sd.pl._docs import shared_docs
from resolvi_sd.pl._figures import check_figure, finish_figure, open_ax, settle_figure
from resolvi_sd.pl._labels import label_points
from resolvi_sd.pl._results import fit_record, warn_of_other_cells

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

__all__ = ["decontamination"]

_SHARES = ("own_removed", "foreign_removed")
_TABLES = {"curve": ("level", *_SHARES), "genes": ("gene", "own", *_SHARES)}
_MARKED_LEVELS = (0.25, 0.5, 0.75)
# Share of own molecules up to which the axis extends at least; larger losses are of little interest.
_SHOWN = 0.25
# Share of foreign molecules below which levels are too close to each other to be labeled.
_READABLE = 0.1


@shared_docs
def decontamination(
    data: SpatialData | AnnData,
    *,
    n_genes: int = 8,
    table_key: str = "table",
    key_added: str = DEFAULT_KEY,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    title: str | None = None,
    save: str | Path | None = None,
    return_ax: bool = False,
) -> Axes | None:
    """Draw what removing whole molecules costs: foreign against own molecules removed, at every level.

    Both shares are expectations from :func:`resolvi_sd.tl.decontaminated_counts`; the large dot marks the counts that
    it wrote. Small dots mark other levels: a level of 0.75 also removes molecules that are own with a probability of up
    to 0.75. Random removal (dashed) would take the same share of both. To move along the curve, choose another `fpr`.

    All genes have the same level, but not the same cost: gray dots are the genes with at least 50 expected own
    molecules, placed at the shares of their own and foreign molecules that are removed. The named genes have the
    highest cost, and may be missing in cells that express them. `obs['resolvi_own_removed']` has the cost for each
    cell. With ``per_gene=True``, all genes have about the same cost, the large dot is below the curve, and the named
    genes are those that keep most of their foreign molecules.

    Parameters
    ----------
    data
        A SpatialData object or table on which :func:`resolvi_sd.tl.decontaminated_counts` was run.
    n_genes
        Number of genes to name. Names for which there is no room are left out.
    {table}
    {one_ax}
    {one_end}

    Returns
    -------
    The axes if `return_ax`, otherwise None.

    Raises
    ------
    KeyError
        If the table, the fit or its decontaminated counts do not exist.
    ValueError
        If `n_genes` is negative, or the record of the counts is damaged.

    Warns
    -----
    UserWarning
        If the number of cells in the table has changed since the counts were computed.

    Examples
    --------
    >>> import numpy as np, anndata, pandas as pd, resolvi_sd as rsd
    >>> from matplotlib.figure import Figure
    >>> table = anndata.AnnData(np.ones((2, 2), dtype="float32"))
    >>> curve = {"level": [0, 0.5, 1], "own_removed": [0, 0.1, 1], "foreign_removed": [0, 0.6, 1]}
    >>> genes = {"gene": ["A", "B"], "own": [90, 80], "own_removed": [0.2, 0], "foreign_removed": [0.7, 0.5]}
    >>> table.uns["resolvi"] = {"history": {}}  # a fit writes this, and tl.decontaminated_counts this:
    >>> table.uns["resolvi_decontaminated"] = {
    ...     "level": 0.5, "own_removed": 0.1, "foreign_removed": 0.6, "n_cells": 2,
    ...     "curve": pd.DataFrame(curve), "genes": pd.DataFrame(genes),
    ... }
    >>> ax = rsd.pl.decontamination(table, ax=Figure().subplots(), return_ax=True)
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('own molecules removed', 'foreign molecules removed')
    """
    adata = resolve_table(data, table_key)
    record = _record(adata, Keys(key_added))
    check_integer(n_genes, 0, argument="n_genes")
    check_figure(figsize, save)
    ax = open_ax(ax, (5.8, 3.5), figsize=figsize, title=title)
    genes = record["genes"][record["genes"]["own"] >= MIN_OWN]
    genes = genes.sort_values("foreign_removed") if _by_gene(record) else genes.sort_values("own_removed")[::-1]
    marked = _draw(ax, record, genes)
    settle_figure([ax])  # settles limits and size of the panel
    points = np.concatenate([genes[list(_SHARES)].to_numpy(dtype=np.float64), marked])
    names = genes["gene"].astype(str).tolist()[:n_genes]
    label_points(ax, points, range(len(names)), names, fontsize=7)
    finish_figure([ax], save)
    return ax if return_ax else None


def _record(adata: AnnData, keys: Keys) -> Mapping[str, Any]:
    fit_record(adata, keys)
    key = keys.decontaminated
    tool = keys.call("decontaminated_counts")
    check_result(key, adata.uns, where="table.uns", tool=tool)
    record: Mapping[str, Any] = adata.uns[key]
    numbers = ("n_cells", *_SHARES) if _by_gene(record) else ("n_cells", "level", *_SHARES)
    missing = [name for name in (*_TABLES, *numbers) if name not in record]
    for table, columns in _TABLES.items() if not missing else ():
        found = record[table]
        missing += [name for name in columns if not isinstance(found, pd.DataFrame) or name not in found]
    if missing:
        raise ValueError(f"`table.uns[{key!r}]` lacks {listing(missing)}. Please run `{tool}` again.")
    warn_of_other_cells(adata, int(record["n_cells"]), what="This curve", tool=tool)
    return record


def _by_gene(record: Mapping[str, Any]) -> bool:
    """Return whether each gene has its own level."""
    return bool(record.get("per_gene", False))


def _draw(ax: Axes, record: Mapping[str, Any], genes: pd.DataFrame) -> NDArray[np.float64]:
    """Draw the curve and the genes, all of them inside the axes, and return the marked points."""
    from matplotlib.patheffects import withStroke
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    curve = record["curve"]
    level, own, foreign = (curve[name].to_numpy(dtype=np.float64) for name in _TABLES["curve"])
    x, y = float(record["own_removed"]), float(record["foreign_removed"])
    cost = genes["own_removed"].to_numpy(dtype=np.float64)
    right = min(1.0, max(_SHOWN, 2 * x, 1.1 * cost.max(initial=0)))
    ax.scatter(cost, genes["foreign_removed"], s=10, color=gray(0.7), linewidths=0, rasterized=True, label="genes")
    ax.plot([0, 1], [0, 1], color=gray(0.6), linewidth=1, linestyle="--", label="at random")
    ax.plot(own, foreign, color="C0", label="by one level" if _by_gene(record) else "by level")
    # The levels of the curve do not apply to these counts if each gene has its own level.
    levels = () if _by_gene(record) else np.searchsorted(level, _MARKED_LEVELS)
    marked = [int(i) for i in levels if own[i] < right and foreign[i] > _READABLE]
    ax.plot(own[marked], foreign[marked], color="C0", marker="o", markersize=4, linestyle="none")
    for i in marked:
        ax.annotate(
            f"{level[i]:.2g}",
            (own[i], foreign[i]),
            (6, -4),
            textcoords="offset points",
            va="top",
            fontsize="small",
            color="C0",
            path_effects=[withStroke(linewidth=2, foreground=gray(1))],
        )
    ax.plot([x], [y], color=VERMILION, marker="o", markersize=8, linestyle="none", zorder=3, label=_named(record))
    ax.set(xlim=(0, right), ylim=(0, 1.02), xlabel="own molecules removed", ylabel="foreign molecules removed")
    for axis, n_ticks in ((ax.xaxis, 3), (ax.yaxis, 5)):
        axis.set_major_locator(MaxNLocator(n_ticks, steps=[1, 2, 5, 10]))
        axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize="small")
    return np.column_stack([[*own[marked], x], [*foreign[marked], y]])


def _named(record: Mapping[str, Any]) -> str:
    name = "level by gene" if _by_gene(record) else f"level {float(record['level']):.2f}"
    name += f" (fpr={float(record['fpr']):g})" if "fpr" in record else ""
    own = float(record.get("own_among_removed", np.nan))
    return name if np.isnan(own) else f"{name}:\n{own:.0%} of what goes is own"
