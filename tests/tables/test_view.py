from __future__ import annotations

import warnings

import anndata as ad
import dask.array as da
import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import spatialdata as sd
from shapely import Point
from spatialdata.models import Labels2DModel, Labels3DModel, ShapesModel, TableModel
from spatialdata.transformations import Affine, Scale

from resolvi_sd._tables import cell_positions, group_by, table_view
from resolvi_sd._tables._instances import id_positions


def test_rows_are_matched_by_id(known):
    view = table_view(known.sdata, coordinate_system="um")
    np.testing.assert_allclose(view.coordinates, known.coordinates, rtol=1e-12)
    assert [view.sections.names[code] for code in view.sections.codes] == list(known.regions)
    assert view.sections.codes.dtype == np.int64
    assert (view.n_cells, view.n_genes) == known.sdata["table"].shape


def test_a_subset_of_rows_keeps_its_places(known):
    keep = np.random.default_rng(3).permutation(known.sdata["table"].n_obs)[:25]
    known.sdata["table"] = known.sdata["table"][keep].copy()
    view = table_view(known.sdata, coordinate_system="um")
    np.testing.assert_allclose(view.coordinates, known.coordinates[keep], rtol=1e-12)


def test_counts_are_the_table_s_own(known, table):
    assert table_view(known.sdata, coordinate_system="um").counts is known.sdata["table"].X
    assert table_view(table).adata is table
    table.layers["raw"] = sp.csr_array(table.X)
    assert table_view(table, layer="raw").counts is table.layers["raw"]


@pytest.mark.parametrize("convert", [lambda x: x.toarray(), sp.csc_matrix, sp.csc_array, lambda x: x.astype(np.int64)])
def test_other_forms_of_counts_are_converted(table, convert):
    expected = table.X.toarray()
    table.X = convert(table.X)
    view = table_view(table)
    assert view.counts.format == "csr"
    np.testing.assert_array_equal(view.counts.toarray(), expected)


def test_repeated_entries_are_summed_in_a_copy(table):
    # Two entries for the same cell and gene: 2 + 3 molecules.
    indptr = np.full(61, 2)
    indptr[0] = 0
    table.X = sp.csr_matrix((np.array([2.0, 3.0]), np.array([1, 1]), indptr), shape=(60, 6))
    view = table_view(table)
    assert (view.counts.nnz, view.counts[0, 1]) == (1, 5)
    assert table.X.nnz == 2


def test_a_view_of_a_table(table):
    part = table[10:40]
    view = table_view(part)
    np.testing.assert_array_equal(view.counts.toarray(), table.X[10:40].toarray())
    np.testing.assert_array_equal(view.coordinates, table.obsm["spatial"][10:40])
    assert part.is_view


def test_batches_follow_the_order_of_categories(table):
    view = table_view(table, batch_key="sample")
    assert view.batches.names == ("b", "a", "c")
    assert [view.batches.names[code] for code in view.batches.codes] == list(table.obs["sample"])


def test_library_defaults_to_batch_then_to_one_section(table):
    assert table_view(table, batch_key="sample").sections.names == ("b", "a", "c")
    assert len(table_view(table).sections.names) == 1
    table.obs["slide"] = [1, 2] * 30
    view = table_view(table, batch_key="sample", library_key="slide")
    assert view.sections.names == ("1", "2")
    assert view.batches.names == ("b", "a", "c")


def test_regions_are_split_by_library(known):
    table = known.sdata["table"]
    table.obs["slide"] = np.resize(["s", "t"], table.n_obs)
    view = table_view(known.sdata, library_key="slide", coordinate_system="um")
    pairs = [f"{region}:{slide}" for region, slide in zip(known.regions, table.obs["slide"], strict=True)]
    assert [view.sections.names[code] for code in view.sections.codes] == pairs
    assert len(view.sections.names) == 4


def test_a_column_that_splits_no_region_leaves_their_names(known):
    known.sdata["table"].obs["sample"] = ["A" if region == "cells0" else "B" for region in known.regions]
    view = table_view(known.sdata, batch_key="sample", coordinate_system="um")
    assert view.sections.names == ("cells0", "cells1")
    assert view.batches.names == ("A", "B")


def test_cells_without_counts_are_marked(table):
    dense = table.X.toarray()
    dense[[3, 7]] = 0
    table.X = sp.csr_matrix(dense)
    assert set(np.flatnonzero(~table_view(table).has_counts)) >= {3, 7}
    np.testing.assert_array_equal(table_view(table).has_counts, dense.sum(axis=1) > 0)


def test_explicit_zeros_are_no_molecules(table):
    table.X = table.X.copy()
    table.X.data[table.X.indptr[4] : table.X.indptr[5]] = 0
    assert not table_view(table).has_counts[4]


def test_third_column_of_obsm_is_kept(table):
    table.obsm["xyz"] = np.c_[table.obsm["spatial"], np.arange(60.0)]
    np.testing.assert_array_equal(cell_positions(table, spatial_key="xyz").coordinates, table.obsm["xyz"])


@pytest.mark.filterwarnings("ignore:The geometry column of the GeoDataFrame has 3 dimensions:UserWarning")
@pytest.mark.parametrize(
    ("transformation", "factors"),
    [
        (Scale([2, 3, 5], axes=("x", "y", "z")), [2, 3, 5]),
        (Affine(np.diag([2.0, 3.0, 1.0]), input_axes=("x", "y"), output_axes=("x", "y")), [2, 3, 1]),
    ],
)
def test_third_coordinate_of_circles_is_kept(transformation, factors):
    places = np.random.default_rng(2).uniform(0, 9, (5, 3))
    frame = gpd.GeoDataFrame({"radius": np.ones(5)}, geometry=[Point(*p) for p in places], index=list("edcba"))
    circles = ShapesModel.parse(frame, transformations={"global": transformation})
    sdata = annotated({"cells": circles}, "cells", list("abcde"))
    np.testing.assert_allclose(cell_positions(sdata).coordinates, places[::-1] * factors)


def annotated(elements: dict[str, object], region: str, ids: list[object]) -> sd.SpatialData:
    rng = np.random.default_rng(8)
    obs = pd.DataFrame({"region": pd.Categorical([region] * len(ids)), "cell": ids}, index=[f"r{i}" for i in ids])
    table = ad.AnnData(sp.csr_matrix(rng.poisson(2.0, (len(ids), 3)).astype(np.float32)), obs=obs)
    table = TableModel.parse(table, region=region, region_key="region", instance_key="cell")
    return sd.SpatialData.init_from_elements({**elements, "table": table})


@pytest.mark.parametrize("scale_factors", [None, [2]])
def test_labels_have_the_mean_of_their_pixels(scale_factors):
    # Label 5 spans four blocks of 8 x 8, label 9 is one pixel, label 2 is in two pieces.
    image = np.zeros((16, 24), dtype=np.int32)
    image[6:10, 5:11] = 5
    image[0, 23] = 9
    image[15, [0, 20]] = 2
    labels = Labels2DModel.parse(
        da.from_array(image, chunks=8),
        dims=("y", "x"),
        scale_factors=scale_factors,
        transformations={"global": Scale([10.0, 100.0], axes=("x", "y"))},
    )
    sdata = annotated({"cells": labels}, "cells", [9, 2, 5])
    # Pixel i covers [i, i + 1], so its center is at i + 1/2.
    expected = [[235.0, 50.0], [105.0, 1550.0], [80.0, 800.0]]
    np.testing.assert_allclose(cell_positions(sdata).coordinates, expected)
    reference = sd.get_centroids(labels).compute().loc[[9, 2, 5], ["x", "y"]]
    np.testing.assert_allclose(reference, expected)


def test_labels_in_three_dimensions_keep_z():
    # Label 7 spans eight blocks of 4 x 4 x 4, label 3 is one voxel.
    image = np.zeros((6, 8, 10), dtype=np.int32)
    image[3:5, 3:5, 3:7] = 7
    image[5, 7, 9] = 3
    labels = Labels3DModel.parse(
        da.from_array(image, chunks=4),
        dims=("z", "y", "x"),
        transformations={"global": Scale([0.5, 2.0, 10.0], axes=("x", "y", "z"))},
    )
    sdata = annotated({"cells": labels}, "cells", [3, 7])
    # Voxel i covers [i, i + 1], so its center is at i + 1/2.
    np.testing.assert_allclose(cell_positions(sdata).coordinates, [[4.75, 15.0, 55.0], [2.5, 8.0, 40.0]])


def test_table_that_annotates_nothing_uses_obsm(table):
    sdata = sd.SpatialData(tables={"table": table})
    np.testing.assert_array_equal(table_view(sdata).coordinates, table.obsm["spatial"])
    del table.obsm["spatial"]
    with pytest.raises(KeyError, match=r"spatial_key='spatial' is not in `table.obsm`; it has: none.*annotates no"):
        table_view(sdata)


def test_duplicate_obs_names_do_not_matter(table):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # anndata's own
        table.obs_names = ["same"] * 60
    assert table_view(table, batch_key="sample").n_cells == 60


def test_real_polygons(real_data):
    sdata = sd.read_zarr(real_data("xenium_pancreas_roi.zarr"))
    table = sdata["table"]
    order = np.random.default_rng(0).permutation(table.n_obs)[:5_000]
    sdata.tables["table"] = table[order].copy()
    view = table_view(sdata)
    expected = sdata["cells"].centroid.loc[sdata["table"].obs["cell_id"]].get_coordinates().to_numpy()
    np.testing.assert_allclose(view.coordinates, expected, atol=1e-9)


@pytest.fixture
def breast(real_data) -> sd.SpatialData:
    return sd.read_zarr(real_data("xenium_breast_mini.zarr"))


def annotate(sdata: sd.SpatialData, region: str) -> None:
    sdata["table"].obs["region"] = pd.Categorical([region] * sdata["table"].n_obs)


@pytest.mark.filterwarnings("ignore:The index of the dataframe is not monotonic increasing:UserWarning")
@pytest.mark.parametrize("region", ["cell_boundaries", "cell_circles", "cell_labels"])
def test_every_kind_of_element_of_a_real_store(breast, region):
    annotate(breast, region)
    found = cell_positions(breast).coordinates
    expected = sd.get_centroids(breast[region]).compute().loc[breast["table"].obs["cell_id"], ["x", "y"]]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    # A cell is about 50 units of this coordinate system wide: its outline, circle and pixels are in one place.
    outlines = breast["cell_boundaries"].centroid.loc[breast["table"].obs["cell_id"]].get_coordinates().to_numpy()
    matrix = sd.transformations.get_transformation(breast["cell_boundaries"]).to_affine_matrix(("x", "y"), ("x", "y"))
    outlines = outlines @ matrix[:2, :2].T + matrix[:2, 2]
    assert np.median(np.linalg.norm(found - outlines, axis=1)) < 5


def test_real_cells_without_nucleus(breast):
    annotate(breast, "nucleus_boundaries")
    with pytest.raises(ValueError, match="2 of 122 cells of region 'nucleus_boundaries' have an instance id that is"):
        cell_positions(breast)


def test_a_table_that_lost_the_columns_of_its_elements_has_its_own_coordinates(table):
    table.uns["spatialdata_attrs"] = {"region": "cells", "region_key": "region", "instance_key": "cell_id"}
    assert "region" not in table.obs
    np.testing.assert_array_equal(cell_positions(table).coordinates, table.obsm["spatial"])
    del table.obsm["spatial"]
    with pytest.raises(KeyError, match="annotates elements of a SpatialData object.*pass that object"):
        cell_positions(table)


@pytest.mark.parametrize("make", [pd.Series, pd.Categorical])
def test_the_name_of_a_day_does_not_depend_on_the_other_days(table, make):
    days = pd.to_datetime(np.resize(["2020-01-01 00:00", "2020-01-02 12:00"], table.n_obs))
    table.obs["day"] = pd.Series(make(days)).set_axis(table.obs_names)
    assert group_by(table, "day", argument="batch_key").names == ("2020-01-01", "2020-01-02 12:00:00")
    assert group_by(table[::2].copy(), "day", argument="batch_key").names == ("2020-01-01",)


IDS = [np.array([7, 8, 9]), np.array([7.0, 8.0, 9.0]), np.array(["7", "8", "9"]), np.array([7, 8, 9], dtype=object)]


@pytest.mark.parametrize("category", [False, True])
@pytest.mark.parametrize("known", IDS)
@pytest.mark.parametrize("ids", IDS)
def test_ids_are_the_same_whatever_their_type(known, ids, category):
    known, ids = pd.Index(known), pd.Index(pd.Categorical(ids[::-1])) if category else pd.Index(ids[::-1])
    assert id_positions(known, ids.append(ids[:1])).tolist() == [2, 1, 0, 2]
    assert id_positions(known, pd.Index(["nobody"])).tolist() == [-1]


LARGE = np.array([1115875600003100000, 1115875600003100001, 1115875600003100002])
WHOLE = ["int64", "uint64", "Int64", "UInt64", "str", "category", "int64[pyarrow]", "uint64[pyarrow]"]


@pytest.mark.parametrize("known", WHOLE)
@pytest.mark.parametrize("ids", WHOLE)
def test_large_ids_are_told_apart_whatever_their_type(known, ids):
    """Of int64 and UInt64, pandas compares floats, which have 53 bits."""
    pytest.importorskip("pyarrow")
    known, ids = pd.Index(pd.Series(LARGE).astype(known)), pd.Index(pd.Series(LARGE[[2, 0]]).astype(ids))
    assert id_positions(known, ids).tolist() == [2, 0]
    assert id_positions(known, ids.insert(0, pd.NA) if ids.dtype == "Int64" else ids).tolist()[-2:] == [2, 0]


def test_large_ids_that_lost_digits_are_refused():
    with pytest.raises(ValueError, match="stored as floats, .* they have lost digits"):
        id_positions(pd.Index(LARGE), pd.Index(LARGE.astype(float)))


def test_ids_beyond_the_signed_integers():
    known = pd.Index(np.array([2**64 - 1, 2**64 - 2], dtype=np.uint64))
    assert id_positions(known, pd.Index(["18446744073709551614"])).tolist() == [1]
    assert id_positions(known, pd.Index(np.array([5, 2**64 - 1], dtype=np.uint64))).tolist() == [-1, 0]
