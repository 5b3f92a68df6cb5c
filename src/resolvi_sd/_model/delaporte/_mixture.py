"""Log-likelihood of cells as mixtures of their own, their neighbors' and background molecules."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from resolvi_sd._model.delaporte._mixture_kernel import mixture_pass
from resolvi_sd._tiles import SparseRows

__all__ = ["mixture_log_prob"]


class _MixtureLogProb(torch.autograd.Function):
    """The compiled pass returns the value and all derivatives at once; the backward pass only scales them."""

    @staticmethod
    def forward(
        ctx: Any,
        own: Tensor,
        around: Tensor,
        weights: Tensor,
        amount: Tensor,
        background: Tensor,
        r: Tensor,
        counts: SparseRows,
        neighbor: Tensor,
        batch: Tensor,
        group: Tensor,
    ) -> tuple[Tensor, Tensor]:
        tensors = (counts.indptr, counts.gene, counts.value, own, around, neighbor, weights, amount, background)
        result = mixture_pass(*(t.detach().numpy() for t in (*tensors, batch, r, group)))
        own_share = torch.from_numpy(result.own_share)
        ctx.mark_non_differentiable(own_share)
        ctx.save_for_backward(*map(torch.from_numpy, result[2:]))
        return own.new_tensor(result.log_prob), own_share

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        own, weights, amount, background, r = (gradient * upstream[0] for gradient in ctx.saved_tensors)
        return own, None, weights, amount, background, r, None, None, None, None


def mixture_log_prob(
    counts: SparseRows,
    own: Tensor,
    around: Tensor,
    neighbor: Tensor,
    weights: Tensor,
    amount: Tensor,
    background: Tensor,
    batch: Tensor,
    r: Tensor,
    group: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return the Delaporte log-likelihood of all counts, and how much of each is own, on the CPU, in float32.

    The negative binomial's mean is `amount[:, 0] own + amount[:, 1] sum_m weights_m profile_m`, the Poisson's
    `amount[:, 2] background`. No gradient flows into the neighbors' profiles.

    Parameters
    ----------
    counts
        Counts of the core cells.
    own, around
        Expression profiles of the core, core × genes, and of the halo, halo × genes; rows sum to 1.
    neighbor, weights
        Number of each neighbor among core and halo, and its weight, core × k; the weights of empty slots are zero.
    amount
        Expected molecules of each source, core × 3.
    background, batch
        Background profiles, batches × genes, rows sum to 1, and the batch of each core cell.
    r, group
        Concentrations, groups × genes, and the group of each core cell.

    Returns
    -------
    The sum over cells and genes, differentiable in `own`, `weights`, `amount`, `background` and `r`; and the share of
    each stored count that is expected to be own, without a gradient.
    """
    tensors = (own, around, weights, amount, background, r, counts, neighbor, batch, group)
    log_prob, own_share = _MixtureLogProb.apply(*tensors)  # type: ignore[no-untyped-call]
    return log_prob, own_share
