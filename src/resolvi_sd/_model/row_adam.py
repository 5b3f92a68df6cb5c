"""Adam for a table of which each step touches only some rows."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from numba import njit, prange
from torch import Tensor

from resolvi_sd._compiled import ONE_AT_A_TIME, is_compiled

__all__ = ["RowAdam"]


@njit(parallel=True, nogil=True, cache=True, error_model="numpy")
def _update(
    table: Any, mean: Any, square: Any, rows: Any, grad: Any, beta1: Any, beta2: Any, rate: Any, eps: Any
) -> None:
    for i in prange(len(rows)):
        for c in range(table.shape[1]):
            g = grad[i, c]
            m = beta1 * mean[rows[i], c] + (1 - beta1) * g
            v = beta2 * square[rows[i], c] + (1 - beta2) * g * g
            mean[rows[i], c], square[rows[i], c] = m, v
            table[rows[i], c] -= rate * m / (math.sqrt(v) + eps)


class RowAdam(torch.optim.SparseAdam):
    """:class:`torch.optim.SparseAdam` with its step compiled for the CPU: 0.1 instead of 0.7 ms for 2,000 rows.

    The gradients must be sparse.

    Parameters
    ----------
    params
        Tables, rows × columns, e.g. the weight of an `nn.Embedding(sparse=True)`.
    lr
        Learning rate.
    """

    def __init__(self, params: Iterable[Tensor], lr: float) -> None:
        super().__init__(list(params), lr=lr)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Update the rows that have a gradient."""
        if not all(is_compiled(p) for group in self.param_groups for p in group["params"]):
            return super().step(closure)  # type: ignore[no-untyped-call]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for table in group["params"]:
                if table.grad is None:
                    continue
                state = self.state[table]
                if not state:
                    state.update(step=0, exp_avg=torch.zeros_like(table), exp_avg_sq=torch.zeros_like(table))
                state["step"] += 1
                rate = group["lr"] * math.sqrt(1 - beta2 ** state["step"]) / (1 - beta1 ** state["step"])
                grad = table.grad.coalesce()
                tensors = (table, state["exp_avg"], state["exp_avg_sq"], grad.indices()[0], grad.values())
                with ONE_AT_A_TIME:
                    _update(*(t.detach().numpy() for t in tensors), beta1, beta2, rate, group["eps"])
        return loss
