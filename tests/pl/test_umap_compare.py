"""The same cells in every panel, in their colors, and nothing written into the table."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from matplotlib.colors import to_rgba

import resolvi_sd as rsd

COLORS = {"T": "#ff0000", "B": "#0000ff"}


@pytest.fixture
def embedded(adata):
    """The squares with a latent of two columns that says which row is where."""
    adata.obs["cell_type"] = pd.Categorical(np.where(np.arange(64) % 4 == 0, "T", "B"))
    adata.obsm["X_map"] = np.column_stack([np.arange(64.0), -np.arange(64.0)])
    return adata


def drawn_rows(ax):
    (dots,) = ax.collections
    x, y = np.asarray(dots.get_offsets()).T
    np.testing.assert_array_equal(x, -y)
    return x.astype(int), dots.get_facecolor()


def test_each_cell_in_its_place_and_color(embedded):
    (ax,) = rsd.pl.umap_compare(embedded, color="cell_type", representations=["X_map"], palette=COLORS, return_ax=True)
    rows, colors = drawn_rows(ax)
    np.testing.assert_array_equal(np.sort(rows), np.arange(64))
    assert (np.diff(rows) < 0).any()  # not one group on top of another
    expected = [to_rgba(COLORS[name]) for name in embedded.obs["cell_type"].iloc[rows]]
    np.testing.assert_array_equal(colors, expected)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["B", "T"]
    assert ax.collections[0].get_rasterized()


def test_one_representation_may_be_named_by_itself(embedded):
    (ax,) = rsd.pl.umap_compare(embedded, color="cell_type", representations="X_map", return_ax=True)
    assert len(drawn_rows(ax)[0]) == 64


def test_same_sample_in_all_panels(embedded):
    embedded.obsm["X_twice"] = 2 * embedded.obsm["X_map"]
    first, second = rsd.pl.umap_compare(
        embedded, color="cell_type", representations=["X_map", "X_twice"], n_cells=20, return_ax=True
    )
    rows = drawn_rows(first)[0]
    assert len(np.unique(rows)) == 20
    np.testing.assert_array_equal(drawn_rows(second)[0], 2 * rows)


def test_numbers_have_a_color_bar(embedded):
    embedded.obs["depth"] = np.arange(64.0)
    embedded.obs.loc["cell7", "depth"] = np.nan
    (ax,) = rsd.pl.umap_compare(embedded, color="depth", representations=["X_map"], cmap="gray", return_ax=True)
    rows, colors = drawn_rows(ax)
    gray = colors[np.argsort(rows)][:, 0]
    np.testing.assert_allclose(gray[7], to_rgba("lightgrey")[0])
    assert (np.diff(np.delete(gray, 7)) >= 0).all()
    assert ax.child_axes[0].get_ylabel() == "depth"


def test_a_gene_is_colored_by_counts_before_and_after(embedded):
    """Where the counts are embedded by those that were counted, elsewhere by the corrected ones, on one scale."""
    gene, share = embedded.var_names[0], np.linspace(0.2, 1, 64)
    counted = embedded.X[:, [0]].toarray().ravel()
    embedded.layers["resolvi_counts"] = embedded.X.multiply(share[:, None]).tocsr().astype(np.float32)
    embedded.obs["resolvi_true"] = share
    *umaps, in_place = rsd.pl.umap_compare(
        embedded, color=gene, representations=["counts", "corrected", "X_map"], cmap="gray", return_ax=True
    )
    rows, colors = drawn_rows(in_place)
    scale = np.quantile(counted[rows][counted[rows] > 0], 0.99)
    before, after = (np.clip(counts / scale, 0, 1)[rows] for counts in (counted, counted * share))
    np.testing.assert_allclose(colors[:, 0], after, atol=1 / 255)
    for ax, expected in zip(umaps, (before, after), strict=True):
        np.testing.assert_allclose(np.sort(ax.collections[0].get_facecolor()[:, 0]), np.sort(expected), atol=1 / 255)
    assert before.std() > 0.1 and in_place.child_axes[0].get_ylabel() == f"{gene}, molecules per cell"


def test_cells_without_a_group_are_grey(embedded):
    embedded.obs.loc["cell3", "cell_type"] = np.nan
    (ax,) = rsd.pl.umap_compare(embedded, color="cell_type", representations=["X_map"], return_ax=True)
    rows, colors = drawn_rows(ax)
    np.testing.assert_allclose(colors[rows == 3][0], to_rgba("lightgrey"))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["B", "T", "no value (1)"]


def test_other_corrected_counts(embedded):
    embedded.layers["other"] = embedded.X.copy()
    del embedded.layers["resolvi_counts"]
    gene = embedded.var_names[0]
    settings = {"representations": ["corrected", "X_map"], "corrected_layer": "other"}
    umap, in_place = rsd.pl.umap_compare(embedded, color=gene, cmap="gray", return_ax=True, **settings)
    assert umap.get_title() == "other"
    rows, colors = drawn_rows(in_place)
    counted = embedded.X[:, [0]].toarray().ravel()[rows]
    np.testing.assert_allclose(
        colors[:, 0], np.clip(counted / np.quantile(counted[counted > 0], 0.99), 0, 1), atol=1 / 255
    )


@pytest.mark.slow
def test_umap_of_counts_separates_two_types(add_results):
    """Two types without a gene in common: every cell's nearest cell in the UMAP is of its type, in both panels."""
    rng = np.random.default_rng(0)
    rates = np.kron(np.eye(2), np.full((30, 10), 4.0))
    table = ad.AnnData(sp.csr_matrix(rng.poisson(rates).astype(np.float32)))
    table.obs["cell_type"] = np.repeat(["T", "B"], 30)
    add_results(table)
    before = [list(getattr(table, slot)) for slot in ("obs", "obsm", "obsp", "varm", "uns", "layers")]
    for ax in rsd.pl.umap_compare(table, color="cell_type", palette=COLORS, return_ax=True):
        points, colors = np.asarray(ax.collections[0].get_offsets()), ax.collections[0].get_facecolor()
        assert len(points) == 60
        distance = np.linalg.norm(points[:, None] - points[None], axis=2) + np.diag(np.full(60, np.inf))
        np.testing.assert_array_equal(colors[distance.argmin(axis=1)], colors)
        assert ax.get_xlabel() == "UMAP 1"
    assert before == [list(getattr(table, slot)) for slot in ("obs", "obsm", "obsp", "varm", "uns", "layers")]


def test_errors(embedded):
    with pytest.raises(KeyError, match=r"representations='X_umap' is not in `table.obsm`; it has: 'spatial', 'X_map'"):
        rsd.pl.umap_compare(embedded, color="cell_type", representations=["X_umap"])
    with pytest.raises(ValueError, match="`representations` is empty"):
        rsd.pl.umap_compare(embedded, color="cell_type", representations=[])
    with pytest.raises(KeyError, match="color='type' is not in `table.obs`; it has: .*Neither is it a gene"):
        rsd.pl.umap_compare(embedded, color="type")
    with pytest.raises(ValueError, match="`n_cells` must be at least 1"):
        rsd.pl.umap_compare(embedded, color="cell_type", n_cells=0)
    gene, counts = embedded.var_names[0], embedded.X
    embedded.X = counts.log1p()
    with pytest.raises(ValueError, match=r"The fit read its counts from `table\.X`; .* have changed since"):
        rsd.pl.umap_compare(embedded, color=gene, representations=["X_map"])
    embedded.X = counts
    embedded.obsm["X_line"] = np.zeros((64, 1))
    with pytest.raises(ValueError, match=r"at least two columns, but its shape is \(64, 1\)"):
        rsd.pl.umap_compare(embedded, color="cell_type", representations=["X_line"])
    del embedded.layers["resolvi_counts"]
    with pytest.raises(KeyError, match=r"'resolvi_counts'.*tl.fit\(\.\.\., key_added='resolvi'\)` again"):
        rsd.pl.umap_compare(embedded, color="cell_type")


def test_image(compare, embedded):
    angle = np.linspace(0, 9, 64)
    embedded.obsm["X_map"] = np.column_stack([angle * np.cos(angle), angle * np.sin(angle)])
    embedded.obsm["X_circle"] = np.column_stack([np.cos(angle), np.sin(angle)])
    draw = {"color": "cell_type", "representations": ["X_map", "X_circle"], "figsize": (6, 2.8)}
    compare("umap_compare", lambda path: rsd.pl.umap_compare(embedded, save=path, **draw), tolerance=2)
