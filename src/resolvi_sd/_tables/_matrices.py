"""A matrix of a table as CSR: as it is in memory, or copied from where it is stored, block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import dask.array as da
import h5py
import numpy as np
import scipy.sparse as sp
import zarr
from anndata.abc import CSCDataset, CSRDataset
from numpy.typing import NDArray

from resolvi_sd._csr import CSR, row_blocks
from resolvi_sd._scratch import copy_beside, scratch_file, view_file
from resolvi_sd._validation import STORED

__all__ = ["read_matrix"]

# Rows that are read in one go from a file; tasks that a dask array is computed in.
_ROWS = 1 << 14
_MOST_TASKS = 256
# Type of the columns of entries, while they are not too many to be numbered by it.
_COLUMN = np.int32


def read_matrix(matrix: Any, *, name: str, check: Callable[[NDArray[Any]], None] | None = None) -> CSR:
    """Return a matrix, cells × genes, as CSR with sorted, unique indices and no stored zeros.

    What is in memory is returned as it is where it is of that form already, and converted otherwise. What is not (a
    dask array, a backed table) is read once, block by block, into temporary files: the arrays of the result are views
    of these, which the system holds in memory as far as there is room. They are not to be written to.

    Parameters
    ----------
    matrix
        The matrix; its number type is kept.
    name
        How the user calls it, e.g. `table.X`.
    check
        Called with the stored values, or those of each block: raises if they are not as they should be.

    Raises
    ------
    NotImplementedError
        If the matrix is of another kind, or stored by columns.
    OSError
        If there is no room for the temporary files.
    """
    if isinstance(matrix, np.ndarray) or sp.issparse(matrix):
        csr = _canonical(matrix)
        if check is not None:
            check(csr.data)
        return csr
    if isinstance(matrix, (da.Array, *STORED)) and not isinstance(matrix, CSCDataset):
        return _in_files(_stored_blocks(matrix), matrix.shape, matrix.dtype, check)
    raise NotImplementedError(
        f"`{name}` is a {type(matrix).__module__}.{type(matrix).__name__}, and has to be in memory, a dask array, or "
        "stored by rows (CSR or dense). Load the table with `table = table.to_memory()`."
    )


def _canonical(matrix: Any) -> CSR:
    if isinstance(matrix, (sp.csr_matrix, sp.csr_array)):
        if matrix.has_canonical_format and matrix.data.all():
            return matrix
        matrix = matrix.copy()
    csr: CSR = matrix if isinstance(matrix, (sp.csr_matrix, sp.csr_array)) else sp.csr_matrix(matrix)
    csr.sum_duplicates()
    csr.eliminate_zeros()
    return csr


def _stored_blocks(matrix: da.Array | CSRDataset | h5py.Dataset | zarr.Array) -> Iterator[CSR]:
    """Yield the rows, block by block."""
    if isinstance(matrix, da.Array):
        # Block by block, so that a dense array is never in memory as a whole.
        empty = sp.csr_matrix((0, 0), dtype=matrix.dtype)
        sparse = matrix.map_blocks(sp.csr_matrix, dtype=matrix.dtype, meta=empty)
        n_blocks = matrix.numblocks[0]
        for blocks in row_blocks(n_blocks, -(-n_blocks // _MOST_TASKS)):
            yield _canonical(sparse.blocks[blocks].compute())
    else:
        for rows in row_blocks(matrix.shape[0], _ROWS):
            yield _canonical(matrix[rows])


def _in_files(
    blocks: Iterator[CSR],
    shape: tuple[int, int],
    dtype: np.dtype[Any],
    check: Callable[[NDArray[Any]], None] | None,
) -> sp.csr_matrix:
    with scratch_file() as values, scratch_file() as columns:
        lengths = [np.zeros(1, np.int64)]
        for block in blocks:
            if check is not None:
                check(block.data)
            values.write(block.data.astype(dtype, copy=False).data)
            columns.write(block.indices.astype(_COLUMN, copy=False).data)
            lengths.append(np.diff(block.indptr).astype(np.int64))
        value, column = view_file(values, dtype), view_file(columns, _COLUMN)
    indptr = np.cumsum(np.concatenate(lengths))
    if len(value) > np.iinfo(_COLUMN).max:
        # scipy has one type for both, and would make the larger of them in memory.
        column = copy_beside(column, np.int64)
    csr = sp.csr_matrix((value, column, indptr.astype(column.dtype)), shape=shape)
    csr.has_sorted_indices = csr.has_canonical_format = True
    return csr
