"""The genes of each group, in the order that scanpy is given, with their mean, spread, probability and call."""

from __future__ import annotations

import numpy as np
import pytest

import resolvi_sd as rsd
from resolvi_sd.pl._figures import wrapped


def rows_of(adata, group1):
    table = adata.uns["resolvi_de"]
    return table[table["group1"] == group1].set_index("gene")


def genes_of(ax):
    return [label.get_text() for label in ax.get_yticklabels()]


def test_genes_are_those_that_scanpy_shows(compared):
    axes = rsd.pl.rank_genes(compared, n_genes=7, return_ax=True)
    names = compared.uns["resolvi_rank_genes_groups"]["names"]
    for ax, group in zip(axes, ["tumor", "immune", "stroma"], strict=True):
        assert ax.get_title() == f"{group} vs rest"
        assert genes_of(ax) == list(names[group][:7])
        assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first gene on top


def test_dots_and_intervals(compared):
    (ax,) = rsd.pl.rank_genes(compared, group1="immune", n_genes=12, return_ax=True)
    rows = rows_of(compared, "immune").loc[genes_of(ax)]
    bars, dots = ax.collections
    ends = np.array([segment[:, 0] for segment in bars.get_segments()])
    mean, spread = rows["lfc_mean"].to_numpy(), rows["lfc_std"].to_numpy()
    np.testing.assert_allclose(ends, np.column_stack([mean - spread, mean + spread]))
    np.testing.assert_allclose(dots.get_offsets(), np.column_stack([mean, np.arange(12)]))
    np.testing.assert_allclose(dots.get_array(), rows["proba_de"])
    rims = np.array([color[3] for color in dots.get_edgecolor()])
    np.testing.assert_array_equal(rims > 0, rows["is_de_fdr"])
    np.testing.assert_array_equal(np.argsort(dots.get_sizes()), np.argsort(rows["corrected_fraction1"]))


def test_probabilities_share_one_scale(compared):
    axes = rsd.pl.rank_genes(compared, return_ax=True)
    limits = {ax.collections[1].get_clim() for ax in axes}
    assert len(limits) == 1
    low, high = limits.pop()
    assert high == 1
    assert low <= min(ax.collections[1].get_array().min() for ax in axes)


def test_fewer_genes_than_asked_for(compared):
    assert len(genes_of(rsd.pl.rank_genes(compared, n_genes=100, return_ax=True)[0])) == 40


def test_given_axes(compared):
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    assert rsd.pl.rank_genes(compared, group1="tumor", ax=ax, return_ax=True) == [ax]
    assert [text.get_text() for text in ax.get_legend().get_texts()][-1] == "called"


def test_errors(compared):
    with pytest.raises(ValueError, match="`n_genes` must be at least 1"):
        rsd.pl.rank_genes(compared, n_genes=0)
    with pytest.raises(KeyError, match="group1='B'"):
        rsd.pl.rank_genes(compared, group1="B")
    with pytest.raises(
        KeyError, match=r"'run2_de' is not in .*differential_expression\(..., key_added='run2'\)` first"
    ):
        rsd.pl.rank_genes(compared, key_added="run2")


def test_image(compare, compared):
    draw = {"n_genes": 6, "figsize": (7, 2.8)}
    compare("rank_genes", lambda path: rsd.pl.rank_genes(compared, save=path, **draw), tolerance=2)


def test_long_names_stay_clear_of_each_other():
    assert wrapped("type 0 against type 1", 10) == "type 0 against type 1"
    lines = wrapped("type_0_domain_0_a_long_name vs rest", 1.0).split("\n")
    assert "".join(lines).replace(" ", "") == "type_0_domain_0_a_long_namevsrest"
    assert max(map(len, lines)) < 16 and lines[0].endswith("_")


@pytest.mark.parametrize("group1", ["tumor", ["tumor", "immune"], None])
def test_legend_is_within_the_figure(compared, group1):
    ax = rsd.pl.rank_genes(compared, group1=group1, return_ax=True)[0]
    ax.figure.draw_without_rendering()
    (legend,) = ax.figure.legends
    box = legend.get_window_extent()
    assert box.x0 >= 0 and box.x1 <= ax.figure.bbox.width
