"""What expression tells of neighbors: planted and absent leakage, folds by brute force, an independent ridge."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from scipy.spatial import KDTree
from sklearn.metrics import roc_auc_score

from resolvi_sd.metrics import leakage_predictability
from resolvi_sd.metrics._predictability import _truths
from resolvi_sd.metrics._spatial_folds import spatial_folds, train_apart

N = 1500


@pytest.fixture(scope="module")
def tissue():
    """Two types at random on a square, 5 neighbors; genes 0 to 9, and which cells have an A nearby."""
    rng = np.random.default_rng(0)
    places = rng.random((N, 2)) * 100
    neighbors = KDTree(places).query(places, k=6)[1][:, 1:]
    graph = sp.csr_matrix((np.ones(neighbors.size), neighbors.ravel(), np.arange(0, neighbors.size + 1, 5)), (N, N))
    labels = np.where(rng.random(N) < 0.15, "A", "B")
    near = (labels[neighbors] == "A").any(axis=1)
    counts = rng.poisson(3, size=(N, 10))
    return counts, labels, graph, places, near


def test_leaked_molecules_tell_the_neighbors(tissue):
    counts, labels, graph, places, near = tissue
    leaked = counts.copy()
    leaked[:, 0] += 40 * near
    table = leakage_predictability(sp.csr_matrix(leaked), labels, graph, places, rng=0)
    row = table.set_index(["target", "source"]).loc[("B", "A")]
    assert row["auc"] > 0.999  # every such cell has at least 40, no other one more than a dozen
    assert row["n_cells"] == (labels == "B").sum()
    assert row["n_near"] == near[labels == "B"].sum()
    assert row["difference"] == row["auc"] - row["auc_permuted"]


def test_without_leakage_nothing_is_predicted(tissue):
    counts, labels, graph, places, near = tissue
    table = leakage_predictability(counts, labels, graph, places, rng=0, n_permutations=20)
    row = table.set_index(["target", "source"]).loc[("B", "A")]
    n, positive = row["n_cells"], row["n_near"]
    # Standard error of U over n+ n-, without ties: sqrt((n + 1) / (12 n+ n-)); five folds of a fifth each.
    error = np.sqrt((n / 5 + 1) / (12 * positive / 5 * (n - positive) / 5) / 5)
    assert abs(row["auc"] - 0.5) < 4 * error
    assert abs(row["auc_permuted"] - 0.5) < 4 * error / np.sqrt(20)


def test_against_an_independent_ridge(tissue):
    """The formula with normal equations and scikit-learn's AUC, fold by fold."""
    counts, labels, graph, places, near = tissue
    leaked = counts + np.outer(near, np.arange(10) == 3) * np.random.default_rng(1).poisson(2, size=(N, 10))
    found = leakage_predictability(leaked, labels, graph, places, rng=0, max_cells=N, n_folds=4)
    depth = leaked.sum(1)
    rows = np.flatnonzero(labels == "B")
    z = np.log1p(leaked * (np.median(depth) / depth)[:, None])[rows]
    z = (z - z.mean(0)) / z.std(0)
    y, fold = near[rows], spatial_folds(places, 4)[rows]
    won = compared = 0
    for f in range(4):
        test = fold == f
        train = train_apart(graph, rows, test)
        zc = z[train] - z[train].mean(0)
        weights = np.linalg.solve(zc.T @ zc + 100 * np.eye(10), zc.T @ (y[train] - y[train].mean()))
        pairs = y[test].sum() * (~y[test]).sum()
        won += pairs * roc_auc_score(y[test], z[test] @ weights)
        compared += pairs
    assert found.set_index("target").loc["B", "auc"] == pytest.approx(won / compared, abs=1e-9)


def test_folds_are_compact_blocks_of_equal_size():
    places = np.random.default_rng(2).random((1000, 2))
    fold = spatial_folds(places, 5)
    assert np.bincount(fold).tolist() == [200] * 5
    # 25 blocks of 40 cells on a unit square are 0.2 wide: most cells' nearest neighbor is in their block.
    nearest = KDTree(places).query(places, k=2)[1][:, 1]
    assert (fold == fold[nearest]).mean() > 0.75


def test_train_and_test_share_no_neighbor(tissue):
    _, labels, graph, places, _ = tissue
    rows = np.flatnonzero(labels == "B")
    test = spatial_folds(places, 5)[rows] == 2
    train = train_apart(graph, rows, test)
    around = [{cell, *graph[cell].indices} for cell in rows]
    tested = set().union(*(around[i] for i in np.flatnonzero(test)))
    assert [bool(a & tested) for a in around] == (~train).tolist()
    assert 0 < train.sum() < (~test).sum()


def test_same_seed_same_cells_whatever_the_layer(tissue):
    counts, labels, graph, places, _ = tissue
    columns = ["target", "source", "n_cells", "n_near"]
    first, again, thinned = (
        leakage_predictability(layer, labels, graph, places, rng=3, max_cells=600)
        for layer in (counts, sp.csr_array(counts.astype(float)), counts // 2 * 0.5)
    )
    pd.testing.assert_frame_equal(first, again)
    pd.testing.assert_frame_equal(first[columns], thinned[columns])
    assert first["n_cells"].max() == 600


def test_permutations_stay_within_folds():
    """Otherwise folds that differ in how many cells have a neighbor would be told apart by chance."""
    rng = np.random.default_rng(4)
    fold = rng.integers(0, 4, 400)
    presence = rng.random((400, 2)) < (0.1 + 0.2 * fold)[:, None]
    sides = _truths(presence, fold, 6, rng).reshape(400, 7, 2)
    np.testing.assert_array_equal(sides[:, 0], presence)
    for number in range(4):
        # Both columns are permuted alike, so pairs of values are kept, too.
        pairs = [
            np.sort(2 * side[fold == number, 0] + side[fold == number, 1]).tolist() for side in sides.swapaxes(0, 1)
        ]
        assert all(pair == pairs[0] for pair in pairs)
    assert len({side.tobytes() for side in sides.swapaxes(0, 1)}) == 7


def test_too_few_cells_have_no_row(tissue):
    counts, labels, graph, places, near = tissue
    assert leakage_predictability(counts, labels, graph, places, min_cells=N).columns.to_list() == [
        "target", "source", "n_cells", "n_near", "auc", "auc_permuted", "difference",
    ]  # fmt: skip
    everyone = sp.csr_matrix((np.ones(2 * N), (np.repeat(np.arange(N), 2), np.tile([0, 1], N))), shape=(N, N))
    # All cells share the same two neighbors: none can be trained on, apart from the test cells.
    assert leakage_predictability(counts, labels, everyone, places, min_cells=1).empty


def test_bad_input_is_told_what_to_do(tissue):
    counts, labels, graph, places, _ = tissue
    with pytest.raises(ValueError, match="1 different labels"):
        leakage_predictability(counts, ["A"] * N, graph, places)
    with pytest.raises(ValueError, match=r"10 × 10, but there are 1500 cells"):
        leakage_predictability(counts, labels, graph[:10, :10], places)
    with pytest.raises(ValueError, match="`coordinates` has 3 rows"):
        leakage_predictability(counts, labels, graph, places[:3])
    with pytest.raises(ValueError, match="2 or 3 columns"):
        leakage_predictability(counts, labels, graph, places[:, :1])
    with pytest.raises(ValueError, match="n_folds"):
        leakage_predictability(counts, labels, graph, places, n_folds=1)
    with pytest.raises(ValueError, match="negative"):
        leakage_predictability(counts - 3, labels, graph, places)
    with pytest.raises(TypeError, match="list"):
        leakage_predictability(counts.tolist(), labels, graph, places)
