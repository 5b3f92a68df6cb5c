"""Groups of cells in a column of `obs`, and their colors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from resolvi_sd._tables import Groups, one_group, read_groups
from resolvi_sd._validation import check_key, group_name, listing, warn_user
from resolvi_sd.pl._figures import label_inches

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.legend import Legend

__all__ = [
    "ColoredGroups",
    "Palette",
    "add_legend",
    "legend_inches",
    "name_colors",
    "one_colored_group",
    "read_colored_groups",
]

Palette = str | Sequence[str] | Mapping[str, str]

# More groups than this cannot be distinguished; the column most likely does not hold groups.
_MOST = 200
# Rows, font size in points, and width of a mark with its margins in inches.
_LEGEND_ROWS, _LEGEND_FONT, _LEGEND_MARK = 16, 8.33, 0.5
# Beyond the ten colors of the sequence, they are reused in lighter and darker shades: how far toward white or black.
_SHADES = (0.0, 0.5, -0.4)
# Colors whose strongest and weakest channels differ by less than this are gray; cells without a group are paler gray.
_GREY = 0.12


@dataclass(frozen=True)
class ColoredGroups(Groups):
    """Groups of cells, without empty groups, and their colors.

    Attributes
    ----------
    colors
        Red, green, blue and alpha of each group, `(n_groups, 4)`, 0 to 1.
    """

    colors: NDArray[np.float64] = field(kw_only=True)


def one_colored_group(n_cells: int, name: str) -> ColoredGroups:
    """Return all cells as one gray group."""
    everyone = one_group(n_cells, name)
    return ColoredGroups(everyone.codes, everyone.names, colors=np.array([[0.55, 0.55, 0.55, 1.0]]))


def read_colored_groups(adata: AnnData, key: str, *, argument: str, palette: Palette | None) -> ColoredGroups:
    """Return the groups in a column of `obs`, ordered by category, number or text.

    Raises
    ------
    KeyError
        If there is no such column, or a dict of colors lacks a group.
    ValueError
        If no cell has a value, there are too many different values, or `palette` has fewer colors than groups.

    Warns
    -----
    UserWarning
        If the table stores fewer colors than there are groups.
    """
    check_key(key, adata.obs.columns, argument=argument, where="table.obs")
    every = read_groups(adata.obs[key])
    found = np.flatnonzero(every.sizes())
    if not found.size:
        raise ValueError(f"{argument}={key!r}: no cell has a value.")
    if found.size > _MOST:
        raise ValueError(
            f"{argument}={key!r} has {found.size:,} different values, such as {listing(every.names[:3])}: too many for "
            "groups. Name a column of groups, such as cell types or samples."
        )
    groups = every.only(found)
    if palette is None:
        # Those of all categories, so that a group has the same color in a part of the table.
        colors = name_colors(every.names, None, key=key, stored=adata.uns.get(f"{key}_colors"))[found]
    else:
        colors = name_colors(groups.names, palette, key=key)
    return ColoredGroups(groups.codes, groups.names, key, colors=colors)


def add_legend(
    ax: Axes, names: Sequence[str], colors: NDArray[np.float64], *, title: str, border: str | None = None
) -> Legend:
    """List the groups to the right of a panel; `border` is the color of a line around each mark."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [],
            [],
            linestyle="",
            marker="o",
            markersize=7,
            color=tuple(color),
            markeredgecolor=border or tuple(color),
            label=name,
        )
        for name, color in zip(names, colors, strict=True)
    ]
    n_columns = -(-len(handles) // _LEGEND_ROWS)
    return ax.legend(
        handles=handles,
        title=title,
        loc="upper left",
        bbox_to_anchor=(1.02, 1.0),
        borderaxespad=0.0,
        frameon=False,
        fontsize=_LEGEND_FONT,
        ncols=n_columns,
        alignment="left",
    )


def legend_inches(names: Sequence[str]) -> float:
    """Return the approximate width of the legend of some groups, in inches."""
    n_columns = -(-len(names) // _LEGEND_ROWS)
    return n_columns * (_LEGEND_MARK + label_inches(names, fontsize=_LEGEND_FONT))


def name_colors(
    names: tuple[str, ...], palette: Palette | None, *, key: str, stored: Any = None
) -> NDArray[np.float64]:
    """Return a color for each group of a column: from `palette`, from `stored`, or else colors easy to distinguish.

    Raises
    ------
    KeyError
        If a dict of colors lacks a group.
    TypeError
        If `palette` is neither a name, nor a list or dict of colors.
    ValueError
        If `palette` has fewer colors than there are groups, or a color is none.

    Warns
    -----
    UserWarning
        If fewer colors are stored than there are groups.
    """
    if palette is None and stored is None:
        return _distinct_colors(len(names))
    if isinstance(palette, Mapping):
        colors = {group_name(name): color for name, color in palette.items()}
        missing = [name for name in names if name not in colors]
        if missing:
            raise KeyError(f"`palette` has no color for {listing(missing)} of obs[{key!r}]; it has: {listing(colors)}.")
        return _rgba([colors[name] for name in names], "`palette`")
    if isinstance(palette, str):
        palette = list(_named_colors(palette, len(names)))
    if palette is not None and not isinstance(palette, Iterable):
        raise TypeError(f"`palette` must be the name of a colormap, or a list or dict of colors, not {palette!r}.")
    given = list(stored if palette is None else palette)
    if len(given) < len(names):
        found = f"has {len(given)} colors, but obs[{key!r}] has {len(names)} groups: {listing(names)}."
        if palette is not None:
            raise ValueError(f"`palette` {found} Pass a color for each group, or the name of a colormap.")
        warn_user(f"`uns[{key + '_colors'!r}]` {found} Other colors are used; set it, or pass `palette=`.")
        return _distinct_colors(len(names))
    return _rgba(given[: len(names)], f"`uns[{key + '_colors'!r}]`" if palette is None else "`palette`")


def _rgba(colors: Sequence[Any], where: str) -> NDArray[np.float64]:
    from matplotlib.colors import is_color_like, to_rgba_array

    wrong = [color for color in colors if not is_color_like(color)]
    if wrong:
        raise ValueError(f"{where} holds {listing(wrong)}, which matplotlib does not know as a color.")
    return np.asarray(to_rgba_array(colors))


def _named_colors(name: str, n_colors: int) -> NDArray[np.float64]:
    """Return different colors of a sequence or colormap, fewer than `n_colors` if it has no more."""
    from matplotlib import color_sequences, colormaps
    from matplotlib.colors import to_rgba_array

    if name in color_sequences and len(color_sequences[name]) >= n_colors:
        return np.asarray(to_rgba_array(color_sequences[name][:n_colors]))
    check_key(name, colormaps, argument="palette", where="matplotlib.colormaps")
    return np.asarray(colormaps[name](np.linspace(0, 1, min(n_colors, colormaps[name].N))))


def _distinct_colors(n_colors: int) -> NDArray[np.float64]:
    """Return ten colors for color-blind readers (Petroff 2021, arXiv:2107.02270), then their shades, else a rainbow."""
    from matplotlib import color_sequences
    from matplotlib.colors import to_rgba_array

    base = np.asarray(to_rgba_array(color_sequences["petroff10"]))
    shades = []
    for shade in _SHADES:
        shaded = base if shade <= 0 else base[np.ptp(base[:, :3], axis=1) >= _GREY]
        shaded = shaded.copy()
        shaded[:, :3] += abs(shade) * ((shade > 0) - shaded[:, :3])
        shades.append(shaded)
    colors = np.concatenate(shades)
    return colors[:n_colors] if n_colors <= len(colors) else _named_colors("turbo", n_colors)
