"""Operations between a cell and its neighbors, compiled for the CPU with derivatives in closed form.

Written with tensors, the weights of ten neighbors take about sixty small operations per step, and the backward pass of
a weighted sum sorts its indices.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor
from torch.autograd.function import once_differentiable

from resolvi_sd._compiled import ONE_AT_A_TIME, thread_bounds

__all__ = ["LEAST_CONCENTRATION", "LEAST_LOG_KERNEL", "neighbor_sum", "weights_and_density"]

# Smallest concentration of the Dirichlet for a neighbor at any distance, and lower bound of the logarithm of the
# kernel.
LEAST_CONCENTRATION = 1e-2
LEAST_LOG_KERNEL = -30.0


@njit(parallel=True, nogil=True, cache=True, error_model="numpy")
def _sum_rows(values: Any, neighbor: Any, weights: Any, out: Any) -> None:
    for i in prange(len(neighbor)):
        for m in range(neighbor.shape[1]):
            weight = weights[i, m]
            if weight > 0:
                row, source = out[i], values[neighbor[i, m]]
                for c in range(len(row)):
                    row[c] += weight * source[c]


@njit(parallel=True, nogil=True, cache=True, error_model="numpy")
def _spread_rows(grad: Any, neighbor: Any, weights: Any, bounds: Any, out: Any) -> None:
    # Each part of the cells has its own sum, so that no two parts write to the same place.
    for part in prange(len(bounds) - 1):
        here = out[part]
        for i in range(bounds[part], bounds[part + 1]):
            upstream = grad[i]
            for m in range(neighbor.shape[1]):
                weight = weights[i, m]
                if weight > 0:
                    row = here[neighbor[i, m]]
                    for c in range(len(row)):
                        row[c] += weight * upstream[c]


class _NeighborSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, neighbor: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(neighbor, weights)
        ctx.rows = len(values)
        out = np.zeros((len(neighbor), values.shape[1]), np.float32)
        with ONE_AT_A_TIME:
            _sum_rows(values.detach().numpy(), neighbor.numpy(), weights.numpy(), out)
        return torch.from_numpy(out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        neighbor, weights = ctx.saved_tensors
        grad = upstream[0].contiguous().numpy()
        bounds = thread_bounds(len(grad))
        out = np.zeros((len(bounds) - 1, ctx.rows, grad.shape[1]), np.float32)
        with ONE_AT_A_TIME:
            _spread_rows(grad, neighbor.numpy(), weights.numpy(), bounds, out)
        return torch.from_numpy(out).sum(dim=0), None, None


def neighbor_sum(values: Tensor, neighbor: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted sum of the neighbors' rows, differentiable in `values` only.

    Parameters
    ----------
    values
        Cells × columns; on the CPU in float32.
    neighbor, weights
        Row of each neighbor in `values`, and its weight, core × k; the weights of empty slots must be zero.

    Returns
    -------
    Core × columns.
    """
    result: Tensor = _NeighborSum.apply(values, neighbor, weights)  # type: ignore[no-untyped-call]
    return result


@njit(parallel=True, nogil=True, cache=True, error_model="numpy")
def _all_cells(
    free: Any, relative: Any, mask: Any, length: float, prior_weight: float,
    weights: Any, density: Any, by_free: Any, by_range: Any, kernel_slope: Any,
) -> None:  # fmt: skip
    k = free.shape[1]
    for i in prange(len(free)):
        kernel, base, log_weight = np.empty(k), np.empty(k), np.empty(k)
        n, total_base, total = 0, 0.0, 0.0
        top_kernel, top = -np.inf, -np.inf
        for m in range(k):
            if mask[i, m]:
                n += 1
                kernel[m] = max(-0.5 * (relative[i, m] / length) ** 2, LEAST_LOG_KERNEL)
                kernel_slope[i, m] = -2.0 * kernel[m] if kernel[m] > LEAST_LOG_KERNEL else 0.0
                top_kernel, top = max(top_kernel, kernel[m]), max(top, kernel[m] + free[i, m])
        for m in range(k):
            if mask[i, m]:
                base[m] = math.exp(kernel[m] - top_kernel)
                weights[i, m] = math.exp(kernel[m] + free[i, m] - top)
                total_base += base[m]
                total += weights[i, m]
        mean_slope, log_total = 0.0, math.log(total) if n else 0.0
        for m in range(k):
            if mask[i, m]:
                base[m] /= total_base
                weights[i, m] /= total
                log_weight[m] = kernel[m] + free[i, m] - top - log_total
                mean_slope += base[m] * kernel_slope[i, m]
        if n < 2:
            continue
        whole = prior_weight + n * LEAST_CONCENTRATION
        value, slope = 0.0, 0.0
        for m in range(k):
            if mask[i, m]:
                concentration = prior_weight * base[m] + LEAST_CONCENTRATION
                above = log_weight[m] - math.log(concentration / whole)
                value += concentration * above
                by_free[i, m] = concentration - whole * weights[i, m]
                slope += by_free[i, m] * kernel_slope[i, m]
                slope += above * prior_weight * base[m] * (kernel_slope[i, m] - mean_slope)
        density[i], by_range[i] = value, slope


class _WeightsAndDensity(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, free: Tensor, log_range: Tensor, relative: Tensor, mask: Tensor, prior_weight: float
    ) -> tuple[Tensor, Tensor]:
        weights, by_free, kernel_slope = np.zeros((3, *free.shape), np.float32)
        density, by_range = np.zeros((2, len(free)), np.float32)
        arrays = (t.detach().numpy() for t in (free, relative, mask))
        with ONE_AT_A_TIME:
            _all_cells(
                *arrays, math.exp(float(log_range)), prior_weight, weights, density, by_free, by_range, kernel_slope
            )
        ctx.save_for_backward(*map(torch.from_numpy, (weights, by_free, by_range, kernel_slope)))
        return torch.from_numpy(weights), torch.from_numpy(density)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        weights, by_free, by_range, kernel_slope = ctx.saved_tensors
        by_weight, by_density = upstream
        through_softmax = weights * (by_weight - (weights * by_weight).sum(1, keepdim=True))
        by_log_range = (through_softmax * kernel_slope).sum() + by_range @ by_density
        return through_softmax + by_free * by_density[:, None], by_log_range, None, None, None


def weights_and_density(
    free: Tensor, log_range: Tensor, relative: Tensor, mask: Tensor, prior_weight: float
) -> tuple[Tensor, Tensor]:
    """Return the neighbor weights softmax(kernel + free), and the log-ratio of their Dirichlet prior to the guide.

    The kernel is -d^2 / (2 L^2), bounded below by `LEAST_LOG_KERNEL`; the prior is Dirichlet(c) with c = prior_weight
    softmax(kernel) + `LEAST_CONCENTRATION`. The guide is as narrow as the prior
    (:func:`resolvi_sd._model.masked_dirichlet.point_log_density`), which leaves -sum c log(c / (weights sum c)): minus
    the concentration times the divergence of the prior's mean from the weights.

    Parameters
    ----------
    free
        Logits of each neighbor in addition to the kernel, core × k; on the CPU in float32.
    log_range
        Logarithm of the length scale L, scalar.
    relative
        Distances in the units of L, core × k.
    mask
        True where there is a neighbor.
    prior_weight
        Concentration of the prior, summed over neighbors.

    Returns
    -------
    Weights, core × k, zero where there is no neighbor; and the log-ratio of prior to guide, core, at most zero. Both
    are differentiable in `free` and `log_range`.
    """
    result: tuple[Tensor, Tensor] = _WeightsAndDensity.apply(  # type: ignore[no-untyped-call]
        free, log_range, relative, mask, prior_weight
    )
    return result
