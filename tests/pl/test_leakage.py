"""Cells of the heatmap, widths of the bands and lengths of the bars are what leaked."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import LogNorm, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle

import resolvi_sd as rsd
from resolvi_sd.pl._alluvial import _spread, draw_alluvial

TYPES = ["tumor", "immune", "stroma"]
COLORS = ["#0072b2", "#d55e00", "#009e73"]
# Molecules from row into column; 20, 40 and 100 cells of 50 molecules.
MOLECULES = np.array([[30.0, 80.0, 300.0], [10.0, 5.0, 0.0], [2.0, 40.0, 60.0]])
CELLS = np.array([20, 40, 100])
GENES = [("tumor", "immune", "EPCAM", 50.0, 0.6), ("tumor", "immune", "KRT8", 20.0, 0.8),
         ("tumor", "stroma", "EPCAM", 200.0, 0.3), ("stroma", "immune", "COL1A1", 40.0, 0.5),
         ("tumor", "tumor", "EPCAM", 25.0, 0.01)]  # fmt: skip


def make_leakage(molecules=MOLECULES, cells=CELLS):
    source, target = np.indices(molecules.shape).reshape(2, -1)
    names = pd.Categorical(TYPES, categories=TYPES)
    with np.errstate(invalid="ignore", divide="ignore"):
        columns = {"molecules": molecules, "fraction": molecules / (50 * cells), "per_cell": molecules / cells}
    pairs = pd.DataFrame(
        {"source": names[source], "target": names[target], **{k: v.ravel() for k, v in columns.items()}}
    )
    genes = pd.DataFrame(GENES, columns=["source", "target", "gene", "molecules", "fraction"])
    return {"labels_key": "cell_type", "n_cells": 64, "pairs": pairs, "genes": genes}


@pytest.fixture
def leaked(compared):
    compared.uns["resolvi_leakage"] = make_leakage()
    compared.uns["cell_type_colors"] = COLORS
    return compared


@pytest.mark.parametrize(
    ("value", "expected"),
    [("molecules", MOLECULES), ("per_cell", MOLECULES / CELLS), ("fraction", MOLECULES / CELLS / 50 * 100)],
)
def test_heatmap(leaked, value, expected):
    (ax,) = rsd.pl.leakage(leaked, value=value, kind="heatmap", return_ax=True)
    drawn = ax.images[0].get_array()
    low = ax.images[0].norm.vmin
    np.testing.assert_array_equal(np.ma.getmaskarray(np.ma.masked_invalid(drawn)), np.eye(3, dtype=bool))
    other = ~np.eye(3, dtype=bool)
    np.testing.assert_allclose(np.asarray(drawn)[other], np.maximum(expected, low)[other])
    assert [text.get_text() for text in ax.get_yticklabels()] == TYPES
    assert (ax.get_ylabel(), ax.get_xlabel()) == ("source", "target")
    assert ax.child_axes[0].get_ylabel().startswith({"fraction": "% of the molecules"}.get(value, "molecules"))


def test_heatmap_with_own_type(leaked):
    (ax,) = rsd.pl.leakage(leaked, value="molecules", kind="heatmap", own_type=True, return_ax=True)
    np.testing.assert_allclose(np.diag(np.asarray(ax.images[0].get_array())), [30, 5, 60])
    frames = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
    inset = 0.04  # so that none is cut at the border
    expected = [(place - 0.5 + inset, place - 0.5 + inset) for place in range(3)]
    np.testing.assert_allclose([patch.get_xy() for patch in frames], expected)
    np.testing.assert_allclose([(patch.get_width(), patch.get_height()) for patch in frames], 1 - 2 * inset)
    assert {text.get_text() for text in ax.texts} == {"30", "80", "300", "10", "5.0", "0", "2.0", "40", "60"}


def test_scale_is_logarithmic_only_where_few_pairs_are_far_above_the_others(leaked):
    def norm_of(molecules):
        leaked.uns["resolvi_leakage"] = make_leakage(molecules)
        return rsd.pl.leakage(leaked, value="molecules", kind="heatmap", return_ax=True)[0].images[0].norm

    even = np.array([[0.0, 80.0, 90.0], [50.0, 0.0, 20.0], [70.0, 40.0, 0.0]])
    assert (norm_of(even).vmin, norm_of(even).vmax) == (0, 90)
    assert not isinstance(norm_of(even), LogNorm)
    even[0, 1] = 9e4
    assert isinstance(norm_of(even), LogNorm)
    assert (norm_of(even).vmin, norm_of(even).vmax) == (90, 9e4)  # three decades


def test_bands_are_as_wide_as_the_molecules(leaked):
    (ax,) = rsd.pl.leakage(leaked, kind="flow", return_ax=True)
    bands = [patch for patch in ax.patches if isinstance(patch, PathPatch)]
    moved = MOLECULES * ~np.eye(3, dtype=bool)
    expected = {(source, moved[source, target]) for source, target in np.argwhere(moved > 0)}
    widths = [np.ptp(band.get_path().vertices[[0, -2], 1]) for band in bands]
    scale = moved.sum() / sum(widths)
    colors = [to_rgba(color) for color in COLORS]
    drawn = {
        (colors.index((*band.get_facecolor()[:3], 1.0)), round(width * scale, 6))
        for band, width in zip(bands, widths, strict=True)
    }
    assert drawn == expected
    nodes = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
    heights = np.array([node.get_height() for node in nodes]) * scale
    np.testing.assert_allclose(heights, np.concatenate([moved.sum(axis=1), moved.sum(axis=0)]))
    assert "sources → targets: 432 molecules" in [text.get_text() for text in ax.texts]


def test_bands_meet_without_gaps_or_overlaps_at_each_node():
    rng = np.random.default_rng(0)
    amounts = rng.gamma(0.5, size=(6, 6))
    ax = Figure().subplots()
    draw_alluvial(ax, amounts, [str(i) for i in range(6)], np.ones((6, 4)))
    vertices = [patch.get_path().vertices for patch in ax.patches if isinstance(patch, PathPatch)]
    nodes = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
    for side, corners in ((nodes[:6], (0, 7)), (nodes[6:], (3, 4))):
        edges = np.sort([tuple(points[list(corners), 1]) for points in vertices], axis=0)
        for node in side:
            low, high = node.get_y(), node.get_y() + node.get_height()
            inside = edges[(edges[:, 0] >= low - 1e-9) & (edges[:, 1] <= high + 1e-9)]
            np.testing.assert_allclose(np.diff(inside, axis=1).sum(), node.get_height(), rtol=0.01)
            np.testing.assert_allclose(inside[1:, 0], inside[:-1, 1], atol=1e-3)
    tops = [node.get_y() for node in nodes[:6]]
    assert tops[0] == 0 and nodes[5].get_y() + nodes[5].get_height() == pytest.approx(1)


def test_names_keep_their_distance():
    spread = _spread(np.array([0.1, 0.5, 0.501, 0.502, 0.99]), np.full(5, 0.04))
    np.testing.assert_allclose(spread, [0.1, 0.461, 0.501, 0.541, 0.98])  # the three are moved by 0.04 in sum, not more
    # The second name has two lines, so both gaps beside it are half a line wider.
    uneven = _spread(np.array([0.5, 0.5, 0.5]), np.array([0.04, 0.08, 0.04]))
    np.testing.assert_allclose(uneven, [0.44, 0.5, 0.56])
    crowded = _spread(np.full(100, 0.5), np.full(100, 0.04))
    np.testing.assert_allclose(np.diff(crowded), 0.01)
    assert crowded.min() > 0 and crowded.max() < 1


def test_genes_of_the_strongest_pairs(leaked):
    """Per cell: 3 from tumor into stroma, 2 into immune cells, then 1 from stroma into immune cells."""
    (ax,) = rsd.pl.leakage(leaked, kind="genes", n_pairs=2, n_genes=1, return_ax=True)
    headers = [text.get_text() for text in ax.texts if "→" in text.get_text()]
    assert headers == ["tumor → stroma", "tumor → immune"]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["EPCAM", "EPCAM"]
    np.testing.assert_allclose([bar.get_width() for bar in ax.patches], [30, 60])
    assert {bar.get_facecolor() for bar in ax.patches} == {to_rgba(COLORS[0])}
    assert {"200", "50"} <= {text.get_text() for text in ax.texts}
    (ax,) = rsd.pl.leakage(leaked, kind="genes", value="molecules", return_ax=True)
    headers = [text.get_text() for text in ax.texts if "→" in text.get_text()]
    assert headers[:3] == ["tumor → stroma", "tumor → immune", "stroma → immune"]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["EPCAM", "EPCAM", "KRT8", "COL1A1"]


def test_types_without_cells(leaked):
    """A type that never had a cell is left out; one whose cells were removed since is gray."""
    molecules = MOLECULES.copy()
    molecules[1] = molecules[:, 1] = 0
    leaked.uns["resolvi_leakage"] = make_leakage(molecules, np.array([20, 0, 100]))
    (ax,) = rsd.pl.leakage(leaked, kind="heatmap", return_ax=True)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["tumor", "stroma"]
    leaked.uns["resolvi_leakage"] = make_leakage()
    rest = leaked[leaked.obs["cell_type"] != "tumor"].copy()
    rest.uns["cell_type_colors"] = COLORS[1:]
    with pytest.warns(UserWarning, match="is for 64 cells"):
        (ax,) = rsd.pl.leakage(rest, kind="flow", return_ax=True)
    nodes = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
    assert [node.get_facecolor() for node in nodes[:3]] == [to_rgba(color) for color in ("0.6", *COLORS[1:])]


def test_axes_and_titles_of_the_user(leaked):
    given = list(Figure(layout="constrained").subplots(1, 2))
    axes = rsd.pl.leakage(leaked, kind=["flow", "heatmap"], ax=given, title=["A", "B"], return_ax=True)
    assert axes == given
    assert [ax.get_title() for ax in axes] == ["A", "B"]
    with pytest.raises(ValueError, match="1 axes, but there are 3 panels"):
        rsd.pl.leakage(leaked, ax=Figure().subplots())


@pytest.mark.filterwarnings("ignore:The '(future.infer_string|mode.chained_assignment)' option:DeprecationWarning")
def test_a_table_that_lost_cells_is_warned_of(leaked):
    with pytest.warns(
        UserWarning, match=r"leakage in `table.uns\['resolvi_leakage'\]` is for 64 cells, .* has 10 now"
    ) as warned:
        rsd.pl.leakage(leaked[:10].copy())
    assert [w.filename for w in warned if "leakage" in str(w.message)] == [__file__]


def test_without_the_column_of_the_types(leaked):
    """As in a store, to which `write_results` adds results but no columns of the user's."""
    del leaked.obs["cell_type"]
    (ax,) = rsd.pl.leakage(leaked, kind="flow", return_ax=True)
    nodes = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
    assert len({node.get_facecolor() for node in nodes}) == len(TYPES)
    rsd.pl.leakage(leaked, kind="flow", palette=dict(zip(TYPES, COLORS, strict=True)))


def test_errors(leaked):
    with pytest.raises(ValueError, match="`value` must be one of 'per_cell', 'fraction', 'molecules', not 'rate'"):
        rsd.pl.leakage(leaked, value="rate")
    with pytest.raises(ValueError, match="`kind` must be one or more of 'heatmap', 'flow', 'genes', not 'chord'"):
        rsd.pl.leakage(leaked, kind=["flow", "chord"])
    with pytest.raises(ValueError, match="`kind` is empty"):
        rsd.pl.leakage(leaked, kind=[])
    with pytest.raises(ValueError, match="`n_genes` must be at least 1"):
        rsd.pl.leakage(leaked, n_genes=0)
    leaked.uns["resolvi_leakage"] = make_leakage(np.diag([3.0, 0.0, 1.0]))
    with pytest.raises(ValueError, match="no molecule leaked between different types; `own_type=True`"):
        rsd.pl.leakage(leaked)
    del leaked.uns["resolvi_leakage"]["genes"]["fraction"]
    with pytest.raises(ValueError, match=r"\['genes'\]` lacks the columns 'fraction'. Please run"):
        rsd.pl.leakage(leaked)
    del leaked.uns["resolvi_leakage"]
    with pytest.raises(
        KeyError, match=r"'resolvi_leakage' is not in `table.uns`.*run `resolvi_sd.tl.leakage\(.*` first"
    ):
        rsd.pl.leakage(leaked)


def test_image(compare, leaked):
    compare("leakage", lambda path: rsd.pl.leakage(leaked, save=path), tolerance=2)


def test_the_label_of_the_bars_is_within_the_figure(leaked):
    (ax,) = rsd.pl.leakage(leaked, kind="genes", return_ax=True)
    ax.figure.draw_without_rendering()
    box = ax.xaxis.label.get_window_extent()
    assert box.x0 >= 0 and box.x1 <= ax.figure.bbox.width
