"""Rows of a cells × genes matrix in which most entries are zero."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from resolvi_sd._csr import CSR

__all__ = ["SparseRows"]


@dataclass(frozen=True)
class SparseRows:
    """Rows of a matrix in CSR form, as tensors.

    Attributes
    ----------
    indptr
        Start of the entries of each row, and end of those of the last row, int64, cells + 1.
    gene
        Column of each entry, int64.
    value
        Value of each entry (for counts, its molecules, which are positive), float32.
    shape
        Number of cells and of genes.
    """

    indptr: Tensor
    gene: Tensor
    value: Tensor
    shape: tuple[int, int]

    @classmethod
    def from_scipy(cls, matrix: CSR) -> SparseRows:
        """Copy a scipy matrix, dropping entries that are stored but zero."""
        if matrix.nnz and not matrix.data.all():
            matrix = matrix.copy()
            matrix.eliminate_zeros()
        return cls(
            torch.from_numpy(matrix.indptr.astype(np.int64)),
            torch.from_numpy(matrix.indices.astype(np.int64)),
            torch.from_numpy(matrix.data.astype(np.float32)),
            (int(matrix.shape[0]), int(matrix.shape[1])),
        )

    @classmethod
    def from_dense(cls, matrix: Tensor) -> SparseRows:
        """Take the non-zero entries of a matrix, cells × genes."""
        row, gene = matrix.nonzero(as_tuple=True)
        per_row = torch.bincount(row, minlength=len(matrix))
        indptr = torch.cat([per_row.new_zeros(1), per_row.cumsum(0)])
        return cls(indptr, gene, matrix[row, gene], (matrix.shape[0], matrix.shape[1]))

    @classmethod
    def stacked(cls, parts: Sequence[SparseRows]) -> SparseRows:
        """Put rows of several matrices, at least one, below each other."""
        lengths = torch.cat([part.indptr.diff() for part in parts])
        return cls(
            torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]),
            torch.cat([part.gene for part in parts]),
            torch.cat([part.value for part in parts]),
            (len(lengths), parts[0].shape[1]),
        )

    def rows(self) -> Tensor:
        """Return the row of each entry, int64."""
        return torch.repeat_interleave(
            torch.arange(self.shape[0], device=self.indptr.device), self.indptr.diff(), output_size=len(self.value)
        )

    def between(self, start: int, stop: int) -> SparseRows:
        """Return the rows from `start` up to, but not including, `stop`; their entries are views."""
        first, last = int(self.indptr[start]), int(self.indptr[stop])
        return SparseRows(
            self.indptr[start : stop + 1] - first,
            self.gene[first:last],
            self.value[first:last],
            (stop - start, self.shape[1]),
        )

    def with_values(self, value: Tensor) -> SparseRows:
        """Return the same rows with other values at their entries."""
        return SparseRows(self.indptr, self.gene, value, self.shape)

    def to_dense(self) -> Tensor:
        """Return the dense matrix, cells × genes."""
        dense = torch.zeros(self.shape, dtype=self.value.dtype, device=self.value.device)
        dense[self.rows(), self.gene] = self.value
        return dense

    def to(self, device: torch.device) -> SparseRows:
        """Move to a device."""
        return SparseRows(self.indptr.to(device), self.gene.to(device), self.value.to(device), self.shape)
