"""Transfer between tables: labels near those of a fit on both, and the reference left alone."""

import anndata as ad
import numpy as np
import pytest

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


def test_a_query_that_is_the_reference_gets_its_latent():
    reference, _ = samples()
    rsd.tl.fit(reference, max_epochs=3, **QUIET)
    query = reference.copy()
    rsd.tl.map_query(query, reference, **QUIET)
    np.testing.assert_allclose(query.obsm["X_resolvi"], reference.obsm["X_resolvi"], atol=1e-5)


def test_bad_queries():
    reference, query = samples()
    with pytest.raises(KeyError, match=r"Please run .*tl\.fit"):
        rsd.tl.map_query(query, reference, **QUIET)
    rsd.tl.fit(reference, batch_key="sample", max_epochs=2, **QUIET)
    with pytest.raises(ValueError, match="59 genes, 59 of them among the 60"):
        rsd.tl.map_query(query[:, 1:].copy(), reference, **QUIET)
    with pytest.raises(ValueError, match="max_epochs"):
        rsd.tl.map_query(query, reference, max_epochs=-1, **QUIET)
    del query.obs["sample"]
    with pytest.raises(KeyError, match="sample"):
        rsd.tl.map_query(query, reference, **QUIET)
    assert "resolvi" not in query.uns


@pytest.mark.slow
def test_mpoa_animals(real_data):
    """Fitted on one slice of the preoptic area, labels of another are found nearly as well as its own are."""
    table = ad.read_h5ad(real_data("merfish_mpoa.h5ad"))
    table = table[(table.X.sum(1).A1 > 5) & (table.obs["cell_type"] != "Ambiguous").to_numpy()].copy()
    names = table.obs["sample"].value_counts().index[:2]
    reference, query = (table[table.obs["sample"] == name][:2500].copy() for name in names)
    rsd.tl.fit(reference, labels_key="cell_type", max_epochs=30, **QUIET)
    rsd.tl.map_query(query, reference, **QUIET)
    accuracy = [
        (t.obs["resolvi_predicted"].astype(str) == t.obs["cell_type"].astype(str)).mean() for t in (reference, query)
    ]
    assert accuracy[1] > 0.85 and accuracy[1] > accuracy[0] - 0.1
