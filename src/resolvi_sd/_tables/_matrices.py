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
from zarr.storage import LocalStore

from resolvi_sd._csr import CSR, canonical, csr_in_files, is_canonical, map_rows, of_plain_type, plain_type, row_blocks
from resolvi_sd._validation import STORED

__all__ = ["check_there", "read_matrix"]

# Rows that are read in one go from a file; tasks that a dask array is computed in.
_ROWS = 1 << 14
_MOST_TASKS = 256


def read_matrix(matrix: Any, *, name: str, check: Callable[[NDArray[Any]], None] | None = None) -> CSR:
    """Return a matrix, cells × genes, as CSR with sorted, unique indices and no stored zeros.

    What is in memory is returned as it is where it is of that form already, and converted otherwise. What is not (a
    dask array, a backed table) is read once, block by block, into temporary files: the arrays of the result are views
    of these, which the system holds in memory as far as there is room. They are not to be written to.

    Parameters
    ----------
    matrix
        The matrix; its number type is kept, but float16 becomes float32.
    name
        How the user calls it, e.g. `table.X`.
    check
        Called with the stored values, or those of each block: raises if they are not as they should be.

    Raises
    ------
    NotImplementedError
        If the matrix is of another kind, or stored by columns.
    FileNotFoundError
        If the store of the matrix is gone.
    OSError
        If there is no room for the temporary files.
    """
    check_there(matrix, name)
    if isinstance(matrix, (da.Array, *STORED)) and not isinstance(matrix, CSCDataset):
        return csr_in_files(_checked(_stored_blocks(matrix), check), matrix.shape, plain_type(matrix.dtype))
    if not isinstance(matrix, np.ndarray) and not sp.issparse(matrix):
        raise NotImplementedError(
            f"`{name}` is a {type(matrix).__module__}.{type(matrix).__name__}, and has to be in memory, a dask array, "
            "or stored by rows (CSR or dense). Load the table with `table = table.to_memory()`."
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
    """Raise FileNotFoundError if the store of a matrix is gone: zarr reads zeros where chunks are missing."""
    node = matrix.group if isinstance(matrix, CSRDataset) else matrix
    store = node.store if isinstance(node, (zarr.Array, zarr.Group)) else None
    if isinstance(store, LocalStore) and not (store.root / node.path).exists():
        raise FileNotFoundError(
            f"`{name}` is read from {str(store.root / node.path)!r}, which does not exist any more. If the store was "
            "moved, read the table again from where it is now."
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
