"""Length of the border that cells share."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray

from resolvi_sd._tables import Outlines

__all__ = ["shared_border"]

# The area within reach of a corner is drawn with this many sides per quarter circle, accurate to 0.1 % of the reach.
_CORNERS = 16


def shared_border(
    outlines: Outlines, first: NDArray[np.intp], second: NDArray[np.intp], reach: float
) -> NDArray[np.float64]:
    """Return the length of the border that pairs of cells share.

    For each of the two cells, this is the length of outline that lies within `reach` of the other cell or inside it;
    the mean of both is returned. The two lengths differ where the outlines curve or overlap.

    Parameters
    ----------
    outlines
        Outlines in the plane.
    first, second
        Rows of the cells, `(n_pairs,)`; both cells of a pair must be from the same region.
    reach
        Distance up to which outlines are considered to face each other.
    """
    circles = np.isfinite(outlines.radii[first])
    length = np.empty(len(first))
    for chosen, facing in ((circles, _facing_arc), (~circles, _facing_line)):
        i, j = first[chosen], second[chosen]
        length[chosen] = (facing(outlines, i, j, reach) + facing(outlines, j, i, reach)) / 2
    return length


def _facing_line(
    outlines: Outlines, first: NDArray[np.intp], second: NDArray[np.intp], reach: float
) -> NDArray[np.float64]:
    """Return the length of the first polygons' outlines that is within reach of the second polygons."""
    near, of = np.unique(second, return_inverse=True)
    around = shapely.buffer(outlines.polygons[near], reach, quad_segs=_CORNERS)
    lines = shapely.boundary(outlines.polygons[first])
    return np.asarray(shapely.length(shapely.intersection(lines, around[of])), dtype=np.float64)


def _facing_arc(
    outlines: Outlines, first: NDArray[np.intp], second: NDArray[np.intp], reach: float
) -> NDArray[np.float64]:
    """Return the length of the first circles' outlines within reach of the second circles, by the law of cosines."""
    radius, around = outlines.radii[first], outlines.radii[second] + reach
    between = np.linalg.norm(outlines.centers[first] - outlines.centers[second], axis=1)
    inside = np.where(radius < around, -1.0, 1.0)  # if circles are concentric, the smaller one is covered
    product = 2 * between * radius
    cosine = np.divide(between**2 + radius**2 - around**2, product, out=inside, where=product > 0)
    return np.asarray(2 * radius * np.arccos(np.clip(cosine, -1, 1)), dtype=np.float64)
