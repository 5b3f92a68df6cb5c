"""Tasks of the object: they take what the functions take, and give the same."""

import inspect

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import resolvi_sd as rsd

QUIET = {"show_progress_bar": False}
GROUPS = {"groupby": "cell_type", "group1": "type_0"}
CALLS = [
    ("sample_posterior", {"sites": ["own_counts", "shares"], "n_samples": 3, "cells": ["cell_7", "cell_2"], **QUIET}),
    ("posterior_summary", {"site": "corrected_rate", "quantiles": [0.1], "n_samples": 4, "rng": 1, **QUIET}),
    ("differential_expression", {**GROUPS, "n_samples": 200, "pseudocount": 1e-3, **QUIET}),
    ("niche_abundance", {"weighting": "weights"}),
    ("niche_abundance", {"labels_key": "cell_type", "weighting": "distance"}),
    ("differential_niche_abundance", {**GROUPS, "n_samples": 200, "patch_size": 40, "pseudocount": 0.05}),
    ("differential_niche_abundance", {**GROUPS, "n_samples": 200, "labels_key": "cell_type", "sample_key": "sample"}),
    ("pseudobulk", {"groupby": "cell_type", "sample_key": "sample", "min_cells": 1, "integer_counts": False}),
    ("pseudobulk", {"groupby": "cell_type", "layer": "counts", "min_cells": 1}),
    ("pseudobulk", {"groupby": "cell_type", "layer": "X", "min_cells": 1}),
]
# What says where the results are, and where they go: the object knows.
OF_TABLES = {"data", "table_key", "key_added", "copy"}


@pytest.fixture(scope="module")
def model():
    table = rsd.datasets.simulate_tissue(
        n_cells=300, n_genes=40, n_samples=2, n_types=4, n_rare=0, rng=0, transcripts=False
    ).tables["table"]
    table.layers["counts"] = table.X.copy()
    table.obs_names = [f"cell_{i}" for i in range(table.n_obs)]
    rsd.ResolVI.setup_anndata(table, layer="counts", library_key="sample", labels_key="cell_type")
    model = rsd.ResolVI(table, semisupervised=True)
    model.train(max_epochs=3, **QUIET)
    return model


def assert_same(found, expected):
    if isinstance(expected, pd.DataFrame):
        pd.testing.assert_frame_equal(found, expected)
    elif isinstance(expected, xr.Dataset):
        xr.testing.assert_identical(found, expected)
    else:
        np.testing.assert_array_equal(found.X, expected.X)
        pd.testing.assert_frame_equal(found.obs, expected.obs)
        pd.testing.assert_frame_equal(found.var, expected.var)


@pytest.mark.filterwarnings("ignore:Groups whose cells lie in fewer than 4 units")
@pytest.mark.parametrize(("task", "arguments"), CALLS)
def test_the_object_answers_as_the_function(model, task, arguments):
    slots = ("obs", "obsm", "obsp", "layers", "uns")
    before = {slot: set(getattr(model.adata, slot)) for slot in slots}
    found = getattr(model, task)(**arguments)
    assert {slot: set(getattr(model.adata, slot)) for slot in slots} == before
    table, function = model.adata.copy(), getattr(rsd.tl, task)
    model.write(table)
    returns = {"copy": True} if "copy" in inspect.signature(function).parameters else {}
    assert_same(found, function(table, **arguments, **returns))


@pytest.mark.parametrize("task", sorted({task for task, _ in CALLS}))
def test_all_arguments_of_the_function_can_be_given(task):
    of_object, of_function = (
        {name: given.default for name, given in inspect.signature(f).parameters.items() if name != "self"}
        for f in (getattr(rsd.ResolVI, task), getattr(rsd.tl, task))
    )
    expected = {name: default for name, default in of_function.items() if name not in OF_TABLES}
    expected["show_progress_bar"] = True  # the posterior may have to be computed first
    if "idx1" in of_object:  # in place of a column
        expected |= {"groupby": None, "idx1": None, "idx2": None}
    assert of_object == expected


def test_without_labels_niches_need_a_column(model):
    table = model.adata.copy()
    rsd.ResolVI.setup_anndata(table, layer="counts")
    unlabelled = rsd.ResolVI(table)
    unlabelled.train(max_epochs=1, **QUIET)
    with pytest.raises(KeyError, match="model has no labels: name a column of `obs`"):
        unlabelled.differential_niche_abundance(**GROUPS)
    niche = unlabelled.niche_abundance(labels_key="cell_type")
    np.testing.assert_allclose(niche.sum(axis=1), 1, rtol=1e-5)


def test_patches_are_cut_where_the_elements_lie():
    sdata = rsd.datasets.simulate_tissue(n_cells=300, n_genes=40, n_types=4, n_rare=0, rng=0, transcripts=False)
    table = sdata.tables["table"]
    del table.obsm["spatial"]
    rsd.tl.fit(sdata, max_epochs=1, **QUIET)
    arguments = {**GROUPS, "labels_key": "cell_type", "n_samples": 200, "patch_size": 40}
    found = rsd.ResolVI.from_table(sdata).differential_niche_abundance(**arguments)
    pd.testing.assert_frame_equal(found, rsd.tl.differential_niche_abundance(sdata, **arguments, copy=True))


@pytest.mark.parametrize("task", ["differential_expression", "differential_niche_abundance"])
def test_cells_can_be_chosen_in_place_of_groups(model, task):
    label = model.adata.obs["cell_type"].astype(str).to_numpy()
    arguments = {"n_samples": 100} | ({"show_progress_bar": False} if task == "differential_expression" else {})
    compare = getattr(model, task)
    expected = compare(groupby="cell_type", group1="type_0", group2="type_1", **arguments)
    first, second = label == "type_0", label == "type_1"
    ways = [
        (first, second),
        (first.tolist(), np.flatnonzero(second)),
        ("cell_type == 'type_0'", "cell_type == 'type_1'"),
        (list(model.adata.obs_names[first]), model.adata.obs_names[second][::-1]),
        (pd.Series(first, model.adata.obs_names)[::-1], pd.Series(second, model.adata.obs_names).sort_index()),
    ]
    for idx1, idx2 in ways:
        found = compare(idx1=idx1, idx2=idx2, **arguments)
        assert set(found["group1"]) == {"idx1"} and set(found["group2"]) == {"idx2"}
        pd.testing.assert_frame_equal(
            found.drop(columns=["group1", "group2", "groupby"]), expected.drop(columns=["group1", "group2", "groupby"])
        )
    rest = compare(idx1=first, **arguments)
    others = compare(groupby="cell_type", group1="type_0", **arguments)
    assert np.corrcoef(rest["lfc_mean"], others["lfc_mean"])[0, 1] > 0.98
    assert "idx" not in model.adata.obs


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, ValueError, "Specify which cells to compare: groupby=.* or idx1="),
        ({"idx2": [1, 2]}, ValueError, "Specify which cells to compare"),
        ({"idx1": [0, 1], "groupby": "cell_type"}, ValueError, "leave out `groupby`"),
        ({"idx1": [0, 1], "idx2": [1, 2]}, ValueError, "1 cells are in both `idx1` and `idx2`"),
        ({"idx1": [True, False]}, ValueError, "mask `idx1` has 2 values, but the table has 300 cells"),
        ({"idx1": [0, 300]}, ValueError, "positions beyond the 300 cells"),
        ({"idx1": []}, ValueError, "`idx1` is empty"),
        ({"idx1": [7]}, ValueError, "`idx1` selects a single cell"),
        ({"idx1": [0, 1], "idx2": [7]}, ValueError, "`idx2` selects a single cell"),
        ({"idx1": np.zeros(300, bool)}, ValueError, "`idx1` is empty"),
        ({"idx1": "cell_type == 'type_99'"}, ValueError, "selects no cells"),
        ({"idx1": "type = 3"}, ValueError, "is not a valid query on `obs`"),
        ({"idx1": [0.5]}, TypeError, "not a 1-dimensional array of float64"),
        ({"idx1": np.ones(300, bool)}, ValueError, "`idx1` contains all cells"),
        ({"idx1": [0, 1] * 150}, TypeError, "has an integer, 0 or 1, for every cell: pass a mask"),
        ({"idx1": ["nobody"]}, KeyError, r"`idx1` names 1 cells that are not in the table: 'nobody'"),
        ({"idx1": pd.Series([True] * 300)}, ValueError, "whose index does not name the 300 cells"),
    ],
)
def test_cells_that_cannot_be_chosen(model, arguments, error, message):
    with pytest.raises(error, match=message):
        model.differential_expression(**arguments, **QUIET)


@pytest.mark.filterwarnings("ignore:Observation names are not unique")
def test_masks_of_cells_whose_names_repeat(model):
    table = model.adata.copy()
    table.obs_names = [f"c{i // 2}" for i in range(table.n_obs)]
    repeated = rsd.ResolVI.load_query_data(table, model)
    mask = table.obs["cell_type"] == "type_0"
    found = repeated.differential_expression(idx1=mask, n_samples=50, **QUIET)
    expected = repeated.differential_expression(idx1=mask.to_numpy(), n_samples=50, **QUIET)
    pd.testing.assert_frame_equal(found, expected)
    with pytest.raises(ValueError, match="`obs_names` must be unique.* select `idx1` by a mask"):
        repeated.differential_expression(idx1=["c1", "c2"], **QUIET)
    with pytest.raises(ValueError, match="`idx1` has missing values"):
        repeated.differential_expression(idx1=mask.astype("boolean").where(np.arange(table.n_obs) > 0), **QUIET)


def test_tasks_are_quiet_where_they_are_asked_to_be(model, tmp_path, capsys):
    model.save(tmp_path)
    rsd.ResolVI.load(tmp_path, model.adata).differential_expression("cell_type", n_samples=50, **QUIET)
    assert capsys.readouterr().err == ""


def test_columns_of_the_user_are_theirs_whatever_they_are_called():
    sdata = rsd.datasets.simulate_tissue(n_cells=300, n_genes=30, n_types=4, n_rare=0, rng=0, transcripts=False)
    table = sdata.tables["table"]
    rsd.ResolVI.setup_anndata(table, labels_key="cell_type")
    model = rsd.ResolVI(table, semisupervised=True)
    model.train(3, show_progress_bar=False)
    rng = np.random.default_rng(0)
    table.obs["resolvi_predicted"] = table.obs["other"] = rng.choice(["a", "b", "unsure"], table.n_obs)
    table.obs["resolvi_true"] = rng.random(table.n_obs)
    table.layers["resolvi_counts"] = table.X.copy()
    quiet = {"n_samples": 20, "show_progress_bar": False}
    found, other = (
        model.differential_expression(key, **quiet).drop(columns="groupby", errors="ignore")
        for key in ("resolvi_predicted", "other")
    )
    pd.testing.assert_frame_equal(found, other)
    chosen = model.differential_expression(idx1="resolvi_true > 0.6", **quiet)
    assert chosen["n_cells1"].iloc[0] == (table.obs["resolvi_true"] > 0.6).sum()
    bulk = model.pseudobulk("other", layer="resolvi_counts")
    assert bulk.X.sum() == table.X.sum()
    niches = [model.niche_abundance(labels_key=key) for key in ("resolvi_predicted", "other")]
    pd.testing.assert_frame_equal(*niches)
