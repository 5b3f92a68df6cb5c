"""Polygons that are invalid, empty or in several parts: repaired where that is unambiguous, named where not."""

from __future__ import annotations

import warnings
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely
from shapely import MultiPolygon, Point, Polygon, box
from spatialdata.models import ShapesModel

import resolvi_sd as rsd
from resolvi_sd._tables import cell_outlines, cell_positions, table_view
from tests.gr._elements import object_of, shapes_of

SQUARE = box(0, 0, 10, 10)
BOWTIE = Polygon([(0, 0), (10, 10), (10, 0), (0, 10)])  # crosses itself half way: two triangles of 25
SPIKED = Polygon([(0, 0), (10, 0), (10, 10), (12, 12), (10, 10), (0, 10)])  # a spike there and back
# Crosses itself near its last vertex: beside the square a triangle of 0.005.
CROSSED = Polygon([(0, 0), (10, 0), (10, 10), (-0.1, 10), (-0.1, 9.9), (0, 10)])
TWICE = MultiPolygon([box(0, 0, 6, 10), box(4, 0, 10, 10)])  # its parts overlap: together a square
COLLAPSED = Polygon([(0, 0), (10, 0), (5, 0)])
DEBRIS = MultiPolygon([SQUARE, box(30, 0, 31, 1)])  # 1 of 101
APART = MultiPolygon([SQUARE, box(20, 0, 25, 10)])


def cells_of(*polygons: Any):
    """The polygons, and two squares elsewhere, as cells 1, 2, ..."""
    polygons = [*polygons, box(100, 0, 110, 10), box(200, 0, 210, 10)]
    return object_of({"cells": shapes_of(polygons)}, {"cells": np.arange(1, len(polygons) + 1)})


def recorded(function, *arguments):
    """What the function returns, and the messages of this package's warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = function(*arguments)
    return result, [str(w.message) for w in caught if "of region" in str(w.message)]


@pytest.mark.parametrize("read", [cell_outlines, cell_positions, table_view])
@pytest.mark.parametrize(
    ("polygon", "message"),
    [
        (Polygon(), "1 of 3 cells of region 'cells' have an empty shape: 1. Remove these rows"),
        (
            BOWTIE,
            "1 of 3 cells of region 'cells' have an invalid polygon that consists of several pieces.*: 1. .*make_",
        ),
        (COLLAPSED, "1 of 3 cells of region 'cells' have an invalid polygon .* encloses nothing: 1"),
        (Point(3, 3), "1 of 3 cells of region 'cells' have a shape that is not a polygon"),
    ],
)
def test_what_cannot_be_repaired_is_named(read, polygon, message):
    sdata = cells_of(SQUARE, SQUARE)
    sdata["cells"].loc[1, "geometry"] = polygon
    sdata["table"] = sdata["table"][[2, 0, 1]].copy()
    with pytest.raises(ValueError, match=message):
        read(sdata)


def test_missing_geometry_is_named():
    sdata = cells_of(SQUARE)
    sdata["cells"].loc[[2, 3], "geometry"] = None
    with pytest.raises(ValueError, match="2 of 3 cells of region 'cells' have an empty shape: 2, 3"):
        cell_positions(sdata)


def test_only_cells_of_the_table_count():
    sdata = cells_of(BOWTIE)
    sdata["table"] = sdata["table"][1:].copy()
    np.testing.assert_allclose(cell_positions(sdata).coordinates, [[105, 5], [205, 5]])


@pytest.mark.parametrize(("polygon", "area"), [(SPIKED, 100), (CROSSED, 100), (TWICE, 100)])
def test_the_enclosed_area_of_an_invalid_polygon_is_used(polygon, area):
    assert not polygon.is_valid
    sdata = cells_of(polygon)
    before = sdata["cells"].copy()
    sizes, messages = recorded(lambda: rsd.gr.cell_sizes(sdata, copy=True))
    assert sizes[0] == pytest.approx(area, rel=1e-3)
    assert messages == [
        "1 of 3 cells of region 'cells' have a polygon whose outline crosses itself; the area that it encloses is "
        "used: 1."
    ]
    positions, _ = recorded(cell_positions, sdata)
    np.testing.assert_allclose(positions.coordinates[0], [5, 5], atol=0.01)
    outlines, _ = recorded(cell_outlines, sdata)
    assert outlines.polygons[0].geom_type == "Polygon" and outlines.polygons[0].is_valid
    assert sdata["cells"].geometry.geom_equals_exact(before.geometry, 0).all()


def test_the_way_out_of_an_ambiguous_polygon_works():
    sdata = cells_of(BOWTIE)
    sdata["cells"].geometry = sdata["cells"].make_valid()
    sizes, messages = recorded(lambda: rsd.gr.cell_sizes(sdata, copy=True))
    assert sizes[0] == pytest.approx(50)
    assert messages == ["1 of 3 cells of region 'cells' consist of several parts; each is the union of its parts: 1."]


def test_slivers_are_left_out():
    outlines, messages = recorded(cell_outlines, cells_of(DEBRIS))
    assert outlines.polygons[0].equals(SQUARE)
    assert messages == []


def test_a_cell_in_parts_is_all_of_them():
    sdata = cells_of(APART)
    outlines, messages = recorded(cell_outlines, sdata)
    assert shapely.area(outlines.polygons[0]) == 150
    assert len(messages) == 1 and "consist of several parts" in messages[0]
    gaps, _ = recorded(lambda: rsd.gr.neighbors(sdata, distance="boundary", copy=True).distances)
    assert gaps[0, 1] == 75
    positions, _ = recorded(cell_positions, sdata)
    np.testing.assert_allclose(positions.coordinates[0], [(5 * 100 + 22.5 * 50) / 150, 5])


def test_a_multi_polygon_of_one_part_is_a_polygon():
    sdata = cells_of(MultiPolygon([SQUARE]))
    assert rsd.gr.cell_sizes(sdata, copy=True)[0] == 100


@pytest.mark.parametrize("radius", [np.nan, np.inf, 0.0])
def test_circles_without_a_radius(radius):
    circles = shapes_of([Point(0, 0), Point(9, 0)], radius=[1.0, 2.0])
    sdata = object_of({"cells": circles}, {"cells": [1, 2]})
    sdata["cells"]["radius"] = [1.0, radius]
    with pytest.raises(ValueError, match="1 of 2 cells of region 'cells' are circles without a positive radius: 2"):
        cell_outlines(sdata)


def test_repeated_ids_of_an_element():
    frame = gpd.GeoDataFrame(geometry=[SQUARE, box(20, 0, 30, 10)], index=["a", "a"])
    sdata = object_of({"cells": ShapesModel.parse(frame)}, {"cells": ["a"]})
    with pytest.raises(ValueError, match="Instance ids of element 'cells' must be unique.*'a'"):
        cell_outlines(sdata)


@pytest.mark.parametrize("read", [cell_outlines, lambda s, **k: rsd.gr.cell_sizes(s, copy=True, **k)])
def test_an_element_outside_of_the_coordinate_system(read):
    with pytest.raises(KeyError, match="coordinate_system='um' .* element 'cells'; it has: 'global'"):
        read(cells_of(SQUARE), coordinate_system="um")


def test_fewer_cells_than_neighbors():
    found = rsd.gr.neighbors(cells_of(SQUARE), n_neighbors=10, distance="boundary", copy=True)
    assert found.distances.nnz == 6
    alone = object_of({"a": shapes_of([SQUARE, box(20, 0, 30, 10)]), "b": shapes_of([SQUARE])}, {"a": [1, 2], "b": [1]})
    found = rsd.gr.neighbors(alone, n_neighbors=10, distance="boundary", copy=True)
    np.testing.assert_array_equal(found.distances.toarray(), [[0, 10, 0], [10, 0, 0], [0, 0, 0]])
