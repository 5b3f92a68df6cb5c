"""Arrows between points, whose widths represent amounts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from resolvi_sd.pl._figures import figure_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_arrows"]

# Distance that an arrow keeps from either end, as a fraction of the distance between the ends.
_FROM_START, _FROM_END = 0.12, 0.16
# Width and length of the head, as multiples of the width of the shaft, and maximum length of the head, as a fraction of
# the length of the arrow.
_HEAD_WIDTH, _HEAD_LENGTH, _MOST_HEAD = 2.2, 2.0, 0.45
# More arrows than this are rasterized, even in vector formats, and have no rims, which would hide thin arrows.
_MOST_VECTORS = 500
# White rim of an arrow, in points, and its maximum as a fraction of the width of the arrow: half of the rim is drawn
# over the arrow.
_RIM, _RIM_SHARE = 0.4, 0.25


def draw_arrows(
    ax: Axes,
    start: NDArray[np.float64],
    end: NDArray[np.float64],
    width: NDArray[np.float64],
    colors: NDArray[np.float64],
    *,
    narrowest: float,
    keep_right: bool,
) -> None:
    """Draw arrows, narrow ones on top of wide ones.

    Parameters
    ----------
    ax
        The panel.
    start, end
        Start and end of each arrow, `(n_arrows, 2)`, in the units of the axes; the two must not coincide.
    width
        Width of the shaft, `(n_arrows,)`, in the units of the axes.
    colors
        Red, green, blue and alpha of each arrow, `(n_arrows, 4)`.
    narrowest
        Heads are never narrower than that of an arrow of this width.
    keep_right
        Whether to draw each arrow to the right of the line between its ends (with y pointing down), which leaves room
        for an arrow in the opposite direction.
    """
    from matplotlib.collections import PolyCollection

    order = np.argsort(-width, kind="stable")
    many = len(order) > _MOST_VECTORS
    origin, unit = ax.transData.transform([[0, 0], [1, 0]])
    points = width[order] * np.abs(unit - origin).max() * 72 / figure_of(ax).dpi
    shapes = _outlines(start[order], end[order], width[order], narrowest=narrowest, keep_right=keep_right)
    ax.add_collection(
        PolyCollection(
            list(shapes),
            facecolors=colors[order],
            edgecolors="white",
            linewidths=0.0 if many else np.minimum(_RIM, _RIM_SHARE * points),
            zorder=5,
            rasterized=many,
        ),
        autolim=False,
    )


def _outlines(
    start: NDArray[np.float64],
    end: NDArray[np.float64],
    width: NDArray[np.float64],
    *,
    narrowest: float,
    keep_right: bool,
) -> NDArray[np.float64]:
    """Return the corners of each arrow, `(n_arrows, 7, 2)`, with the tip in the middle."""
    along = end - start
    distance = np.linalg.norm(along, axis=1)
    ahead = along / distance[:, None]
    side = np.column_stack([-ahead[:, 1], ahead[:, 0]])
    head_width = _HEAD_WIDTH * np.maximum(width, narrowest)
    length = (1 - _FROM_START - _FROM_END) * distance
    neck = length - np.minimum(_HEAD_LENGTH * np.maximum(width, narrowest), _MOST_HEAD * length)
    zero = np.zeros_like(length)
    far = np.stack([zero, neck, neck, length, neck, neck, zero], axis=1)
    across = np.stack([width, width, head_width, zero, -head_width, -width, -width], axis=1) / 2
    shift = head_width / 2 if keep_right else zero
    far = far + _FROM_START * distance[:, None]
    across = across + shift[:, None]
    corners: NDArray[np.float64] = start[:, None] + far[..., None] * ahead[:, None] + across[..., None] * side[:, None]
    return corners
