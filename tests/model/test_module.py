"""Parts of the model against what its settings say, computed again without it."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from scipy import stats

from resolvi_sd._model import decode, encode
from resolvi_sd._model.elbo import negative_elbo
from resolvi_sd._model.entry_sources import entry_sources
from resolvi_sd._model.extension import extend_module
from resolvi_sd._model.importance import WeightedDraws, weighted_expression
from resolvi_sd._model.module import Rates, ResolviModule
from resolvi_sd._tiles import SparseRows, cut_minibatch
from tests.model._tissues import small_module, small_tissue


def test_priors_are_what_the_settings_say():
    tissue, _ = small_tissue(n_batches=2, n_labels=4)
    module = small_module(tissue, background_prior_weight=3.0, label_prior_logit=5.0)
    minibatch = cut_minibatch(tissue, np.arange(40))
    with torch.no_grad():
        profile = module.background_profile()
        expected = sum(stats.dirichlet.logpdf(p / p.sum(), np.full(len(p), 3.0)) for p in profile.double().numpy())
        assert module.background_prior().log_prob(profile).item() == pytest.approx(expected, rel=1e-4)
        length = module.leakage_range()
        expected = stats.lognorm.logpdf(length.item(), 1.0)
        assert module.range_prior().log_prob(length).item() == pytest.approx(expected, rel=1e-4)

        latent, label = torch.randn(40, 3), minibatch.label.numpy()
        logits, known = np.tile(module.component_logits.double().numpy(), (40, 1)), label >= 0
        logits[known, label[known]] += 5
        weight = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        scale = np.exp(module.component_log_scales.numpy()) + 1e-4
        density = stats.norm.pdf(latent.numpy()[:, None], module.component_means.numpy(), scale).prod(axis=2)
        found = module.latent_prior(minibatch).log_prob(latent)
        np.testing.assert_allclose(found, np.log((weight * density).sum(axis=1)), rtol=1e-3)


def test_the_prior_of_the_shares_depends_on_the_setting_of_a_cell():
    tissue, _ = small_tissue(n_batches=2)
    module = small_module(tissue, share_prior_weight=7.0)
    core = np.arange(40)
    minibatch = cut_minibatch(tissue, core)
    with torch.no_grad():
        first, second = module.share_mean(torch.arange(2)).double().numpy()
        typical = np.where(tissue.batch[core, None] == 0, first, second)
        assert abs(first - second).max() > 0.01
        module.share_prior_slopes.zero_()
        np.testing.assert_allclose(module.shares_prior(minibatch).mean, typical, rtol=1e-5)
        module.share_prior_slopes.copy_(torch.tensor([[-1.0, -0.5], [0.4, 0.0], [0.3, 0.2], [-0.2, 0.1]]))
    mask, relative = tissue.mask[core], tissue.distance[core] / module.data.neighbor_distance
    depth = np.log1p(tissue.molecules.astype(np.float64)) - np.log1p(module.data.depth)
    kernel = np.exp(-0.5 * relative**2) * mask
    around = (kernel * depth[tissue.neighbor[core]]).sum(axis=1) / kernel.sum(axis=1)
    mean, nearest = np.average(relative, axis=1, weights=mask), np.where(mask, relative, 3).min(axis=1).clip(max=3)
    setting = np.column_stack([depth[core], around, mean - 1, nearest - 1])
    odds = np.exp(setting @ module.share_prior_slopes.detach().numpy()) * typical[:, 1:] / typical[:, :1]
    expected = np.column_stack([np.ones(40), odds]) / (1 + odds.sum(axis=1, keepdims=True))
    with torch.no_grad():
        np.testing.assert_allclose(module.shares_prior(minibatch).concentration, 7 * expected, rtol=1e-4)


def test_profiles_of_the_halo_are_those_of_its_own_categories():
    tissue, _ = small_tissue(n_batches=2, n_covariate=3)
    module = small_module(tissue, encode_covariates=True)
    minibatch = cut_minibatch(tissue, np.arange(20))
    halo = minibatch.cells[minibatch.n_core :].numpy()
    mean, _ = encode(module, tissue.counts, tissue.categories, show_progress_bar=False)
    expected = decode(module, mean[halo], tissue.categories[halo], slice(None))
    np.testing.assert_allclose(module.halo_expression(minibatch), expected, rtol=1e-4)


def test_profiles_of_the_halo_have_no_dropout():
    tissue, _ = small_tissue()
    module = small_module(tissue, dropout_rate=0.5)
    minibatch = cut_minibatch(tissue, np.arange(20))
    expected = module.eval().halo_expression(minibatch)
    torch.testing.assert_close(module.train().halo_expression(minibatch), expected)


def test_a_cell_without_neighbors_has_no_diffusion():
    tissue, _ = small_tissue()
    tissue.mask[7] = False
    module = small_module(tissue)
    with torch.no_grad():
        shares = module.shares(cut_minibatch(tissue, np.arange(40)))[7]
    assert shares[1] == 0 and shares.sum().item() == pytest.approx(1)


def test_shares_depend_on_the_depth_of_the_neighbors():
    tissue, _ = small_tissue(n_cells=300)
    module = small_module(tissue)
    minibatch = cut_minibatch(tissue, np.arange(280))
    deeper = minibatch.molecules.clone()
    deeper[minibatch.n_core :] *= 10
    with torch.no_grad():
        before, after = (module.shares(m) for m in (minibatch, replace(minibatch, molecules=deeper)))
    in_halo = ((minibatch.neighbor >= minibatch.n_core) & minibatch.mask).any(dim=1)
    assert in_halo.any() and not in_halo.all()
    assert torch.equal((after - before).abs().amax(dim=1) > 1e-6, in_halo)


@pytest.mark.parametrize("encode_covariates", [False, True])
def test_the_latent_encoder_sees_batches_only_if_asked(encode_covariates):
    tissue, _ = small_tissue(n_batches=2)
    module = small_module(tissue, encode_covariates=encode_covariates)
    minibatch = cut_minibatch(tissue, np.arange(30))
    other = minibatch.categories.clone()
    other[:, 0] = 1 - other[:, 0]
    with torch.no_grad():
        first, second = (module.latent_encoder(minibatch.features, c)[0] for c in (minibatch.categories, other))
    assert torch.equal(first, second) != encode_covariates


def test_expression_is_averaged_over_batches():
    tissue, _ = small_tissue(n_batches=2)
    module = small_module(tissue)
    latent = np.random.default_rng(0).normal(size=(3, 5, 3)).astype(np.float32)
    draws = WeightedDraws(np.arange(5), latent, np.full((3, 5), 1 / 3, np.float32))
    batches = [np.stack([np.full(5, batch), tissue.categories[:5, 1]], axis=1) for batch in (0, 1)]
    single = [weighted_expression(module, draws, [batch], slice(None)) for batch in batches]
    found = weighted_expression(module, draws, batches, slice(None))
    np.testing.assert_allclose(found, np.mean(single, axis=0), rtol=1e-4)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)


def test_new_batches_start_at_the_mean_of_the_known_ones():
    tissue, _ = small_tissue(n_batches=2)
    reference = small_module(tissue)
    profile = reference.data.gene_profile
    module = extend_module(
        reference, replace(reference.data, n_batches=3, gene_profile=torch.cat([profile, profile[:1]]))
    )
    for name, old in reference.state_dict().items():
        new = module.state_dict()[name]
        if new.shape != old.shape and name != "neighbor_logits.weight":
            torch.testing.assert_close(new[: len(old)], old, msg=name)
            torch.testing.assert_close(new[len(old) :], old.mean(dim=0, keepdim=True), msg=name)
    module.background_logits.square().sum().backward()
    gradient = module.background_logits.grad
    assert (gradient[:2] == 0).all() and (gradient[2] != 0).any()


@pytest.mark.parametrize("sizes", [False, True])
@pytest.mark.parametrize("likelihood", ["nb", "poisson"])
def test_genes_that_a_query_lacks_have_no_part_in_its_likelihood(likelihood, sizes):
    """As if they were no columns; the sources are in the ratio of their shares and profiles in the others."""
    missing = (1, 4, 11)
    tissue, _ = small_tissue(missing=missing, sizes=sizes)
    module = small_module(tissue, likelihood=likelihood)
    module.data = replace(module.data, unmeasured=missing)
    measured = np.setdiff1d(np.arange(tissue.n_genes), missing)
    minibatch = cut_minibatch(tissue, np.arange(1, 60))
    latent, _ = module.encode_all(minibatch)
    profiles, weights = module.expression(latent, minibatch.categories), module.neighbor_weights(minibatch)
    background, shares = module.background_profile(), module.shares(minibatch)
    amount = module.amount(minibatch, latent, shares)
    rates = module.rates(minibatch, profiles, amount, weights, background)

    around = module.neighbor_expression(minibatch, profiles, weights)
    expected = [
        share[:, None] * profile[:, measured]
        for share, profile in zip(amount.T, (profiles[:59], around, background[minibatch.core_batch]), strict=True)
    ]
    scale = 1.0
    if not sizes:
        scale = minibatch.molecules[:59] / sum(expected).sum(dim=1)
        scale = scale[:, None]
    for found, wanted in zip((rates.own, rates.diffused, rates.background), expected, strict=True):
        assert (found[:, list(missing)] == 0).all()
        torch.testing.assert_close(found[:, measured], scale * wanted)
    torch.testing.assert_close(rates.amount, scale * amount)

    data = replace(
        module.data, n_genes=len(measured), unmeasured=(), gene_profile=module.data.gene_profile[:, measured]
    )
    without = ResolviModule(module.config, data)
    without.log_concentration.data = module.log_concentration.data[:, measured]
    counts = SparseRows.from_scipy(sp.csr_matrix(tissue.counts[1:60][:, measured]))
    columns = Rates(*(part[:, measured] for part in (rates.own, rates.diffused, rates.background)), rates.amount)
    batch = minibatch.core_batch
    torch.testing.assert_close(
        module.log_likelihood(minibatch.counts, rates, batch), without.log_likelihood(counts, columns, batch)
    )


def test_the_part_of_profiles_that_is_not_measured_is_not_learned_from_a_query():
    missing = (1, 4, 11)
    tissue, _ = small_tissue(missing=missing)
    module = small_module(tissue)
    module.data = replace(module.data, unmeasured=missing)
    minibatch = cut_minibatch(tissue, np.arange(1, 60))
    profile = torch.rand(59, tissue.n_genes, requires_grad=True)
    rates = module.rates_of(minibatch.molecules[:59, None] * torch.tensor([0.7, 0.2, 0.1]), *[profile] * 3)
    module.log_likelihood(minibatch.counts, rates, minibatch.core_batch).sum().backward()
    assert (profile.grad[:, list(missing)] == 0).all()
    # Scaling the measured part changes nothing.
    torch.testing.assert_close((profile.grad * profile.detach()).sum(dim=1), torch.zeros(59), rtol=0, atol=1e-3)


def test_what_a_query_lacks_is_not_learned_from_it():
    """Neither by the likelihood nor by the priors: Adam makes steps of full size, however small a gradient is."""
    missing = [1, 4, 11]
    tissue, _ = small_tissue(missing=missing)
    module = small_module(tissue)
    module.data = replace(module.data, unmeasured=tuple(missing))
    loss, _ = negative_elbo(module, cut_minibatch(tissue, np.arange(1, 60)))
    loss.backward()
    for parameter in (module.background_logits, module.log_concentration):
        assert parameter.grad[:, missing].abs().max() < 1e-9 and parameter.grad.abs().max() > 1e-3
    # Nor how much of the background is in the measured genes.
    torch.testing.assert_close(module.background_logits.grad.sum(dim=1), torch.zeros(1), rtol=0, atol=1e-4)


def test_sources_of_molecules_in_genes_that_a_query_lacks():
    """A transcript of such a gene comes from where shares and profiles say; of other genes, from where counts do."""
    missing = (1, 4, 11)
    tissue, _ = small_tissue(missing=missing)
    module = small_module(tissue, likelihood="poisson")
    module.data = replace(module.data, unmeasured=missing)
    cells = np.arange(1, 30)
    rows, genes = np.repeat(cells, 2), np.tile([4, 5], len(cells))
    with torch.no_grad():
        minibatch = cut_minibatch(tissue, cells)
        latent, _ = module.encode_all(minibatch)
        profiles, weights = module.expression(latent, minibatch.categories), module.neighbor_weights(minibatch)
        shares = module.shares(minibatch)
        around = module.neighbor_expression(minibatch, profiles, weights)
        background = module.background_profile()[minibatch.core_batch]
        expected = torch.stack([shares.T[i][:, None] * p for i, p in enumerate((profiles[:29], around, background))])
        expected = (expected / expected.sum(dim=0))[:, :, [4, 5]].reshape(3, -1).T.numpy()
    found = entry_sources(module, tissue, rows, genes)
    by_source = np.stack([found[:, 0], found[:, 1:-1].sum(axis=1), found[:, -1]], axis=1)
    np.testing.assert_allclose(by_source, expected, rtol=1e-4)
