"""Linear layer for rows that are mostly zero, compiled for the CPU.

The counts of a cell are zero for most genes of a panel, and even more so for a whole transcriptome. The product and its
backward pass visit only the non-zero entries.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from resolvi_sd._compiled import ONE_AT_A_TIME, is_compiled, thread_bounds
from resolvi_sd._tiles import SparseRows

__all__ = ["SparseLinear"]


@njit(parallel=True, nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
def _times(indptr: Any, gene: Any, value: Any, weight: Any, out: Any) -> None:
    for i in prange(len(out)):
        row, e, stop = out[i], indptr[i], indptr[i + 1]
        # Four entries at a time, so that the row is read and written only a quarter as often.
        while e + 4 <= stop:
            first, second, third, fourth = value[e], value[e + 1], value[e + 2], value[e + 3]
            by_first, by_second = weight[gene[e]], weight[gene[e + 1]]
            by_third, by_fourth = weight[gene[e + 2]], weight[gene[e + 3]]
            for c in range(len(row)):
                row[c] += first * by_first[c] + second * by_second[c] + third * by_third[c] + fourth * by_fourth[c]
            e += 4
        while e < stop:
            last, by_last = value[e], weight[gene[e]]
            for c in range(len(row)):
                row[c] += last * by_last[c]
            e += 1


@njit(parallel=True, nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
def _transposed_times(indptr: Any, gene: Any, value: Any, grad: Any, bounds: Any, out: Any) -> None:
    for part in prange(len(bounds) - 1):
        here = out[part]
        for i in range(bounds[part], bounds[part + 1]):
            upstream = grad[i]
            for e in range(indptr[i], indptr[i + 1]):
                x = value[e]
                if x != 0:
                    row = here[gene[e]]
                    for c in range(len(row)):
                        row[c] += x * upstream[c]


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, rows: SparseRows) -> Tensor:
        ctx.rows = rows
        out = np.zeros((rows.shape[0], len(weight)), np.float32)
        by_gene = weight.detach().t().contiguous().numpy()
        with ONE_AT_A_TIME:
            _times(rows.indptr.numpy(), rows.gene.numpy(), rows.value.numpy(), by_gene, out)
        return torch.from_numpy(out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        rows, grad = ctx.rows, upstream[0].contiguous().numpy()
        bounds = thread_bounds(len(grad))
        out = np.zeros((len(bounds) - 1, rows.shape[1], grad.shape[1]), np.float32)
        with ONE_AT_A_TIME:
            _transposed_times(rows.indptr.numpy(), rows.gene.numpy(), rows.value.numpy(), grad, bounds, out)
        return torch.from_numpy(out).sum(dim=0).t(), None


class SparseLinear(nn.Linear):
    """A `torch.nn.Linear` that takes :class:`SparseRows`, with the same parameters.

    The compiled product is used for float32 on the CPU. Otherwise, the rows are converted to dense ones on their
    device.

    Examples
    --------
    >>> import scipy.sparse as sp
    >>> from resolvi_sd._model.sparse_linear import SparseLinear
    >>> from resolvi_sd._tiles import SparseRows
    >>> SparseLinear(3, 2)(SparseRows.from_scipy(sp.csr_matrix([[0.0, 4.0, 0.0]]))).shape
    torch.Size([1, 2])
    """

    def forward(self, rows: SparseRows) -> Tensor:  # type: ignore[override]
        """Map cells × in_features to cells × out_features; differentiable in the parameters."""
        if not (is_compiled(self.weight) and is_compiled(rows.value)):
            return F.linear(rows.to_dense().to(self.weight.dtype), self.weight, self.bias)
        product: Tensor = _Product.apply(self.weight, rows)  # type: ignore[no-untyped-call]
        return product if self.bias is None else product + self.bias
