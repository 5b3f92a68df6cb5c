"""Layers that metrics accept (raw, thinned and corrected counts), and quantities derived from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from resolvi_sd._csr import row_blocks, row_sums
from resolvi_sd._validation import first_fraction, listing
from resolvi_sd.metrics._arrays import check_integers, check_no_rates, matrix

__all__ = [
    "cell_blocks",
    "cooccurrence",
    "count_layer",
    "counts_and_corrected",
    "expected_presence",
    "molecule_counts",
    "panel_columns",
]

# A corrected layer is zero wherever the counts are zero, which are most of the entries of an imaging panel; rates are
# positive everywhere, up to underflow. A small panel may be counted in full in every cell, but then with many molecules
# of most genes.
_RATES_NONZERO, _FEWEST_RATES, _LARGE_PANEL = 0.99, 20, 100
# Relative difference of sums over genes, below which these were made the same.
_SAME_DEPTH = 1e-3
# Bytes of a block of cells × chosen genes that is converted to dense: if at least a tenth of the entries are non-zero,
# dense products and lookups are faster than sparse ones.
_BLOCK_BYTES = 1 << 23


def count_layer(values: Any, *, argument: str) -> sp.csr_matrix:
    """Return a layer of integer or expected counts as CSR with unique entries, copying only if necessary.

    Parameters
    ----------
    values
        Cells × genes, sparse or dense.
    argument
        Name of the argument that the user passed it as.

    Raises
    ------
    TypeError, ValueError
        As for :func:`matrix`, and if the layer holds dense rates.
    """
    layer = matrix(values, argument=argument)
    entries = layer.shape[0] * layer.shape[1]
    dense = layer.shape[1] >= _FEWEST_RATES and np.count_nonzero(layer.data) > _RATES_NONZERO * entries
    if dense and first_fraction(layer.data) is not None and _too_dense_for_counts(layer):
        raise ValueError(
            f"`{argument}` must hold counts, but is positive nearly everywhere and not integer: these are dense rates, "
            "according to which every gene is present in every cell. Pass corrected counts, or integer draws of them."
        )
    return layer


def _too_dense_for_counts(layer: sp.csr_matrix) -> bool:
    """Return whether the panel is large, most entries are below 1, or all cells have the same sum."""
    if layer.shape[1] >= _LARGE_PANEL or np.median(layer.data) < 1:
        return True
    depth = row_sums(layer)
    return bool(np.ptp(depth) < _SAME_DEPTH * depth.max())


def molecule_counts(values: Any, *, argument: str) -> sp.csr_matrix:
    """Return integer counts as CSR with unique entries, copying only if necessary.

    Raises
    ------
    TypeError, ValueError
        As for :func:`count_layer`, and if an entry is not an integer.
    """
    counts = count_layer(values, argument=argument)
    check_integers(counts, argument=argument)
    return counts


def counts_and_corrected(counts: Any, corrected: Any) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """Return raw counts and the corrected counts of the same cells and genes as CSR, copying only if necessary.

    Raises
    ------
    TypeError, ValueError
        If the shapes differ, if `counts` are not integers, if `corrected` holds rates (fractions in more entries than
        the counts have), or if either has NaN, infinite or negative entries.
    """
    raw, kept = matrix(counts, argument="counts"), matrix(corrected, argument="corrected")
    check_integers(raw, argument="counts")
    if raw.shape != kept.shape:
        raise ValueError(f"The shapes differ: counts {raw.shape}, corrected {kept.shape}.")
    check_no_rates(kept, raw)
    return raw, kept


def expected_presence(layer: sp.csr_matrix) -> sp.csr_matrix:
    """Return the probability that a gene is present in a cell, min(count, 1), float32.

    For integer counts, these are zeros and ones. An expected count c becomes one of the adjacent integers, without a
    change in its mean, if it is rounded up with probability c - floor(c); the result is positive with probability
    min(c, 1). A cutoff would not work: c > 0 hides any correction, as the corrected counts have the sparsity of the raw
    ones, and c >= 0.5 keeps or drops whole entries, so that a layer scaled by 0.6 looks untouched, and one scaled by
    0.4 looks empty.
    """
    present = np.minimum(layer.data, 1).astype(np.float32)
    return sp.csr_matrix((present, layer.indices, layer.indptr), shape=layer.shape)


def cell_blocks(n_cells: int, n_columns: int) -> Iterator[slice]:
    """Split the cells into blocks that are small enough to be converted to dense, `n_columns` float32 per cell."""
    step = max(1, _BLOCK_BYTES // (4 * max(n_columns, 1)))
    return row_blocks(n_cells, step)


def cooccurrence(present: sp.csr_matrix) -> NDArray[np.float64]:
    """Return the expected number of cells with both of two genes, genes × genes; the diagonal is meaningless."""
    total: NDArray[np.float64] = np.zeros((present.shape[1], present.shape[1]))
    for cells in cell_blocks(*present.shape):
        dense = present[cells].toarray()
        total += dense.T @ dense
    return total


def panel_columns(genes: pd.Index[Any], panel: Sequence[str] | pd.Index[Any] | None) -> NDArray[np.intp]:
    """Return the columns of the genes that are in the panel, in the panel's order; all if it is None.

    Raises
    ------
    ValueError
        If there are no such genes.
    """
    if panel is None:
        return np.arange(len(genes), dtype=np.intp)
    names = pd.Index(panel).unique()
    columns = genes.get_indexer(names)
    if (columns < 0).all():
        raise ValueError(
            f"The reference shares no genes with the panel. Reference: {listing(genes, 3)}. Panel: "
            f"{listing(names, 3)}. Are they named in the same way: symbols or identifiers, upper or lower case?"
        )
    return np.asarray(columns[columns >= 0])
