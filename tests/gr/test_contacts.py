"""Cells in contact and their borders, known by hand."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import shapely
from shapely import Point
from spatialdata.models import Labels2DModel

import resolvi_sd as rsd
from tests.gr._elements import SIMILAR, blobs, grid, object_of, shapes_of


def squares(n, side, gap, order=None):
    order = np.arange(n * n) if order is None else order
    return object_of({"cells": shapes_of(grid(n, side, gap), SIMILAR)}, {"cells": order + 1})


def test_squares_that_touch_share_their_sides():
    # Side 10, scaled by 3. Squares at a corner touch in a point.
    order = np.random.default_rng(0).permutation(9)
    found = rsd.gr.contacts(squares(3, 10, 0, order), copy=True)
    row, column = np.divmod(order, 3)
    steps = np.abs(row[:, None] - row) + np.abs(column[:, None] - column)
    around = np.maximum(np.abs(row[:, None] - row), np.abs(column[:, None] - column)) == 1
    np.testing.assert_array_equal(found.connectivities.toarray() > 0, around)
    np.testing.assert_allclose(found.borders.toarray(), np.where(steps == 1, 30, 0), atol=1e-3)
    assert (found.distances.data == 0).all()
    # Together with the outer sides, each outline is its own border: 4 x 30.
    np.testing.assert_allclose(np.asarray(found.borders.sum(axis=1)).ravel()[order == 4], 120, rtol=1e-4)


@pytest.mark.parametrize(("max_gap", "n_contacts"), [(0, 0), (2.9, 0), (3, 24), (4.3, 40)])
def test_a_gap_is_bridged_when_asked_for(max_gap, n_contacts):
    # Squares 1 apart, scaled by 3: 12 pairs side by side at a gap of 3, 8 at the corners at 3 root 2 = 4.24.
    found = rsd.gr.contacts(squares(3, 10, 1), max_gap=max_gap, copy=True)
    assert found.connectivities.nnz == n_contacts
    if max_gap == 3:
        np.testing.assert_allclose(found.distances.data, 3, rtol=1e-6)
        np.testing.assert_allclose(found.borders.data, 30, rtol=1e-3)


def test_part_of_a_side():
    # Two rectangles that face each other along 4 of 10, and one inside the first, whose outline is 4 x 2.
    shapes = [shapely.box(0, 0, 10, 10), shapely.box(10, 6, 20, 16), shapely.box(2, 2, 4, 4)]
    found = rsd.gr.contacts(object_of({"cells": shapes_of(shapes)}, {"cells": [1, 2, 3]}), copy=True)
    # Of the outer one no border lies inside the inner one, so the mean is half the outline.
    np.testing.assert_allclose(found.borders.toarray(), [[0, 4, 4], [4, 0, 0], [4, 0, 0]], atol=1e-3)


def test_contacts_equal_pair_by_pair():
    outlines = blobs()
    found = rsd.gr.contacts(
        object_of({"cells": shapes_of(outlines)}, {"cells": np.arange(1, len(outlines) + 1)}), max_gap=1.0, copy=True
    )
    gaps = np.array([[a.distance(b) for b in outlines] for a in outlines])
    expected = gaps <= 1
    np.fill_diagonal(expected, False)
    np.testing.assert_array_equal(found.connectivities.toarray() > 0, expected)
    np.testing.assert_allclose(found.distances.toarray(), np.where(expected, gaps, 0), rtol=1e-6, atol=1e-5)
    for i, j in np.argwhere(expected)[::9]:
        one, other = outlines[i], outlines[j]
        faces = [one.boundary.intersection(other.buffer(1.0)), other.boundary.intersection(one.buffer(1.0))]
        # Round corners of the surroundings are drawn with 64 sides, 0.1 % of the gap off.
        assert found.borders[i, j] == pytest.approx(shapely.length(faces).mean(), rel=1e-3)
        assert found.borders[i, j] == found.borders[j, i]


def test_discs_share_arcs():
    # Unit circles with centers 1 apart: a third of each outline lies in the other. Polygons of 512 corners agree.
    places, radii = [(0, 0), (1, 0), (10, 0), (10, 0.5)], [1.0, 1.0, 3.0, 1.0]
    discs = shapes_of([Point(*p) for p in places], radius=radii)
    polygons = shapes_of([Point(*p).buffer(r, quad_segs=128) for p, r in zip(places, radii, strict=True)])
    for gap in (0.0, 0.2):
        found, drawn = (
            rsd.gr.contacts(object_of({"cells": s}, {"cells": [1, 2, 3, 4]}), max_gap=gap, copy=True).borders.toarray()
            for s in (discs, polygons)
        )
        np.testing.assert_allclose(found, drawn, rtol=2e-3)
        if gap == 0:
            assert found[0, 1] == pytest.approx(2 * np.pi / 3, rel=1e-4)
            assert found[2, 3] == pytest.approx(np.pi, rel=1e-4)  # the inner one whole, of the outer one nothing


def test_labels_share_the_sides_of_pixels():
    image = np.zeros((8, 8), dtype=np.int32)
    image[:5, :4], image[2:, 4:], image[7, 0] = 1, 2, 3
    labels = Labels2DModel.parse(da.from_array(image, chunks=3), dims=("y", "x"))
    sdata = object_of({"cells": labels}, {"cells": [1, 2, 3]})
    found = rsd.gr.contacts(sdata, copy=True)
    np.testing.assert_allclose(found.borders.toarray(), [[0, 3, 0], [3, 0, 0], [0, 0, 0]], atol=1e-4)
    assert rsd.gr.contacts(sdata, max_gap=2, copy=True).connectivities.toarray()[0, 2] == 1


def test_sections_do_not_touch_and_blocks_do_not_matter(monkeypatch):
    sdata = squares(4, 10, 0)
    sdata["table"].obs["slide"] = pd.Categorical(["left", "left", "right", "right"] * 4)
    whole = rsd.gr.contacts(sdata, library_key="slide", copy=True)
    monkeypatch.setattr("resolvi_sd.gr._contacts._BLOCK", 3)
    parts = rsd.gr.contacts(sdata, library_key="slide", copy=True)
    slide = sdata["table"].obs["slide"].cat.codes.to_numpy()
    row, column = whole.connectivities.nonzero()
    assert (slide[row] == slide[column]).all()
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(one.toarray(), other.toarray())


def test_what_is_written():
    sdata = squares(3, 10, 0)
    assert rsd.gr.contacts(sdata, key_added="run2") is None
    table = sdata["table"]
    assert set(table.obsp) == {"run2_borders", "run2_contacts_connectivities", "run2_contacts_distances"}
    assert table.uns["run2_contacts_neighbors"] == {
        "connectivities_key": "run2_contacts_connectivities",
        "distances_key": "run2_contacts_distances",
        "params": {
            "coord_type": "generic",
            "transform": "none",
            "distance": "boundary",
            "max_gap": 0.0,
            "coordinate_system": "global",
            "method": "resolvi_sd",
        },
    }
    structures = [table.obsp[key].indices.tolist() for key in table.obsp]
    assert structures[0] == structures[1] == structures[2]
    assert all(table.obsp[key].dtype == np.float32 for key in table.obsp)


def test_squidpy_can_use_it():
    import squidpy as sq

    sdata = squares(3, 10, 0)
    rsd.gr.contacts(sdata)
    sdata["table"].obs["type"] = pd.Categorical(["middle" if i == 4 else "rim" for i in range(9)])
    pairs = sq.gr.interaction_matrix(sdata["table"], "type", connectivity_key="resolvi_contacts", copy=True)
    np.testing.assert_array_equal(pairs, [[0, 8], [8, 24]])


@pytest.mark.parametrize(
    ("value", "error"), [(-1, ValueError), (np.inf, ValueError), (np.nan, ValueError), ("1", TypeError)]
)
def test_impossible_gap(value, error):
    with pytest.raises(error, match="`max_gap` must be"):
        rsd.gr.contacts(squares(2, 10, 0), max_gap=value)


@pytest.mark.filterwarnings("ignore:The geometry column of the GeoDataFrame has 3 dimensions:UserWarning")
def test_spheres_share_no_border():
    balls = shapes_of([Point(0, 0, 0), Point(0, 0, 2)], radius=[1.0, 2.0])
    with pytest.raises(ValueError, match="Spheres share areas, not borders"):
        rsd.gr.contacts(object_of({"cells": balls}, {"cells": [1, 2]}))


def test_a_table_alone():
    with pytest.raises(ValueError, match="pass the SpatialData"):
        rsd.gr.contacts(squares(2, 10, 0)["table"])


def test_the_graph_of_a_fit_is_not_replaced():
    sdata = rsd.datasets.simulate_tissue(n_cells=100, n_genes=20, rng=0)
    rsd.gr.contacts(sdata, max_gap=5)
    quick = {"max_epochs": 1, "show_progress_bar": False}
    rsd.tl.fit(sdata, key_added="resolvi_contacts", neighbors_key="resolvi_contacts", **quick)
    before = sdata["table"].obsp["resolvi_contacts_connectivities"].copy()
    with pytest.raises(ValueError, match=r"'resolvi_contacts' holds a fit.*Choose another `key_added=`"):
        rsd.gr.contacts(sdata)
    assert (sdata["table"].obsp["resolvi_contacts_connectivities"] != before).nnz == 0
    rsd.gr.contacts(sdata, key_added="other")
