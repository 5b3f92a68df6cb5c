"""Differential expression on simulated tissues with known profiles, its stores, and bad groups."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import spatialdata as sd

import resolvi_sd as rsd

QUIET = {"show_progress_bar": False}
KEY = "resolvi_rank_genes_groups"
# Record arrays are what scanpy itself writes; zarr has them, but not yet in its specification.
RECORDS = "ignore:The data type .* does not have a Zarr V3 specification"


@pytest.fixture(scope="module")
def truth():
    """Table of a tissue that was fitted long enough to be judged by its truth."""
    sdata = rsd.datasets.simulate_tissue(n_cells=1200, n_genes=80, n_types=4, n_rare=0, rng=3, transcripts=False)
    rsd.tl.fit(sdata, max_epochs=50, **QUIET)
    return sdata.tables["table"]


def true_change(table, group1, group2, pseudocount):
    profile, label = np.asarray(table.layers["true_profile"]), table.obs["cell_type"].to_numpy()
    first, second = (np.log2(profile[label == group].mean(0) + pseudocount) for group in (group1, group2))
    return first - second


def test_changes_between_types_are_the_true_ones(truth):
    called = wrong = true = found = 0
    names = list(truth.obs["cell_type"].cat.categories)
    for group1, group2 in zip(names[:-1], names[1:], strict=True):
        de = rsd.tl.differential_expression(
            truth, groupby="cell_type", group1=group1, group2=group2, n_samples=2000, copy=True, **QUIET
        )
        change = true_change(truth, group1, group2, de["pseudocount"].iloc[0])
        assert np.corrcoef(change, de["lfc_mean"])[0, 1] > 0.9
        # Leakage shrinks the changes of raw counts; corrected ones have no slope.
        assert np.polyfit(change, de["lfc_mean"], 1)[0] == pytest.approx(1, abs=0.2)
        call = de["is_de_fdr"].to_numpy()
        right = (np.abs(change) >= 0.25) & (np.sign(change) == np.sign(de["lfc_mean"]))
        called, wrong, found = called + call.sum(), wrong + (call & ~right).sum(), found + (call & right).sum()
        true += (np.abs(change) >= 0.25).sum()
    # Changes just below delta count as wrong here, however near: see the documentation for what was measured.
    assert wrong / called < 0.15 and found / true > 0.6


@pytest.mark.parametrize("mode", ["change", "vanilla"])
def test_halves_of_the_same_cells_do_not_differ(truth, mode):
    table = truth.copy()
    table.obs["half"] = np.where(np.random.default_rng(0).random(table.n_obs) < 0.5, "a", "b")
    de = rsd.tl.differential_expression(table, groupby="half", mode=mode, copy=True, **QUIET)
    assert not de["is_de_fdr"].any()


def test_the_numbers_of_detection_are_those_of_the_cells(fitted):
    rsd.tl.differential_expression(fitted, groupby="cell_type", n_samples=50, **QUIET)
    table = fitted.tables["table"]
    de = table.uns["resolvi_de"]
    some = de[de["group1"] == "type_1"].set_index("gene").loc[table.var_names]
    member = (table.obs["cell_type"] == "type_1").to_numpy() & (np.asarray(table.X.sum(1)).ravel() > 0)
    other = (table.obs["cell_type"] != "type_1").to_numpy() & (np.asarray(table.X.sum(1)).ravel() > 0)
    for side, rows in ((1, member), (2, other)):
        counts, corrected = table.X[rows].toarray(), table.layers["resolvi_counts"][rows].toarray()
        np.testing.assert_allclose(some[f"raw_mean{side}"], counts.mean(0), rtol=1e-5)
        np.testing.assert_allclose(some[f"raw_fraction{side}"], (counts > 0).mean(0), rtol=1e-5)
        np.testing.assert_allclose(some[f"corrected_mean{side}"], corrected.mean(0), rtol=1e-4)
        np.testing.assert_allclose(some[f"corrected_fraction{side}"], (corrected >= 0.5).mean(0), rtol=1e-5)
        assert (some[f"n_cells{side}"] == rows.sum()).all()


def test_the_same_seed_gives_the_same_and_copy_writes_nothing(fitted):
    before = set(fitted.tables["table"].uns)
    one, two, three = (
        rsd.tl.differential_expression(fitted, groupby="cell_type", n_samples=60, rng=rng, copy=True, **QUIET)
        for rng in (1, 1, 2)
    )
    assert set(fitted.tables["table"].uns) == before
    pd.testing.assert_frame_equal(one, two)
    assert not one["lfc_mean"].equals(three["lfc_mean"])


def test_with_batch_correction_it_does_not_matter_which_batch_a_cell_is_from():
    sdata = rsd.datasets.simulate_tissue(n_cells=300, n_genes=30, n_samples=2, batch_effect=1.0, transcripts=False)
    rsd.tl.fit(sdata, batch_key="sample", max_epochs=3, **QUIET)
    table = sdata.tables["table"]
    swapped = table.copy()
    first, second = table.obs["sample"].cat.categories
    swapped.obs["sample"] = np.where(table.obs["sample"] == first, second, first)
    for corrected in (True, False):
        one, two = (
            rsd.tl.differential_expression(
                data, groupby="cell_type", batch_correction=corrected, n_samples=50, copy=True, **QUIET
            )["lfc_mean"]
            for data in (table, swapped)
        )
        assert np.allclose(one, two, atol=1e-5) == corrected


# scanpy 1.12 on pandas 3, in its getter.
@pytest.mark.filterwarnings(RECORDS, "ignore:The inplace keyword in DataFrame.drop is deprecated")
def test_results_survive_stores_and_scanpy_reads_them(fitted, tmp_path):
    sc = pytest.importorskip("scanpy")
    table = fitted.tables["table"]
    table.obs["kind"] = table.obs["cell_type"].cat.rename_categories({"type_0": "T/NK"})
    rsd.tl.differential_expression(fitted, groupby="kind", n_samples=50, **QUIET)
    fitted.write(tmp_path / "fitted.zarr")
    table.write_h5ad(tmp_path / "fitted.h5ad")
    for again in (sd.read_zarr(tmp_path / "fitted.zarr").tables["table"], ad.read_h5ad(tmp_path / "fitted.h5ad")):
        for column, values in table.uns["resolvi_de"].items():
            assert again.uns["resolvi_de"][column].tolist() == values.tolist()
        found = sc.get.rank_genes_groups_df(again, group="T/NK", key=KEY)
        assert (np.diff(found["scores"]) <= 0).all() and set(found["names"]) == set(table.var_names)
        row = table.uns["resolvi_de"].query("group1 == 'T/NK'").set_index("gene").loc[found["names"]]
        np.testing.assert_allclose(found["pvals"], 1 - row["proba_de"], atol=1e-12)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_scanpy_plots_them(fitted):
    sc = pytest.importorskip("scanpy")
    plt = pytest.importorskip("matplotlib.pyplot")
    rsd.tl.differential_expression(fitted, groupby="cell_type", n_samples=50, **QUIET)
    sc.pl.rank_genes_groups(fitted.tables["table"], key=KEY, n_genes=5, show=False)
    assert plt.gcf().axes
    plt.close("all")


@pytest.mark.filterwarnings(RECORDS)
def test_results_go_into_the_store_with_the_fit_and_a_refit_removes_them(fitted, tmp_path):
    fitted.write(tmp_path / "fitted.zarr")
    sdata = sd.read_zarr(tmp_path / "fitted.zarr")
    rsd.tl.differential_expression(sdata, groupby="cell_type", n_samples=50, **QUIET)
    rsd.io.write_results(sdata)
    again = sd.read_zarr(tmp_path / "fitted.zarr").tables["table"]
    assert {"resolvi_de", KEY} <= set(again.uns)
    rsd.tl.fit(again, max_epochs=1, **QUIET)
    assert not {"resolvi_de", KEY} & set(again.uns)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"groupby": "nope"}, KeyError, "groupby='nope'.*cell_type"),
        ({"group1": "nope"}, KeyError, "group1='nope'.*'type_0'"),
        ({"group2": ["type_0", "nope"]}, KeyError, "group2='nope'"),
        ({"group1": []}, ValueError, "`group1` is empty"),
        ({"group1": ["type_0", "type_1"], "group2": ["type_1"]}, ValueError, "both .*'type_1'"),
        ({"groupby": "lonely"}, ValueError, r"fewer than two cells.*'one' \(1 cell\)"),
        ({"groupby": "lonely", "group1": "none"}, ValueError, r"'none' \(0 cells\)"),
        ({"groupby": "same"}, ValueError, "nothing to compare"),
        ({"mode": "other"}, ValueError, "'change' or 'vanilla', not 'other'"),
        ({"delta": -1}, ValueError, "delta"),
        ({"fdr": 0}, ValueError, "fdr"),
        ({"n_samples": 0}, ValueError, "n_samples"),
        ({"pseudocount": 0}, ValueError, "pseudocount"),
        ({"key_added": "other"}, KeyError, r"run .*tl\.fit"),
    ],
)
def test_bad_arguments_change_nothing(fitted, arguments, error, message):
    table = fitted.tables["table"]
    lonely = np.full(table.n_obs, "many", dtype=object)
    lonely[np.flatnonzero(np.asarray(table.X.sum(1)).ravel())[0]] = "one"
    table.obs["lonely"] = pd.Categorical(lonely, categories=["many", "one", "none"])
    table.obs["same"] = "all"
    before = set(table.uns)
    with pytest.raises(error, match=message):
        rsd.tl.differential_expression(fitted, **{"groupby": "cell_type"} | arguments, **QUIET)
    assert set(table.uns) == before
