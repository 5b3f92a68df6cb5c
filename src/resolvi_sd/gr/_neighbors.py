"""The spatial neighbors of each cell: exact, never across sections, in squidpy's layout."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray
from spatialdata import SpatialData

from resolvi_sd._keys import DEFAULT_KEY, Keys
from resolvi_sd._tables import cell_outlines, cell_positions, resolve_table
from resolvi_sd._validation import check_positive_int
from resolvi_sd.gr._boundary import boundary_graph
from resolvi_sd.gr._graph import NeighborGraph
from resolvi_sd.gr._knn import knn_graph

__all__ = [
    "Distance",
    "NeighborsResult",
    "check_no_fit_on_graph",
    "is_own_graph",
    "knn_graph",
    "nearest_graph",
    "neighbors",
    "write_graph",
]

Distance = Literal["centroid", "boundary"]
# Says in `uns` who made a graph, as scanpy and squidpy do.
_METHOD = "resolvi_sd"


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


def nearest_graph(
    data: SpatialData | AnnData,
    coordinates: NDArray[np.float64],
    library: NDArray[np.integer],
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
        The object that the cells come from; outlines are read from it for `distance="boundary"`.
    coordinates, library
        Centroid, `(n_cells, 2 or 3)`, and code of the section of each cell.
    n_neighbors
        Number of neighbors, and of slots.
    distance
        Between centroids, or between boundaries.
    table_key, coordinate_system
        Names of the table and the coordinate system.

    Raises
    ------
    ValueError
        If `distance` is neither, or there are no outlines.
    KeyError, TypeError, NotImplementedError
        See :func:`resolvi_sd._tables.cell_outlines`.
    """
    if distance == "centroid":
        return knn_graph(coordinates, library, n_neighbors)
    if distance != "boundary":
        raise ValueError(f"distance={distance!r} is not known; it is one of 'centroid', 'boundary'.")
    outlines = cell_outlines(data, table_key=table_key, coordinate_system=coordinate_system)
    return boundary_graph(outlines, coordinates, library, n_neighbors)


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
        "params": {**params, "method": _METHOD},
    }


def check_no_fit_on_graph(adata: AnnData, keys: Keys) -> None:
    """Raise ValueError if the graph under these keys is that of a fit, whose results are of it."""
    if keys.weights in adata.obsp:
        raise ValueError(
            f"{keys.prefix!r} holds a fit, and this is the graph that its results are of. Choose another `key_added=`; "
            "a fit on that graph names it: `resolvi_sd.tl.fit(..., neighbors_key='..._neighbors')`."
        )


def is_own_graph(adata: AnnData, keys: Keys) -> bool:
    """Whether the graph under these keys, if there is one, was written by :func:`write_graph`."""
    if keys.neighbors not in adata.uns:
        return keys.distances not in adata.obsp and keys.connectivities not in adata.obsp
    return str(adata.uns[keys.neighbors].get("params", {}).get("method", "")) == _METHOD


def neighbors(
    data: SpatialData | AnnData,
    *,
    n_neighbors: int = 10,
    distance: Distance = "centroid",
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
        are sections. Labels, circles and points in three dimensions keep z; polygons are taken as two-dimensional. Or a
        table with coordinates in `obsm[spatial_key]`.
    n_neighbors
        Number of neighbors; cells of a section with fewer other cells get all of these.
    distance
        What is measured: `"centroid"`, the distance between centroids, or `"boundary"`, the gap between the outlines
        of the cells, 0 where they touch or overlap. The latter needs shapes or two-dimensional labels that the table
        annotates. Cells at the same gap come in the order of the distances between their centroids.
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
    NotImplementedError
        If labels have three dimensions and `distance` is `"boundary"`.

    Examples
    --------
    >>> import anndata as ad, numpy as np, resolvi_sd as rsd
    >>> cells = ad.AnnData(obsm={"spatial": np.array([[0.0, 0.0], [3.0, 4.0], [30.0, 40.0]])})
    >>> rsd.gr.neighbors(cells, n_neighbors=1)
    >>> cells.obsp["resolvi_distances"].toarray()
    array([[ 0.,  5.,  0.],
           [ 5.,  0.,  0.],
           [ 0., 45.,  0.]], dtype=float32)

    The gaps between the outlines of a simulated tissue, of which many touch:

    >>> sdata = rsd.datasets.simulate_tissue(n_cells=200, n_genes=20, rng=0)
    >>> gaps = rsd.gr.neighbors(sdata, distance="boundary", copy=True).distances
    >>> bool((gaps.data == 0).any())
    True
    """
    n_neighbors = check_positive_int(n_neighbors, argument="n_neighbors")
    adata = resolve_table(data, table_key)
    keys = Keys(key_added)
    if not copy:
        check_no_fit_on_graph(adata, keys)
    cells = cell_positions(
        data,
        table_key=table_key,
        library_key=library_key,
        spatial_key=spatial_key,
        coordinate_system=coordinate_system,
    )
    graph = nearest_graph(
        data,
        cells.coordinates,
        cells.library,
        n_neighbors,
        distance=distance,
        table_key=table_key,
        coordinate_system=coordinate_system,
    )
    if copy:
        distances, connectivities = graph.to_sparse()
        return NeighborsResult(connectivities=connectivities, distances=distances)
    params = {"coord_type": "generic", "n_neighbors": n_neighbors, "transform": "none", "distance": distance}
    params["spatial_key"] = spatial_key
    if isinstance(data, SpatialData):
        params["coordinate_system"] = coordinate_system
    if library_key is not None:
        params["library_key"] = library_key
    write_graph(adata, graph, keys=keys, params=params)
    return None
