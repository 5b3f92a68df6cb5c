"""Counts that scanpy transforms in place are noticed, and results that were given away are the user's own."""

from __future__ import annotations

import numpy as np
import pytest
import scanpy as sc
import spatialdata as sd

import resolvi_sd as rsd

QUIET = {"show_progress_bar": False}
CHANGED = "counts have been changed in place since they were read, in .* cells.*table.layers"
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


def normalise(table, layer=None):
    sc.pp.normalize_total(table, layer=layer)
    sc.pp.log1p(table, layer=layer)


@pytest.fixture(scope="module")
def tissue():
    sdata = rsd.datasets.simulate_tissue(n_cells=300, n_genes=30, rng=0)
    rsd.tl.fit(sdata, max_epochs=5, **QUIET)
    return sdata


@pytest.fixture
def model(tissue):
    adata = tissue.tables["table"].copy()
    rsd.ResolVI.setup_anndata(adata)
    model = rsd.ResolVI(adata)
    model.train(2, **QUIET)
    return model


@pytest.mark.parametrize(
    "ask",
    [
        lambda model: model.train(2, **QUIET),
        lambda model: model.get_decontaminated_counts(**QUIET),
        lambda model: model.get_normalized_expression(n_samples=5, weights="importance", **QUIET),
    ],
)
def test_a_model_does_not_go_on_with_them(model, ask):
    before = model.get_corrected_counts()
    normalise(model.adata)
    with pytest.raises(ValueError, match=CHANGED):
        ask(model)
    np.testing.assert_array_equal(model.get_corrected_counts().toarray(), before.toarray())


@pytest.mark.parametrize("way", ["loaded", "from_table", "query"])
def test_nor_does_one_that_has_no_results_yet(model, tissue, tmp_path, way):
    table = tissue.tables["table"].copy()
    if way == "loaded":
        model.save(tmp_path / "model")
        model = rsd.ResolVI.load(tmp_path / "model", table)
    elif way == "from_table":
        model = rsd.ResolVI.from_table(table)
    else:
        model = rsd.ResolVI.load_query_data(table, model)
    normalise(table)
    for ask in (model.get_corrected_counts, model.get_shares, model.write):
        with pytest.raises(ValueError, match=CHANGED):
            ask()


def test_results_of_the_object_are_copies(model):
    before = model.get_corrected_counts()
    model.write()
    normalise(model.adata, layer="resolvi_counts")
    model.adata.obsm["X_resolvi"][:] = 0
    given = model.get_corrected_counts()
    given.data[:] = 0
    np.testing.assert_array_equal(model.get_corrected_counts().toarray(), before.toarray())
    again = model.adata.copy()
    model.write(again)
    np.testing.assert_array_equal(again.layers["resolvi_counts"].toarray(), before.toarray())
    assert np.abs(again.obsm["X_resolvi"]).max() > 0


def test_what_is_computed_later_has_counts_of_its_own(tissue, monkeypatch):
    table = tissue.tables["table"].copy()
    sdata = sd.SpatialData(shapes=dict(tissue.shapes), points=dict(tissue.points), tables={"table": table})
    columns = ["resolvi_true", "resolvi_diffusion", "resolvi_background"]
    transcripts = rsd.tl.assign_transcripts(sdata, copy=True)
    expected = transcripts[columns].compute()
    asked = {"sites": ["own_counts", "expression"], "n_samples": 2}
    draws = rsd.tl.sample_posterior(sdata, **asked, **QUIET)
    monkeypatch.setattr("resolvi_sd._analysis._draws._LARGE", 1)
    later = rsd.tl.sample_posterior(sdata, **asked, **QUIET)
    normalise(table)
    np.testing.assert_array_equal(transcripts[columns].compute(), expected)
    for name in draws:
        np.testing.assert_array_equal(later[name].to_numpy(), draws[name].to_numpy())


def test_a_layer_of_the_fit_that_was_transformed_is_not_summed(tissue):
    table = tissue.tables["table"].copy()
    table.layers["counts"] = table.X.copy()
    rsd.tl.fit(table, layer="counts", max_epochs=2, **QUIET)
    table.X = table.layers["resolvi_counts"]  # the same matrix
    normalise(table)
    said = r"`table.layers\['resolvi_counts'\]` has up to .* more than was counted.*use a copy"
    with pytest.raises(ValueError, match=said):
        rsd.tl.pseudobulk(table, groupby="cell_type")
    with pytest.raises(ValueError, match=said):
        rsd.tl.differential_expression(table, groupby="cell_type", group1="type_0", **QUIET)
    with pytest.raises(ValueError, match=said):
        rsd.tl.audit(table, "cell_type", **QUIET)


@pytest.mark.filterwarnings("ignore:The counts in `table.X` do not seem")
def test_own_molecules_do_not_hang_on_the_layer(tissue):
    table = tissue.tables["table"].copy()
    own = np.asarray(table.layers["resolvi_counts"].sum(axis=1)).ravel()
    table.layers["resolvi_counts"].data /= 2
    rsd.tl.normalized_expression(table, library_size="latent", **QUIET)
    np.testing.assert_allclose(table.layers["resolvi_expression"].sum(axis=1), own, rtol=1e-4)
