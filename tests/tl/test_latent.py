"""The latent again, draws of it, and what is built on it downstream."""

import numpy as np
import pytest

import resolvi_sd as rsd

QUIET = {"show_progress_bar": False}


def test_it_is_what_the_fit_wrote(fitted):
    table = fitted.tables["table"]
    before = table.obsm.pop("X_resolvi")
    rsd.tl.latent(fitted, **QUIET)
    np.testing.assert_allclose(table.obsm["X_resolvi"], before, atol=1e-5)


def test_draws_are_normal_around_the_mean(fitted):
    mean, variance = rsd.tl.latent(fitted, return_dist=True, **QUIET)
    draws = [rsd.tl.latent(fitted, give_mean=False, rng=seed, copy=True, **QUIET) for seed in range(5)]
    standard = (np.stack(draws) - mean) / np.sqrt(variance)
    # 5 draws × 400 cells × 10 dimensions: standard errors of 0.007 and 0.005.
    assert abs(standard.mean()) < 0.03 and abs(standard.std() - 1) < 0.03
    again = rsd.tl.latent(fitted, give_mean=False, rng=0, copy=True, **QUIET)
    np.testing.assert_array_equal(again, draws[0])


def test_scanpy_builds_its_graph_on_it(fitted):
    import scanpy as sc

    table = fitted.tables["table"]
    sc.pp.neighbors(table, use_rep="X_resolvi", n_neighbors=10)
    assert table.uns["neighbors"]["params"]["use_rep"] == "X_resolvi"
    # Of two cells drawn at random, about a seventh share a type; neighbors in the latent do far more often.
    codes = table.obs["cell_type"].cat.codes.to_numpy()
    row, column = table.obsp["connectivities"].nonzero()
    by_chance = (codes[:, None] == codes).mean()
    assert (codes[row] == codes[column]).mean() > 2 * by_chance


def test_without_a_fit(tissue):
    with pytest.raises(KeyError, match=r"run .*tl\.fit"):
        rsd.tl.latent(tissue, **QUIET)


def test_one_draw_does_not_take_the_place_of_the_means(fitted):
    before = fitted["table"].obsm["X_resolvi"].copy()
    for asked in ({}, {"return_dist": True, "copy": True}):
        with pytest.raises(ValueError, match="`give_mean=False` gives a single draw, and only with `copy=True`"):
            rsd.tl.latent(fitted, give_mean=False, **asked, **QUIET)
    np.testing.assert_array_equal(fitted["table"].obsm["X_resolvi"], before)
