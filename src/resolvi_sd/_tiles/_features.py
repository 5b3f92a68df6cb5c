"""What the encoders read of a cell: its counts on a log scale; for the latent thinned in training, and over their mean.

Compiled: gathering rows, binomial thinning and densifying by separate array functions took as long as a third of the
training step that the result is for.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from resolvi_sd._compiled import ONE_AT_A_TIME, binomial
from resolvi_sd._types import CSR

__all__ = ["encoder_features", "log_counts"]

# Most counts are small, so that a row needs few logarithms.
_TABULATED = 8


@njit(inline="always")
def _scaled_logs(scale: float) -> Any:
    table = np.empty(_TABULATED)
    for x in range(_TABULATED):
        table[x] = math.log1p(x * scale)
    return table


@njit(inline="always")
def _scaled_log(x: float, scale: float, table: Any) -> float:
    small = int(x)
    return table[small] if small < _TABULATED and small == x else math.log1p(x * scale)


@njit(parallel=True, nogil=True, cache=True, error_model="numpy")
def _all_rows(indptr: Any, gene: Any, value: Any, rows: Any, size: Any, seeds: Any, features: Any) -> None:
    for i in prange(len(rows)):
        start, stop, out = indptr[rows[i]], indptr[rows[i] + 1], features[i]
        total = 0.0
        for e in range(start, stop):
            out[gene[e]] = value[e]
            total += value[e]
        keep = size[i] / max(total, 1.0)
        if keep < 1.0:
            state, total = seeds[i], 0.0
            for e in range(start, stop):
                state, kept = binomial(int(value[e]), keep, state)
                out[gene[e]] = kept
                total += kept
        scale = len(out) / max(total, 1e-30)
        table = _scaled_logs(scale)
        for e in range(start, stop):
            out[gene[e]] = _scaled_log(out[gene[e]], scale, table)


@njit(parallel=True, nogil=True, cache=True, error_model="numpy")
def _all_logs(indptr: Any, gene: Any, value: Any, rows: Any, logs: Any) -> None:
    table = _scaled_logs(1.0)
    for i in prange(len(rows)):
        for e in range(indptr[rows[i]], indptr[rows[i] + 1]):
            logs[i, gene[e]] = _scaled_log(value[e], 1.0, table)


def log_counts(counts: CSR, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return log1p of the counts of some rows, dense, rows × genes, float32.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> from resolvi_sd._tiles import log_counts
    >>> log_counts(sp.csr_matrix([[0.0, 4.0], [1.0, 1.0]]), np.array([0])).round(3)
    array([[0.   , 1.609]], dtype=float32)
    """
    logs = np.zeros((len(rows), counts.shape[1]), np.float32)
    with ONE_AT_A_TIME:
        _all_logs(counts.indptr, counts.indices, counts.data, rows, logs)
    return logs


def encoder_features(
    counts: CSR,
    rows: NDArray[np.int64],
    *,
    thinned_size: NDArray[np.floating] | None = None,
    rng: np.random.Generator | None = None,
) -> NDArray[np.float32]:
    """Return log1p(x / mean x) of some rows, dense; zeros for a row without counts.

    Parameters
    ----------
    counts
        Cells × genes, CSR.
    rows
        Rows of `counts`.
    thinned_size
        Molecules that each of `rows` is expected to keep: each stays with probability min(1, thinned size / row sum),
        so that rows with fewer are left alone. Counts are whole numbers then. None: all are kept.
    rng
        Draws the thinning.

    Returns
    -------
    Rows × genes, float32.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> from resolvi_sd._tiles import encoder_features
    >>> encoder_features(sp.csr_matrix([[0.0, 4.0], [1.0, 1.0]]), np.array([1])).round(3)
    array([[0.693, 0.693]], dtype=float32)
    """
    features = np.zeros((len(rows), counts.shape[1]), np.float32)
    if thinned_size is None:
        thinned_size, seeds = np.full(len(rows), np.inf), np.zeros(len(rows), np.uint64)
    elif rng is None:
        raise ValueError("Thinning needs a generator: give `rng` together with `thinned_size`.")
    else:
        seeds = rng.integers(0, 2**64, len(rows), dtype=np.uint64)
    with ONE_AT_A_TIME:
        _all_rows(counts.indptr, counts.indices, counts.data, rows, thinned_size, seeds, features)
    return features
