"""Outlines of the cells of a table: polygons, or circles with exact distances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from anndata import AnnData
from geopandas import GeoDataFrame
from numpy.typing import NDArray
from spatialdata import SpatialData

from resolvi_sd._tables._groups import group_by
from resolvi_sd._tables._instances import RegionCells, annotation, cells_by_region, instance_rows, to_affine
from resolvi_sd._tables._label_image import is_labels
from resolvi_sd._tables._label_outlines import label_outlines
from resolvi_sd._tables._resolve import resolve_table
from resolvi_sd._tables._shapes import cell_shapes, is_circles

__all__ = ["Outlines", "annotated_cells", "cell_outlines"]

# A circle that becomes a polygon has this many corners per quarter, with an error of at most 0.03% of the radius.
_CORNERS = 32
# Rounding may separate outlines that touch, by no more than this share of a cell's size.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Outlines:
    """The outline of each cell, in the units of the coordinate system.

    Attributes
    ----------
    polygons
        `(n_cells,)` shapely polygons and multi-polygons; None if the outline is a circle.
    centers
        `(n_cells, 2 or 3)` float64: centers of circles, NaN elsewhere. Circles with three coordinates are spheres.
    radii
        `(n_cells,)` float64: radii of circles, NaN elsewhere.
    """

    polygons: NDArray[np.object_]
    centers: NDArray[np.float64]
    radii: NDArray[np.float64]

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self.polygons)

    def take(self, rows: NDArray[np.integer]) -> Outlines:
        """Return the outlines of some cells."""
        return Outlines(self.polygons[rows], self.centers[rows], self.radii[rows])

    def in_plane(self) -> NDArray[np.object_]:
        """Return all outlines as polygons in the plane, `(n_cells,)`; circles become polygons with 128 corners."""
        polygons = self.polygons.copy()
        circles = np.isfinite(self.radii)
        places = shapely.points(self.centers[circles, :2])
        polygons[circles] = shapely.buffer(places, self.radii[circles], quad_segs=_CORNERS)
        return polygons

    def bounds(self) -> NDArray[np.float64]:
        """Return the bounding boxes, `(n_cells, 4)`: x and y of the lower, then of the upper corner."""
        bounds = shapely.bounds(self.polygons)
        circles = np.isfinite(self.radii)
        centers, radii = self.centers[circles, :2], self.radii[circles, None]
        bounds[circles] = np.hstack([centers - radii, centers + radii])
        return np.asarray(bounds, dtype=np.float64)

    def rounding(self) -> float:
        """Return the gap below which outlines touch: a millionth of the size (root of the area) of the median cell."""
        area = np.where(np.isfinite(self.radii), np.pi * self.radii**2, shapely.area(self.polygons))
        return _ROUNDING * float(np.sqrt(np.median(area)))

    def gaps(self, first: NDArray[np.integer], second: NDArray[np.integer]) -> NDArray[np.float64]:
        """Return the smallest distance between the outlines of pairs of cells, 0 if they overlap.

        Parameters
        ----------
        first, second
            Rows of the cells, `(n_pairs,)`; both cells of a pair must be from the same region.
        """
        circles = np.isfinite(self.radii[first])
        gaps = np.empty(len(first))
        gaps[~circles] = shapely.distance(self.polygons[first[~circles]], self.polygons[second[~circles]])
        i, j = first[circles], second[circles]
        between = np.linalg.norm(self.centers[i] - self.centers[j], axis=1)
        gaps[circles] = np.maximum(between - self.radii[i] - self.radii[j], 0)
        return gaps


def annotated_cells(
    data: SpatialData | AnnData, *, table_key: str, coordinate_system: str, why: str
) -> tuple[SpatialData, list[RegionCells]]:
    """Return the object and the cells of each region, or raise if the table annotates no element.

    Parameters
    ----------
    data
        The object passed by the user.
    table_key, coordinate_system
        Names of the table and the coordinate system.
    why
        What the elements are needed for, for the message.

    Raises
    ------
    ValueError
        If `data` has no elements, or if the table annotates none of them.
    KeyError, TypeError
        See :func:`cells_by_region`.
    """
    adata = resolve_table(data, table_key)
    if not isinstance(data, SpatialData):
        raise ValueError(f"{why} needs the outlines of the cells, which an AnnData lacks: pass the SpatialData.")
    columns = annotation(adata)
    if columns is None:
        raise ValueError(
            f"{why} needs the outlines of the cells, but the table {table_key!r} annotates no element. Make it "
            "annotate shapes or labels with `spatialdata.models.TableModel.parse(table, region=..., region_key=..., "
            "instance_key=...)`."
        )
    region_key, instance_key = columns
    regions = group_by(adata, region_key, argument="region_key")
    cells = cells_by_region(data, adata, regions, instance_key=instance_key, coordinate_system=coordinate_system)
    for part in cells:
        if part.region in data.points:
            raise ValueError(
                f"{why} needs the outlines of the cells, but region {part.region!r} is points. Annotate shapes or "
                "labels; points with a known size are circles: `spatialdata.models.ShapesModel.parse`."
            )
    return data, cells


def cell_outlines(
    data: SpatialData | AnnData,
    *,
    table_key: str = "table",
    coordinate_system: str = "global",
    why: str = "The distance between boundaries",
) -> Outlines:
    """Return the outline of each row's instance, after transformation to the coordinate system.

    Parameters
    ----------
    data
        A SpatialData object whose table annotates shapes or two-dimensional labels.
    table_key
        Name of the table.
    coordinate_system
        The coordinate system.
    why
        What the outlines are needed for, for the message.

    Raises
    ------
    KeyError, TypeError, ValueError, NotImplementedError
        If an entry is missing or invalid; the message says what exists and what to do.
    """
    sdata, cells = annotated_cells(data, table_key=table_key, coordinate_system=coordinate_system, why=why)
    parts = [_region_outlines(sdata[part.region], part, coordinate_system) for part in cells]
    n_cells = sum(len(part.rows) for part in cells)
    n_axes = max(part.centers.shape[1] for part in parts)
    outlines = Outlines(
        np.full(n_cells, None, dtype=object), np.full((n_cells, n_axes), np.nan), np.full(n_cells, np.nan)
    )
    for region, part in zip(cells, parts, strict=True):
        outlines.polygons[region.rows] = part.polygons
        outlines.centers[region.rows, : part.centers.shape[1]] = part.centers
        outlines.radii[region.rows] = part.radii
    return outlines


def _region_outlines(element: Any, cells: RegionCells, coordinate_system: str) -> Outlines:
    """Return the outlines of the cells of one region."""
    if is_labels(element):
        outlines = label_outlines(element)
        polygons = outlines.to_numpy()[instance_rows(outlines.index, cells.ids, region=cells.region)]
        return _polygons(polygons, to_affine(element, coordinate_system, ("x", "y")))
    shapes = cell_shapes(element, cells)
    if is_circles(shapes):
        return _circles(shapes, cells.region, element, coordinate_system)
    polygons = shapely.force_2d(np.asarray(shapes.geometry.array, dtype=object))
    return _polygons(polygons, to_affine(element, coordinate_system, ("x", "y")))


def _polygons(local: NDArray[Any], matrix: NDArray[np.float64]) -> Outlines:
    """Return the outlines of polygons after a transformation."""
    placed = local
    if not np.array_equal(matrix, np.eye(3)):
        placed = shapely.transform(local, lambda places: places @ matrix[:2, :2].T + matrix[:2, 2])
    return Outlines(placed, np.full((len(local), 2), np.nan), np.full(len(local), np.nan))


def _circles(shapes: GeoDataFrame, region: str, element: Any, coordinate_system: str) -> Outlines:
    """Return the outlines of circles after a transformation: circles if it scales all axes equally, else polygons."""
    solid = bool(shapes.has_z.all())
    axes = ("x", "y", "z") if solid else ("x", "y")
    matrix = to_affine(element, coordinate_system, axes)
    linear, radii = matrix[:-1, :-1], shapes["radius"].to_numpy(dtype=np.float64)
    scale = float(np.abs(np.linalg.det(linear)) ** (1 / len(axes)))
    if np.allclose(linear.T @ linear, scale**2 * np.eye(len(axes)), rtol=0, atol=1e-6 * scale**2):
        local = shapely.get_coordinates(shapes.geometry.array, include_z=solid)
        return Outlines(np.full(len(radii), None, dtype=object), local @ linear.T + matrix[:-1, -1], scale * radii)
    if solid:
        raise ValueError(
            f"The spheres of region {region!r} become ellipsoids in the coordinate system {coordinate_system!r}, which "
            "scales the axes differently, and distances between ellipsoids are not supported. Use a coordinate system "
            "with the same scale along x, y and z, or neighbors by centroid (`distance='centroid'`)."
        )
    return _polygons(shapely.buffer(np.asarray(shapes.geometry.array, dtype=object), radii, quad_segs=_CORNERS), matrix)
