"""Colors of predicted labels: those of the labels, for a query those of its reference."""

import pytest

import resolvi_sd as rsd

QUIET = {"show_progress_bar": False}
COLORS = ["#111111", "#222222", "#333333", "#444444"]


@pytest.fixture
def tables():
    """A fitted section whose labels have colors, and a query whose own are others."""
    table = rsd.datasets.simulate_tissue(
        n_cells=300, n_genes=30, n_samples=2, n_types=4, n_rare=0, rng=0, transcripts=False
    ).tables["table"]
    reference, query = (table[table.obs["sample"] == name].copy() for name in table.obs["sample"].cat.categories)
    reference.uns["cell_type_colors"], query.uns["cell_type_colors"] = COLORS, COLORS[::-1]
    rsd.tl.fit(reference, labels_key="cell_type", max_epochs=1, **QUIET)
    return reference, query


def test_labels_are_predicted_again_where_their_column_is_gone(tables):
    table, _ = tables
    before = table.obs["resolvi_predicted"].copy()
    del table.obs["cell_type"], table.obs["resolvi_predicted"]
    rsd.tl.predict(table, **QUIET)
    assert (table.obs["resolvi_predicted"] == before).all()
    assert list(table.uns["resolvi_predicted_colors"]) == COLORS


def test_a_query_has_the_colors_of_its_reference(tables):
    reference, query = tables
    next_query = query.copy()
    rsd.tl.map_query(query, reference, **QUIET)
    rsd.tl.map_query(next_query, query, **QUIET)
    for table in (query, next_query):
        assert list(table.uns["resolvi_predicted_colors"]) == COLORS


def test_an_object_keeps_them_in_training_and_in_a_folder(tables, tmp_path):
    reference, query = tables
    mapped = rsd.ResolVI.load_query_data(query, rsd.ResolVI.from_table(reference))
    mapped.train(max_epochs=1, **QUIET)
    mapped.save(tmp_path / "query")
    rsd.ResolVI.load(tmp_path / "query", query).write()
    assert list(query.uns["resolvi_predicted_colors"]) == COLORS
