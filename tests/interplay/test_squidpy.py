"""squidpy on the neighbors and on the corrected counts of a fit."""

import numpy as np
import pytest
import squidpy as sq

import resolvi_sd as rsd

GRAPH = "resolvi_connectivities"
# squidpy 1.8, of matplotlib 3.11, pandas 3 and anndata 0.13.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The set_bad function:PendingDeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The inplace keyword:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The method obs_vector is deprecated:FutureWarning"),
]


def _pairs_of_types(table):
    """Number of edges from cells of one type to cells of another, by definition."""
    types = table.obs["cell_type"].cat.codes.to_numpy()
    rows, columns = table.obsp[GRAPH].nonzero()
    counts = np.zeros((types.max() + 1,) * 2)
    np.add.at(counts, (types[rows], types[columns]), 1)
    return counts


def _moran(values, weights):
    """Moran's I, the formula: n / W * sum_ij w_ij z_i z_j / sum_i z_i^2, rows of w summing to 1."""
    weights = weights / np.maximum(weights.sum(axis=1, keepdims=True), 1)
    z = values - values.mean()
    return len(z) / weights.sum() * (z @ weights @ z) / (z @ z)


def test_neighborhood_enrichment_counts_the_edges_of_the_graph(fitted):
    table = fitted["table"]
    options = {"connectivity_key": GRAPH, "n_perms": 20, "seed": 0, "show_progress_bar": False}
    sq.gr.nhood_enrichment(table, "cell_type", **options)
    result = table.uns["cell_type_nhood_enrichment"]
    np.testing.assert_array_equal(result["count"], _pairs_of_types(table))
    assert np.isfinite(result["zscore"]).all()


def test_squidpy_takes_the_whole_object_too(fitted):
    sq.gr.interaction_matrix(fitted, "cell_type", connectivity_key=GRAPH, table_key="table")
    found = fitted["table"].uns["cell_type_interactions"]
    np.testing.assert_array_equal(found, _pairs_of_types(fitted["table"]))


def test_spatial_autocorrelation_of_corrected_counts(fitted):
    table = fitted["table"]
    genes = list(table.var_names[:5])
    sq.gr.spatial_autocorr(
        table, connectivity_key=GRAPH, layer="resolvi_counts", genes=genes, mode="moran", show_progress_bar=False
    )
    found = table.uns["moranI"]["I"]
    weights = table.obsp[GRAPH].toarray()
    for gene in genes:
        values = table[:, gene].layers["resolvi_counts"].toarray().ravel().astype(float)
        np.testing.assert_allclose(found[gene], _moran(values, weights), rtol=1e-5)


def test_spatial_autocorrelation_of_a_share(fitted):
    table = fitted["table"]
    sq.gr.spatial_autocorr(
        table, connectivity_key=GRAPH, genes="resolvi_true", attr="obs", mode="moran", show_progress_bar=False
    )
    expected = _moran(table.obs["resolvi_true"].to_numpy().astype(float), table.obsp[GRAPH].toarray())
    np.testing.assert_allclose(table.uns["moranI"]["I"]["resolvi_true"], expected, rtol=1e-5)


def test_a_graph_of_squidpy_is_taken_for_a_fit(fitted):
    table = fitted["table"]
    sq.gr.spatial_neighbors_knn(table, n_neighs=4, library_key="region")
    rsd.tl.fit(fitted, neighbors_key="spatial_neighbors", max_epochs=1, show_progress_bar=False)
    # squidpy drops the distance of cells at the same place; there are none here
    np.testing.assert_allclose(
        table.obsp["resolvi_distances"].toarray(), table.obsp["spatial_distances"].toarray(), rtol=1e-6
    )


def test_edges_are_drawn_on_the_tissue(fitted):
    table = fitted["table"]
    one = table[table.obs["region"] == "cells_0"].copy()
    axes = sq.pl.spatial_scatter(one, shape=None, color="resolvi_true", connectivity_key=GRAPH, size=5, return_ax=True)
    assert axes.get_title() == "resolvi_true"
    n_points = [len(c.get_offsets()) for c in axes.collections if len(c.get_offsets()) > 1]
    assert one.n_obs in n_points
