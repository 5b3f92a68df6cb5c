"""Restoration of model, tissue and graph, the input of posterior passes, from a fitted table."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import scipy.sparse as sp
import torch
from anndata import AnnData
from numpy.typing import NDArray
from torch import nn

from resolvi_sd._csr import row_sums
from resolvi_sd._graphs import NeighborGraph
from resolvi_sd._keys import Keys
from resolvi_sd._model import ResolviModule
from resolvi_sd._results._fitted import FittedModel
from resolvi_sd._results._read import category_codes, fitted_counts, read_fit
from resolvi_sd._results._same_input import warn_of_other_counts
from resolvi_sd._tables import read_sizes
from resolvi_sd._tiles import Tissue
from resolvi_sd._validation import check_result, warn_user

__all__ = ["restore", "restore_tissue", "warn_of_lost_neighbors", "warn_of_partial_neighbors"]

# Lower bound of weights before taking logarithms; weights below the smallest normal float32 count as zero.
_TINY = np.finfo(np.float32).tiny
# Sum of weights above which no neighbor is missing.
_WHOLE = 0.999


def restore(adata: AnnData, keys: Keys) -> tuple[FittedModel, Tissue, NeighborGraph]:
    """Rebuild the fitted model, with the neighbor weights of its cells, and its tissue from a table.

    See :func:`restore_tissue`; a missing fit raises KeyError as well.
    """
    fitted = read_fit(adata, keys)
    return fitted, *restore_tissue(adata, keys, fitted)


def restore_tissue(adata: AnnData, keys: Keys, fitted: FittedModel) -> tuple[Tissue, NeighborGraph]:
    """Rebuild the tissue of a fit from its table, and give the model the neighbor weights of its cells.

    Posterior passes over them reproduce the results of the fit. If the table was subset since, the removed cells and
    edges are unknown: the weights of the remaining neighbors are scaled to sum to 1, shares are those of a cell with
    only these neighbors, and a cell that has lost all neighbors receives nothing by diffusion. If this matters, pass
    the whole table, and select cells afterwards.

    Parameters
    ----------
    adata
        The table, in memory.
    keys
        Names of the fit's entries.
    fitted
        The fit, as read by :func:`read_fit`; its model gets as many slots for neighbors as the graph has.

    Returns
    -------
    The tissue, and the graph, whose slots are those of the tissue. Labels are not read: every cell is unlabeled.

    Raises
    ------
    KeyError
        If the graph, the weights, the counts or the batches of the fit are missing.
    ValueError
        If genes or batches are not those of the fit, or if the counts are no longer counts.

    Warns
    -----
    UserWarning
        If neighbors of the fit are missing, or if the counts have changed.
    """
    for name in (keys.distances, keys.connectivities, keys.weights):
        check_result(name, adata.obsp, where="table.obsp", tool=keys.call("fit"))
    categories = category_codes(adata, fitted)
    size_key = fitted.setup.size_column(keys)
    sizes = None if size_key is None else read_sizes(adata, size_key)
    graph = NeighborGraph.from_sparse(adata.obsp[keys.distances], adata.obsp[keys.connectivities])
    counts = fitted_counts(adata, fitted.setup.layer)
    molecules = row_sums(counts)
    warn_of_lost_neighbors(
        adata,
        fitted,
        keys,
        molecules,
        so="Molecules from these are attributed to the remaining neighbors or to the cell itself, unlike in the "
        "corrected counts that the fit wrote. Use the whole table, and select cells from the result (or with `cells=`, "
        "if available).",
    )
    warn_of_other_counts(adata, fitted, keys, counts)
    tissue = Tissue.assemble(
        counts, categories, graph.index, graph.distance, graph.mask, molecules=molecules, size=sizes
    )
    _set_weights(fitted.module, tissue, graph.by_slot(adata.obsp[keys.weights]))
    return tissue, graph


def warn_of_lost_neighbors(
    adata: AnnData, fitted: FittedModel, keys: Keys, molecules: NDArray[np.float64], *, so: str
) -> None:
    """Warn if the table has lost neighbors of its cells since the fit; `so` describes the consequences.

    The weights of a cell summed to 1 in the fit; any missing weight belonged to cells that were removed.
    """
    left = _neighbor_sums(adata, keys)
    # Removed cells without molecules did not leak any. Tables that were concatenated again have all cells, but lack
    # edges between them.
    gone = int((molecules > 0).sum()) < fitted.module.data.n_train
    _warn(adata, (left < _WHOLE) & (gone | (left > 0)), so=so)


def warn_of_partial_neighbors(adata: AnnData, keys: Keys, *, so: str, rows: NDArray[np.int64] | None = None) -> None:
    """Warn if the table has a fit, but has lost some neighbors of its cells, or of those in `rows`, since.

    `so` describes the consequences.
    """
    if keys.weights not in adata.obsp:
        return
    left = _neighbor_sums(adata, keys)
    lost = (left > 0) & (left < _WHOLE)
    if rows is not None:
        lost &= np.isin(np.arange(adata.n_obs), rows)
    _warn(adata, lost, so=so)


def _neighbor_sums(adata: AnnData, keys: Keys) -> NDArray[np.floating]:
    """Return the sum of each cell's neighbor weights, which was 1 in the fit, or 0 without neighbors."""
    return np.asarray(sp.csr_matrix(adata.obsp[keys.weights]).sum(axis=1), dtype=np.float32).ravel()


def _warn(adata: AnnData, lost: NDArray[np.bool_], *, so: str) -> None:
    if lost.any():
        warn_user(
            f"{int(lost.sum()):,} of {adata.n_obs:,} cells had neighbors in the fit that are not in this table. {so}"
        )


def _set_weights(module: ResolviModule, tissue: Tissue, weights: NDArray[np.float32]) -> None:
    """Set the free logits of every cell so that the softmax of these plus the distance kernel gives its weights."""
    module.data = replace(module.data, n_cells=tissue.n_cells, n_neighbors=tissue.n_neighbors)
    with torch.no_grad():
        kernel = module.neighbor_kernel(torch.from_numpy(tissue.distance), module.leakage_range())
        logits = torch.from_numpy(np.log(np.maximum(weights, _TINY))) - kernel
    # Slots without a neighbor are masked when weights are computed from the logits.
    logits = logits.masked_fill(~torch.from_numpy(tissue.mask), 0.0)
    module.neighbor_logits = nn.Embedding.from_pretrained(logits, freeze=False, sparse=True)
