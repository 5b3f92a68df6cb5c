"""Plot of genes on the tissue before and after the correction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from anndata import AnnData

from resolvi_sd._keys import DEFAULT_KEY, Keys
from resolvi_sd._results import corrected_layer_name
from resolvi_sd._tables import resolve_table
from resolvi_sd.pl._docs import shared_docs
from resolvi_sd.pl._draw import ColorScale, count_limits, replace_limits
from resolvi_sd.pl._panels import PanelRow, draw_rows
from resolvi_sd.pl._results import Place, gene_counts, read_setup, resolve_genes, warn_of_unmeasured
from resolvi_sd.pl._sections import find_sections

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from spatialdata import SpatialData

__all__ = ["spatial"]


@shared_docs
def spatial(
    data: SpatialData | AnnData,
    gene: str | Sequence[str],
    *,
    corrected_layer: str | None = None,
    table_key: str = "table",
    key_added: str = DEFAULT_KEY,
    coordinate_system: str | None = None,
    spatial_key: str | None = None,
    library_key: str | None = None,
    library_id: str | float | Sequence[str | float] | None = None,
    ax: Axes | Sequence[Axes] | None = None,
    figsize: tuple[float, float] | None = None,
    cmap: str | Colormap = "viridis",
    vmin: float | None = None,
    vmax: float | None = None,
    size: float = 1.0,
    units: str | None = None,
    title: str | Sequence[str] | None = None,
    save: str | Path | None = None,
    return_ax: bool = False,
) -> list[Axes] | None:
    """Draw genes on the tissue before and after the correction, side by side and on one color scale.

    There is one row of two panels per gene and section: the counts that were fitted and the corrected counts. In a
    SpatialData object whose table annotates shapes or labels, these are drawn (by spatialdata-plot), otherwise dots.

    Parameters
    ----------
    {data}
    gene
        Name of a gene, or several names.
    {corrected_layer}
    {table}
    {coordinates}
    {library_id}
    {axes}
    cmap
        Colormap.
    vmin, vmax
        Color limits of all panels. None: for each gene, from 0 to the 99th percentile of its counts before the
        correction in the cells that have any, the same before and after the correction and for all sections.
    {size}
    {units}
    {end}

    Returns
    -------
    The axes, row by row, if `return_ax`, otherwise None.

    Raises
    ------
    KeyError
        If the table, the fit, a layer, a gene, a section, an element, the coordinate system or the coordinates do not
        exist.
    ValueError
        If the number of axes or titles differs from that of panels, the coordinates are not finite, values in
        `corrected_layer` are not between 0 and the counts, or the counts that were fitted are no longer counts.

    Warns
    -----
    UserWarning
        If the table is a query that lacks a gene, whose counts are zero.

    Examples
    --------
    >>> import numpy as np, pandas as pd, anndata, resolvi_sd as rsd
    >>> from matplotlib.figure import Figure
    >>> genes = pd.DataFrame(index=["KRT8", "PTPRC"])
    >>> table = anndata.AnnData(np.array([[5, 0], [4, 1], [1, 7]], dtype="float32"), var=genes)
    >>> table.obsm["spatial"] = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> table.layers["resolvi_counts"] = np.array([[5, 0], [4, 0.2], [0.1, 7]], dtype="float32")
    >>> table.uns["resolvi"] = {"history": {}}  # a fit writes this and the layer
    >>> axes = rsd.pl.spatial(table, "KRT8", ax=list(Figure().subplots(1, 2)), return_ax=True)
    >>> [ax.get_title() for ax in axes]
    ['KRT8, counts', 'KRT8, corrected counts']
    """
    adata = resolve_table(data, table_key)
    keys = Keys(key_added)
    setup = read_setup(adata, keys)
    corrected = corrected_layer_name(adata, keys, corrected_layer)
    genes = resolve_genes(adata, gene)
    warn_of_unmeasured(genes, adata, keys)
    place = Place.of(
        data, adata, setup, coordinate_system=coordinate_system, spatial_key=spatial_key, library_key=library_key
    )
    sections = find_sections(data, adata, table_key=table_key, place=place, library_id=library_id)
    drawn = np.concatenate([section.rows for section in sections])
    layers = (setup.layer, corrected)
    rows = []
    for name in genes:
        pair = gene_counts(adata, keys, name, layers)
        limits = replace_limits(count_limits(pair[0][drawn]), vmin, vmax)
        scale = ColorScale.of(np.concatenate([values[drawn] for values in pair]), cmap, limits, "molecules per cell")
        for section in sections:
            prefix = name if len(sections) == 1 else f"{section.name}: {name}"
            titles = (f"{prefix}, counts", f"{prefix}, {corrected_layer or 'corrected counts'}")
            rows.append(PanelRow(section, pair, (scale, scale), titles))
    axes = draw_rows(rows, ax=ax, figsize=figsize, size=size, units=units, title=title, save=save)
    return axes if return_ax else None
