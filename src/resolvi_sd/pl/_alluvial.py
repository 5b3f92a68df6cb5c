"""Bands from sources on the left to targets on the right, with widths proportional to their amounts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from resolvi_sd.pl._colors import gray
from resolvi_sd.pl._figures import figure_of, font_scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.path import Path

__all__ = ["draw_alluvial"]

# As fractions of the panel height: all gaps between nodes together, and the width below which a band is invisible.
_GAPS, _THINNEST = 0.2, 0.0005
# Height of a line of a name, in inches in a font of 10 points.
_LINE_HEIGHT = 0.14
# As fractions of the panel width: a node, and the line from it to its name.
_NODE, _LINE = 0.03, 0.05
_BAND_ALPHA = 0.6


def draw_alluvial(
    ax: Axes,
    amounts: NDArray[np.float64],
    names: Sequence[str],
    colors: NDArray[np.float64],
) -> None:
    """Draw a band from each source to each target, in the color of the source.

    Parameters
    ----------
    ax
        The panel, whose axes are set to 0 to 1 in both directions.
    amounts
        Amount from each source (row) to each target (column), `(n, n)`, nonnegative and not all zero.
    names
        Name of each source and target; a node whose amounts are all zero on one side is left out on that side.
    colors
        Red, green, blue and alpha of each, `(n, 4)`.
    """
    from matplotlib.patches import PathPatch, Rectangle

    scale = (1 - _GAPS) / amounts.sum()
    left, right = _tops(amounts.sum(axis=1) * scale), _tops(amounts.sum(axis=0) * scale)
    # Within a node, bands are ordered by the nodes at their other end, so that they cross as little as possible.
    starts = left[:, None] + (np.cumsum(amounts, axis=1) - amounts) * scale
    ends = right[None, :] + (np.cumsum(amounts, axis=0) - amounts) * scale
    widths = amounts * scale
    for source, target in np.argwhere(widths > _THINNEST):
        path = _band(starts[source, target], ends[source, target], widths[source, target])
        ax.add_patch(PathPatch(path, facecolor=colors[source], alpha=_BAND_ALPHA, linewidth=0))
    for tops, totals, x, outward in (
        (left, widths.sum(axis=1), 0.0, -1),
        (right, widths.sum(axis=0), 1 - _NODE, 1),
    ):
        for node in np.flatnonzero(totals > 0):
            ax.add_patch(Rectangle((x, tops[node]), _NODE, totals[node], facecolor=colors[node], linewidth=0))
        _write_names(ax, tops + totals / 2, totals > 0, names, outward)
    ax.set(xlim=(0, 1), ylim=(1, 0))
    ax.axis("off")


def _tops(heights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return where each node begins, measured from the top; only nodes with a height above 0 have a gap after them."""
    shown = heights > 0
    gap = _GAPS / max(int(shown.sum()) - 1, 1)
    taken = heights + gap * shown
    tops: NDArray[np.float64] = np.cumsum(taken) - taken
    return tops


def _band(start: float, end: float, width: float) -> Path:
    """Return the outline of a band from a left node to a right one, horizontal at both ends."""
    from matplotlib.path import Path

    x0, x1 = _NODE, 1 - _NODE
    middle = (x0 + x1) / 2
    corners = [
        (x0, start), (middle, start), (middle, end), (x1, end),
        (x1, end + width), (middle, end + width), (middle, start + width), (x0, start + width), (x0, start),
    ]  # fmt: skip
    curve = [Path.CURVE4] * 3
    return Path(corners, [Path.MOVETO, *curve, Path.LINETO, *curve, Path.CLOSEPOLY])


def _write_names(
    ax: Axes, places: NDArray[np.float64], shown: NDArray[np.bool_], names: Sequence[str], outward: int
) -> None:
    """Write the names beside the nodes without overlaps, with a line from each node to its name."""
    nodes = np.flatnonzero(shown).tolist()
    edge = 1.0 if outward > 0 else 0.0
    panel = ax.get_window_extent().height / figure_of(ax).dpi
    line = _LINE_HEIGHT * font_scale() / panel
    heights = line * np.array([names[node].count("\n") + 1 for node in nodes])
    for node, height in zip(nodes, _spread(places[nodes], heights), strict=True):
        end = edge + outward * _LINE
        ax.plot([edge, end], [places[node], height], color=gray(0.6), linewidth=0.7, clip_on=False)
        ax.annotate(
            names[node],
            (end, height),
            (3.0 * outward, 0.0),
            textcoords="offset points",
            ha="left" if outward > 0 else "right",
            va="center",
            fontsize="small",
            annotation_clip=False,
        )


def _spread(places: NDArray[np.float64], heights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ascending places, moved as little as needed for names of these heights not to overlap.

    All names stay between 0 and 1, and overlap if they are higher together. This is the least-squares solution: after
    subtracting the heights before the k-th name, the places must not descend, and the best non-descending sequence is
    given by isotonic regression, clipped to the bounds.
    """
    from scipy.optimize import isotonic_regression

    heights = heights / max(1.0, float(heights.sum()))
    before = np.cumsum(heights) - heights / 2 - heights[0] / 2
    first, last = heights[0] / 2, 1 - heights[-1] / 2 - before[-1]
    spread: NDArray[np.float64] = isotonic_regression(places - before).x.clip(first, last) + before
    return spread
