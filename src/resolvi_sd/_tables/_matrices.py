"""A matrix of a table as CSR: from memory, or copied block by block from its store."""

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
from zarr.storage import LocalStore

from resolvi_sd._csr import CSR, canonical, csr_in_files, is_canonical, map_rows, of_plain_type, plain_type, row_blocks
from resolvi_sd._validation import STORED

__all__ = ["check_there", "read_matrix"]

# Rows read from a file at a time; maximum number of tasks in which a dask array is computed.
_ROWS = 1 << 14
_MOST_TASKS = 256


def read_matrix(matrix: Any, *, name: str, check: Callable[[NDArray[Any]], None] | None = None) -> CSR:
    """Return a matrix, cells × genes, as CSR with sorted, unique indices and no stored zeros.

    A matrix in memory is returned itself if it already has this form, and converted otherwise. A matrix that is not in
    memory (a dask array, or part of a backed table) is read once, block by block, into temporary files: the arrays of
    the result are views of these files, which the system caches in memory as far as there is room. They must not be
    written to.

    Parameters
    ----------
    matrix
        The matrix; its number type is kept, except that float16 becomes float32.
    name
        Name of the matrix for messages, e.g. `table.X`.
    check
        Function of the stored values, or of those of each block, that raises if they are not valid.

    Raises
    ------
    NotImplementedError
        If the matrix is of another kind, or stored by columns.
    FileNotFoundError
        If the store of the matrix no longer exists.
    OSError
        If there is no room for the temporary files.
    """
    check_there(matrix, name)
    if isinstance(matrix, (da.Array, *STORED)) and not isinstance(matrix, CSCDataset):
        return csr_in_files(_checked(_stored_blocks(matrix), check), matrix.shape, plain_type(matrix.dtype))
    if not isinstance(matrix, np.ndarray) and not sp.issparse(matrix):
        raise NotImplementedError(
            f"`{name}` is a {type(matrix).__module__}.{type(matrix).__name__}, but must be in memory, a dask array, or "
            "stored by rows (CSR or dense). Load the table with `table = table.to_memory()`."
        )
    matrix = of_plain_type(matrix)
    if isinstance(matrix, (sp.csr_matrix, sp.csr_array)):
        csr = matrix if is_canonical(matrix) else map_rows(matrix, canonical)
    else:
        csr = canonical(matrix)
    if check is not None:
        check(csr.data)
    return csr


def check_there(matrix: Any, name: str) -> None:
    """Raise FileNotFoundError if the store of a matrix no longer exists, since zarr reads missing chunks as zeros."""
    node = matrix.group if isinstance(matrix, CSRDataset) else matrix
    store = node.store if isinstance(node, (zarr.Array, zarr.Group)) else None
    if isinstance(store, LocalStore) and not (store.root / node.path).exists():
        raise FileNotFoundError(
            f"`{name}` is read from {str(store.root / node.path)!r}, which no longer exists. If the store was moved, "
            "read the table again from its new location."
        )


def _checked(blocks: Iterator[CSR], check: Callable[[NDArray[Any]], None] | None) -> Iterator[CSR]:
    for block in blocks:
        if check is not None:
            check(block.data)
        yield block


def _stored_blocks(matrix: da.Array | CSRDataset | h5py.Dataset | zarr.Array) -> Iterator[CSR]:
    """Yield the rows, block by block."""
    if isinstance(matrix, da.Array):
        matrix = of_plain_type(matrix)
        # Block by block, so that a dense array is never in memory as a whole.
        empty = sp.csr_matrix((0, 0), dtype=matrix.dtype)
        sparse = matrix.map_blocks(sp.csr_matrix, dtype=matrix.dtype, meta=empty)
        n_blocks = matrix.numblocks[0]
        for blocks in row_blocks(n_blocks, -(-n_blocks // _MOST_TASKS)):
            yield canonical(sparse.blocks[blocks].compute())
    else:
        for rows in row_blocks(matrix.shape[0], _ROWS):
            yield canonical(of_plain_type(matrix[rows]))
