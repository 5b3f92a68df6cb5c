"""What the shares of cells are judged by: their counts, their neighbors, and the setting that they are in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from resolvi_sd._model.completion import complete
from resolvi_sd._model.masked_dirichlet import masked_softmax
from resolvi_sd._tiles import Minibatch, SparseRows

if TYPE_CHECKING:
    from resolvi_sd._model.module import ResolviModule

__all__ = ["ShareInput", "share_input"]


@dataclass(frozen=True)
class ShareInput:
    """What is known of the core cells of a minibatch before their shares.

    Attributes
    ----------
    counts
        Counts of the core cells.
    features
        log1p(x / mean x) of all cells.
    weights
        Weights of the neighbors at the initial length scale of leakage, core × k.
    setting
        Depth of the cell and of its neighbors, as logarithms, and the mean and least distance of these, each relative
        to the median of the tissue; core × `N_SETTING`.
    """

    counts: SparseRows
    features: SparseRows
    weights: Tensor
    setting: Tensor


def share_input(module: ResolviModule, minibatch: Minibatch) -> ShareInput:
    """Return what is known of the core cells and their neighbors before their shares.

    In a query that lacks genes, cells are completed first, see :func:`complete`.
    """
    core = minibatch.n_core
    features, counts, molecules = minibatch.unthinned_features, minibatch.counts, minibatch.molecules
    if module.data.unmeasured:
        completed = complete(module, features, minibatch.categories, molecules)
        features, molecules = completed.features, completed.molecules
        counts = completed.counts(counts, module.data.unmeasured)
    kernel = module.neighbor_kernel(minibatch.distance, torch.ones_like(module.log_range))
    weights = masked_softmax(kernel, minibatch.mask)
    depth = torch.log1p(molecules)
    relative = minibatch.distance / module.data.neighbor_distance
    setting = torch.stack(
        [
            depth[:core] - module.log_depth,
            (weights * depth[minibatch.neighbor]).sum(1) - module.log_depth * minibatch.mask.any(1).to(depth),
            (relative * minibatch.mask).sum(1) / minibatch.mask.sum(1).clamp_min(1) - 1.0,
            relative.masked_fill(~minibatch.mask, 3.0).amin(1).clamp_max(3.0) - 1.0,
        ],
        dim=1,
    )
    return ShareInput(counts, features, weights, setting)
