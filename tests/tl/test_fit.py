"""What one call writes, and that it is right, repeatable and leaves all else alone."""

import random
import re
import threading
import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pyro
import pytest
import scipy.sparse as sp
import torch
from spatialdata.transformations import Scale, set_transformation

import resolvi_sd as rsd
from resolvi_sd._keys import Keys

QUICK = {"max_epochs": 2, "show_progress_bar": False}


def snapshot(table):
    """Names of everything in a table."""
    slots = ("layers", "obsm", "obsp", "varm", "uns")
    return {slot: set(getattr(table, slot)) - {None} for slot in slots} | {"obs": set(table.obs.columns)}


def test_writes_what_it_promises_and_nothing_else(tissue):
    table = tissue.tables["table"]
    before, counts, attrs = snapshot(table), table.X.copy(), dict(table.uns["spatialdata_attrs"])
    assert rsd.tl.fit(tissue, **QUICK) is None
    written = {
        "layers": {"resolvi_counts"},
        "obsm": {"X_resolvi"},
        "obs": {"resolvi_true", "resolvi_diffusion", "resolvi_background"},
        "obsp": {"resolvi_distances", "resolvi_connectivities", "resolvi_weights", "resolvi_flow"},
        "varm": {"resolvi_dispersion", "resolvi_background"},
        "uns": {"resolvi_neighbors", "resolvi"},
    }
    after, owned = snapshot(table), Keys().owned()
    for slot, names in before.items():
        assert after[slot] - names == written[slot], slot
        # What is written has to be known to the writer of stores.
        assert written[slot] <= set(owned[slot]), slot
    assert (table.X != counts).nnz == 0
    assert table.uns["spatialdata_attrs"] == attrs
    assert table.obsm["X_resolvi"].shape == (300, 10) and table.obsm["X_resolvi"].dtype == np.float32
    assert table.varm["resolvi_dispersion"].shape == (40, 1)
    np.testing.assert_allclose(table.varm["resolvi_background"].sum(0), 1, rtol=1e-5)


def test_molecules_of_the_table_are_conserved(fitted):
    table, keys = fitted.tables["table"], Keys()
    corrected, total = table.layers[keys.counts], table.X.sum(1).A1
    assert sp.issparse(corrected) and corrected.format == "csr" and corrected.dtype == np.float32
    assert corrected.min() >= 0 and (corrected - table.X).max() <= 1e-5
    np.testing.assert_array_equal(corrected.indptr, table.X.indptr)
    shares = table.obs[list(keys.shares)].to_numpy()
    seen = total > 0
    np.testing.assert_allclose(shares[seen].sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(corrected.sum(1).A1[seen], (shares[:, 0] * total)[seen], rtol=1e-4)
    np.testing.assert_allclose(
        table.obsp[keys.flow].sum(1).A1[seen], (shares[:, 1] * total)[seen], rtol=1e-3, atol=1e-3
    )
    np.testing.assert_allclose(table.obsp[keys.weights].sum(1).A1, 1, atol=1e-5)
    for name in (keys.flow, keys.weights, keys.connectivities):
        np.testing.assert_array_equal(table.obsp[name].indptr, table.obsp[keys.distances].indptr)


def test_cells_without_counts_are_left_out(tissue):
    table = tissue.tables["table"]
    counts = table.X.toarray()
    counts[[3, 7, 200]] = 0
    table.X = sp.csr_matrix(counts)
    with pytest.warns(UserWarning, match="3 of 300 cells have no counts"):
        rsd.tl.fit(tissue, **QUICK)
    assert table.obs["resolvi_true"].isna().sum() == 3
    assert np.isfinite(table.obsm["X_resolvi"]).all()
    assert table.layers["resolvi_counts"][[3, 7, 200]].nnz == 0
    # An empty cell has nothing to give.
    assert table.obsp["resolvi_flow"][:, [3, 7, 200]].sum() == 0


def test_same_seed_same_result_and_global_random_states_stay(tissue):
    torch.manual_seed(3)
    np.random.seed(3)
    random.seed(3)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    params = set(pyro.get_param_store().keys())
    first, second, other = (rsd.tl.fit(tissue, rng=rng, copy=True, **QUICK) for rng in (5, np.random.default_rng(5), 6))
    np.testing.assert_array_equal(first.obsm["X_resolvi"], second.obsm["X_resolvi"])
    np.testing.assert_array_equal(first.layers["resolvi_counts"].data, second.layers["resolvi_counts"].data)
    assert not np.array_equal(first.obsm["X_resolvi"], other.obsm["X_resolvi"])
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all() and random.getstate() == states[2]
    assert set(pyro.get_param_store().keys()) == params


def test_copy_leaves_the_input_alone(tissue):
    before = snapshot(tissue.tables["table"])
    result = rsd.tl.fit(tissue, copy=True, **QUICK)
    assert snapshot(tissue.tables["table"]) == before
    assert "resolvi_counts" in result.layers


def test_table_and_spatialdata_give_the_same(tissue):
    table = tissue.tables["table"]
    plain = ad.AnnData(table.X.copy(), obs=table.obs[[]].copy(), var=table.var[[]].copy())
    plain.obsm["spatial"] = table.obsm["spatial"].copy()
    rsd.tl.fit(plain, **QUICK)
    rsd.tl.fit(tissue, **QUICK)
    # Centroids of the outlines and the stored positions agree to float32, which may reorder ties.
    np.testing.assert_allclose(plain.obsm["X_resolvi"], table.obsm["X_resolvi"], atol=0.2)


def test_counts_may_be_dense_or_in_a_layer(tissue):
    table = tissue.tables["table"]
    reference = rsd.tl.fit(tissue, copy=True, **QUICK)
    table.layers["raw"] = table.X.toarray()
    table.X = None
    rsd.tl.fit(tissue, layer="raw", **QUICK)
    np.testing.assert_allclose(table.layers["resolvi_counts"].toarray(), reference.layers["resolvi_counts"].toarray())
    assert table.uns["resolvi"]["setup"]["layer"] == "raw"


def test_two_samples_are_never_neighbors_and_batches_differ():
    sdata = rsd.datasets.simulate_tissue(n_cells=400, n_genes=30, n_samples=2, rng=1, transcripts=False)
    table = sdata.tables["table"]
    rsd.tl.fit(sdata, batch_key="sample", dispersion="gene-batch", **QUICK)
    sample = table.obs["sample"].to_numpy()
    rows, columns = table.obsp["resolvi_connectivities"].nonzero()
    assert (sample[rows] == sample[columns]).all()
    assert table.varm["resolvi_dispersion"].shape == table.varm["resolvi_background"].shape == (30, 2)


def test_a_cell_alone_on_its_section_receives_nothing(tissue):
    table = tissue.tables["table"]
    table.obs["slide"] = np.where(np.arange(300) == 17, "b", "a")
    rsd.tl.fit(tissue, library_key="slide", **QUICK)
    assert table.obs["resolvi_diffusion"].iloc[17] == pytest.approx(0, abs=1e-6)
    assert np.isfinite(table.obsm["X_resolvi"]).all() and table.obs["resolvi_true"].notna().all()
    assert table.obsp["resolvi_weights"][17].nnz == 0


def test_an_existing_graph_is_used(tissue):
    table = tissue.tables["table"]
    rsd.gr.neighbors(tissue, n_neighbors=4, key_added="mine")
    rsd.tl.fit(tissue, neighbors_key="mine_neighbors", **QUICK)
    assert (table.obsp["resolvi_connectivities"] != table.obsp["mine_connectivities"]).nnz == 0


@pytest.mark.parametrize("n_samples", [1, 3])
def test_integer_counts_are_whole_molecules(tissue, n_samples):
    rsd.tl.fit(tissue, integer_counts=True, n_samples=n_samples, **QUICK)
    table = tissue.tables["table"]
    drawn = table.layers["resolvi_counts"]
    assert drawn.dtype == np.int32 and drawn.min() >= 0 and (drawn - table.X).max() <= 0
    share = table.obs["resolvi_true"].to_numpy() * table.X.sum(1).A1
    # Molecules are drawn at the first draw of latent and shares, whose mean over 300 cells has an error of 2%.
    assert drawn.sum() == pytest.approx(np.nansum(share), rel=0.02 if n_samples == 1 else 0.06)


def test_the_progress_bar_ends_with_the_shares(tissue, capfd, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")  # a narrow terminal cuts them
    rsd.tl.fit(tissue, max_epochs=1)
    shown, table = capfd.readouterr().err, tissue.tables["table"]
    molecules = np.asarray(table.X.sum(axis=1)).ravel()
    own = (table.obs["resolvi_true"] * molecules).sum() / molecules.sum()
    assert f"{100 * own:.0f}% own, " in shown and "% from neighbors, " in shown


def test_stored_zeros_are_no_counts(tissue):
    table = tissue.tables["table"]
    again = table.copy()
    again.X.data[::7] = 0
    assert again.X.nnz == table.X.nnz
    stored = again.X.copy()
    rsd.tl.fit(again, rng=0, **QUICK)
    corrected = again.layers["resolvi_counts"]
    assert (corrected.toarray() <= stored.toarray()).all() and corrected.nnz == (stored.data > 0).sum()
    # The user's matrix is as it was.
    np.testing.assert_array_equal(again.X.data, stored.data)
    again.X.eliminate_zeros()
    rsd.tl.fit(again, rng=0, key_added="clean", **QUICK)
    np.testing.assert_array_equal(again.layers["clean_counts"].data, corrected.data)


def test_coordinates_that_are_no_coordinates_are_told():
    table = rsd.datasets.simulate_tissue(100, 30, rng=0, transcripts=False).tables["table"].copy()
    table.obsm["spatial"] = np.zeros((100, 2))
    with pytest.warns(UserWarning, match=r"All 100 cells are at the same position.*`spatial_key=`"):
        rsd.tl.fit(table, **QUICK)


def test_corrected_counts_are_at_most_the_counts():
    # Where a cell has no neighbors and hardly any background, nearly all is own, and rounding could make it more.
    sdata = rsd.datasets.simulate_tissue(200, 30, rng=0)
    table = sdata.tables["table"].copy()
    table.obs["alone"] = np.arange(200).astype(str)
    config = rsd.ModelConfig(share_prior=(0.999, 5e-4, 5e-4))
    with pytest.warns(UserWarning, match=r"No cell has a neighbor.*200 cells are in 200 sections.*obs\['alone'\]"):
        rsd.tl.fit(table, library_key="alone", n_samples=7, config=config, **QUICK)
    corrected = table.layers["resolvi_counts"]
    assert (corrected.data <= table.X.data).all() and (corrected.data > 0.99 * table.X.data).mean() > 0.5


@pytest.mark.parametrize(
    ("read", "setup"),
    [
        ("layers['resolvi_counts']", {"layer": "resolvi_counts"}),
        ("obs['resolvi_predicted']", {"batch_key": "resolvi_predicted"}),
        ("obs['resolvi_predicted']", {"labels_key": "resolvi_predicted"}),
        ("obs['resolvi_size']", {"size_factor_key": "resolvi_size"}),
        ("obsm['X_resolvi']", {"spatial_key": "X_resolvi"}),
    ],
)
def test_a_fit_does_not_replace_what_it_reads(tissue, read, setup):
    table = tissue.tables["table"].copy()
    table.layers["resolvi_counts"] = table.X.copy()
    table.obs["resolvi_predicted"] = table.obs["cell_type"]
    table.obs["resolvi_size"] = 10.0
    table.obsm["X_resolvi"] = table.obsm["spatial"].copy()
    before = snapshot(table)
    with pytest.raises(ValueError, match=re.escape(f"reads {read}, which results with key_added='resolvi' replace")):
        rsd.tl.fit(table, **setup, **QUICK)
    assert snapshot(table) == before
    rsd.tl.fit(table, key_added="second", **setup, **QUICK)
    assert before["layers"] | {"second_counts"} == snapshot(table)["layers"]


def test_counts_that_changed_after_the_fit_are_told_apart_from_wrong_input(fitted):
    table = fitted.tables["table"].copy()
    table.layers["counts"] = table.X.copy()
    table.X = table.X * 0.5
    for call in (
        lambda: rsd.tl.differential_expression(table, groupby="cell_type"),
        lambda: rsd.tl.latent(table),
        lambda: rsd.tl.sample_posterior(table, sites=["shares"], n_samples=2),
        lambda: rsd.tl.audit(table, "cell_type"),
        lambda: rsd.pl.spatial(table, table.var_names[0]),
    ):
        with pytest.raises(ValueError, match=r"The fit read its counts from `table.X`.*layer='counts'.*Put them back"):
            call()
    table.X = table.layers["counts"].copy()
    rsd.tl.latent(table)


def test_settings_that_would_be_passed_over_are_refused(tissue):
    table = tissue.tables["table"]
    for data, settings, message in (
        (tissue, {"spatial_key": "other"}, "spatial_key='other' would be ignored"),
        (table, {"coordinate_system": "micrometres"}, "is for a SpatialData object"),
        (table, {"key_added": ""}, "cannot name elements of a store"),
        (table, {"key_added": "a/b"}, "cannot name elements of a store"),
    ):
        with pytest.raises(ValueError, match=message):
            rsd.tl.fit(data, **settings, **QUICK)
    with pytest.raises(TypeError, match=r"`config` must be a ModelConfig, not dict"):
        rsd.tl.fit(table, config={"n_latent": 5}, **QUICK)
    assert "resolvi" not in table.uns


def test_the_number_of_neighbors_of_an_existing_graph_is_not_made_up(tissue):
    rsd.gr.neighbors(tissue, n_neighbors=4, key_added="mine")
    rsd.tl.fit(tissue, neighbors_key="mine_neighbors", **QUICK)
    assert "n_neighbors" not in tissue.tables["table"].uns["resolvi_neighbors"]["params"]


def test_poisson_likelihood_and_another_key(tissue):
    rsd.tl.fit(tissue, likelihood="poisson", key_added="run2", n_latent=4, **QUICK)
    table = tissue.tables["table"]
    assert table.obsm["X_run2"].shape == (300, 4)
    assert table.uns["run2"]["model_config"]["likelihood"] == "poisson"
    assert "resolvi" not in table.uns


def test_two_fits_side_by_side_both_work(fitted):
    rsd.tl.normalized_expression(fitted, show_progress_bar=False)
    first = fitted.tables["table"].layers["resolvi_expression"].copy()
    rsd.tl.fit(fitted, key_added="second", rng=9, **QUICK)
    rsd.tl.normalized_expression(fitted, show_progress_bar=False)
    np.testing.assert_array_equal(fitted.tables["table"].layers["resolvi_expression"], first)


def test_a_second_fit_replaces_all_of_the_first(fitted):
    rsd.tl.normalized_expression(fitted, show_progress_bar=False)
    rsd.tl.fit(fitted, **QUICK)
    assert "resolvi_expression" not in fitted.tables["table"].layers


def test_progress_bar_shows_elbo_and_rate(tissue, capsys):
    rsd.tl.fit(tissue, max_epochs=2)
    shown = capsys.readouterr().err
    assert "elbo=" in shown and "lr=" in shown and "Posterior" in shown
    rsd.tl.fit(tissue, **QUICK)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"table_key": "cells"}, KeyError, "cells.*table"),
        ({"layer": "raw"}, KeyError, "raw.*true_own"),
        ({"batch_key": "slide"}, KeyError, "slide.*sample"),
        ({"coordinate_system": "um"}, (KeyError, ValueError), "um.*global"),
        ({"neighbors_key": "nothing"}, KeyError, "nothing"),
        ({"n_neighbors": 0}, ValueError, "n_neighbors"),
        ({"n_samples": 0}, ValueError, "n_samples"),
        ({"likelihood": "zinb"}, ValueError, "likelihood.*'nb' or 'poisson'.*zinb"),
        ({"dispersion": "cell"}, ValueError, "dispersion.*gene-batch.*cell"),
        ({"max_epochs": 0}, ValueError, "max_epochs"),
        ({"rng": "seed"}, TypeError, "rng.*str"),
        ({"config": rsd.ModelConfig(), "n_latent": 3}, ValueError, "n_latent.*inside `config"),
        ({"training": rsd.TrainingConfig(), "max_epochs": 3}, ValueError, "max_epochs.*inside `training"),
    ],
)
def test_bad_arguments_are_refused_and_nothing_is_written(tissue, arguments, error, message):
    before = snapshot(tissue.tables["table"])
    with pytest.raises(error, match=message):
        rsd.tl.fit(tissue, **({"show_progress_bar": False} | arguments))
    assert snapshot(tissue.tables["table"]) == before


@pytest.mark.parametrize(
    ("value", "message"), [(-1.0, "negative"), (np.nan, "NaN|nan"), (np.inf, "inf"), (0.5, "whole|integer")]
)
def test_bad_counts_are_refused(tissue, value, message):
    tissue.tables["table"].X.data[5] = value
    with pytest.raises(ValueError, match=message):
        rsd.tl.fit(tissue, **QUICK)


def test_real_section_with_empty_cells(real_data):
    """A filtered, shuffled part of a real section, with cells that have no counts."""
    import spatialdata as sd

    sdata = sd.read_zarr(real_data("xenium_pancreas_roi.zarr"))
    table = sdata.tables["table"]
    total = table.X.sum(1).A1
    rng = np.random.default_rng(0)
    rows = rng.permutation(np.concatenate([np.flatnonzero(total == 0)[:5], np.flatnonzero(total > 0)[:1500]]))
    sdata.tables["table"] = table[rows].copy()
    with pytest.warns(UserWarning, match="5 of 1,505 cells have no counts"):
        rsd.tl.fit(sdata, **QUICK)
    fitted = sdata.tables["table"]
    assert (fitted.layers["resolvi_counts"] - fitted.X).max() <= 1e-4
    assert fitted.obs["resolvi_true"].isna().sum() == 5


@pytest.mark.parametrize("name", ["iss_ca1.h5ad", "cosmx_nsclc.h5ad"])
def test_real_tables(real_data, name):
    """Small panels of shallow cells, and a large panel over two fields of view."""
    table = ad.read_h5ad(real_data(name))
    table = table[table.X.sum(1).A1 > 0].copy()
    rsd.tl.fit(table, **QUICK)
    assert (table.layers["resolvi_counts"] - table.X).max() <= 1e-4
    np.testing.assert_allclose(table.obs[list(Keys().shares)].sum(axis=1), 1, atol=1e-5)


def test_what_is_no_result_is_not_replaced(tissue):
    """A prefix of the user's may meet names of theirs; neighbor graphs of that name are meant."""
    table = tissue.tables["table"]
    table.obs["cell_size"], table.uns["scan"] = 1.0, {"by": "hand"}
    table.layers["raw_counts"] = table.X.copy()
    for key, taken in (("cell", r"obs\['cell_size'\]"), ("scan", r"uns\['scan'\]"), ("raw", r"layers\['raw_counts'\]")):
        with pytest.raises(ValueError, match=rf"key_added='{key}' would replace {taken}, and the table has no fit"):
            rsd.tl.fit(tissue, key_added=key, **QUICK)
    assert set(table.uns["scan"]) == {"by"} and (table.obs["cell_size"] == 1).all()
    assert "cell_counts" in rsd.tl.fit(tissue, key_added="cell", copy=True, **QUICK).layers
    rsd.gr.neighbors(tissue, key_added="second")
    for _ in range(2):
        rsd.tl.fit(tissue, key_added="second", **QUICK)


def test_labels_of_another_tool_are_not_removed(tissue):
    """Users of scvi-tools write theirs where this package does; a fit without labels would remove them."""
    table = tissue.tables["table"]
    table.obs["resolvi_predicted"] = "T"
    for run in (
        lambda: rsd.tl.fit(tissue, **QUICK),
        lambda: rsd.tl.map_query(tissue, rsd.tl.fit(table, copy=True, **QUICK), show_progress_bar=False),
    ):
        with pytest.raises(ValueError, match=r"would replace obs\['resolvi_predicted'\], and .* no fit"):
            run()
    assert (table.obs["resolvi_predicted"] == "T").all() and "resolvi" not in table.uns


def test_tables_that_were_put_together_have_no_fit(tissue):
    table = tissue.tables["table"]
    rsd.tl.fit(tissue, **QUICK)
    both = ad.concat([table, table], uns_merge="first", pairwise=True, merge="first", index_unique="-")
    with pytest.raises(
        ValueError, match=r"The table has 600 cells, but the fit in `uns\['resolvi'\]` has 300: were tables"
    ):
        rsd.tl.latent(both, show_progress_bar=False)
    rsd.tl.latent(table[:100].copy(), show_progress_bar=False)


def test_counts_that_were_normalized_and_rounded_are_told(tissue):
    table = tissue.tables["table"]
    depth = np.asarray(table.X.sum(axis=1))
    rounded = sp.csr_matrix(np.rint(table.X.toarray() / depth.reshape(-1, 1) * 100))
    table.layers["rounded"] = rounded
    with pytest.warns(UserWarning, match=r"same number of molecules in `table\.layers\['rounded'\]` \(\d+ ± \d\.\d\)"):
        rsd.tl.fit(tissue, layer="rounded", **QUICK)


@pytest.mark.filterwarnings("ignore:Labels with a single cell")
def test_measurements_are_no_labels(tissue):
    tissue["table"].obs["age"] = np.random.default_rng(0).random(tissue["table"].n_obs).round(3)
    with pytest.warns(UserWarning, match=r"obs\['age'\] has \d+ categories for 300 cells: is it a measurement\?"):
        rsd.tl.fit(tissue, labels_key="age", **QUICK)


def test_measurements_are_no_categories(tissue):
    table = tissue.tables["table"]
    table.obs["volume"] = np.random.default_rng(0).random(table.n_obs)
    with pytest.warns(UserWarning, match=r"obs\['volume'\] has 300 categories for 300 cells: is it a measurement\?"):
        rsd.tl.fit(tissue, categorical_covariate_keys=["volume"], **QUICK)


def test_another_thread_may_read_models_meanwhile(tissue, fitted):
    """Nothing is drawn from torch's generator for it, which the training draws from."""
    rsd.tl.fit(tissue, rng=0, max_epochs=6, show_progress_bar=False)
    alone = tissue.tables["table"].obsm["X_resolvi"].copy()
    done = threading.Event()

    def read():
        while not done.is_set():
            rsd.tl.latent(fitted, copy=True, show_progress_bar=False)

    state, reader = torch.random.get_rng_state(), threading.Thread(target=read)
    reader.start()
    try:
        rsd.tl.fit(tissue, rng=0, max_epochs=6, show_progress_bar=False)
    finally:
        done.set()
        reader.join()
    np.testing.assert_array_equal(tissue.tables["table"].obsm["X_resolvi"], alone)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_counts_in_place_of_those_of_the_fit_are_told_wherever_they_are_read(tissue):
    table = tissue.tables["table"]
    rsd.tl.fit(tissue, labels_key="cell_type", **QUICK)
    rsd.tl.decontaminated_counts(tissue, fpr=0.1, show_progress_bar=False)
    table.X = table.layers["resolvi_decontaminated"].copy()
    for function in (rsd.tl.latent, rsd.tl.predict, rsd.tl.normalized_expression):
        with pytest.warns(UserWarning, match="do not seem to be those of the fit") as warned:
            function(tissue, copy=True, show_progress_bar=False)
        assert {warning.filename for warning in warned} == {__file__}


@pytest.mark.filterwarnings("ignore:20 of 300 cells have no counts")
@pytest.mark.parametrize("n_samples", [1, 3])
def test_cells_without_counts_have_no_label(tissue, n_samples):
    table = tissue.tables["table"]
    counts = table.X.toarray()
    counts[:20] = 0
    table.X = sp.csr_matrix(counts)
    with pytest.warns(UserWarning, match="20 of 300 cells have no counts"):
        rsd.tl.fit(tissue, labels_key="cell_type", n_samples=n_samples, **QUICK)
    assert table.obs["resolvi_predicted"].isna().to_numpy().tolist() == [True] * 20 + [False] * 280
    assert np.isnan(table.obsm["resolvi_probabilities"][:20]).all()
    np.testing.assert_allclose(table.obsm["resolvi_probabilities"][20:].sum(axis=1), 1, rtol=1e-5)
    model = rsd.ResolVI.from_table(tissue)
    predicted = rsd.tl.predict(tissue, n_samples=n_samples, copy=True, show_progress_bar=False)
    for found in (predicted, model.predict(n_samples=n_samples, show_progress_bar=False)):
        assert pd.isna(np.asarray(found, dtype=object)).sum() == 20
    with pytest.raises(ValueError, match="`soft=True` changes what `copy=True` returns"):
        rsd.tl.predict(tissue, soft=True, show_progress_bar=False)
    rsd.tl.niche_abundance(tissue)
    composition = np.array(table.obsm["resolvi_niche"])
    table.obsm["resolvi_probabilities"][:20] = 0
    rsd.tl.niche_abundance(tissue)
    np.testing.assert_array_equal(table.obsm["resolvi_niche"], composition)


def test_poisson_counts_have_no_overdispersion(tissue):
    rsd.tl.fit(tissue, likelihood="poisson", **QUICK)
    assert np.isposinf(tissue["table"].varm["resolvi_dispersion"]).all()


def test_the_graph_of_squidpy_is_not_replaced(tissue):
    table = tissue["table"]
    rsd.gr.neighbors(tissue, n_neighbors=4, key_added="spatial")
    rsd.tl.fit(tissue, key_added="spatial", **QUICK)  # it was ours
    for slot in ("obsp", "uns", "obs", "layers", "obsm", "varm"):
        part = getattr(table, slot)
        for name in [name for name in part if name is not None and name.startswith(("spatial_", "X_spatial"))]:
            del part[name]
    del table.uns["spatial"]
    import squidpy as sq

    table.obsm["place"] = np.random.default_rng(0).uniform(size=(table.n_obs, 2))
    sq.gr.spatial_neighbors_knn(table, spatial_key="place", n_neighs=6)
    before = table.obsp["spatial_connectivities"].copy()
    with pytest.raises(ValueError, match=r"would replace .*obsp\['spatial_distances'\]"):
        rsd.tl.fit(tissue, key_added="spatial", **QUICK)
    assert (table.obsp["spatial_connectivities"] != before).nnz == 0


def test_a_folder_for_checkpoints_may_be_a_path(tissue, tmp_path):
    training = rsd.TrainingConfig(max_epochs=2, checkpoint_dir=tmp_path / "checkpoints")
    rsd.tl.fit(tissue, training=training, show_progress_bar=False)
    tissue.write(tmp_path / "tissue.zarr")
    assert rsd.io.results_state(tmp_path / "tissue.zarr") == "complete"


@pytest.mark.filterwarnings("ignore:More than half of the own molecules")
def test_the_default_type_of_torch_does_not_matter(tissue):
    expected = tissue["table"].copy()
    rsd.tl.fit(expected, **QUICK)
    torch.set_default_dtype(torch.float64)
    try:
        rsd.tl.fit(tissue, **QUICK)
        rsd.tl.decontaminated_counts(tissue, show_progress_bar=False)
        rsd.tl.normalized_expression(tissue, n_samples=2, show_progress_bar=False)
        rsd.tl.sample_posterior(tissue, sites=["shares", "own_counts"], n_samples=2, show_progress_bar=False)
    finally:
        torch.set_default_dtype(torch.float32)
    assert tissue["table"].obsm["X_resolvi"].dtype == np.float32
    assert tissue["table"].layers["resolvi_counts"].dtype == np.float32


@pytest.mark.parametrize("dtype", [">i4", ">f8", "float16"])
@pytest.mark.parametrize("form", ["dense", "sparse"])
def test_numbers_of_any_kind(tissue, dtype, form):
    expected = tissue["table"].copy()
    rsd.tl.fit(expected, **QUICK)
    counts = expected.X.toarray().astype(dtype)
    if form == "sparse":
        csr = expected.X.tocsr()
        counts = sp.csr_matrix(csr.shape, dtype=np.float32)
        counts.indptr, counts.indices, counts.data = csr.indptr, csr.indices, csr.data.astype(dtype)
    table = tissue["table"].copy()
    table.layers["counts"] = counts
    rsd.tl.fit(table, layer="counts", **QUICK)
    found = table.layers["resolvi_counts"]
    np.testing.assert_allclose(found.toarray(), expected.layers["resolvi_counts"].toarray(), rtol=1e-4, atol=1e-4)
    assert table.layers["counts"].dtype == np.dtype(dtype)


def test_sections_in_different_units_are_told():
    sdata = rsd.datasets.simulate_tissue(n_cells=150, n_genes=20, n_samples=3, rng=5, transcripts=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        rsd.tl.fit(sdata, max_epochs=1, show_progress_bar=False)
    set_transformation(sdata["cells_2"], Scale([1 / 0.2125] * 2, axes=("x", "y")), "global")
    with pytest.warns(UserWarning, match="in section 'cells_2' and .* different units"):
        rsd.tl.fit(sdata, max_epochs=1, show_progress_bar=False)


def test_a_graph_may_join_the_regions_of_a_table_without_its_elements():
    """As of fields of view that are one piece of tissue."""
    table = rsd.datasets.simulate_tissue(n_cells=120, n_genes=20, n_samples=2, rng=5, transcripts=False)["table"]
    one = table.copy()
    one.obs["slide"] = "one"
    graph = rsd.gr.neighbors(one, n_neighbors=4, library_key="slide", copy=True)
    table.obsp["sq_connectivities"], table.obsp["sq_distances"] = graph.connectivities, graph.distances
    table.uns["sq"] = {"connectivities_key": "sq_connectivities", "distances_key": "sq_distances", "params": {}}
    rsd.tl.fit(table, neighbors_key="sq", max_epochs=1, show_progress_bar=False)
    region = table.obs["region"].to_numpy()
    first, second = table.obsp["resolvi_connectivities"].nonzero()
    assert (region[first] != region[second]).any()


@pytest.mark.parametrize("key", ["RESOLVI", "mine", "Mine"])
def test_names_that_differ_in_case_only_are_refused(fitted, key):
    """They can be in a table, but in no store."""
    table = fitted.tables["table"]
    table.obs["MINE_true"] = 1.0
    before = set(table.uns)
    with pytest.raises(ValueError, match="in upper and lower case only.*another `key_added=`"):
        rsd.tl.fit(fitted, key_added=key, max_epochs=1, show_progress_bar=False)
    assert set(table.uns) == before


def test_what_would_be_ignored_is_refused(tissue):
    with pytest.raises(ValueError, match="unlabeled_category='none' would be ignored without `labels_key=`"):
        rsd.tl.fit(tissue, unlabeled_category="none", max_epochs=1, show_progress_bar=False)
    with pytest.raises(TypeError, match=r"`unlabeled_category` must be one value, .*not \['x', 'y'\] \(list\)"):
        rsd.tl.fit(tissue, labels_key="cell_type", unlabeled_category=["x", "y"], max_epochs=1)
    del tissue.tables["table"].uns["spatialdata_attrs"]
    with pytest.raises(
        ValueError,
        match="coordinate_system='slide' is for .* but the table annotates no",
    ):
        rsd.tl.fit(tissue, coordinate_system="slide", max_epochs=1, show_progress_bar=False)
