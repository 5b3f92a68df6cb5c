"""Before and after are the counts and the corrected counts, on one scale."""

from __future__ import annotations

import numpy as np
import pytest

import resolvi_sd as rsd


def test_before_and_after_on_one_scale(adata):
    axes = rsd.pl.spatial(adata, "PTPRC", return_ax=True)
    assert [ax.get_title() for ax in axes] == ["PTPRC, counts", "PTPRC, corrected counts"]
    before, after = (ax.collections[0] for ax in axes)
    np.testing.assert_array_equal(before.get_array(), adata[:, "PTPRC"].X.toarray().ravel())
    np.testing.assert_allclose(after.get_array(), adata[:, "PTPRC"].layers["resolvi_counts"].toarray().ravel())
    assert before.get_clim() == after.get_clim()
    assert before.get_clim()[0] == 0
    assert not axes[0].child_axes  # one color bar for both
    assert axes[1].child_axes[0].get_ylabel() == "molecules per cell"
    assert axes[1].child_axes[0].get_ylim() == before.get_clim()


def test_before_is_the_layer_that_was_fitted(square_table, add_results):
    adata = square_table()
    adata.layers["counts"] = adata.X.copy()
    adata.X = adata.X * 0.1
    add_results(adata, layer="counts")
    before, _ = rsd.pl.spatial(adata, "KRT8", return_ax=True)
    np.testing.assert_array_equal(
        before.collections[0].get_array(), adata[:, "KRT8"].layers["counts"].toarray().ravel()
    )


def test_after_may_be_another_layer(adata):
    adata.layers["other"] = (adata.X * 0.5).tocsr()
    del adata.layers["resolvi_counts"]
    before, after = rsd.pl.spatial(adata, "KRT8", corrected_layer="other", return_ax=True)
    np.testing.assert_array_equal(after.collections[0].get_array(), 0.5 * before.collections[0].get_array())
    assert after.get_title() == "KRT8, other"
    with pytest.raises(KeyError, match=r"corrected_layer='mine' is not in `table\.layers`; it has: 'other'"):
        rsd.pl.spatial(adata, "KRT8", corrected_layer="mine")
    adata.layers["other"] = adata.X * 2
    with pytest.raises(ValueError, match=r"corrected_layer='other' has up to \d+ more than was counted"):
        rsd.pl.spatial(adata, "KRT8", corrected_layer="other")


def test_dense_and_sparse_counts_look_the_same(adata):
    sparse = rsd.pl.spatial(adata, "KRT8", return_ax=True)[0].collections[0].get_array()
    adata.X = adata.X.toarray()
    np.testing.assert_array_equal(rsd.pl.spatial(adata, "KRT8", return_ax=True)[0].collections[0].get_array(), sparse)


def test_several_genes_have_a_row_and_a_scale_each(adata):
    adata.X = adata.X.toarray() * np.array([1, 2, 3, 4], dtype=np.float32)
    axes = rsd.pl.spatial(adata, ["PECAM1", "KRT8"], return_ax=True)
    assert [ax.get_title() for ax in axes[::2]] == ["PECAM1, counts", "KRT8, counts"]
    for ax, gene in zip(axes[::2], ["PECAM1", "KRT8"], strict=True):
        counts = np.asarray(adata[:, gene].X).ravel()
        np.testing.assert_array_equal(ax.collections[0].get_array(), counts)
        assert ax.collections[0].get_clim() == pytest.approx((0, np.quantile(counts[counts > 0], 0.99)))


def test_a_gene_without_any_count_is_drawn_as_zero(adata):
    others = np.array([0, 1, 1, 1], dtype=np.float32)
    adata.X = adata.X.toarray() * others
    adata.layers["resolvi_counts"] = adata.layers["resolvi_counts"].toarray() * others
    before, _ = rsd.pl.spatial(adata, "KRT8", return_ax=True)
    assert before.collections[0].get_clim() == (0, 1)


def test_regions_share_the_scale_of_a_gene(sdata_regions):
    axes = rsd.pl.spatial(sdata_regions, "KRT8", return_ax=True)
    assert [ax.get_title() for ax in axes[::2]] == ["left: KRT8, counts", "right: KRT8, counts"]
    assert axes[1].child_axes[0].get_ylim() == axes[3].child_axes[0].get_ylim()


def test_unknown_gene_names_the_closest(adata):
    with pytest.raises(KeyError, match=r"'krt18' is not among the genes.*closest names are 'KRT8'.*4 genes"):
        rsd.pl.spatial(adata, ["PTPRC", "krt18"])


def test_no_gene(adata):
    with pytest.raises(ValueError, match="`gene` is empty"):
        rsd.pl.spatial(adata, [])


def test_corrected_counts_deleted(adata):
    del adata.layers["resolvi_counts"]
    with pytest.raises(KeyError, match=r"'resolvi_counts'.*not in `table.layers`; it has: none"):
        rsd.pl.spatial(adata, "KRT8")


def test_a_gene_that_a_query_lacks_is_told(adata):
    name = adata.var_names[0]
    adata.uns["resolvi"]["unmeasured"] = np.array([name], dtype=object)
    with pytest.warns(UserWarning, match=f"not measured in this query have no counts: '{name}'.*normalized_expression"):
        rsd.pl.spatial(adata, name)
    with pytest.warns(UserWarning, match=f"not measured in this query have no counts: '{name}'"):
        rsd.pl.umap_compare(adata, name, representations=["spatial"])


def test_coordinates_that_are_not_used_are_refused(adata):
    with pytest.raises(ValueError, match="coordinate_system='aligned' is for a SpatialData object"):
        rsd.pl.spatial(adata, "KRT8", coordinate_system="aligned")


def test_the_color_bar_of_a_flat_section_keeps_whole_words(adata):
    adata.obsm["spatial"] = adata.obsm["spatial"] * [200.0, 1.0]
    ax = rsd.pl.spatial(adata, "KRT8", return_ax=True)[-1]
    labels = [label for bar in ax.child_axes for label in (bar.get_ylabel(),) if label]
    assert labels == ["molecules\nper cell"]
