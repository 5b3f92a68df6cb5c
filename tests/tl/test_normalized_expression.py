"""The dense layer: sums, subsets, draws, and the same on a store that another process reads."""

import subprocess
import sys

import numpy as np
import pytest
import spatialdata as sd

import resolvi_sd as rsd
from resolvi_sd._keys import Keys
from resolvi_sd._model.importance import weigh_draws
from resolvi_sd._model.sampling import Sampler
from resolvi_sd._results import restore
from resolvi_sd.tl import _normalized_expression as module

QUIET = {"show_progress_bar": False}


def test_rows_sum_to_the_library_size(fitted):
    assert rsd.tl.normalized_expression(fitted, library_size=500, **QUIET) is None
    layer = fitted.tables["table"].layers["resolvi_expression"]
    assert layer.shape == (400, 40) and layer.dtype == np.float32 and (layer > 0).all()
    np.testing.assert_allclose(layer.sum(1), 500, rtol=1e-4)


def test_some_genes_are_the_same_numbers(fitted):
    names = list(fitted.tables["table"].var_names[[7, 2]])
    table = fitted.tables["table"]
    rsd.tl.normalized_expression(fitted, genes=names, **QUIET)
    assert list(table.uns["resolvi_expression"]) == names
    some = table.obsm["resolvi_expression"]
    rsd.tl.normalized_expression(fitted, **QUIET)
    np.testing.assert_array_equal(some, table.layers["resolvi_expression"][:, [7, 2]])
    assert "resolvi_expression" not in table.obsm and "resolvi_expression" not in table.uns


def test_many_draws_are_near_the_mean_and_repeatable(fitted):
    mean, first, second = (
        rsd.tl.normalized_expression(fitted, n_samples=n, copy=True, **QUIET).layers["resolvi_expression"]
        for n in (1, 40, 40)
    )
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, mean)
    assert np.corrcoef(first.ravel(), mean.ravel())[0, 1] > 0.95


def test_importance_weighted_expression_is_the_weighted_mean_of_draws(fitted):
    rsd.tl.normalized_expression(fitted, n_samples=8, weights="importance", library_size=1.0, **QUIET)
    table = fitted.tables["table"]
    layer = table.layers["resolvi_expression"]
    np.testing.assert_allclose(layer.sum(1), 1, rtol=1e-4)
    some = list(table.var_names[[5, 3]])
    rsd.tl.normalized_expression(fitted, n_samples=8, weights="importance", library_size=1.0, genes=some, **QUIET)
    np.testing.assert_allclose(table.obsm["resolvi_expression"], layer[:, [5, 3]], rtol=1e-4)
    fit, tissue, _ = restore(table, Keys())
    sampler = Sampler.create(fit.module, tissue, n_samples=8, rng=np.random.default_rng(0))
    cells = np.array([3, 311])
    draws = weigh_draws(sampler, cells)
    rho = sampler.draw(cells, ["expression"])["expression"]
    np.testing.assert_allclose(layer[cells], np.einsum("sn,sng->ng", draws.weights, rho), rtol=1e-3)
    assert not np.allclose(layer[cells], rho.mean(0), rtol=1e-3)


def test_a_large_layer_stays_lazy_and_has_the_same_numbers(fitted, monkeypatch):
    rsd.tl.normalized_expression(fitted, **QUIET)
    dense = fitted.tables["table"].layers["resolvi_expression"]
    monkeypatch.setattr(module, "_LARGE", 1000)
    monkeypatch.setattr(module, "_CHUNK", 64)
    rsd.tl.normalized_expression(fitted, **QUIET)
    lazy = fitted.tables["table"].layers["resolvi_expression"]
    assert type(lazy).__module__.startswith("dask") and lazy.shape == dense.shape and lazy.numblocks[0] == 7
    np.testing.assert_allclose(lazy.compute(), dense, rtol=1e-5)
    with pytest.raises(ValueError, match="choose some `genes`"):
        rsd.tl.normalized_expression(fitted, n_samples=2, **QUIET)


def test_a_store_read_in_a_new_process_gives_the_same(fitted, tmp_path):
    rsd.tl.normalized_expression(fitted, **QUIET)
    expected = fitted.tables["table"].layers["resolvi_expression"].copy()
    del fitted.tables["table"].layers["resolvi_expression"]
    fitted.write(tmp_path / "fitted.zarr")
    script = (
        "import sys, warnings; warnings.simplefilter('ignore')\n"
        "import numpy as np, spatialdata as sd, resolvi_sd as rsd\n"
        "sdata = sd.read_zarr(sys.argv[1])\n"
        "rsd.tl.normalized_expression(sdata, show_progress_bar=False)\n"
        "np.save(sys.argv[2], sdata.tables['table'].layers['resolvi_expression'])\n"
    )
    out = tmp_path / "expression.npy"
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "fitted.zarr"), str(out)], check=True)
    np.testing.assert_array_equal(np.load(out), expected)


def test_fit_write_results_and_go_on(tissue, tmp_path):
    tissue.write(tmp_path / "tissue.zarr")
    sdata = sd.read_zarr(tmp_path / "tissue.zarr")
    rsd.tl.fit(sdata, max_epochs=2, **QUIET)
    rsd.io.write_results(sdata)
    again = sd.read_zarr(tmp_path / "tissue.zarr")
    assert rsd.io.results_state(again) == "complete"
    rsd.tl.normalized_expression(again, **QUIET)
    rsd.tl.normalized_expression(sdata, **QUIET)
    tables = sdata.tables["table"], again.tables["table"]
    np.testing.assert_array_equal(*(t.layers["resolvi_expression"] for t in tables))
    np.testing.assert_array_equal(*(t.layers["resolvi_counts"].data for t in tables))


def test_results_follow_cells_that_are_subset_and_reordered(fitted):
    rsd.tl.normalized_expression(fitted, **QUIET)
    table = fitted.tables["table"]
    rows = np.random.default_rng(0).permutation(400)[:150]
    part = table[rows].copy()
    expected = part.layers.pop("resolvi_expression")
    rsd.tl.normalized_expression(part, **QUIET)
    np.testing.assert_allclose(part.layers["resolvi_expression"], expected, rtol=1e-4)


def test_the_batches_of_the_fit_are_found_again():
    sdata = rsd.datasets.simulate_tissue(n_cells=300, n_genes=30, n_samples=2, rng=1, transcripts=False)
    rsd.tl.fit(sdata, batch_key="sample", max_epochs=2, **QUIET)
    rsd.tl.normalized_expression(sdata, **QUIET)
    table = sdata.tables["table"]
    last = table[table.obs["sample"] == table.obs["sample"].cat.categories[-1]].copy()
    expected = last.layers.pop("resolvi_expression")
    rsd.tl.normalized_expression(last, **QUIET)
    np.testing.assert_allclose(last.layers["resolvi_expression"], expected, rtol=1e-4)
    last.obs["sample"] = "another"
    with pytest.raises(ValueError, match="another.*knows"):
        rsd.tl.normalized_expression(last, **QUIET)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"genes": ["no such gene"]}, KeyError, "no such gene.*gene_"),
        ({"library_size": 0}, ValueError, "library_size.*positive and finite .*'latent'.*, not 0"),
        ({"library_size": True}, TypeError, "library_size.*a number, not True"),
        ({"library_size": None}, TypeError, "library_size.*a number, not None"),
        ({"library_size": np.inf}, ValueError, "library_size.*positive and finite .*'latent'.*, not inf"),
        ({"n_samples": 0}, ValueError, "n_samples.*at least 1"),
        ({"weights": "other"}, ValueError, "'uniform' or 'importance', not 'other'"),
        ({"weights": "importance"}, ValueError, "n_samples=25"),
        ({"key_added": "other"}, KeyError, r"uns\['other'\].*fits with `key_added` \['resolvi'\]"),
    ],
)
def test_bad_arguments(fitted, arguments, error, message):
    with pytest.raises(error, match=message):
        rsd.tl.normalized_expression(fitted, **QUIET, **arguments)


def test_not_fitted_other_genes_and_newer_formats_are_refused(fitted, tissue):
    with pytest.raises(KeyError, match=r"Please run .*tl\.fit"):
        rsd.tl.normalized_expression(tissue, **QUIET)
    table = fitted.tables["table"]
    with pytest.raises(ValueError, match="1 of 40 are gone"):
        rsd.tl.normalized_expression(table[:, 1:].copy(), **QUIET)
    table.uns["resolvi"]["format"] = 99
    with pytest.raises(ValueError, match="format 99.*Update resolvi_sd"):
        rsd.tl.normalized_expression(fitted, **QUIET)


@pytest.mark.parametrize("settings", [{"n_samples": 3}, {"n_samples": 4, "weights": "importance"}])
def test_draws_are_scaled_to_the_library_size(fitted, settings):
    table = rsd.tl.normalized_expression(fitted, library_size=500, copy=True, show_progress_bar=False, **settings)
    np.testing.assert_allclose(table.layers["resolvi_expression"].sum(axis=1), 500, rtol=1e-4)
