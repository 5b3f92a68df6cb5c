"""Further covariates, and physical sizes in place of the observed molecules."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.neighbors import NearestNeighbors

import resolvi_sd as rsd
from resolvi_sd import ModelConfig, ResolVI

QUIET = {"show_progress_bar": False}


@pytest.fixture
def two_chemistries():
    """Cells of two chemistries side by side: in the second, a third of the genes is caught three times as often."""
    table = rsd.datasets.simulate_tissue(n_cells=600, n_genes=60, n_types=4, rng=0, transcripts=False).tables["table"]
    rng = np.random.default_rng(0)
    chemistry = rng.integers(0, 2, table.n_obs)
    factor = np.where(np.arange(60) % 3 == 0, 3.0, 1.0) ** chemistry[:, None]
    extra = rng.poisson(table.X.toarray() * (factor - 1))
    table.X = sp.csr_matrix(table.X + extra)
    table.obs["chemistry"] = np.array(["v1", "v2/beta"])[chemistry]
    return table


def mixing(table):
    """How often the nearest cells in the latent are of the other chemistry: half of the time if it says nothing."""
    nearest = NearestNeighbors(n_neighbors=11).fit(table.obsm["X_resolvi"]).kneighbors(return_distance=False)[:, 1:]
    chemistry = table.obs["chemistry"].to_numpy()
    return (chemistry[nearest] != chemistry[:, None]).mean()


@pytest.mark.filterwarnings("ignore:The counts in `table.X` do not seem to be those of the fit")  # other covariates
@pytest.mark.filterwarnings("ignore:The columns 'chemistry' of `obs` are not those of the fit")
@pytest.mark.parametrize("config", [ModelConfig(), ModelConfig(encode_covariates=True)])
def test_the_decoder_takes_the_effect_of_a_covariate_over(two_chemistries, config):
    settings = dict(n_neighbors=5, max_epochs=30, config=config, **QUIET)
    plain = two_chemistries.copy()
    rsd.tl.fit(plain, **settings)
    rsd.tl.fit(two_chemistries, categorical_covariate_keys=["chemistry"], **settings)
    assert mixing(two_chemistries) > mixing(plain) + 0.1

    # Seen through the decoder of each chemistry, the third of genes is larger in the second.
    model = ResolVI.from_table(two_chemistries)
    expression = {}
    for name in ("v1", "v2/beta"):
        other = two_chemistries.copy()
        other.obs["chemistry"] = name
        rsd.tl.normalized_expression(other, **QUIET)
        expression[name] = other.layers["resolvi_expression"][:, ::3].sum(1)
    assert (expression["v2/beta"] > 1.3 * expression["v1"]).mean() > 0.9
    assert model.fitted.covariates == (("v1", "v2/beta"),)


def test_covariates_survive_a_store_and_meet_new_categories(two_chemistries, tmp_path):
    rsd.tl.fit(two_chemistries, categorical_covariate_keys=["chemistry"], max_epochs=2, **QUIET)
    two_chemistries.write_h5ad(tmp_path / "fitted.h5ad")
    stored = ad.read_h5ad(tmp_path / "fitted.h5ad")
    latent = rsd.tl.latent(stored, copy=True, **QUIET)
    np.testing.assert_allclose(latent, two_chemistries.obsm["X_resolvi"], atol=1e-5)
    query = two_chemistries.copy()
    query.obs["chemistry"] = np.where(query.obs["chemistry"] == "v1", "v1", "v3")
    rsd.tl.map_query(query, stored, **QUIET)
    assert query.uns["resolvi"]["covariates"]["0"].tolist() == ["v1", "v2/beta", "v3"]


@pytest.fixture
def sized():
    """One type of cell, whose molecules are Poisson around 0.5 per square micrometre; sizes differ a lot."""
    rng = np.random.default_rng(0)
    area = rng.lognormal(5.0, 0.6, 800)
    profile = rng.dirichlet(np.ones(30))
    counts = rng.poisson(0.5 * area[:, None] * profile)
    table = ad.AnnData(sp.csr_matrix(counts.astype(np.float32)), obsm={"spatial": rng.uniform(0, 500, (800, 2))})
    table.obs["area"] = area
    return table


def expected_molecules(table):
    """Own, diffused and background molecules that the model expects of each cell."""
    draws = rsd.tl.sample_posterior(table, sites=["corrected_rate", "residual_rate"], n_samples=1, **QUIET)
    return (draws["corrected_rate"] + draws["residual_rate"]).sum("gene").values[0]


def test_the_density_of_molecules_is_learned(sized):
    rsd.tl.fit(sized, size_factor_key="area", max_epochs=60, **QUIET)
    expected, area = expected_molecules(sized), sized.obs["area"].to_numpy()
    assert np.median(expected / (0.5 * area)) == pytest.approx(1, abs=0.05)
    # Poisson noise of a cell's total is no longer in what is expected of it.
    total = np.asarray(sized.X.sum(axis=1)).ravel()
    assert np.std(np.log(expected / area)) < 0.5 * np.std(np.log(total / area))
    np.testing.assert_allclose(sized.obs[["resolvi_true", "resolvi_diffusion", "resolvi_background"]].sum(axis=1), 1)
    assert (sized.X - sized.layers["resolvi_counts"]).min() >= -1e-4


def test_units_of_the_size_do_not_matter(sized):
    in_pixels = sized.copy()
    in_pixels.obs["area"] *= 16
    for table in (sized, in_pixels):
        rsd.tl.fit(table, size_factor_key="area", max_epochs=2, **QUIET)
    np.testing.assert_allclose(in_pixels.obsm["X_resolvi"], sized.obsm["X_resolvi"], atol=1e-3)


def test_without_a_size_factor_the_observed_molecules_are_expected(sized):
    rsd.tl.fit(sized, max_epochs=2, **QUIET)
    np.testing.assert_allclose(expected_molecules(sized), np.asarray(sized.X.sum(axis=1)).ravel(), rtol=1e-4)


@pytest.mark.parametrize("n_samples", [1, 3])
def test_expression_per_size(sized, n_samples):
    """Own molecules of a cell, over its size; by the function and by the object, in every shape."""
    rsd.tl.fit(sized, size_factor_key="area", max_epochs=2, **QUIET)
    settings = {"library_size": "latent", "size_scaling": True, "n_samples": n_samples}
    rsd.tl.normalized_expression(sized, **settings, **QUIET)
    own = np.asarray(sized.layers["resolvi_counts"].sum(axis=1)).ravel()
    relative = sized.obs["area"].to_numpy() / np.median(sized.obs["area"])
    np.testing.assert_allclose(sized.layers["resolvi_expression"].sum(axis=1), own / relative, rtol=1e-3)
    model = ResolVI.from_table(sized)
    by_object = model.get_normalized_expression(**settings)
    np.testing.assert_allclose(by_object, sized.layers["resolvi_expression"], rtol=1e-3, atol=1e-6)
    genes = list(sized.var_names[[3, 1]])
    some = model.get_normalized_expression(gene_list=genes, return_mean=False, **settings)
    assert np.shape(some) == ((800, 2) if n_samples == 1 else (3, 800, 2))


def test_expression_per_size_needs_sizes_and_a_latent_library(sized):
    rsd.tl.fit(sized, max_epochs=1, **QUIET)
    with pytest.raises(ValueError, match="`size_factor_key=` to the fit"):
        rsd.tl.normalized_expression(sized, library_size="latent", size_scaling=True, **QUIET)
    rsd.tl.fit(sized, size_factor_key="area", max_epochs=1, **QUIET)
    with pytest.raises(ValueError, match="needs `library_size='latent'`"):
        rsd.tl.normalized_expression(sized, size_scaling=True, **QUIET)
    with pytest.raises(ValueError, match="a number or 'latent', not 'observed'"):
        rsd.tl.normalized_expression(sized, library_size="observed", **QUIET)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"categorical_covariate_keys": "area"}, TypeError, r"did you mean \['area'\]"),
        ({"categorical_covariate_keys": ["area", "area"]}, ValueError, "twice"),
        ({"categorical_covariate_keys": ["donor"]}, KeyError, "categorical_covariate_keys='donor'.*it has: 'area'"),
        ({"size_factor_key": "volume"}, KeyError, "size_factor_key='volume'.*it has: 'area'"),
        ({"size_factor_key": "name"}, TypeError, "numbers"),
        ({"size_factor_key": "hollow"}, ValueError, "2 of 800 cells.*'0', '7'"),
    ],
)
def test_bad_columns(sized, settings, error, message):
    sized.obs["name"] = "a"
    sized.obs["hollow"] = sized.obs["area"].where(~np.isin(np.arange(800), [0, 7]), 0)
    columns = list(sized.obs)
    with pytest.raises(error, match=message):
        rsd.tl.fit(sized, **settings, **QUIET)
    assert list(sized.obs) == columns and not sized.uns


def test_batches_that_are_dates_are_found_again(tissue):
    table = tissue.tables["table"].copy()
    dates = pd.to_datetime(np.where(np.arange(table.n_obs) % 2, "2020-01-01", "2021-05-05"))
    table.obs["day"] = pd.Series(dates, index=table.obs_names).astype("category")
    rsd.tl.fit(table, batch_key="day", max_epochs=1, show_progress_bar=False)
    before = table.obsm["X_resolvi"].copy()
    rsd.tl.latent(table, show_progress_bar=False)
    np.testing.assert_allclose(table.obsm["X_resolvi"], before, atol=1e-5)
    own = rsd.tl.normalized_expression(table, copy=True, show_progress_bar=False).layers["resolvi_expression"]
    rsd.tl.normalized_expression(table, transform_batch="2021-05-05", show_progress_bar=False)
    that_day = (table.obs["day"] == "2021-05-05").to_numpy()
    np.testing.assert_allclose(table.layers["resolvi_expression"][that_day], own[that_day], rtol=1e-5)
    assert not np.allclose(table.layers["resolvi_expression"][~that_day], own[~that_day], rtol=1e-3)
