"""Likelihood and gradient of a minibatch in one pass over its cells, compiled for the CPU.

Written with tensors, the likelihood reads and writes a cells × genes array about forty times. Here, everything for one
cell stays in the cache: mixing its neighbors' profiles, the zeros, the sums at the non-zeros, and the backward pass.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from resolvi_sd._compiled import ONE_AT_A_TIME, thread_bounds
from resolvi_sd._model.delaporte._kernel import entry_terms

__all__ = ["MixtureGradient", "mixture_pass"]


class MixtureGradient(NamedTuple):
    """Log-likelihood of a minibatch, the share of each count that is its cell's own, and the derivatives."""

    log_prob: float
    own_share: NDArray[np.float32]
    own: NDArray[np.float32]
    weights: NDArray[np.float32]
    amount: NDArray[np.float32]
    background: NDArray[np.float32]
    concentration: NDArray[np.float32]


@njit(inline="always", fastmath={"contract", "arcp"})
def _log1p_in_place(t: Any, u: Any, bits: Any, exponent: Any) -> None:
    """Compute log(1 + t) for t >= 0 in float32, free of branches so that it vectorizes, unlike the C library's version.

    The mantissa's logarithm is a series in s = (m - 1) / (m + 1) with m in [sqrt(1/2), sqrt(2)); the rounding error of
    1 + t is added back as (t - (u - 1)) / u. `bits` is a view of `u` as int32.
    """
    for i in range(len(t)):
        u[i] = np.float32(1.0) + t[i]
        t[i] = (t[i] - (u[i] - np.float32(1.0))) / u[i]
    for i in range(len(t)):
        shifted = bits[i] - np.int32(0x3F3504F3)
        exponent[i] = np.float32(shifted >> np.int32(23))
        bits[i] = (shifted & np.int32(0x007FFFFF)) + np.int32(0x3F3504F3)
    for i in range(len(t)):
        s = (u[i] - np.float32(1.0)) / (u[i] + np.float32(1.0))
        z = s * s
        series = np.float32(1.0) + z * (
            np.float32(1 / 3) + z * (np.float32(1 / 5) + z * (np.float32(1 / 7) + z * np.float32(1 / 9)))
        )
        t[i] += np.float32(2.0) * s * series + exponent[i] * np.float32(0.6931471805599453)


@njit(parallel=True, nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "contract", "arcp"})
def _all_cells(
    indptr: Any, gene: Any, value: Any,
    own_profiles: Any, halo_profiles: Any, neighbor: Any, weights: Any, amount: Any, background: Any, batch: Any,
    r: Any, group: Any,
    bounds: Any, log_prob: Any, own_share: Any, d_own: Any, d_weights: Any, d_amount: Any, d_background: Any, d_r: Any,
    ambient_total: Any,
) -> None:  # fmt: skip
    n_core, n_genes = own_profiles.shape
    for part in prange(len(bounds) - 1):
        around = np.empty(n_genes, np.float32)
        mu = np.empty(n_genes, np.float32)
        slope = np.empty(n_genes, np.float32)
        odds = np.empty(n_genes, np.float32)
        u = np.empty(n_genes, np.float32)
        exponent = np.empty(n_genes, np.float32)
        bits = u.view(np.int32)
        for cell in range(bounds[part], bounds[part + 1]):
            own, shape, ambient = own_profiles[cell], r[group[cell]], background[batch[cell]]
            a_own, a_around, a_background = amount[cell, 0], amount[cell, 1], amount[cell, 2]
            around[:] = 0
            for m in range(neighbor.shape[1]):
                weight = weights[cell, m]
                if weight > 0:
                    there = neighbor[cell, m]
                    source = own_profiles[there] if there < n_core else halo_profiles[there - n_core]
                    for g in range(n_genes):
                        around[g] += weight * source[g]
            for g in range(n_genes):
                mu[g] = a_own * own[g] + a_around * around[g] + np.float32(1e-30)
                odds[g] = mu[g] / shape[g]
            _log1p_in_place(odds, u, bits, exponent)
            by_shape, by_ambient = d_r[part, group[cell]], d_background[part, batch[cell]]
            zeros = np.float32(0.0)
            for g in range(n_genes):
                inverse = np.float32(1.0) / (shape[g] + mu[g])
                zeros += shape[g] * odds[g]
                slope[g] = -shape[g] * inverse
                by_shape[g] += mu[g] * inverse - odds[g]
            ambient_total[part, batch[cell]] += a_background
            total = -float(zeros) - a_background
            outside = 0.0
            for e in range(indptr[cell], indptr[cell + 1]):
                g = gene[e]
                ratio, signal, by_r = entry_terms(
                    int(value[e]), float(mu[g]), float(a_background * ambient[g]), float(shape[g])
                )
                own_share[e] = signal / value[e] * (a_own * own[g] / mu[g])
                total += ratio
                outside += value[e] - signal
                slope[g] += signal * shape[g] / (mu[g] * (shape[g] + mu[g]))
                by_shape[g] += by_r
                by_ambient[g] += (value[e] - signal) / max(ambient[g], np.float32(1e-30))
            log_prob[part] += total
            d_amount[cell, 2] = outside / max(float(a_background), 1e-30) - 1.0
            by_own, by_around = np.float32(0.0), np.float32(0.0)
            for g in range(n_genes):
                by_own += slope[g] * own[g]
                by_around += slope[g] * around[g]
                d_own[cell, g] = a_own * slope[g]
            d_amount[cell, 0], d_amount[cell, 1] = by_own, by_around
            for m in range(neighbor.shape[1]):
                if weights[cell, m] > 0:
                    there = neighbor[cell, m]
                    source = own_profiles[there] if there < n_core else halo_profiles[there - n_core]
                    dot = np.float32(0.0)
                    for g in range(n_genes):
                        dot += slope[g] * source[g]
                    d_weights[cell, m] = a_around * dot


def mixture_pass(
    indptr: NDArray[np.int64],
    gene: NDArray[np.int64],
    value: NDArray[np.float32],
    own_profiles: NDArray[np.float32],
    halo_profiles: NDArray[np.float32],
    neighbor: NDArray[np.int64],
    weights: NDArray[np.float32],
    amount: NDArray[np.float32],
    background: NDArray[np.float32],
    batch: NDArray[np.int64],
    r: NDArray[np.float32],
    group: NDArray[np.int64],
) -> MixtureGradient:
    """Evaluate the likelihood of the core cells of a minibatch.

    Parameters
    ----------
    indptr, gene, value
        Counts of the core, CSR.
    own_profiles, halo_profiles
        Expression profiles of the core and of the halo, cells × genes.
    neighbor, weights
        Neighbors of the core and their weights, core × k; weights of empty slots are zero.
    amount
        Expected molecules of each source, core × 3.
    background, batch
        Background profiles, batches × genes, and the batch of each core cell.
    r, group
        Concentrations, groups × genes, and the group of each core cell.

    Returns
    -------
    MixtureGradient.
    """
    n_core, n_genes = own_profiles.shape
    bounds = thread_bounds(n_core)
    parts = len(bounds) - 1
    log_prob = np.zeros(parts)
    own_share = np.empty(len(value), np.float32)
    d_own = np.empty((n_core, n_genes), np.float32)
    d_weights = np.zeros(weights.shape, np.float32)
    d_amount = np.empty((n_core, 3), np.float32)
    d_background = np.zeros((parts, *background.shape), np.float32)
    d_r = np.zeros((parts, *r.shape), np.float32)
    ambient_total = np.zeros((parts, len(background)))
    with ONE_AT_A_TIME:
        _all_cells(
            indptr, gene, value, own_profiles, halo_profiles, neighbor, weights, amount, background, batch, r, group,
            bounds, log_prob, own_share, d_own, d_weights, d_amount, d_background, d_r, ambient_total,
        )  # fmt: skip
    # Every expected background molecule costs one nat, regardless of its gene.
    by_background = (d_background.sum(0) - ambient_total.sum(0)[:, None]).astype(np.float32)
    return MixtureGradient(float(log_prob.sum()), own_share, d_own, d_weights, d_amount, by_background, d_r.sum(0))
