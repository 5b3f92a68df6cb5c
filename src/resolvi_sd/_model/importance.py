"""Importance weights of draws of the latent, from the encoder's normal to the posterior of the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from resolvi_sd._model.module import Rates, ResolviModule
from resolvi_sd._model.rows import decode_mean
from resolvi_sd._model.sampling import Sampler
from resolvi_sd._tiles import Minibatch, cut_minibatch

__all__ = ["WeightedDraws", "Weights", "check_weights", "weigh_draws", "weighted_expression", "weighted_own"]

Weights = Literal["uniform", "importance"]


def check_weights(weights: str) -> None:
    """Raise ValueError unless `weights` is a known kind of weights."""
    if weights not in get_args(Weights):
        raise ValueError(f"`weights` must be 'uniform' or 'importance', not {weights!r}.")


@dataclass(frozen=True)
class WeightedDraws:
    """Draws of the latent of some cells from the encoder's normal, and the weight of each draw.

    Attributes
    ----------
    cells
        Rows of the table.
    latent
        Draws × cells × n_latent, float32.
    weights
        Draws × cells, float32; the weights of a cell sum to 1.
    """

    cells: NDArray[np.int64]
    latent: NDArray[np.float32]
    weights: NDArray[np.float32]

    def effective(self) -> NDArray[np.float32]:
        """Return the effective number of draws per cell, 1 / sum of squared weights (Kong 1992): between 1 and all."""
        size: NDArray[np.float32] = 1 / np.square(self.weights).sum(axis=0)
        return size


@dataclass(frozen=True)
class _Conditional:
    """Counts of the core cells given their latent, with all else estimated: neighbors are at their posterior mean."""

    module: ResolviModule
    minibatch: Minibatch
    around: Tensor
    shares: Tensor
    background: Tensor

    @classmethod
    def of(cls, module: ResolviModule, minibatch: Minibatch) -> _Conditional:
        mean, _ = module.encode_all(minibatch)
        profiles = module.expression(mean, minibatch.categories)
        weights = module.neighbor_weights(minibatch)
        around = module.neighbor_expression(minibatch, profiles, weights)
        background = module.background_profile()[minibatch.core_batch]
        return cls(module, minibatch, around, module.shares(minibatch), background)

    def rates(self, latent: Tensor) -> Rates:
        amount = self.module.amount(self.minibatch, latent, self.shares)
        own = self.module.expression(latent, self.minibatch.core_categories)
        return self.module.rates_of(amount, own, self.around, self.background)

    def log_prob(self, latent: Tensor) -> Tensor:
        """Return the log-likelihood of each core cell's counts."""
        return self.module.log_likelihood(self.minibatch.counts, self.rates(latent), self.minibatch.core_batch)

    def own(self, latent: Tensor) -> Tensor:
        """Return the expected own molecules of every stored count of the core."""
        own, _ = self.module.expected_own(self.minibatch.counts, self.rates(latent), self.minibatch.core_batch)
        return own


def weigh_draws(sampler: Sampler, cells: NDArray[np.int64]) -> WeightedDraws:
    """Draw the latent of some cells, and compute weights of the draws.

    The weight of a draw z_s of cell n, normalized over the draws of the cell, is

        w_ns = p(x_n | z_s) p(z_s) / q(z_s | x_n)

    with q the encoder's normal, p(z) the mixture prior, and p(x_n | z_s) the Delaporte (or Poisson) probability of all
    counts of the cell. In the latter, the shares are held at their posterior mean, the neighbor weights, background and
    overdispersion at their point estimates, and the expression of the neighbors at the means of their q, so that cells
    can be weighted one by one. A label of the cell enters through p(z), and only if the tissue has labels. Weighted
    means of draws converge to expectations under the model's posterior, whereas plain means converge to those under q.

    Parameters
    ----------
    sampler
        Model, tissue and seeds of the draws.
    cells
        Rows of the table, each once.

    References
    ----------
    Boyeau et al. (2023), doi:10.1073/pnas.2209124120, self-normalized importance sampling of latent variables; Kong
    (1992), A note on importance sampling using standardized weights.
    """
    module = sampler.module
    latent = sampler.draw(cells, ["latent"])["latent"].astype(np.float32, copy=False)
    with torch.no_grad():
        minibatch = cut_minibatch(sampler.tissue, cells)
        conditional, posterior = _Conditional.of(module, minibatch), module.latent_posterior(minibatch)
        prior = module.latent_prior(minibatch)
        log_weight = torch.stack(
            [conditional.log_prob(z) + prior.log_prob(z) - posterior.log_prob(z) for z in torch.from_numpy(latent)]
        )
    return WeightedDraws(cells, latent, torch.softmax(log_weight.double(), dim=0).float().numpy())


def weighted_expression(
    module: ResolviModule,
    draws: WeightedDraws,
    settings: Sequence[NDArray[np.int64]],
    genes: slice | NDArray[np.int64],
    among: slice | NDArray[np.intp] = slice(None),
) -> NDArray[np.float32]:
    """Return the weighted mean of the expression rho, cells × `genes`, float32; see :func:`decode`.

    `settings` contains the categories used for decoding, each cells × (1 + covariates); the mean over them is returned.
    """
    total = sum(
        weight[:, None] * decode_mean(module, latent, settings, genes, among)
        for latent, weight in zip(draws.latent, draws.weights, strict=True)
    )
    return np.asarray(total, dtype=np.float32)


def weighted_own(sampler: Sampler, draws: WeightedDraws) -> NDArray[np.float32]:
    """Return the weighted mean of the expected own molecules of every stored count of the cells, row after row."""
    with torch.no_grad():
        conditional = _Conditional.of(sampler.module, cut_minibatch(sampler.tissue, draws.cells))
        counts = conditional.minibatch.counts
        row = counts.rows()
        total = torch.zeros_like(counts.value)
        for latent, weight in zip(draws.latent, draws.weights, strict=True):
            total += torch.from_numpy(weight)[row] * conditional.own(torch.from_numpy(latent))
    return torch.minimum(total, counts.value).numpy()
