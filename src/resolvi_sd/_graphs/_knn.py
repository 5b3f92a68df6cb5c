"""Nearest cells by the distance between centroids."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resolvi_sd._graphs._graph import NeighborGraph

__all__ = ["knn_graph", "section_neighbors", "sections"]


def sections(section: NDArray[np.integer]) -> Iterator[NDArray[np.intp]]:
    """Yield the rows of each section, in order."""
    order = np.argsort(section, kind="stable")
    yield from np.split(order, np.flatnonzero(np.diff(section[order])) + 1)


@cache
def _knn_builder() -> Any:
    """Return squidpy's builder, which is imported only when needed, since the import takes seconds."""
    with warnings.catch_warnings():
        # On import, squidpy 1.8 fills docstrings with names that docrep does not know, which triggers warnings.
        warnings.filterwarnings("ignore", r"'\w+' is not a valid key!", SyntaxWarning)
        from squidpy.gr.neighbors import KNNBuilder
    return KNNBuilder


def section_neighbors(coordinates: NDArray[np.float64], n_neighbors: int) -> NDArray[np.int64]:
    """Return the nearest neighbors of each cell of one section, `(n_cells, n_neighbors)`, ordered by row.

    This uses the builder that :func:`squidpy.gr.spatial_neighbors_knn` runs on a table; that function also logs a line
    each time it is called, which here would be one line per section.
    """
    # For small sections, scikit-learn uses brute force, x² + y² - 2xy, which loses digits far from the origin.
    connectivities, _ = _knn_builder()(n_neighs=n_neighbors).build(coordinates - coordinates.mean(axis=0))
    found: NDArray[np.int64] = connectivities.indices.reshape(len(coordinates), n_neighbors).astype(np.int64)
    return np.sort(found, axis=1)


def knn_graph(coordinates: NDArray[np.float64], section: NDArray[np.integer], n_neighbors: int) -> NeighborGraph:
    """Return the exact nearest neighbors of each cell within its section.

    Parameters
    ----------
    coordinates
        `(n_cells, 2 or 3)`.
    section
        Code of each cell's section, `(n_cells,)`.
    n_neighbors
        Number of neighbors, and of slots. If a section has n cells, at most n - 1 slots are filled, so none for a
        single cell.
    """
    graph = NeighborGraph.empty(len(coordinates), n_neighbors)
    for members in sections(section):
        degree = min(n_neighbors, members.size - 1)
        if degree < 1:
            continue
        here = coordinates[members]
        found = section_neighbors(here, degree)  # ordered by row, as are neighbors at equal distances
        # Computed from the coordinates, since squidpy drops the zeros of coincident cells.
        length = np.linalg.norm(here[found] - here[:, None], axis=2)
        nearest = np.argsort(length, axis=1, kind="stable")
        graph.index[members, :degree] = members[np.take_along_axis(found, nearest, axis=1)]
        graph.distance[members, :degree] = np.take_along_axis(length, nearest, axis=1)
        graph.mask[members, :degree] = True
    return graph
