"""Pseudobulk: sums of the cells, and bad input."""

import numpy as np
import pytest

import resolvi_sd as rsd


def test_sums_are_those_of_the_cells(fitted):
    table = fitted.tables["table"]
    table.obs["half"] = np.where(np.arange(table.n_obs) % 2 == 0, "even", "odd")
    bulk = rsd.tl.pseudobulk(fitted, groupby="cell_type", sample_key="half", min_cells=1, integer_counts=False)
    np.testing.assert_allclose(bulk.X.sum(0), np.asarray(table.layers["resolvi_counts"].sum(0)).ravel(), rtol=1e-5)
    assert bulk.obs["n_cells"].sum() == table.n_obs
    member = ((table.obs["half"] == "odd") & (table.obs["cell_type"] == "type_2")).to_numpy()
    expected = np.asarray(table.layers["resolvi_counts"][member].sum(0)).ravel()
    np.testing.assert_allclose(bulk["odd:type_2"].X.ravel(), expected, rtol=1e-5)
    np.testing.assert_allclose(bulk.obs["n_molecules"], bulk.X.sum(1))
    assert list(bulk.var_names) == list(table.var_names)


def test_small_groups_and_cells_without_a_group_are_left_out(fitted):
    table = fitted.tables["table"]
    table.obs["kind"] = table.obs["cell_type"].where(table.obs["cell_type"] != "type_0")
    sizes = table.obs["kind"].value_counts()
    limit = int(sizes.max())
    bulk = rsd.tl.pseudobulk(fitted, groupby="kind", min_cells=limit)
    assert list(bulk.obs["group"]) == list(sizes.index[sizes >= limit])
    assert bulk.X.dtype == np.int64 and list(bulk.obs["sample"]) == ["all"] * bulk.n_obs
    table.layers["raw"] = table.X
    raw = rsd.tl.pseudobulk(table, groupby="kind", layer="raw", min_cells=limit)
    member = (table.obs["kind"] == raw.obs["group"].iloc[0]).to_numpy()
    np.testing.assert_array_equal(raw.X[0], np.asarray(table.X[member].sum(0)).ravel())


@pytest.mark.filterwarnings("ignore:4 of .* genes of the reference are not in the query")
def test_molecules_are_those_of_the_genes_that_were_measured(fitted):
    table = fitted.tables["table"]
    query = rsd.tl.map_query(table[:, 4:].copy(), fitted, copy=True, max_epochs=0, show_progress_bar=False)
    rsd.tl.normalized_expression(query, show_progress_bar=False)
    bulk = rsd.tl.pseudobulk(query, "cell_type", layer="resolvi_expression", integer_counts=False)
    assert list(bulk.var_names) == list(table.var_names[4:])
    np.testing.assert_allclose(bulk.obs["n_molecules"], bulk.X.sum(1), rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"groupby": "nope"}, KeyError, "groupby='nope'"),
        ({"sample_key": "nope"}, KeyError, "sample_key='nope'"),
        ({"layer": "nope"}, KeyError, "layer='nope'"),
        ({"key_added": "other"}, KeyError, r"run .*tl\.fit"),
        ({"min_cells": 0}, ValueError, "min_cells"),
        ({"min_cells": 10_000}, ValueError, "Lower `min_cells`"),
    ],
)
def test_bad_arguments(fitted, arguments, error, message):
    with pytest.raises(error, match=message):
        rsd.tl.pseudobulk(fitted, **{"groupby": "cell_type"} | arguments)


def test_names_that_would_be_the_same_are_refused(fitted):
    obs = fitted.tables["table"].obs
    obs["animal"] = np.where(np.arange(len(obs)) % 2, "a", "a:b")
    obs["group"] = np.where(np.arange(len(obs)) % 2, "b:c", "c")
    with pytest.raises(ValueError, match=r"Row names \(`sample:group`\) must be unique.*values of obs\['animal'\]"):
        rsd.tl.pseudobulk(fitted, groupby="group", sample_key="animal")


@pytest.mark.parametrize("value", [np.nan, -1.0])
def test_values_that_are_no_molecules_are_not_summed(fitted, value):
    table = fitted.tables["table"]
    table.layers["other"] = table.X.toarray().astype(np.float64)
    table.layers["other"][0, 0] = value
    with pytest.raises(ValueError, match=r"`layer` has values that are negative or not finite \(NaN or infinity\)"):
        rsd.tl.pseudobulk(fitted, "cell_type", layer="other", min_cells=1)


def test_counts_of_x(fitted):
    table = fitted.tables["table"]
    table.layers["raw"] = table.X.copy()
    expected = rsd.tl.pseudobulk(fitted, "cell_type", layer="raw", min_cells=1)
    np.testing.assert_array_equal(rsd.tl.pseudobulk(fitted, "cell_type", layer="X", min_cells=1).X, expected.X)
    table.X = table.X.log1p()
    with pytest.raises(ValueError, match=r"`table.X` must hold molecule counts.*not integers.*layer='raw'"):
        rsd.tl.pseudobulk(fitted, "cell_type", layer="X", min_cells=1)
