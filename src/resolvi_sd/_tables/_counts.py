"""The counts of a table as a CSR matrix, without copying those that already are one."""

from __future__ import annotations

from anndata import AnnData

from resolvi_sd._csr import CSR
from resolvi_sd._tables._matrices import check_there, read_matrix
from resolvi_sd._validation import check_counts, check_key, check_number_type, matrix_name

__all__ = ["table_counts"]


def table_counts(adata: AnnData, layer: str | None) -> CSR:
    """Return the counts, cells × genes, as CSR.

    Parameters
    ----------
    adata
        The table.
    layer
        The layer that holds the counts; None means X.

    Returns
    -------
    The matrix in the table itself if it is CSR with sorted, unique indices and no stored zeros; otherwise a copy that
    is converted to this form (see :func:`read_matrix`), leaving the table unchanged. The number type is that of the
    table.

    Raises
    ------
    KeyError
        If there is no such layer.
    TypeError
        If the matrix does not hold numbers.
    ValueError
        If the table has no X, or if the values are not counts.
    FileNotFoundError
        If they are in a store that no longer exists.
    NotImplementedError
        If the counts are not in memory, and are neither a dask array nor stored by rows.
    """
    if layer is not None:
        check_key(layer, adata.layers, argument="layer", where="table.layers", hint="Pass layer=None to use X.")
    matrix = adata.X if layer is None else adata.layers[layer]
    if matrix is None:
        raise ValueError("The table has no X. Name the layer that holds the counts: layer=...")
    name = matrix_name(layer)
    check_there(matrix, name)
    check_number_type(matrix.dtype, layer=layer)
    return read_matrix(
        matrix,
        name=name,
        check=lambda values: check_counts(values, adata, layer=layer),
    )
