"""The posterior: molecules are conserved, patches do not matter, and entries equal a calculation by hand."""

import numpy as np
import pytest
import torch

from resolvi_sd._model import encode, infer
from resolvi_sd._tiles import SparseRows, cut_minibatch, cut_patches, encoder_features
from tests.model._tissues import small_module, small_tissue
from tests.model.test_delaporte import convolution


def pass_over(tissue, coordinates, module, *, patch_size=1000, batch_size=2048, **kwargs):
    patches = cut_patches(coordinates, tissue.batch, patch_size=patch_size)
    rng = np.random.default_rng(5)
    return infer(module, tissue, patches, rng=rng, batch_size=batch_size, show_progress_bar=False, **kwargs)


@pytest.mark.parametrize("config", [{}, {"likelihood": "poisson"}, {"dispersion": "gene-batch"}])
@pytest.mark.parametrize("n_samples", [1, 3])
def test_molecules_are_conserved(config, n_samples):
    tissue, coordinates = small_tissue(n_batches=2, n_covariate=3, sizes=True)
    module = small_module(tissue, **config)
    result = pass_over(tissue, coordinates, module, n_samples=n_samples)
    np.testing.assert_allclose(result.molecules.sum(1), tissue.molecules, rtol=1e-5)
    np.testing.assert_allclose(result.own.sum(1).A1, result.molecules[:, 0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(result.flow.sum(1), result.molecules[:, 1], rtol=1e-4, atol=1e-4)
    assert (result.own.data >= 0).all() and (result.own.data <= tissue.counts.data).all()
    np.testing.assert_array_equal(result.own.indices, tissue.counts.indices)
    assert (result.flow[~tissue.mask] == 0).all() and (result.flow >= 0).all()
    some = tissue.mask.any(1)
    np.testing.assert_allclose(result.weights.sum(1), some, atol=1e-6)
    assert (result.molecules[~some, 1] == 0).all()


@pytest.mark.parametrize("n_samples", [1, 2])
def test_tiled_output_equals_whole_output(n_samples):
    tissue, coordinates = small_tissue(n_cells=300)
    module = small_module(tissue)
    whole = pass_over(tissue, coordinates, module, n_samples=n_samples)
    tiled = pass_over(tissue, coordinates, module, patch_size=10, batch_size=25, n_samples=n_samples)
    for name in ("latent", "molecules", "weights", "flow"):
        np.testing.assert_allclose(getattr(tiled, name), getattr(whole, name), rtol=1e-5, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(tiled.own.toarray(), whole.own.toarray(), rtol=1e-5, atol=1e-5)


def test_integer_draws_do_not_depend_on_the_patches_and_have_the_expectation():
    tissue, coordinates = small_tissue(n_cells=400)
    module = small_module(tissue)
    expected = pass_over(tissue, coordinates, module).own
    drawn = pass_over(tissue, coordinates, module, integer_counts=True).own
    tiled = pass_over(tissue, coordinates, module, integer_counts=True, patch_size=10, batch_size=25).own
    assert (drawn != tiled).nnz == 0
    assert drawn.dtype == np.int32 and (drawn.data > 0).all() and (tissue.counts - drawn).min() >= 0
    # The variance of the sum is below that of independent binomials with the largest count.
    spread = np.sqrt(expected.sum() * tissue.counts.data.max())
    assert abs(drawn.sum() - expected.sum()) < 4 * spread


def test_poisson_molecules_with_a_dispersion_for_each_batch():
    tissue, coordinates = small_tissue(n_batches=2)
    module = small_module(tissue, likelihood="poisson", dispersion="gene-batch")
    expected = pass_over(tissue, coordinates, module).own
    drawn = pass_over(tissue, coordinates, module, integer_counts=True).own
    assert drawn.dtype == np.int32 and (drawn.data > 0).all() and (tissue.counts - drawn).min() >= 0
    assert abs(drawn.sum() - expected.sum()) < 4 * np.sqrt(expected.sum())


@pytest.mark.parametrize("sizes", [False, True])
def test_one_cell_by_hand(sizes):
    """Weights, Delaporte posterior and flow of one cell, written out in float64 loops."""
    tissue, coordinates = small_tissue(n_cells=60, n_covariate=3, sizes=sizes)
    result = pass_over(tissue, coordinates, small_module(tissue))
    n = 17
    with torch.no_grad():
        # The shares are the output of a network, here taken as given: what follows from them is what is checked.
        alpha = small_module(tissue).shares(cut_minibatch(tissue, np.arange(60))).numpy()[n]
        module = small_module(tissue).double()
        features = encoder_features(SparseRows.from_scipy(tissue.counts))
        categories = torch.from_numpy(tissue.categories)
        latent = module.latent_encoder(features, categories)[0]
        rho = module.expression(latent, categories).numpy()
        density = module.density_decoder(latent, categories).numpy() if sizes else None
        background = module.background_profile()[0].numpy()
        r = module.concentration()[0].numpy()
        free = module.neighbor_logits.weight[n].numpy()
        length = module.leakage_range().item() * module.data.neighbor_distance
    beta = np.exp(free - tissue.distance[n] ** 2 / (2 * length**2)) * tissue.mask[n]
    beta /= beta.sum()
    np.testing.assert_allclose(result.weights[n], beta, rtol=1e-4)

    size = tissue.size[n] / np.median(tissue.size) * density[n] if sizes else tissue.molecules[n]
    flow = np.zeros(tissue.n_neighbors)
    row = tissue.counts[n]
    for gene, x in zip(row.indices, row.data, strict=True):
        others = beta * rho[tissue.neighbor[n], gene]
        own, diffused = size * alpha[0] * rho[n, gene], size * alpha[1] * others.sum()
        signal = convolution(int(x), own + diffused, size * alpha[2] * background[gene], r[gene])[1]
        expected = signal * own / (own + diffused)
        assert result.own[n, gene] == pytest.approx(expected, rel=1e-4)
        flow += (signal - expected) * others / others.sum()
    np.testing.assert_allclose(result.flow[n], flow, rtol=1e-3, atol=1e-5)


def test_n_samples_must_be_positive():
    tissue, coordinates = small_tissue()
    with pytest.raises(ValueError, match="n_samples.*at least 1, got 0"):
        pass_over(tissue, coordinates, small_module(tissue), n_samples=0)


def test_probabilities_of_labels_are_averaged_over_the_posterior():
    tissue, coordinates = small_tissue(n_cells=100, n_labels=4)
    module = small_module(tissue, seed=1)
    with torch.no_grad():
        module.latent_encoder.log_variance.bias += 3
        for parameter in module.classifier.parameters():
            parameter *= 4
    found = pass_over(tissue, coordinates, module, n_samples=400).probabilities
    mean, spread = encode(module, tissue.counts, tissue.categories, show_progress_bar=False)
    noise = np.random.default_rng(1).standard_normal((2000, *mean.shape), dtype=np.float32)
    with torch.no_grad():
        expected, at_mean = (
            module.label_likelihood(torch.from_numpy(latent)).probs.numpy().reshape(-1, *found.shape).mean(axis=0)
            for latent in (mean + spread * noise, mean)
        )
    some = tissue.molecules > 0
    np.testing.assert_allclose(found[some], expected[some], atol=0.12)
    assert np.abs(at_mean - expected)[some].max() > 0.3


def test_whole_molecules_vary_as_latent_and_shares_do():
    tissue, coordinates = small_tissue(n_cells=300)
    module = small_module(tissue)
    with torch.no_grad():
        module.latent_encoder.log_variance.bias += 3
        module.share_encoder.log_scale.bias.fill_(1.2)
    patches = cut_patches(coordinates, tissue.batch, patch_size=1000)

    def variance(n_samples):
        own = [
            infer(
                module,
                tissue,
                patches,
                n_samples=n_samples,
                integer_counts=True,
                rng=np.random.default_rng(seed),
                show_progress_bar=False,
            ).own.sum(axis=1)
            for seed in range(40)
        ]
        return np.var(own, axis=0).mean()

    assert variance(2) > 1.5 * variance(1)
