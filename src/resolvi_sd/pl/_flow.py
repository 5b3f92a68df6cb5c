"""Plot of the cells from which the molecules diffused into other cells."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
from anndata import AnnData
from numpy.typing import NDArray

from resolvi_sd._keys import DEFAULT_KEY, Keys
from resolvi_sd._results import warn_of_partial_neighbors
from resolvi_sd._tables import cell_positions, resolve_table
from resolvi_sd._validation import check_key, check_number, check_unique
from resolvi_sd.pl._arrows import draw_arrows
from resolvi_sd.pl._colored_groups import (
    ColoredGroups,
    Palette,
    add_legend,
    legend_inches,
    one_colored_group,
    read_colored_groups,
)
from resolvi_sd.pl._colors import BLUE
from resolvi_sd.pl._docs import shared_docs
from resolvi_sd.pl._draw import ColorScale, draw_section
from resolvi_sd.pl._figures import check_figure, figure_of, finish_figure, open_ax, settle_figure
from resolvi_sd.pl._flow_view import FlowView, view_of_cell, view_of_window
from resolvi_sd.pl._panels import label_coordinates
from resolvi_sd.pl._results import Place, check_written, read_setup
from resolvi_sd.pl._sections import Section, find_sections

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

__all__ = ["flow"]

# In inches: the figure, and the part of its width that is reserved for a legend.
_FIGSIZE, _LEGEND = (6.0, 5.0), 1.0
# In units of the room per cell: width of the widest arrow, and the width below which heads do not get narrower.
_WIDEST, _NARROWEST = 0.2, 0.03
# Fraction of the way to white by which cells are paler than the arrows from them.
_PALE = 0.6
# Cells without a group: pale colors of groups come close to any gray.
_NO_GROUP, _FROM_NO_GROUP = "white", "black"
_ONE_COLOR, _BORDER = BLUE, "dimgrey"


@shared_docs
def flow(
    data: SpatialData | AnnData,
    *,
    cell: str | None = None,
    window: tuple[float, float, float, float] | None = None,
    color: str | None = None,
    min_molecules: float | None = None,
    table_key: str = "table",
    key_added: str = DEFAULT_KEY,
    coordinate_system: str | None = None,
    spatial_key: str | None = None,
    library_key: str | None = None,
    library_id: str | float | None = None,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    palette: Palette | None = None,
    size: float = 1.0,
    units: str | None = None,
    title: str | None = None,
    save: str | Path | None = None,
    return_ax: bool = False,
) -> Axes | None:
    """Draw arrows from the cells whose molecules were found in a given cell, or in all cells of a window.

    The width of an arrow is proportional to the number of molecules that are expected to have come that way, summed
    over all genes. In a SpatialData object whose table annotates shapes or labels, cells are drawn with their outlines,
    otherwise as dots, in a pale version of their color.

    Parameters
    ----------
    {data}
    cell
        Name of a cell (in `obs_names`); the molecules that came into it are drawn. It is marked by a white dot.
    window
        Left, right, top and bottom (x from, x to, y from, y to) of a part of a section, in the units of the
        coordinates; the molecules that came into the cells whose centers are in it are drawn. Arrows keep to the right,
        so that both directions between two cells are visible.
    color
        Column of `obs` with groups, such as cell types, by which cells and the arrows that start from them are
        colored. None: one color for all cells, and one for all arrows.
    min_molecules
        Arrows with fewer expected molecules are left out. None: for a cell, all arrows are drawn; for a window, the
        widest ones that together make up half of all molecules.
    {table}
    {coordinates}
    library_id
        Section that contains the window: name of a region or value of `library_key`. None: the section of the cell, or
        the only section.
    {one_ax}
    {palette}
    {size}
    {units}
    title
        Title of the axes. None: the number of molecules that came into the cells, and how many of them are drawn.
    {save}

    Returns
    -------
    The axes if `return_ax`, otherwise None.

    Raises
    ------
    KeyError
        If the table, the fit, the cell, the column, a section, an element or the coordinates do not exist.
    ValueError
        If not exactly one of `cell` and `window` is given, the window is empty or holds more than 5,000 arrows, or it
        is not clear which section it is in.

    Examples
    --------
    >>> import anndata, numpy as np, resolvi_sd as rsd, scipy.sparse as sp
    >>> from matplotlib.figure import Figure
    >>> table = anndata.AnnData(np.ones((3, 2), dtype="float32"))
    >>> table.obsm["spatial"] = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    >>> table.uns["resolvi"] = {"history": {}}  # a fit writes this and the flow
    >>> table.obsp["resolvi_flow"] = sp.csr_matrix([[0, 2.5, 0.5], [0, 0, 0], [0, 0, 0]])
    >>> ax = rsd.pl.flow(table, cell="0", ax=Figure().subplots(), return_ax=True)
    >>> ax.get_title()
    '3.0 molecules from neighbors'
    """
    adata = resolve_table(data, table_key)
    keys = Keys(key_added)
    setup = read_setup(adata, keys)
    check_written(keys, [keys.flow], adata.obsp, where="table.obsp")
    edges = sp.csr_matrix(adata.obsp[keys.flow])
    _check_choice(adata, edges, cell, window, size)
    if min_molecules is not None:
        check_number(min_molecules, argument="min_molecules", least=0)
    groups = one_colored_group(adata.n_obs, "")
    if color is not None:
        groups = read_colored_groups(adata, color, argument="color", palette=palette)
    place = Place.of(
        data, adata, setup, coordinate_system=coordinate_system, spatial_key=spatial_key, library_key=library_key
    )
    sections = find_sections(data, adata, table_key=table_key, place=place, library_id=library_id)
    positions = cell_positions(
        data, table_key=table_key, spatial_key=place.spatial_key, coordinate_system=place.coordinate_system
    ).coordinates[:, :2]
    if window is None:
        view = view_of_cell(sections, positions, edges, int(adata.obs_names.get_loc(cell)), str(cell), min_molecules)
    else:
        view = view_of_window(sections, positions, edges, window, min_molecules)
    warn_of_partial_neighbors(
        adata, keys, rows=view.target, so="The molecules from these are missing: draw the flow of the whole table."
    )
    check_figure(figsize, save)
    width = _FIGSIZE[0] + max(0.0, legend_inches(groups.names) - _LEGEND)
    ax = open_ax(ax, (width, _FIGSIZE[1]), figsize=figsize, title=title)
    _draw_cells(ax, view.section, groups, size)
    label_coordinates([ax], view.section, units)
    ax.set_title(view.summary if title is None else title)
    _draw_arrows(ax, view, positions, groups, keep_right=window is not None)
    _add_legends(ax, view, positions, groups)
    finish_figure([ax], save)
    return ax if return_ax else None


def _check_choice(
    adata: AnnData, edges: sp.csr_matrix, cell: str | None, window: Sequence[float] | None, size: float
) -> None:
    if (cell is None) == (window is None):
        most = adata.obs_names[int(np.asarray(edges.sum(axis=1)).argmax())]
        raise ValueError(
            "Give either `cell`, the name of a cell, or `window`, (left, right, top, bottom) of a part of a section. "
            f"Most molecules came into the cell {most!r}."
        )
    if cell is not None:
        check_key(cell, adata.obs_names, argument="cell", where="table.obs_names")
        check_unique(adata.obs_names, what="Cell names (`table.obs_names`)", todo="Call `obs_names_make_unique()`.")
    elif window is not None:
        if not _is_window(window):
            raise ValueError(
                f"`window` must be (left, right, top, bottom), with left < right and top < bottom, not {window!r}."
            )
    check_number(size, argument="size", above=0)


def _is_window(window: object) -> bool:
    if not isinstance(window, Iterable):
        return False
    numbers = list(window)
    if len(numbers) != 4 or not all(isinstance(number, Real) for number in numbers):
        return False
    left, right, top, bottom = numbers
    return bool(np.isfinite(numbers).all() and left < right and top < bottom)


def _draw_cells(ax: Axes, section: Section, groups: ColoredGroups, size: float) -> None:
    from matplotlib.colors import ListedColormap, Normalize

    pale = groups.colors.copy()
    pale[:, :3] += _PALE * (1 - pale[:, :3])
    norm = Normalize(-0.5, len(pale) - 0.5)
    scale = ColorScale(ListedColormap(pale).with_extremes(bad=_NO_GROUP), norm, groups.key, "neither")
    codes = np.where(groups.codes < 0, np.nan, groups.codes)
    draw_section(ax, section, codes, scale, size=size, border=_BORDER)


def _draw_arrows(
    ax: Axes, view: FlowView, positions: NDArray[np.float64], groups: ColoredGroups, *, keep_right: bool
) -> None:
    from matplotlib.colors import to_rgba

    if view.molecules.size:
        colors = np.vstack([groups.colors, to_rgba(_FROM_NO_GROUP)])[groups.codes[view.source]]  # -1 is the last
        if not groups.key:
            colors[:] = to_rgba(_ONE_COLOR)
        width = _WIDEST * view.room * view.molecules / view.molecules.max()
        ends = positions[view.source], positions[view.target]
        draw_arrows(ax, *ends, width, colors, narrowest=_NARROWEST * view.room, keep_right=keep_right)
    if view.marked is not None:
        x, y = positions[view.marked]
        ax.plot([x], [y], marker="o", markersize=6, color="white", markeredgecolor="black", zorder=6)


def _add_legends(ax: Axes, view: FlowView, positions: NDArray[np.float64], groups: ColoredGroups) -> None:
    """Explain the colors and widths, to the right of the panel."""
    from matplotlib.colors import to_rgba
    from matplotlib.lines import Line2D

    if groups.key:
        shown = np.unique(groups.codes[np.concatenate([view.visible(positions), view.source])])
        found = shown[shown >= 0]
        names, colors = [groups.names[code] for code in found], groups.colors[found]
        if len(found) < len(shown):
            name = "no value (black arrows)" if (groups.codes[view.source] < 0).any() else "no value"
            names, colors = [*names, name], np.vstack([colors, to_rgba(_NO_GROUP)])
        legend = add_legend(ax, names, colors, title=groups.key, border=_BORDER)
        ax.add_artist(legend)  # so that the next one does not replace it
        legend.set_clip_on(False)  # artists clipped to the panel get no room beside it
    if not view.molecules.size:
        return
    most = float(view.molecules.max())
    amounts = (_round_number(most), _round_number(most / 5))
    legend = ax.legend(
        handles=[Line2D([], [], color="0.4", solid_capstyle="butt", label=f"{amount:g}") for amount in amounts],
        title="molecules",
        loc="lower left",
        bbox_to_anchor=(1.02, 0.0),
        borderaxespad=0.0,
        frameon=False,
        fontsize="small",
        alignment="left",
    )
    settle_figure([ax])
    pixels = ax.transData.transform([(0.0, 0.0), (_WIDEST * view.room / most, 0.0)])
    points = float(pixels[1, 0] - pixels[0, 0]) * 72 / figure_of(ax).dpi
    for line, amount in zip(legend.get_lines(), amounts, strict=True):
        line.set_linewidth(points * amount)


def _round_number(value: float) -> float:
    """Return the largest number of the form 1, 2 or 5 times a power of ten that does not exceed the value."""
    power = 10.0 ** np.floor(np.log10(value))
    return float(power * max(step for step in (1, 2, 5) if step * power <= value * (1 + 1e-9)))
