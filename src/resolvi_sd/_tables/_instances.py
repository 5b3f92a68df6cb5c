"""The instances of elements that cells annotate, matched by instance id and never by position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from spatialdata import SpatialData
from spatialdata.models import TableModel
from spatialdata.transformations import get_transformation

from resolvi_sd._tables._groups import Groups
from resolvi_sd._validation import check_complete, check_key, check_unique, listing

__all__ = [
    "RegionCells",
    "annotation",
    "cells_by_region",
    "check_element",
    "check_placed",
    "id_positions",
    "instance_rows",
    "plain_ids",
    "system_of",
    "to_affine",
]

# Floats distinguish whole numbers below this.
_EXACT = 2**53


@dataclass(frozen=True)
class RegionCells:
    """The cells of a table that annotate one element.

    Attributes
    ----------
    region
        Name of the element.
    rows
        Their rows in the table.
    ids
        Their instance ids, unique, in the order of `rows`.
    """

    region: str
    rows: NDArray[np.intp]
    ids: pd.Index[Any]


def annotation(adata: AnnData) -> tuple[str, str] | None:
    """Return the names of the region and the instance column, or None if the table annotates no element.

    Raises
    ------
    KeyError
        If the table declares that it annotates elements, but the columns are missing.
    """
    attrs = adata.uns.get(TableModel.ATTRS_KEY)
    if attrs is None or attrs.get("region_key") is None or attrs.get("instance_key") is None:
        return None
    for role in ("region_key", "instance_key"):
        hint = f"`table.uns` names it in {TableModel.ATTRS_KEY}."
        check_key(attrs[role], adata.obs.columns, argument=role, where="table.obs", hint=hint)
    return attrs["region_key"], attrs["instance_key"]


def cells_by_region(
    sdata: SpatialData, adata: AnnData, regions: Groups, *, instance_key: str, coordinate_system: str
) -> list[RegionCells]:
    """Return the cells of each region, after all checks that do not require geometries.

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
        If ids are missing or repeated.
    """
    check_complete(adata.obs[instance_key], argument="instance_key")
    ids = pd.Index(adata.obs[instance_key])
    found = []
    for code, region in enumerate(regions.names):
        rows = np.flatnonzero(regions.codes == code)
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
        found.append(RegionCells(region, rows, ids[rows]))
    return found


def check_element(sdata: SpatialData, region: str, coordinate_system: str, *, hint: str) -> None:
    """Raise unless the element exists, has instances, and is placed in the coordinate system.

    Parameters
    ----------
    sdata
        Object with the elements.
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
    hint = f"All coordinate systems: {listing(sdata.coordinate_systems)}."
    check_placed(sdata[region], coordinate_system, where=f"the coordinate systems of element {region!r}", hint=hint)


def check_placed(element: Any, coordinate_system: str, *, where: str, hint: str = "") -> None:
    """Raise KeyError unless an element is placed in a coordinate system."""
    if system_of(element, coordinate_system) is None:
        placed = get_transformation(element, get_all=True)
        check_key(coordinate_system, placed, argument="coordinate_system", where=where, hint=hint)


def system_of(element: Any, coordinate_system: str) -> str | None:
    """Return the name of a coordinate system for an element, or None if the element is not placed in it.

    This is the name itself or, for objects combined with `spatialdata.concatenate({"A": ..., "B": ...})`, which gives
    each its own coordinate system, the only one that starts with it, such as `"global-A"`. Cells of different elements
    are never neighbors, so the relative position of these coordinate systems does not matter.
    """
    placed = get_transformation(element, get_all=True)
    if coordinate_system in placed:
        return coordinate_system
    renamed = [str(name) for name in placed if name.startswith(f"{coordinate_system}-")]
    return renamed[0] if len(renamed) == 1 else None


def instance_rows(index: pd.Index[Any], ids: pd.Index[Any], *, region: str) -> NDArray[np.intp]:
    """Return the position of each instance id in the index of its element; `7` and `"7"` are the same id.

    Parameters
    ----------
    index
        Ids of the element, unique.
    ids
        Ids to find.
    region
        Name of the element, for the message.

    Raises
    ------
    ValueError
        If ids are not in the element.
    """
    rows = id_positions(index, ids)
    missing = rows < 0
    if missing.any():
        raise ValueError(
            f"{int(missing.sum())} of {len(ids)} cells of region {region!r} have an instance id that is not in the "
            f"element: {listing(ids[missing], 5)} ({ids.dtype}). The element has {len(index)} ids, such as "
            f"{listing(index[:3])} ({index.dtype}). Drop those rows, or point the table at the element "
            "that they belong to."
        )
    return rows


def id_positions(known: pd.Index[Any], ids: pd.Index[Any]) -> NDArray[np.intp]:
    """Return the position of each id among the known ones, -1 if it is not there; `7`, `7.0` and `"7"` are the same."""
    known, ids = plain_ids(known), plain_ids(ids)
    if not all(pd.api.types.is_integer_dtype(index.dtype) for index in (known, ids)):
        # Text is left as it is: transcripts are matched to all cells once for each partition.
        known, ids = (index if index.inferred_type == "string" else index.astype(str) for index in (known, ids))
    return known.get_indexer(ids)


def plain_ids(ids: pd.Index[Any]) -> pd.Index[Any]:
    """Return ids without categories, whole numbers of any type as int64, and larger ones as text.

    Whole numbers are floats in a column with missing values.

    Raises
    ------
    ValueError
        If they are floats so large that neighboring ids are the same.
    """
    if isinstance(ids.dtype, pd.CategoricalDtype):
        ids = pd.Index(ids.to_numpy())
    if pd.api.types.is_float_dtype(ids.dtype) and (ids % 1 == 0).all():
        if len(ids) and max(ids.max(), -ids.min()) >= _EXACT:
            raise ValueError(
                f"Ids of cells such as {ids.max():.0f} are stored as floats, which do not distinguish whole numbers "
                "beyond 2**53: they have lost digits. Read the column as integers (`Int64` if some are missing) or as "
                "text."
            )
        ids = ids.astype(np.int64)
    if pd.api.types.is_integer_dtype(ids.dtype) and not ids.hasnans:
        # Indexes of two integer types would be compared as floats.
        fits = not len(ids) or int(ids.max()) <= np.iinfo(np.int64).max
        ids = pd.Index(ids.to_numpy(dtype=np.int64)) if fits else ids.astype(str)
    return ids


def to_affine(element: Any, coordinate_system: str, axes: tuple[str, ...]) -> NDArray[np.float64]:
    """Return the transformation of an element to a coordinate system as a homogeneous matrix over `axes`."""
    transformation = get_transformation(element, system_of(element, coordinate_system) or coordinate_system)
    return np.asarray(transformation.to_affine_matrix(input_axes=axes, output_axes=axes), dtype=np.float64)
