"""The spatial neighbors of each cell: exact, never across sections, in squidpy's layout."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray
from spatialdata import SpatialData

from resolvi_sd._keys import DEFAULT_KEY, Keys
from resolvi_sd._tables import cell_positions, resolve_table
from resolvi_sd._validation import check_positive_int
from resolvi_sd.gr._graph import NeighborGraph

__all__ = ["NeighborsResult", "knn_graph", "neighbors", "write_graph"]


class NeighborsResult(NamedTuple):
    """What :func:`neighbors` returns with `copy=True`, fields as squidpy's.

    Attributes
    ----------
    connectivities
        Ones, `(n_cells, n_cells)` CSR float32.
    distances
        Distances, of the same sparsity; coincident cells have an explicit zero.
    """

    connectivities: Any
    distances: Any


def _section_neighbors(coordinates: NDArray[np.float64], n_neighbors: int) -> NDArray[np.int64]:
    """Return the nearest neighbors of each cell of one section, `(n_cells, n_neighbors)`, in no particular order.

    The builder is what :func:`squidpy.gr.spatial_neighbors_knn` runs on a table; that function also logs a line each
    time, which would be one per section here.
    """
    from squidpy.gr.neighbors import KNNBuilder  # squidpy takes seconds to import

    # Small sections go through scikit-learn's brute force, x² + y² - 2xy, which loses digits far from the origin.
    connectivities, _ = KNNBuilder(n_neighs=n_neighbors).build(coordinates - coordinates.mean(axis=0))
    found: NDArray[np.int64] = connectivities.indices.reshape(len(coordinates), n_neighbors).astype(np.int64)
    return found


def knn_graph(coordinates: NDArray[np.float64], library: NDArray[np.integer], n_neighbors: int) -> NeighborGraph:
    """Return the exact nearest neighbors of each cell within its section.

    Parameters
    ----------
    coordinates
        `(n_cells, 2 or 3)`.
    library
        Code of each cell's section, `(n_cells,)`.
    n_neighbors
        Number of neighbors, and of slots. A section of n cells fills n - 1 of them where that is less: none for a
        single cell.
    """
    n_cells = len(coordinates)
    index = np.repeat(np.arange(n_cells, dtype=np.int64)[:, None], n_neighbors, axis=1)
    distance = np.zeros((n_cells, n_neighbors), dtype=np.float32)
    mask = np.zeros((n_cells, n_neighbors), dtype=np.bool_)
    order = np.argsort(library, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(library[order])) + 1):
        degree = min(n_neighbors, members.size - 1)
        if degree < 1:
            continue
        here = coordinates[members]
        found = np.sort(_section_neighbors(here, degree), axis=1)  # by row: equal distances come out in that order
        # From the coordinates, as squidpy drops the zeros of coincident cells.
        length = np.linalg.norm(here[found] - here[:, None], axis=2)
        nearest = np.argsort(length, axis=1, kind="stable")
        index[members, :degree] = members[np.take_along_axis(found, nearest, axis=1)]
        distance[members, :degree] = np.take_along_axis(length, nearest, axis=1)
        mask[members, :degree] = True
    return NeighborGraph(index=index, distance=distance, mask=mask)


def write_graph(adata: AnnData, graph: NeighborGraph, *, keys: Keys, params: dict[str, Any]) -> None:
    """Write a graph into a table in squidpy's layout.

    Modifies `adata` with:

    - `.obsp[keys.distances]`, `.obsp[keys.connectivities]`
    - `.uns[keys.neighbors]`, with `params` (no None and no tuples: a store cannot hold them)
    """
    distances, connectivities = graph.to_sparse()
    adata.obsp[keys.distances] = distances
    adata.obsp[keys.connectivities] = connectivities
    adata.uns[keys.neighbors] = {
        "connectivities_key": keys.connectivities,
        "distances_key": keys.distances,
        "params": params,
    }


def neighbors(
    data: SpatialData | AnnData,
    *,
    n_neighbors: int = 10,
    table_key: str = "table",
    library_key: str | None = None,
    spatial_key: str = "spatial",
    coordinate_system: str = "global",
    key_added: str = DEFAULT_KEY,
    copy: bool = False,
) -> NeighborsResult | None:
    """Find the nearest neighbors of each cell, exactly, and never across sections.

    Parameters
    ----------
    data
        A SpatialData object: coordinates are the centroids of the elements that the table annotates, and its regions
        are sections. Or a table with coordinates in `obsm[spatial_key]`.
    n_neighbors
        Number of neighbors; cells of a section with fewer other cells get all of these.
    table_key
        Name of the table in a SpatialData object.
    library_key
        Column of `obs` with the section of each cell; regions are split by it.
    spatial_key
        Entry of `obsm` with the coordinates, where no element is annotated.
    coordinate_system
        Coordinate system of the SpatialData object; distances are in its units.
    key_added
        Prefix of the keys that are written.
    copy
        Return the graph and leave `data` alone.

    Returns
    -------
    None, or with `copy=True` the connectivities and distances. Otherwise modifies the table with:

    - `.obsp['{key_added}_distances']`: distances, CSR float32
    - `.obsp['{key_added}_connectivities']`: ones, CSR float32
    - `.uns['{key_added}_neighbors']`: names of the two and parameters

    Raises
    ------
    KeyError, TypeError, ValueError
        If a table, column, element or coordinate is missing or wrong; the message says what exists and what to do.

    Examples
    --------
    >>> import anndata as ad, numpy as np, resolvi_sd as rsd
    >>> cells = ad.AnnData(obsm={"spatial": np.array([[0.0, 0.0], [3.0, 4.0], [30.0, 40.0]])})
    >>> rsd.gr.neighbors(cells, n_neighbors=1)
    >>> cells.obsp["resolvi_distances"].toarray()
    array([[ 0.,  5.,  0.],
           [ 5.,  0.,  0.],
           [ 0., 45.,  0.]], dtype=float32)
    """
    n_neighbors = check_positive_int(n_neighbors, argument="n_neighbors")
    adata = resolve_table(data, table_key)
    cells = cell_positions(
        data,
        table_key=table_key,
        library_key=library_key,
        spatial_key=spatial_key,
        coordinate_system=coordinate_system,
    )
    graph = knn_graph(cells.coordinates, cells.library, n_neighbors)
    if copy:
        distances, connectivities = graph.to_sparse()
        return NeighborsResult(connectivities=connectivities, distances=distances)
    params = {"coord_type": "generic", "n_neighbors": n_neighbors, "transform": "none"}
    if isinstance(data, SpatialData):
        params["coordinate_system"] = coordinate_system
    if library_key is not None:
        params["library_key"] = library_key
    write_graph(adata, graph, keys=Keys(key_added), params=params)
    return None
