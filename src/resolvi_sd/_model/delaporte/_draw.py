"""Draws of a cell's molecules by source, given its counts, compiled for the CPU."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from resolvi_sd._compiled import ONE_AT_A_TIME, binomial, next_uniform
from resolvi_sd._model.delaporte._kernel import LARGE
from resolvi_sd._model.delaporte._terms import TINY_MEAN

__all__ = ["draw_sources"]


@njit(inline="always", error_model="numpy")
def _signal(x: int, mu: float, lam: float, r: float, state: Any) -> tuple[Any, int]:
    """Draw k given x by weighted reservoir sampling over the terms of the Delaporte sum, from k = x downward."""
    step = lam * (r + mu) / mu
    term, total, chosen = 1.0, 1.0, x
    for k in range(x, 0, -1):
        term *= k * step / ((r + k - 1.0) * (x - k + 1.0))
        total += term
        state, u = next_uniform(state)
        if u * total < term:
            chosen = k - 1
        if total > LARGE:
            term /= total
            total = 1.0
    return state, chosen


@njit(parallel=True, nogil=True, cache=True, error_model="numpy")
def _draw_all(value: Any, own: Any, diffused: Any, lam: Any, r: Any, seeds: Any, kept: Any, received: Any) -> None:
    for i in prange(len(value)):
        mu = max(float(own[i]) + float(diffused[i]), TINY_MEAN)
        x, state = int(value[i]), seeds[i]
        if math.isinf(r[i]):
            state, k = binomial(x, mu / (mu + lam[i]), state)
        else:
            state, k = _signal(x, mu, float(lam[i]), float(r[i]), state)
        state, here = binomial(k, own[i] / mu, state)
        kept[i], received[i] = here, k - here


def draw_sources(
    value: NDArray[np.floating],
    own: NDArray[np.floating],
    diffused: NDArray[np.floating],
    background: NDArray[np.floating],
    r: NDArray[np.floating],
    seeds: NDArray[np.uint64],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Draw the own and the diffused molecules of each entry: k given x, then Binomial(k, own / (own + diffused)).

    Parameters
    ----------
    value
        Counts x, whole numbers.
    own, diffused, background
        Expected molecules of each source, one per entry.
    r
        Concentration of the negative binomial, one per entry; infinite for the Poisson likelihood.
    seeds
        A seed for each entry, so that the draw of an entry does not depend on the others.

    Returns
    -------
    Whole numbers that add up to k, float32; x - k molecules are background.
    """
    kept, received = np.empty((2, len(value)), dtype=np.float32)
    with ONE_AT_A_TIME:
        _draw_all(value, own, diffused, background, r, seeds, kept, received)
    return kept, received
