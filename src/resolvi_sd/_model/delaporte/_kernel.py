"""The sums of the Delaporte distribution at non-zero counts, compiled for the CPU.

At a count x, the Delaporte probability is a sum over k, the number of molecules that are not background:

    P(x) = sum_{k=0..x} t_k,   t_k = NB(k; mean mu, concentration r) Poisson(x - k; lambda)

The ratio of adjacent terms is rational, so one logarithm per entry suffices:

    t_{k-1} / t_k = k lambda (r + mu) / ((r + k - 1) (x - k + 1) mu)

The sum starts at k = x, whose term is never zero for mu > 0, and is rescaled when it grows large.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from resolvi_sd._compiled import ONE_AT_A_TIME
from resolvi_sd._model.delaporte._terms import TINY_MEAN

__all__ = ["LARGE", "delaporte_entries", "entry_terms"]

# Sums beyond this are scaled down, before they, or the product of two, overflow.
LARGE = 1e150


@njit(inline="always", error_model="numpy")
def entry_terms(x: int, mu: float, lam: float, r: float) -> tuple[float, float, float]:
    """Return log(P(x) / P(0)), E[k | x], and d log(P(x) / P(0)) / dr, all in float64."""
    mu = max(mu, TINY_MEAN)
    q = mu / (r + mu)
    log_scale = 0.0
    leading = 1.0  # NB(x) / NB(0), up to log_scale
    harmonic = 0.0  # sum_{j<x} 1 / (r + j) = d log NB(x) / dr + x / (r + mu)
    for j in range(x):
        leading *= q * (r + j) / (j + 1.0)
        harmonic += 1.0 / (r + j)
        if leading < 1.0 / LARGE or leading > LARGE:
            log_scale += math.log(leading)
            leading = 1.0
    step = lam / q
    term, total, total_k, total_h = 1.0, 1.0, float(x), harmonic
    for k in range(x, 0, -1):
        below = r + k - 1.0
        term *= k * step / (below * (x - k + 1.0))
        harmonic -= 1.0 / below
        total += term
        total_k += term * (k - 1.0)
        total_h += term * harmonic
        if total > LARGE:
            log_scale += math.log(total)
            term /= total
            total_k /= total
            total_h /= total
            total = 1.0
    expected_k = total_k / total
    return log_scale + math.log(leading * total), expected_k, total_h / total - expected_k / (r + mu)


@njit(parallel=True, nogil=True, cache=True, error_model="numpy")
def _all_entries(
    indptr: Any, gene: Any, value: Any, mu: Any, lam: Any, r: Any, group: Any, log_ratio: Any, expected: Any, slope: Any
) -> None:
    for row in prange(len(indptr) - 1):
        for entry in range(indptr[row], indptr[row + 1]):
            g = gene[entry]
            a, b, c = entry_terms(int(value[entry]), float(mu[row, g]), float(lam[row, g]), float(r[group[row], g]))
            log_ratio[entry], expected[entry], slope[entry] = a, b, c


def delaporte_entries(
    indptr: NDArray[np.int64],
    gene: NDArray[np.int64],
    value: NDArray[np.floating],
    mu: NDArray[np.floating],
    lam: NDArray[np.floating],
    r: NDArray[np.floating],
    group: NDArray[np.int64],
) -> tuple[NDArray[np.floating], NDArray[np.floating], NDArray[np.floating]]:
    """Evaluate every stored count of a CSR matrix.

    Parameters
    ----------
    indptr, gene, value
        Counts of the cells, CSR; the values are whole numbers.
    mu
        Mean of the negative binomial, cells × genes.
    lam
        Mean of the Poisson, cells × genes.
    r
        Concentration of the negative binomial, groups × genes.
    group
        Row of `r` for each cell.

    Returns
    -------
    For each entry, log(P(x) / P(0)), E[k | x] and d log(P(x) / P(0)) / dr at fixed mu, in the dtype of `mu`.
    """
    out = [np.empty(len(value), dtype=mu.dtype) for _ in range(3)]
    with ONE_AT_A_TIME:
        _all_entries(indptr, gene, value, mu, lam, r, group, *out)
    return out[0], out[1], out[2]
