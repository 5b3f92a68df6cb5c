"""The sums of the Delaporte distribution in plain torch, for devices that the compiled kernel does not support."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["TINY_MEAN", "delaporte_terms"]

# Lower bound of the means.
TINY_MEAN = 1e-30


def delaporte_terms(x: Tensor, mu: Tensor, lam: Tensor, r: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Evaluate positive counts, writing out all x + 1 terms of each entry.

    Parameters
    ----------
    x, mu, lam, r
        Counts and parameters, one value per entry.

    Returns
    -------
    For each entry, log(P(x) / P(0)), E[k | x] and d log(P(x) / P(0)) / dr at fixed mu, in the dtype of `mu`. They are
    computed in float64, since differences of lgamma lose all their digits in float32.
    """
    count = x.long()
    terms = count + 1
    entry = torch.repeat_interleave(torch.arange(len(x), device=x.device), terms)
    k = torch.arange(len(entry), device=x.device) - (terms.cumsum(0) - terms)[entry]
    x64, mu64, lam64, r64 = (v.double()[entry] for v in (x, mu.clamp_min(TINY_MEAN), lam, r))
    k64 = k.double()
    log_nb = torch.lgamma(r64 + k64) - torch.lgamma(r64) - torch.lgamma(k64 + 1) + k64 * torch.log(mu64 / (r64 + mu64))
    # xlogy: a term with no background molecules is 1 even where the background is zero.
    log_poisson = torch.xlogy(x64 - k64, lam64) - torch.lgamma(x64 - k64 + 1)
    log_term = log_nb + log_poisson
    peak = torch.full((len(x),), -torch.inf, dtype=torch.float64, device=x.device).scatter_reduce_(
        0, entry, log_term, "amax"
    )
    weight = torch.exp(log_term - peak[entry])
    zeros = torch.zeros_like(peak)
    total = zeros.index_add(0, entry, weight)
    expected = zeros.index_add(0, entry, weight * k64) / total
    harmonic = torch.digamma(r64 + k64) - torch.digamma(r64)
    slope = zeros.index_add(0, entry, weight * harmonic) / total - expected / (r.double() + mu.double())
    return (peak + total.log()).to(mu.dtype), expected.to(mu.dtype), slope.to(mu.dtype)
