"""Shares of the sources in individual entries of the counts: own, each neighbor, background."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from resolvi_sd._model.module import Rates, ResolviModule
from resolvi_sd._tiles import SparseRows, Tissue, cut_minibatch

__all__ = ["entry_sources"]

_TINY = 1e-30


def entry_sources(
    module: ResolviModule, tissue: Tissue, rows: NDArray[np.int64], genes: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return the expected share of each source in the molecules of some entries.

    As for the corrected counts of a fit, the latent and the shares are at their means: of x molecules, E[k | x] are not
    background, and these are divided between the cell itself and its neighbors in proportion to their rates. The first
    column times x is the corrected count.

    Parameters
    ----------
    module
        Fitted model with the neighbor weights of its cells, in evaluation mode.
    tissue
        All cells.
    rows, genes
        Rows and columns of the entries, sorted by row. An entry without counts is treated as if it had a single
        molecule, which gives the sources of a molecule that was not counted, e.g. because of its quality.

    Returns
    -------
    Entries × (1 + k + 1): own, the neighbors in the order of `tissue.neighbor`, background; rows sum to 1.
    """
    cells, local = np.unique(rows, return_inverse=True)
    minibatch = cut_minibatch(tissue, cells)
    row, gene = torch.from_numpy(local.astype(np.int64)), torch.from_numpy(genes)
    value = np.maximum(np.asarray(tissue.counts[rows, genes]).ravel(), 1).astype(np.float32)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(local, minlength=len(cells)))])
    with torch.no_grad():
        latent, _ = module.encode_all(minibatch)
        profiles = module.expression(latent, minibatch.categories)
        weights = module.neighbor_weights(minibatch)
        amount = module.amount(minibatch, latent, module.shares(minibatch))
        around = module.neighbor_expression(minibatch, profiles, weights)
        sources = profiles[: len(cells)], around, module.background_profile()[minibatch.core_batch]
        # Of all genes: a transcript may be of a gene that the table of a query lacks.
        rates = Rates.of(module.amount_of_all_genes(amount, *sources), *sources)
        counts = SparseRows(
            torch.from_numpy(indptr), gene, torch.from_numpy(value), (rates.own.shape[0], rates.own.shape[1])
        )
        signal = module.expected_signal(counts, rates, minibatch.core_batch) / counts.value
        received = rates.amount[row, 1:2] * weights[row] * profiles[minibatch.neighbor[row], gene[:, None]]
        parts = torch.cat([rates.own[row, gene][:, None], received], dim=1)
        parts *= (signal / parts.sum(dim=1).clamp_min(_TINY))[:, None]
        shares: NDArray[np.float32] = torch.cat([parts, (1 - signal[:, None]).clamp_min(0)], dim=1).numpy()
    return shares
