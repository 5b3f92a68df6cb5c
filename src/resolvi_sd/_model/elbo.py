"""The training objective, evaluated directly."""

from __future__ import annotations

import torch
from torch import Tensor

from resolvi_sd._compiled import is_compiled
from resolvi_sd._model.delaporte import mixture_log_prob
from resolvi_sd._model.masked_dirichlet import softmax_log_density
from resolvi_sd._model.module import ResolviModule
from resolvi_sd._model.share_input import share_input
from resolvi_sd._tiles import Minibatch

__all__ = ["negative_elbo"]


def negative_elbo(module: ResolviModule, minibatch: Minibatch, kl_weight: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return the negative evidence lower bound per cell, from one draw of the latent and of the shares.

    The bound is what `pyro.infer.Trace_ELBO` returns for the programs in `programs.py`, divided by the number of
    training cells, but it avoids tracing them, which costs several milliseconds per step.

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
    The bound in nats per cell, a scalar; and the share of each stored count of the core that is expected to be own,
    given the draw, which comes with the likelihood and has no gradient.
    """
    posterior = module.latent_posterior(minibatch)
    latent = posterior.rsample()
    divergence = posterior.log_prob(latent) - module.latent_prior(minibatch).log_prob(latent)

    given = share_input(module, minibatch)
    share_posterior = module.share_posterior(minibatch, given)
    shares = share_posterior.rsample()
    length = module.leakage_range()
    weights, weights_density = module.neighbor_weights_and_density(minibatch, length)
    background = module.background_profile()
    measured_background = module.among_measured(background)

    core_terms = (
        -kl_weight * divergence
        + module.shares_prior(minibatch, given).log_prob(shares)
        - share_posterior.log_prob(shares)
        + weights_density
    )
    if module.data.n_labels:
        log_label = module.label_likelihood(latent).log_prob(minibatch.label.clamp_min(0))
        core_terms = core_terms + module.config.classification_weight * log_label * (minibatch.label >= 0)
    everywhere = torch.ones_like(measured_background, dtype=torch.bool)
    shared_terms = (
        module.background_prior().log_prob(measured_background)
        - softmax_log_density(measured_background, everywhere).sum()
        + module.dispersion_prior().log_prob(1 / module.of_measured(module.concentration()))
        + module.range_prior().log_prob(length)
    )
    own = module.expression(latent, minibatch.core_categories)
    if module.config.profile_sparsity:
        core_terms = core_terms + module.profile_log_prior(own)
    amount = module.amount(minibatch, latent, shares)
    likelihood, own_share = _log_likelihood(module, minibatch, own, amount, weights, background)
    per_cell = (likelihood + core_terms.sum()) / minibatch.n_core
    return -(per_cell + shared_terms / module.data.n_train), own_share


def _log_likelihood(
    module: ResolviModule, minibatch: Minibatch, own: Tensor, amount: Tensor, weights: Tensor, background: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the summed log-likelihood of the core cells' counts and their own shares; `own` contains the profiles."""
    counts, core_batch, around = minibatch.counts, minibatch.core_batch, module.halo_expression(minibatch)
    if module.config.likelihood == "nb" and is_compiled(own) and not module.data.unmeasured:
        r, group = module.concentration(), module.concentration_group(core_batch)
        return mixture_log_prob(
            counts, own, around, minibatch.neighbor, weights, amount, background, core_batch, r, group
        )
    rates = module.rates(minibatch, torch.cat([own, around]), amount, weights, background)
    with torch.no_grad():
        own_share = module.expected_own(counts, rates, core_batch)[0] / counts.value
    return module.log_likelihood(counts, rates, core_batch).sum(), own_share
