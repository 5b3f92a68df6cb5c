"""Writing a graph into a table in squidpy's layout, and recognizing it later."""

from __future__ import annotations

from typing import Any

from anndata import AnnData

from resolvi_sd._graphs._graph import NeighborGraph
from resolvi_sd._keys import Keys

__all__ = ["check_no_fit_on_graph", "is_own_graph", "write_graph"]

# Recorded in `uns` as the origin of a graph, as in scanpy and squidpy.
_METHOD = "resolvi_sd"


def write_graph(adata: AnnData, graph: NeighborGraph, *, keys: Keys, params: dict[str, Any]) -> None:
    """Write a graph into a table in squidpy's layout.

    Modifies `adata` with:

    - `.obsp[keys.distances]`, `.obsp[keys.connectivities]`
    - `.uns[keys.neighbors]`, with `params` (without None or tuples, which a store cannot hold)
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
    """Raise ValueError if the graph under these keys is the one on which the results of a fit are based."""
    if keys.weights in adata.obsp:
        raise ValueError(
            f"{keys.prefix!r} holds a fit, and its results are based on this graph. Choose another `key_added=`; "
            "to fit on the new graph, name it: `resolvi_sd.tl.fit(..., neighbors_key='..._neighbors')`."
        )


def is_own_graph(adata: AnnData, keys: Keys) -> bool:
    """Return whether the graph under these keys, if there is one, was written by :func:`write_graph`."""
    if keys.neighbors not in adata.uns:
        return keys.distances not in adata.obsp and keys.connectivities not in adata.obsp
    return str(adata.uns[keys.neighbors].get("params", {}).get("method", "")) == _METHOD
