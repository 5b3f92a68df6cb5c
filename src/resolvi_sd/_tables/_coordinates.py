"""Coordinates of the cells: centroids of the annotated elements, matched by instance id, or `obsm`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from spatialdata import SpatialData
from spatialdata.transformations import get_transformation

from resolvi_sd._tables._centroids import centroids
from resolvi_sd._tables._resolve import Groups
from resolvi_sd._validation import check_complete, check_coordinates, check_key, check_unique, listing

__all__ = ["annotation", "check_element", "element_coordinates", "instance_rows", "obsm_coordinates"]

_ATTRS = "spatialdata_attrs"


def annotation(adata: AnnData) -> tuple[str, str] | None:
    """Return the names of the region and the instance column, or None if the table annotates no element.

    Raises
    ------
    KeyError
        If the table says that it annotates elements, but the columns are missing.
    """
    attrs = adata.uns.get(_ATTRS)
    if attrs is None or attrs.get("region_key") is None or attrs.get("instance_key") is None:
        return None
    for role in ("region_key", "instance_key"):
        check_key(
            attrs[role], adata.obs.columns, argument=role, where="table.obs", hint=f"`table.uns` names it in {_ATTRS}."
        )
    return attrs["region_key"], attrs["instance_key"]


def obsm_coordinates(adata: AnnData, spatial_key: str, *, hint: str = "") -> NDArray[np.float64]:
    """Return the coordinates in `obsm[spatial_key]`, `(n_cells, 2 or 3)`.

    Raises
    ------
    KeyError
        If there is no such entry.
    TypeError
        If it holds no numbers.
    ValueError
        If its shape is wrong, or it has NaN or infinite values.
    """
    check_key(spatial_key, adata.obsm, argument="spatial_key", where="table.obsm", hint=hint)
    stored = np.asarray(adata.obsm[spatial_key])
    if stored.dtype.kind not in "uif":
        raise TypeError(f"`table.obsm[{spatial_key!r}]` must hold numbers, but its type is {stored.dtype}.")
    coordinates = stored.astype(np.float64)
    check_coordinates(coordinates, where=f"`table.obsm[{spatial_key!r}]`")
    return coordinates


def element_coordinates(
    sdata: SpatialData, adata: AnnData, regions: Groups, *, instance_key: str, coordinate_system: str
) -> NDArray[np.float64]:
    """Return the centroid of each row's instance in its region, `(n_cells, 2 or 3)`.

    Rows are matched by instance id and never by position, so filtered and re-ordered tables come out right.

    Parameters
    ----------
    sdata
        Holds the elements.
    adata
        The table.
    regions
        Element that each row annotates.
    instance_key
        Column of `obs` with the instance ids.
    coordinate_system
        The coordinate system, in which all elements have to be placed.

    Raises
    ------
    KeyError
        If an element or the coordinate system is missing.
    ValueError
        If ids are missing, repeated or not in the element, or if coordinates are not finite.
    """
    check_complete(adata.obs[instance_key], argument="instance_key")
    ids = pd.Index(adata.obs[instance_key])
    members = [np.flatnonzero(regions.codes == code) for code in range(len(regions.names))]
    for region, rows in zip(regions.names, members, strict=True):  # the cheap checks of all before any centroids
        check_element(
            sdata,
            region,
            coordinate_system,
            hint="Add that element (shapes or labels), drop its rows, or pass the table alone to use its obsm.",
        )
        check_unique(
            ids[rows],
            what=f"Instance ids (`table.obs[{instance_key!r}]`) of region {region!r}",
            todo="Keep one row per cell.",
        )
    parts = [
        _instance_centroids(sdata, region, coordinate_system, ids[rows])
        for region, rows in zip(regions.names, members, strict=True)
    ]
    dimensions = {region: part.shape[1] for region, part in zip(regions.names, parts, strict=True)}
    if len(set(dimensions.values())) > 1:
        raise ValueError(
            f"Regions differ in the number of their coordinates: {dimensions}. Bring them to the same number, or take "
            "them one at a time."
        )
    coordinates = np.empty((adata.n_obs, parts[0].shape[1]))
    for rows, part in zip(members, parts, strict=True):
        coordinates[rows] = part
    return coordinates


def check_element(sdata: SpatialData, region: str, coordinate_system: str, *, hint: str) -> None:
    """Raise unless the element exists, has instances, and is placed in the coordinate system.

    Parameters
    ----------
    sdata
        Holds the elements.
    region
        Name of the element.
    coordinate_system
        Name of the coordinate system.
    hint
        What to do if there is no such element.

    Raises
    ------
    KeyError
        If the element or the coordinate system is missing.
    """
    check_key(
        region,
        [*sdata.shapes, *sdata.labels, *sdata.points],
        argument="The annotated region",
        where="sdata",
        hint=hint,
    )
    check_key(
        coordinate_system,
        get_transformation(sdata[region], get_all=True),
        argument="coordinate_system",
        where=f"the coordinate systems of element {region!r}",
        hint=f"All coordinate systems: {listing(sdata.coordinate_systems)}.",
    )


def _instance_centroids(
    sdata: SpatialData, region: str, coordinate_system: str, ids: pd.Index[Any]
) -> NDArray[np.float64]:
    """Return the centroids of the instances with these ids, in their order."""
    frame = centroids(sdata[region], coordinate_system)
    check_unique(frame.index, what=f"Instance ids of element {region!r}", todo="Give each instance its own id.")
    rows = instance_rows(frame.index, ids, region=region)
    axes = [axis for axis in ("x", "y", "z") if axis in frame.columns]
    coordinates: NDArray[np.float64] = frame[axes].to_numpy(dtype=np.float64)[rows]
    check_coordinates(coordinates, where=f"The centroids of element {region!r}")
    return coordinates


def instance_rows(index: pd.Index[Any], ids: pd.Index[Any], *, region: str) -> NDArray[np.intp]:
    """Return the position of each instance id in the index of its element; `7` and `"7"` are the same id.

    Parameters
    ----------
    index
        Ids of the element, unique.
    ids
        Ids looked for.
    region
        Name of the element, for the message.

    Raises
    ------
    ValueError
        If ids are not in the element.
    """
    same_type = pd.api.types.is_numeric_dtype(index.dtype) == pd.api.types.is_numeric_dtype(ids.dtype)
    rows = index.get_indexer(ids) if same_type else index.astype(str).get_indexer(ids.astype(str))
    missing = rows < 0
    if missing.any():
        raise ValueError(
            f"{int(missing.sum())} of {len(ids)} cells of region {region!r} have an instance id that is not in the "
            f"element: {listing(ids[missing], 5)} ({ids.dtype}). The element has {len(index)} ids, such as "
            f"{listing(index[:3])} ({index.dtype}). Drop those rows, or point the table at the element "
            "that they belong to."
        )
    return rows
