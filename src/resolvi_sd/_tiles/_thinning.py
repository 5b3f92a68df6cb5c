"""Binomial thinning: what a cell's counts would be at a lower depth."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from resolvi_sd._types import CSR

__all__ = ["thin_rows"]


def thin_rows(counts: CSR, expected_size: float, rng: np.random.Generator) -> sp.csr_matrix:
    """Keep each molecule of a row with probability min(1, expected_size / row sum).

    Parameters
    ----------
    counts
        Cells × genes, CSR, integer values.
    expected_size
        Molecules that a row is expected to keep; rows with fewer stay as they are.
    rng
        Source of randomness.

    Returns
    -------
    CSR float32 with the rows and columns of `counts`; entries may be zero.
    """
    total = np.asarray(counts.sum(axis=1)).ravel()
    keep = np.minimum(1.0, expected_size / np.maximum(total, 1.0))
    entry_keep = np.repeat(keep, np.diff(counts.indptr))
    data = rng.binomial(counts.data.astype(np.int64), entry_keep).astype(np.float32)
    return sp.csr_matrix((data, counts.indices, counts.indptr), shape=counts.shape)
