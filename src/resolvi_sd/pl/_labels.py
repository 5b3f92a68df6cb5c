"""Names beside points, placed so that they neither overlap nor leave the panel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from resolvi_sd.pl._colors import gray
from resolvi_sd.pl._figures import figure_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["label_points"]

# Possible places of a name: directions from its point, and gaps between the two in points (1/72 inch).
_DIRECTIONS = np.exp(2j * np.pi * np.arange(16) / 16)
_GAPS = (3.0, 9.0, 16.0, 25.0, 36.0, 50.0)
# If the gap is at least this wide, a line connects the name to its point.
_LINE_GAP = 9.0
# Cost of each point that a name covers or that a line passes, in points of gap, and the distance that counts as
# passing, in points.
_COVERED, _PASSED, _NEAR = 16.0, 4.0, 3.0
# Diameter of marks that names never cover, in points.
_LARGE = 8.0
# Room around each name, in points.
_PADDING = 1.0
# Above everything else that is drawn.
_ZORDER = 10


def label_points(
    ax: Axes, points: NDArray[np.float64], chosen: Sequence[int], names: Sequence[str], *, fontsize: float
) -> None:
    """Write names beside some of the points, leaving out those for which there is no room.

    Names are placed in turn. Among the places that are inside the panel and not taken by an earlier name, or by text,
    a legend or a large mark that was there before, each name gets the one where it covers the fewest points and is
    nearest to its own point. It has an edge in the color of the panel over what it covers. The limits of the axes must
    be set, and the figure must have been laid out (`figure.draw_without_rendering()`).

    Parameters
    ----------
    ax
        The panel.
    points
        x and y of all points, which names should not cover, `(n_points, 2)`.
    chosen
        Indices of the points to name; the first ones get the best places.
    names
        Their names.
    fontsize
        Font size in points.
    """
    from matplotlib.patheffects import withStroke

    if not len(chosen):
        return
    scale = figure_of(ax).dpi / 72
    large = [line for line in ax.lines if line.get_marker() != "None" and line.get_markersize() >= _LARGE]
    before = [*ax.texts, *large, *([legend] if (legend := ax.get_legend()) else [])]
    taken = np.array([artist.get_window_extent().get_points() for artist in before]).reshape(-1, 2, 2)
    pixels = ax.transData.transform(points)
    texts = [ax.annotate(name, points[i], (0, 0), textcoords="offset points", fontsize=fontsize, in_layout=False,
                         parse_math=False)
             for i, name in zip(chosen, names, strict=True)]  # fmt: skip
    panel = ax.get_window_extent()
    bounds = np.array([[panel.x0, panel.y0], [panel.x1, panel.y1]])
    for i, text in zip(chosen, texts, strict=True):
        box = text.get_window_extent()
        text.remove()
        place = _best_place(pixels[i], np.array([box.width, box.height]), pixels, taken, bounds, scale)
        if place is None:
            continue
        center, half, gap = place
        if gap >= _LINE_GAP:
            pixels = np.concatenate([pixels, _along(pixels[i], center)])  # names should not cover lines either
        taken = np.concatenate([taken, np.stack([center - half, center + half])[None]])
        line = {"arrowstyle": "-", "color": gray(0.5), "linewidth": 0.6, "shrinkA": 0, "shrinkB": 2}
        ax.annotate(
            text.get_text(),
            points[i],
            tuple((center - pixels[i]) / scale),
            textcoords="offset points",
            fontsize=fontsize,
            ha="center",
            va="center",
            in_layout=False,
            parse_math=False,
            path_effects=[withStroke(linewidth=2, foreground=gray(1))],
            zorder=_ZORDER,
            arrowprops=line if gap >= _LINE_GAP else None,
        )


def _best_place(
    point: NDArray[np.float64],
    size: NDArray[np.float64],
    points: NDArray[np.float64],
    taken: NDArray[np.float64],
    bounds: NDArray[np.float64],
    scale: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64], float] | None:
    """Return center and half size of the best place for a name, in pixels, and its gap; None if there is no place."""
    half = size / 2 + _PADDING * scale
    gaps = np.repeat(_GAPS, len(_DIRECTIONS))
    directions = np.tile(np.column_stack([_DIRECTIONS.real, _DIRECTIONS.imag]), (len(_GAPS), 1))
    centers = point + directions * (half + gaps[:, None] * scale)
    inside = ((centers - half >= bounds[0]) & (centers + half <= bounds[1])).all(axis=1)
    free = inside & ~_overlap(centers - half, centers + half, taken)
    line = _along(point, centers).reshape(-1, 2)
    free &= ~_overlap(line, line, taken).reshape(-1, len(centers)).any(axis=0)
    if not free.any():
        return None
    points = points[(np.abs(points - point) < np.abs(centers - point).max(axis=0) + half).all(axis=1)]
    points = points[(points != point).any(axis=1)]
    covered = (np.abs(points[None] - centers[free][:, None]) < half).all(axis=2).sum(axis=1)
    passed = (np.abs(points - _along(point, centers[free])[:, :, None]) < _NEAR * scale).all(axis=3).any(axis=0)
    cost = gaps[free] + _COVERED * covered + _PASSED * passed.sum(axis=1) * (gaps[free] >= _LINE_GAP)
    best = np.flatnonzero(free)[np.argmin(cost)]
    return centers[best], half, float(gaps[best])


def _along(start: NDArray[np.float64], end: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return some points on each line from `start` to `end`, one after the other, `(n_steps, ..., 2)`."""
    steps = np.linspace(0.1, 0.9, 9).reshape(-1, *[1] * end.ndim)
    return start + steps * (end - start)


def _overlap(low: NDArray[np.float64], high: NDArray[np.float64], boxes: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return whether each rectangle overlaps any of the boxes."""
    apart = (low[:, None] >= boxes[None, :, 1]) | (high[:, None] <= boxes[None, :, 0])
    return np.asarray(np.logical_not(apart.any(axis=2)).any(axis=1))
