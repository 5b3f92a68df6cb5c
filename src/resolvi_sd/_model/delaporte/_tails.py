"""Posterior of how many molecules of a count are the cell's own, compiled for the CPU.

Of x molecules, k are not background, with the weights of the Delaporte sum, and Binomial(k, p) of those are own. The
tails, which are the probabilities that at least 1, 2, ..., x molecules are own, determine how many molecules are kept:
see :mod:`resolvi_sd._model.decontamination`.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from resolvi_sd._compiled import ONE_AT_A_TIME, thread_bounds
from resolvi_sd._model.delaporte._kernel import LARGE
from resolvi_sd._model.delaporte._terms import TINY_MEAN

__all__ = ["EntryRates", "own_tails"]

# Probabilities below this value are left out of the sums.
_NEGLIGIBLE = 1e-18


class EntryRates(NamedTuple):
    """Stored counts and their expected molecules by source, one value per entry.

    Attributes
    ----------
    value
        Counts x, whole numbers above 0.
    own, diffused, background
        Expected molecules of each source.
    r
        Concentration of the negative binomial; infinite for the Poisson likelihood.
    """

    value: NDArray[np.floating]
    own: NDArray[np.floating]
    diffused: NDArray[np.floating]
    background: NDArray[np.floating]
    r: NDArray[np.floating]


@njit(inline="always", error_model="numpy")
def _signal_weights(x: int, mu: float, lam: float, r: float, weight: Any) -> float:
    """Compute weights of k = 0..x molecules that are not background, up to a factor, and return their sum."""
    step = lam * (r + mu) / mu
    weight[x] = total = 1.0
    for k in range(x, 0, -1):
        weight[k - 1] = weight[k] * k * step / ((r + k - 1.0) * (x - k + 1.0))
        total += weight[k - 1]
        if total > LARGE:
            weight[k - 1 : x + 1] /= total
            total = 1.0
    return total


@njit(error_model="numpy")
def _tails(x: int, own: float, diffused: float, lam: float, r: float, weight: Any, chance: Any, tail: Any) -> None:
    """Write P(at least c of x molecules are own) to tail[c - 1]; `weight` and `chance` provide room for x + 1 numbers.

    The binomial of k molecules is computed from that of k - 1, between the first and the last non-negligible values.
    """
    mu = max(own + diffused, TINY_MEAN)
    if math.isinf(r):
        p, total = own / max(own + diffused + lam, TINY_MEAN), 1.0
        weight[:x] = 0.0
        weight[x] = 1.0
    else:
        p, total = own / mu, _signal_weights(x, mu, lam, r, weight)
    p = min(p, 1.0)
    tail[:x] = 0.0
    chance[: x + 1] = 0.0
    chance[0] = 1.0
    first, last = 0, 0
    for k in range(1, x + 1):
        chance[last + 1] = chance[last] * p
        for c in range(last, first, -1):
            chance[c] = chance[c] * (1.0 - p) + chance[c - 1] * p
        chance[first] *= 1.0 - p
        last += 1
        while last > first and chance[last] < _NEGLIGIBLE:
            chance[last] = 0.0
            last -= 1
        while first < last and chance[first] < _NEGLIGIBLE:
            chance[first] = 0.0
            first += 1
        share = weight[k] / total
        if share > _NEGLIGIBLE:
            for c in range(max(first, 1), last + 1):
                tail[c - 1] += share * chance[c]
    for c in range(x - 1, 0, -1):
        tail[c - 1] += tail[c]


@njit(parallel=True, nogil=True, cache=True, error_model="numpy")
def _all_tails(
    value: Any, own: Any, diffused: Any, lam: Any, r: Any, start: Any, bounds: Any, size: int, tail: Any
) -> None:
    for part in prange(len(bounds) - 1):
        weight, chance = np.empty(size + 1), np.empty(size + 1)
        for i in range(bounds[part], bounds[part + 1]):
            of_entry = tail[start[i] : start[i + 1]]
            rates = float(own[i]), float(diffused[i]), float(lam[i]), float(r[i])
            _tails(int(value[i]), rates[0], rates[1], rates[2], rates[3], weight, chance, of_entry)


def own_tails(entries: EntryRates) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return P(at least c are own) for c = 1..x, entry after entry, and where each entry starts and ends.

    Parameters
    ----------
    entries
        The entries.

    Returns
    -------
    One probability for each molecule, `(n_molecules,)`, decreasing within each entry; and `(n_entries + 1,)` positions.
    """
    start = np.concatenate([[0], np.cumsum(entries.value, dtype=np.int64)])
    bounds = thread_bounds(len(entries.value))
    tail = np.empty(start[-1])
    with ONE_AT_A_TIME:
        _all_tails(*entries, start, bounds, int(entries.value.max(initial=1)), tail)
    return tail, start
