"""Neighbor contamination, by hand and against the definition written as loops over cells and genes."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from resolvi_sd.metrics import Markers, _layers, given_markers, neighbor_contamination

GENES = ["A", "B", "C"]
MARKERS = given_markers({"a": ["A"], "b": ["B"], "c": ["C"]}, GENES)


def line(n):
    """Each cell is a neighbor of the one before and the one after."""
    return sp.csr_matrix(np.eye(n, k=1) + np.eye(n, k=-1))


def test_by_hand():
    # Cells a b c a b in a line. The c cell has no C, so that nothing tells its leaks.
    counts = np.array([[6, 2, 1], [1, 4, 0], [3, 1, 0], [5, 5, 2], [0, 0, 0]])
    found = neighbor_contamination(counts, list("abcab"), line(5), GENES, MARKERS)
    # 0: B of its b neighbor, 2 of 9. 1: A of its a neighbor, 1 of 5. 2: B and A of b and a, 4 of 4. 3: its neighbors
    # are the c cell without C and the b cell without B: not judged. 4: no molecules.
    np.testing.assert_array_equal(found.molecules, [2, 1, 4, np.nan, np.nan])
    np.testing.assert_array_equal(found.share, [2 / 9, 1 / 5, 1, np.nan, np.nan])
    nan = np.nan
    for table, expected in (
        (found.n_judged, [[0, 1, 1], [1, 0, 1], [0, 0, 0]]),
        (found.contaminated, [[nan, 1, 1], [1, nan, 1], [nan, nan, nan]]),
        (found.mean_share, [[nan, 1 / 5, 3 / 4], [2 / 9, nan, 1 / 4], [nan, nan, nan]]),
    ):
        np.testing.assert_array_equal(table, expected)
        assert list(table.index) == list(table.columns) == ["a", "b", "c"]
        assert (table.index.name, table.columns.name) == ("source", "target")


def test_a_gene_of_two_sources_counts_once_in_the_cell_and_for_both_sources():
    markers = Markers({"a": ("A",), "b": ("A", "B"), "c": ("C",)}, {"a": (), "b": (), "c": ("A",)})
    counts = np.array([[3, 0, 0], [2, 0, 6], [1, 1, 0]])
    found = neighbor_contamination(counts, list("acb"), line(3), GENES, markers)
    np.testing.assert_array_equal(found.molecules, [np.nan, 2, np.nan])
    assert found.mean_share.loc["a", "c"] == found.mean_share.loc["b", "c"] == 2 / 8


def test_neighbor_counts_keep_the_judged_cells():
    raw = np.array([[6, 2, 1], [1, 4, 0], [3, 1, 0], [5, 5, 2], [0, 1, 0]])
    corrected = np.array([[6, 0.5, 1], [0, 0, 0.0], [3, 0, 0], [5, 0, 2], [0, 1, 0]])
    found = neighbor_contamination(corrected, list("abcab"), line(5), GENES, MARKERS, neighbor_counts=raw)
    # The second cell is empty now; the others are judged by the neighbors' raw counts.
    np.testing.assert_allclose(found.molecules, [0.5, np.nan, 3, 0, 0])
    # One a cell of two has 0.5 molecules of B: a chance of 0.5.
    assert found.contaminated.loc["b", "a"] == pytest.approx((0.5 + 0) / 2)


def by_loops(counts, labels, graph, markers, genes):
    """Definition of SegTraQ, cell by cell; presence in expected counts as a chance."""
    molecules = np.full(len(counts), np.nan)
    pairs = {}
    for i, target in enumerate(labels):
        if target is None or counts[i].sum() == 0:
            continue
        union = set()
        near = [j for j in np.flatnonzero(graph[i]) if j != i and labels[j] is not None]
        for source in {labels[j] for j in near}:
            told = [
                g for g, gene in enumerate(genes)
                if gene in markers.negative[target] and gene in markers.positive[source]
                and any(counts[j, g] > 0 for j in near if labels[j] == source)
            ]  # fmt: skip
            if told:
                chance = 1 - np.prod([1 - min(counts[i, g], 1) for g in told])
                pairs.setdefault((source, target), []).append((chance, counts[i, told].sum() / counts[i].sum()))
                union |= set(told)
        if union:
            molecules[i] = counts[i, sorted(union)].sum()
    return molecules, pairs


def test_against_loops_in_small_blocks(monkeypatch):
    monkeypatch.setattr(_layers, "_BLOCK_BYTES", 1_000)
    rng = np.random.default_rng(0)
    genes = [f"g{i}" for i in range(10)]
    counts = rng.poisson(0.5, (150, 10)) * rng.choice([1.0, 0.5], (150, 10))
    labels = rng.choice(np.array(["a", "b", "c", None], dtype=object), 150)
    graph = (rng.random((150, 150)) < 0.03).astype(float)  # with some cells on the diagonal, and not symmetric
    positive = {"a": ("g0", "g1", "g2"), "b": ("g2", "g3", "g4"), "c": ("g5", "not in the panel")}
    negative = {"a": ("g3", "g4", "g5"), "b": ("g0", "g5", "g9"), "c": ("g0", "g2", "g3")}
    markers = Markers(positive, negative)
    found = neighbor_contamination(sp.csr_matrix(counts), pd.Series(labels), sp.csr_matrix(graph), genes, markers)
    molecules, pairs = by_loops(counts, labels, graph, markers, genes)
    np.testing.assert_allclose(found.molecules, molecules)
    np.testing.assert_allclose(found.share, molecules / np.maximum(counts.sum(axis=1), 1e-9))
    for source in "abc":
        for target in "abc":
            values = np.array(pairs.get((source, target), np.empty((0, 2))))
            assert found.n_judged.loc[source, target] == len(values)
            if len(values):
                assert found.contaminated.loc[source, target] == pytest.approx(values[:, 0].mean())
                assert found.mean_share.loc[source, target] == pytest.approx(values[:, 1].mean())


def test_bad_input_is_told():
    counts, labels = np.array([[6, 2, 1], [1, 4, 0], [3, 1, 0]]), list("abc")
    with pytest.raises(TypeError, match="must be Markers, not dict"):
        neighbor_contamination(counts, labels, line(3), GENES, {"a": ["A"]})
    with pytest.raises(ValueError, match="3 cells"):
        neighbor_contamination(counts, labels, line(4), GENES, MARKERS)
    with pytest.raises(ValueError, match="at least 2"):
        neighbor_contamination(counts, ["a"] * 3, line(3), GENES, MARKERS)
    with pytest.raises(ValueError, match="No gene of the panel is a negative marker.*Labels: 'x', 'y'"):
        neighbor_contamination(counts, list("xyx"), line(3), GENES, MARKERS)
    with pytest.raises(ValueError, match="dense rates"):
        neighbor_contamination(np.full((3, 20), 0.5), labels, line(3), GENES, MARKERS)
    with pytest.raises(ValueError, match=r"shapes differ.*neighbor_counts \(2, 3\)"):
        neighbor_contamination(counts, labels, line(3), GENES, MARKERS, neighbor_counts=counts[:2])
