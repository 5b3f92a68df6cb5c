"""Mixture of diagonal Gaussians, evaluated by matrix products."""

from __future__ import annotations

import math
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

__all__ = ["GaussianMixture"]


class GaussianMixture(TorchDistribution):  # type: ignore[misc]
    """Mixture of Gaussians with diagonal covariance.

    sum_l (z_l - m_l)^2 / s_l^2 is expanded, so that all components of all cells require only two matrix products and no
    cells × components × dimensions array.

    Parameters
    ----------
    logits
        Unnormalized log-weights: components, or cells × components if each cell has weights of its own.
    means, scales
        Components × dimensions.
    """

    arg_constraints = {"logits": constraints.real_vector}
    support = constraints.real_vector

    def __init__(self, logits: Tensor, means: Tensor, scales: Tensor, *, validate_args: bool | None = False) -> None:
        self.logits, self.means, self.scales = logits, means, scales
        super().__init__(logits.shape[:-1], means.shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> GaussianMixture:
        """Broadcast over more cells."""
        logits = self.logits.expand(*batch_shape, self.logits.shape[-1])
        return GaussianMixture(logits, self.means, self.scales)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw components, then points."""
        with torch.no_grad():
            component = torch.distributions.Categorical(logits=self.logits).sample(torch.Size(sample_shape))
            return torch.normal(self.means[component], self.scales[component])

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density of each row, cells."""
        precision = self.scales.square().reciprocal()
        weighted = self.means * precision
        constant = (
            torch.log_softmax(self.logits, -1)
            - self.scales.log().sum(-1)
            - 0.5 * (self.means * weighted).sum(-1)
            - 0.5 * self.means.shape[-1] * math.log(2 * math.pi)
        )
        return torch.logsumexp(constant + value @ weighted.T - 0.5 * value.square() @ precision.T, dim=-1)
