"""The input of the encoders for cells of a query some of whose genes were not measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from resolvi_sd._tiles import SparseRows

if TYPE_CHECKING:
    from resolvi_sd._model.module import ResolviModule

__all__ = ["Completed", "complete"]

_TINY = 1e-8
# The measured genes are taken to have at least this share of a cell's molecules, which bounds what is added.
_LEAST_MEASURED = 0.02
# Cells at a time.
_ROWS = 1024


@dataclass(frozen=True)
class Completed:
    """Cells as they would be if all genes had been measured.

    Attributes
    ----------
    features
        log1p(x / mean x) of the cells, cells × genes.
    molecules
        Molecules of the cells, with those that are expected of genes that were not measured.
    """

    features: SparseRows
    molecules: Tensor

    def counts(self, measured: SparseRows, unmeasured: Sequence[int]) -> SparseRows:
        """Return the counts of the first cells: as `measured`, with expected ones in the columns `unmeasured`."""
        n_cells, n_genes = measured.shape
        columns = list(unmeasured)
        composition = torch.expm1(self.features.between(0, n_cells).to_dense()[:, columns]) / n_genes
        counts = measured.to_dense()
        counts[:, columns] = composition * self.molecules[:n_cells, None]
        return SparseRows.from_dense(counts)


def complete(module: ResolviModule, features: SparseRows, categories: Tensor, molecules: Tensor) -> Completed:
    """Return cells with expected values for the genes that were not measured.

    If these counted as zero, the encoders would see cells that do not express them. The mixture components of the
    latent space are kinds of cells, each with the profile of its center. A cell is of a kind with the probability

        p(k | x) ~ w_k prod_g (a rho_kg + (1 - a) m_g)^x_g

    over the measured genes g, where both profiles sum to 1, m is the mean of all kinds, which stands for molecules that
    are not the cell's own, and a is the mean share of its own. What it would have had of the other genes is the mean of
    the profiles of its kinds, and the measured genes make up a part of its molecules accordingly.

    Parameters
    ----------
    module
        The model, whose data say which genes were not measured.
    features
        log1p(x / mean x) of the cells, see :func:`encoder_features`; zero for genes that were not measured.
    categories
        Batch and further covariates, cells × (1 + covariates).
    molecules
        Molecules of the cells.

    Returns
    -------
    Completed, of as many cells.
    """
    n_cells = features.shape[0]
    parts: list[Completed] = []
    for start in range(0, max(n_cells, 1), _ROWS):
        stop = min(start + _ROWS, n_cells)
        rows = slice(start, stop)
        parts.append(_complete(module, features.between(start, stop), categories[rows], molecules[rows]))
    return Completed(SparseRows.stacked([part.features for part in parts]), torch.cat([p.molecules for p in parts]))


@torch.no_grad()
def _complete(module: ResolviModule, features: SparseRows, categories: Tensor, molecules: Tensor) -> Completed:
    """Return :func:`complete` of a block of cells, which is dense for a while."""
    n_genes = features.shape[1]
    measured = module.is_measured()
    composition = torch.expm1(features.to_dense())
    composition[:, ~measured] = 0.0  # another table may have these genes
    composition /= composition.sum(dim=1, keepdim=True).clamp_min(_TINY)
    counts = molecules[:, None] * composition[:, measured]
    log_weight = torch.log_softmax(module.component_logits, dim=-1)
    expected = torch.empty_like(composition)
    settings, setting = torch.unique(categories, dim=0, return_inverse=True)
    for number, common in enumerate(settings):
        rows = setting == number
        own = module.share_mean(common[0])[0]
        profiles = module.expression(module.component_means, common.expand(len(log_weight), -1))
        seen = profiles[:, measured]
        seen = seen / seen.sum(dim=1, keepdim=True)
        seen = own * seen + (1 - own) * (log_weight.exp() @ seen)
        kind = torch.softmax(log_weight + counts[rows] @ seen.clamp_min(_TINY).log().T, dim=1)
        expected[rows] = kind @ profiles
    share = expected[:, measured].sum(dim=1, keepdim=True)
    composition *= share
    composition[:, ~measured] = expected[:, ~measured]
    completed = molecules / share.squeeze(1).clamp_min(_LEAST_MEASURED)
    return Completed(SparseRows.from_dense(composition.mul_(n_genes).log1p_()), completed)
