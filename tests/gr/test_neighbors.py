from __future__ import annotations

import anndata as ad
import dask.array as da
import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import spatialdata as sd
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial import KDTree
from shapely import Point
from spatialdata.models import Labels3DModel, ShapesModel, TableModel
from spatialdata.transformations import Scale

import resolvi_sd as rsd
from resolvi_sd._graphs import knn_graph
from tests.gr._elements import object_of


def brute_force(coordinates, library, n_neighbors, rows=None):
    """Distances to the nearest cells of the same section from all pairs: sorted, infinite where there are none."""
    rows = np.arange(len(coordinates)) if rows is None else rows
    nearest = np.full((len(rows), n_neighbors), np.inf)
    take = min(n_neighbors, len(coordinates))
    for i, row in enumerate(rows):
        distance = np.sqrt(((coordinates - coordinates[row]) ** 2).sum(axis=1))
        distance[(library != library[row]) | (np.arange(len(coordinates)) == row)] = np.inf
        nearest[i, :take] = np.sort(np.partition(distance, take - 1)[:take])
    return nearest


def assert_exact(graph, coordinates, library, n_neighbors):
    """Compare distances, not index sets: coincident cells tie."""
    coordinates = np.asarray(coordinates, dtype=np.float64)
    expected = brute_force(coordinates, library, n_neighbors)
    np.testing.assert_array_equal(graph.mask, np.isfinite(expected))
    np.testing.assert_allclose(graph.distance[graph.mask], expected[graph.mask], rtol=1e-6, atol=1e-6)
    assert (graph.distance[~graph.mask] == 0).all()
    own = np.broadcast_to(np.arange(len(coordinates))[:, None], graph.index.shape)
    assert (graph.index[graph.mask] != own[graph.mask]).all()
    assert (graph.index[~graph.mask] == own[~graph.mask]).all()
    # The index belongs to the distance, and no neighbor is listed twice.
    between = np.linalg.norm(coordinates[graph.index] - coordinates[:, None], axis=2)
    np.testing.assert_allclose(between[graph.mask], graph.distance[graph.mask], rtol=1e-6)
    listed = np.sort(np.where(graph.mask, graph.index, -1 - np.arange(graph.index.shape[1])), axis=1)
    assert (np.diff(listed, axis=1) != 0).all()
    assert (library[graph.index] == library[:, None]).all()
    assert (graph.index.dtype, graph.distance.dtype, graph.mask.dtype) == (np.int64, np.float32, np.bool_)


@given(
    coordinates=hnp.arrays(np.float64, st.tuples(st.integers(2, 40), st.integers(2, 3)), elements=st.integers(-4, 4)),
    n_sections=st.integers(1, 6),
    n_neighbors=st.integers(1, 12),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_equal_to_brute_force_with_ties_and_coincident_cells(coordinates, n_sections, n_neighbors, seed):
    library = np.random.default_rng(seed).integers(0, n_sections, len(coordinates)).astype(np.int32)
    assert_exact(knn_graph(coordinates, library, n_neighbors), coordinates, library, n_neighbors)


def test_more_coincident_cells_than_neighbors():
    coordinates = np.repeat(np.random.default_rng(0).uniform(0, 100, (20, 2)), 15, axis=0)
    library = np.zeros(300, dtype=np.int32)
    graph = knn_graph(coordinates, library, 10)
    assert_exact(graph, coordinates, library, 10)
    assert (graph.distance == 0).all()


def test_far_from_the_origin():
    coordinates = 1e7 + np.random.default_rng(0).uniform(0, 100, (15, 2))
    library = np.zeros(15, dtype=np.int32)
    assert_exact(knn_graph(coordinates, library, 10), coordinates, library, 10)


def test_sections_of_any_size():
    sizes = [1, 2, 10, 11, 50]
    library = np.random.default_rng(1).permutation(np.repeat(np.arange(5, dtype=np.int32), sizes))
    coordinates = np.random.default_rng(2).uniform(0, 10, (len(library), 2))
    graph = knn_graph(coordinates, library, 10)
    assert_exact(graph, coordinates, library, 10)
    for code, size in enumerate(sizes):
        assert (graph.mask[library == code].sum(axis=1) == min(size - 1, 10)).all()


def test_real_region_equals_brute_force(real_data):
    sdata = sd.read_zarr(real_data("xenium_pancreas_roi.zarr"))
    result = rsd.gr.neighbors(sdata, copy=True)
    coordinates = sdata["cells"].centroid.loc[sdata["table"].obs["cell_id"]].get_coordinates().to_numpy()
    assert (np.diff(result.distances.indptr) == 10).all()
    found = np.sort(result.distances.data.reshape(-1, 10), axis=1)
    tree = KDTree(coordinates).query(coordinates, k=11)[0][:, 1:]
    np.testing.assert_allclose(found, tree, rtol=1e-6)
    rows = np.arange(0, len(coordinates), 100)
    np.testing.assert_allclose(found[rows], brute_force(coordinates, np.zeros(len(coordinates)), 10, rows), rtol=1e-6)


def test_real_samples_that_overlap(real_data):
    adata = ad.read_h5ad(real_data("merfish_mpoa.h5ad"))
    rsd.gr.neighbors(adata, library_key="sample", n_neighbors=8)
    library = adata.obs["sample"].cat.codes.to_numpy()
    edges = adata.obsp["resolvi_distances"].tocoo()
    assert (library[edges.row] == library[edges.col]).all()
    found = np.sort(adata.obsp["resolvi_distances"].data.reshape(-1, 8), axis=1)
    rows = np.arange(0, adata.n_obs, 20)
    np.testing.assert_allclose(found[rows], brute_force(adata.obsm["spatial"], library, 8, rows), rtol=1e-5)


@pytest.fixture
def table() -> ad.AnnData:
    rng = np.random.default_rng(4)
    adata = ad.AnnData(np.ones((30, 3)), obsm={"spatial": rng.uniform(0, 10, (30, 2))})
    adata.obsm["spatial"][1] = adata.obsm["spatial"][0]
    adata.obs["slide"] = pd.Categorical(["a"] * 20 + ["b"] * 9 + ["c"])
    return adata


def test_layout_is_squidpy_s(table):
    assert rsd.gr.neighbors(table, n_neighbors=4, library_key="slide", key_added="run2") is None
    assert table.uns["run2_neighbors"] == {
        "connectivities_key": "run2_connectivities",
        "distances_key": "run2_distances",
        "params": {
            "coord_type": "generic",
            "n_neighbors": 4,
            "transform": "none",
            "distance": "centroid",
            "spatial_key": "spatial",
            "library_key": "slide",
            "method": "resolvi_sd",
        },
    }
    distances, connectivities = table.obsp["run2_distances"], table.obsp["run2_connectivities"]
    assert (connectivities.data == 1).all()
    np.testing.assert_array_equal(distances.indices, connectivities.indices)
    np.testing.assert_array_equal(distances.indptr, connectivities.indptr)
    # The coincident pair keeps its entry.
    assert 0 in distances.data[distances.indptr[0] : distances.indptr[1]]
    assert distances.has_canonical_format
    assert connectivities[29].nnz == 0


def test_squidpy_finds_the_same_where_it_works(table):
    import squidpy as sq

    part = table[:20].copy()
    mine = rsd.gr.neighbors(part, n_neighbors=5, copy=True)
    theirs = sq.gr.spatial_neighbors_knn(part, n_neighs=5, copy=True)
    assert mine._fields == ("connectivities", "distances")
    np.testing.assert_array_equal(mine.connectivities.toarray(), theirs.connectivities.toarray())
    np.testing.assert_allclose(mine.distances.toarray(), theirs.distances.toarray(), rtol=1e-6)


def test_squidpy_can_use_it(table):
    import squidpy as sq

    rsd.gr.neighbors(table, n_neighbors=5)
    table.obs["type"] = pd.Categorical(["x", "y"] * 15)
    pairs = sq.gr.interaction_matrix(table, "type", connectivity_key="resolvi_connectivities", copy=True)
    assert pairs.sum() == 30 * 5


def test_copy_leaves_the_table_alone(table):
    before = table.copy()
    rsd.gr.neighbors(table, copy=True)
    assert (list(table.obsp), dict(table.uns)) == ([], {})
    np.testing.assert_array_equal(table.obsm["spatial"], before.obsm["spatial"])


def test_survives_a_store(table, tmp_path):
    rsd.gr.neighbors(table, n_neighbors=5)
    sd.SpatialData(tables={"table": table}).write(tmp_path / "tissue.zarr")
    again = sd.read_zarr(tmp_path / "tissue.zarr")["table"]
    for key in ("resolvi_distances", "resolvi_connectivities"):
        assert again.obsp[key].nnz == table.obsp[key].nnz
        assert (again.obsp[key] != table.obsp[key]).nnz == 0
    assert again.uns["resolvi_neighbors"]["distances_key"] == "resolvi_distances"
    assert again.uns["resolvi_neighbors"]["params"]["n_neighbors"] == 5


def test_shuffled_regions_in_a_coordinate_system():
    rng = np.random.default_rng(7)
    shapes, obs = {}, []
    for j, n in enumerate((60, 5)):
        places = rng.uniform(0, 100, (n, 2))
        frame = gpd.GeoDataFrame({"radius": np.ones(n)}, geometry=[Point(*p) for p in places], index=rng.permutation(n))
        scaled = Scale([0.5, 2.0], axes=("x", "y"))
        shapes[f"s{j}"] = ShapesModel.parse(frame, transformations={"um": scaled})
        obs += [(f"s{j}", i, *p) for i, p in zip(frame.index, places * [0.5, 2.0], strict=True)]
    frame = pd.DataFrame(obs, columns=["region", "cell", "x", "y"]).sample(frac=0.9, random_state=0)
    frame.index = [str(i) for i in range(len(frame))]
    adata = ad.AnnData(np.ones((len(frame), 2)), obs=frame.astype({"region": "category"}))
    adata = TableModel.parse(adata, region=["s0", "s1"], region_key="region", instance_key="cell")
    sdata = sd.SpatialData(shapes=shapes, tables={"cells": adata})
    rsd.gr.neighbors(sdata, table_key="cells", coordinate_system="um", n_neighbors=7)
    assert adata.uns["resolvi_neighbors"]["params"]["coordinate_system"] == "um"
    library = adata.obs["region"].cat.codes.to_numpy()
    expected = brute_force(frame[["x", "y"]].to_numpy(), library, 7)
    written = adata.obsp["resolvi_distances"]
    for i in range(len(frame)):
        found = np.sort(written.data[written.indptr[i] : written.indptr[i + 1]])
        np.testing.assert_allclose(found, expected[i][np.isfinite(expected[i])], rtol=1e-6)


def test_labels_in_three_dimensions():
    """Cell 2 is above cell 1, by 2 planes of 5, and cell 3 beside it, by 4: in the plane, 2 would be on top of 1."""
    image = np.zeros((3, 4, 6), dtype=np.int32)
    image[0, 1, 0], image[2, 1, 0], image[0, 1, 4] = 1, 2, 3
    labels = Labels3DModel.parse(
        da.from_array(image, chunks=2),
        dims=("z", "y", "x"),
        transformations={"global": Scale([1.0, 1.0, 5.0], axes=("x", "y", "z"))},
    )
    found = rsd.gr.neighbors(object_of({"cells": labels}, {"cells": [1, 2, 3]}), n_neighbors=1, copy=True)
    expected = [[0, 0, 4], [10, 0, 0], [4, 0, 0]]
    np.testing.assert_allclose(found.distances.toarray(), expected)


@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (2.5, TypeError)])
def test_number_of_neighbors(table, value, error):
    with pytest.raises(error, match="`n_neighbors` must be"):
        rsd.gr.neighbors(table, n_neighbors=value)


def test_coordinates_that_are_not_used_are_refused(table):
    sdata = rsd.datasets.simulate_tissue(n_cells=100, n_genes=20, rng=0, transcripts=False)
    with pytest.raises(ValueError, match="spatial_key='stage' would be ignored: the table annotates elements"):
        rsd.gr.neighbors(sdata, spatial_key="stage")
    with pytest.raises(ValueError, match="coordinate_system='aligned' is for a SpatialData object"):
        rsd.gr.neighbors(table, coordinate_system="aligned")


def test_coordinates_may_be_columns_of_any_numbers(table):
    expected = rsd.gr.neighbors(table, n_neighbors=3, copy=True).distances
    columns = pd.DataFrame(table.obsm["spatial"], index=table.obs_names, columns=["x", "y"])
    table.obsm["spatial"] = columns.convert_dtypes()
    assert abs(rsd.gr.neighbors(table, n_neighbors=3, copy=True).distances - expected).max() == 0


def test_a_single_cell(table):
    with pytest.raises(ValueError, match="The table has 1 cell; at least 2"):
        rsd.gr.neighbors(table[:1].copy())


def test_sections_of_one_cell_each(table):
    table.obs["own"] = [str(i) for i in range(30)]
    rsd.gr.neighbors(table, library_key="own")
    assert table.obsp["resolvi_distances"].nnz == 0


def test_counts_are_not_needed():
    adata = ad.AnnData(obsm={"spatial": np.eye(3)[:, :2]})
    rsd.gr.neighbors(adata, n_neighbors=1)
    assert sp.issparse(adata.obsp["resolvi_distances"])


def test_the_graph_of_a_fit_is_not_replaced():
    sdata = rsd.datasets.simulate_tissue(n_cells=100, n_genes=20, rng=0, transcripts=False)
    rsd.gr.neighbors(sdata, n_neighbors=5)
    rsd.gr.neighbors(sdata, n_neighbors=4)
    rsd.tl.fit(sdata, max_epochs=1, show_progress_bar=False)
    with pytest.raises(ValueError, match=r"'resolvi' holds a fit.*neighbors_key='..._neighbors'"):
        rsd.gr.neighbors(sdata, n_neighbors=5)
    assert rsd.gr.neighbors(sdata, n_neighbors=5, copy=True).connectivities.nnz == 500
    rsd.gr.neighbors(sdata, n_neighbors=5, key_added="near")
    rsd.tl.fit(sdata, neighbors_key="near_neighbors", max_epochs=1, show_progress_bar=False)
    assert sdata.tables["table"].obsp["resolvi_connectivities"].nnz == 500
