"""The posterior of how many of a count's molecules are a cell's own; compiled for the CPU.

Of x molecules, k are not background, with the weights of the Delaporte sum, and Binomial(k, p) of those are own. The
probabilities that at least 1, 2, ..., x are own, the tails, decide how many are kept: see
:mod:`resolvi_sd._model.decontamination`.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import get_num_threads, njit, prange
from numpy.typing import NDArray

from resolvi_sd._compiled import ONE_AT_A_TIME

__all__ = ["EntryRates", "KeptMolecules", "molecules_above", "tail_histogram"]

_LARGE = 1e200
_TINY_MEAN = 1e-30
# Probabilities below this are left out of the sums.
_NEGLIGIBLE = 1e-18


class EntryRates(NamedTuple):
    """Stored counts with what is expected of them, one value per entry.

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


class KeptMolecules(NamedTuple):
    """What is kept of some counts, and what that is expected to cost, one value per entry.

    Attributes
    ----------
    kept
        Molecules that are kept, int32.
    own
        Expected own molecules of the count.
    own_removed
        How many of these are expected to go.
    """

    kept: NDArray[np.int32]
    own: NDArray[np.float64]
    own_removed: NDArray[np.float64]


@njit(inline="always", error_model="numpy")
def _signal_weights(x: int, mu: float, lam: float, r: float, weight: Any) -> float:
    """Weights of k = 0..x molecules that are not background, up to a factor; their sum is returned."""
    step = lam * (r + mu) / mu
    weight[x] = total = 1.0
    for k in range(x, 0, -1):
        weight[k - 1] = weight[k] * k * step / ((r + k - 1.0) * (x - k + 1.0))
        total += weight[k - 1]
        if total > _LARGE:
            weight[k - 1 : x + 1] /= total
            total = 1.0
    return total


@njit(error_model="numpy")
def _tails(x: int, own: float, diffused: float, lam: float, r: float, weight: Any, chance: Any, tail: Any) -> None:
    """Write P(at least c of x molecules are own) to tail[c - 1]; `weight` and `chance` are room for x + 1 numbers.

    The binomial of k molecules is made from that of k - 1, between the first and the last that is not negligible.
    """
    mu = max(own + diffused, _TINY_MEAN)
    if math.isinf(r):
        p, total = own / max(own + diffused + lam, _TINY_MEAN), 1.0
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
def _sum_by_tail(
    value: Any,
    own: Any,
    diffused: Any,
    lam: Any,
    r: Any,
    bounds: Any,
    size: int,
    group: Any,
    own_sum: Any,
    molecules: Any,
) -> None:
    n_bins = own_sum.shape[2]
    for part in prange(len(bounds) - 1):
        weight, chance, tail = np.empty(size + 1), np.empty(size + 1), np.empty(size)
        for i in range(bounds[part], bounds[part + 1]):
            x = int(value[i])
            _tails(x, float(own[i]), float(diffused[i]), float(lam[i]), float(r[i]), weight, chance, tail)
            for c in range(x):
                place = min(int(tail[c] * n_bins), n_bins - 1)
                own_sum[part, group[i], place] += tail[c]
                molecules[part, group[i], place] += 1.0


@njit(parallel=True, nogil=True, cache=True, error_model="numpy")
def _count_above(
    value: Any,
    own: Any,
    diffused: Any,
    lam: Any,
    r: Any,
    bounds: Any,
    size: int,
    level: Any,
    kept: Any,
    expected: Any,
    removed: Any,
) -> None:
    for part in prange(len(bounds) - 1):
        weight, chance, tail = np.empty(size + 1), np.empty(size + 1), np.empty(size)
        for i in range(bounds[part], bounds[part + 1]):
            x = int(value[i])
            _tails(x, float(own[i]), float(diffused[i]), float(lam[i]), float(r[i]), weight, chance, tail)
            above = 0
            while above < x and tail[above] >= level[i]:
                above += 1
            kept[i] = above
            removed[i] = tail[above:x].sum()
            expected[i] = tail[:above].sum() + removed[i]


def tail_histogram(
    entries: EntryRates, n_bins: int, group: NDArray[np.integer] | None = None, n_groups: int = 1
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sort the molecules of some entries by their tails: the c-th of an entry by P(at least c are own).

    Parameters
    ----------
    entries
        The entries.
    n_bins
        Number of bins between 0 and 1, a power of 2, so that bounds are exact.
    group
        Number of each entry's group; None: all are of one.
    n_groups
        Number of groups.

    Returns
    -------
    For each group and bin the sum of the tails, which is how many of its molecules are expected to be own, and the
    number of its molecules; groups × bins.
    """
    bounds, size = _parts(entries)
    group = np.zeros(len(entries.value), dtype=np.int64) if group is None else group.astype(np.int64)
    own_sum, molecules = np.zeros((2, len(bounds) - 1, n_groups, n_bins))
    with ONE_AT_A_TIME:
        _sum_by_tail(*entries, bounds, size, group, own_sum, molecules)
    return own_sum.sum(axis=0), molecules.sum(axis=0)


def molecules_above(entries: EntryRates, level: NDArray[np.float64] | float) -> KeptMolecules:
    """Keep the molecules of each entry that have a tail of at least `level`, one for all or one for each entry."""
    bounds, size = _parts(entries)
    n_entries = len(entries.value)
    level = np.ascontiguousarray(np.broadcast_to(np.float64(level), n_entries))
    kept = KeptMolecules(np.empty(n_entries, dtype=np.int32), np.empty(n_entries), np.empty(n_entries))
    with ONE_AT_A_TIME:
        _count_above(*entries, bounds, size, level, *kept)
    return kept


def _parts(entries: EntryRates) -> tuple[NDArray[np.int64], int]:
    """Bounds of one part for each thread, and the largest count."""
    bounds = np.linspace(0, len(entries.value), get_num_threads() + 1).astype(np.int64)
    return bounds, int(entries.value.max(initial=1))
