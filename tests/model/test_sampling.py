"""Draws: their moments and laws, and that a cell's draws do not depend on the company it is drawn in."""

import numpy as np
import pytest
import torch
from scipy import stats

from resolvi_sd._model import encode
from resolvi_sd._model.posterior import infer
from resolvi_sd._model.sampling import SITES, Sampler, _normal
from resolvi_sd._random import random_elements
from resolvi_sd._tiles import cut_patches
from tests.model._tissues import small_module, small_tissue


def sampler_of(n_samples=3, n_cells=150, seed=1, **config):
    tissue, coordinates = small_tissue(n_cells=n_cells, n_batches=2, n_covariate=3)
    module = small_module(tissue, **config)
    rng = np.random.default_rng(seed)
    return Sampler.create(module, tissue, n_samples=n_samples, rng=rng), coordinates


def test_the_hash_is_splitmix64():
    # The first outputs for seed 0 of the authors' C code, https://prng.di.unimi.it/splitmix64.c.
    expected = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert [int(value) for value in random_elements(np.uint64(0), np.arange(3, dtype=np.uint64))] == expected


def test_noise_is_normal_and_independent():
    noise = _normal(np.uint64(11), np.arange(20_000), 5)
    other = _normal(np.uint64(12), np.arange(20_000), 5)
    assert stats.kstest(noise.ravel(), "norm").pvalue > 1e-3
    columns = np.concatenate([noise, other, np.roll(noise, 1, axis=0)], axis=1)
    correlation = np.corrcoef(columns.T) - np.eye(15)
    # 105 correlations with a standard error of 1 / sqrt(20,000).
    assert np.abs(correlation).max() < 4.5 / np.sqrt(20_000)


def test_latent_draws_have_the_mean_and_spread_of_the_encoder():
    sampler, _ = sampler_of(n_samples=2000)
    cells = np.arange(20)
    latent = sampler.draw(cells, ["latent"])["latent"]
    mean, spread = encode(
        sampler.module, sampler.tissue.counts[cells], sampler.tissue.categories[cells], show_progress_bar=False
    )
    error = (latent.mean(0) - mean) / (spread / np.sqrt(2000))
    assert stats.kstest(error.ravel(), "norm").pvalue > 1e-3
    # The relative standard error of a standard deviation is 1 / sqrt(2 n).
    np.testing.assert_allclose(latent.std(0), spread, rtol=5 / np.sqrt(4000))


@pytest.mark.parametrize("config", [{}, {"likelihood": "poisson"}, {"dispersion": "gene-batch"}])
def test_rates_sum_to_the_library_and_profiles_to_one(config):
    sampler, _ = sampler_of(**config)
    draws = sampler.draw(np.arange(150), list(SITES))
    total = (draws["corrected_rate"] + draws["residual_rate"]).sum(-1)
    np.testing.assert_allclose(total, np.tile(sampler.tissue.molecules, (3, 1)), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(draws["expression"].sum(-1), 1, rtol=1e-5)
    np.testing.assert_allclose(draws["shares"].sum(-1), 1, rtol=1e-5)
    np.testing.assert_allclose(draws["neighbor_weights"].sum(-1), sampler.tissue.mask.any(1), rtol=1e-5)
    scale = sampler.tissue.molecules[:, None] * draws["shares"][:, :, :1]
    np.testing.assert_allclose(draws["corrected_rate"], scale * draws["expression"], rtol=1e-5)
    molecules = [draws[f"{source}_counts"] for source in ("own", "diffused", "background")]
    assert all(part.dtype == np.int32 and (part >= 0).all() for part in molecules)
    np.testing.assert_array_equal(sum(molecules), np.broadcast_to(sampler.tissue.counts.toarray(), molecules[0].shape))
    assert {name: values.ndim for name, values in draws.items()} == {n: len(s.dims) for n, s in SITES.items()}


@pytest.mark.parametrize("config", [{}, {"likelihood": "poisson"}])
def test_own_counts_have_the_expectation_of_the_analytic_pass(config):
    sampler, coordinates = sampler_of(n_samples=400, n_cells=80, **config)
    drawn = sampler.draw(np.arange(80), ["own_counts"])["own_counts"]
    patches = cut_patches(coordinates, sampler.tissue.batch)
    rng = np.random.default_rng(2)
    expected = infer(sampler.module, sampler.tissue, patches, n_samples=400, rng=rng, show_progress_bar=False).own
    kept = (sampler.tissue.counts.toarray() > 0) & (drawn.std(0) > 0.05)
    # The expectation is itself an average over draws of the latent: its variance is at most that of the counts.
    error = (drawn.mean(0) - expected.toarray())[kept] / (drawn.std(0)[kept] * np.sqrt(2 / 400))
    assert kept.sum() > 300
    assert np.abs(error).max() < 5 and abs(error.mean()) < 0.1 and error.std() < 1.05


def test_some_cells_genes_and_draws_are_those_of_all():
    sampler, _ = sampler_of(n_samples=6)
    everything = sampler.draw(np.arange(150), list(SITES))
    cells, genes = np.array([77, 3, 149]), np.array([8, 0])
    some = sampler.draw(cells, list(SITES), genes=genes, samples=slice(2, 5))
    for name, values in some.items():
        site, whole = SITES[name], everything[name]
        whole = whole[2:5][:, cells] if site.is_sampled else whole[cells]
        whole = whole[..., genes] if "gene" in site.dims else whole
        np.testing.assert_allclose(values, whole, rtol=1e-4, atol=1e-6, err_msg=name)
    alone = sampler.draw(cells, ["latent", "expression"])
    np.testing.assert_allclose(alone["expression"], everything["expression"][:, cells], rtol=1e-4, atol=1e-6)
    first = Sampler.create(sampler.module, sampler.tissue, n_samples=2, rng=np.random.default_rng(1))
    np.testing.assert_array_equal(first.seeds, sampler.seeds[:2])


def test_rates_follow_from_the_latent_of_the_same_draw():
    """A neighbor's profile in the residual rate is decoded from that neighbor's own draw."""
    sampler, _ = sampler_of()
    tissue, module = sampler.tissue, sampler.module
    draws = sampler.draw(np.arange(150), list(SITES))
    around = np.einsum("nk,snkg->sng", draws["neighbor_weights"], draws["expression"][:, tissue.neighbor])
    with torch.no_grad():
        background = module.background_profile().numpy()[tissue.batch]
    size, shares = tissue.molecules[:, None], draws["shares"]
    expected = size * (shares[..., 1:2] * around + shares[..., 2:] * background)
    np.testing.assert_allclose(draws["residual_rate"], expected, rtol=1e-3, atol=1e-5)
