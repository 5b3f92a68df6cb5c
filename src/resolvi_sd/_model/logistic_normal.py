"""Logistic-normal over the unmasked entries of each row, the approximate posterior of the shares."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from resolvi_sd._model.masked_dirichlet import masked_softmax, softmax_log_density

__all__ = ["MaskedLogisticNormal"]

_TINY = 1e-30
_HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)
# Points and weights of the Gauss-Hermite rule for a standard normal: exact for polynomials up to degree 13.
_POINTS, _WEIGHTS = (torch.from_numpy(a).float() for a in np.polynomial.hermite_e.hermegauss(7))
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


class MaskedLogisticNormal(TorchDistribution):
    """Distribution of softmax(0, y) for a normal y with independent dimensions (Aitchison & Shen 1980).

    The first entry is the reference for the other entries, and is included in every row.

    Parameters
    ----------
    loc, scale
        Mean and standard deviation of y, the logarithms of the other entries over the first, rows × (entries - 1).
    mask
        True where an entry is included, rows × entries.
    """

    arg_constraints = {"loc": constraints.real_vector, "scale": constraints.independent(constraints.positive, 1)}
    support = constraints.independent(constraints.nonnegative, 1)
    has_rsample = True

    loc: Tensor
    scale: Tensor
    mask: Tensor

    def __init__(self, loc: Tensor, scale: Tensor, mask: Tensor, *, validate_args: bool | None = False) -> None:
        self.loc, self.scale, self.mask = loc, scale, mask
        super().__init__(mask.shape[:-1], mask.shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> MaskedLogisticNormal:
        """Broadcast over more rows."""
        shape, entries = torch.Size(batch_shape), self.event_shape[0]
        loc, scale = (t.expand((*shape, entries - 1)) for t in (self.loc, self.scale))
        return MaskedLogisticNormal(loc, scale, self.mask.expand((*shape, entries)))

    def at(self, noise: Tensor) -> Tensor:
        """Return the value into which standard normal `noise`, rows × (entries - 1), is transformed."""
        y = self.loc + self.scale * noise
        logits = torch.cat([torch.zeros_like(y[..., :1]), y], dim=-1)
        return masked_softmax(logits, self.mask.expand(logits.shape))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draw values with gradient."""
        shape = torch.Size(sample_shape) + self.loc.shape
        return self.at(torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device))

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density of each row, on the simplex of its unmasked entries."""
        log_value = value.clamp_min(_TINY).log()
        standard = (log_value[..., 1:] - log_value[..., :1] - self.loc) / self.scale
        entries = -0.5 * standard.square() - self.scale.log() - _HALF_LOG_TWO_PI
        normal = torch.where(self.mask[..., 1:], entries, 0.0).sum(-1)
        # The determinant of the softmax is the product of the entries.
        jacobian = softmax_log_density(value, self.mask)
        return torch.where(self.mask.sum(-1) > 1, normal + jacobian, 0.0)

    @property
    def mean(self) -> Tensor:
        """Expected value, rows × entries, by Gauss-Hermite quadrature."""
        points = torch.cartesian_prod(*[_POINTS] * self.loc.shape[-1]).reshape(-1, self.loc.shape[-1])
        weights = torch.cartesian_prod(*[_WEIGHTS] * self.loc.shape[-1]).reshape(len(points), -1).prod(-1)
        points, weights = points.to(self.loc), weights.to(self.loc)
        values = self.at(points.reshape((-1,) + (1,) * (self.loc.dim() - 1) + (self.loc.shape[-1],)))
        expected = torch.einsum("p,p...->...", weights, values)
        return expected / expected.sum(-1, keepdim=True)
