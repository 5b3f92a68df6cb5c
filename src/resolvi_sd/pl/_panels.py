"""Grids of panels: rows of prepared drawings with axes, titles and color bars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from resolvi_sd._validation import check_number
from resolvi_sd.pl._draw import ColorScale, draw_section
from resolvi_sd.pl._figures import (
    are_titles,
    check_figure,
    figure_of,
    finish_figure,
    font_scale,
    given_axes,
    label_inches,
    panel_titles,
    scaled,
    title_panels,
    wrapped,
)
from resolvi_sd.pl._sections import OutlinedSection, Section

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["PanelRow", "add_colorbar", "draw_rows", "label_coordinates"]

_PANEL_WIDTH = 4.0  # with labels and color bar, in inches
# Smallest and largest height of the drawing itself, whatever the shape of the tissue, and the width and height that
# labels, titles and color bars take, in inches.
_PANEL_HEIGHTS = (1.6, 7.0)
_MARGINS = (1.0, 0.7)
# Part of the width of a color bar's room that the bar itself takes beside axes that had to shrink.
_THIN = 0.25
# Room between two titles, and for each tick of the y-axis, in inches.
_TITLE_MARGIN, _TICK_ROOM = 0.4, 0.35
# Coordinate systems carry no unit; some are named after one.
_UNITS = {
    "µm": {"microns", "micron", "um", "µm", "micrometer", "micrometers", "micrometre", "micrometres"},
    "px": {"pixels", "pixel", "px"},
}


@dataclass(frozen=True)
class PanelRow:
    """One row of panels of the same cells.

    Attributes
    ----------
    section
        The cells.
    values
        One value per row of the table for each panel, `(n_cells,)`.
    scales
        Colors of each panel; neighboring panels with the same scale get one color bar.
    titles
        Title of each panel.
    """

    section: Section
    values: tuple[NDArray[np.float64], ...]
    scales: tuple[ColorScale, ...]
    titles: tuple[str, ...]


def draw_rows(
    rows: Sequence[PanelRow],
    *,
    ax: Axes | Sequence[Axes] | None,
    figsize: tuple[float, float] | None,
    size: float,
    units: str | None,
    title: str | Sequence[str] | None,
    save: str | Path | None,
) -> list[Axes]:
    """Draw the rows on the given axes or on those of a new figure, and return the axes, row by row.

    Raises
    ------
    ValueError
        If the number of axes or titles differs from that of panels, or `size` is not positive.
    FileNotFoundError
        If the folder to save into does not exist.
    """
    check_number(size, argument="size", above=0)
    check_figure(figsize, save)
    names = [name for row in rows for name in row.titles]
    titles = panel_titles(names, title)
    if ax is None:
        flat = _make_axes(rows, figsize)
        width = _PANEL_WIDTH if figsize is None else figsize[0] / font_scale() / len(rows[0].titles)
        if not are_titles(title):
            titles = [wrapped(text, width - _TITLE_MARGIN) for text in titles]
    else:
        flat = given_axes(ax, names)
    ends = np.cumsum([len(row.titles) for row in rows])
    panels = [flat[end - len(row.titles) : end] for row, end in zip(rows, ends, strict=True)]
    for row, axes in zip(rows, panels, strict=True):
        for panel, values, scale in zip(axes, row.values, row.scales, strict=True):
            draw_section(panel, row.section, values, scale, size=size)
        label_coordinates(axes, row.section, units)
        _add_colorbars(axes, row.scales, height=_drawn_height(row.section))
    title_panels(flat, titles, title)
    finish_figure(flat, save)
    return flat


def _make_axes(rows: Sequence[PanelRow], figsize: tuple[float, float] | None) -> list[Axes]:
    import matplotlib.pyplot as plt

    n_columns = len(rows[0].titles)
    heights = [_panel_height(row.section) for row in rows]
    _, axes = plt.subplots(
        len(rows),
        n_columns,
        figsize=figsize or scaled(_PANEL_WIDTH * n_columns, sum(heights)),
        height_ratios=heights,
        sharex="row",
        sharey="row",
        squeeze=False,
        layout="constrained",
    )
    return list(axes.ravel())


def _panel_height(section: Section) -> float:
    """Return the height of a panel of `_PANEL_WIDTH` for the section, its labels and color bar, in inches."""
    return float(np.clip(_drawn_height(section), *_PANEL_HEIGHTS)) + _MARGINS[1]


def _drawn_height(section: Section) -> float:
    """Return the height of the drawing itself in a panel of `_PANEL_WIDTH`, in inches."""
    left, right, bottom, top = section.extent
    return (_PANEL_WIDTH - _MARGINS[0]) * (top - bottom) / (right - left)


def label_coordinates(axes: Sequence[Axes], section: Section, units: str | None) -> None:
    """Label x in every panel and y in the first, with the unit if it is known."""
    from matplotlib.ticker import MaxNLocator

    n_ticks = int(np.clip(_drawn_height(section) / _TICK_ROOM, 1, 5))
    unit = _unit(section, units)
    suffix = "" if unit is None else f" ({unit})"
    for column, ax in enumerate(axes):
        ax.set(xlabel=f"x{suffix}", ylabel=f"y{suffix}" if column == 0 else "")
        ax.tick_params(labelleft=column == 0)  # all panels of a row show the same cells
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.yaxis.set_major_locator(MaxNLocator(n_ticks))


def _unit(section: Section, units: str | None) -> str | None:
    if units is not None or not isinstance(section, OutlinedSection):
        return units
    name = section.coordinate_system.lower()
    return next((unit for unit, names in _UNITS.items() if name in names), None)


def _add_colorbars(axes: Sequence[Axes], scales: Sequence[ColorScale], *, height: float) -> None:
    """Draw a color bar to the right of each panel, or a single one if all panels have the same scale."""
    shared = all(scale is scales[0] for scale in scales)
    groups = [list(axes)] if shared else [[ax] for ax in axes]
    for group, scale in zip(groups, scales, strict=False):
        add_colorbar(group, scale, height=height)


def add_colorbar(axes: list[Axes], scale: ColorScale, *, width: float = 0.05, height: float = np.inf) -> None:
    """Draw one color bar for these axes, to the right of the last.

    `width` is a share of that of a panel, and `height` that of a panel in inches, which its label should not exceed.
    """
    from matplotlib.cm import ScalarMappable

    figure = figure_of(axes[0])
    colors = ScalarMappable(scale.norm, scale.cmap)
    whole_words = max(height, label_inches(scale.label.split(), fontsize=12))
    label = wrapped(scale.label, whole_words) if np.isfinite(height) else scale.label
    if figure.get_layout_engine() is None:
        # Nothing makes room for a bar beside the axes, so the axes have to shrink.
        drawn = figure.colorbar(colors, ax=axes, label=label, extend=scale.extend).ax
        axes[-1].apply_aspect()
        panel, room = axes[-1].get_position(), drawn.get_position(original=True)
        drawn.set(box_aspect=None, position=(room.x0, panel.y0, room.width * _THIN, panel.height))
        drawn.grid(visible=False)
    else:
        # As high as the panel, which fills only part of the room of its axes if x and y have the same scale.
        bar = axes[-1].inset_axes((1.0 + 0.6 * width, 0.0, width, 1.0))
        figure.colorbar(colors, cax=bar, label=label, extend=scale.extend)
