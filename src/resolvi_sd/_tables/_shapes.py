"""The shapes of the cells of one region, selected by instance id, checked, and repaired if that is unambiguous."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import shapely
from geopandas import GeoDataFrame
from numpy.typing import NDArray

from resolvi_sd._ratio import ratio
from resolvi_sd._tables._instances import RegionCells, instance_rows
from resolvi_sd._validation import check_unique, listing, warn_user

__all__ = ["cell_shapes", "is_circles"]

# Parts of a polygon besides its largest one are slivers if they make up no more than this share of its area: they are
# left by a pixel that touches at its corner, or by a line that crosses itself near a vertex.
_SLIVER_SHARE = 0.02
_AREAL = (shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON)


def is_circles(shapes: GeoDataFrame) -> bool:
    """Whether all shapes are points with a radius."""
    return bool((shapes.geom_type == "Point").all())


def cell_shapes(element: GeoDataFrame, cells: RegionCells) -> GeoDataFrame:
    """Return the shapes of the cells, one per row, in the element's own coordinates and with its transformations.

    An invalid polygon (one whose outline crosses itself) is replaced by the area that it encloses, if that is one
    piece. Slivers of up to 2% of a polygon's area are removed. Other polygons with several parts are valid, and the
    cell is the union of the parts.

    Parameters
    ----------
    element
        Circles, or polygons.
    cells
        The cells.

    Raises
    ------
    ValueError
        If ids are repeated or missing in the element, or if shapes are empty, of mixed types, circles without a
        positive radius, or invalid polygons that consist of several pieces; the message names the cells.

    Warns
    -----
    UserWarning
        If polygons had to be repaired, or consist of several parts.
    """
    check_unique(element.index, what=f"Instance ids of element {cells.region!r}", todo="Give each instance its own id.")
    shapes = element.iloc[instance_rows(element.index, cells.ids, region=cells.region)]
    geometry = np.asarray(shapes.geometry.array, dtype=object)
    hint = f"Remove these rows from the table, or repair `sdata[{cells.region!r}]`."
    empty = shapely.is_missing(geometry) | shapely.is_empty(geometry)
    _raise_if(empty, cells, "have an empty shape", hint)
    if is_circles(shapes):
        radius = shapes["radius"].to_numpy(dtype=np.float64)
        _raise_if(~(np.isfinite(radius) & (radius > 0)), cells, "are circles without a positive radius", hint)
        return shapes
    odd = ~np.isin(shapely.get_type_id(geometry), _AREAL)
    _raise_if(odd, cells, "have a shape that is not a polygon, in an element of polygons", hint)
    mended = _mend(geometry, cells)
    return shapes if mended is geometry else shapes.set_geometry(mended)


def _mend(geometry: NDArray[Any], cells: RegionCells) -> NDArray[Any]:
    """Return valid polygons without slivers; the array itself if nothing has to be repaired."""
    invalid = ~shapely.is_valid(geometry)
    several = shapely.get_num_geometries(geometry) > 1
    if not (invalid | several).any():
        return geometry
    mended = geometry.copy()
    mended[invalid] = shapely.make_valid(geometry[invalid], method="structure", keep_collapsed=False)
    doubtful = np.flatnonzero(invalid | several)
    main, share = _largest_part(mended[doubtful])
    whole = share >= 1 - _SLIVER_SHARE
    mended[doubtful[whole]] = main[whole]
    in_pieces = np.zeros_like(invalid)
    in_pieces[doubtful[~whole]] = True
    _raise_if(
        in_pieces & invalid,
        cells,
        "have an invalid polygon that consists of several pieces, or encloses nothing",
        f"To use all pieces of each: `sdata[{cells.region!r}].geometry = sdata[{cells.region!r}].make_valid()`. "
        "To leave the cells out: remove these rows from the table.",
    )
    _warn_if(invalid, cells, "have a polygon whose outline crosses itself; the area that it encloses is used")
    _warn_if(in_pieces & ~invalid, cells, "consist of several parts; each is the union of its parts")
    return mended


def _largest_part(geometry: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Return the largest part of each geometry, and its share of the area (0 if there is no area)."""
    parts, owner = shapely.get_parts(geometry, return_index=True)
    area = shapely.area(parts)
    order = np.lexsort((area, owner))
    last = np.flatnonzero(np.diff(owner[order], append=len(geometry)))
    largest = np.full(len(geometry), None, dtype=object)
    largest_area = np.zeros(len(geometry))
    chosen = order[last]
    largest[owner[chosen]], largest_area[owner[chosen]] = parts[chosen], area[chosen]
    total = np.bincount(owner, weights=area, minlength=len(geometry))
    return largest, ratio(largest_area, total, otherwise=0.0)


def _named(which: NDArray[np.bool_], cells: RegionCells, what: str) -> str:
    ids: pd.Index[Any] = cells.ids[which]
    return f"{len(ids)} of {len(which)} cells of region {cells.region!r} {what}: {listing(ids, 5)}."


def _raise_if(which: NDArray[np.bool_], cells: RegionCells, what: str, todo: str) -> None:
    if which.any():
        raise ValueError(f"{_named(which, cells, what)} {todo}")


def _warn_if(which: NDArray[np.bool_], cells: RegionCells, what: str) -> None:
    if which.any():
        warn_user(_named(which, cells, what))
