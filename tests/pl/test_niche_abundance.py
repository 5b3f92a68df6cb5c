"""The mean neighborhood of each group, and the differences with their intervals."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_rgba

import resolvi_sd as rsd

LABELS = ["tumor", "immune", "stroma"]


def test_composition_is_the_mean_over_the_cells_with_a_niche(compared):
    ax = rsd.pl.niche_abundance(compared, groupby="cell_type", return_ax=True)[0]
    drawn = np.asarray(ax.images[0].get_array())
    expected = np.zeros((3, 3))
    for column, group in enumerate(LABELS):
        cells = [row for row in range(64) if compared.obs["cell_type"].iloc[row] == group and row != 5]  # 5 has none
        expected[:, column] = sum(compared.obsm["resolvi_niche"][row] for row in cells) / len(cells) * 100
    np.testing.assert_allclose(drawn, expected, rtol=1e-5)
    np.testing.assert_allclose(drawn.sum(axis=0), 100, rtol=1e-5)
    assert [label.get_text() for label in ax.get_yticklabels()] == LABELS
    assert [label.get_text() for label in ax.get_xticklabels()] == LABELS
    assert ax.child_axes[0].get_ylabel() == "share (%)"
    assert [text.get_text() for text in ax.texts] == [f"{value:.0f}" for value in expected.ravel()]


def test_intervals_and_calls(compared):
    axes = rsd.pl.niche_abundance(compared, groupby="cell_type", return_ax=True)
    assert [ax.get_title() for ax in axes] == ["mean neighborhood", *(f"{name} vs rest" for name in LABELS)]
    table = compared.uns["resolvi_dna"]
    for ax, group in zip(axes[1:], LABELS, strict=True):
        rows = table[table["group1"] == group].set_index("label").loc[LABELS]
        bars, dots = ax.collections
        mean = rows["lfc_mean"].to_numpy()
        ends = np.array([segment[:, 0] for segment in bars.get_segments()])
        np.testing.assert_allclose(ends, rows[["lfc_low", "lfc_high"]])
        np.testing.assert_allclose(dots.get_offsets(), np.column_stack([mean, [0, 1, 2]]))
        hollow = (dots.get_facecolor() == to_rgba("white")).all(axis=1)
        np.testing.assert_array_equal(hollow, ~rows["is_da_fdr"])
        assert ax.get_ylim() == axes[0].get_ylim()  # the rows of the heatmap


def test_comparisons_of_other_groups_are_not_drawn(compared):
    assert len(rsd.pl.niche_abundance(compared, groupby="sample", return_ax=True)) == 1
    axes = rsd.pl.niche_abundance(compared, groupby="sample", group1="immune", return_ax=True)
    assert [ax.get_title() for ax in axes] == ["mean neighborhood", "immune vs rest"]


def test_comparisons_by_other_labels_are_not_drawn(compared):
    # Of the same names, as clusters have.
    compared.uns["resolvi_niche_labels_key"] = "leiden"
    assert len(rsd.pl.niche_abundance(compared, groupby="cell_type", return_ax=True)) == 1
    with pytest.raises(
        ValueError,
        match=r"of obs\['cell_type'\] \(weighting='uniform'\), but the shares drawn are those of obs\['leiden'\]",
    ):
        rsd.pl.niche_abundance(compared, groupby="cell_type", group1="immune")


def test_comparisons_with_another_weighting_are_not_drawn(compared):
    compared.uns["resolvi_niche_weighting"] = "weights"
    assert len(rsd.pl.niche_abundance(compared, groupby="cell_type", return_ax=True)) == 1
    with pytest.raises(ValueError, match=r"weighting='uniform'\), but the shares drawn are .*weighting='weights'"):
        rsd.pl.niche_abundance(compared, groupby="cell_type", group1="immune")


def test_without_a_test(compared):
    del compared.uns["resolvi_dna"]
    assert len(rsd.pl.niche_abundance(compared, groupby="cell_type", return_ax=True)) == 1
    with pytest.raises(KeyError, match=r"Please run `resolvi_sd.tl.differential_niche_abundance\(.*` first"):
        rsd.pl.niche_abundance(compared, groupby="cell_type", group1="tumor")


def test_many_comparisons_take_several_rows(compared):
    table = compared.uns["resolvi_dna"]
    names = [f"c{i}" for i in range(8)]
    compared.obs["cluster"] = np.resize(names, compared.n_obs)
    one = table[table["group1"] == "tumor"].astype({"group1": str})
    compared.uns["resolvi_dna"] = type(table)(
        {column: np.tile(one[column].to_numpy(), 8) for column in one}
        | {"group1": np.repeat(names, 3), "groupby": "cluster", "n_cells1": 8, "n_cells2": 56}
    )
    axes = rsd.pl.niche_abundance(compared, groupby="cluster", return_ax=True)
    assert [ax.get_title() for ax in axes[1:]] == [f"{name} vs rest" for name in names]
    # The composition of 8 groups takes the width of two panels of the seven that are side by side.
    specs = [ax.get_subplotspec() for ax in axes]
    places = [(spec.get_topmost_subplotspec().rowspan.start, spec.colspan.start) for spec in specs]
    assert places == [*((0, column) for column in range(6)), *((1, column) for column in range(3))]
    axes[0].figure.draw_without_rendering()
    wide, *narrow, beside = (spec.get_position(axes[0].figure).width for spec in (specs[0], *specs[6:], specs[5]))
    assert all(width == pytest.approx(beside, rel=0.2) for width in narrow)
    assert wide == pytest.approx(2 * beside, rel=0.2)
    # The color bar of the first row leaves no gap in the second.
    left, middle, right = (ax.get_position() for ax in axes[6:])
    assert right.x0 - middle.x1 == pytest.approx(middle.x0 - left.x1, rel=0.2)
    assert [bool(ax.yaxis.get_tick_params()["labelleft"]) for ax in axes[1:]] == [False] * 5 + [True, False, False]


def test_one_group_leaves_room_for_its_color_bar(compared):
    compared.obs["tissue"] = "all"
    names = compared.uns["resolvi_niche_labels"]
    compared.uns["resolvi_niche_labels"] = np.array([f"{name} of a long name" for name in names], dtype=object)
    (ax,) = rsd.pl.niche_abundance(compared, groupby="tissue", return_ax=True)
    ax.figure.draw_without_rendering()  # warnings are errors
    (bar,) = ax.child_axes or [other for other in ax.figure.axes if other is not ax]
    assert bar.get_window_extent().width < 0.2 * ax.get_window_extent().width


def test_errors(compared):
    with pytest.raises(KeyError, match="groupby='region'"):
        rsd.pl.niche_abundance(compared, groupby="region")
    compared.obs["cluster"] = np.where(np.arange(64) == 5, "lonely", "rest")
    with pytest.raises(ValueError, match="no cell has labeled neighbors in the groups 'lonely'"):
        rsd.pl.niche_abundance(compared, groupby="cluster")
    compared.uns["resolvi_niche_labels"] = np.array(["tumor"], dtype=object)
    with pytest.raises(ValueError, match="has 3 columns, but .* names 1: 'tumor'"):
        rsd.pl.niche_abundance(compared, groupby="cell_type")
    del compared.obsm["resolvi_niche"]
    with pytest.raises(KeyError, match=r"'resolvi_niche' is not in `table.obsm`.*run `resolvi_sd.tl.niche_abundance"):
        rsd.pl.niche_abundance(compared, groupby="cell_type")


def test_image(compare, compared):
    draw = {"groupby": "cell_type", "figsize": (8, 2.6)}
    compare("niche_abundance", lambda path: rsd.pl.niche_abundance(compared, save=path, **draw), tolerance=2)
