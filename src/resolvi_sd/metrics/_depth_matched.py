"""The control that every metric is compared with: raw counts at the depth of the corrected ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from resolvi_sd._random import RandomLike, as_generator
from resolvi_sd._ratio import ratio
from resolvi_sd.metrics._layers import counts_and_corrected

__all__ = ["depth_matched"]

# Cells thinned at a time; bounds the memory of temporary arrays.
_CELLS = 1 << 15


def depth_matched(counts: Any, corrected: Any, *, rng: RandomLike = 0) -> sp.csr_matrix:
    r"""Thin raw counts to the depth of a corrected layer, cell by cell.

    Having fewer molecules lowers every rate of contamination by itself. What a correction achieves beyond that is the
    difference from this control, which removes as many molecules from each cell, but at random: with raw counts x and
    corrected counts c of cell n,

    .. math:: y_{ng} \sim \mathrm{Binomial}(x_{ng}, q_n), \quad q_n = \min(1, \sum_g c_{ng} / \sum_g x_{ng}),

    so that :math:`E[y_{ng}] = q_n x_{ng}` and each cell has the corrected depth in expectation. A cell whose
    depth the correction did not reduce keeps its counts.

    Parameters
    ----------
    counts
        Raw counts, cells × genes, integers, sparse or dense.
    corrected
        Corrected counts of the same cells and genes.
    rng
        Seed or generator.

    Returns
    -------
    Integer counts, cells × genes, CSR without stored zeros, of the same type as `counts`.

    Raises
    ------
    TypeError, ValueError
        If the shapes differ, if `counts` are not integers, if `corrected` holds rates (fractions in more entries than
        the counts have), or if either has NaN, infinite or negative entries.

    Examples
    --------
    >>> import numpy as np
    >>> from resolvi_sd.metrics import depth_matched
    >>> depth_matched(np.array([[3, 0], [4, 1]]), np.array([[3.0, 0], [0, 0]]), rng=0).toarray()
    array([[3, 0],
           [0, 0]])
    """
    raw, kept = counts_and_corrected(counts, corrected)
    generator = as_generator(rng)
    depth, target = (np.asarray(m.sum(axis=1, dtype=np.float64)).ravel() for m in (raw, kept))
    keep = np.minimum(1.0, ratio(target, depth, otherwise=1.0))
    data = np.empty_like(raw.data)
    for start in range(0, raw.shape[0], _CELLS):
        cells = slice(start, min(start + _CELLS, raw.shape[0]))
        entries = slice(raw.indptr[cells.start], raw.indptr[cells.stop])
        entry_keep = np.repeat(keep[cells], np.diff(raw.indptr[cells.start : cells.stop + 1]))
        data[entries] = generator.binomial(raw.data[entries].astype(np.int64), entry_keep)
    # Copied, because zeros are removed in place and the indices are those of the input.
    thinned = sp.csr_matrix((data, raw.indices.copy(), raw.indptr.copy()), shape=raw.shape)
    thinned.eliminate_zeros()
    return thinned
