"""Input of the latent encoder: counts of a cell over their mean, on a log scale, thinned in training.

The code is compiled, because thinning and taking logarithms with array functions took a tenth as long as the training
step that uses the result.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numba import njit, prange
from numpy.typing import NDArray

from resolvi_sd._compiled import ONE_AT_A_TIME, binomial
from resolvi_sd._tiles._sparse_rows import SparseRows

__all__ = ["encoder_features"]

# Most counts are small, so a row needs few logarithms.
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
def _all_rows(indptr: Any, value: Any, n_genes: int, size: Any, kept: Any, seeds: Any, features: Any) -> None:
    for i in prange(len(size)):
        start, stop = indptr[i], indptr[i + 1]
        total, expected = 0.0, 0.0
        for e in range(start, stop):
            features[e] = value[e]
            total += value[e]
            expected += value[e] * kept[e]
        keep = min(1.0, size[i] / max(expected, 1.0))
        if keep < 1.0 or expected < total:
            state, total = seeds[i], 0.0
            for e in range(start, stop):
                state, left = binomial(int(value[e]), keep * kept[e], state)
                features[e] = left
                total += left
        scale = n_genes / max(total, 1e-30)
        table = _scaled_logs(scale)
        for e in range(start, stop):
            features[e] = _scaled_log(features[e], scale, table)


def encoder_features(
    counts: SparseRows,
    *,
    thinned_size: NDArray[np.floating] | None = None,
    kept: NDArray[np.float32] | None = None,
    rng: np.random.Generator | None = None,
) -> SparseRows:
    """Return log1p(x / mean x) of counts x.

    Parameters
    ----------
    counts
        Counts of some cells.
    thinned_size
        Number of molecules that each cell is expected to keep: each molecule is kept with probability
        min(1, thinned size / row sum), so cells with fewer molecules are left unchanged. Counts must then be whole
        numbers. If None, all molecules are kept.
    kept
        Probability that a molecule of an entry is kept to begin with, one number per entry of `counts`; the row sums
        above are then those that are expected to be left. If None, all molecules are.
    rng
        Generator for the thinning.

    Returns
    -------
    Values, float32, at the entries of `counts`; zero where thinning left nothing.

    Examples
    --------
    >>> import scipy.sparse as sp
    >>> from resolvi_sd._tiles import SparseRows, encoder_features
    >>> encoder_features(SparseRows.from_scipy(sp.csr_matrix([[0.0, 4.0], [1.0, 1.0]]))).to_dense()
    tensor([[0.0000, 1.0986],
            [0.6931, 0.6931]])
    """
    n_cells, n_genes = counts.shape
    if thinned_size is None and kept is None:
        seeds = np.zeros(n_cells, np.uint64)
    elif rng is None:
        raise ValueError("Thinning needs a generator: give `rng` together with `thinned_size` or `kept`.")
    else:
        seeds = rng.integers(0, 2**64, n_cells, dtype=np.uint64)
    if thinned_size is None:
        thinned_size = np.full(n_cells, np.inf)
    if kept is None:
        kept = np.ones(len(counts.value), np.float32)
    features = np.empty(len(counts.value), np.float32)
    with ONE_AT_A_TIME:
        _all_rows(counts.indptr.numpy(), counts.value.numpy(), n_genes, thinned_size, kept, seeds, features)
    return counts.with_values(torch.from_numpy(features))
