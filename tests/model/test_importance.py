"""Importance weights, against integrals over a latent of one dimension."""

import numpy as np
import pytest
import torch
from scipy.stats import nbinom, norm, poisson

from resolvi_sd._model import ModelConfig, ResolviModule, decode, encode
from resolvi_sd._model.importance import weigh_draws, weighted_expression, weighted_own
from resolvi_sd._model.sampling import Sampler
from resolvi_sd._tiles import cut_minibatch
from tests.model._tissues import small_module, small_tissue

CELLS = np.array([3, 57, 20, 99])
GRID = np.linspace(-9, 9, 601)


def one_dimensional(tissue, **config):
    """A module with random parameters and a latent of one dimension."""
    config = ModelConfig(n_latent=1, n_hidden=8, n_hidden_encoder=12, n_components=3, **config)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = ResolviModule(config, small_module(tissue).data)
        for parameter in (module.background_logits, module.log_concentration, module.neighbor_logits.weight):
            torch.nn.init.normal_(parameter, std=0.5)
        torch.nn.init.normal_(module.share_encoder.loc.weight, std=0.3)
    return module.eval()


def sources(module, tissue, latent):
    """Rates of the chosen cells at points of the latent: own, diffused, background, and rho; cells × points × genes."""
    mean, _ = encode(module, tissue.counts, tissue.categories, show_progress_bar=False)
    profile = decode(module, mean, tissue.categories, slice(None))
    minibatch = cut_minibatch(tissue, CELLS)
    with torch.no_grad():
        shares = module.shares(minibatch).numpy()
        beta = module.neighbor_weights(minibatch, module.leakage_range()).numpy()
        background = module.background_profile().numpy()
    rates = []
    for i, cell in enumerate(CELLS):
        around = sum(
            beta[i, m] * profile[neighbor] for m, neighbor in enumerate(tissue.neighbor[cell]) if tissue.mask[cell, m]
        )
        categories = np.repeat(tissue.categories[[cell]], len(latent), axis=0)
        own = decode(module, latent[:, None].astype(np.float32), categories, slice(None))
        size = tissue.molecules[cell] * shares[i]
        rates.append(
            (size[0] * own, size[1] * around + 0 * own, size[2] * background[tissue.batch[cell]] + 0 * own, own)
        )
    return rates


def exact(module, tissue):
    """Expectations of the expression and of the own molecules of every gene, by sums over k and over the grid."""
    with torch.no_grad():
        r = module.concentration()[0].numpy().astype(float)
        weight = torch.softmax(module.component_logits, -1).numpy()
        center = module.component_means[:, 0].numpy()
        width = np.exp(module.component_log_scales[:, 0].numpy()) + 1e-4
    prior = (weight * norm.pdf(GRID[:, None], center, width)).sum(1)
    expression, own = [], []
    for cell, (mine, theirs, background, profile) in zip(CELLS, sources(module, tissue, GRID), strict=True):
        log_p, signal = np.zeros(len(GRID)), np.zeros(mine.shape)
        for gene, x in enumerate(tissue.counts[cell].toarray().ravel().astype(int)):
            mu, k = (mine + theirs)[:, [gene]].astype(float), np.arange(x + 1)
            terms = nbinom.pmf(k, r[gene], r[gene] / (r[gene] + mu)) * poisson.pmf(x - k, background[:, [gene]])
            log_p += np.log(terms.sum(1))
            signal[:, gene] = (terms * k).sum(1) / terms.sum(1)
        posterior = prior * np.exp(log_p - log_p.max())
        posterior /= posterior.sum()
        expression.append(posterior @ profile)
        own.append(posterior @ (signal * mine / (mine + theirs)))
    return np.array(expression), np.array(own)


@pytest.fixture(scope="module")
def fitted():
    tissue, _ = small_tissue(n_batches=2)
    return one_dimensional(tissue), tissue


def test_weighted_means_are_the_integrals_over_the_posterior(fitted):
    module, tissue = fitted
    sampler = Sampler.create(module, tissue, n_samples=1500, rng=np.random.default_rng(0))
    draws = weigh_draws(sampler, CELLS)
    assert draws.weights.shape == (1500, 4)
    np.testing.assert_allclose(draws.weights.sum(0), 1, rtol=1e-5)
    settings = [tissue.categories[CELLS]]
    expression, own = exact(module, tissue)
    found = weighted_expression(module, draws, settings, slice(None))
    plain = np.mean([decode(module, latent, settings[0], slice(None)) for latent in draws.latent], axis=0)
    error, error_of_plain = (np.abs(value - expression).sum(1).max() for value in (found, plain))
    assert error < 0.02 < 0.05 < error_of_plain
    of_counts = own[tissue.counts[CELLS].toarray() > 0]
    np.testing.assert_allclose(weighted_own(sampler, draws), of_counts, atol=0.02 * of_counts.max())


def test_equal_weights_are_all_effective_and_one_alone_is_one(fitted):
    module, tissue = fitted
    sampler = Sampler.create(module, tissue, n_samples=1, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(weigh_draws(sampler, CELLS).effective(), 1)
    many = Sampler.create(module, tissue, n_samples=50, rng=np.random.default_rng(0))
    effective = weigh_draws(many, CELLS).effective()
    assert (effective > 1).all() and (effective < 50).all()


def test_a_cell_is_weighed_the_same_whichever_cells_are_weighed_with_it(fitted):
    module, tissue = fitted
    sampler = Sampler.create(module, tissue, n_samples=20, rng=np.random.default_rng(0))
    together = weigh_draws(sampler, CELLS)
    alone = weigh_draws(sampler, CELLS[[2]])
    np.testing.assert_allclose(alone.weights[:, 0], together.weights[:, 2], rtol=1e-3, atol=1e-6)


def test_with_the_poisson_likelihood_own_molecules_are_in_proportion_to_the_rates():
    tissue, _ = small_tissue()
    module = one_dimensional(tissue, likelihood="poisson")
    sampler = Sampler.create(module, tissue, n_samples=1, rng=np.random.default_rng(0))
    draws = weigh_draws(sampler, CELLS)
    counts = tissue.counts[CELLS].toarray()
    expected = []
    for i, z in enumerate(draws.latent[0, :, 0]):
        mine, theirs, background, _ = (part[0] for part in sources(module, tissue, np.array([z]))[i])
        expected.append(counts[i] * mine / (mine + theirs + background))
    np.testing.assert_allclose(weighted_own(sampler, draws), np.array(expected)[counts > 0], rtol=1e-4)
