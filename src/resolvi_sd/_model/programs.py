"""The model and its guide as Pyro programs, with descriptive names of the sites."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro.poutine import scale

from resolvi_sd._model.masked_dirichlet import point_log_density, softmax_log_density
from resolvi_sd._model.module import ResolviModule
from resolvi_sd._tiles import Minibatch

__all__ = ["guide", "model"]


def model(module: ResolviModule, minibatch: Minibatch, kl_weight: float = 1.0) -> None:
    """Generate the counts of the core cells (Ergen & Yosef 2025, with the Gamma marginalized out)."""
    background = _of_all_genes(module, pyro.sample("background", module.background_prior()))
    overdispersion = pyro.sample("overdispersion", module.dispersion_prior())
    length = pyro.sample("leakage_range", module.range_prior())
    with pyro.plate("cells", module.data.n_train, subsample=minibatch.cells[: minibatch.n_core], dim=-1):
        with scale(scale=kl_weight):
            latent = pyro.sample("latent", module.latent_prior(minibatch))
        shares = pyro.sample("shares", module.shares_prior(minibatch))
        weights = pyro.sample("neighbor_weights", module.neighbor_prior(minibatch, length))
        own = module.expression(latent, minibatch.core_categories)
        pyro.factor("profile_sparsity", module.profile_log_prior(own))
        expression = torch.cat([own, module.halo_expression(minibatch)])
        amount = module.amount(minibatch, latent, shares)
        rates = module.rates(minibatch, expression, amount, weights, background)
        counts = minibatch.counts.to_dense()
        concentration = torch.ones_like(module.log_concentration)
        concentration[:, module.is_measured()] = 1 / overdispersion
        pyro.sample("counts", module.likelihood(rates, concentration, minibatch), obs=counts)
        if module.data.n_labels:
            labeled = minibatch.label >= 0
            with scale(scale=module.config.classification_weight):
                label = module.label_likelihood(latent).mask(labeled)
                pyro.sample("label", label, obs=minibatch.label.clamp_min(0))


def guide(module: ResolviModule, minibatch: Minibatch, kl_weight: float = 1.0) -> None:
    """Approximate the posterior: normal for the latent, logistic-normal for the shares, otherwise point estimates.

    The point estimate of the neighbor weights is treated as being as narrow as their prior; see
    :func:`point_log_density`.
    """
    background = module.among_measured(module.background_profile())
    everywhere = torch.ones_like(background, dtype=torch.bool)
    density = softmax_log_density(background, everywhere).sum()
    pyro.sample("background", dist.Delta(background, density, event_dim=2))
    overdispersion = 1 / module.of_measured(module.concentration())
    pyro.sample("overdispersion", dist.Delta(overdispersion, event_dim=2))
    length = module.leakage_range()
    pyro.sample("leakage_range", dist.Delta(length))
    with pyro.plate("cells", module.data.n_train, subsample=minibatch.cells[: minibatch.n_core], dim=-1):
        with scale(scale=kl_weight):
            pyro.sample("latent", module.latent_posterior(minibatch))
        pyro.sample("shares", module.share_posterior(minibatch))
        weights = module.neighbor_weights(minibatch, length)
        density = point_log_density(weights, module.neighbor_prior(minibatch, length))
        pyro.sample("neighbor_weights", dist.Delta(weights, density, event_dim=1))


def _of_all_genes(module: ResolviModule, measured: torch.Tensor) -> torch.Tensor:
    """Return the background profiles that are `measured` among the measured genes; the others are as in the module."""
    if not module.data.unmeasured:
        return measured
    profile = module.background_profile().detach()
    columns = module.is_measured()
    full = profile.clone()
    full[:, columns] = measured * profile[:, columns].sum(dim=1, keepdim=True)
    return full
