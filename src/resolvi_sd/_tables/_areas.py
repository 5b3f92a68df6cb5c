"""Areas and volumes of the cells, in the units of the coordinate system."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import shapely
from anndata import AnnData
from geopandas import GeoDataFrame
from numpy.typing import NDArray
from spatialdata import SpatialData

from resolvi_sd._tables._instances import RegionCells, instance_rows, system_of, to_affine
from resolvi_sd._tables._label_image import is_labels, label_axes, label_sums
from resolvi_sd._tables._outlines import annotated_cells
from resolvi_sd._tables._shapes import cell_shapes, is_circles

__all__ = ["CellSizes", "Quantity", "cell_sizes"]

Quantity = Literal["area", "volume"]

_DIMENSIONS = {"area": 2, "volume": 3}


@dataclass(frozen=True)
class CellSizes:
    """The size of each cell.

    Attributes
    ----------
    values
        `(n_cells,)` float64, positive.
    quantity
        The quantity that was measured.
    unit
        Unit of the values, e.g. `"micrometer^2"`.
    coordinate_system
        Coordinate system in which the sizes were measured.
    """

    values: NDArray[np.float64]
    quantity: Quantity
    unit: str
    coordinate_system: str


def cell_sizes(
    data: SpatialData | AnnData,
    *,
    quantity: Quantity = "area",
    table_key: str = "table",
    coordinate_system: str = "global",
    unit: str | None = None,
) -> CellSizes:
    """Return the area or volume of each row's instance, after transformation to the coordinate system.

    The area of a polygon is the area inside its outline, that of a label is the area of its pixels, which are counted
    block by block. Only labels in three dimensions have a volume, that of their voxels, and circles with a z
    coordinate, which are spheres.

    Parameters
    ----------
    data
        A SpatialData object whose table annotates shapes or labels.
    quantity
        `"area"` or `"volume"`.
    table_key
        Name of the table.
    coordinate_system
        The coordinate system; sizes are in its units, squared or cubed.
    unit
        Unit of length of the coordinate system, if known to the user; see :func:`_unit_of`.

    Raises
    ------
    ValueError
        If there are no outlines, they lack this quantity, the transformation flattens them, or `unit` is wrong.
    KeyError, TypeError
        If an entry is missing or invalid; the message says what exists and what to do.
    """
    if quantity not in _DIMENSIONS:
        raise ValueError(f"quantity={quantity!r} is not known; it is one of 'area', 'volume'.")
    sdata, cells = annotated_cells(
        data, table_key=table_key, coordinate_system=coordinate_system, why=f"The {quantity} of cells"
    )
    full_unit = _unit_of(sdata, coordinate_system, quantity, unit)
    for part in cells:
        _check_dimensions(sdata[part.region], part.region, quantity)
    sizes = np.empty(sum(len(part.rows) for part in cells))
    for part in cells:
        element = sdata[part.region]
        axes = ("x", "y", "z")[: _DIMENSIONS[quantity]]
        factor = abs(float(np.linalg.det(to_affine(element, coordinate_system, axes)[:-1, :-1])))
        if not (np.isfinite(factor) and factor > 0):
            raise ValueError(
                f"The transformation of element {part.region!r} to {coordinate_system!r} flattens it: its cells have "
                f"no {quantity} there. Correct it with `spatialdata.transformations.set_transformation`."
            )
        sizes[part.rows] = factor * _local_sizes(element, part, quantity)
    return CellSizes(sizes, quantity, full_unit, coordinate_system)


def _check_dimensions(element: Any, region: str, quantity: Quantity) -> None:
    """Raise unless the instances of a region have this kind of size."""
    if is_labels(element):
        dimensions = {len(label_axes(element))}
    elif is_circles(element) and bool(element.has_z.all()):
        dimensions = {2, 3}
    else:
        dimensions = {2}
    if _DIMENSIONS[quantity] not in dimensions:
        other = "area" if quantity == "volume" else "volume"
        raise ValueError(
            f"The cells of region {region!r} have {max(dimensions)} dimensions, so they have no {quantity}: use "
            f"{other!r}, or annotate an element that has one."
        )


def _local_sizes(element: Any, cells: RegionCells, quantity: Quantity) -> NDArray[np.float64]:
    """Return the sizes in the element's own coordinates."""
    if is_labels(element):
        pixels = label_sums(element)["pixels"]
        rows = instance_rows(pixels.index, cells.ids, region=cells.region)
        return np.asarray(pixels.to_numpy()[rows], dtype=np.float64)
    shapes: GeoDataFrame = cell_shapes(element, cells)
    if not is_circles(shapes):
        return np.asarray(shapely.area(shapes.geometry.array), dtype=np.float64)
    radii = shapes["radius"].to_numpy(dtype=np.float64)
    return np.asarray(np.pi * radii**2 if quantity == "area" else 4 / 3 * np.pi * radii**3)


def _unit_of(sdata: SpatialData, coordinate_system: str, quantity: Quantity, unit: str | None) -> str:
    """Return the unit of the sizes, e.g. `"micrometer^2"`.

    A coordinate system has no unit of its own. If an image or labels are placed in it at a scale of one, its unit is
    their pixel.

    Parameters
    ----------
    sdata
        The object.
    coordinate_system
        The coordinate system.
    quantity
        The quantity that is measured.
    unit
        Unit of length of the coordinate system, if known to the user.

    Raises
    ------
    ValueError
        If `unit` is a physical unit, but the unit of the coordinate system is a pixel.
    """
    rasters = {**sdata.images, **sdata.labels}
    placed = [name for name, element in rasters.items() if _one_to_one(element, coordinate_system)]
    if placed and unit not in (None, "pixel"):
        raise ValueError(
            f"unit={unit!r}, but the unit of the coordinate system {coordinate_system!r} is a pixel: {placed[0]!r} is "
            f"placed in it without a scale. Place every element in a coordinate system with the unit {unit}, e.g. with "
            "`set_transformation(element, Scale([0.2125, 0.2125], axes=('x', 'y')), 'micrometers')` of "
            "`spatialdata.transformations` for pixels of 0.2125, and pass coordinate_system='micrometers'."
        )
    length = unit or ("pixel" if placed else f"unit of {coordinate_system!r}")
    return f"{length}^{_DIMENSIONS[quantity]}"


def _one_to_one(element: Any, coordinate_system: str) -> bool:
    """Whether the element is placed in the coordinate system at one unit per pixel."""
    if system_of(element, coordinate_system) is None:
        return False
    linear = to_affine(element, coordinate_system, ("x", "y"))[:2, :2]
    return bool(np.allclose(linear.T @ linear, np.eye(2), rtol=0, atol=1e-6))
