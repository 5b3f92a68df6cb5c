"""scanpy on the latent space and on the differential expression of a fit."""

import importlib.util
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pytest
import scanpy as sc
from matplotlib.text import Text

import resolvi_sd as rsd

# scanpy 1.11 and 1.12, of matplotlib 3.11 and pandas 3.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The set_bad function:PendingDeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The inplace keyword:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:set_ticklabels:UserWarning"),
]


@pytest.fixture
def embedded(fitted):
    table = fitted["table"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # umap and sklearn, of seeds, threads and their own deprecations
        sc.pp.neighbors(table, n_neighbors=8, use_rep="X_resolvi")
    return table


def test_neighbors_are_those_in_the_latent_space(embedded):
    latent = embedded.obsm["X_resolvi"].astype(np.float64)
    expected = np.linalg.norm(latent[:, None] - latent[None], axis=2)
    found = embedded.obsp["distances"].tocoo()
    np.testing.assert_allclose(found.data, expected[found.row, found.col], rtol=1e-3, atol=1e-4)
    assert embedded.uns["neighbors"]["params"]["use_rep"] == "X_resolvi"
    # what a fit wrote is still there, under its own names
    assert {"resolvi_distances", "resolvi_connectivities"} <= set(embedded.obsp)


def test_umap_of_the_latent_space(embedded):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sc.tl.umap(embedded)
    axes = sc.pl.umap(embedded, color=["resolvi_true", "resolvi_predicted"], show=False)
    values = axes[0].collections[0].get_array()
    np.testing.assert_allclose(np.sort(values), np.sort(embedded.obs["resolvi_true"]))
    gene = embedded.var_names[0]
    axes = sc.pl.umap(embedded, color=gene, layer="resolvi_counts", show=False)
    shown = axes.collections[0].get_array()
    np.testing.assert_allclose(np.sort(shown), np.sort(embedded[:, gene].layers["resolvi_counts"].toarray().ravel()))


@pytest.mark.skipif(importlib.util.find_spec("igraph") is None, reason="needs igraph, which scanpy leaves optional")
def test_leiden_clusters_of_the_latent_space(embedded):
    sc.tl.leiden(embedded, flavor="igraph", n_iterations=2, directed=False)
    assert embedded.obs["leiden"].notna().all()
    rsd.tl.differential_expression(embedded, groupby="leiden", n_samples=50, show_progress_bar=False)
    assert set(embedded.uns["resolvi_de"]["group1"]) == set(embedded.obs["leiden"].cat.categories)


def test_the_latent_space_is_an_embedding_to_plot(fitted):
    axes = sc.pl.embedding(fitted["table"], basis="X_resolvi", color="cell_type", show=False)
    np.testing.assert_allclose(
        np.sort(np.concatenate([c.get_offsets() for c in axes.collections])[:, 0]),
        np.sort(fitted["table"].obsm["X_resolvi"][:, 0]),
        rtol=1e-6,
    )


def test_corrected_counts_are_normalized_as_any_counts(fitted):
    table = fitted["table"]
    before = table.X.copy()
    table.layers["logs"] = table.layers["resolvi_counts"].copy()
    sc.pp.normalize_total(table, target_sum=100, layer="logs")
    totals = np.asarray(table.layers["logs"].sum(axis=1)).ravel()
    filled = np.asarray(table.layers["resolvi_counts"].sum(axis=1)).ravel() > 0
    np.testing.assert_allclose(totals[filled], 100, rtol=1e-5)
    assert abs(table.X - before).nnz == 0


def test_differential_expression_reads_as_that_of_scanpy(fitted):
    table = fitted["table"]
    rsd.tl.differential_expression(fitted, groupby="cell_type", n_samples=50, show_progress_bar=False)
    expected = table.uns["resolvi_de"].astype({"group1": str, "gene": str}).set_index(["group1", "gene"])
    found = sc.get.rank_genes_groups_df(table, group=None, key="resolvi_rank_genes_groups")
    assert len(found) == len(expected)
    rows = expected.loc[list(zip(found["group"].astype(str), found["names"].astype(str), strict=True))]
    np.testing.assert_allclose(found["logfoldchanges"], rows["lfc_mean"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["pvals"], 1 - rows["proba_de"], rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(
    ("plot", "options"),
    [
        ("rank_genes_groups", {}),
        ("rank_genes_groups_violin", {}),
        ("rank_genes_groups_dotplot", {"dendrogram": False}),
        ("rank_genes_groups_heatmap", {"dendrogram": False}),
        ("rank_genes_groups_stacked_violin", {"dendrogram": False}),
        ("rank_genes_groups_matrixplot", {"dendrogram": False}),
        ("rank_genes_groups_tracksplot", {"dendrogram": False}),
    ],
)
def test_plots_of_scanpy_name_the_genes_with_the_largest_scores(fitted, plot, options):
    table, key = fitted["table"], "resolvi_rank_genes_groups"
    rsd.tl.differential_expression(fitted, groupby="cell_type", n_samples=50, show_progress_bar=False)
    getattr(sc.pl, plot)(table, groups=["type_1"], n_genes=3, key=key, show=False, **options)
    plt.gcf().canvas.draw()
    shown = {text.get_text() for text in plt.gcf().findobj(Text)}
    assert set(sc.get.rank_genes_groups_df(table, group="type_1", key=key)["names"][:3]) <= shown
