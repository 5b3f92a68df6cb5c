"""Composition of the neighborhoods of cells."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import scipy.sparse as sp
from anndata import AnnData
from numpy.typing import NDArray

from resolvi_sd._analysis._labels import LabelProbabilities
from resolvi_sd._keys import Keys
from resolvi_sd._results import warn_of_partial_niches
from resolvi_sd._validation import check_result

__all__ = ["Weighting", "block_totals", "edge_weights", "neighborhood_composition", "table_edges", "write_niches"]

Weighting = Literal["uniform", "distance", "weights"]


def edge_weights(matrix: Any, weighting: Weighting) -> sp.csr_matrix:
    """Return the weight of each neighbor (column) of a cell (row), not normalized.

    Parameters
    ----------
    matrix
        Connectivities, distances or weights of the fit, `(n_cells, n_cells)`, sparse.
    weighting
        `"uniform"`: equal weights; `"distance"`: exp(-distance / median distance), divided in each row by that of the
        nearest neighbor; `"weights"`: the weights of the fit, with which neighbors leak into the cell.
    """
    if weighting != "distance":
        return sp.csr_matrix(matrix)
    decayed = sp.csr_matrix(matrix, dtype=np.float32, copy=True)
    # Cells that coincide or touch carry no information about the scale; if all do, weights are equal for any scale.
    apart = decayed.data[decayed.data > 0]
    scale = float(np.median(apart)) if len(apart) else 1.0
    # Relative to the nearest neighbor, since rows are normalized later: all weights of a stray cell would be zero.
    nearest = np.full(decayed.shape[0], np.inf, dtype=np.float32)
    row = np.repeat(np.arange(len(nearest)), np.diff(decayed.indptr))
    np.minimum.at(nearest, row, decayed.data)
    decayed.data = np.exp((nearest[row] - decayed.data) / np.float32(scale))
    return decayed


def neighborhood_composition(edges: sp.csr_matrix, labels: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return the share of each label among a cell's neighbors.

    Parameters
    ----------
    edges
        Weight of each neighbor, see :func:`edge_weights`.
    labels
        Probability of each label, cells × labels; rows are zero for cells without a label, which are left out.

    Returns
    -------
    Cells × labels, float32; rows sum to 1, and are NaN for cells that have no neighbor with a label.
    """
    found = np.asarray(edges @ labels.astype(np.float32))
    total = found.sum(axis=1, keepdims=True)
    composition: NDArray[np.float32] = np.full(found.shape, np.nan, dtype=np.float32)
    np.divide(found, total, out=composition, where=total > 0)
    return composition


def write_niches(
    adata: AnnData,
    keys: Keys,
    composition: NDArray[np.float32],
    labels: LabelProbabilities,
    labels_key: str | None,
    weighting: Weighting,
) -> None:
    """Write neighborhoods, the column of its labels (empty for those of the fit), the weighting."""
    adata.obsm[keys.niche] = composition
    adata.uns[keys.niche_labels] = np.array(labels.names, dtype=object)
    adata.uns[keys.niche_labels_key] = labels_key or ""
    adata.uns[keys.niche_weighting] = weighting


def block_totals(
    composition: NDArray[np.float32], block: NDArray[np.int64], side: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the sums of the composition, and the number of cells, of each block and side.

    Parameters
    ----------
    composition
        Cells × labels; cells with NaN are left out.
    block
        Block of each cell, numbered from 0.
    side
        Side of each cell, 0 or 1; -1 if none.

    Returns
    -------
    Sums, blocks × 2 × labels, and numbers of cells, blocks × 2.
    """
    n_blocks = int(block.max()) + 1
    rows = np.flatnonzero((side >= 0) & ~np.isnan(composition).any(axis=1))
    place = block[rows] * 2 + side[rows]
    indicator = sp.csr_matrix((np.ones(len(rows)), (place, np.arange(len(rows)))), (n_blocks * 2, len(rows)))
    totals = np.asarray(indicator @ composition[rows].astype(np.float64)).reshape(n_blocks, 2, -1)
    return totals, np.bincount(place, minlength=n_blocks * 2).reshape(n_blocks, 2).astype(np.float64)


def table_edges(adata: AnnData, keys: Keys, weighting: Weighting) -> sp.csr_matrix:
    """Return the edges of the graph in a table, see :func:`edge_weights`.

    Raises
    ------
    KeyError
        If the table has no such graph.
    ValueError
        If the weighting is unknown.
    """
    if weighting not in get_args(Weighting):
        raise ValueError(f"`weighting` must be 'uniform', 'distance' or 'weights', not {weighting!r}.")
    name = {"uniform": keys.connectivities, "distance": keys.distances, "weights": keys.weights}[weighting]
    check_result(name, adata.obsp, where="table.obsp", tool=f"resolvi_sd.tl.fit(..., key_added={keys.prefix!r})")
    warn_of_partial_niches(adata, keys)
    return edge_weights(adata.obsp[name], weighting)
