"""Co-expression of exclusive genes, on cases counted by hand and against brute force."""

import itertools

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from resolvi_sd.datasets import simulate_tissue
from resolvi_sd.metrics import (
    _layers,
    coexpression_odds_ratio,
    coexpression_rate,
    depth_matched,
    exclusive_pairs,
    pairs_from_markers,
)

GENES = ["A", "B", "C"]
# A and B: together in 1 of the 4 cells with either; A and C: in 2 of 3; no cell without any but the last.
COUNTS = np.array([[2, 1, 1], [3, 0, 4], [0, 1, 0], [1, 0, 0], [0, 0, 0]])
PAIRS = [("A", "B"), ("A", "C")]


@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix, sp.csc_matrix, sp.csr_array])
def test_rate_by_hand(form):
    found = coexpression_rate(form(COUNTS), GENES, PAIRS)
    assert found.mean == (1 / 4 + 2 / 3) / 2
    expected = pd.DataFrame({"gene_a": ["A", "A"], "gene_b": ["B", "C"], "n_both": [1.0, 2.0], "n_either": [4.0, 3.0]})
    pd.testing.assert_frame_equal(found.pairs.drop(columns="rate"), expected)
    np.testing.assert_array_equal(found.pairs["rate"], [1 / 4, 2 / 3])


def test_odds_ratio_by_hand():
    # A and B: 1 both, 2 only A, 1 only B, 1 neither. A and C: 2 both, 1 only A, none only C, 2 neither.
    expected = [(1.5 * 1.5) / (2.5 * 1.5), (2.5 * 2.5) / (1.5 * 0.5)]
    found = coexpression_odds_ratio(COUNTS, GENES, PAIRS)
    np.testing.assert_allclose(found.pairs["odds_ratio"], expected)
    assert found.mean == pytest.approx(np.sqrt(expected[0] * expected[1]))


def test_a_pair_in_no_cell_is_left_out():
    found = coexpression_rate(COUNTS * [1, 0, 0], GENES, [("B", "C"), ("A", "B")])
    assert np.isnan(found.pairs["rate"][0])
    assert found.mean == 0
    assert np.isnan(coexpression_rate(COUNTS * 0, GENES, PAIRS).mean)
    assert np.isnan(coexpression_odds_ratio(COUNTS * 0, GENES, PAIRS).mean)


def test_against_brute_force_in_small_blocks(monkeypatch):
    monkeypatch.setattr(_layers, "_BLOCK_BYTES", 1_000)
    rng = np.random.default_rng(0)
    counts = rng.poisson(0.3, (500, 12)) * rng.choice([1.0, 0.25], (500, 12))
    genes = [f"g{i}" for i in range(12)]
    pairs = list(itertools.combinations(genes[2:], 2))
    present = np.minimum(counts, 1)
    rates, ratios = [], []
    for g, h in pairs:
        p, q = present[:, genes.index(g)], present[:, genes.index(h)]
        a, b, c, d = (p * q).sum(), (p * (1 - q)).sum(), ((1 - p) * q).sum(), ((1 - p) * (1 - q)).sum()
        rates.append(a / (a + b + c))
        ratios.append((a + 0.5) * (d + 0.5) / (b + 0.5) / (c + 0.5))
    np.testing.assert_allclose(coexpression_rate(counts, genes, pairs).pairs["rate"], rates, rtol=1e-5)
    np.testing.assert_allclose(coexpression_odds_ratio(counts, genes, pairs).pairs["odds_ratio"], ratios, rtol=1e-5)


def test_expected_counts_mean_their_stochastic_rounding():
    rng = np.random.default_rng(1)
    corrected = rng.gamma(0.5, 1.0, (300, 2)) * (rng.random((300, 2)) < 0.6)
    both = []
    for _ in range(400):
        rounded = np.floor(corrected) + (rng.random(corrected.shape) < corrected % 1)
        both.append((rounded > 0).all(axis=1).sum())
    found = coexpression_rate(corrected, ["A", "B"], [("A", "B")]).pairs["n_both"][0]
    assert abs(np.mean(both) - found) < 5 * np.std(both) / 20


def test_scaling_all_counts_is_no_correction():
    # Scaled by q, counts of 0 and 1 give what the depth-matched control gives in expectation: q² of both.
    counts = (np.random.default_rng(2).random((20_000, 2)) < 0.5).astype(int)
    for q in (0.4, 0.6):
        scaled = coexpression_rate(q * counts, ["A", "B"], [("A", "B")]).pairs.iloc[0]
        assert scaled["n_both"] == pytest.approx(q**2 * counts.all(axis=1).sum(), rel=1e-5)
        control = coexpression_rate(depth_matched(counts, q * counts, rng=0), ["A", "B"], [("A", "B")]).pairs.iloc[0]
        assert abs(control["n_both"] - scaled["n_both"]) < 5 * np.sqrt(scaled["n_both"])


def simulated(rng, background):
    """60 cells of each of 3 labels with 2 genes each, a gene of a and b, and uniform background."""
    profile = np.eye(3).repeat(2, axis=1) * 3.0
    rates = np.column_stack([profile, [2.0, 2.0, 0]]) + background
    labels = np.repeat(["a", "b", "c"], 60)
    return rng.poisson(np.repeat(rates, 60, axis=0)), labels, [f"g{i}" for i in range(7)]


def test_exclusive_pairs_are_those_of_the_simulation():
    counts, labels, genes = simulated(np.random.default_rng(3), background=0.01)
    found = exclusive_pairs(counts, labels, genes)
    names = {frozenset(pair) for pair in zip(found["gene_a"], found["gene_b"], strict=True)}
    own = {f"g{i}": label for i, label in enumerate("aabbcc")}
    markers = {frozenset(p) for p in itertools.combinations(own, 2) if own[p[0]] != own[p[1]]}
    # The gene of a and b is exclusive with those of c.
    assert names == markers | {frozenset(("g6", gene)) for gene in ("g4", "g5")}
    for side in ("a", "b"):
        marked = found[found[f"gene_{side}"] != "g6"]
        assert list(marked[f"label_{side}"]) == [own[gene] for gene in marked[f"gene_{side}"]]


def test_exclusive_pairs_against_brute_force():
    counts, labels, genes = simulated(np.random.default_rng(4), background=0.1)
    found = exclusive_pairs(counts, labels, genes, max_lift=0.6).set_index(["gene_a", "gene_b"])
    share = np.array([counts[labels == t].sum(axis=0) / counts[labels == t].sum() for t in "abc"])
    detection = np.array([(counts[labels == t] > 0).mean(axis=0) for t in "abc"])
    top = share.argmax(axis=0)
    expected = {}
    for g, h in itertools.combinations(range(7), 2):
        relative = max(share[top[h], g] / share[top[g], g], share[top[g], h] / share[top[h], h])
        lift = ((counts[:, g] > 0) & (counts[:, h] > 0)).mean() / (counts[:, g] > 0).mean() / (counts[:, h] > 0).mean()
        least = min(detection[top[g], g], detection[top[h], h])
        if top[g] != top[h] and relative <= 0.1 and lift <= 0.6 and least >= 0.25:
            expected[genes[g], genes[h]] = (relative, lift, least)
    assert set(found.index) == set(expected)
    assert 0 < len(expected) < 14
    for pair, values in expected.items():
        np.testing.assert_allclose(found.loc[pair, ["relative", "lift", "detection"]].astype(float), values, rtol=1e-5)


def test_pairs_that_a_third_label_has_together_are_not_exclusive():
    # A is of a, B of b, but every cell of c has both, with much else.
    cells = {"a": [9, 0, 0], "b": [0, 9, 0], "c": [2, 2, 40]}
    counts = np.array([cells[label] for label in "abc" for _ in range(10)])
    labels = np.repeat(list("abc"), 10)
    assert len(exclusive_pairs(counts, labels, GENES, max_relative=0.2, max_lift=1)) > 0
    # n_gh n / (n_g n_h) = 10 · 30 / (20 · 20) = 0.75.
    lift = exclusive_pairs(counts, labels, GENES, max_relative=0.2).set_index(["gene_a", "gene_b"])["lift"]
    assert lift["A", "B"] == pytest.approx(0.75)
    with pytest.raises(ValueError, match="No exclusive markers"):
        exclusive_pairs(counts, labels, GENES, max_relative=0.01, max_lift=0.7)


def test_expected_counts_of_a_small_panel_may_be_positive_everywhere():
    genes = [f"g{i}" for i in range(24)]
    counts = np.random.default_rng(0).uniform(0.2, 50, (60, 24))
    assert coexpression_rate(counts, genes, [("g0", "g1")]).mean > 0.9
    with pytest.raises(ValueError, match="dense rates"):
        coexpression_rate(counts / 100, genes, [("g0", "g1")])
    with pytest.raises(ValueError, match="dense rates"):
        coexpression_rate(1e4 * counts / counts.sum(axis=1, keepdims=True), genes, [("g0", "g1")])


def test_no_exclusive_pairs_names_the_nearest():
    counts, labels, genes = simulated(np.random.default_rng(5), background=1.0)
    with pytest.raises(
        ValueError, match=r"(?i)no exclusive markers at these thresholds.*nearest: g\d \([abc]\) and g\d"
    ):
        exclusive_pairs(counts, labels, genes)
    with pytest.raises(ValueError, match="none, as all genes are highest in one label, 'a'"):
        exclusive_pairs(np.array([[3], [0]]).repeat(10, axis=0), np.repeat(["a", "b"], 10), ["A"])


def test_bad_input_is_told():
    counts, labels, genes = simulated(np.random.default_rng(6), background=0.0)
    with pytest.raises(ValueError, match="at least 2"):
        exclusive_pairs(counts, ["a"] * 180, genes)
    with pytest.raises(ValueError, match="shares no genes"):
        exclusive_pairs(counts, labels, genes, panel=["other"])
    with pytest.raises(ValueError, match="raw molecule counts"):
        exclusive_pairs(np.log1p(counts), labels, genes)
    with pytest.raises(ValueError, match="dense rates"):
        coexpression_rate(np.full((3, 20), 0.5), list("ABCDEFGHIJKLMNOPQRST"), [("A", "B")])
    with pytest.raises(KeyError, match="'X'.*gene_names"):
        coexpression_rate(COUNTS, GENES, [("A", "X")])
    with pytest.raises(ValueError, match="empty"):
        coexpression_rate(COUNTS, GENES, [])
    with pytest.raises(ValueError, match="with itself.*'A'"):
        coexpression_rate(COUNTS, GENES, [("A", "A")])
    with pytest.raises(KeyError, match="gene_b"):
        coexpression_rate(COUNTS, GENES, pd.DataFrame({"gene_a": ["A"]}))
    with pytest.raises(ValueError, match="2 names"):
        coexpression_rate(COUNTS, GENES[:2], PAIRS)


def test_given_pairs_by_hand():
    found = pairs_from_markers({"a": ["A", "S"], "b": ["B", "S", "off"], "c": ["C"]}, ["A", "B", "C", "S"])
    assert [tuple(row) for row in found.to_numpy()] == [
        ("A", "B", "a", "b"),
        ("A", "C", "a", "c"),
        ("B", "C", "b", "c"),
    ]
    with pytest.raises(ValueError, match="all markers in the panel belong to several labels"):
        pairs_from_markers({"a": ["S"], "b": ["S"]}, ["S"])


def test_the_true_counts_of_a_simulated_tissue_are_purer_than_the_depth_matched_ones():
    table = simulate_tissue(n_cells=1_000, n_genes=100, rng=0).tables["table"]
    true = table.layers["true_own"]
    pairs = exclusive_pairs(true, table.obs["cell_type"], table.var_names)
    raw, control, own = (
        coexpression_rate(layer, table.var_names, pairs).mean
        for layer in (table.X, depth_matched(table.X, true, rng=0), true)
    )
    assert own < control < raw


def test_exclusive_genes_meet_in_segmented_cells_more_than_in_dissociated_ones(real_data):
    reference = ad.read_h5ad(real_data("merfish_mpoa_scrna.h5ad"))
    spatial = ad.read_h5ad(real_data("merfish_mpoa.h5ad"))
    clear = ~reference.obs["cell_type"].isin(["Ambiguous", "Unstable"])
    labels = reference.obs["cell_type"].where(clear)
    pairs = exclusive_pairs(reference.X, labels, reference.var_names, panel=spatial.var_names)
    assert set(pairs["gene_a"]) | set(pairs["gene_b"]) <= set(spatial.var_names)
    dissociated, segmented = (coexpression_odds_ratio(a.X, a.var_names, pairs).mean for a in (reference, spatial))
    assert dissociated < 0.5 < segmented
    # The rate of all pairs, counted pair by pair.
    present = pd.DataFrame(spatial.X.toarray() > 0, columns=spatial.var_names)
    rates = [(present[g] & present[h]).sum() / (present[g] | present[h]).sum() for g, h in pairs.to_numpy()[:, :2]]
    assert coexpression_rate(spatial.X, spatial.var_names, pairs).mean == pytest.approx(np.mean(rates))


def test_pairs_may_be_categories():
    counts = np.array([[1, 1, 0], [1, 0, 1], [0, 1, 1]])
    pairs = pd.DataFrame({"gene_a": ["a", "a"], "gene_b": ["b", "c"]})
    plain, categories = (coexpression_rate(counts, list("abc"), p).mean for p in (pairs, pairs.astype("category")))
    assert plain == categories
