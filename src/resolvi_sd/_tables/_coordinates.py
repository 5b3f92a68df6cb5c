"""Coordinates of the cells: centroids of the annotated elements, matched by instance id, or `obsm`."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData
from geopandas import GeoDataFrame
from numpy.typing import NDArray
from spatialdata import SpatialData

from resolvi_sd._tables._centroids import centroids
from resolvi_sd._tables._groups import Groups
from resolvi_sd._tables._instances import RegionCells, cells_by_region, instance_rows
from resolvi_sd._tables._shapes import cell_shapes
from resolvi_sd._validation import check_coordinates, check_key, check_unique

__all__ = ["element_coordinates", "obsm_coordinates"]


def obsm_coordinates(adata: AnnData, spatial_key: str, *, hint: str = "") -> NDArray[np.float64]:
    """Return the coordinates in `obsm[spatial_key]`, `(n_cells, 2 or 3)`.

    Raises
    ------
    KeyError
        If there is no such entry.
    TypeError
        If it does not hold numbers.
    ValueError
        If its shape is wrong, or if it has NaN or infinite values.
    """
    check_key(spatial_key, adata.obsm, argument="spatial_key", where="table.obsm", hint=hint)
    stored = adata.obsm[spatial_key]
    if isinstance(stored, pd.DataFrame):  # whose columns may be of pandas' own types
        numbers = all(pd.api.types.is_numeric_dtype(dtype) for dtype in stored.dtypes)
        stored = stored.to_numpy(np.float64, na_value=np.nan) if numbers else stored
    values = np.asarray(stored)
    if values.dtype.kind not in "uif":
        raise TypeError(f"`table.obsm[{spatial_key!r}]` must hold numbers, but its type is {values.dtype}.")
    coordinates = values.astype(np.float64)
    check_coordinates(coordinates, where=f"`table.obsm[{spatial_key!r}]`")
    return coordinates


def element_coordinates(
    sdata: SpatialData, adata: AnnData, regions: Groups, *, instance_key: str, coordinate_system: str
) -> NDArray[np.float64]:
    """Return the centroid of each row's instance in its region, `(n_cells, 2 or 3)`.

    Rows are matched by instance id and never by position, so filtered and reordered tables are handled correctly.

    Parameters
    ----------
    sdata
        Object with the elements.
    adata
        The table.
    regions
        Element that each row annotates.
    instance_key
        Column of `obs` with the instance ids.
    coordinate_system
        The coordinate system, in which all elements must be placed.

    Raises
    ------
    KeyError
        If an element or the coordinate system is missing.
    ValueError
        If ids are missing, repeated or not in the element, if shapes are empty or cannot be repaired, or if coordinates
        are not finite.

    Warns
    -----
    UserWarning
        If polygons consist of several parts, or had to be repaired.
    """
    cells = cells_by_region(
        sdata, adata, regions, instance_key=instance_key, coordinate_system=coordinate_system
    )  # cheap checks of all regions before any centroids are computed
    parts = [_instance_centroids(sdata, part, coordinate_system) for part in cells]
    dimensions = {part.region: places.shape[1] for part, places in zip(cells, parts, strict=True)}
    if len(set(dimensions.values())) > 1:
        raise ValueError(
            f"Regions differ in their number of coordinates: {dimensions}. Convert them to the same number, or analyze "
            "them one at a time."
        )
    coordinates = np.empty((adata.n_obs, parts[0].shape[1]))
    for part, places in zip(cells, parts, strict=True):
        coordinates[part.rows] = places
    return coordinates


def _instance_centroids(sdata: SpatialData, cells: RegionCells, coordinate_system: str) -> NDArray[np.float64]:
    """Return the centroids of the instances with these ids, in their order."""
    element = sdata[cells.region]
    if isinstance(element, GeoDataFrame):
        frame = centroids(cell_shapes(element, cells), coordinate_system)
        rows = np.arange(len(cells.ids))
    else:
        frame = centroids(element, coordinate_system)
        check_unique(
            frame.index, what=f"Instance ids of element {cells.region!r}", todo="Give each instance its own id."
        )
        rows = instance_rows(frame.index, cells.ids, region=cells.region)
    axes = [axis for axis in ("x", "y", "z") if axis in frame.columns]
    coordinates: NDArray[np.float64] = frame[axes].to_numpy(dtype=np.float64)[rows]
    check_coordinates(coordinates, where=f"The centroids of element {cells.region!r}")
    return coordinates
