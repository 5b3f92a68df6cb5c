"""Nearest cells by the gap between outlines."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray

from resolvi_sd._graphs._graph import NeighborGraph
from resolvi_sd._graphs._knn import section_neighbors, sections
from resolvi_sd._tables import Outlines

__all__ = ["boundary_graph", "box_tree", "pairs_within"]

# Number of cells per search: with 14 pairs per cell, temporary arrays take no more than tens of megabytes.
_BLOCK = 1 << 15


def boundary_graph(
    outlines: Outlines, coordinates: NDArray[np.float64], section: NDArray[np.integer], n_neighbors: int
) -> NeighborGraph:
    """Return the exact nearest neighbors of each cell within its section, by the gap between their outlines.

    The gap is 0 where outlines touch (up to rounding) or overlap. Neighbors with equal gaps are ordered by the distance
    between centroids, then by row.

    Parameters
    ----------
    outlines
        Outline of each cell.
    coordinates
        Centroids, `(n_cells, 2 or 3)`.
    section
        Code of each cell's section, `(n_cells,)`.
    n_neighbors
        Number of neighbors, and of slots; see :func:`resolvi_sd._graphs._knn.knn_graph`.

    Notes
    -----
    The largest gap to the `n_neighbors` cells with the nearest centroids is an upper bound of the gaps to the cells
    with the nearest outlines; all outlines within that bound are found by their bounding boxes and measured.
    """
    graph = NeighborGraph.empty(len(coordinates), n_neighbors)
    rounding = outlines.rounding()
    for members in sections(section):
        degree = min(n_neighbors, members.size - 1)
        if degree < 1:
            continue
        here, places = outlines.take(members), coordinates[members]
        seeds = section_neighbors(places, degree)
        tree = box_tree(here)
        for start in range(0, members.size, _BLOCK):
            rows = np.arange(start, min(start + _BLOCK, members.size))
            to_seeds = here.gaps(np.repeat(rows, degree), seeds[rows].ravel()).reshape(-1, degree)
            first, second, gap = pairs_within(here, tree, rows, to_seeds.max(axis=1) * (1 + 1e-6) + rounding)
            gap[gap <= rounding] = 0
            index, distance = _nearest(first - start, second, gap, places, rows, degree)
            graph.index[members[rows], :degree] = members[index]
            graph.distance[members[rows], :degree] = distance
        graph.mask[members, :degree] = True
    return graph


def pairs_within(
    outlines: Outlines, tree: shapely.STRtree, rows: NDArray[np.intp], reach: NDArray[np.float64]
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    """Return all pairs of a cell in `rows` and another cell whose gap is at most the reach of the first cell.

    Parameters
    ----------
    outlines
        Outlines of one section.
    tree
        Tree of their bounding boxes; see :func:`box_tree`.
    rows
        Cells to start from.
    reach
        Largest gap for each of them.

    Returns
    -------
    First cell, second cell and gap of each pair.
    """
    boxes = outlines.take(rows).bounds() + np.outer(reach, [-1, -1, 1, 1])
    found, second = tree.query(shapely.box(*boxes.T))
    first = rows[found]
    other = first != second
    found, first, second = found[other], first[other], second[other]
    gap = outlines.gaps(first, second)
    near = gap <= reach[found]
    return first[near], second[near], gap[near]


def box_tree(outlines: Outlines) -> shapely.STRtree:
    """Return a tree of the bounding boxes of the outlines."""
    return shapely.STRtree(shapely.box(*outlines.bounds().T))


def _nearest(
    first: NDArray[np.intp],
    second: NDArray[np.intp],
    gap: NDArray[np.float64],
    places: NDArray[np.float64],
    rows: NDArray[np.intp],
    degree: int,
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Return the nearest cells of each of `rows` among the pairs, `(n_rows, degree)`, and the gaps to them."""
    # In the precision in which gaps are stored, so that gaps that differ only by rounding are ties.
    between = np.linalg.norm(places[rows[first]] - places[second], axis=1).astype(np.float32)
    stored = gap.astype(np.float32)
    order = np.lexsort((second, between, stored, first))
    counts = np.bincount(first, minlength=len(rows))
    rank = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    kept = order[rank < degree]
    return second[kept].reshape(-1, degree), stored[kept].reshape(-1, degree)
