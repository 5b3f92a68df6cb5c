"""A neighbor graph that is already in the table: squidpy's radius or Delaunay graph, or the user's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp
from anndata import AnnData
from numpy.typing import NDArray

from resolvi_sd._graphs._graph import NeighborGraph
from resolvi_sd._validation import check_key, listing, warn_user

__all__ = ["graph_from_table"]


def _is_graph(entry: Any) -> bool:
    return isinstance(entry, Mapping) and "connectivities_key" in entry and "distances_key" in entry


def _find(adata: AnnData, neighbors_key: str) -> tuple[str, Mapping[str, Any]]:
    """Return the entry of `uns` that describes the graph, by its name or by squidpy's `key_added`."""
    for key in (neighbors_key, f"{neighbors_key}_neighbors"):
        if _is_graph(adata.uns.get(key)):
            return key, adata.uns[key]
    graphs = [key for key, entry in adata.uns.items() if _is_graph(entry)]
    raise KeyError(
        f"neighbors_key={neighbors_key!r} names no neighbor graph in `table.uns`; graphs are: {listing(graphs)}. "
        "Run e.g. `squidpy.gr.spatial_neighbors_radius` first, or pass neighbors_key=None."
    )


def _warn_of_expression(key: str, params: Mapping[str, Any]) -> None:
    """Warn of a graph of scanpy's `pp.neighbors`, unless that was made from coordinates."""
    source = str(params.get("use_rep") or "X_pca")
    # squidpy's graphs, and those in its layout, have a `coord_type`.
    if "method" in params and "coord_type" not in params and "spatial" not in source:
        warn_user(
            f"The graph {key!r} was made by `scanpy.pp.neighbors` from {source!r}: it joins cells that resemble each "
            "other, wherever they lie, so that most molecules would seem to come from neighbors. Pass a graph of "
            "neighbors in space, such as 'spatial_neighbors' of squidpy, or neighbors_key=None."
        )


def graph_from_table(adata: AnnData, neighbors_key: str, section: NDArray[np.integer]) -> NeighborGraph:
    """Return a graph in squidpy's layout as arrays; cells without neighbors are allowed, and self loops are ignored.

    Parameters
    ----------
    adata
        The table.
    neighbors_key
        The entry of `uns` that names the graph (`"spatial_neighbors"`), or its prefix (`"spatial"`).
    section
        Code of each cell's section, `(n_cells,)`.

    Raises
    ------
    KeyError
        If there is no such graph, or it names matrices that are not in `obsp`.
    ValueError
        If edges cross sections, if distances are negative or not finite, or if edges do not join neighbors in space.

    Warns
    -----
    UserWarning
        If it is a graph of cells with similar expression.
    """
    key, entry = _find(adata, neighbors_key)
    matrices = {}
    for role in ("distances_key", "connectivities_key"):
        check_key(entry[role], adata.obsp, argument=f"uns[{key!r}][{role!r}]", where="table.obsp")
        matrices[role] = sp.csr_matrix(adata.obsp[entry[role]])
    if entry.get("params", {}).get("transform") == "cosine":
        raise ValueError(
            f"The graph {key!r} was made with transform='cosine', whose edges join cells that share neighbors and have "
            "no distance. Make it with transform=None."
        )
    _warn_of_expression(key, entry.get("params", {}))
    values = matrices["distances_key"].data
    bad = int((~(np.isfinite(values) & (values >= 0))).sum())
    if bad:
        raise ValueError(f"The graph {key!r} has {bad} distances that are negative, NaN or infinite.")
    graph = NeighborGraph.from_sparse(matrices["distances_key"], matrices["connectivities_key"])
    crossing = int((section[:, None] != section[graph.index])[graph.mask].sum())
    if crossing:
        raise ValueError(
            f"{crossing} of {int(graph.mask.sum())} edges of the graph {key!r} join cells of different sections. "
            "Build it per section (squidpy: library_key=...), or check `library_key`."
        )
    return graph
