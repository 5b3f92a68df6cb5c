"""Each row shows the distribution of one group: its quartiles, its median, its number of cells."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

import resolvi_sd as rsd
from resolvi_sd.pl._shares import _density

SHARES = ("resolvi_true", "resolvi_diffusion", "resolvi_background")


def rows_of(ax):
    """Ends of the bar and the median of each row."""
    bars, dots = ax.lines[::2], ax.lines[1::2]
    return [(*bar.get_xdata(), *dot.get_xdata()) for bar, dot in zip(bars, dots, strict=True)]


def test_quartiles_and_medians_of_each_group(compared):
    axes = rsd.pl.shares(compared, groupby="cell_type", return_ax=True)
    assert [ax.get_title() for ax in axes] == ["own", "from neighbors", "background"]
    for ax, key in zip(axes, SHARES, strict=True):
        expected = compared.obs.groupby("cell_type", observed=True)[key].quantile([0.25, 0.75, 0.5]).to_numpy()
        np.testing.assert_allclose(np.ravel(rows_of(ax)), expected)
        assert ax.get_xlabel() == "share of molecules"


def test_the_cell_without_counts_is_not_counted(compared):
    """64 squares in turn: 22, 21 and 21, one of the last without counts."""
    ax = rsd.pl.shares(compared, groupby="cell_type", return_ax=True)[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["tumor (22)", "immune (21)", "stroma (20)"]
    ax = rsd.pl.shares(compared, return_ax=True)[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["all cells (63)"]


def test_cells_without_a_group_are_left_out(compared):
    compared.obs.loc[compared.obs["cell_type"] == "immune", "cell_type"] = np.nan
    ax = rsd.pl.shares(compared, groupby="cell_type", return_ax=True)[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["tumor (22)", "stroma (20)"]


@pytest.mark.parametrize("way", ["uns", "list", "dict", "name"])
def test_colors(compared, way):
    colors = ["#440154", "#21918c", "#fde725"]  # the ends and the middle of viridis
    palette = {"list": colors, "dict": dict(zip(["tumor", "immune", "stroma"], colors, strict=True)), "name": "viridis"}
    if way == "uns":
        compared.uns["cell_type_colors"] = np.array(colors, dtype=object)
    ax = rsd.pl.shares(compared, groupby="cell_type", palette=palette.get(way), return_ax=True)[0]
    drawn = [collection.get_facecolor()[0] for collection in ax.collections]
    np.testing.assert_allclose(drawn, [to_rgba(color) for color in colors], atol=5e-3)


def test_groups_of_numbers_come_by_size_and_have_colors_by_number(compared):
    compared.obs["animal"] = np.arange(64) % 11
    colors = {number: (number / 11, 0.0, 0.5) for number in range(11)}
    ax = rsd.pl.shares(compared, groupby="animal", palette=colors, return_ax=True)[0]
    assert [label.get_text().split(" ")[0] for label in ax.get_yticklabels()] == [str(i) for i in range(11)]
    drawn = [collection.get_facecolor()[0][:3] for collection in ax.collections]
    np.testing.assert_allclose(drawn, list(colors.values()), atol=5e-3)
    with pytest.raises(KeyError, match=r"`palette` has no color for '2', '3'.* of obs\['animal'\]; it has: '0', '1'"):
        rsd.pl.shares(compared, groupby="animal", palette={0: "red", 1: "blue"})


def test_colors_of_a_subset_stay_those_of_its_groups(compared):
    colors = np.array(["red", "lime", "blue"], dtype=object)
    part = compared[compared.obs["cell_type"] != "immune"].copy()
    part.obs["cell_type"] = part.obs["cell_type"].cat.set_categories(["tumor", "immune", "stroma"])
    part.uns["cell_type_colors"] = colors
    ax = rsd.pl.shares(part, groupby="cell_type", return_ax=True)[0]
    drawn = [collection.get_facecolor()[0] for collection in ax.collections]
    np.testing.assert_array_equal(drawn, [to_rgba("red"), to_rgba("blue")])


@pytest.mark.parametrize("n_groups", [10, 30, 50])
def test_default_colors_are_different(compared, n_groups):
    compared.obs["cluster"] = (np.arange(compared.n_obs) % n_groups).astype(str)
    axes = rsd.pl.shares(compared, groupby="cluster", return_ax=True)
    drawn = {tuple(collection.get_facecolor()[0]) for collection in axes[0].collections}
    assert len(drawn) == n_groups


def test_shares_are_drawn_where_the_record_of_the_fit_is_lost(compared):
    del compared.uns["resolvi"]
    axes = rsd.pl.shares(compared, groupby="sample", return_ax=True)
    assert len(axes) == 3
    with pytest.raises(KeyError, match="whose record is lost when tables are concatenated"):
        rsd.pl.sources(compared)
    del compared.obs["resolvi_true"]
    with pytest.raises(KeyError, match="No fit under key_added='resolvi'"):
        rsd.pl.shares(compared)


def test_density_of_uniform_values_is_flat():
    """Without reflection the density would fall to a half at 0 and 1."""
    values = (np.arange(100_000) + 0.5) / 100_000
    density = _density(values, 400)
    assert density.min() > 0.99
    part = _density(values[values < 0.5], 400)
    assert part[:150].min() > 0.9
    assert part[250:].max() < 0.1


def test_outliers_do_not_set_the_range(square_table, add_results):
    big = square_table(16)
    add_results(big)
    big.obs["resolvi_background"] = np.where(np.arange(big.n_obs) == 0, 0.9, 0.1)
    low, high = rsd.pl.shares(big, return_ax=True)[2].get_xlim()
    assert low < 0.1 < high < 0.2


def test_errors(compared, square_table, add_results):
    with pytest.raises(KeyError, match=r"groupby='type'.*it has: 'sample'"):
        rsd.pl.shares(compared, groupby="type")
    with pytest.raises(KeyError, match="Please run `resolvi_sd.tl.fit"):
        rsd.pl.shares(compared, key_added="run2")
    compared.uns["cell_type_colors"] = ["red"]
    with pytest.raises(ValueError, match=r"`palette` has 1 colors, but obs\['cell_type'\] has 3 groups"):
        rsd.pl.shares(compared, groupby="cell_type", palette=["red"])
    with pytest.warns(UserWarning, match=r"1 colors, but obs\['cell_type'\] has 3 groups.*Other colors are used"):
        rsd.pl.shares(compared, groupby="cell_type")
    with pytest.raises(KeyError, match="`palette` has no color for 'stroma'"):
        rsd.pl.shares(compared, groupby="cell_type", palette={"tumor": "red", "immune": "blue"})
    with pytest.raises(ValueError, match="2 axes, but there are 3 panels"):
        rsd.pl.shares(compared, ax=list(Figure().subplots(1, 2)))
    many = square_table(4)
    add_results(many)
    many.obs["position"] = np.linspace(0, 1, 256)
    with pytest.raises(ValueError, match="256 different values, such as .*too many for groups"):
        rsd.pl.shares(many, groupby="position")
    del compared.uns["cell_type_colors"]
    compared.obs[list(SHARES)] = np.nan
    with pytest.raises(ValueError, match="no cell has shares and a cell_type"):
        rsd.pl.shares(compared, groupby="cell_type")


def test_image(compare, compared):
    draw = {"groupby": "cell_type", "figsize": (7, 2.2)}
    compare("shares", lambda path: rsd.pl.shares(compared, save=path, **draw))


def test_groups_never_share_a_color(compared):
    compared.obs["cluster"] = pd.Categorical(np.arange(compared.n_obs) % 18)
    with pytest.raises(ValueError, match=r"`palette` has 10 colors, but obs\['cluster'\] has 18 groups"):
        rsd.pl.shares(compared, groupby="cluster", palette="tab10")
    rsd.pl.shares(compared, groupby="cluster", palette="tab20")


@pytest.mark.parametrize("palette", [["red", "blue"], {"b": "red", "d": "blue"}, "Set1"])
def test_a_palette_is_for_the_groups_that_occur(compared, palette):
    column = pd.Categorical(np.where(np.arange(compared.n_obs) % 2, "d", "b"), categories=list("abcdefghijkl"))
    compared.obs["cluster"] = column
    ax = rsd.pl.shares(compared, groupby="cluster", palette=palette, return_ax=True)[0]
    assert [label.get_text().split()[0] for label in ax.get_yticklabels()] == ["b", "d"]
