"""Alignment of a query table to the genes of a reference."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from resolvi_sd._csr import CSR, map_rows
from resolvi_sd._scratch import is_in_file
from resolvi_sd._tables._counts import table_counts
from resolvi_sd._validation import check_genes, check_key, listing, warn_user

__all__ = ["align_genes", "means_x", "missing_genes", "query_layer"]


def means_x(adata: ad.AnnData, layer: str | None) -> bool:
    """Return whether a user who gave this name for a layer means X."""
    return layer == "X" and "X" not in adata.layers


def query_layer(query: ad.AnnData, layer: str | None, of_reference: str | None) -> str | None:
    """Return the layer with the counts of a query (None for X): that given by the user, or that of the reference.

    Raises
    ------
    KeyError
        If the layer does not exist.
    """
    if means_x(query, layer):
        return None
    name = layer or of_reference
    if name is not None:
        hint = "layer='X' reads X." if layer else "That is the layer of the reference: name another, or layer='X'."
        check_key(name, query.layers, argument="layer", where="query.layers", hint=hint)
    return name


def missing_genes(names: pd.Index[Any], genes: tuple[str, ...]) -> tuple[str, ...]:
    """Return the genes that are not among the names, in the order of `genes`."""
    known = set(names.astype(str))
    return tuple(gene for gene in genes if gene not in known)


def align_genes(adata: ad.AnnData, genes: tuple[str, ...], layer: str | None) -> ad.AnnData:
    """Return a table with the counts of `adata` for `genes`, in their order; the input is not modified.

    Genes that `adata` lacks have no counts, and if there are any, other layers and everything else that is by gene is
    dropped. Otherwise arrays and sparse matrices in memory are kept; `raw` is not. If the genes are the same in
    the same order, `adata` itself is returned.

    Raises
    ------
    ValueError
        If there are no genes in common.

    Warns
    -----
    UserWarning
        If genes are missing.
    """
    if tuple(adata.var_names.astype(str)) == genes:
        return adata
    check_genes(adata.var_names)
    position = pd.Index(adata.var_names.astype(str)).get_indexer(pd.Index(genes))
    found = np.flatnonzero(position >= 0)
    if not len(found):
        raise ValueError(
            f"The query shares no gene with the reference. Reference: {listing(genes, 5)}; "
            f"query: {listing(adata.var_names, 5)}. Use the same kind of gene names in both."
        )
    missing = missing_genes(adata.var_names, genes)
    if missing:
        warn_user(
            f"{len(missing)} of {len(genes)} genes of the reference are not in the query. Their counts are zero, the "
            "encoder is given what cells of the same kind have of them, and comparisons, sums and audits leave them "
            f"out: {listing(missing)}."
        )
    # Columns are selected by a product with a zero-one matrix, in which a missing gene is an empty column.
    choice = sp.csr_matrix(
        (np.ones(len(found), np.float32), (position[found], found)), shape=(adata.n_vars, len(genes))
    )
    counts = map_rows(table_counts(adata, layer), lambda rows: _columns(rows, choice))
    matrices = {layer: counts}
    if not missing:
        others = {name: adata.layers[name] for name in adata.layers} | {None: adata.X}
        matrices |= {name: m[:, position] for name, m in others.items() if name != layer and _in_memory(m)}
    return ad.AnnData(
        matrices.pop(None, None),
        obs=adata.obs.copy(),
        # Missing values would change the types of the columns.
        var=pd.DataFrame(index=pd.Index(genes)) if missing else adata.var.iloc[position].set_axis(pd.Index(genes)),
        obsm=deepcopy(dict(adata.obsm)),
        varm={} if missing else {name: entry[position] for name, entry in adata.varm.items() if _in_memory(entry)},
        obsp=deepcopy(dict(adata.obsp)),
        uns=deepcopy(dict(adata.uns)),
        layers=matrices,
    )


def _in_memory(matrix: Any) -> bool:
    """Whether a matrix is an array or a sparse matrix, rather than one in a store, in a file or of dask."""
    values = getattr(matrix, "data", None) if sp.issparse(matrix) else matrix
    return isinstance(values, np.ndarray) and not is_in_file(values)


def _columns(counts: CSR, choice: sp.csr_matrix) -> CSR:
    chosen = sp.csr_matrix(counts @ choice)
    chosen.sort_indices()
    return chosen
