"""A fitted model whose table has other genes, cells or counts now: questions are refused, or there is a warning."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import resolvi_sd as rsd

QUIET = {"show_progress_bar": False}
OF_TABLE = {
    "tl.latent": lambda table: rsd.tl.latent(table, **QUIET),
    "tl.predict": lambda table: rsd.tl.predict(table, **QUIET),
    "tl.sample_posterior": lambda table: rsd.tl.sample_posterior(table, n_samples=1, **QUIET),
    "tl.differential_expression": lambda table: rsd.tl.differential_expression(table, groupby="cell_type", **QUIET),
}
OF_MODEL = {
    "get_latent_representation": lambda model: model.get_latent_representation(),
    "get_normalized_expression": lambda model: model.get_normalized_expression(),
    "predict": lambda model: model.predict(),
    "sample_posterior": lambda model: model.sample_posterior(n_samples=1, **QUIET),
    "differential_expression": lambda model: model.differential_expression(groupby="cell_type", **QUIET),
    "write": lambda model: model.write(),
}
OF_OWN_CELLS = OF_MODEL | {
    "get_shares": lambda model: model.get_shares(),
    "get_corrected_counts": lambda model: model.get_corrected_counts(),
    "train": lambda model: model.train(1, **QUIET),
}
CHANGES = {
    "order": (lambda table: table._inplace_subset_obs(np.roll(np.arange(300), 1)), "in another order"),
    "filter": (lambda table: table._inplace_subset_obs(np.arange(300) > 4), "5 of 300 are gone, 0 are new"),
}


@pytest.fixture(scope="module")
def _fitted():
    sdata = rsd.datasets.simulate_tissue(n_cells=300, n_genes=40, n_types=4, n_rare=0, rng=0, transcripts=False)
    rsd.tl.fit(sdata, labels_key="cell_type", max_epochs=1, **QUIET)
    return sdata.tables["table"]


@pytest.fixture
def table(_fitted):
    """A fitted table of its own for each test."""
    return _fitted.copy()


def rename_a_gene(table):
    table.var_names = ["renamed", *table.var_names[1:]]


@pytest.mark.parametrize("ask", OF_TABLE.values(), ids=OF_TABLE)
def test_a_function_refuses_other_genes_than_those_of_the_fit(table, ask):
    before, entries = table.copy(), set(table.uns)
    rename_a_gene(table)
    with pytest.raises(ValueError, match="1 of 40 are gone, 1 are new.*Use the table as it was fitted"):
        ask(table)
    assert set(table.uns) == entries and table.obs.equals(before.obs)
    assert (table.obsm["X_resolvi"] == before.obsm["X_resolvi"]).all()


@pytest.mark.parametrize("ask", OF_MODEL.values(), ids=OF_MODEL)
def test_an_object_refuses_other_genes_than_those_of_the_fit(table, ask):
    model = rsd.ResolVI.from_table(table)
    rename_a_gene(table)
    with pytest.raises(ValueError, match="1 of 40 are gone, 1 are new.*Use the table as it was fitted"):
        ask(model)


@pytest.mark.parametrize(("change", "message"), CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("ask", OF_OWN_CELLS.values(), ids=OF_OWN_CELLS)
def test_an_object_refuses_a_table_whose_rows_were_changed_in_place(table, ask, change, message):
    model = rsd.ResolVI.from_table(table)
    model.posterior  # known already: it must not be given out for other rows  # noqa: B018
    change(table)
    before = table.layers["resolvi_counts"].copy()
    with pytest.raises(ValueError, match=message):
        ask(model)
    assert (table.layers["resolvi_counts"] != before).nnz == 0


def test_a_model_is_saved_as_of_the_cells_that_it_was_made_with(table, tmp_path):
    whole = table.copy()
    model = rsd.ResolVI.from_table(table)
    CHANGES["filter"][0](table)
    model.save(tmp_path / "model")
    again = rsd.ResolVI.load(tmp_path / "model", whole)
    difference = again.get_corrected_counts() - whole.layers["resolvi_counts"]
    assert np.abs(difference.data).max(initial=0) < 1e-3
    with pytest.raises(ValueError, match="5 of 300 are gone"):
        model.save(tmp_path / "other", save_anndata=True)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("integer_counts", [False, True])
def test_counts_that_were_replaced_by_corrected_ones_are_noticed(table, integer_counts):
    rsd.tl.fit(table, max_epochs=1, integer_counts=integer_counts, **QUIET)
    # Not a word as long as they are there, also of a part of the cells.
    rsd.tl.sample_posterior(table, n_samples=1, **QUIET)
    table.X = np.ceil(table.layers["resolvi_counts"].toarray() / 2)
    with pytest.warns(UserWarning, match=r"`table.X` do not seem to be those of the fit: .* `layer='counts'`"):
        OF_TABLE["tl.sample_posterior"](table)
    with pytest.raises(ValueError, match=r"`table.layers\['resolvi_counts'\]` has up to .*or the counts were replaced"):
        OF_TABLE["tl.differential_expression"](table)


@pytest.mark.parametrize("transform", [np.log1p, lambda values: 0.3 * values], ids=["log1p", "scaled"])
def test_corrected_counts_that_were_transformed_in_place_are_refused(table, transform):
    """Of the counts of the fit, they are between 0 and these in any case."""
    layer = table.layers["resolvi_counts"]
    layer.data = transform(layer.data)
    for ask in (
        lambda: rsd.tl.differential_expression(table, groupby="cell_type", **QUIET),
        lambda: rsd.tl.pseudobulk(table, groupby="cell_type"),
    ):
        with pytest.raises(
            ValueError, match=r"resolvi_counts'\]` does not have the molecules that the fit left in 300"
        ):
            ask()


def test_a_table_of_some_genes_may_be_summed(table):
    some = table[:, 5:30].copy()
    bulk = rsd.tl.pseudobulk(some, groupby="cell_type", min_cells=1, integer_counts=False)
    np.testing.assert_allclose(bulk.X.sum(), table.layers["resolvi_counts"][:, 5:30].sum(), rtol=1e-5)


def test_draws_of_corrected_counts_have_sums_of_their_own():
    table = rsd.datasets.simulate_tissue(n_cells=100, n_genes=30, rng=0, transcripts=False)["table"]
    rsd.tl.fit(table, max_epochs=1, integer_counts=True, **QUIET)
    bulk = rsd.tl.pseudobulk(table, groupby="cell_type", min_cells=1)
    assert bulk.X.sum() == table.layers["resolvi_counts"].sum()


@pytest.mark.parametrize("encode_covariates", [False, True])
def test_other_batches_are_noticed(encode_covariates):
    table = rsd.datasets.simulate_tissue(n_cells=300, n_genes=30, n_samples=2, n_batches=2, rng=0)["table"]
    del table.uns["spatialdata_attrs"]
    config = rsd.ModelConfig(encode_covariates=encode_covariates)
    rsd.tl.fit(table, batch_key="batch", max_epochs=2, config=config, **QUIET)
    half = table[table.obs_names.isin(table.obs_names[::2])][::-1].copy()
    rsd.tl.latent(half, **QUIET)
    half.obs["batch"] = half.obs["batch"].cat.rename_categories(half.obs["batch"].cat.categories[::-1])
    n_seen = int(half.obs_names.isin(table.uns["resolvi"]["some_cells"]).sum())
    message = f"columns 'batch' of `obs` are not those of the fit: of {n_seen} cells that were looked at, {n_seen} have"
    with pytest.warns(UserWarning) as found:
        rsd.tl.latent(half, **QUIET)
    assert n_seen > 20 and any(message in str(warning.message) for warning in found)


def test_what_took_the_place_of_the_model_is_not_called_an_old_model(table):
    table.uns["resolvi"] = {"connectivities_key": "resolvi_connectivities", "params": {}}
    with pytest.raises(ValueError, match=r"not a model of resolvi_sd; something else replaced it.*Fit again"):
        rsd.tl.latent(table, **QUIET)


def test_results_are_written_for_the_cells_and_genes_of_the_model_only(table):
    model = rsd.ResolVI.from_table(table)
    for other, message in (
        (table[:, ::-1].copy(), "in another order.*model.adata.var_names"),
        (table[::-1].copy(), "300 cells of `adata` are not the 300 of the model.*load_query_data"),
    ):
        with pytest.raises(ValueError, match=message):
            model.write(other, key_added="again")
        assert "again" not in other.uns


def test_parts_of_two_fits_are_not_taken_for_one():
    tables = []
    for seed in range(2):
        table = rsd.datasets.simulate_tissue(n_cells=300, n_genes=40, rng=seed, transcripts=False)["table"]
        for name in [name for name in table.layers if name is not None]:
            del table.layers[name]
        rsd.tl.fit(table, max_epochs=5, rng=seed, **QUIET)
        tables.append(table[:150])
    both = ad.concat(tables, merge="same", uns_merge="first", index_unique="-", pairwise=True)
    with pytest.warns(
        UserWarning, match=r"do not seem to be those of the fit: of 64 cells .* 32 have a different latent mean"
    ):
        rsd.tl.latent(both, copy=True, **QUIET)


def test_a_table_that_was_split_and_put_together_lacks_edges():
    table = rsd.datasets.simulate_tissue(n_cells=300, n_genes=40, rng=0, transcripts=False)["table"]
    for name in [name for name in table.layers if name is not None]:
        del table.layers[name]
    rsd.tl.fit(table, max_epochs=1, **QUIET)
    one = (table.obs["cell_type"] == "type_0").to_numpy()
    again = ad.concat([table[one], table[~one]], merge="same", uns_merge="same", pairwise=True)
    for call in (rsd.tl.leakage, rsd.tl.niche_abundance):
        with pytest.warns(UserWarning, match=r"\d+ of 300 cells had neighbors in the fit that are not in this table"):
            call(again, labels_key="cell_type", copy=True)


def test_names_of_fits_do_not_lie_in_each_others_results(table):
    for name in ("resolvi_de", "resolvi_audit"):
        with pytest.raises(ValueError, match=rf"key_added='{name}': the table has a fit with the name 'resolvi'"):
            rsd.tl.fit(table, key_added=name, max_epochs=1, copy=name == "resolvi_de", **QUIET)
    other = rsd.datasets.simulate_tissue(n_cells=100, n_genes=20, rng=0, transcripts=False)["table"]
    rsd.tl.fit(other, key_added="resolvi_de", max_epochs=1, **QUIET)
    with pytest.raises(ValueError, match="key_added='resolvi': the table has a fit with the name 'resolvi_de'"):
        rsd.tl.fit(other, max_epochs=1, **QUIET)


def test_counts_are_held_against_a_latent_of_any_form(table, tmp_path):
    expected = rsd.tl.latent(table, copy=True, **QUIET)
    table.write_h5ad(tmp_path / "fitted.h5ad")
    backed = ad.read_h5ad(tmp_path / "fitted.h5ad", backed="r")
    np.testing.assert_allclose(rsd.tl.latent(backed[:100], copy=True, **QUIET), expected[:100], atol=1e-5)
    for form in (pd.DataFrame, sp.csr_matrix):
        index = {"index": table.obs_names} if form is pd.DataFrame else {}
        table.obsm["X_resolvi"] = form(expected, **index)
        np.testing.assert_array_equal(rsd.tl.latent(table, copy=True, **QUIET), expected)
