"""Log-probability of sparse counts under the Delaporte distribution, with its analytic gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from resolvi_sd._model.delaporte._kernel import delaporte_entries
from resolvi_sd._model.delaporte._terms import TINY_MEAN, delaporte_terms
from resolvi_sd._tiles import SparseRows

__all__ = ["delaporte_log_prob", "expected_signal", "poisson_log_prob"]


def _evaluate(counts: SparseRows, mu: Tensor, lam: Tensor, r: Tensor, group: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    if mu.device.type == "cpu":
        arrays = (counts.indptr, counts.gene, counts.value, mu, lam, r, group)
        log_ratio, expected, slope = delaporte_entries(*(a.detach().numpy() for a in arrays))
        return torch.from_numpy(log_ratio), torch.from_numpy(expected), torch.from_numpy(slope)
    row = counts.rows()
    return delaporte_terms(counts.value, mu[row, counts.gene], lam[row, counts.gene], r[group[row], counts.gene])


class _DelaporteLogProb(torch.autograd.Function):
    """One dense pass for the zeros, since log P(0) = -lambda - r log(1 + mu / r), and sums at the non-zeros only.

    With the posterior of k given x, d log P / d mu = E[k / mu - (r + k) / (r + mu)] and
    d log P / d lambda = E[(x - k) / lambda] - 1, so the gradient costs no more than the value.
    """

    @staticmethod
    def forward(ctx: Any, mu: Tensor, lam: Tensor, r: Tensor, group: Tensor, counts: SparseRows) -> Tensor:
        concentration = r[group] if len(r) > 1 else r
        log_ratio, expected, slope = _evaluate(counts, mu, lam, r, group)
        row, gene = counts.rows(), counts.gene
        odds = torch.log1p(mu / concentration)
        above = mu + concentration
        log_prob = -(lam + concentration * odds).sum(1)
        log_prob.index_add_(0, row, log_ratio)

        grad_mu = -concentration / above
        grad_r = mu / above
        grad_r -= odds
        entry_r = concentration.expand_as(mu)[row, gene]
        entry_mu = mu[row, gene].clamp_min(TINY_MEAN)
        flat = row * mu.shape[1] + gene
        grad_mu.view(-1).index_add_(0, flat, expected * entry_r / (entry_mu * (entry_r + entry_mu)))
        grad_r.view(-1).index_add_(0, flat, slope)
        background = (counts.value - expected) / lam[row, gene].clamp_min(TINY_MEAN)
        ctx.save_for_backward(grad_mu, grad_r, background, flat, group)
        ctx.groups = len(r)
        return log_prob

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None, None]:
        grad_mu, grad_r, background, flat, group = ctx.saved_tensors
        grad_lam = torch.full_like(grad_mu, -1.0)
        grad_lam.view(-1).index_add_(0, flat, background)
        upstream = grad[:, None]
        by_group = None
        if ctx.needs_input_grad[2]:
            by_group = torch.zeros(ctx.groups, grad_r.shape[1], dtype=grad_r.dtype, device=grad_r.device)
            if ctx.groups > 1:
                by_group.index_add_(0, group, grad_r * upstream)
            else:
                by_group[0] = grad @ grad_r
        return grad_mu * upstream, grad_lam * upstream, by_group, None, None


def delaporte_log_prob(counts: SparseRows, mu: Tensor, lam: Tensor, r: Tensor, group: Tensor) -> Tensor:
    """Return the log-probability of each cell's counts, summed over genes.

    Counts are x ~ Poisson(h + lambda) with h ~ Gamma(r, r / mu), marginalized over h: a negative binomial plus a
    Poisson.

    Parameters
    ----------
    counts
        Counts of the cells.
    mu
        Mean of the negative binomial part, cells × genes.
    lam
        Mean of the Poisson part, cells × genes.
    r
        Concentration (inverse overdispersion), groups × genes.
    group
        Row of `r` for each cell, int64.

    Returns
    -------
    Log-probabilities, one per cell, differentiable in `mu`, `lam` and `r`.

    References
    ----------
    Vose, Risk Analysis, 3rd ed. (2008), Delaporte distribution; Ergen & Yosef (2025), the generative process.
    """
    result: Tensor = _DelaporteLogProb.apply(mu, lam, r, group, counts)  # type: ignore[no-untyped-call]
    return result


def poisson_log_prob(counts: SparseRows, mu: Tensor, lam: Tensor) -> Tensor:
    """Return the log-probability of each cell's counts under Poisson(mu + lambda), the limit of large r."""
    rate = mu + lam
    row = counts.rows()
    seen = rate[row, counts.gene].clamp_min(TINY_MEAN)
    entries = counts.value * torch.log(seen) - torch.lgamma(counts.value + 1)
    return (-rate.sum(1)).index_add(0, row, entries)


def expected_signal(counts: SparseRows, mu: Tensor, lam: Tensor, r: Tensor | None, group: Tensor) -> Tensor:
    """Return E[k | x] of every entry: the expected molecules that are not background, between 0 and x.

    If `r` is None, the likelihood is Poisson, for which this is x mu / (mu + lambda).
    """
    if r is None:
        row = counts.rows()
        signal, rest = mu[row, counts.gene], lam[row, counts.gene]
        return counts.value * signal / (signal + rest).clamp_min(TINY_MEAN)
    expected = _evaluate(counts, mu, lam, r, group)[1]
    return torch.minimum(expected, counts.value)
