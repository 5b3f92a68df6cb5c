"""Matrices in CSR form, in memory or in files: never copied as a whole, whatever is asked of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

__all__ = ["CSR", "group_sums", "row_blocks", "row_sums"]

CSR = sp.csr_matrix | sp.csr_array

# Some 100 MB of a panel of 1,000 genes.
_ROWS = 1 << 16


def row_blocks(n_rows: int, size: int = _ROWS) -> Iterator[slice]:
    """Cut rows into blocks of at most `size`."""
    return (slice(start, min(start + size, n_rows)) for start in range(0, n_rows, size))


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
        Group of each row, -1 where it has none; number of groups.
    of
        What is summed of the stored values; the values themselves when None.
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
