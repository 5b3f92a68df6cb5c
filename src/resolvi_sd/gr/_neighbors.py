"""Exact spatial neighbors of each cell, never across sections, in squidpy's layout."""

from __future__ import annotations

from typing import Any, NamedTuple

from anndata import AnnData
from spatialdata import SpatialData

from resolvi_sd._graphs import Distance, check_no_fit_on_graph, nearest_graph, write_graph
from resolvi_sd._keys import DEFAULT_KEY, Keys
from resolvi_sd._tables import cell_positions, check_place_used, resolve_table
from resolvi_sd._validation import check_positive_int

__all__ = ["NeighborsResult", "neighbors"]


class NeighborsResult(NamedTuple):
    """Return value of :func:`neighbors` with `copy=True`, with the same fields as in squidpy.

    Attributes
    ----------
    connectivities
        Ones, `(n_cells, n_cells)` CSR float32.
    distances
        Distances, of the same sparsity; coincident cells have an explicit zero.
    """

    connectivities: Any
    distances: Any


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
    """Find the exact nearest neighbors of each cell, never across sections.

    Parameters
    ----------
    data
        Either a SpatialData object or a table. In a SpatialData object, the coordinates are the centroids of the
        elements that the table annotates, and each region is a section. Labels, circles and points in three dimensions
        keep z; polygons are treated as two-dimensional. A table must have coordinates in `obsm[spatial_key]`.
    n_neighbors
        Number of neighbors. In a section with fewer other cells, each cell gets all of them.
    distance
        Distance to use: `"centroid"`, the distance between centroids, or `"boundary"`, the gap between the outlines of
        the cells, which is 0 where they touch or overlap. The latter requires a table that annotates shapes or
        two-dimensional labels. Cells with equal gaps are ordered by the distance between their centroids.
    table_key
        Name of the table in a SpatialData object.
    library_key
        Column of `obs` with the section of each cell; it subdivides the regions of a SpatialData object. None, for a
        table on its own: the regions that it names.
    spatial_key
        Entry of `obsm` with the coordinates, used if the table annotates no element.
    coordinate_system
        Coordinate system of the SpatialData object; distances are in its units.
    key_added
        Prefix of the keys that are written.
    copy
        Return the graph and leave `data` unchanged.

    Returns
    -------
    None, or with `copy=True` the connectivities and distances. Otherwise modifies the table with:

    - `.obsp['{key_added}_distances']`: distances, CSR float32
    - `.obsp['{key_added}_connectivities']`: ones, CSR float32
    - `.uns['{key_added}_neighbors']`: names of these two matrices and the parameters

    Raises
    ------
    KeyError, TypeError, ValueError
        If a table, column, element or coordinate is missing or invalid; the message says what exists and what to do.
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

    Gaps between the cell outlines of a simulated tissue, many of which touch:

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
    check_place_used(data, adata, spatial_key=spatial_key, coordinate_system=coordinate_system)
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
        cells.sections.codes,
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
