from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp

from resolvi_sd._graphs import NeighborGraph, graph_from_table, knn_graph


def one_section(n: int) -> np.ndarray:
    return np.zeros(n, dtype=np.int32)


@pytest.fixture
def table() -> ad.AnnData:
    rng = np.random.default_rng(4)
    adata = ad.AnnData(np.ones((50, 3)), obsm={"spatial": rng.uniform(0, 10, (50, 2))})
    adata.obsm["spatial"][1] = adata.obsm["spatial"][0]
    adata.obsm["spatial"][2] = 1_000  # far from all others
    return adata


def assert_edges(graph, expected):
    """`expected` is a dense matrix with the distance of each edge and NaN where there is none."""
    for i, row in enumerate(expected):
        found = graph.index[i][graph.mask[i]]
        assert set(found) == set(np.flatnonzero(~np.isnan(row)))
        np.testing.assert_allclose(graph.distance[i][graph.mask[i]], row[found], rtol=1e-6)
        assert (np.diff(graph.distance[i][graph.mask[i]]) >= 0).all()
        assert (graph.index[i][~graph.mask[i]] == i).all()
        assert (np.diff(graph.mask[i].astype(int)) <= 0).all()


def all_distances(coordinates):
    distances = np.linalg.norm(coordinates[:, None] - coordinates[None], axis=2)
    np.fill_diagonal(distances, np.nan)
    return distances


def test_there_and_back():
    rng = np.random.default_rng(0)
    coordinates = np.repeat(rng.uniform(0, 10, (30, 2)), 2, axis=0)
    library = rng.integers(0, 9, 60).astype(np.int32)
    graph = knn_graph(coordinates, library, 8)
    again = NeighborGraph.from_sparse(*graph.to_sparse())
    np.testing.assert_array_equal(again.index, graph.index[:, : again.index.shape[1]])
    np.testing.assert_array_equal(again.distance, graph.distance[:, : again.index.shape[1]])
    np.testing.assert_array_equal(again.mask, graph.mask[:, : again.index.shape[1]])


def test_missing_distances_are_zero_whatever_the_sparsity():
    connectivities = sp.csr_matrix(np.array([[0, 1, 1, 0], [1, 0, 0, 0], [1, 1, 0, 1], [0, 0, 0, 0.0]]))
    distances = sp.csr_matrix(np.array([[0, 0, 3, 9], [0, 0, 7, 0], [3, 4, 0, 0], [2, 0, 0, 0.0]]))
    graph = NeighborGraph.from_sparse(distances, connectivities)
    nan = np.nan
    assert_edges(graph, np.array([[nan, 0, 3, nan], [0, nan, nan, nan], [3, 4, nan, 0], [nan, nan, nan, nan]]))
    assert graph.index.shape == (4, 3)


def test_no_edges_leave_one_empty_slot():
    empty = sp.csr_matrix((3, 3))
    graph = NeighborGraph.from_sparse(empty, empty)
    np.testing.assert_array_equal(graph.index, [[0], [1], [2]])
    assert not graph.mask.any()
    assert graph.to_sparse()[0].nnz == 0


def test_unsorted_and_repeated_entries():
    indptr, indices = np.array([0, 3, 3, 3]), np.array([2, 1, 2])
    twice = sp.csr_matrix((np.array([1.0, 5.0, 2.0]), indices, indptr), shape=(3, 3))
    graph = NeighborGraph.from_sparse(twice, twice)
    np.testing.assert_array_equal(graph.index[0], [2, 1])
    np.testing.assert_array_equal(graph.distance[0], [3, 5])
    assert twice.nnz == 3


def test_radius_graph_of_squidpy(table):
    import squidpy as sq

    sq.gr.spatial_neighbors_radius(table, radius=2.0)
    graph = graph_from_table(table, "spatial_neighbors", one_section(50))
    expected = all_distances(table.obsm["spatial"])
    expected[expected > 2] = np.nan
    assert_edges(graph, expected)
    assert not graph.mask[2].any()
    assert graph.mask[0].any() and graph.distance[0, 0] == 0


@pytest.mark.parametrize("set_diag", [False, True])
def test_delaunay_graph_of_squidpy(table, set_diag):
    import squidpy as sq

    table.obsm["spatial"][1] += 0.5
    sq.gr.spatial_neighbors_delaunay(table, key_added="mesh", set_diag=set_diag)
    graph = graph_from_table(table, "mesh", one_section(50))
    edges = table.obsp["mesh_connectivities"].toarray() > 0
    np.fill_diagonal(edges, False)
    assert_edges(graph, np.where(edges, all_distances(table.obsm["spatial"]), np.nan))


def test_neighbors_of_squidpy_equal_ours(table):
    import squidpy as sq

    sq.gr.spatial_neighbors_knn(table, n_neighs=6)
    theirs = graph_from_table(table, "spatial", one_section(50))
    ours = knn_graph(table.obsm["spatial"], one_section(50), 6)
    np.testing.assert_allclose(theirs.distance, ours.distance, rtol=1e-6)
    assert theirs.mask.all()


def own_graph(table, distances, connectivities, **params):
    table.obsp["d"], table.obsp["c"] = distances, connectivities
    table.uns["own"] = {"connectivities_key": "c", "distances_key": "d", "params": params}


def test_images_under_the_same_name_are_no_graph(table):
    import squidpy as sq

    sq.gr.spatial_neighbors_knn(table, n_neighs=3)
    table.uns["spatial"] = {"library": {"images": {}}}
    assert graph_from_table(table, "spatial", one_section(50)).mask.sum() == 150


def test_a_graph_of_similar_cells_is_warned_of(table):
    import scanpy as sc

    table.obsm["X_pca"] = np.random.default_rng(0).normal(size=(50, 3))
    sc.pp.neighbors(table, n_neighbors=5, use_rep="X_pca")
    with pytest.warns(UserWarning, match="'neighbors' was made by `scanpy.pp.neighbors` from 'X_pca'.*resemble"):
        graph_from_table(table, "neighbors", one_section(50))
    sc.pp.neighbors(table, n_neighbors=5, use_rep="spatial", key_added="near")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        graph_from_table(table, "near", one_section(50))


def test_missing_graph(table):
    own_graph(table, sp.csr_matrix((50, 50)), sp.csr_matrix((50, 50)))
    with pytest.raises(
        KeyError, match=r"neighbors_key='mesh' names no neighbor graph in `table.uns`; graphs are: 'own'"
    ):
        graph_from_table(table, "mesh", one_section(50))


def test_missing_matrix(table):
    own_graph(table, sp.csr_matrix((50, 50)), sp.csr_matrix((50, 50)))
    del table.obsp["d"]
    with pytest.raises(KeyError, match=r"\['distances_key'\]='d' is not in `table.obsp`; it has: 'c'"):
        graph_from_table(table, "own", one_section(50))


def test_edges_across_sections(table):
    edges = sp.csr_matrix((np.ones(3), ([0, 1, 7], [1, 2, 7])), shape=(50, 50))
    own_graph(table, edges, edges)
    library = one_section(50)
    library[2] = 1
    with pytest.raises(ValueError, match="1 of 2 edges of the graph 'own' join cells of different sections"):
        graph_from_table(table, "own", library)


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf])
def test_impossible_distances(table, value):
    edges = sp.csr_matrix(([value, 1.0], ([0, 1], [1, 2])), shape=(50, 50))
    own_graph(table, edges, abs(edges))
    with pytest.raises(ValueError, match="'own' has 1 distances that are negative, NaN or infinite"):
        graph_from_table(table, "own", one_section(50))


def test_cosine_transform_has_no_neighbors(table):
    import squidpy as sq

    sq.gr.spatial_neighbors_knn(table, n_neighs=3, transform="cosine")
    with pytest.raises(ValueError, match="transform='cosine'"):
        graph_from_table(table, "spatial", one_section(50))
