"""The training objective, evaluated directly."""

from __future__ import annotations

import torch
from torch import Tensor

from resolvi_sd._model.delaporte import delaporte_log_prob, poisson_log_prob
from resolvi_sd._model.masked_dirichlet import softmax_log_density
from resolvi_sd._model.module import ResolviModule
from resolvi_sd._tiles import Minibatch

__all__ = ["negative_elbo"]


def negative_elbo(module: ResolviModule, minibatch: Minibatch, kl_weight: float = 1.0) -> tuple[Tensor, Tensor]:
    """Negative evidence lower bound per cell, one draw of the latent.

    The same number as `pyro.infer.Trace_ELBO` gives for the programs in `programs.py`, divided by the cells that
    are trained on; tracing them costs several milliseconds a step, which this does not.

    Parameters
    ----------
    module
        The model.
    minibatch
        Core cells and their halo.
    kl_weight
        Weight of the latent's divergence from its prior.

    Returns
    -------
    The scalar, in nats per cell, and the shares of the core cells, core × 3, without gradient.
    """
    posterior = module.latent_posterior(minibatch)
    latent = posterior.rsample()
    divergence = posterior.log_prob(latent) - module.latent_prior().log_prob(latent)

    shares, share_mask = module.shares(minibatch), module.share_mask(minibatch)
    length = module.leakage_range()
    weights = module.neighbor_weights(minibatch, length)
    background = module.background_profile()
    expression = module.expression_of_all(minibatch, latent)
    rates = module.rates(minibatch, expression, shares, weights, background)

    core_terms = (
        _log_likelihood(module, minibatch, rates.signal, rates.background)
        - kl_weight * divergence
        + module.shares_prior(minibatch).log_prob(shares)
        - softmax_log_density(shares, share_mask)
        + module.neighbor_prior(minibatch, length).log_prob(weights)
        - softmax_log_density(weights, minibatch.mask)
    )
    everywhere = torch.ones_like(background, dtype=torch.bool)
    shared_terms = (
        module.background_prior().log_prob(background)
        - softmax_log_density(background, everywhere).sum()
        + module.dispersion_prior().log_prob(1 / module.concentration())
        + module.range_prior().log_prob(length)
    )
    return -(core_terms.mean() + shared_terms / module.data.n_train), shares.detach()


def _log_likelihood(module: ResolviModule, minibatch: Minibatch, signal: Tensor, background: Tensor) -> Tensor:
    if module.config.likelihood == "poisson":
        return poisson_log_prob(minibatch.counts, signal, background)
    group = module.concentration_group(minibatch.core_batch)
    return delaporte_log_prob(minibatch.counts, signal, background, module.concentration(), group)
