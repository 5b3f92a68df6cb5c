"""Assignment of cells to panels, as outlines of a SpatialData element or as dots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

import numpy as np
import pandas as pd
import shapely
import spatialdata as sd
from anndata import AnnData
from numpy.typing import NDArray
from scipy.spatial import KDTree
from spatialdata import SpatialData

from resolvi_sd._tables import (
    Groups,
    annotation,
    cell_positions,
    cell_sections,
    check_element,
    full_resolution,
    instance_rows,
    label_axes,
    system_of,
)
from resolvi_sd._validation import check_key, group_names, listing
from resolvi_sd.pl._results import Place

__all__ = ["DottedSection", "Extent", "OutlinedSection", "Section", "crop_section", "find_sections", "room_of"]

Extent = tuple[float, float, float, float]

# Rank of the neighbor whose distance determines the room per cell, and number of sampled cells, enough for a stable
# median.
_ROOM_NEIGHBORS = 6
_ROOM_SAMPLE = 5_000


@dataclass(frozen=True)
class OutlinedSection:
    """Cells drawn as the polygons, circles or labels of an element.

    Attributes
    ----------
    name
        Name of the section.
    rows
        Rows of the table that are drawn, `(n_drawn,)`.
    extent
        Left, right, bottom and top of the drawn region, in the units of the coordinate system.
    element
        Shapes: those of the drawn cells only, in the order of `rows`. Labels: the whole element.
    kind
        Type of the element.
    ids
        Instance of each drawn cell in the element, `(n_drawn,)`.
    coordinate_system
        Coordinate system in which it is drawn.
    """

    name: str
    rows: NDArray[np.intp]
    extent: Extent
    element: Any
    kind: Literal["shapes", "labels"]
    ids: pd.Index[Any]
    coordinate_system: str


@dataclass(frozen=True)
class DottedSection:
    """Cells drawn as dots at their coordinates.

    Attributes
    ----------
    name
        Name of the section.
    rows
        Rows of the table that are drawn, `(n_drawn,)`.
    extent
        Left, right, bottom and top of the drawn region, in the units of the coordinates.
    coordinates
        x and y of each drawn cell, `(n_drawn, 2)`.
    diameter
        Diameter at which neighboring dots just about touch, in the units of the coordinates.
    """

    name: str
    rows: NDArray[np.intp]
    extent: Extent
    coordinates: NDArray[np.float64]
    diameter: float


Section = OutlinedSection | DottedSection


def find_sections(
    data: SpatialData | AnnData,
    adata: AnnData,
    *,
    table_key: str,
    place: Place,
    library_id: str | float | Sequence[str | float] | None,
) -> tuple[Section, ...]:
    """Return the sections to draw: the regions of a SpatialData table, split by the column of the sections.

    Raises
    ------
    KeyError
        If a column, an element, the coordinates, the coordinate system or a requested section is missing.
    ValueError
        If cells are not in their element, or their coordinates are not finite.
    """

    @cache
    def positions() -> NDArray[np.float64]:
        found = cell_positions(
            data, table_key=table_key, spatial_key=place.spatial_key, coordinate_system=place.coordinate_system
        )
        return found.coordinates[:, :2]

    chosen = _choose(cell_sections(data, adata, place.library_key), library_id)
    columns = annotation(adata) if isinstance(data, SpatialData) else None
    if columns is None:
        return tuple(_dots(name, rows, positions()[rows]) for name, rows in chosen)
    sections: list[Section] = []
    for name, rows in chosen:
        region = str(adata.obs[columns[0]].iloc[rows[0]])
        hint = "Add the element, or leave its cells out with library_id=."
        check_element(data, region, place.coordinate_system, hint=hint)
        if region in data.points or (region in data.labels and "z" in label_axes(data[region])):
            sections.append(_dots(name, rows, positions()[rows]))
        else:
            ids = pd.Index(adata.obs[columns[1]].iloc[rows])
            sections.append(_outlines(data, name, rows, region, ids, place.coordinate_system))
    return tuple(sections)


def crop_section(section: Section, inside: NDArray[np.bool_], extent: Extent) -> Section:
    """Return a part of a section.

    Parameters
    ----------
    section
        The cells.
    inside
        Which of its rows to keep, `(n_drawn,)`. For labels, those that are visible in the extent are kept.
    extent
        Left, right, bottom and top of the part to draw.
    """
    rows = section.rows[inside]
    if isinstance(section, DottedSection):
        return replace(section, rows=rows, extent=extent, coordinates=section.coordinates[inside])
    if section.kind == "shapes":
        element = section.element.iloc[np.flatnonzero(inside)]
        return replace(section, rows=rows, extent=extent, element=element, ids=section.ids[inside])
    left, right, bottom, top = extent
    element = sd.bounding_box_query(
        section.element,
        axes=("x", "y"),
        min_coordinate=[left, bottom],
        max_coordinate=[right, top],
        target_coordinate_system=section.coordinate_system,
    )
    inside = section.ids.isin(np.unique(np.asarray(full_resolution(element))))
    return replace(section, rows=section.rows[inside], extent=extent, element=element, ids=section.ids[inside])


def _choose(groups: Groups, library_id: object) -> list[tuple[str, NDArray[np.intp]]]:
    """Return name and rows of the requested sections, in the requested order."""
    names = groups.names if library_id is None else group_names(library_id)
    if not names:
        raise ValueError(f"`library_id` is empty; the sections are: {listing(groups.names)}.")
    for name in names:
        check_key(name, groups.names, argument="library_id", where="the sections of the table")
    return [(name, np.flatnonzero(groups.codes == groups.names.index(name))) for name in names]


def _outlines(
    sdata: SpatialData, name: str, rows: NDArray[np.intp], region: str, ids: pd.Index[Any], coordinate_system: str
) -> OutlinedSection:
    element = sdata[region]
    kind: Literal["shapes", "labels"] = "shapes" if region in sdata.shapes else "labels"
    if kind == "shapes":
        columns = [name for name in ("geometry", "radius") if name in element.columns]
        element = element.iloc[instance_rows(element.index, ids, region=region)][columns]
        element = element.set_geometry(shapely.force_2d(element.geometry))  # seen from above
        ids = element.index
    else:
        ids = ids.astype(np.int64)
    coordinate_system = system_of(element, coordinate_system) or coordinate_system
    box = sd.get_extent(element, coordinate_system=coordinate_system)
    (left, right), (bottom, top) = box["x"], box["y"]
    extent = (float(left), float(right), float(bottom), float(top))
    return OutlinedSection(name, rows, extent, element, kind, ids, coordinate_system)


def _dots(name: str, rows: NDArray[np.intp], coordinates: NDArray[np.float64]) -> DottedSection:
    diameter = room_of(coordinates)
    low, high = coordinates.min(axis=0) - diameter / 2, coordinates.max(axis=0) + diameter / 2
    return DottedSection(
        name, rows, (float(low[0]), float(high[0]), float(low[1]), float(high[1])), coordinates, diameter
    )


def room_of(coordinates: NDArray[np.float64]) -> float:
    """Return the side length of a square with the area that a typical cell has to itself; coordinates are x and y.

    The disk that reaches the k-th neighbor contains k + 1 cells, so its area divided by k + 1 is that of one cell.
    Unlike the area of the bounding box divided by the number of cells, this is correct for tissue with holes and for
    scattered pieces. Disks of that diameter touch on a square grid.
    """
    n_neighbors = min(_ROOM_NEIGHBORS, len(coordinates) - 1)
    if n_neighbors == 0:
        return 1.0
    some = coordinates[:: max(1, len(coordinates) // _ROOM_SAMPLE)]
    farthest, _ = KDTree(coordinates).query(some, k=[n_neighbors + 1])
    reach = float(np.median(farthest))
    return reach * float(np.sqrt(np.pi / (n_neighbors + 1))) if reach > 0 else 1.0
