"""The audit of exposure, on cells worked out by hand, on planted leakage, and against a recomputation with loops."""

from contextlib import nullcontext

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from resolvi_sd.metrics import exposure_audit

GENES = ["a", "b", "c"]
MARKERS = {"A": ["a"], "B": ["b"]}


def star(edges, n):
    rows, columns = zip(*edges, strict=True)
    return sp.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(n, n))


def by_hand():
    """Two A, next to each other, and four B with 0, 1, 2 and 2 of them nearby; the last gene is no one's marker."""
    labels = ["A", "A", "B", "B", "B", "B"]
    graph = star([(0, 1), (1, 0), (3, 0), (3, 2), (4, 0), (4, 1), (5, 0), (5, 1), (2, 3)], 6)
    counts = [[80, 0, 20], [70, 10, 20], [10, 90, 0], [30, 50, 20], [40, 150, 10], [60, 40, 0]]
    corrected = [[80, 0, 20], [60, 0, 20], [5, 90, 0], [10, 50, 20], [20, 130, 10], [30, 20, 0]]
    return np.array(counts), np.array(corrected), labels, graph


def test_audit_by_hand():
    counts, corrected, labels, graph = by_hand()
    audit = exposure_audit(
        sp.csr_matrix(counts),
        sp.csr_matrix(corrected),
        labels,
        graph,
        gene_names=GENES,
        markers=MARKERS,
        max_exposure=2,
        min_cells=1,
        min_excess=1,
    )
    # a in B: rate 10 / 100 without an A nearby. Expected 10 of 100 with one, 30 of 300 with two; found 30 and 100.
    # After: rate 5 / 100; expected 5 and 15; found 10 and 50. Leaked 20 + 70, left 5 + 35.
    (pair,) = audit.pairs.to_dict("records")
    assert (pair["source"], pair["target"], pair["n_unexposed"], pair["n_exposed"]) == ("A", "B", 1, 3)
    assert (pair["excess"], pair["excess_corrected"]) == pytest.approx((90, 40))
    assert pair["sensitivity"] == audit.sensitivity == pytest.approx(1 - 40 / 90)
    assert pair["unexposed_removed"] == pytest.approx(0.5)
    # a makes 150 of 200 molecules of A; B has 500 molecules.
    assert pair["admixture_rate"] == pytest.approx(90 / (150 / 200) / 500)
    # The baseline 0.1 is above 5 % of 0.75: no strict marker.
    assert pair["n_strict"] == 0 and np.isnan(pair["sensitivity_strict"])

    profile = audit.profile.set_index(["source", "target", "exposure"])
    assert profile.loc[("A", "B"), "sensitivity"].to_list() == pytest.approx([np.nan, 15 / 20, 35 / 70], nan_ok=True)
    assert profile.loc[("A", "B"), "removed"].to_list() == pytest.approx([0.5, 2 / 3, 0.5])
    assert profile.loc[("A", "B"), "n_cells"].to_list() == [1, 1, 2]
    # b in B, by the number of other B nearby: the third and fourth have one; 240 + 90 molecules, 40 and none removed.
    assert profile.loc[("B", "B"), "marker_molecules"].to_list() == [190, 140, 0]
    assert profile.loc[("B", "B"), "removed"].to_list() == pytest.approx([40 / 190, 0, np.nan], nan_ok=True)

    own = audit.own_markers.set_index("cell_type")
    assert own["removed"].to_dict() == pytest.approx({"A": 10 / 150, "B": 40 / 330})
    assert np.isnan(own.loc["A", "removed_unexposed"])  # both A have an A nearby
    assert own.loc["B", "removed_unexposed"] == pytest.approx(40 / 190)
    assert audit.own_removed == pytest.approx(50 / 480)
    assert audit.own_removed_unexposed == pytest.approx(40 / 190)


def test_exact_test_of_two_rates():
    """Equal offsets and 3 molecules, all exposed: by chance with probability 1/8. With 8: 1/256 < 0.01."""
    graph = star([(2, 0), (3, 1), (0, 1)], 4)
    for molecules, detected in ((3, False), (8, True)):
        counts = np.array([[100, 0], [0, 100], [molecules, 100 - molecules], [0, 100]])
        audit = exposure_audit(
            counts,
            counts,
            ["A", "B", "B", "B"],
            graph,
            gene_names=["a", "b"],
            markers={"A": ["a"]},
            min_cells=1,
            min_excess=1,
        )
        # Unexposed are two of the three B: of n molecules all in the exposed third, (1/3)^n.
        assert audit.pairs["q_value"].item() == pytest.approx(3.0**-molecules)
        assert audit.pairs["detected"].item() == (3.0**-molecules < 0.01)
        assert np.isnan(audit.sensitivity) != detected


@pytest.mark.parametrize(("kept", "sensitivity", "removed"), [(0.0, 1, 1), (1.0, 0, 0), (0.25, 0.75, 0.75)])
def test_removing_at_random_removes_as_much_of_either(kept, sensitivity, removed):
    counts, _, labels, graph = by_hand()
    audit = exposure_audit(
        counts, counts * kept, labels, graph, gene_names=GENES, markers=MARKERS, min_cells=1, min_excess=1
    )
    assert audit.sensitivity == pytest.approx(sensitivity)
    assert audit.own_removed == pytest.approx(removed)


def tissue(seed=0, n=1200, k=6):
    """Three types, three markers of 20 % each, three genes of all; each source nearby adds 4 molecules of a marker."""
    rng = np.random.default_rng(seed)
    types = rng.integers(0, 3, n)
    neighbors = np.array([rng.choice(n, k, replace=False) for _ in range(n)])
    profile = np.full((3, 12), 0.4 / 9)
    for t in range(3):
        profile[t] = [0.2 if t * 3 <= g < t * 3 + 3 else 0.0 if g < 9 else 0.4 / 3 for g in range(12)]
    own = rng.poisson(50 * profile[types])
    leaked = np.zeros_like(own)
    for cell in range(n):
        for other in neighbors[cell]:
            if rng.random() < 0.5:
                leaked[cell] += rng.multinomial(4, profile[types[other]])
    graph = star([(c, o) for c in range(n) for o in neighbors[c] if c != o], n)
    return own, leaked, np.array(["x", "y", "z"])[types], graph, [f"g{i}" for i in range(12)]


def test_a_perfect_correction_is_sensitive_and_harmless():
    own, leaked, labels, graph, genes = tissue()
    markers = {"x": genes[:3], "y": genes[3:6], "z": genes[6:9]}
    audit = exposure_audit(own + leaked, own, labels, graph, gene_names=genes, markers=markers, min_cells=20)
    assert audit.pairs["detected"].all() and len(audit.pairs) == 6
    assert audit.sensitivity > 0.95
    # 60 % of 50 own molecules are markers; half of 2 neighbors of the own type leak 4 molecules, 60 % markers too.
    assert audit.own_removed == pytest.approx(4 * 0.6 / (30 + 4 * 0.6), abs=0.02)
    assert audit.own_removed_unexposed == 0
    # Each other type leaks as much: 4 of 62 molecules, found as 2.4 markers, which are 60 % of 54 of a source's 62.
    assert audit.pairs["admixture_rate"].mean() == pytest.approx(2.4 / 62 / (0.6 * 54 / 62), rel=0.1)


def test_against_loops_over_pairs():
    """The same from the definition, with markers chosen by rank: dense arrays, one pair at a time."""
    own, leaked, labels, graph, genes = tissue(1, n=600)
    x, c = own + leaked, (own + 0.3 * leaked)
    audit = exposure_audit(x, sp.csr_matrix(c), labels, graph, gene_names=genes, min_cells=10, n_markers=2)
    names = ["x", "y", "z"]
    shares = np.array([x[labels == t].sum(0) / x[labels == t].sum() for t in names])
    near = np.array([[sum(labels[o] == t for o in graph[i].indices) for t in names] for i in range(len(x))])
    for row in audit.pairs.itertuples():
        s, cells = names.index(row.source), labels == row.target
        b = np.minimum(near[:, s], 3)
        unexposed = cells & (b == 0)
        baseline = x[unexposed].sum(0) / x[unexposed].sum()
        mine = [g for g in range(12) if shares[:, g].argmax() == s]
        pool = sorted(mine, key=lambda g: -shares[s, g] / max(baseline[g], 20e-6))[:2]
        totals = []
        for m in (x, c):
            rate0 = m[unexposed][:, pool].sum() / x[unexposed].sum()
            bins = [cells & (b == e) for e in (1, 2, 3)]
            totals.append(sum(max(m[i][:, pool].sum() - rate0 * x[i].sum(), 0) for i in bins))
        assert (row.excess, row.excess_corrected) == pytest.approx(totals)


def test_own_markers_are_told_from_genes_of_all():
    """Three genes are as high in every type: whichever is the highest by chance, they are no one's own markers."""
    own, leaked, labels, graph, genes = tissue(3)
    audit = exposure_audit(own + leaked, own, labels, graph, gene_names=genes, min_cells=20)
    assert audit.own_markers["n_markers"].to_list() == [3, 3, 3]


def test_dense_sparse_and_unlabelled_cells():
    own, leaked, labels, graph, genes = tissue(2, n=300)
    missing = pd.Categorical(np.where(np.arange(300) < 30, None, labels))
    results = [
        exposure_audit(f(own + leaked), f(own.astype(np.float32)), missing, graph, gene_names=genes, min_cells=5).pairs
        for f in (np.asarray, sp.csr_matrix, sp.csc_array)
    ]
    pd.testing.assert_frame_equal(results[0], results[1])
    pd.testing.assert_frame_equal(results[0], results[2])
    without = np.arange(30, 300)
    fewer = exposure_audit(
        (own + leaked)[without],
        own[without],
        labels[without],
        graph[without][:, without],
        gene_names=genes,
        min_cells=5,
    ).pairs
    pd.testing.assert_frame_equal(results[0], fewer)


def test_nothing_to_compare():
    counts, corrected, labels, graph = by_hand()
    audit = exposure_audit(counts, corrected, labels, graph, gene_names=GENES, markers={"B": ["b"]}, min_cells=100)
    assert audit.pairs.empty and np.isnan(audit.sensitivity)
    assert set(audit.profile["source"]) == {"B"}
    empty = exposure_audit(counts, corrected, labels, graph, gene_names=GENES, markers={})
    assert empty.profile.empty and empty.own_markers.empty and np.isnan(empty.own_removed)


def test_bad_input_is_told_what_to_do():
    counts, corrected, labels, graph = by_hand()

    def audit(counts=counts, corrected=corrected, labels=labels, graph=graph, genes=GENES, **other):
        exposure_audit(counts, corrected, labels, graph, genes, **other)

    with pytest.raises(ValueError, match="1 different labels"):
        audit(labels=["A"] * 6)
    with pytest.raises(ValueError, match="0 different labels"):
        audit(labels=[None] * 6)
    with pytest.raises(ValueError, match="`labels` has 5 entries, but there are 6 cells"):
        audit(labels=labels[:5])
    with pytest.raises(ValueError, match=r"5 × 5, but there are 6 cells.*filtered"):
        audit(graph=graph[:5, :5])
    with pytest.raises(TypeError, match="sparse matrix of connectivities"):
        audit(graph=graph.toarray())
    with pytest.raises(ValueError, match="no edges"):
        audit(graph=sp.identity(6, format="csr"))
    with pytest.raises(ValueError, match="not integers"):
        audit(counts=sp.csr_matrix(counts / 3))
    with pytest.raises(ValueError, match="shapes differ"):
        audit(corrected=corrected[:, :2])
    with pytest.raises(ValueError, match="rates"):
        audit(corrected=corrected + 0.001)
    with pytest.raises(ValueError, match="negative, NaN or infinite"):
        audit(corrected=np.where(corrected == 20, np.nan, corrected))
    with pytest.raises(ValueError, match="`gene_names` has 2 names, but the matrix has 3"):
        audit(genes=["a", "b"])
    with pytest.raises(ValueError, match="occur more than once"):
        audit(genes=["a", "b", "b"])
    with pytest.raises(KeyError, match="labels that do not occur: 'T'"):
        audit(markers={"T": ["a"]})
    with pytest.raises(KeyError, match="'A' are not among the genes: 'q'"):
        audit(markers={"A": ["a", "q"]})
    with pytest.raises(ValueError, match="max_exposure"):
        audit(max_exposure=0)


def test_rates_that_are_denser_than_the_counts_are_no_correction():
    counts, corrected, labels, graph = by_hand()
    rates = sp.csr_matrix(np.where(corrected + counts == 0, 0.5, corrected))
    rates[0, 1] = 0  # not positive everywhere, but in more places than the counts
    with pytest.raises(ValueError, match="not molecules that a correction kept"):
        exposure_audit(counts, rates, labels, graph, gene_names=GENES)


def test_a_correction_adds_no_molecules():
    counts, corrected, labels, graph = by_hand()
    with pytest.raises(ValueError, match=r"`corrected` has more molecules than `counts` in \d+ entries"):
        exposure_audit(counts, 2 * corrected, labels, graph, gene_names=GENES)


@pytest.mark.parametrize(("more", "error"), [(5e-4, False), (0.5, True)])
def test_rounding_is_judged_entry_by_entry(more, error):
    counts, corrected, labels, graph = by_hand()
    counts[0, 2], corrected[0, 2] = 10**6, 10**6  # does not let others exceed their counts
    corrected = corrected.astype(float)
    corrected[1, 0] = counts[1, 0] + more
    with pytest.raises(ValueError, match="in 1 entries") if error else nullcontext():
        exposure_audit(counts, corrected, labels, graph, gene_names=GENES)


def test_a_marker_that_is_named_twice_counts_once():
    counts, corrected, labels, graph = by_hand()
    markers = {"A": [GENES[0]], "B": [GENES[1]]}
    once, twice = (
        exposure_audit(counts, corrected, labels, graph, gene_names=GENES, markers=given, min_cells=1, min_excess=1)
        for given in (markers, {"A": [GENES[0]] * 2, "B": [GENES[1]]})
    )
    pd.testing.assert_frame_equal(once.pairs, twice.pairs)
    pd.testing.assert_frame_equal(once.own_markers, twice.own_markers)


def test_p_values_are_corrected_for_the_number_of_pairs():
    # a in B: 10 of 10 molecules in exposed cells, p = 2^-10; c in B at equal rates: two pairs are tested.
    graph = star([(3, 0), (3, 2)], 5)
    counts = np.array([[100, 0, 0], [0, 100, 0], [0, 0, 100], [10, 90, 0], [0, 100, 0]])
    audit = exposure_audit(
        counts,
        counts,
        ["A", "B", "C", "B", "D"],
        graph,
        gene_names=["a", "b", "c"],
        markers={"A": ["a"], "B": ["b"], "C": ["c"]},
        min_cells=1,
        min_excess=1,
    )
    q_value = audit.pairs.set_index(["source", "target"])["q_value"]
    assert q_value["A", "B"] == pytest.approx(2 * 2.0**-10) and q_value["C", "B"] == 1
