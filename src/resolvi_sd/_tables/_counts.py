"""The counts of a table as a CSR matrix, without a copy where they are one already."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import scipy.sparse as sp
from anndata import AnnData

from resolvi_sd._types import CSR
from resolvi_sd._validation import check_counts, check_key, check_number_type

__all__ = ["table_counts"]


def table_counts(adata: AnnData, layer: str | None) -> CSR:
    """Return the counts, cells × genes, as CSR.

    Parameters
    ----------
    adata
        The table.
    layer
        The layer that holds the counts; None is X.

    Returns
    -------
    The matrix in the table itself if it is CSR with sorted, unique indices and no stored zeros; otherwise a converted
    copy that has these, of a dask array too: the table keeps the array as it is. The number type is the table's.

    Raises
    ------
    KeyError
        If there is no such layer.
    TypeError
        If the matrix holds no numbers.
    ValueError
        If the table has no X, or the values are no counts.
    NotImplementedError
        If the counts are neither in memory nor a dask array.
    """
    if layer is not None:
        check_key(layer, adata.layers, argument="layer", where="table.layers", hint="Pass layer=None to use X.")
    matrix = adata.X if layer is None else adata.layers[layer]
    if matrix is None:
        raise ValueError("The table has no X. Name the layer that holds the counts: layer=...")
    check_number_type(matrix.dtype, layer=layer)
    counts = _as_csr(matrix, name="table.X" if layer is None else f"table.layers[{layer!r}]")
    check_counts(counts.data, adata, layer=layer)
    return counts


def _as_csr(matrix: Any, *, name: str) -> CSR:
    if isinstance(matrix, (sp.csr_matrix, sp.csr_array)):
        if matrix.has_canonical_format and matrix.data.all():
            return matrix
        counts = matrix.copy()
    elif isinstance(matrix, (np.ndarray, sp.csc_matrix, sp.csc_array)):
        counts = sp.csr_matrix(matrix)
    elif isinstance(matrix, da.Array):
        # Block by block, so that a dense array is never in memory as a whole; blocks may be any of the above.
        empty = sp.csr_matrix((0, 0), dtype=matrix.dtype)
        counts = matrix.map_blocks(sp.csr_matrix, dtype=matrix.dtype, meta=empty).compute()
    else:
        raise NotImplementedError(
            f"`{name}` is a {type(matrix).__module__}.{type(matrix).__name__}, and the counts have to be in memory, or "
            "a dask array. Load a backed table with `table = table.to_memory()`."
        )
    counts.sum_duplicates()
    counts.eliminate_zeros()
    return counts
