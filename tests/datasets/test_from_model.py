"""Sections drawn from the model: conservation laws, closed forms of the moments and of the posterior, determinism."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import spatialdata as sd
from anndata import AnnData
from scipy.stats import chi2, kstest, nbinom, norm, poisson

from resolvi_sd import ModelConfig
from resolvi_sd._model.delaporte import draw_sources
from resolvi_sd.datasets import simulate_from_model, simulate_tissue
from resolvi_sd.metrics import coverage, rank_uniformity

# Each test below looks at a handful of standard normal (or chi-squared) statistics of one fixed seed; beyond this
# quantile, one in 10,000, something is wrong.
UNLIKELY = 1e-4
SOURCES = ("own", "leaked", "background")


@pytest.fixture(scope="module")
def table() -> AnnData:
    # A gene's concentration is at least 1 / 6 or so for 40 draws of its inverse; few counts keep products normal.
    return simulate_from_model(3000, 40, rng=5).tables["table"]


def _dense(matrix: Any) -> np.ndarray:
    return matrix.toarray().astype(np.float64)


def _rates(table: AnnData) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Expected own, leaked and background molecules, from the truth in the table by the model's equations."""
    profile = table.layers["true_profile"].astype(np.float64)
    amount = table.obs["true_library_size"].to_numpy()[:, None] * table.obsm["true_shares"]
    return (
        amount[:, :1] * profile,
        amount[:, 1:2] * (table.obsp["true_weights"] @ profile),
        amount[:, 2:] * table.varm["true_background"].T,
    )


def _is_standard_normal(z: np.ndarray) -> bool:
    return bool((np.abs(z) < -norm.ppf(UNLIKELY / 2 / z.size)).all())


def test_every_entry_is_own_plus_leaked_plus_background(table: AnnData) -> None:
    parts = [table.layers[f"true_{source}"] for source in SOURCES]
    for matrix in (table.X, *parts):
        assert matrix.format == "csr"
        assert matrix.dtype == np.float32
        assert (matrix.data > 0).all()
        np.testing.assert_array_equal(matrix.data, np.round(matrix.data))
    assert (table.X != sum(parts)).nnz == 0
    total = np.asarray(table.X.sum(axis=1)).ravel()
    for source, part in zip(SOURCES, parts, strict=True):
        share = table.obs[f"true_{source}_share"].to_numpy()
        np.testing.assert_allclose(share * total, np.asarray(part.sum(axis=1)).ravel(), atol=1e-4)


def test_flow_is_between_neighbors_and_accounts_for_all_leaked_molecules(table: AnnData) -> None:
    flow, weights = table.obsp["true_flow"], table.obsp["true_weights"]
    leaked = np.asarray(table.layers["true_leaked"].sum(axis=1))
    np.testing.assert_array_equal(np.asarray(flow.sum(axis=1)), leaked)
    assert flow.diagonal().sum() == 0
    assert (np.diff(weights.indptr) == 10).all()
    assert ((flow > 0).astype(int) - (flow > 0).multiply(weights > 0)).nnz == 0
    np.testing.assert_allclose(np.asarray(weights.sum(axis=1)), 1.0, rtol=1e-5)
    np.testing.assert_allclose(table.layers["true_profile"].sum(axis=1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(table.varm["true_background"].sum(axis=0), 1.0)


def test_moments_of_the_shares_are_those_of_the_dirichlet(table: AnnData) -> None:
    shares = table.obsm["true_shares"]
    np.testing.assert_allclose(shares.sum(axis=1), 1.0)
    config = ModelConfig()
    mean = np.array(config.share_prior)
    variance = mean * (1 - mean) / (config.share_prior_weight + 1)
    assert _is_standard_normal((shares.mean(axis=0) - mean) / np.sqrt(variance / len(shares)))
    # A variance's standard error, from the fourth moment.
    squares = np.square(shares - mean)
    assert _is_standard_normal((squares.mean(axis=0) - variance) / (squares.std(axis=0) / np.sqrt(len(shares))))


@pytest.mark.parametrize("likelihood", ["nb", "poisson"])
def test_moments_of_the_molecules_are_those_of_the_model(likelihood: Any) -> None:
    table = simulate_from_model(3000, 40, likelihood=likelihood, rng=6).tables["table"]
    own, leaked, background = _rates(table)
    over = 1 / table.var["true_dispersion"].to_numpy()
    assert (over > 0).all() if likelihood == "nb" else (over == 0).all()
    for source, rate, extra in zip(SOURCES, (own, leaked, background), (over, over, 0 * over), strict=True):
        deviation = _dense(table.layers[f"true_{source}"]) - rate
        variance = rate + extra * rate**2
        assert _is_standard_normal(deviation.sum(axis=0) / np.sqrt(variance.sum(axis=0))), source
        # Heavy tails of the squares: their standard error from the data itself, over all genes.
        ratio = np.square(deviation) / variance
        assert _is_standard_normal(np.array([(ratio.mean() - 1) / (ratio.std() / np.sqrt(ratio.size))])), source
    # One Gamma multiplies own and leaked molecules, so they go together: covariance over * own * leaked.
    product = (_dense(table.layers["true_own"]) - own) * (_dense(table.layers["true_leaked"]) - leaked)
    product /= np.sqrt((own + over * own**2) * (leaked + over * leaked**2))
    expected = over * own * leaked / np.sqrt((own + over * own**2) * (leaked + over * leaked**2))
    excess = product - expected
    assert _is_standard_normal(np.array([excess.mean() / (excess.std() / np.sqrt(excess.size))]))


def test_own_molecules_follow_their_exact_posterior_given_the_counts(table: AnnData) -> None:
    own, leaked, background = _rates(table)
    row, gene = table.X.nonzero()
    rng = np.random.default_rng(0)
    some = rng.choice(len(row), 4000, replace=False)
    row, gene = row[some], gene[some]
    r = table.var["true_dispersion"].to_numpy()[gene]
    x = _dense(table.X)[row, gene].astype(int)
    mu, lam = (own + leaked)[row, gene], background[row, gene]
    chance = own[row, gene] / mu
    deviation, variance = np.empty(len(x)), np.empty(len(x))
    for i in range(len(x)):
        # Sum over k of the molecules that are no background; the own ones are Binomial(k, chance).
        k = np.arange(x[i] + 1)
        weight = nbinom.pmf(k, r[i], r[i] / (r[i] + mu[i])) * poisson.pmf(x[i] - k, lam[i])
        weight /= weight.sum()
        mean = chance[i] * (weight @ k)
        second = weight @ (k * chance[i] * (1 - chance[i]) + (k * chance[i]) ** 2)
        deviation[i], variance[i] = table.layers["true_own"][row[i], gene[i]] - mean, second - mean**2
    assert _is_standard_normal(np.array([deviation.sum() / np.sqrt(variance.sum())]))
    squares = np.square(deviation) - variance
    assert _is_standard_normal(np.array([squares.mean() / (squares.std() / np.sqrt(len(squares)))]))


def test_draws_of_own_molecules_at_the_true_rates_are_calibrated(table: AnnData) -> None:
    rates = _rates(table)
    row, gene = table.X.nonzero()
    counts = np.asarray(table.X[row, gene]).ravel()
    r = table.var["true_dispersion"].to_numpy()[gene]
    entries = [rate[row, gene].astype(np.float32) for rate in rates]
    rng = np.random.default_rng(0)
    draws = np.stack(
        [draw_sources(counts, *entries, r, rng.integers(0, 2**63, len(r), dtype=np.uint64))[0] for _ in range(39)]
    )
    truth = _dense(table.layers["true_own"])[row, gene]
    found = coverage(draws, truth, levels=[0.5, 0.8])
    assert _is_standard_normal(((found["coverage"] - found["level"]) / found["standard_error"]).to_numpy())
    ranks = rank_uniformity(draws, truth, n_bins=10)
    assert ranks.p_value > UNLIKELY


def test_flow_goes_in_proportion_to_weight_and_expression(table: AnnData) -> None:
    own, leaked, _ = _rates(table)
    profile, weights = table.layers["true_profile"].astype(np.float64), table.obsp["true_weights"].tocsr()
    molecules = _dense(table.layers["true_leaked"])
    # Given what a cell received of each gene, the number from its first listed neighbor is a sum of binomials.
    first = weights.indices[weights.indptr[:-1]]
    received = weights @ profile
    chance = weights.data[weights.indptr[:-1], None].astype(np.float64) * profile[first] / received
    observed = np.asarray(table.obsp["true_flow"][np.arange(table.n_obs), first]).ravel()
    mean, variance = (molecules * chance).sum(axis=1), (molecules * chance * (1 - chance)).sum(axis=1)
    assert _is_standard_normal(np.array([(observed - mean).sum() / np.sqrt(variance.sum())]))
    informative = variance > 1
    z2 = np.square(observed - mean)[informative] / variance[informative]
    assert UNLIKELY < chi2.sf(z2.sum(), len(z2)) < 1 - UNLIKELY


def test_near_neighbors_weigh_by_the_kernel() -> None:
    table = simulate_from_model(2000, 5, leakage_range=0.7, rng=1).tables["table"]
    weights = table.obsp["true_weights"].tocoo()
    position = table.obsm["spatial"]
    distance = np.linalg.norm(position[weights.row] - position[weights.col], axis=1)
    kernel = np.exp(-0.5 * np.square(distance / (0.7 * np.median(distance))))
    share = kernel / np.bincount(weights.row, weights=kernel)[weights.row]
    concentration = ModelConfig().neighbor_prior_weight * share + 0.01
    total = np.bincount(weights.row, weights=concentration)[weights.row]
    mean = concentration / total
    z = (weights.data - mean) / np.sqrt(mean * (1 - mean) / (total + 1))
    near = mean > 0.1
    assert abs(z[near].mean()) < 0.05
    assert z[near].std() == pytest.approx(1.0, abs=0.05)


def test_latents_lie_around_their_components(table: AnnData) -> None:
    latent = table.obsm["true_latent"].astype(np.float64)
    codes = table.obs["cell_type"].cat.codes.to_numpy()
    means = np.stack([latent[codes == code].mean(axis=0) for code in range(codes.max() + 1)])
    residual = (latent - means[codes]) / np.exp(-1)
    assert len(means) == 8
    assert kstest(residual[:, 0], "norm").pvalue > UNLIKELY
    assert residual.std() == pytest.approx(1.0, abs=0.02)


def test_depth_is_what_was_asked_for() -> None:
    size = simulate_from_model(4000, 5, counts=60, depth_sd=0.3, rng=0).tables["table"].obs["true_library_size"]
    assert np.median(size) == pytest.approx(60, rel=0.03)
    assert np.log(size).std() == pytest.approx(0.3, rel=0.05)


def test_equal_seeds_give_equal_sections_and_others_do_not() -> None:
    tables = [simulate_from_model(60, 7, rng=seed).tables["table"] for seed in (3, np.random.default_rng(3), 4)]
    np.testing.assert_array_equal(_dense(tables[0].X), _dense(tables[1].X))
    np.testing.assert_array_equal(tables[0].obsm["true_shares"], tables[1].obsm["true_shares"])
    assert (tables[0].X != tables[2].X).nnz > 0


def test_settings_of_the_model_are_followed() -> None:
    config = ModelConfig(share_prior=(0.2, 0.2, 0.6), share_prior_weight=500.0, n_components=3, n_latent=4)
    table = simulate_from_model(300, 20, n_neighbors=4, config=config, rng=0).tables["table"]
    np.testing.assert_allclose(table.obsm["true_shares"].mean(axis=0), [0.2, 0.2, 0.6], atol=0.01)
    assert table.obsm["true_latent"].shape == (300, 4)
    assert table.varm["true_type_profiles"].shape == (20, 3)
    assert (np.diff(table.obsp["true_weights"].indptr) == 4).all()
    assert table.uns["simulation"]["config"]["share_prior_weight"] == 500


def test_few_cells_have_fewer_neighbors() -> None:
    table = simulate_from_model(4, 6, n_neighbors=10, rng=0).tables["table"]
    np.testing.assert_array_equal(np.diff(table.obsp["true_weights"].indptr), 3)


def test_truth_is_laid_out_as_in_a_simulated_tissue(table: AnnData) -> None:
    tissue = simulate_tissue(50, 10, transcripts=False, rng=0).tables["table"]
    assert set(tissue.layers) == set(table.layers)
    assert set(tissue.obsp) <= set(table.obsp)
    assert set(tissue.varm) == set(table.varm)
    shared = {"cell_id", "region", "cell_type", *(f"true_{source}_share" for source in SOURCES)}
    assert shared <= set(tissue.obs) & set(table.obs)


def test_survives_a_store(tmp_path: Any) -> None:
    sdata = simulate_from_model(40, 6, likelihood="poisson", rng=0)
    sdata.write(tmp_path / "section.zarr")
    back = sd.read_zarr(tmp_path / "section.zarr")
    assert len(back.shapes["cells"]) == 40
    np.testing.assert_array_equal(_dense(back.tables["table"].X), _dense(sdata.tables["table"].X))
    assert back.tables["table"].uns["simulation"]["config"]["likelihood"] == "poisson"


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="`n_cells` must be at least 2, not 1"):
        simulate_from_model(1)
    with pytest.raises(TypeError, match=r"`n_genes` must be an integer, not 5\.0"):
        simulate_from_model(10, 5.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`n_neighbors`"):
        simulate_from_model(10, 5, n_neighbors=0)
    with pytest.raises(ValueError, match="`counts` must be positive and finite, not -3"):
        simulate_from_model(10, 5, counts=-3)
    with pytest.raises(TypeError, match="`leakage_range` must be a number, not 'far'"):
        simulate_from_model(10, 5, leakage_range="far")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`likelihood` must be 'nb' or 'poisson'"):
        simulate_from_model(10, 5, likelihood="zinb")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"Give 'n_latent' inside `config=ModelConfig"):
        simulate_from_model(10, 5, n_latent=3, config=ModelConfig())


def test_components_are_named_in_the_order_of_their_profiles() -> None:
    table = simulate_from_model(200, 15, config=ModelConfig(n_components=12), rng=0).tables["table"]
    assert list(table.obs["cell_type"].cat.categories) == [f"component_{i}" for i in range(12)]
    assert table.varm["true_type_profiles"].shape == (15, 12)


def test_profiles_that_hardly_overlap_can_be_drawn() -> None:
    table = simulate_from_model(200, 15, contrast=300.0, rng=0).tables["table"]
    assert np.isfinite(table.X.data).all()
