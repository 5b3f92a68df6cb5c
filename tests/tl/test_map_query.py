"""Transfer between tables: labels near those of a fit on both, and the reference left alone."""

import warnings

import anndata as ad
import numpy as np
import pytest
import scanpy as sc

import resolvi_sd as rsd

QUIET = {"show_progress_bar": False}


def samples(rng=0):
    table = rsd.datasets.simulate_tissue(
        n_cells=900, n_genes=60, n_samples=2, n_types=4, n_rare=0, rng=rng, transcripts=False
    ).tables["table"]
    return [table[table.obs["sample"] == name].copy() for name in table.obs["sample"].cat.categories]


@pytest.mark.parametrize("max_epochs", [0, 3])
def test_labels_are_transferred(max_epochs):
    reference, query = samples()
    rsd.tl.fit(reference, labels_key="cell_type", batch_key="sample", max_epochs=25, **QUIET)
    before = {k: v.copy() for k, v in reference.uns["resolvi"]["weights"].items()}
    rsd.tl.map_query(query, reference, max_epochs=max_epochs, **QUIET)
    truth = query.obs["cell_type"].astype(str)
    assert (query.obs["resolvi_predicted"].astype(str) == truth).mean() > 0.8
    assert (query.layers["resolvi_counts"] - query.X).max() <= 1e-4
    for name, value in before.items():
        np.testing.assert_array_equal(reference.uns["resolvi"]["weights"][name], value)
    # The query is a fitted table itself now.
    rsd.tl.normalized_expression(query, **QUIET)
    assert list(query.uns["resolvi"]["batches"]) == [*reference.obs["sample"].unique(), *query.obs["sample"].unique()]


@pytest.mark.parametrize("freeze", [True, False])
def test_what_was_learned_on_the_reference_is_kept_unless_asked(freeze):
    reference, query = samples()
    rsd.tl.fit(reference, max_epochs=2, **QUIET)
    before = {k: v.copy() for k, v in reference.uns["resolvi"]["weights"].items()}
    rsd.tl.map_query(query, reference, max_epochs=2, freeze=freeze, **QUIET)
    known, learned = (table.uns["resolvi"]["weights"] for table in (reference, query))
    assert all(np.array_equal(learned[name], before[name]) for name in before) == freeze
    assert all(np.array_equal(known[name], before[name]) for name in before)


def test_a_query_has_its_own_nearest_neighbors():
    """Also where the reference was fitted on a graph that was there before, and in both faces."""
    reference, query = samples()
    rsd.gr.neighbors(reference, n_neighbors=4, key_added="mine")
    rsd.tl.fit(reference, neighbors_key="mine_neighbors", n_neighbors=6, max_epochs=2, **QUIET)
    mapped = rsd.ResolVI.load_query_data(query.copy(), rsd.ResolVI.from_table(reference))
    mapped.write()
    rsd.tl.map_query(query, reference, **QUIET)
    expected = rsd.gr.neighbors(query, n_neighbors=6, copy=True).connectivities
    for table in (query, mapped.adata):
        assert (table.obsp["resolvi_connectivities"] != expected).nnz == 0


def test_a_query_that_is_the_reference_gets_its_latent():
    reference, _ = samples()
    rsd.tl.fit(reference, max_epochs=3, **QUIET)
    query = reference.copy()
    rsd.tl.map_query(query, reference, **QUIET)
    np.testing.assert_allclose(query.obsm["X_resolvi"], reference.obsm["X_resolvi"], atol=1e-5)


def test_genes_are_matched_by_name():
    """The order of the genes does not matter, extra ones change nothing, and missing ones are reported."""
    reference, query = samples()
    rsd.tl.fit(reference, batch_key="sample", max_epochs=3, **QUIET)
    expected = rsd.tl.map_query(query, reference, copy=True, **QUIET)
    assert "resolvi" not in query.uns

    extra = query[:, :1].copy()
    extra.var_names = ["control"]
    other = ad.concat([extra, query[:, ::-1].copy()], axis=1, merge="same")
    other.uns = {}
    found = rsd.tl.map_query(other, reference, copy=True, **QUIET)
    assert list(found.var_names) == list(reference.var_names)
    np.testing.assert_allclose(found.obsm["X_resolvi"], expected.obsm["X_resolvi"], atol=1e-5)
    np.testing.assert_allclose(
        found.layers["resolvi_counts"].toarray(), expected.layers["resolvi_counts"].toarray(), atol=1e-4
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        lacking = rsd.tl.map_query(query[:, 1:].copy(), reference, copy=True, **QUIET)
    assert any("1 of 60 genes of the reference are not in the query" in str(w.message) for w in caught)
    assert lacking.layers["resolvi_counts"][:, 0].nnz == 0


@pytest.mark.filterwarnings("ignore:.*genes")
def test_cells_that_lack_genes_keep_their_kind(tmp_path):
    """With a third of the genes, most labels are still right, more than if the other genes counted as zero."""
    sdata = rsd.datasets.simulate_tissue(n_cells=900, n_genes=60, n_types=6, n_rare=0, rng=0, transcripts=False)
    reference = sdata.tables["table"]
    del reference.uns["spatialdata_attrs"]
    rsd.tl.fit(reference, labels_key="cell_type", max_epochs=40, show_progress_bar=False)
    genes = np.random.default_rng(0).permutation(60)[:20]
    truth = reference.obs["cell_type"].astype(str).to_numpy()
    with_all = rsd.tl.map_query(reference.copy(), reference, copy=True, show_progress_bar=False)
    query = rsd.tl.map_query(reference[:, genes].copy(), reference, copy=True, show_progress_bar=False)
    zeros = with_all.copy()
    zeros.X = zeros.X.toarray() * np.isin(np.arange(60), genes)
    zeros = rsd.tl.map_query(zeros, reference, copy=True, show_progress_bar=False)
    right, some, poor = ((table.obs["resolvi_predicted"] == truth).mean() for table in (with_all, query, zeros))
    assert right > 0.95 and some > 0.75 and poor < some - 0.1
    query.write_h5ad(tmp_path / "query.h5ad")
    again = ad.read_h5ad(tmp_path / "query.h5ad")
    np.testing.assert_allclose(
        rsd.tl.latent(again, copy=True, show_progress_bar=False), query.obsm["X_resolvi"], atol=1e-4
    )


@pytest.mark.filterwarnings("ignore:.*genes")
def test_shares_of_cells_that_lack_genes_are_those_with_all_genes():
    """With half of the genes, cells have as much from elsewhere, and as much of it is recognized cell by cell."""
    tissue = {"n_cells": 1600, "n_genes": 80, "n_samples": 2, "regime": "merfish", "transcripts": False}
    table = rsd.datasets.simulate_tissue(**tissue, rng=0).tables["table"]
    reference, query = (table[table.obs["sample"] == name].copy() for name in table.obs["sample"].cat.categories)
    rsd.tl.fit(reference, max_epochs=60, **QUIET)
    mean, r = {}, {}
    for genes, part in {"all": query, "half": query[:, ::2].copy()}.items():
        found = rsd.tl.map_query(part, reference, copy=True, **QUIET).obs["resolvi_true"].to_numpy()
        truth = np.ravel(part.layers["true_own"].sum(axis=1)) / np.ravel(part.X.sum(axis=1))
        known = np.isfinite(found)
        mean[genes], r[genes] = found[known].mean(), np.corrcoef(found[known], truth[known])[0, 1]
    assert mean["half"] == pytest.approx(mean["all"], abs=0.02)
    assert r["half"] > r["all"] - 0.05


@pytest.mark.filterwarnings("ignore:.*genes")
@pytest.mark.parametrize("freeze", [True, False])
def test_training_on_a_query_does_not_unlearn_the_genes_that_it_lacks(freeze):
    """They counted as measured zeros: nothing was left of them in the profiles, and all else was background."""
    tissue = {"n_cells": 1600, "n_genes": 80, "n_samples": 2, "regime": "high_background", "transcripts": False}
    table = rsd.datasets.simulate_tissue(**tissue, rng=0).tables["table"]
    reference, query = (table[table.obs["sample"] == name].copy() for name in table.obs["sample"].cat.categories)
    setup = {"batch_key": "sample"} if freeze else {}
    rsd.tl.fit(reference, max_epochs=60, **setup, **QUIET)
    lacking = np.arange(1, 80, 2)
    truth = query.layers["true_own"][:, ::2].sum() / query.X[:, ::2].sum()
    own, error = {}, {}
    for genes, part in {"all": query.copy(), "half": query[:, ::2].copy()}.items():
        mapped = rsd.tl.map_query(part, reference, freeze=freeze, max_epochs=25, copy=True, **QUIET)
        kept = mapped[:, query.var_names[::2]]
        own[genes] = kept.layers["resolvi_counts"].sum() / query.X[:, ::2].sum()
        rsd.tl.normalized_expression(mapped, library_size=1, **QUIET)
        mass = mapped.layers["resolvi_expression"][:, lacking].sum(axis=1)
        expected = np.asarray(query.layers["true_profile"])[:, lacking].sum(axis=1)
        error[genes] = abs(mass.mean() - expected.mean())
    assert error["half"] < (0.06 if freeze else 0.1)
    assert abs(own["half"] - truth) < abs(own["all"] - truth) + 0.05


def test_a_new_table_shares_nothing_with_the_query():
    reference, query = samples()
    rsd.tl.fit(reference, max_epochs=2, **QUIET)
    query = query[:, ::-1].copy()
    query.uns["settings"] = {"kept": 1}
    before = query.obsm["spatial"].copy()
    mapped = rsd.tl.map_query(query, reference, copy=True, **QUIET)
    mapped.obsm["spatial"] *= 0
    mapped.uns["settings"]["kept"] = 2
    np.testing.assert_array_equal(query.obsm["spatial"], before)
    assert query.uns["settings"] == {"kept": 1}


def test_places_that_would_be_ignored_are_refused():
    reference, query = samples()
    rsd.tl.fit(reference, max_epochs=2, **QUIET)
    with pytest.raises(ValueError, match="coordinate_system='slide' is for .* but `data` is an AnnData"):
        rsd.tl.map_query(query, reference, coordinate_system="slide", **QUIET)


def test_a_query_with_other_genes_gets_a_new_table(caplog):
    reference, query = (
        rsd.datasets.simulate_tissue(n_cells=300, n_genes=40, rng=seed, transcripts=False) for seed in (0, 1)
    )
    rsd.tl.fit(reference, max_epochs=2, **QUIET)
    query.tables["table"] = query.tables["table"][:, ::-1].copy()
    with caplog.at_level("INFO", logger="resolvi_sd"):
        rsd.tl.map_query(query, reference, **QUIET)
    assert "in a new table with the genes of the reference, 'table_resolvi'" in caplog.text
    assert "resolvi" not in query.tables["table"].uns
    mapped = query.tables["table_resolvi"]
    assert list(mapped.var_names) == list(reference.tables["table"].var_names)
    assert mapped.uns["spatialdata_attrs"] == query.tables["table"].uns["spatialdata_attrs"]
    rsd.tl.normalized_expression(query, table_key="table_resolvi", **QUIET)
    with pytest.raises(ValueError, match=r"table 'table_resolvi' already.*table_added="):
        rsd.tl.map_query(query, reference, **QUIET)


@pytest.mark.filterwarnings("ignore:.*genes of the reference are not in the query")
@pytest.mark.filterwarnings("ignore:The correction removed")
@pytest.mark.filterwarnings("ignore:The '(future.infer_string|mode.chained_assignment)' option:DeprecationWarning")
@pytest.mark.parametrize("as_object", [False, True])
def test_genes_that_a_query_lacks_are_neither_compared_nor_summed_nor_judged(as_object, tmp_path):
    """They were called in 32 of 90 cases: the decoder expects them, and the table has none."""
    reference, query = (
        rsd.datasets.simulate_tissue(n_cells=500, n_genes=40, rng=0, transcripts=False)["table"] for _ in range(2)
    )
    query.obs_names = "q" + query.obs_names
    lacking = [str(name) for name in reference.var_names[[3, 11, 20, 21]]]
    known = [name for name in reference.var_names if name not in lacking]
    fewer = query[:, known].copy()
    if as_object:
        rsd.ResolVI.setup_anndata(reference)
        model = rsd.ResolVI(reference)
        model.train(max_epochs=15, show_progress_bar=False)
        with pytest.warns(UserWarning, match="is a copy"):
            mapped = rsd.ResolVI.load_query_data(fewer, model)
        mapped.save(tmp_path / "model", save_anndata=True)
        mapped = rsd.ResolVI.load(tmp_path / "model")
        de = mapped.differential_expression(groupby="cell_type", show_progress_bar=False)
        bulk = mapped.pseudobulk("cell_type", min_cells=1)
        mapped.write()
        table = mapped.adata
    else:
        rsd.tl.fit(reference, max_epochs=15, show_progress_bar=False)
        rsd.tl.map_query(fewer, reference, copy=True, show_progress_bar=False).write_h5ad(tmp_path / "mapped.h5ad")
        table = ad.read_h5ad(tmp_path / "mapped.h5ad")
        de = rsd.tl.differential_expression(table, "cell_type", copy=True, show_progress_bar=False)
        bulk = rsd.tl.pseudobulk(table, "cell_type", min_cells=1)
    assert list(table.uns["resolvi"]["unmeasured"]) == lacking and table.n_vars == 40
    n_groups = table.obs["cell_type"].nunique()
    assert de["gene"].tolist() == known * n_groups and de["lfc_mean"].notna().all()
    assert bulk.var_names.tolist() == known
    rsd.tl.differential_expression(table, "cell_type", show_progress_bar=False)
    assert set(sc.get.rank_genes_groups_df(table, group=None, key="resolvi_rank_genes_groups")["names"]) == set(known)
    # What was not measured would seem to be expressed by the reference only.
    single = ad.AnnData(query.X.copy(), obs=query.obs[["cell_type"]].copy(), var=query.var)
    settings = {"reference": single, "reference_labels_key": "cell_type", "copy": True, "show_progress_bar": False}
    found = rsd.tl.audit(table, "cell_type", **settings).set_index(["metric", "layer"])["value"]
    expected = rsd.metrics.reference_fidelity(
        table[:, known].X,
        table.obs["cell_type"],
        known,
        reference_counts=single.X,
        reference_labels=single.obs["cell_type"],
        reference_gene_names=single.var_names,
    )
    assert found["reference_cosine", "raw"] == pytest.approx(expected.cosine)


def test_bad_queries():
    reference, query = samples()
    with pytest.raises(KeyError, match=r"Please run .*tl\.fit"):
        rsd.tl.map_query(query, reference, **QUIET)
    rsd.tl.fit(reference, batch_key="sample", max_epochs=2, **QUIET)
    with pytest.raises(ValueError, match=r"in another order.*query\[:, reference.var_names\].*copy=True"):
        rsd.tl.map_query(query[:, ::-1].copy(), reference, **QUIET)
    with pytest.raises(ValueError, match=r"59 genes of the query are not the 60 of the reference.*copy=True"):
        rsd.tl.map_query(query[:, 1:].copy(), reference, **QUIET)
    stranger = query.copy()
    stranger.var_names = [f"probe{i}" for i in range(60)]
    with pytest.raises(ValueError, match="shares no gene with the reference"):
        rsd.tl.map_query(stranger, reference, copy=True, **QUIET)
    with pytest.raises(ValueError, match="max_epochs"):
        rsd.tl.map_query(query, reference, max_epochs=-1, **QUIET)
    del query.obs["sample"]
    with pytest.raises(KeyError, match=r"batch_key='sample' is not in `query.obs`.*The reference was fitted with this"):
        rsd.tl.map_query(query, reference, **QUIET)
    assert "resolvi" not in query.uns


def test_columns_that_a_query_needs():
    reference, query = samples()
    reference.obs["chemistry"] = "v1"
    rsd.tl.fit(reference, library_key="sample", categorical_covariate_keys=["chemistry"], max_epochs=1, **QUIET)
    with pytest.raises(KeyError, match=r"_keys='chemistry'.*add it, e.g. `query.obs\['chemistry'\]"):
        rsd.tl.map_query(query, reference, **QUIET)
    query.obs["chemistry"] = "v1"
    query.obs["slide"] = query.obs.pop("sample")
    with pytest.raises(KeyError, match=r"library_key='sample' is not in .*name another, `library_key=`, or add"):
        rsd.tl.map_query(query, reference, **QUIET)
    rsd.tl.map_query(query, reference, library_key="slide", **QUIET)


def test_the_prefix_of_the_reference_may_be_another():
    reference, query = samples()
    rsd.tl.fit(reference, max_epochs=1, key_added="atlas", **QUIET)
    rsd.tl.fit(query, max_epochs=1, **QUIET)
    before = query.obsm["X_resolvi"].copy()
    rsd.tl.map_query(query, reference, key_added="mapped", reference_key_added="atlas", **QUIET)
    np.testing.assert_array_equal(query.obsm["X_resolvi"], before)
    expected = rsd.tl.map_query(query, reference, key_added="atlas", copy=True, **QUIET)
    np.testing.assert_array_equal(query.obsm["X_mapped"], expected.obsm["X_atlas"])
    with pytest.raises(KeyError, match="other"):
        rsd.tl.map_query(query, reference, reference_key_added="other", **QUIET)


def test_names_of_new_tables_are_checked_first():
    reference, _ = samples()
    query = rsd.datasets.simulate_tissue(n_cells=100, n_genes=60, transcripts=False)
    query.tables["table"] = query.tables["table"][:, ::-1].copy()
    rsd.tl.fit(reference, max_epochs=1, **QUIET)
    with pytest.raises(ValueError, match="table_added='my table' cannot name elements of a store"):
        rsd.tl.map_query(query, reference, table_added="my table", max_epochs=100_000, **QUIET)


@pytest.mark.slow
def test_mpoa_animals(real_data):
    """Labels of a slice of the preoptic area are found from another slice, within 0.1 of a fit that saw them all."""
    table = ad.read_h5ad(real_data("merfish_mpoa.h5ad"))
    table = table[(table.X.sum(1).A1 > 5) & (table.obs["cell_type"] != "Ambiguous").to_numpy()].copy()
    names = table.obs["sample"].value_counts().index[:2]
    rows = [np.flatnonzero(table.obs["sample"] == name)[:2000] for name in names]
    reference, query = (table[some].copy() for some in rows)
    both = table[np.concatenate(rows)].copy()
    settings = {"labels_key": "cell_type", "max_epochs": 20, **QUIET}
    rsd.tl.fit(reference, **settings)
    rsd.tl.map_query(query, reference, **QUIET)
    rsd.tl.fit(both, library_key="sample", **settings)
    transferred, trained_on = (
        (t.obs["resolvi_predicted"].astype(str) == t.obs["cell_type"].astype(str)).mean()
        for t in (query, both[len(rows[0]) :])
    )
    assert transferred > 0.85 and transferred > trained_on - 0.1


def test_the_reference_is_no_query_of_its_own():
    reference, _ = samples()
    rsd.tl.fit(reference, max_epochs=1, **QUIET)
    before = reference.layers["resolvi_counts"].copy()
    with pytest.raises(ValueError, match="The query is the table of the reference, whose fit would be replaced"):
        rsd.tl.map_query(reference, reference, **QUIET)
    assert abs(reference.layers["resolvi_counts"] - before).max() == 0
    assert "resolvi" in rsd.tl.map_query(reference, reference, copy=True, **QUIET).uns


def test_counts_of_the_query_may_be_in_another_layer():
    reference, query = samples()
    reference.layers["counts"] = reference.X.copy()
    rsd.tl.fit(reference, layer="counts", max_epochs=1, **QUIET)
    with pytest.raises(KeyError, match=r"layer='counts' is not in `query\.layers`.*layer='X'"):
        rsd.tl.map_query(query, reference, **QUIET)
    rsd.tl.map_query(query, reference, layer="X", **QUIET)
    assert "layer" not in query.uns["resolvi"]["setup"]
    # What reads the counts again finds them.
    rsd.tl.latent(query, **QUIET)
    with pytest.raises(KeyError, match=r"layer='other' is not in `query\.layers`.*layer='X' reads X"):
        rsd.tl.map_query(query, reference, layer="other", **QUIET)


def test_a_query_that_was_not_trained_has_no_course_to_draw():
    reference, query = samples()
    rsd.tl.fit(reference, max_epochs=2, **QUIET)
    rsd.tl.map_query(query, reference, **QUIET)
    with pytest.raises(ValueError, match="There was no training on these cells"):
        rsd.pl.training(query)
    rsd.tl.map_query(query, reference, max_epochs=1, **QUIET)
    rsd.pl.training(query)


@pytest.mark.filterwarnings("ignore:The '(future.infer_string|mode.chained_assignment)' option:DeprecationWarning")
def test_a_query_whose_cells_are_points_may_have_other_genes():
    import spatialdata as sd
    from spatialdata.models import PointsModel, TableModel

    reference, query = samples()
    rsd.tl.fit(reference, max_epochs=1, **QUIET)
    plain = ad.AnnData(query.X[:, :-5], obs=query.obs[[]].copy(), var=query.var.iloc[:-5][[]].copy())
    plain.obs["region"], plain.obs["id"] = "centers", np.arange(query.n_obs)
    plain.obs["region"] = plain.obs["region"].astype("category")
    sdata = sd.SpatialData(
        points={"centers": PointsModel.parse(query.obsm["spatial"])},
        tables={"table": TableModel.parse(plain, region="centers", region_key="region", instance_key="id")},
    )
    with pytest.warns(UserWarning, match="5 of 60 genes of the reference are not in the query"):
        rsd.tl.map_query(sdata, reference, **QUIET)
    assert sdata.tables["table_resolvi"].n_vars == 60


def test_a_training_is_said_once():
    reference, query = samples()
    rsd.tl.fit(reference, batch_key="sample", max_epochs=2, **QUIET)
    settings = rsd.TrainingConfig(max_epochs=2)
    one, other = (
        rsd.tl.map_query(query, reference, copy=True, **training, **QUIET)
        for training in ({"max_epochs": 2}, {"training": settings})
    )
    found, expected = (table.layers["resolvi_counts"].toarray() for table in (one, other))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert len(one.uns["resolvi"]["history"]["epoch"]) == 2
    with pytest.raises(ValueError, match="`max_epochs` inside `training="):
        rsd.tl.map_query(query, reference, max_epochs=2, training=settings, **QUIET)
    with pytest.raises(TypeError, match="`training` must be a TrainingConfig, not int"):
        rsd.tl.map_query(query, reference, training=2, **QUIET)
    with pytest.raises(ValueError, match="`freeze=False` affects training only"):
        rsd.tl.map_query(query, reference, freeze=False, **QUIET)


@pytest.mark.slow
def test_a_query_can_be_trained_until_it_has_converged():
    reference, query = samples()
    rsd.tl.fit(reference, batch_key="sample", max_epochs=2, **QUIET)
    rsd.tl.map_query(query, reference, max_epochs=None, **QUIET)
    assert len(query.uns["resolvi"]["history"]["epoch"]) > 20


def test_a_query_names_its_columns_itself():
    reference, query = samples()
    rsd.tl.fit(reference, batch_key="sample", max_epochs=2, **QUIET)
    model = rsd.ResolVI.from_table(reference)
    expected = rsd.ResolVI.load_query_data(query.copy(), model).get_corrected_counts()
    query.obs["slide"] = query.obs.pop("sample")
    query.obsm["place"] = query.obsm.pop("spatial")
    mapped = rsd.ResolVI.load_query_data(query, model, batch_key="slide", spatial_key="place")
    np.testing.assert_allclose(mapped.get_corrected_counts().toarray(), expected.toarray(), rtol=1e-4, atol=1e-4)


def test_a_checkpoint_is_that_of_its_reference(tmp_path):
    reference, query = samples()
    training = rsd.TrainingConfig(max_epochs=2, checkpoint_dir=tmp_path)
    rsd.tl.fit(reference, max_epochs=2, **QUIET)
    first = rsd.tl.map_query(query, reference, training=training, copy=True, **QUIET)
    again = rsd.tl.map_query(query, reference, training=training, copy=True, **QUIET)
    np.testing.assert_array_equal(again.obsm["X_resolvi"], first.obsm["X_resolvi"])
    rsd.tl.fit(reference, max_epochs=3, **QUIET)
    with pytest.raises(ValueError, match="of another training.* another reference"):
        rsd.tl.map_query(query, reference, training=training, copy=True, **QUIET)


def test_warnings_of_a_query_point_to_the_call():
    reference, query = samples()
    rsd.tl.fit(reference, max_epochs=1, **QUIET)
    counts = query.X.toarray()
    counts[:3] = 0
    query.X = counts
    model = rsd.ResolVI.from_table(reference)
    for call in (
        lambda: rsd.tl.map_query(query, reference, max_epochs=0, copy=True, **QUIET),
        lambda: rsd.ResolVI.load_query_data(query, model),
    ):
        with pytest.warns(UserWarning, match="3 of .* cells have no counts") as warned:
            call()
        assert {warning.filename for warning in warned} == {__file__}


@pytest.mark.filterwarnings("ignore:The '(future.infer_string|mode.chained_assignment)' option:DeprecationWarning")
def test_columns_of_genes_come_along_and_can_be_written(tmp_path):
    reference = rsd.datasets.simulate_tissue(n_cells=150, n_genes=20, rng=0, transcripts=False).tables["table"]
    rsd.tl.fit(reference, max_epochs=1, show_progress_bar=False)
    query = reference[:, ::-1].copy()
    query.var["variable"] = np.arange(query.n_vars) % 2 == 0
    mapped = rsd.tl.map_query(query, reference, copy=True, show_progress_bar=False)
    assert mapped.var["variable"].equals(query.var["variable"].reindex(reference.var_names))
    with pytest.warns(UserWarning, match="genes of the reference"):
        mapped = rsd.tl.map_query(query[:, :15].copy(), reference, copy=True, show_progress_bar=False)
    mapped.write_h5ad(tmp_path / "mapped.h5ad")
