"""Areas and volumes against those known by hand: after a transformation, times its determinant."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import shapely
import spatialdata as sd
from shapely import Point
from spatialdata.models import Image2DModel, Labels2DModel, Labels3DModel, PointsModel
from spatialdata.transformations import Identity, Scale, get_transformation, set_transformation

import resolvi_sd as rsd
from tests.gr._elements import SIMILAR, grid, object_of, shapes_of

UNEVEN = Scale([2.0, 5.0], axes=("x", "y"))
ORDER = [3, 1, 4, 2]


def sizes_of(element, ids, **settings):
    return rsd.gr.cell_sizes(object_of({"cells": element}, {"cells": ids}), copy=True, **settings)


@pytest.mark.parametrize(("transformation", "factor"), [(None, 1), (SIMILAR, 9), (UNEVEN, 10)])
def test_areas_of_polygons(transformation, factor):
    side = np.array([1.0, 2.0, 3.0, 4.0])
    polygons = [shapely.box(0, 0, s, s) for s in side]
    found = sizes_of(shapes_of(polygons, transformation), ORDER)
    np.testing.assert_allclose(found, factor * side[np.array(ORDER) - 1] ** 2)
    assert found.dtype == np.float64


@pytest.mark.parametrize(("transformation", "factor"), [(None, 1), (SIMILAR, 9), (UNEVEN, 10)])
def test_areas_of_circles(transformation, factor):
    circles = shapes_of([Point(i, 0) for i in range(4)], transformation, radius=[1.0, 2.0, 3.0, 4.0])
    np.testing.assert_allclose(sizes_of(circles, ORDER), factor * np.pi * np.array(ORDER) ** 2)


@pytest.mark.parametrize("settings", [{}, {"scale_factors": [2, 2]}])
@pytest.mark.parametrize(("transformation", "factor"), [(None, 1), (SIMILAR, 9), (UNEVEN, 10)])
def test_areas_of_labels(transformation, factor, settings):
    image = np.random.default_rng(0).choice([0, 1, 2, 3, 4], size=(32, 24), p=[0.5, 0.05, 0.1, 0.15, 0.2])
    labels = Labels2DModel.parse(
        da.from_array(image, chunks=7),
        dims=("y", "x"),
        transformations={"global": transformation or Identity()},
        **settings,
    )
    found = sizes_of(labels, ORDER)
    np.testing.assert_allclose(found, factor * np.bincount(image.ravel())[ORDER])


def test_volumes_of_voxels():
    image = np.random.default_rng(0).integers(0, 5, size=(6, 9, 8))
    labels = Labels3DModel.parse(
        da.from_array(image, chunks=4),
        dims=("z", "y", "x"),
        transformations={"global": Scale([0.5, 0.5, 2.0], axes=("x", "y", "z"))},
    )
    np.testing.assert_allclose(sizes_of(labels, ORDER, quantity="volume"), 0.5 * np.bincount(image.ravel())[ORDER])
    with pytest.raises(ValueError, match="region 'cells' have 3 dimensions, so they have no area: use 'volume'"):
        sizes_of(labels, ORDER)


@pytest.mark.filterwarnings("ignore:The geometry column of the GeoDataFrame has 3 dimensions:UserWarning")
def test_spheres_have_volumes_and_projected_areas():
    balls = shapes_of([Point(0, 0, i) for i in range(4)], radius=[1.0, 2.0, 3.0, 4.0])
    radii = np.array(ORDER)
    np.testing.assert_allclose(sizes_of(balls, ORDER, quantity="volume"), 4 / 3 * np.pi * radii**3)
    np.testing.assert_allclose(sizes_of(balls, ORDER), np.pi * radii**2)


def test_outlines_in_the_plane_have_no_volume():
    with pytest.raises(ValueError, match="region 'cells' have 2 dimensions, so they have no volume: use 'area'"):
        sizes_of(shapes_of(grid(2, 4, 1)), ORDER, quantity="volume")


def test_shapes_and_labels_together():
    image = np.zeros((6, 6), dtype=np.int32)
    image[:2], image[3:] = 1, 2
    elements = {"pixels": Labels2DModel.parse(image, dims=("y", "x")), "squares": shapes_of(grid(2, 4, 1))}
    sdata = object_of(elements, {"pixels": [2, 1], "squares": [1, 2]})
    rsd.gr.cell_sizes(sdata)
    assert sdata["table"].obs["area"].tolist() == [18, 12, 16, 16]


def test_what_is_written(tmp_path):
    sdata = object_of({"cells": shapes_of(grid(2, 4, 1), SIMILAR)}, {"cells": ORDER})
    rsd.gr.cell_sizes(sdata)
    record = {"unit": "unit of 'global'^2", "quantity": "area", "coordinate_system": "global"}
    assert sdata["table"].uns["area_unit"] == record
    rsd.gr.cell_sizes(sdata, unit="micrometer")  # its own column is measured again
    sdata.write(tmp_path / "cells.zarr")
    table = sd.read_zarr(tmp_path / "cells.zarr")["table"]
    np.testing.assert_allclose(table.obs["area"], 144)
    assert table.uns["area_unit"] == record | {"unit": "micrometer^2"}


def test_a_column_from_elsewhere_stays():
    sdata = object_of({"cells": shapes_of(grid(2, 4, 1))}, {"cells": ORDER})
    sdata["table"].obs["area"] = 1.0
    with pytest.raises(ValueError, match="has a column 'area' from elsewhere.*key_added"):
        rsd.gr.cell_sizes(sdata)
    assert (sdata["table"].obs["area"] == 1).all()
    rsd.gr.cell_sizes(sdata, key_added="outline_area")
    assert (sdata["table"].obs["outline_area"] == 16).all()


def test_pixels_are_no_micrometres():
    # An image without a scale: the unit of the coordinate system is its pixel.
    image = Image2DModel.parse(np.zeros((1, 8, 8), dtype=np.uint8), dims=("c", "y", "x"))
    sdata = object_of({"cells": shapes_of(grid(2, 4, 1)), "stain": image}, {"cells": ORDER})
    with pytest.raises(ValueError, match="unit='micrometer', but .* 'global' is a pixel: 'stain' is placed .* Scale"):
        rsd.gr.cell_sizes(sdata, unit="micrometer")
    assert "area" not in sdata["table"].obs
    rsd.gr.cell_sizes(sdata)
    assert sdata["table"].uns["area_unit"]["unit"] == "pixel^2"
    # The way out that the message names.
    for name in ("cells", "stain"):
        set_transformation(sdata[name], Scale([0.5, 0.5], axes=("x", "y")), "micrometers")
    rsd.gr.cell_sizes(sdata, unit="micrometer", coordinate_system="micrometers")
    np.testing.assert_allclose(sdata["table"].obs["area"], 4)
    assert sdata["table"].uns["area_unit"]["unit"] == "micrometer^2"


@pytest.mark.parametrize("region", ["points", "none"])
def test_without_outlines(region):
    sdata = object_of({"cells": PointsModel.parse(np.arange(8.0).reshape(4, 2))}, {"cells": range(4)})
    data = sdata if region == "points" else sdata["table"]
    with pytest.raises(ValueError, match="The area of cells needs the outlines"):
        rsd.gr.cell_sizes(data)


def test_flat_transformations():
    with pytest.raises(ValueError, match="transformation of element 'cells' to 'global' flattens it"):
        sizes_of(shapes_of(grid(2, 4, 1), Scale([1.0, 0.0], axes=("x", "y"))), ORDER)


def test_unknown_quantity():
    with pytest.raises(ValueError, match="quantity='perimeter' is not known; it is one of 'area', 'volume'"):
        sizes_of(shapes_of(grid(2, 4, 1)), ORDER, quantity="perimeter")


def test_real_areas(real_data):
    sdata = sd.read_zarr(real_data("xenium_pancreas_roi.zarr"))
    found = rsd.gr.cell_sizes(sdata, copy=True)
    # The release has its own areas, from the pixels that the outlines were drawn around.
    np.testing.assert_allclose(np.median(found / sdata["table"].obs["area"]), 1, atol=0.01)


@pytest.mark.filterwarnings("ignore:The index of the dataframe is not monotonic increasing:UserWarning")
@pytest.mark.parametrize(("region", "tolerance"), [("cell_boundaries", 0.04), ("cell_labels", 1e-6)])
def test_real_units(real_data, region, tolerance):
    sdata = sd.read_zarr(real_data("xenium_breast_mini.zarr"))
    sdata["table"].obs["region"] = pd.Categorical([region] * sdata["table"].n_obs)
    rsd.gr.cell_sizes(sdata, key_added="outline_area")
    assert sdata["table"].uns["outline_area_unit"]["unit"] == "pixel^2"
    # Outlines are in micrometres; their transformation scales to pixels of the image. They have 13 corners, which cuts
    # off some of the pixels that the areas of the release count; the labels are these pixels.
    scale = get_transformation(sdata["cell_boundaries"]).to_affine_matrix(("x", "y"), ("x", "y"))[0, 0]
    ratio = sdata["table"].obs["outline_area"] / scale**2 / sdata["table"].obs["cell_area"]
    np.testing.assert_allclose(np.median(ratio), 1, atol=tolerance)
