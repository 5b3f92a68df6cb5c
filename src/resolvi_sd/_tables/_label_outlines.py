"""Exact outlines of labels, along the sides of their pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray
from xarray import DataArray, DataTree

from resolvi_sd._tables._label_image import label_axes, map_blocks

__all__ = ["label_outlines"]


def label_outlines(element: DataArray | DataTree) -> pd.Series[Any]:
    """Return the area that the pixels of each label cover, as polygons along the pixels' sides.

    Parameters
    ----------
    element
        Labels in two dimensions.

    Returns
    -------
    Polygons, or multi-polygons if the pixels of a label are not joined by their sides, in x and y of the element's own
    coordinates; the index contains the labels without the background.

    Raises
    ------
    NotImplementedError
        If the labels have three dimensions.

    Notes
    -----
    Each block is outlined separately, and labels that occur in several blocks are joined afterwards. The outlines of
    :func:`spatialdata.to_polygons` run through the centers of the outer pixels' sides, half a pixel off, so that
    adjacent labels overlap or leave gaps.
    """
    if label_axes(element) != ("y", "x"):
        raise NotImplementedError(
            "Labels in three dimensions have no outlines in the plane. Annotate shapes or two-dimensional labels (a "
            "projection along z); neighbors by centroid (`distance='centroid'`) need no outlines."
        )
    parts: pd.Series[Any] = pd.concat(map_blocks(element, _block_outlines))
    split = parts.index.duplicated(keep=False)
    if not split.any():
        return parts
    joined = _union(parts.to_numpy()[split], parts.index.to_numpy()[split])
    whole: pd.Series[Any] = pd.concat([parts[~split], joined])
    return whole


def _block_outlines(block: NDArray[np.integer], positions: list[NDArray[np.float64]]) -> pd.Series[Any]:
    """Return the outlines of the labels in a block: the union of the runs of their pixels along x."""
    width = block.shape[1]
    begins = np.ones(block.shape, dtype=np.bool_)
    begins[:, 1:] = block[:, 1:] != block[:, :-1]
    start = np.flatnonzero(begins)
    length = np.diff(start, append=block.size)
    ids = block.ravel()[start]
    labeled = ids != 0
    row, column = np.divmod(start[labeled], width)
    y, x = (along[0] - 0.5 for along in positions)
    runs = shapely.box(x + column, y + row, x + column + length[labeled], y + row + 1)
    return _union(runs, ids[labeled])


def _union(areas: NDArray[Any], ids: NDArray[np.integer]) -> pd.Series[Any]:
    """Return the union of the areas of each id, without corners on straight lines."""
    order = np.argsort(ids, kind="stable")
    codes, names = pd.factorize(ids[order])
    pieces = shapely.geometrycollections(areas[order], indices=codes)
    return pd.Series(shapely.simplify(shapely.union_all(pieces[:, None], axis=1), 0), index=names, dtype=object)
