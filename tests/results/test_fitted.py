"""A fitted model whose table has other genes now: every question is refused, and nothing is written."""

import pytest

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


def test_results_are_written_for_the_cells_and_genes_of_the_model_only(table):
    model = rsd.ResolVI.from_table(table)
    for other, message in (
        (table[:, ::-1].copy(), "the order is another"),
        (table[::-1].copy(), "300 cells of `adata` are not the 300 of the model.*load_query_data"),
    ):
        with pytest.raises(ValueError, match=message):
            model.write(other, key_added="again")
        assert "again" not in other.uns
