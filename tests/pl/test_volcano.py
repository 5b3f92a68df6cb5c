"""Each gene is where its change and its odds are; names stand apart."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

import resolvi_sd as rsd

UP, DOWN = to_rgba("#d55e00"), to_rgba("#0072b2")


def rows_of(adata, group1):
    table = adata.uns["resolvi_de"]
    return table[table["group1"] == group1]


def names_of(ax):
    return [text for text in ax.texts if text.get_text().startswith("GENE")]


def points_of(ax, color):
    points = [
        c.get_offsets() for c in ax.collections if len(c.get_facecolor()) and tuple(c.get_facecolor()[0]) == color
    ]
    return np.concatenate(points) if points else np.empty((0, 2))


@pytest.fixture
def none_certain(compared):
    """No gene changes in every draw, so that all are drawn at their odds."""
    table = compared.uns["resolvi_de"]
    table["proba_de"] = table["proba_de"].clip(upper=0.999)
    return compared


def test_genes_that_change_in_every_draw_are_in_the_order_of_their_certainty(compared):
    tumor = rsd.pl.volcano(compared, group1="tumor", return_ax=True)[0]
    rows = rows_of(compared, "tumor")
    top = rows["bayes_factor"].max()
    certain = rows[rows["bayes_factor"] == top]
    assert len(certain) > 5
    drawn = np.concatenate([points_of(tumor, UP), points_of(tumor, DOWN)])
    height = dict(drawn)
    heights = np.array([height[change] for change in certain["lfc_mean"]])
    assert (heights > top).all() and len(set(heights)) == len(certain)
    ratio = (certain["lfc_mean"] / certain["lfc_std"]).abs()
    np.testing.assert_array_equal(np.argsort(heights), np.argsort(ratio, kind="stable"))
    others = rows[(rows["bayes_factor"] < top) & rows["is_de_fdr"]]
    np.testing.assert_array_equal([height[change] for change in others["lfc_mean"]], others["bayes_factor"])
    (line,) = {line.get_ydata()[0] for line in tumor.lines if line.get_linestyle() == ":"}
    assert line == top
    tumor.figure.canvas.draw()
    assert all((text.get_text() == "") == (place > top) for place, text in zip(*ticks_of(tumor), strict=True))


def test_genes_that_no_draw_changes_are_at_their_odds(compared):
    table = compared.uns["resolvi_de"]
    table["proba_de"], table["bayes_factor"], table["is_de_fdr"] = 0.0, -5.29, False
    for ax in rsd.pl.volcano(compared, return_ax=True):
        assert not [line for line in ax.lines if line.get_linestyle() == ":"]
        assert {height for points in ax.collections for height in points.get_offsets()[:, 1]} == {-5.29}


def ticks_of(ax):
    return ax.get_yticks(), ax.get_yticklabels()


def test_points_are_the_genes_in_the_color_of_their_call(none_certain):
    compared = none_certain
    axes = rsd.pl.volcano(compared, return_ax=True)
    assert [ax.get_title() for ax in axes] == ["tumor vs rest", "immune vs rest", "stroma vs rest"]
    for ax, group in zip(axes, ["tumor", "immune", "stroma"], strict=True):
        rows = rows_of(compared, group)
        for color, side in ((UP, rows["lfc_mean"] > 0), (DOWN, rows["lfc_mean"] < 0)):
            expected = rows.loc[rows["is_de_fdr"] & side, ["lfc_mean", "bayes_factor"]]
            np.testing.assert_allclose(points_of(ax, color), expected)
        drawn = sum(len(collection.get_offsets()) for collection in ax.collections)
        assert drawn == len(rows) == 40
        assert all(collection.get_rasterized() for collection in ax.collections)


def test_groups_are_read_as_text_whatever_the_column_holds(compared):
    adata = compared if hasattr(compared, "obs") else compared.tables["table"]
    table = adata.uns["resolvi_de"]
    numbers = {"tumor": "1", "immune": "2", "stroma": "3"}
    adata.uns["resolvi_de"] = table.assign(group1=table["group1"].astype(str).map(numbers), groupby="number")
    adata.obs["number"] = adata.obs["cell_type"].astype(str).map(numbers).astype(int)
    try:
        for plot in (rsd.pl.volcano, rsd.pl.rank_genes):
            (ax,) = np.atleast_1d(plot(compared, group1=2, return_ax=True))
            assert ax.get_title() == "2 vs rest"
    finally:
        adata.uns["resolvi_de"] = table


def test_numbers_of_calls_and_the_line_between(compared):
    """In the last comparison the draws of all genes have mean 0, so that none is called."""
    tumor, _, stroma = rsd.pl.volcano(compared, return_ax=True)
    rows = rows_of(compared, "tumor")
    up, down = ((rows["is_de_fdr"] & (sign * rows["lfc_mean"] > 0)).sum() for sign in (1, -1))
    assert {f"{up} higher", f"{down} lower"} <= {text.get_text() for text in tumor.texts}
    assert {"0 higher", "0 lower"} <= {text.get_text() for text in stroma.texts}
    (edge,) = {line.get_ydata()[0] for line in tumor.lines if line.get_linestyle() == "--"}
    np.testing.assert_array_equal(rows["bayes_factor"] > edge, rows["is_de_fdr"])
    assert not [line for line in stroma.lines if line.get_linestyle() == "--"]


def test_most_probable_genes_are_named(compared):
    tumor, _, stroma = rsd.pl.volcano(compared, n_genes=5, return_ax=True)
    rows = rows_of(compared, "tumor")
    rows = rows[rows["is_de_fdr"]].assign(ratio=(rows["lfc_mean"] / rows["lfc_std"]).abs())
    rows = rows.sort_values(["bayes_factor", "ratio"], ascending=False)
    expected = [*rows["gene"][rows["lfc_mean"] > 0].head(3), *rows["gene"][rows["lfc_mean"] <= 0].head(2)]
    assert {text.get_text() for text in names_of(tumor)} == set(expected)
    assert not names_of(stroma)
    assert not names_of(rsd.pl.volcano(compared, n_genes=0, return_ax=True)[0])


@pytest.mark.parametrize("plot", [rsd.pl.volcano, rsd.pl.rank_genes, rsd.pl.niche_abundance])
def test_a_table_that_lost_compared_cells_is_warned_of(compared, plot):
    part = compared[compared.obs["cell_type"] != "immune"].copy()
    with pytest.warns(
        UserWarning, match=r"compares \d+ cells of '\w+', but the table has \d+: cells were removed"
    ) as warned:
        plot(part)
    assert [warning.filename for warning in warned] == [__file__]


def test_groups_compared_as_one_are_not_taken_for_another_of_their_joint_name(compared):
    names = list(pd.unique(compared.obs["cell_type"]))
    first, second, third = names[:3]
    compared.obs["kind"] = compared.obs["cell_type"].astype(str)
    compared.obs.iloc[:5, compared.obs.columns.get_loc("kind")] = f"{first} + {second}"
    table = compared.uns["resolvi_de"]
    one = table[table["group1"] == third].astype({"group1": str, "group2": str, "groupby": str})
    compared.uns["resolvi_de"] = one.assign(groupby="kind", group2=f"{first} + {second}", n_cells1=1)
    rsd.pl.volcano(compared)  # warnings are errors


def test_chosen_genes_are_named_called_or_not(compared):
    stroma = rsd.pl.volcano(compared, group1="stroma", genes=["GENE3", "GENE8"], return_ax=True)[0]
    assert {text.get_text() for text in names_of(stroma)} == {"GENE3", "GENE8"}
    stroma = rsd.pl.volcano(compared, group1="stroma", genes="GENE3", return_ax=True)[0]
    assert [text.get_text() for text in names_of(stroma)] == ["GENE3"]


@pytest.mark.parametrize(("figsize", "least"), [((10, 3.3), 10), ((6, 2), 5)])  # the second is an inch high inside
def test_names_neither_overlap_nor_leave_the_panel(compared, figsize, least):
    axes = rsd.pl.volcano(compared, n_genes=12, figsize=figsize, return_ax=True)
    axes[0].figure.canvas.draw()
    for ax in axes:
        boxes = [super(type(text), text).get_window_extent() for text in names_of(ax)]  # without the line to the point
        panel = ax.get_window_extent()
        for box in boxes:
            assert panel.x0 <= box.x0 and box.x1 <= panel.x1 and panel.y0 <= box.y0 and box.y1 <= panel.y1
        assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    assert len(names_of(axes[0])) >= least


def test_comparisons_in_the_order_asked_for(compared):
    axes = rsd.pl.volcano(compared, group1=["stroma", "tumor"], return_ax=True)
    assert [ax.get_title() for ax in axes] == ["stroma vs rest", "tumor vs rest"]
    figure = Figure(layout="constrained")
    axes = rsd.pl.volcano(compared, group1="immune", ax=figure.subplots(), title=["A"], return_ax=True)
    assert [ax.get_title() for ax in axes] == ["A"]
    assert axes[0].get_ylabel() == "log odds of the change (nats)"
    assert axes[0].get_xlabel() == "log2 fold change (mean)"


def test_errors(compared):
    with pytest.raises(KeyError, match=r"group1='myeloid' .*'tumor', 'immune', 'stroma'"):
        rsd.pl.volcano(compared, group1="myeloid")
    with pytest.raises(ValueError, match="`group1` is empty; the groups that were compared are: 'tumor'"):
        rsd.pl.volcano(compared, group1=[])
    with pytest.raises(KeyError, match="genes='XYZ'"):
        rsd.pl.volcano(compared, genes=["XYZ"])
    with pytest.raises(ValueError, match="`n_genes` must be at least 0"):
        rsd.pl.volcano(compared, n_genes=-1)
    del compared.uns["resolvi_de"]["bayes_factor"]
    with pytest.raises(ValueError, match="lacks the columns 'bayes_factor'"):
        rsd.pl.volcano(compared)
    del compared.uns["resolvi_de"]
    with pytest.raises(
        KeyError, match=r"'resolvi_de' is not in `table.uns`.*run `resolvi_sd.tl.differential_expression"
    ):
        rsd.pl.volcano(compared)


def test_image(compare, compared):
    draw = {"group1": ["tumor", "stroma"], "figsize": (6.4, 3.2)}
    compare("volcano", lambda path: rsd.pl.volcano(compared, save=path, **draw), tolerance=2)


def test_a_line_between_calls_is_only_where_there_is_a_gap(compared):
    """Calls take all genes into account, and need not follow the odds of a gene by itself."""

    def dashed(ax):
        return [line for line in ax.lines if line.get_linestyle() == "--"]

    assert any(dashed(ax) for ax in rsd.pl.volcano(compared, return_ax=True))
    table = compared.uns["resolvi_de"]
    table["is_de_fdr"] = np.arange(len(table)) % 2 == 0
    assert not any(dashed(ax) for ax in rsd.pl.volcano(compared, return_ax=True))


def test_names_are_of_both_directions():
    """Of the genes that were called, the highest are all lower."""
    from resolvi_sd.pl._volcano import _top_genes

    change = np.array([-3.0, -2.9, -2.8, -2.7, 1.0, 0.9, 0.1])
    rows = pd.DataFrame({"lfc_mean": change, "is_de_fdr": [True] * 6 + [False]})
    height = np.array([9.0, 8, 7, 6, 3, 2, 10])
    assert _top_genes(rows, height, 4).tolist() == [0, 1, 4, 5]
    assert _top_genes(rows, height, 5).tolist() == [0, 1, 2, 4, 5]
    assert _top_genes(rows, height, 1).tolist() == [4]
    assert _top_genes(rows.assign(is_de_fdr=change < 0), height, 3).tolist() == [0, 1, 2]
    assert _top_genes(rows, height, 0).tolist() == []
