"""Neighborhoods: sums, planted differences, nulls without one, and bad input."""

from functools import partial

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import spatialdata as sd
from anndata import AnnData

import resolvi_sd as rsd
from resolvi_sd._analysis import DecisionRule
from resolvi_sd.tl._differential_niche_abundance import _summary


def make_tissue(rng, n_cells=3000, patch_size=25):
    """A table with a graph, without a model; labels are alike within small patches of tissue."""
    from resolvi_sd._tiles import cut_patches

    table = AnnData(np.ones((n_cells, 2), np.float32))
    table.obsm["spatial"] = rng.uniform(0, 1000, (n_cells, 2))
    rsd.gr.neighbors(table)
    patches = cut_patches(table.obsm["spatial"], np.zeros(n_cells, int), patch_size=patch_size)
    label = np.empty(n_cells, dtype=int)
    for patch in range(len(patches)):
        label[patches.cells(patch)] = rng.choice(4, len(patches.cells(patch)), p=rng.dirichlet(np.full(4, 0.7)))
    table.obs["label"] = pd.Categorical.from_codes(label, ["A", "B", "T/NK", "D"])
    return table


@pytest.fixture(scope="module")
def tissue():
    return make_tissue(np.random.default_rng(0))


@pytest.mark.parametrize("weighting", ["uniform", "distance"])
def test_the_composition_is_that_of_the_neighbors(tissue, weighting):
    table = tissue.copy()
    table.obs.loc[table.obs_names[:500], "label"] = np.nan
    assert rsd.tl.niche_abundance(table, labels_key="label", weighting=weighting) is None
    niche = table.obsm["resolvi_niche"]
    assert table.uns["resolvi_niche_labels"].tolist() == ["A", "B", "T/NK", "D"]
    distances = table.obsp["resolvi_distances"]
    for cell in (0, 7, 2999):
        near = distances[cell].indices
        weight = np.exp(-distances[cell].data / np.median(distances.data)) if weighting == "distance" else np.ones(10)
        shares = np.array([weight[table.obs["label"].iloc[near] == name].sum() for name in ["A", "B", "T/NK", "D"]])
        np.testing.assert_allclose(niche[cell], shares / shares.sum(), rtol=1e-5)


def test_probabilities_of_a_fit_are_averaged_and_stored(fitted, tmp_path):
    table = fitted.tables["table"]
    rng = np.random.default_rng(0)
    table.obsm["resolvi_probabilities"] = rng.dirichlet(np.ones(3), table.n_obs)
    table.uns["resolvi"]["labels"] = np.array(["a", "T/NK", "c"], dtype=object)
    rsd.tl.niche_abundance(fitted, weighting="weights")
    expected = table.obsp["resolvi_weights"] @ table.obsm["resolvi_probabilities"]
    np.testing.assert_allclose(table.obsm["resolvi_niche"], expected, rtol=1e-4)
    with pytest.warns(UserWarning, match="fewer than 4 patches of tissue"):
        rsd.tl.differential_niche_abundance(fitted, groupby="cell_type", n_samples=100)
    fitted.write(tmp_path / "fitted.zarr")
    again = sd.read_zarr(tmp_path / "fitted.zarr").tables["table"]
    np.testing.assert_array_equal(again.obsm["resolvi_niche"], table.obsm["resolvi_niche"])
    assert list(again.uns["resolvi_niche_labels"]) == ["a", "T/NK", "c"]
    for column, values in table.uns["resolvi_dna"].items():
        assert again.uns["resolvi_dna"][column].tolist() == values.tolist()


def test_a_cell_without_neighbors_has_no_composition():
    table = AnnData(np.ones((3, 2), np.float32), obs=pd.DataFrame({"label": list("aab")}, index=list("xyz")))
    table.obsp["resolvi_connectivities"] = np.array([[0, 1, 1], [0, 0, 0], [1, 0, 0]], np.float32)
    niche = rsd.tl.niche_abundance(table, labels_key="label", copy=True)
    np.testing.assert_array_equal(niche, [[0.5, 0.5], [np.nan, np.nan], [1, 0]])
    assert "resolvi_niche" not in table.obsm


def test_a_planted_difference_is_found_and_only_that(tissue):
    table = tissue.copy()
    rng = np.random.default_rng(1)
    # Near cells of group "in", cells of labels A and B become D.
    group = rng.random(table.n_obs) < 0.3
    table.obs["group"] = np.where(group, "in", "out")
    graph = table.obsp["resolvi_connectivities"]
    near = (graph.T @ group) > 0.35 * np.asarray(graph.sum(0)).ravel()
    label = table.obs["label"].to_numpy().astype(object)
    label[near & np.isin(label, ["A", "B"])] = "D"
    table.obs["label"] = label
    result = rsd.tl.differential_niche_abundance(
        table, groupby="group", group1="in", labels_key="label", copy=True
    ).set_index("label")
    assert result["is_da_fdr"].to_dict() == {"A": True, "B": True, "T/NK": False, "D": True}
    assert result.loc["D", "lfc_mean"] > 0.25 and result.loc["A", "lfc_mean"] < -0.25
    np.testing.assert_allclose(result[["abundance1", "abundance2"]].sum(), 1, rtol=1e-5)
    share = np.log2(result["abundance1"] + 0.01) - np.log2(result["abundance2"] + 0.01)
    np.testing.assert_allclose(result["lfc_mean"], share, atol=0.1)


@pytest.mark.parametrize("spatial", [False, True], ids=["cells", "patches"])
def test_without_a_difference_false_calls_keep_the_stated_rate(spatial):
    """Runs with any call are false discoveries here, all of them: their rate is the FDR."""
    from resolvi_sd._tiles import cut_patches

    rng = np.random.default_rng(5)
    any_call, runs = 0, 40
    for _ in range(runs):
        table = make_tissue(rng, n_cells=1500)
        if spatial:  # groups lie in patches of tissue as large as those of the labels, but do not know them
            shifted = table.obsm["spatial"] @ np.array([[0.8, 0.6], [-0.6, 0.8]])
            patches = cut_patches(shifted, np.zeros(table.n_obs, int), patch_size=60)
            group = np.empty(table.n_obs, bool)
            group[patches.order] = np.repeat(rng.random(len(patches)) < 0.5, patches.sizes())
        else:
            group = rng.random(table.n_obs) < 0.5
        table.obs["group"] = np.where(group, "one", "two")
        options = {"groupby": "group", "group1": "one", "labels_key": "label", "n_samples": 1000, "copy": True}
        any_call += rsd.tl.differential_niche_abundance(table, **options)["is_da_fdr"].any()
    # The stated rate, as far as so few runs can tell.
    assert any_call / runs <= 0.05 + 2.5 * np.sqrt(0.05 * 0.95 / runs)


@pytest.mark.filterwarnings("ignore:Groups whose cells lie in fewer than 4 units")
@pytest.mark.parametrize("sizes", [[150] * 10, [900] + [60] * 9], ids=["equal", "one large"])
def test_animals_that_differ_are_no_difference_between_conditions(sizes):
    """However unequal the numbers of their cells; with cells of any animal as the units, they often seem to be."""
    rng = np.random.default_rng(0)
    any_call, any_naive, runs = 0, 0, 30
    animal = np.repeat(np.arange(20), np.tile(sizes, 2))
    for _ in range(runs):
        share = rng.dirichlet(np.full(6, 3.0)) * np.exp(rng.normal(0, 0.5, (20, 6)))
        each = list(zip(np.bincount(animal), share / share.sum(axis=1, keepdims=True), strict=True))
        label = np.concatenate([rng.choice(list("abcdef"), size, p=p) for size, p in each])
        edges = [sp.random_array((size, size), density=8 / size, rng=rng, format="csr") for size, _ in each]
        table = ad.AnnData(sp.csr_matrix((len(animal), 2), dtype=np.float32))
        table.obs["label"], table.obs["animal"] = label, animal
        table.obs["condition"] = np.where(animal < 10, "x", "y")
        table.obsp["resolvi_connectivities"] = sp.csr_matrix(sp.block_diag(edges))
        compare = partial(
            rsd.tl.differential_niche_abundance, table, "condition", group1="x", labels_key="label", copy=True
        )
        any_call += compare(sample_key="animal", n_samples=1000)["is_da_fdr"].any()
        table.obs["pair"] = pd.Categorical(np.arange(len(animal)) % (len(animal) // 3))
        any_naive += compare(sample_key="pair", n_samples=1000)["is_da_fdr"].any()
    assert any_call / runs <= 0.05 + 2.5 * np.sqrt(0.05 * 0.95 / runs)
    assert any_naive / runs > 0.3


def test_a_sample_may_have_no_cell_of_a_group():
    table = halves()
    table.obs["animal"] = np.repeat(list("abcdefghij"), 30)
    side = np.where(np.arange(300) % 2, "x", "y").astype(object)
    side[270:] = None  # the last sample
    table.obs["condition"] = side
    found = rsd.tl.differential_niche_abundance(
        table, "condition", group1="x", labels_key="cell_type", sample_key="animal", n_samples=100, copy=True
    )
    assert (found[["n_units1", "n_units2"]] == 9).all().all()


def test_measurements_are_no_samples():
    table = halves()
    with pytest.raises(ValueError, match=r"sample_key='area'.*measurement"):
        rsd.tl.differential_niche_abundance(table, "side", labels_key="cell_type", sample_key="area")


def test_samples_are_the_units_where_they_are_named():
    rng = np.random.default_rng(2)
    table = make_tissue(rng)
    table.obs["condition"] = np.repeat(["x", "y"], 1500)
    table.obs["animal"] = np.repeat(list("abcdefgh"), 375)
    result = rsd.tl.differential_niche_abundance(
        table, groupby="condition", group1="x", labels_key="label", sample_key="animal", copy=True
    )
    assert (result[["n_units1", "n_units2"]] == 4).all().all()
    with pytest.raises(ValueError, match="patch_size=50 would be ignored: units are those of sample_key='animal'"):
        rsd.tl.differential_niche_abundance(
            table, groupby="condition", labels_key="label", sample_key="animal", patch_size=50
        )


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"labels_key": None}, KeyError, "fit with `labels_key=` first"),
        ({"labels_key": "nope"}, KeyError, "labels_key='nope'.*label"),
        ({"labels_key": "missing"}, ValueError, "No cell has a label"),
        ({"weighting": "other"}, ValueError, "weighting.*'other'"),
        ({"weighting": "weights"}, KeyError, r"resolvi_weights.*run .*tl\.fit"),
        ({"key_added": "other"}, KeyError, r"other_connectivities.*run .*tl\.fit"),
    ],
)
@pytest.mark.parametrize("differential", [False, True])
def test_bad_arguments(tissue, arguments, error, message, differential):
    tissue.obs["missing"] = pd.Series([None] * tissue.n_obs, dtype=object, index=tissue.obs_names)
    given = {"labels_key": "label"} | arguments
    with pytest.raises(error, match=message):
        if differential:
            rsd.tl.differential_niche_abundance(tissue, groupby="label", **given)
        else:
            rsd.tl.niche_abundance(tissue, **given)
    assert "resolvi_niche" not in tissue.obsm and "resolvi_dna" not in tissue.uns


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"groupby": "nope"}, KeyError, "groupby='nope'"),
        ({"group1": "nope"}, KeyError, "group1='nope'.*'A'"),
        ({"group1": "A", "group2": "A"}, ValueError, "both"),
        ({"groupby": "lonely"}, ValueError, r"fewer than two cells.*'one' \(1 cell\)"),
        ({"sample_key": "nope"}, KeyError, "sample_key='nope'"),
        ({"patch_size": 0}, ValueError, "patch_size"),
    ],
)
def test_bad_groups(tissue, arguments, error, message):
    tissue.obs["lonely"] = ["one"] + ["many"] * (tissue.n_obs - 1)
    with pytest.raises(error, match=message):
        rsd.tl.differential_niche_abundance(tissue, **{"groupby": "label", "labels_key": "label"} | arguments)


def test_animals_that_differ_make_no_difference_between_conditions():
    rng, calls = np.random.default_rng(0), 0
    for _ in range(15):
        table = make_tissue(rng, n_cells=1500)
        animal = np.arange(1500) // 150
        table.obs["animal"] = [f"animal {i}" for i in animal]
        table.obs["condition"] = np.where(animal < 5, "x", "y")
        share = rng.dirichlet(np.full(4, 4.0), 10)
        table.obs["label"] = pd.Categorical(["abcd"[rng.choice(4, p=share[i])] for i in animal])
        found = rsd.tl.differential_niche_abundance(
            table, groupby="condition", group1="x", labels_key="label", sample_key="animal", n_samples=1000, copy=True
        )
        calls += found["is_da_fdr"].any()
    assert calls <= 3


def test_groups_that_lie_in_few_units_are_warned_of():
    rng = np.random.default_rng(2)
    table = make_tissue(rng)
    table.obs["animal"] = np.repeat(["a", "b", "c", "d"], 750)
    table.obs["condition"] = np.repeat(["x", "y"], 1500)
    arguments = {"groupby": "condition", "labels_key": "label", "sample_key": "animal", "n_samples": 100, "copy": True}
    with pytest.warns(
        UserWarning, match=r"fewer than 4 units of obs\['animal'\].*: 'x' \(2\), 'rest' \(2\), 'y' \(2\)"
    ):
        few = rsd.tl.differential_niche_abundance(table, **arguments)
    assert not few["is_da_fdr"].any()
    # The tails of two units are long, but shares are between 0 and 1.
    possible = np.log2((1 + 0.01) / 0.01)
    assert few["lfc_low"].min() >= -possible and few["lfc_high"].max() <= possible
    # Also of tails that have no mean.
    for rng in range(1, 4):
        with pytest.warns(UserWarning, match="fewer than 4 units"):
            again = rsd.tl.differential_niche_abundance(table, rng=rng, **arguments)
        np.testing.assert_allclose(again["lfc_mean"], few["lfc_mean"], atol=0.3)
        assert again["lfc_std"].between(0.01, 10).all()


def test_a_stray_cell_has_a_niche_by_distance():
    """Far from all others the exponential of its distances is zero."""
    table = rsd.datasets.simulate_tissue(n_cells=200, n_genes=20, rng=0, transcripts=False)["table"]
    del table.uns["spatialdata_attrs"]
    table.obsm["spatial"][0] -= 5000
    rsd.tl.fit(table, max_epochs=1, show_progress_bar=False)
    niche = rsd.tl.niche_abundance(table, "cell_type", weighting="distance", copy=True)
    near = table.obsp["resolvi_distances"][0].tocoo()
    weight = np.exp((near.data.min() - near.data) / np.median(table.obsp["resolvi_distances"].data))
    of_label = {name: weight[(table.obs["cell_type"].iloc[near.col] == name).to_numpy()].sum() for name in niche}
    np.testing.assert_allclose(niche.iloc[0], np.array([*of_label.values()]) / weight.sum(), rtol=1e-3)


def test_niches_of_a_table_that_lost_neighbors_warn():
    table = rsd.datasets.simulate_tissue(n_cells=300, n_genes=20, n_samples=2, rng=0, transcripts=False)["table"]
    rsd.tl.fit(table, library_key="sample", max_epochs=1, show_progress_bar=False)
    section = table[table.obs["sample"] == table.obs["sample"].iloc[0]].copy()
    rsd.tl.niche_abundance(section, "cell_type")  # none is lost
    fewer = table[table.obs["cell_type"] != table.obs["cell_type"].iloc[0]].copy()
    with pytest.warns(
        UserWarning, match=r"of \d+ cells had neighbors in the fit that are not in this table\. Their niches"
    ):
        rsd.tl.niche_abundance(fewer, "cell_type")


@pytest.mark.filterwarnings("ignore:Groups whose cells lie in fewer than")
def test_sections_are_those_of_the_fit_whoever_asks():
    """Regions that overlap: patches across them would be more units than there are."""
    sdata = rsd.datasets.simulate_tissue(n_cells=400, n_genes=20, n_samples=2, rng=0, transcripts=False)
    rsd.tl.fit(sdata, max_epochs=1, show_progress_bar=False)
    settings = {"groupby": "domain", "labels_key": "cell_type", "patch_size": 20, "n_samples": 100}
    expected = rsd.tl.differential_niche_abundance(sdata, copy=True, **settings)
    for found in (
        rsd.ResolVI.from_table(sdata).differential_niche_abundance(**settings),
        rsd.tl.differential_niche_abundance(sdata["table"], copy=True, **settings),
    ):
        pd.testing.assert_frame_equal(found, expected)


@pytest.mark.filterwarnings("ignore:Groups whose cells lie in fewer than")
def test_groups_of_a_single_cell_are_left_out_unless_asked_for():
    table = rsd.datasets.simulate_tissue(n_cells=200, n_genes=20, rng=0, transcripts=False)["table"]
    rsd.tl.fit(table, max_epochs=1, show_progress_bar=False)
    table.obs["group"] = table.obs["domain"].astype(str)
    table.obs.loc[table.obs_names[0], "group"] = "rare"
    for compare, settings in (
        (rsd.tl.differential_expression, {"show_progress_bar": False}),
        (rsd.tl.differential_niche_abundance, {"labels_key": "cell_type", "patch_size": 20}),
    ):
        with pytest.warns(UserWarning, match=r"obs\['group'\] with a single cell are not compared: 'rare'"):
            found = compare(table, "group", n_samples=100, copy=True, **settings)
        assert set(found["group1"]) == set(table.obs["group"]) - {"rare"}
        with pytest.raises(ValueError, match="fewer than two cells"):
            compare(table, "group", group1="rare", copy=True, **settings)


@pytest.fixture(scope="module")
def two_sides():
    """A fitted table whose cells lie on either side of a line."""
    settings = {"n_cells": 400, "n_genes": 20, "n_types": 4, "n_rare": 0, "rng": 0, "transcripts": False}
    table = rsd.datasets.simulate_tissue(**settings)["table"]
    rsd.tl.fit(table, max_epochs=1, show_progress_bar=False)
    x = table.obsm["spatial"][:, 0]
    table.obs["side"] = np.where(x > np.median(x), "right", "left")
    return table


SIDES = {"groupby": "side", "labels_key": "cell_type", "patch_size": 20, "n_samples": 500, "copy": True}


def test_the_two_directions_of_a_comparison_are_mirror_images(two_sides):
    found = rsd.tl.differential_niche_abundance(two_sides, **SIDES)
    left, right = (found[found["group1"] == name].set_index("label") for name in ("left", "right"))
    np.testing.assert_allclose(left["lfc_mean"], -right["lfc_mean"], atol=1e-6)
    for name in ("proba_da", "is_da_fdr", "lfc_std"):
        np.testing.assert_allclose(left[name].astype(float), right[name].astype(float), rtol=1e-5)
    assert (left["abundance1"] == right["abundance2"]).all()


def test_labels_that_no_cell_has_are_not_compared(two_sides):
    table = two_sides.copy()
    table.obs["cell_type"] = table.obs["cell_type"].cat.add_categories(["gone"])
    expected, found = (rsd.tl.differential_niche_abundance(t, **SIDES) for t in (two_sides, table))
    pd.testing.assert_frame_equal(found, expected)


def test_a_measurement_is_no_label(two_sides):
    for call in (rsd.tl.niche_abundance, rsd.tl.leakage, rsd.tl.audit):
        with pytest.raises(ValueError, match=r"labels_key='area' has 400 different values .*is it a measurement"):
            call(two_sides, labels_key="area")


def test_patches_are_cut_from_the_coordinates_of_the_graph():
    rng = np.random.default_rng(0)
    table = ad.AnnData(rng.poisson(2, (400, 10)).astype(np.float32))
    table.obs["label"] = rng.choice(["a", "b"], 400)
    table.obsm["microns"] = 100 * rng.random((400, 2))
    table.obs["side"] = np.where(table.obsm["microns"][:, 0] < 50, "left", "right")
    rsd.gr.neighbors(table, spatial_key="microns")
    compare = partial(rsd.tl.differential_niche_abundance, table, "side", labels_key="label", patch_size=40, copy=True)
    found = compare()
    table.obsm["spatial"] = rng.permutation(table.obsm["microns"])
    pd.testing.assert_frame_equal(compare(), found)
    assert (found["n_units1"] + found["n_units2"]).max() < 2 * 13


def halves():
    """A table with a graph, cut into two halves."""
    sdata = rsd.datasets.simulate_tissue(n_cells=300, n_genes=20, n_types=3, n_rare=0, rng=0, transcripts=False)
    table = sdata["table"]
    del table.uns["spatialdata_attrs"]
    rsd.gr.neighbors(table)
    x = table.obsm["spatial"][:, 0]
    table.obs["side"] = np.where(x > np.median(x), "right", "left")
    return table


def test_uncertain_labels_make_changes_uncertain():
    table = halves()
    table.obsm["resolvi_probabilities"] = np.full((300, 2), 0.5)  # every niche has the same mean
    table.uns["resolvi"] = {"labels": np.array(["a", "b"], dtype=object)}
    found = rsd.tl.differential_niche_abundance(table, "side", group1="left", patch_size=10, n_samples=2000, copy=True)
    assert (found["lfc_std"] > 0.05).all()


def test_units_are_counted_on_each_side():
    table = halves()
    table.obs["animal"] = np.arange(300) % 12
    table.obs["condition"] = np.where(table.obs["animal"] < 5, "x", "y")
    found = rsd.tl.differential_niche_abundance(
        table, "condition", group1="x", labels_key="cell_type", sample_key="animal", n_samples=100, copy=True
    )
    assert (found["n_units1"] == 5).all() and (found["n_units2"] == 7).all()


def test_the_error_of_normal_draws_is_that_of_their_difference():
    rng = np.random.default_rng(0)
    logs = rng.normal([[1.0], [0.0]], 0.3, (20_000, 2, 1)).astype(np.float32)
    found = _summary(logs, logs, DecisionRule("change", delta=0.25, fdr=0.05), limit=np.inf)
    np.testing.assert_allclose(found[["lfc_low", "lfc_high"]], [[1 - 0.83, 1 + 0.83]], atol=0.03)
    assert found["lfc_std"].item() == pytest.approx(0.3 * np.sqrt(2), rel=0.03)


def test_the_column_of_the_labels_is_kept():
    table = halves()
    rsd.tl.niche_abundance(table, "cell_type")
    assert table.uns["resolvi_niche_labels_key"] == "cell_type"
    assert list(table.uns["resolvi_niche_labels"]) == list(table.obs["cell_type"].cat.categories)
