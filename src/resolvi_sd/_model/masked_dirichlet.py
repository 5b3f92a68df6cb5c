"""Dirichlet over the unmasked entries of each row, for cells with different numbers of neighbors."""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

__all__ = ["MaskedDirichlet", "masked_softmax", "point_log_density", "softmax_log_density"]

_TINY = 1e-30


def masked_softmax(logits: Tensor, mask: Tensor) -> Tensor:
    """Return the softmax over the last dimension within `mask`; rows without any entry are zero."""
    some = mask.any(dim=-1, keepdim=True)
    weights = torch.softmax(logits.masked_fill(~mask & some, -torch.inf), dim=-1)
    return weights * (mask & some)


def softmax_log_density(value: Tensor, mask: Tensor) -> Tensor:
    """Return the log-density, on the simplex, of a point known in its softmax coordinates: -sum log value.

    With this term, the point estimate under a Dirichlet is the mean of the Dirichlet instead of its mode, which for
    concentrations below 1 lies in a corner (MacKay 1998, Choice of basis for Laplace approximation).
    """
    return -torch.where(mask, value.clamp_min(_TINY), 1.0).log().sum(-1)


class MaskedDirichlet(TorchDistribution):
    """Dirichlet over the unmasked entries; rows with one entry or none have log-probability zero.

    Parameters
    ----------
    concentration
        Positive, rows × entries.
    mask
        True where an entry is included, of the same shape.
    """

    arg_constraints = {"concentration": constraints.independent(constraints.positive, 1)}
    support = constraints.independent(constraints.nonnegative, 1)

    concentration: Tensor
    mask: Tensor

    def __init__(self, concentration: Tensor, mask: Tensor, *, validate_args: bool | None = False) -> None:
        self.concentration, self.mask = torch.broadcast_tensors(concentration, mask)
        shape = self.concentration.shape
        super().__init__(shape[:-1], shape[-1:], validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """Expected value, rows × entries."""
        kept = self.concentration * self.mask
        return kept / kept.sum(-1, keepdim=True).clamp_min(_TINY)

    def expand(self, batch_shape: Any, _instance: Any = None) -> MaskedDirichlet:
        """Broadcast over more rows."""
        shape = torch.Size(batch_shape) + self.event_shape
        return MaskedDirichlet(self.concentration.expand(shape), self.mask.expand(shape))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw by normalizing Gamma variables."""
        shape = torch.Size(sample_shape) + self.batch_shape + self.event_shape
        with torch.no_grad():
            gamma = torch._standard_gamma(self.concentration.expand(shape)).clamp_min(_TINY) * self.mask
            return gamma / gamma.sum(-1, keepdim=True).clamp_min(_TINY)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density of each row."""
        kept = torch.where(self.mask, self.concentration, 0.0)
        total = kept.sum(-1)
        log_value = torch.where(self.mask, value.clamp_min(_TINY), 1.0).log()
        entries = torch.where(self.mask, (self.concentration - 1) * log_value - torch.lgamma(self.concentration), 0.0)
        log_prob = entries.sum(-1) + torch.lgamma(total.clamp_min(_TINY))
        return torch.where(self.mask.sum(-1) > 1, log_prob, 0.0)


def point_log_density(value: Tensor, prior: MaskedDirichlet) -> Tensor:
    """Return the log-density, on the simplex, at `value` of a guide that is centered there and as narrow as the prior.

    In softmax coordinates, this density is as high as that of the prior at its own peak, the prior's mean. The height
    of a Dirichlet's peak reflects how narrow it is, and a point estimate that ignores it prefers hyperparameters for
    which the prior is narrow, regardless of the data. With this term, the log-ratio of prior to guide is minus the
    concentration times the divergence of the prior's mean from `value`, which is zero where they agree.
    """
    peak = prior.log_prob(prior.mean) - softmax_log_density(prior.mean, prior.mask)
    return softmax_log_density(value, prior.mask) + peak
