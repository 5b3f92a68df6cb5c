"""CSR matrices, in memory or in temporary files; matrices in files are never loaded into memory as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import DTypeLike, NDArray

from resolvi_sd._scratch import copy_beside, is_in_file, scratch_file, view_file

__all__ = [
    "CSR",
    "canonical",
    "csr_in_files",
    "entry_positions",
    "group_sums",
    "is_canonical",
    "map_rows",
    "of_plain_type",
    "plain_type",
    "row_blocks",
    "row_sums",
    "with_own_values",
]

CSR = sp.csr_matrix | sp.csr_array

# About 100 MB for a panel of 1,000 genes.
_ROWS = 1 << 16
# Type of the column indices in files, unless there are too many entries for it.
_COLUMN = np.int32


def plain_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the closest number type that sparse matrices support, in the byte order of this machine."""
    return np.dtype(np.float32) if dtype == np.float16 else dtype.newbyteorder("=")


def of_plain_type(matrix: Any) -> Any:
    """Return a matrix with numbers of :func:`plain_type`, or the matrix itself if it already has these."""
    kind = plain_type(matrix.dtype)
    return matrix if kind == matrix.dtype else matrix.astype(kind)


def is_canonical(matrix: CSR) -> bool:
    """Whether the indices are sorted and unique, and no zeros are stored."""
    return bool(matrix.has_canonical_format and matrix.data.all())


def canonical(matrix: Any) -> CSR:
    """Return a matrix in memory as CSR with sorted, unique indices and no stored zeros, or itself if it is one."""
    if not isinstance(matrix, (sp.csr_matrix, sp.csr_array)):
        csr: CSR = sp.csr_matrix(matrix)
    elif is_canonical(matrix):
        return matrix
    else:
        csr = matrix.copy()
    csr.sum_duplicates()
    csr.eliminate_zeros()
    return csr


def with_own_values(matrix: CSR) -> CSR:
    """Return the matrix with values that nothing else can modify: values in memory are copied."""
    if is_in_file(matrix.data):
        return matrix
    copy = type(matrix)((matrix.data.copy(), matrix.indices, matrix.indptr), shape=matrix.shape)
    copy.has_sorted_indices, copy.has_canonical_format = matrix.has_sorted_indices, matrix.has_canonical_format
    return copy


def row_blocks(n_rows: int, size: int = _ROWS) -> Iterator[slice]:
    """Cut rows into blocks of at most `size`."""
    return (slice(start, min(start + size, n_rows)) for start in range(0, n_rows, size))


def entry_positions(indptr: NDArray[np.integer], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the positions of the stored entries of `rows` in a CSR matrix, row after row."""
    length = (indptr[rows + 1] - indptr[rows]).astype(np.int64)
    ends = np.cumsum(length)
    start: NDArray[np.int64] = np.repeat(indptr[rows] - (ends - length), length)
    return np.arange(ends[-1] if len(ends) else 0) + start


def row_sums(matrix: CSR) -> NDArray[np.float64]:
    """Return the sum of each row, float64."""
    sums = np.empty(matrix.shape[0])
    for rows in row_blocks(len(sums)):
        sums[rows] = np.asarray(matrix[rows].sum(axis=1)).ravel()
    return sums


def group_sums(
    matrix: CSR,
    codes: NDArray[np.integer],
    n_groups: int,
    *,
    of: Callable[[NDArray[Any]], NDArray[Any]] | None = None,
) -> NDArray[np.float64]:
    """Return the sum of each column over the rows of each group, groups × columns.

    Parameters
    ----------
    matrix
        The matrix.
    codes, n_groups
        Group of each row, -1 if it has none; number of groups.
    of
        Function applied to the stored values before summing; None sums the values themselves.
    """
    sums: NDArray[np.float64] = np.zeros((n_groups, matrix.shape[1]))
    for rows in row_blocks(matrix.shape[0]):
        block = matrix[rows]
        if of is not None:
            block.data = of(block.data)
        member = np.flatnonzero(codes[rows] >= 0)
        shape = (n_groups, block.shape[0])
        indicator = sp.csr_matrix((np.ones(len(member)), (codes[rows][member], member)), shape=shape)
        sums += (indicator @ block).toarray()
    return sums


def map_rows(matrix: CSR, function: Callable[[CSR], CSR]) -> CSR:
    """Return `function(matrix)`; if the matrix is in files, computed by blocks of rows and written into files.

    The function must return matrices with sorted, unique indices, and with the same type and width for all blocks.
    """
    if not is_in_file(matrix.data):
        return function(matrix)
    empty = function(matrix[:0])
    blocks = (function(matrix[rows]) for rows in row_blocks(matrix.shape[0]))
    return csr_in_files(blocks, (matrix.shape[0], empty.shape[1]), empty.dtype)


def csr_in_files(blocks: Iterable[CSR], shape: tuple[int, int], dtype: DTypeLike) -> sp.csr_matrix:
    """Write blocks of rows with sorted, unique indices into temporary files, and return the combined matrix.

    Raises
    ------
    OSError
        If there is not enough disk space for the files.
    """
    with scratch_file() as values, scratch_file() as columns:
        lengths = [np.zeros(1, np.int64)]
        for block in blocks:
            values.write(block.data.astype(dtype, copy=False).data)
            columns.write(block.indices.astype(_COLUMN, copy=False).data)
            lengths.append(np.diff(block.indptr).astype(np.int64))
        value, column = view_file(values, dtype), view_file(columns, _COLUMN)
    indptr = np.cumsum(np.concatenate(lengths))
    if len(value) > np.iinfo(_COLUMN).max:
        # scipy requires one type for both index arrays, and would convert in memory.
        column = copy_beside(column, np.int64)
    csr = sp.csr_matrix((value, column, indptr.astype(column.dtype)), shape=shape)
    csr.has_sorted_indices = csr.has_canonical_format = True
    return csr
