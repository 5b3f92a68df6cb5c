"""Molecules that leaked between groups of cells, by gene."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray

from resolvi_sd._model.module import ResolviModule
from resolvi_sd._model.posterior import split_counts
from resolvi_sd._tiles import Tissue, cut_minibatch

__all__ = ["leaked_molecules"]


@torch.no_grad()
def leaked_molecules(
    module: ResolviModule, tissue: Tissue, cores: Iterable[NDArray[np.int64]], group: NDArray[np.int64], n_groups: int
) -> NDArray[np.float64]:
    """Return the expected molecules of each gene that came from cells of one group into cells of another.

    Summed over genes, it equals the flow of the fit, summed over the pairs of cells of two groups.

    Parameters
    ----------
    module
        Fitted model.
    tissue
        All cells.
    cores
        A partition of the receiving cells; parts of cells that are near each other save work.
    group
        Group of each cell, -1 for none.
    n_groups
        Number of groups.

    Returns
    -------
    Giving groups × receiving groups × genes.
    """
    module.eval()
    total = torch.zeros(n_groups, n_groups, tissue.n_genes, dtype=torch.float64)
    for core in cores:
        minibatch = cut_minibatch(tissue, core)
        mean, _ = module.encode_all(minibatch)
        beta, shares = module.neighbor_weights(minibatch), module.shares(minibatch)
        split = split_counts(module, minibatch, mean, shares, beta)
        groups = torch.from_numpy(group[minibatch.cells.numpy()])
        target, source = groups[: minibatch.n_core], groups[minibatch.neighbor]
        known = target >= 0
        for giver in torch.unique(source[minibatch.mask & (source >= 0)]).tolist():
            mixture = module.neighbor_expression(minibatch, split.profiles, beta * (source == giver))
            total[giver].index_add_(0, target[known], (split.ratio * mixture)[known].double())
    return total.numpy()
