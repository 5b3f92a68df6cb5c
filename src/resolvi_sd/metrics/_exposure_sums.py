"""Molecules of every gene by exposure, the number of a cell's neighbors of a source type."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

__all__ = ["ExposureSums", "excess", "exposure_sums"]


class ExposureSums(NamedTuple):
    """Sums over the cells of one target type, binned by the number of neighbors of each source type.

    Attributes
    ----------
    cells
        Number of cells, sources × bins.
    before, after
        Molecules of the raw and of the corrected counts, sources × bins × genes.
    """

    cells: NDArray[np.int64]
    before: NDArray[np.float64]
    after: NDArray[np.float64]

    @property
    def offset(self) -> NDArray[np.float64]:
        """Raw molecules of all genes, sources × bins: the offsets, which are the same before and after a correction."""
        total: NDArray[np.float64] = self.before.sum(axis=2)
        return total


def exposure_sums(
    counts: sp.csr_matrix, corrected: sp.csr_matrix, bins: NDArray[np.integer], rows: NDArray[np.intp], n_bins: int
) -> ExposureSums:
    """Sum the molecules of each gene over the cells in each bin.

    Parameters
    ----------
    counts, corrected
        Cells × genes.
    bins
        Bin of each cell for each source, counted from 0, cells × sources.
    rows
        The cells of the target type.
    n_bins
        Number of bins.
    """
    n_sources = bins.shape[1]
    shape = (n_sources, n_bins)
    place = (bins[rows] + np.arange(n_sources) * n_bins).ravel()
    member = sp.csr_matrix(
        (np.ones(place.size), place, np.arange(len(rows) + 1) * n_sources), shape=(len(rows), n_sources * n_bins)
    ).T.tocsr()
    before, after = ((member @ m[rows]).toarray().astype(np.float64).reshape(*shape, -1) for m in (counts, corrected))
    return ExposureSums(np.bincount(place, minlength=n_sources * n_bins).reshape(shape), before, after)


def excess(molecules: NDArray[np.float64], offset: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the molecules of each bin beyond those explained by the rate of the first, unexposed bin.

    These are `max(m_b / M_b - m_0 / M_0, 0) M_b`, which is 0 in bins without molecules and in the first bin.

    Parameters
    ----------
    molecules
        Marker molecules m of each bin.
    offset
        Molecules M of each bin; that of the first bin must not be 0.
    """
    above: NDArray[np.float64] = np.maximum(molecules - molecules[0] / offset[0] * offset, 0)
    return above
