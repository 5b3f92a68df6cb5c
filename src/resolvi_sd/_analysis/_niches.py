"""Composition of the neighborhoods of cells."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import scipy.sparse as sp
from anndata import AnnData
from numpy.typing import NDArray

from resolvi_sd._analysis._labels import LabelProbabilities
from resolvi_sd._keys import Keys
from resolvi_sd._ratio import ratio
from resolvi_sd._results import warn_of_partial_neighbors
from resolvi_sd._validation import check_result

__all__ = ["NicheSums", "Weighting", "edge_weights", "neighborhood_composition", "table_edges", "write_niches"]

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
    return ratio(found, found.sum(axis=1, keepdims=True))


def write_niches(
    adata: AnnData,
    keys: Keys,
    composition: NDArray[np.float32],
    labels: LabelProbabilities,
    labels_key: str | None,
    weighting: Weighting,
) -> None:
    """Write the neighborhoods, the column of their labels (empty for those of the fit), and the weighting."""
    adata.obsm[keys.niche] = composition
    adata.uns[keys.niche_labels] = np.array(labels.names, dtype=object)
    adata.uns[keys.niche_labels_key] = labels_key or ""
    adata.uns[keys.niche_weighting] = weighting


@dataclass(frozen=True)
class NicheSums:
    """Sums of the composition over the cells of each group in each unit of tissue, for the pairs that occur.

    Attributes
    ----------
    unit, group
        Unit and group of each pair, `(n_pairs,)`.
    n_cells
        Number of cells of each pair.
    totals
        Sums of each version of the composition, versions × pairs × labels.
    """

    unit: NDArray[np.int64]
    group: NDArray[np.int64]
    n_cells: NDArray[np.int64]
    totals: NDArray[np.float64]

    @classmethod
    def of(
        cls, versions: Iterable[NDArray[np.float32]], unit: NDArray[np.int64], group: NDArray[np.int64]
    ) -> NicheSums:
        """Sum versions of the composition, cells × labels, one at a time; cells of unit or group -1 are left out."""
        rows = np.flatnonzero((unit >= 0) & (group >= 0))
        n_groups = int(group.max(initial=0)) + 1
        pairs, pair = np.unique(unit[rows] * n_groups + group[rows], return_inverse=True)
        indicator = sp.csr_matrix((np.ones(len(rows)), (pair, np.arange(len(rows)))), (len(pairs), len(rows)))
        totals = [np.asarray(indicator @ version[rows].astype(np.float64)) for version in versions]
        return cls(pairs // n_groups, pairs % n_groups, np.bincount(pair, minlength=len(pairs)), np.stack(totals))

    def of_sides(self, first: Sequence[int], second: Sequence[int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the sums, versions × units × 2 × labels, and numbers of cells, units × 2, of two sets of groups."""
        side = np.select([np.isin(self.group, first), np.isin(self.group, second)], [0, 1], -1)
        chosen = np.flatnonzero(side >= 0)
        place, n_places = self.unit[chosen] * 2 + side[chosen], 2 * (int(self.unit.max(initial=0)) + 1)
        indicator = sp.csr_matrix((np.ones(len(chosen)), (place, chosen)), (n_places, len(side)))
        totals = np.stack([indicator @ version for version in self.totals])
        return totals.reshape(len(totals), n_places // 2, 2, -1), (indicator @ self.n_cells).reshape(-1, 2)


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
    check_result(name, adata.obsp, where="table.obsp", tool=keys.call("fit"))
    so = "Their niches are those of the remaining neighbors. Use the whole table, and select cells from the result."
    warn_of_partial_neighbors(adata, keys, so=so)
    return edge_weights(adata.obsp[name], weighting)
