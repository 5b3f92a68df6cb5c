"""Nearest neighbors of each cell, by either distance."""

from __future__ import annotations

from typing import Literal

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray
from spatialdata import SpatialData

from resolvi_sd._graphs._boundary import boundary_graph
from resolvi_sd._graphs._graph import NeighborGraph
from resolvi_sd._graphs._knn import knn_graph
from resolvi_sd._tables import cell_outlines

__all__ = ["Distance", "nearest_graph"]

Distance = Literal["centroid", "boundary"]


def nearest_graph(
    data: SpatialData | AnnData,
    coordinates: NDArray[np.float64],
    section: NDArray[np.integer],
    n_neighbors: int,
    *,
    distance: Distance = "centroid",
    table_key: str = "table",
    coordinate_system: str = "global",
) -> NeighborGraph:
    """Return the nearest neighbors of each cell within its section, by either distance.

    Parameters
    ----------
    data
        The object that contains the cells; outlines are read from it for `distance="boundary"`.
    coordinates, section
        Centroid, `(n_cells, 2 or 3)`, and code of the section of each cell.
    n_neighbors
        Number of neighbors, and of slots.
    distance
        Distance between centroids, or between boundaries.
    table_key, coordinate_system
        Names of the table and the coordinate system.

    Raises
    ------
    ValueError
        If `distance` is neither of these, or if there are no outlines.
    KeyError, TypeError, NotImplementedError
        See :func:`resolvi_sd._tables.cell_outlines`.
    """
    if distance == "centroid":
        return knn_graph(coordinates, section, n_neighbors)
    if distance != "boundary":
        raise ValueError(f"distance={distance!r} is not known; it is one of 'centroid', 'boundary'.")
    outlines = cell_outlines(data, table_key=table_key, coordinate_system=coordinate_system)
    return boundary_graph(outlines, coordinates, section, n_neighbors)
