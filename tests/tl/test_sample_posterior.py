"""Named draws and summaries: laws, names, laziness, subsets, a store read again, and bad input."""

import numpy as np
import pytest
import spatialdata as sd
import xarray as xr

import resolvi_sd as rsd
from resolvi_sd._analysis import _draws as blocks
from resolvi_sd._keys import Keys
from resolvi_sd._model import infer
from resolvi_sd._model.sampling import SITES
from resolvi_sd._results._tissue import restore
from resolvi_sd._tiles import cut_patches

QUIET = {"show_progress_bar": False}


def inferred(table):
    fitted, tissue, graph = restore(table, Keys())
    patches = cut_patches(np.zeros((table.n_obs, 2)), np.arange(table.n_obs) // 100)
    return infer(fitted.module, tissue, patches, rng=np.random.default_rng(0), **QUIET), graph


def test_the_posterior_of_a_stored_fit_is_what_was_written(fitted, tmp_path):
    keys = Keys()
    fitted.write(tmp_path / "store.zarr")
    table = sd.read_zarr(tmp_path / "store.zarr").tables["table"]
    posterior, graph = inferred(table)
    np.testing.assert_allclose(posterior.own.toarray(), table.layers[keys.counts].toarray(), rtol=1e-5, atol=1e-5)
    shares = posterior.molecules / posterior.molecules.sum(1, keepdims=True)
    np.testing.assert_allclose(shares, table.obs[list(keys.shares)], atol=1e-5)
    for name, values in {keys.flow: posterior.flow, keys.weights: posterior.weights}.items():
        stored = table.obsp[name].toarray()
        np.testing.assert_allclose(graph.by_edge(values).toarray(), stored, rtol=1e-4, atol=1e-5)


def test_neighbor_weights_of_a_subset_are_scaled_to_those_that_remain(fitted):
    table = fitted.tables["table"]
    rows = np.random.default_rng(0).permutation(400)[:250]
    before = table.obsp["resolvi_weights"].toarray()[np.ix_(rows, rows)]
    part = table[rows].copy()
    with pytest.warns(UserWarning, match=r"^\d+ of 250 cells had neighbors in the fit that are not in this table"):
        posterior, graph = inferred(part)
    some = before.sum(1) > 0
    expected = before[some] / before[some].sum(1, keepdims=True)
    np.testing.assert_allclose(graph.by_edge(posterior.weights).toarray()[some], expected, rtol=1e-4, atol=1e-6)


def test_cells_that_lost_all_neighbors_receive_nothing(fitted):
    table = fitted.tables["table"]
    near = set(table.obsp["resolvi_distances"][0].indices) | set(table.obsp["resolvi_distances"].T.tocsr()[0].indices)
    lone = [0, next(i for i in range(1, 400) if i not in near)]
    part = table[lone].copy()
    with pytest.warns(UserWarning, match="^2 of 2 cells had neighbors in the fit"):
        draws = rsd.tl.sample_posterior(part, sites=list(SITES), n_samples=2, **QUIET)
    assert (draws["shares"].sel(source="diffusion") == 0).all() and (draws["neighbor_weights"] == 0).all()
    np.testing.assert_allclose(draws["shares"].sum("source"), 1, rtol=1e-5)


def test_dimensions_and_names(fitted):
    table = fitted.tables["table"]
    draws = rsd.tl.sample_posterior(fitted, sites=list(SITES), n_samples=3, **QUIET)
    assert isinstance(draws, xr.Dataset) and list(draws.data_vars) == list(SITES)
    for name, site in SITES.items():
        assert draws[name].dims == site.dims and draws[name].dtype == site.dtype
    sizes = {"sample": 3, "cell": 400, "gene": 40, "neighbor": 10, "source": 3, "latent_dim": 10}
    assert dict(draws.sizes) == sizes
    assert list(draws["cell"].values) == list(table.obs_names)
    assert list(draws["gene"].values) == list(table.var_names)
    assert list(draws["source"].values) == ["own", "diffusion", "background"]
    cell = table.obs_names[5]
    by_name = draws["neighbor_weights"].sel(cell=cell)
    stored = table.obsp["resolvi_weights"][5].toarray().ravel()
    columns = table.obs_names.get_indexer(by_name["neighbor_cell"].values)
    np.testing.assert_allclose(by_name, stored[columns], rtol=1e-4)
    assert len(set(columns)) == 10
    total = (draws["corrected_rate"] + draws["residual_rate"]).sum("gene")
    np.testing.assert_allclose(total.isel(sample=1), table.X.sum(1).A1, rtol=1e-5)


def test_own_counts_agree_with_the_corrected_counts(fitted):
    table = fitted.tables["table"]
    mean = rsd.tl.posterior_summary(fitted, site="own_counts", statistics=["mean"], n_samples=100, **QUIET)["mean"]
    layer = table.layers["resolvi_counts"].toarray()
    # The layer is taken at the mean of the latent, the draws are spread around it: near, not equal.
    assert np.corrcoef(mean.values.ravel(), layer.ravel())[0, 1] > 0.99
    assert float(mean.sum()) == pytest.approx(layer.sum(), rel=0.03)
    assert (mean.values[table.X.toarray() == 0] == 0).all()


def test_some_cells_and_genes_are_those_of_all(fitted):
    table = fitted.tables["table"]
    cells, genes = list(table.obs_names[[300, 7, 8]]), list(table.var_names[[9, 2]])
    everything = rsd.tl.sample_posterior(fitted, sites=list(SITES), n_samples=4, rng=3, **QUIET)
    some = rsd.tl.sample_posterior(fitted, sites=list(SITES), n_samples=4, rng=3, cells=cells, genes=genes, **QUIET)
    assert list(some["cell"].values) == cells and list(some["gene"].values) == genes
    whole = everything.sel(cell=cells, gene=genes)
    xr.testing.assert_allclose(some, whole, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(some["own_counts"], whole["own_counts"])


def test_same_seed_same_draws(fitted):
    first, second, other = (
        rsd.tl.sample_posterior(fitted, sites="own_counts", n_samples=2, rng=rng, **QUIET)
        for rng in (5, np.random.default_rng(5), 6)
    )
    assert first.identical(second) and not first.equals(other)


def test_large_results_are_lazy_and_the_same(fitted, monkeypatch):
    sites = list(SITES)
    eager = rsd.tl.sample_posterior(fitted, sites=sites, n_samples=5, **QUIET)
    summary = rsd.tl.posterior_summary(fitted, site="corrected_rate", quantiles=[0.5], n_samples=5, **QUIET)
    monkeypatch.setattr(blocks, "_ROWS", 64)
    in_blocks = rsd.tl.sample_posterior(fitted, sites=sites, n_samples=5, **QUIET)
    monkeypatch.setattr(blocks, "_LARGE", 1000)
    monkeypatch.setattr(blocks, "_BLOCK", 64 * 40 * 4 * 2)
    lazy = rsd.tl.sample_posterior(fitted, sites=sites, n_samples=5, **QUIET)
    assert lazy["own_counts"].chunks == ((2, 2, 1), (64,) * 6 + (16,), (40,))
    assert lazy["shares"].chunks == ((2, 2, 1), (64,) * 6 + (16,), (3,))
    computed = lazy.compute(scheduler="threads", num_workers=2)
    for found in (in_blocks, computed):
        xr.testing.assert_allclose(found, eager, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(found["own_counts"], eager["own_counts"])
    lazy_summary = rsd.tl.posterior_summary(fitted, site="corrected_rate", quantiles=[0.5], n_samples=5, **QUIET)
    assert lazy_summary["mean"].chunks is not None
    xr.testing.assert_allclose(lazy_summary.compute(), summary, rtol=1e-4, atol=1e-5)


def test_summaries_are_those_of_the_draws(fitted, monkeypatch):
    monkeypatch.setattr(blocks, "_ROWS", 150)
    table = fitted.tables["table"]
    chosen = {"cells": list(table.obs_names[10:40]), "genes": list(table.var_names[:5]), "n_samples": 30, "rng": 4}
    for site in ("latent", "own_counts", "residual_rate"):
        draws = rsd.tl.sample_posterior(fitted, sites=[site], **chosen, **QUIET)[site]
        summary = rsd.tl.posterior_summary(fitted, site=site, quantiles=[0.1, 0.9], **chosen, **QUIET)
        np.testing.assert_allclose(summary["mean"], draws.mean("sample"), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(summary["std"], draws.std("sample"), rtol=1e-3, atol=1e-5)
        quantile = draws.quantile([0.1, 0.9], "sample")
        np.testing.assert_allclose(summary["quantile"], quantile, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(summary["probability"], [0.1, 0.9])
    only = rsd.tl.posterior_summary(fitted, site="latent", statistics=(), quantiles=[0.5], **chosen, **QUIET)
    assert list(only.data_vars) == ["quantile"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"sites": ["latent", "rho"]}, ValueError, r"`sites` has unknown names: 'rho'; choose from 'latent', 'expr"),
        ({"sites": []}, ValueError, "`sites` is empty; choose from"),
        ({"genes": ["gene_00", "nope"]}, KeyError, r"`genes`: 1 of 2 are not in `table.var_names`: 'nope'"),
        ({"cells": ["nobody"]}, KeyError, r"`cells`: 1 of 1 are not in `table.obs_names`: 'nobody'"),
        ({"cells": []}, ValueError, "`cells` is empty"),
        ({"genes": ["gene_00", "gene_00"]}, ValueError, "`genes` must be unique"),
        ({"n_samples": 0}, ValueError, "`n_samples` must be at least 1, not 0"),
        ({"n_samples": 2.5}, TypeError, "`n_samples` must be an integer"),
        ({"rng": "seed"}, TypeError, "`rng` must be"),
        ({"key_added": "other"}, KeyError, r"no fit in `uns\['other'\]`"),
        ({"table_key": "other"}, KeyError, "table_key='other' is not in"),
    ],
)
def test_bad_input_is_told_what_exists(fitted, arguments, error, message):
    with pytest.raises(error, match=message):
        rsd.tl.sample_posterior(fitted, **arguments, **QUIET)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"site": "neighbor_weights"}, "point estimate and has no draws"),
        ({"site": "rho"}, "site='rho' is unknown; choose from 'latent'"),
        ({"site": "latent", "statistics": ["mode"]}, "`statistics` has unknown names: 'mode'"),
        ({"site": "latent", "statistics": []}, "`statistics` is empty"),
        ({"site": "latent", "quantiles": [0.5, 95]}, "`quantiles` must be at least 0 and at most 1, not 95"),
    ],
)
def test_bad_summaries_are_told_what_exists(fitted, arguments, message):
    with pytest.raises(ValueError, match=message):
        rsd.tl.posterior_summary(fitted, **arguments, **QUIET)


def test_a_single_quantile_is_asked_for_in_a_list(fitted):
    with pytest.raises(TypeError, match=r"`quantiles` must be a list of probabilities.*not 0\.5"):
        rsd.tl.posterior_summary(fitted, site="latent", quantiles=0.5, **QUIET)


def test_a_table_without_its_graph_says_what_to_do(tissue, fitted):
    with pytest.raises(KeyError, match=r"Please run `resolvi_sd.tl.fit\(\.\.\., key_added='resolvi'\)` first"):
        rsd.tl.sample_posterior(tissue, **QUIET)
    del fitted.tables["table"].obsp["resolvi_weights"]
    with pytest.raises(KeyError, match=r"'resolvi_weights' is not in `table.obsp`.*run `resolvi_sd.tl.fit\(.*` first"):
        rsd.tl.sample_posterior(fitted, **QUIET)
