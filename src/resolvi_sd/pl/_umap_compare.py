"""Embeddings of the same cells from the counts and from the corrected counts, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from resolvi_sd._keys import DEFAULT_KEY, Keys
from resolvi_sd._random import RandomLike, as_generator
from resolvi_sd._results import corrected_layer_name
from resolvi_sd._tables import resolve_table
from resolvi_sd._validation import check_key, check_positive_int
from resolvi_sd.pl._colored_groups import Palette, add_legend, legend_inches, read_colored_groups
from resolvi_sd.pl._docs import shared_docs
from resolvi_sd.pl._draw import NA_COLOR, ColorScale, count_limits
from resolvi_sd.pl._embeddings import (
    CORRECTED_COUNTS,
    COUNTS,
    choose_cells,
    embed,
    is_embedding,
    read_representations,
)
from resolvi_sd.pl._figures import check_figure, finish_figure, open_panels
from resolvi_sd.pl._panels import add_colorbar
from resolvi_sd.pl._results import gene_counts, read_setup, resolve_genes, warn_of_unmeasured

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from spatialdata import SpatialData

__all__ = ["umap_compare"]

# Area of all dots together (a third of a panel), and limits of the area of one dot, in points squared.
_INK, _AREAS = 20_000, (0.5, 14.0)
_PANEL_SIZE, _LEGEND = (3.8, 3.6), 1.5  # inches; the last is the width reserved for a legend
# Share of the cells whose values may lie beyond either end of the color range.
_BEYOND = 0.01
_NO_GROUPS: tuple[tuple[str, ...], NDArray[np.float64]] = ((), np.empty((0, 4)))


@shared_docs
def umap_compare(
    data: SpatialData | AnnData,
    color: str,
    *,
    representations: Sequence[str] = (COUNTS, CORRECTED_COUNTS),
    n_cells: int = 10_000,
    corrected_layer: str | None = None,
    table_key: str = "table",
    key_added: str = DEFAULT_KEY,
    rng: RandomLike = 0,
    ax: Axes | Sequence[Axes] | None = None,
    figsize: tuple[float, float] | None = None,
    palette: Palette | None = None,
    cmap: str | Colormap = "viridis",
    title: str | Sequence[str] | None = None,
    save: str | Path | None = None,
    return_ax: bool = False,
) -> list[Axes] | None:
    """Draw UMAPs of the same cells from different representations side by side.

    The UMAPs are computed by scanpy on a sample of the cells, and nothing is written to the table. Distances in a UMAP
    mean little: use it to see whether mixed groups become separate, and judge a correction by `resolvi_sd.metrics`.

    Parameters
    ----------
    {data}
    color
        What to color the cells by: a column of `obs` with groups or numbers, or a gene. A gene is shown by its counts
        in the panel of the counts and by its corrected counts in the other panels, on one scale from 0 to the 99th
        percentile of the nonzero counts.
    representations
        What to embed, one panel each: `"counts"`, the counts that were fitted; `"corrected"`, the corrected counts
        (both normalized, log-transformed and reduced to 50 principal components); or an entry of `obsm`, such as
        `"X_resolvi"`. An entry of `obsm` with two columns is drawn without further embedding.
    n_cells
        Maximum number of cells, sampled at random from those with counts.
    {corrected_layer}
    {table}
    rng
        Seed or generator for the sample and the UMAPs.
    {axes}
    {palette}
    cmap
        Colormap for numbers.
    {end}

    Returns
    -------
    The axes, one per representation, if `return_ax`, otherwise None.

    Raises
    ------
    KeyError
        If the table, the fit, the column or gene, or a representation does not exist.
    ValueError
        If no representation is given, fewer than three cells (five, if UMAP is computed) have counts or are
        requested, there is a wrong number of axes, titles or colors, the counts of a gene are no longer counts, or its
        corrected counts are not between 0 and these.

    Examples
    --------
    >>> import anndata, numpy as np, resolvi_sd as rsd
    >>> from matplotlib.figure import Figure
    >>> table = anndata.AnnData(np.ones((4, 2), dtype="float32"))
    >>> table.obs["cell_type"] = ["T", "B", "T", "B"]
    >>> table.obsm["X_umap"] = np.array([[0.0, 0.0], [1.0, 1.0], [0.0, 0.1], [1.0, 1.1]])
    >>> table.uns["resolvi"] = {"history": {}}  # a fit writes this
    >>> axes = rsd.pl.umap_compare(
    ...     table, color="cell_type", representations=["X_umap"], ax=Figure().subplots(), return_ax=True
    ... )
    >>> axes[0].get_title()
    'X_umap'
    """
    adata = resolve_table(data, table_key)
    keys = Keys(key_added)
    layer = read_setup(adata, keys).layer
    check_positive_int(n_cells, argument="n_cells")
    generator = as_generator(rng)
    is_gene = color not in adata.obs and color in adata.var_names
    if is_gene:
        warn_of_unmeasured(resolve_genes(adata, color), adata, keys)
    else:
        hint = "Neither is it a gene of the table (`table.var_names`)."
        check_key(color, adata.obs.columns, argument="color", where="table.obs", hint=hint)
    matrices = read_representations(adata, keys, layer, representations, corrected_layer=corrected_layer)
    rows = choose_cells(matrices, n_cells, generator)
    if is_gene:
        layers = (layer, corrected_layer_name(adata, keys, corrected_layer))
        counts = gene_counts(adata, keys, color, layers)
        colors = _gene_colors(color, *(values[rows] for values in counts), cmap=cmap)
    else:
        colors = _column_colors(adata, color, rows, palette=palette, cmap=cmap)
    check_figure(figsize, save)
    names = [{CORRECTED_COUNTS: corrected_layer or "corrected counts"}.get(name, name) for name in matrices]
    beside = max(0.0, legend_inches(colors.groups[0]) - _LEGEND)
    axes = open_panels(
        names, ax=ax, size=_PANEL_SIZE, figsize=figsize, title=title, n_columns=len(names), beside=beside
    )
    seed = int(generator.integers(2**31))
    order = generator.permutation(len(rows))  # so that no group hides another
    area = float(np.clip(_INK / len(rows), *_AREAS))
    for panel, (name, matrix) in zip(axes, matrices.items(), strict=True):
        x, y = embed(matrix[rows], seed=seed)[order].T
        rgba = colors.before if name == COUNTS else colors.after
        panel.scatter(x, y, s=area, c=rgba[order], linewidths=0, rasterized=True)
        axis = name if is_embedding(matrix) else "UMAP"
        panel.set(xlabel=f"{axis} 1", ylabel=f"{axis} 2", xticks=[], yticks=[])
        panel.spines[["top", "right"]].set_visible(False)
    if colors.scale is not None:
        add_colorbar(axes, colors.scale, height=_PANEL_SIZE[1])
    else:
        add_legend(axes[-1], *colors.groups, title=color)
    finish_figure(axes, save)
    return axes if return_ax else None


@dataclass(frozen=True)
class _CellColors:
    """Color of each cell before and after the correction, `(n_cells, 4)`, and what the colors mean.

    The meaning is given by the scale of numbers, or by the names and colors of the groups that occur.
    """

    before: NDArray[np.float64]
    after: NDArray[np.float64]
    scale: ColorScale | None
    groups: tuple[tuple[str, ...], NDArray[np.float64]]


def _gene_colors(
    gene: str, before: NDArray[np.float64], after: NDArray[np.float64], *, cmap: str | Colormap
) -> _CellColors:
    values = np.concatenate([before, after])
    scale = ColorScale.of(values, cmap, count_limits(before), f"{gene}, molecules per cell")
    return _CellColors(scale.cmap(scale.norm(before)), scale.cmap(scale.norm(after)), scale, _NO_GROUPS)


def _column_colors(
    adata: AnnData, key: str, rows: NDArray[np.int64], *, palette: Palette | None, cmap: str | Colormap
) -> _CellColors:
    from matplotlib.colors import to_rgba

    column = adata.obs[key]
    if pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype):
        values = column.to_numpy(dtype=np.float64)[rows]
        scale = ColorScale.of(values, cmap, _limits(values), key)
        rgba = scale.cmap(scale.norm(np.ma.masked_invalid(values)))
        return _CellColors(rgba, rgba, scale, _NO_GROUPS)
    groups = read_colored_groups(adata, key, argument="color", palette=palette)
    codes = groups.codes[rows]
    found = np.unique(codes[codes >= 0])
    rgba = np.vstack([groups.colors, to_rgba(NA_COLOR)])[codes]  # a code of -1 is the last
    names, shown = [groups.names[code] for code in found], groups.colors[found]
    if (codes < 0).any():
        names, shown = [*names, f"no value ({(codes < 0).sum():,})"], np.vstack([shown, to_rgba(NA_COLOR)])
    return _CellColors(rgba, rgba, None, (tuple(names), shown))


def _limits(values: NDArray[np.float64]) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0
    low, high = (float(end) for end in np.quantile(finite, (_BEYOND, 1 - _BEYOND)))
    return low, (high if high > low else low + 1.0)
