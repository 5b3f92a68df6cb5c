"""The Delaporte distribution over genes, as a Pyro distribution."""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from resolvi_sd._model.delaporte._log_prob import delaporte_log_prob
from resolvi_sd._tiles import SparseRows

__all__ = ["Delaporte"]


class Delaporte(TorchDistribution):
    """Counts of the genes of one cell: a negative binomial plus a Poisson, independent over genes.

    Parameters
    ----------
    signal
        Mean of the negative binomial, cells × genes.
    background
        Mean of the Poisson, cells × genes.
    concentration
        Inverse overdispersion r of the negative binomial, cells × genes or genes.

    Examples
    --------
    >>> import torch
    >>> from resolvi_sd._model.delaporte import Delaporte
    >>> d = Delaporte(torch.full((2, 3), 4.0), torch.full((2, 3), 1.0), torch.full((3,), 10.0))
    >>> d.mean[0, 0].item(), round(d.variance[0, 0].item(), 3)
    (5.0, 6.6)
    """

    arg_constraints = {
        "signal": constraints.independent(constraints.nonnegative, 1),
        "background": constraints.independent(constraints.nonnegative, 1),
        "concentration": constraints.independent(constraints.positive, 1),
    }
    support = constraints.independent(constraints.nonnegative_integer, 1)
    has_rsample = False

    signal: Tensor
    background: Tensor
    concentration: Tensor

    def __init__(
        self, signal: Tensor, background: Tensor, concentration: Tensor, *, validate_args: bool | None = None
    ) -> None:
        self.signal, self.background = torch.broadcast_tensors(signal, background)
        self.concentration = concentration.expand_as(self.signal)
        super().__init__(self.signal.shape[:-1], self.signal.shape[-1:], validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """Expected counts, mu + lambda."""
        return self.signal + self.background

    @property
    def variance(self) -> Tensor:
        """Variance of the counts, mu + mu^2 / r + lambda."""
        return self.signal * (1 + self.signal / self.concentration) + self.background

    def expand(self, batch_shape: Any, _instance: Any = None) -> Delaporte:
        """Broadcast over more cells."""
        shape = torch.Size(batch_shape) + self.event_shape
        return Delaporte(
            self.signal.expand(shape),
            self.background.expand(shape),
            self.concentration.expand(shape),
            validate_args=False,
        )

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw counts through the Gamma-Poisson mixture."""
        shape = torch.Size(sample_shape) + self.batch_shape + self.event_shape
        with torch.no_grad():
            r = self.concentration.expand(shape)
            gamma = torch.distributions.Gamma(r, r / self.signal.clamp_min(torch.finfo(r.dtype).tiny)).sample()
            return torch.poisson(gamma + self.background)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probability of each cell's counts, summed over genes."""
        shape = torch.broadcast_shapes(value.shape, self.signal.shape)
        n_genes = shape[-1]
        dense = value.expand(shape).reshape(-1, n_genes)
        mu, lam, r = (p.expand(shape).reshape(-1, n_genes) for p in (self.signal, self.background, self.concentration))
        counts = SparseRows.from_dense(dense.detach())
        group = torch.arange(len(dense), device=dense.device)
        return delaporte_log_prob(counts, mu.contiguous(), lam.contiguous(), r.contiguous(), group).reshape(shape[:-1])
