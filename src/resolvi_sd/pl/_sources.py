"""Plot of the three sources of molecules on the tissue."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from resolvi_sd._keys import DEFAULT_KEY, Keys
from resolvi_sd._tables import resolve_table
from resolvi_sd.pl._docs import shared_docs
from resolvi_sd.pl._draw import ColorScale, replace_limits
from resolvi_sd.pl._panels import PanelRow, draw_rows
from resolvi_sd.pl._results import SHARE_TITLES, Place, read_setup, read_shares
from resolvi_sd.pl._sections import find_sections

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from spatialdata import SpatialData

__all__ = ["sources"]

# Share of the cells whose values may lie beyond the color range, so that single cells do not set it.
_BEYOND = 0.01


@shared_docs
def sources(
    data: SpatialData | AnnData,
    *,
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
    """Draw on the tissue the shares of each cell's molecules that are own, from neighbors and background.

    There is one row of three panels per section. In a SpatialData object whose table annotates shapes or labels, these
    are drawn (by spatialdata-plot), otherwise dots. Cells without counts have no shares and are gray.

    Parameters
    ----------
    {data}
    {table}
    {coordinates}
    {library_id}
    {axes}
    cmap
        Colormap.
    vmin, vmax
        Color limits of all panels. None: each of the three shares has its own limits, the same for all sections, from a
        cell without foreign molecules (own share 1, other shares 0) to the most contaminated cell, leaving out the 1 %
        that are most contaminated.
    {size}
    {units}
    {end}

    Returns
    -------
    The axes, row by row, if `return_ax`, otherwise None.

    Raises
    ------
    KeyError
        If the table, the fit, a section, an element, the coordinate system or the coordinates do not exist.
    ValueError
        If the number of axes or titles differs from that of panels, or the coordinates are not finite.

    Examples
    --------
    >>> import numpy as np, anndata, resolvi_sd as rsd
    >>> from matplotlib.figure import Figure
    >>> table = anndata.AnnData(np.ones((3, 2), dtype="float32"))
    >>> table.obsm["spatial"] = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> table.obs[["resolvi_true", "resolvi_diffusion", "resolvi_background"]] = [[0.8, 0.15, 0.05]] * 3
    >>> table.uns["resolvi"] = {"history": {}}  # a fit writes all of these
    >>> axes = rsd.pl.sources(table, ax=list(Figure().subplots(1, 3)), return_ax=True)
    >>> [ax.get_title() for ax in axes]
    ['own', 'from neighbors', 'background']
    """
    adata = resolve_table(data, table_key)
    keys = Keys(key_added)
    setup = read_setup(adata, keys)
    values = read_shares(adata, keys)
    place = Place.of(
        data, adata, setup, coordinate_system=coordinate_system, spatial_key=spatial_key, library_key=library_key
    )
    sections = find_sections(data, adata, table_key=table_key, place=place, library_id=library_id)
    drawn = np.concatenate([section.rows for section in sections])
    limits = [_limits(share[drawn], own=key == keys.true) for key, share in zip(keys.shares, values, strict=True)]
    scales = tuple(
        ColorScale.of(share[drawn], cmap, replace_limits(default, vmin, vmax), "share of molecules")
        for share, default in zip(values, limits, strict=True)
    )
    rows = [
        PanelRow(section, values, scales, SHARE_TITLES if len(sections) == 1 else _named(section.name))
        for section in sections
    ]
    axes = draw_rows(rows, ax=ax, figsize=figsize, size=size, units=units, title=title, save=save)
    return axes if return_ax else None


def _named(name: str) -> tuple[str, ...]:
    return tuple(f"{name}: {title}" for title in SHARE_TITLES)


def _limits(values: NDArray[np.float64], *, own: bool) -> tuple[float, float]:
    """Return the color limits of a share: one end is a clean cell, the other a heavily contaminated one."""
    finite = values[np.isfinite(values)]
    if own:
        worst = float(np.quantile(finite, _BEYOND)) if finite.size else 0.0
        return (worst if worst < 1 else 0.0), 1.0
    worst = float(np.quantile(finite, 1 - _BEYOND)) if finite.size else 1.0
    return 0.0, (worst if worst > 0 else 1.0)
