"""Arrows go from the cells that molecules came from to those they were found in, as wide as their number."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import spatialdata as sd
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgba
from matplotlib.legend import Legend

import resolvi_sd as rsd

# scikit-image, by which spatialdata-plot colors labels, sets the shape of an array; numpy 2.5 deprecates that.
SKIMAGE = pytest.mark.filterwarnings("ignore:Setting the shape on a NumPy array:DeprecationWarning:skimage")
COLORS = {"tumor": "#ff0000", "immune": "#00ff00", "stroma": "#0000ff"}
MIDDLE = "cell27"  # fourth row, fourth column of eight: its center is at (35, 35)


@pytest.fixture
def flowing(compared, add_flow):
    add_flow(compared)
    return compared


def arrows_of(ax):
    """Tail, tip and width of each arrow, and its color."""
    (collection,) = [c for c in ax.collections if type(c) is PolyCollection]
    corners = np.stack([path.vertices[:7] for path in collection.get_paths()])
    tail = (corners[:, 0] + corners[:, 6]) / 2
    return tail, corners[:, 3], np.linalg.norm(corners[:, 0] - corners[:, 6], axis=1), collection.get_facecolor()


def nearest(table, points):
    distance = np.linalg.norm(points[:, None] - table.obsm["spatial"][None], axis=2)
    return distance.argmin(axis=1)


def test_into_a_cell(flowing):
    """Its left neighbor gave 3 molecules, the others 1 each."""
    ax = rsd.pl.flow(flowing, cell=MIDDLE, color="cell_type", palette=COLORS, return_ax=True)
    tail, tip, width, color = arrows_of(ax)
    assert (nearest(flowing, tip) == 27).all()
    sources = nearest(flowing, tail)
    assert set(sources) == {26, 28, 19, 35}
    widths = dict(zip(sources, width / width.min(), strict=True))
    assert widths == pytest.approx({26: 3, 28: 1, 19: 1, 35: 1})
    expected = [to_rgba(COLORS[name]) for name in flowing.obs["cell_type"].iloc[sources]]
    np.testing.assert_allclose(color, expected)
    assert ax.get_title() == "6.0 molecules from neighbors"
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # y points down
    (dot,) = [line for line in ax.lines if line.get_marker() == "o"]
    assert (dot.get_xdata()[0], dot.get_ydata()[0]) == (35, 35)


def test_cells_without_a_group_are_white_and_in_the_legend(flowing):
    flowing.obs.loc[MIDDLE, "cell_type"] = np.nan
    ax = rsd.pl.flow(flowing, cell=MIDDLE, color="cell_type", palette=COLORS, return_ax=True)
    (legend,) = [c for c in ax.get_children() if isinstance(c, Legend) and c.get_title().get_text() == "cell_type"]
    color = {
        text.get_text(): handle.get_color()
        for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True)
    }
    assert to_rgba(color["no value"]) == to_rgba("white")
    # Arrows from cells without a value have a color that no group has, and are explained.
    flowing.obs.loc["cell26", "cell_type"] = np.nan
    ax = rsd.pl.flow(flowing, cell=MIDDLE, color="cell_type", palette=COLORS, return_ax=True)
    _, _, width, arrows = arrows_of(ax)
    assert to_rgba("black") == tuple(arrows[width.argmax()])
    assert "no value (black arrows)" in [text.get_text() for text in ax.artists[0].get_texts()]


def test_the_legend_has_the_groups_that_are_visible(flowing):
    flowing.obs["row"] = (flowing.obsm["spatial"][:, 1] // 10).astype(int).astype(str)
    ax = rsd.pl.flow(flowing, window=(0, 80, 20, 40), color="row", return_ax=True)
    shown = {text.get_text() for text in ax.artists[0].get_texts()}
    sources = nearest(flowing, arrows_of(ax)[0])
    assert shown == {"2", "3"} | set(flowing.obs["row"].iloc[sources])
    assert "7" not in shown and "0" not in shown


def test_molecules_of_removed_cells(flowing):
    part = flowing[flowing.obs_names != "cell26"].copy()
    weights = (part.obsp["resolvi_flow"] > 0).astype(np.float32)
    part.obsp["resolvi_weights"] = weights.multiply(1 / weights.sum(axis=1).clip(1)).tocsr()
    rsd.pl.flow(part, cell=MIDDLE)  # no neighbor is missing, as far as the weights tell
    part.obsp["resolvi_weights"] = 0.5 * part.obsp["resolvi_weights"]
    with pytest.warns(UserWarning, match="1 of 63 cells had neighbors in the fit that are not in this table"):
        rsd.pl.flow(part, cell=MIDDLE)


@pytest.mark.parametrize("window", [5, (0, 1, 2), (0, 40, 0, "a"), (40, 0, 0, 40), (0, np.nan, 0, 40)])
def test_windows_that_are_none(flowing, window):
    with pytest.raises(ValueError, match=r"`window` must be \(left, right, top, bottom\), with left < right"):
        rsd.pl.flow(flowing, window=window)


@pytest.mark.parametrize(("least", "error"), [("a", TypeError), (np.nan, ValueError), (-1, ValueError)])
def test_least_number_of_molecules(flowing, least, error):
    with pytest.raises(error, match="`min_molecules` must be"):
        rsd.pl.flow(flowing, cell=MIDDLE, min_molecules=least)


def test_few_molecules_are_left_out(flowing):
    ax = rsd.pl.flow(flowing, cell=MIDDLE, min_molecules=2, return_ax=True)
    assert list(nearest(flowing, arrows_of(ax)[0])) == [26]
    assert ax.get_title() == "3.0 of 6.0 molecules from neighbors"
    ax = rsd.pl.flow(flowing, cell=MIDDLE, min_molecules=10, return_ax=True)
    assert not [c for c in ax.collections if type(c) is PolyCollection]


def test_legend_is_as_wide_as_the_arrows(flowing):
    ax = rsd.pl.flow(flowing, cell=MIDDLE, units="µm", return_ax=True)
    ax.figure.canvas.draw()
    _, _, width, _ = arrows_of(ax)
    pixels = ax.transData.transform([(0, 0), (width.max() / 3, 0)])  # of one molecule
    points = (pixels[1, 0] - pixels[0, 0]) * 72 / ax.figure.dpi
    lines = {text.get_text(): line for text, line in
             zip(ax.get_legend().get_texts(), ax.get_legend().get_lines(), strict=True)}  # fmt: skip
    assert set(lines) == {"2", "0.5"}  # at most 3, and a fifth of it
    for name, line in lines.items():
        assert line.get_linewidth() == pytest.approx(points * float(name), rel=0.02)
    assert ax.get_xlabel() == "x (µm)"


def test_legend_of_many_groups_is_in_the_figure(flowing):
    flowing.obs["cluster"] = [f"cluster {i % 40}" for i in range(64)]
    ax = rsd.pl.flow(flowing, window=(0, 80, 0, 80), color="cluster", return_ax=True)
    ax.figure.canvas.draw()
    (legend,) = ax.artists
    assert len(legend.get_texts()) == 40
    box = legend.get_window_extent()
    assert 0 <= box.x0 and box.x1 <= ax.figure.bbox.x1 and box.y1 <= ax.figure.bbox.y1


def test_window_holds_what_came_into_its_cells(flowing):
    """Two cells side by side at (35, 35) and (45, 35): 6 molecules came into each, along 4 ways."""
    ax = rsd.pl.flow(flowing, window=(30, 50, 30, 40), min_molecules=0, return_ax=True)
    tail, tip, _, _ = arrows_of(ax)
    assert len(tail) == 8
    assert ax.get_title() == "12.0 molecules from neighbors"
    assert ax.get_xlim() == (30, 50)
    assert ax.get_ylim() == (40, 30)
    ends = np.column_stack([nearest(flowing, tail), nearest(flowing, tip)]).tolist()
    east, west = ends.index([27, 28]), ends.index([28, 27])
    # On the right of the way: that to the east is below the other on the screen, where y is larger.
    assert tip[east, 1] == tail[east, 1] > 35 > tip[west, 1] == tail[west, 1]


def test_window_draws_the_widest_that_make_up_half(flowing):
    """Inner cells get 3 of 6 molecules from the left, so that these alone are half."""
    ax = rsd.pl.flow(flowing, window=(11, 69, 11, 69), return_ax=True)
    tail, tip, width, _ = arrows_of(ax)
    assert len(tail) == 36
    np.testing.assert_allclose(width, width[0])
    assert (tip[:, 0] > tail[:, 0]).all()
    assert ax.get_title() == "108.0 of 216.0 molecules from neighbors"


def test_cells_in_the_same_place_have_no_arrow(flowing):
    flowing.obsm["spatial"][26] = flowing.obsm["spatial"][27]
    ax = rsd.pl.flow(flowing, cell=MIDDLE, return_ax=True)
    assert len(arrows_of(ax)[0]) == 3


@SKIMAGE
@pytest.mark.parametrize("kind", ["sdata", "sdata_labels"])
def test_over_outlines(kind, request, add_flow):
    sdata = request.getfixturevalue(kind)
    table = sdata.tables["table"]
    first = 100 if kind == "sdata" else 1
    number = table.obs["cell_id"].to_numpy() - first
    centers = 10.0 * np.column_stack([number % 8 + 0.5, number // 8 + 0.5])
    table.obsm["spatial"] = centers
    add_flow(table)
    table.obs["side"] = np.where(centers[:, 0] < 40, "left", "right")
    name = table.obs_names[np.flatnonzero(number == 27)[0]]
    ax = rsd.pl.flow(sdata, cell=name, color="side", palette={"left": "red", "right": "blue"}, return_ax=True)
    tail, tip, _, color = arrows_of(ax)
    assert len(tail) == 4
    np.testing.assert_allclose(np.linalg.norm(tip - [35, 35], axis=1), 1.6, atol=0.2)
    np.testing.assert_allclose(color, [to_rgba("red" if x < 40 else "blue") for x in tail[:, 0]])
    assert [text.get_text() for text in ax.artists[0].get_texts()] == ["left", "right"]
    if kind == "sdata":
        cells = [c for c in ax.collections if type(c) is not PolyCollection and c.get_facecolor()[0, 3] == 1]
        assert 16 <= sum(len(c.get_paths()) for c in cells) < 63  # of the view, and those whose edge is seen
    else:
        image, lines = ax.images
        assert lines.get_array().shape[:2] == image.get_array().shape[:2]  # edges of cells, drawn on top
        pixels = np.asarray(image.get_array())
        assert pixels.shape[0] < 80
        assert len({tuple(np.round(pixel, 3)) for pixel in pixels[..., :3].reshape(-1, 3)}) <= 3


def test_cells_of_other_sections_are_not_drawn(square_table, add_results, add_flow):
    """Three samples with the same coordinates."""
    table = square_table(3)
    add_results(table, library_key="sample")
    add_flow(table)
    name = table.obs_names[64 + 27]
    ax = rsd.pl.flow(table, cell=name, return_ax=True)
    assert len(arrows_of(ax)[0]) == 4
    with pytest.raises(
        ValueError, match="several sections, so `window` needs a `library_id`, one of: 's0', 's1', 's2'"
    ):
        rsd.pl.flow(table, window=(0, 20, 0, 20))
    ax = rsd.pl.flow(table, window=(0, 20, 0, 20), min_molecules=0, library_id="s1", return_ax=True)
    assert len(arrows_of(ax)[0]) == 4 * 4 - 4  # four cells in the corner of the tissue, each edge of which costs two
    with pytest.raises(ValueError, match=f"cell={name!r} is in none of the sections 's0'"):
        rsd.pl.flow(table, cell=name, library_id="s0")


def test_errors_leave_no_figure(flowing):
    with pytest.raises(ValueError, match="either `cell`.*or `window`.*Most molecules came into the cell 'cell9'"):
        rsd.pl.flow(flowing)
    with pytest.raises(ValueError, match="either `cell`"):
        rsd.pl.flow(flowing, cell=MIDDLE, window=(0, 1, 0, 1))
    with pytest.raises(KeyError, match="cell='cell99'"):
        rsd.pl.flow(flowing, cell="cell99")
    with pytest.raises(ValueError, match="must be .left, right, top, bottom., with left < right"):
        rsd.pl.flow(flowing, window=(10, 0, 0, 10))
    with pytest.raises(ValueError, match=r"No cell has its center in window=\(200.0, 300.0, 0.0, 10.0\).*from 0.26"):
        rsd.pl.flow(flowing, window=(200, 300, 0, 10))
    with pytest.raises(KeyError, match="color='kind'"):
        rsd.pl.flow(flowing, cell=MIDDLE, color="kind")
    del flowing.obsp["resolvi_flow"]
    with pytest.raises(KeyError, match=r"'resolvi_flow'.*`table.obsp`.*tl.fit\(\.\.\., key_added='resolvi'\)` again"):
        rsd.pl.flow(flowing, cell=MIDDLE)
    assert not plt.get_fignums()


def test_too_many_arrows(flowing, monkeypatch):
    monkeypatch.setattr("resolvi_sd.pl._flow_view._MOST_ARROWS", 50)
    with pytest.raises(ValueError, match="There are 224 flows of at least 0 molecules into the 64 cells"):
        rsd.pl.flow(flowing, window=(0, 80, 0, 80), min_molecules=0)


def test_image(compare, sdata, add_groups, add_flow):
    table = sdata.tables["table"]
    add_groups(table)
    table.obsm["spatial"] = np.asarray(sd.get_centroids(sdata["cells"]).compute().loc[table.obs["cell_id"]])
    add_flow(table)
    draw = {"window": (22, 58, 22, 48), "color": "cell_type", "units": "µm", "min_molecules": 0}
    compare("flow", lambda path: rsd.pl.flow(sdata, save=path, figsize=(6, 4), **draw))


@SKIMAGE
def test_labels_of_several_scales(sdata_labels, add_flow):
    add_flow(sdata_labels["table"])
    titles = []
    for scales in (None, [2]):
        mask = sd.models.Labels2DModel.parse(np.asarray(sdata_labels["mask"]), dims=("y", "x"), scale_factors=scales)
        both = sd.SpatialData.init_from_elements({"mask": mask, "table": sdata_labels["table"]})
        ax = rsd.pl.flow(both, window=(10, 50, 10, 50), return_ax=True)
        titles.append((ax.get_title(), ax.get_xlim(), len(arrows_of(ax)[0])))
    assert titles[0] == titles[1]
