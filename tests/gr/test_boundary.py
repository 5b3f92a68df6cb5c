"""Neighbors by the gap between outlines, held against shapely one pair at a time and against gaps known by hand."""

from __future__ import annotations

import anndata as ad
import dask.array as da
import numpy as np
import pytest
import shapely
import spatialdata as sd
from shapely import Point
from spatialdata.models import Labels2DModel, Labels3DModel, PointsModel
from spatialdata.transformations import Scale, get_transformation

import resolvi_sd as rsd
from resolvi_sd._graphs import boundary_graph, graph_from_table, nearest_graph
from resolvi_sd._tables import cell_outlines, cell_positions
from tests.gr._elements import MATRIX, SIMILAR, blobs, grid, object_of, shapes_of


def pair_by_pair(outlines, library, n_neighbors, rows=None):
    """Gaps to the nearest outlines of the same section, sorted, infinite where there are none."""
    rows = range(len(outlines)) if rows is None else rows
    nearest = np.full((len(rows), n_neighbors), np.inf)
    for slot, i in enumerate(rows):
        gaps = sorted(
            outlines[i].distance(outlines[j]) for j in range(len(outlines)) if j != i and library[i] == library[j]
        )[:n_neighbors]
        nearest[slot, : len(gaps)] = gaps
    return nearest


def assert_nearest(graph, expected, atol):
    np.testing.assert_array_equal(graph.mask, np.isfinite(expected))
    np.testing.assert_allclose(graph.distance[graph.mask], expected[graph.mask], rtol=1e-6, atol=atol)
    own = np.broadcast_to(np.arange(len(expected))[:, None], graph.index.shape)
    assert (graph.index[graph.mask] != own[graph.mask]).all()
    listed = np.sort(np.where(graph.mask, graph.index, -1 - np.arange(graph.index.shape[1])), axis=1)
    assert (np.diff(listed, axis=1) != 0).all()


def graph_of(sdata, n_neighbors, **settings):
    cells = cell_positions(sdata, **settings)
    return nearest_graph(sdata, cells.coordinates, cells.sections.codes, n_neighbors, distance="boundary")


@pytest.mark.parametrize("n_neighbors", [1, 4, 10, 100])
@pytest.mark.parametrize("n_sections", [1, 4])
def test_polygons_equal_pair_by_pair(n_neighbors, n_sections):
    outlines = blobs()
    order = np.random.default_rng(0).permutation(len(outlines))
    sdata = object_of({"cells": shapes_of(outlines)}, {"cells": order + 1})
    library = np.random.default_rng(1).integers(0, n_sections, len(outlines))
    sdata["table"].obs["slide"] = library.astype(str)
    graph = graph_of(sdata, n_neighbors, library_key="slide")
    outlines = [outlines[i] for i in order]
    assert_nearest(graph, pair_by_pair(outlines, library, n_neighbors), atol=1e-5)
    for i in range(0, len(outlines), 7):  # the index belongs to the distance
        gaps = [outlines[i].distance(outlines[j]) for j in graph.index[i][graph.mask[i]]]
        np.testing.assert_allclose(graph.distance[i][graph.mask[i]], gaps, rtol=1e-6, atol=1e-5)
        assert set(library[graph.index[i]]) == {library[i]}


def test_in_blocks(monkeypatch):
    sdata = object_of({"cells": shapes_of(blobs())}, {"cells": np.arange(1, len(blobs()) + 1)})
    whole = graph_of(sdata, 6)
    monkeypatch.setattr("resolvi_sd._graphs._boundary._BLOCK", 7)
    parts = graph_of(sdata, 6)
    np.testing.assert_array_equal(parts.index, whole.index)
    np.testing.assert_array_equal(parts.distance, whole.distance)


def test_squares_on_a_grid_after_rotation_and_scale():
    # Side 4, gap 1, scaled by 3: the four nearest are 3 apart, the four at the corners 3 root 2.
    sdata = object_of({"cells": shapes_of(grid(5, 4, 1), SIMILAR)}, {"cells": np.arange(1, 26)})
    graph = graph_of(sdata, 8)
    np.testing.assert_allclose(graph.distance[12], [3] * 4 + [3 * np.sqrt(2)] * 4, rtol=1e-6)
    assert graph.index[12].tolist() == [7, 11, 13, 17, 6, 8, 16, 18]


def test_equal_gaps_come_by_centroid_then_by_row():
    # Squares without gaps touch all eight around them, four of which are nearer by their centroids.
    for order in (np.arange(25), np.random.default_rng(2).permutation(25)):
        sdata = object_of({"cells": shapes_of(grid(5, 0.1, 0), SIMILAR)}, {"cells": order + 1})
        graph = graph_of(sdata, 8)
        middle = int(np.flatnonzero(order == 12)[0])
        assert (graph.distance[middle] == 0).all()
        assert set(order[graph.index[middle, :4]]) == {7, 11, 13, 17}
        assert set(order[graph.index[middle, 4:]]) == {6, 8, 16, 18}
        assert (np.diff(graph.index[middle, :4]) > 0).all()


def test_a_long_cell_is_next_to_cells_with_far_centroids():
    long = shapely.box(0, 0, 100, 1)
    others = [shapely.box(x, 3, x + 1, 4) for x in range(0, 100, 5)]
    crowd = [shapely.box(50 + x, -20, 50.5 + x, -19) for x in range(5)]
    sdata = object_of({"cells": shapes_of([*crowd, long, *others])}, {"cells": np.arange(1, 27)})
    graph = graph_of(sdata, 20)
    assert set(graph.index[5]) == set(range(6, 26))
    np.testing.assert_allclose(graph.distance[5], 2)


def test_circles_are_exact():
    rng = np.random.default_rng(0)
    places, radii = rng.uniform(0, 30, (50, 2)), rng.uniform(0.2, 4, 50)
    sdata = object_of(
        {"cells": shapes_of([Point(*p) for p in places], SIMILAR, radius=radii)}, {"cells": np.arange(1, 51)}
    )
    graph = graph_of(sdata, 7)
    gaps = 3 * (np.linalg.norm(places[:, None] - places, axis=2) - radii[:, None] - radii)
    gaps[np.diag_indices(50)] = np.inf
    expected = np.sort(np.maximum(gaps, 0), axis=1)[:, :7]
    assert (expected == 0).any() and (expected > 0).any()
    np.testing.assert_allclose(graph.distance, expected, rtol=1e-6, atol=1e-6)


def test_circles_under_uneven_scales_are_ellipses():
    # Radius 1 at 0 and 10, scaled by 2 along x: half axes of 2, so 20 - 4 apart; by 5 along y: 50 - 10.
    circles = shapes_of([Point(0, 0), Point(10, 0), Point(0, 10)], Scale([2.0, 5.0], axes=("x", "y")), radius=[1.0] * 3)
    gaps = rsd.gr.neighbors(
        object_of({"cells": circles}, {"cells": [1, 2, 3]}), distance="boundary", copy=True
    ).distances.toarray()
    np.testing.assert_allclose([gaps[0, 1], gaps[0, 2]], [16, 40], rtol=1e-3)


@pytest.mark.filterwarnings("ignore:The geometry column of the GeoDataFrame has 3 dimensions:UserWarning")
def test_spheres():
    balls = shapes_of([Point(0, 0, 0), Point(0, 0, 5), Point(3, 4, 0)], radius=[1.0, 2.0, 1.0])
    sdata = object_of({"cells": balls}, {"cells": [1, 2, 3]})
    gaps = rsd.gr.neighbors(sdata, distance="boundary", copy=True).distances.toarray()
    np.testing.assert_allclose(gaps, [[0, 2, 3], [2, 0, np.sqrt(50) - 3], [3, np.sqrt(50) - 3, 0]], rtol=1e-6)


def labels_of(image, transformation=None, chunks=4, **settings):
    transformations = None if transformation is None else {"global": transformation}
    return Labels2DModel.parse(
        da.from_array(image, chunks=chunks), dims=("y", "x"), transformations=transformations, **settings
    )


@pytest.mark.parametrize("settings", [{}, {"chunks": 100}, {"scale_factors": [2]}])
def test_labels_reach_to_the_sides_of_their_pixels(settings):
    # 7 spans blocks; 2 pixels lie between 7 and 9; 4 touches 7; 5 touches 9 by a corner. Pixels are 10 x 10.
    image = np.zeros((16, 16), dtype=np.int32)
    image[2:7, 1:6], image[2:7, 8:12], image[7:9, 3:5], image[7:9, 12:14] = 7, 9, 4, 5
    sdata = object_of(
        {"cells": labels_of(image, Scale([10.0, 10.0], axes=("x", "y")), **settings)}, {"cells": [9, 7, 5, 4]}
    )
    gaps = rsd.gr.neighbors(sdata, distance="boundary", copy=True).distances.toarray()
    # 4 ends at x = 50 and 9 begins at 80, 5 at 120; 7 ends at x = 60, y = 70, where 5 begins.
    expected = [[0, 20, 0, 30], [20, 0, 60, 0], [0, 60, 0, 70], [30, 0, 70, 0]]
    np.testing.assert_allclose(gaps, expected, atol=1e-4)


@pytest.mark.parametrize("chunks", [5, 64])
def test_outlines_of_labels_cover_their_pixels(chunks):
    # Labels with holes, in pieces, and joined by corners only.
    image = np.random.default_rng(0).integers(0, 5, (21, 17))
    sdata = object_of({"cells": labels_of(image, SIMILAR, chunks=chunks)}, {"cells": [1, 2, 3, 4]})
    outlines = cell_outlines(sdata).polygons
    assert shapely.is_valid(outlines).all()
    np.testing.assert_allclose(shapely.area(outlines), 9 * np.bincount(image.ravel())[1:])
    y, x = np.nonzero(np.ones_like(image))
    places = shapely.points(np.column_stack([x + 0.5, y + 0.5]) @ MATRIX[:2, :2].T + MATRIX[:2, 2])
    for label, outline in enumerate(outlines, start=1):
        np.testing.assert_array_equal(shapely.contains(outline, places), image.ravel() == label)


def test_regions_of_shapes_of_labels_and_of_circles_together():
    image = np.zeros((4, 12), dtype=np.int32)
    image[:, :4], image[:, 7:] = 1, 2
    elements = {
        "pixels": labels_of(image),
        "squares": shapes_of(grid(2, 4, 2)),
        "discs": shapes_of([Point(0, 0), Point(9, 0)], radius=[1.0, 3.0]),
    }
    sdata = object_of(elements, {"pixels": [1, 2], "squares": [1, 2, 3, 4], "discs": [1, 2]})
    sdata["table"] = sdata["table"][[7, 2, 0, 3, 6, 4, 1, 5]].copy()
    rsd.gr.neighbors(sdata, distance="boundary", n_neighbors=2)
    gaps = sdata["table"].obsp["resolvi_distances"]
    named = {
        tuple(sorted((sdata["table"].obs_names[i], sdata["table"].obs_names[j]))): gaps[i, j]
        for i, j in zip(*gaps.nonzero(), strict=True)
    }
    assert named == {
        ("pixels-1", "pixels-2"): 3,
        ("discs-1", "discs-2"): 5,
        **{(f"squares-{i}", f"squares-{j}"): 2 for i, j in ((1, 2), (1, 3), (2, 4), (3, 4))},
    }
    assert sdata["table"].uns["resolvi_neighbors"]["params"]["distance"] == "boundary"


def test_gaps_of_zero_survive_a_store(tmp_path):
    sdata = object_of({"cells": shapes_of(grid(4, 4, 0))}, {"cells": np.arange(1, 17)})
    rsd.gr.neighbors(sdata, distance="boundary", n_neighbors=5, key_added="gap")
    sdata.write(tmp_path / "cells.zarr")
    table = sd.read_zarr(tmp_path / "cells.zarr")["table"]
    again = graph_from_table(table, "gap", np.zeros(16, dtype=np.int32))
    assert again.mask.all() and again.mask.shape == (16, 5)
    expected = pair_by_pair(grid(4, 4, 0), np.zeros(16), 5)
    assert (expected == 0).any() and (expected > 0).any()
    np.testing.assert_allclose(again.distance, expected, rtol=1e-6)


def test_the_table_without_its_elements():
    sdata = object_of({"cells": shapes_of(grid(2, 4, 1))}, {"cells": [1, 2, 3, 4]})
    sdata["table"].obsm["spatial"] = np.eye(4)[:, :2]
    with pytest.raises(ValueError, match="distance between boundaries needs .* pass the SpatialData"):
        rsd.gr.neighbors(sdata["table"], distance="boundary")
    alone = sd.SpatialData(tables={"table": ad.AnnData(np.ones((4, 2)), obsm={"spatial": np.eye(4)[:, :2]})})
    with pytest.raises(ValueError, match="the table 'table' annotates no element.*TableModel.parse"):
        rsd.gr.neighbors(alone, distance="boundary")


def test_points_have_no_outlines():
    points = PointsModel.parse(np.arange(8.0).reshape(4, 2))
    with pytest.raises(ValueError, match="region 'cells' is points.*ShapesModel.parse"):
        rsd.gr.neighbors(object_of({"cells": points}, {"cells": range(4)}), distance="boundary")


def test_labels_in_three_dimensions():
    labels = Labels3DModel.parse(da.from_array(np.arange(8).reshape(2, 2, 2), chunks=2), dims=("z", "y", "x"))
    sdata = object_of({"cells": labels}, {"cells": [1, 2, 3]})
    with pytest.raises(NotImplementedError, match="three dimensions.*distance='centroid'"):
        rsd.gr.neighbors(sdata, distance="boundary")


@pytest.mark.filterwarnings("ignore:The geometry column of the GeoDataFrame has 3 dimensions:UserWarning")
def test_ellipsoids():
    balls = shapes_of([Point(0, 0, 0), Point(0, 0, 5)], Scale([1.0, 2.0], axes=("x", "z")), radius=[1.0, 2.0])
    with pytest.raises(ValueError, match="region 'cells' become ellipsoids.*distance='centroid'"):
        rsd.gr.neighbors(object_of({"cells": balls}, {"cells": [1, 2]}), distance="boundary")


def test_unknown_distance():
    sdata = object_of({"cells": shapes_of(grid(2, 4, 1))}, {"cells": [1, 2, 3, 4]})
    with pytest.raises(ValueError, match="distance='edge' is not known; it is one of 'centroid', 'boundary'"):
        rsd.gr.neighbors(sdata, distance="edge")
    assert not list(sdata["table"].obsp)


def test_real_region_equals_pair_by_pair(real_data):
    sdata = sd.read_zarr(real_data("xenium_pancreas_roi.zarr"))
    sdata["table"] = sdata["table"][:3000].copy()
    outlines = np.asarray(sdata["cells"].geometry.loc[sdata["table"].obs["cell_id"]].array)
    rows = np.arange(0, 3000, 300)
    graph = graph_of(sdata, 10)
    np.testing.assert_allclose(
        graph.distance[rows], pair_by_pair(outlines, np.zeros(3000), 10, rows), rtol=1e-6, atol=1e-5
    )


@pytest.mark.filterwarnings("ignore:The index of the dataframe is not monotonic increasing:UserWarning")
def test_real_polygons_and_pixels_agree(real_data):
    sdata = sd.read_zarr(real_data("xenium_breast_mini.zarr"))
    graphs = {}
    for region in ("cell_boundaries", "cell_labels"):
        sdata["table"].obs["region"] = region
        sdata["table"].obs["region"] = sdata["table"].obs["region"].astype("category")
        outlines, cells = cell_outlines(sdata), cell_positions(sdata)
        graphs[region] = boundary_graph(outlines, cells.coordinates, cells.sections.codes, 5)
    # Polygons have the corners of pixels cut off: gaps agree to about the diagonal of one.
    pixel = np.diff(sdata["cell_labels"]["scale0"]["x"].to_numpy()[:2])[0]
    matrix = get_transformation(sdata["cell_labels"]).to_affine_matrix(("x", "y"), ("x", "y"))
    diagonal = np.sqrt(2) * pixel * matrix[0, 0]
    apart = np.abs(graphs["cell_boundaries"].distance - graphs["cell_labels"].distance)
    assert np.quantile(apart, 0.95) < 4 * diagonal
