"""spatialdata-plot on the results of a fit: what is drawn is what the cells with those ids have."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import spatialdata as sd
import spatialdata_plot  # noqa: F401  (registers `sdata.pl`)
from matplotlib.collections import LineCollection

pytestmark = pytest.mark.filterwarnings("ignore:The set_bad function:PendingDeprecationWarning")


@pytest.fixture
def study(fitted):
    """One section; the rows of the table in another order than those of the shapes, which must make no difference."""
    rows = np.flatnonzero(fitted["table"].obs["region"] == "cells_0")
    table = fitted["table"][np.random.default_rng(0).permutation(rows)].copy()
    table.uns["spatialdata_attrs"]["region"] = "cells_0"
    return sd.SpatialData(shapes={"cells_0": fitted["cells_0"]}, tables={"table": table})


@pytest.fixture
def axes():
    return plt.subplots()[1]


def _drawn_colors(sdata, axes):
    """Colour of each cell, in the order of the table: of the patch that has the bounds of its shape."""
    patches = axes.collections[0]
    drawn = np.array([path.get_extents().extents for path in patches.get_paths()])
    bounds = sdata["cells_0"].loc[sdata["table"].obs["cell_id"]].bounds.to_numpy()
    distance = np.abs(bounds[:, None] - drawn[None]).max(axis=2)
    assert distance.min(axis=1).max() < 1e-6
    return patches.get_facecolor()[distance.argmin(axis=1), :3]


def _colors(values):
    """Colours of numbers on viridis, from the smallest to the largest."""
    scaled = (values - values.min()) / (values.max() - values.min())
    return matplotlib.colormaps["viridis"](scaled)[:, :3]


def test_shapes_in_the_colour_of_a_share(study, axes):
    study.pl.render_shapes("cells_0", color="resolvi_true", cmap="viridis").pl.show(ax=axes)
    expected = _colors(study["table"].obs["resolvi_true"].to_numpy())
    np.testing.assert_allclose(_drawn_colors(study, axes), expected, atol=0.02)


def test_shapes_in_the_colour_of_corrected_counts(study, axes):
    gene = study["table"].var_names[0]
    study.pl.render_shapes("cells_0", color=gene, table_layer="resolvi_counts", cmap="viridis").pl.show(ax=axes)
    expected = _colors(study["table"][:, gene].layers["resolvi_counts"].toarray().ravel())
    np.testing.assert_allclose(_drawn_colors(study, axes), expected, atol=0.02)


def test_shapes_in_the_colours_of_predicted_labels(study, axes):
    study.pl.render_shapes("cells_0", color="resolvi_predicted").pl.show(ax=axes)
    colors = [tuple(color) for color in _drawn_colors(study, axes).round(4)]
    labels = study["table"].obs["resolvi_predicted"].astype(str)
    assert len(set(zip(labels, colors, strict=True))) == len(set(labels)) == len(set(colors)) > 1


def _drawn_pairs(sdata, axes):
    """Rows of the two cells that each line connects, by their positions, smaller one first; and the lines."""
    lines = next(c for c in axes.collections if isinstance(c, LineCollection))
    centroids = sdata["cells_0"].loc[sdata["table"].obs["cell_id"]].centroid.get_coordinates().to_numpy()
    ends = np.stack(lines.get_segments()).reshape(-1, 2)
    distance = np.linalg.norm(ends[:, None] - centroids[None], axis=2)
    assert distance.min(axis=1).max() < 1e-6
    pairs = np.sort(distance.argmin(axis=1).reshape(-1, 2), axis=1)
    return [tuple(pair) for pair in pairs.tolist()], lines


def _pairs(matrix):
    """Pairs of cells in the upper triangle of a matrix."""
    rows, columns = matrix.nonzero()
    return {(i, j) for i, j in zip(rows.tolist(), columns.tolist(), strict=True) if i < j}


def test_the_graph_of_a_fit(study, axes):
    """spatialdata-plot 0.4.3 draws one triangle of the matrix: nearest neighbors are made symmetric first."""
    table = study["table"]
    table.obsp["either"] = table.obsp["resolvi_connectivities"].maximum(table.obsp["resolvi_connectivities"].T)
    shapes = study.pl.render_shapes("cells_0")
    shapes.pl.render_graph("cells_0", connectivity_key="either").pl.show(ax=axes)
    assert set(_drawn_pairs(study, axes)[0]) == _pairs(table.obsp["either"])

    as_it_is = plt.subplots()[1]
    shapes.pl.render_graph("cells_0", connectivity_key="resolvi").pl.show(ax=as_it_is)
    assert set(_drawn_pairs(study, as_it_is)[0]) <= _pairs(table.obsp["either"])


def test_edges_in_the_colour_of_the_molecules_exchanged(study, axes):
    exchanged = study["table"].obsp["resolvi_flow"] + study["table"].obsp["resolvi_flow"].T
    study["table"].obsp["exchanged"] = exchanged
    shapes = study.pl.render_shapes("cells_0")
    shapes.pl.render_graph("cells_0", connectivity_key="exchanged", obsp_key="exchanged").pl.show(ax=axes)
    drawn, lines = _drawn_pairs(study, axes)
    assert set(drawn) == _pairs(exchanged)
    np.testing.assert_allclose(lines.get_array(), [exchanged[pair] for pair in drawn], rtol=1e-6)
