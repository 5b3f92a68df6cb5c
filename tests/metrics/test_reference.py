"""Agreement with a reference: cosines by hand, correlations against numpy's."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from resolvi_sd.metrics import reference_fidelity


def test_cosines_by_hand():
    # Pseudobulk of T: (3, 4) over genes a, b; of the reference's T cell (1, 1): cosine 7 / (5 sqrt 2).
    counts = sp.csr_matrix([[1, 4, 9], [2, 0, 9], [0, 2, 5]])
    reference = np.array([[1, 0], [0, 1], [3, 0]])
    result = reference_fidelity(
        counts,
        ["T", "T", "B"],
        ["a", "b", "only here"],
        reference_counts=reference,
        reference_labels=["T cell", "T cell", "B"],
        reference_gene_names=["a", "b"],
        label_map={"T": "T cell"},
        min_cells=1,
    )
    types = result.types.set_index("cell_type")
    assert types.loc["T", "cosine"] == pytest.approx(7 / (5 * np.sqrt(2)))
    assert types.loc["B", "cosine"] == 0
    assert result.cosine == pytest.approx(7 / (10 * np.sqrt(2)))
    x, y = np.log1p([3e4 / 7, 4e4 / 7]), np.log1p([5e3, 5e3])
    assert types.loc["T", "cosine_log"] == pytest.approx(x @ y / np.linalg.norm(x) / np.linalg.norm(y))
    assert types.loc["T", "reference_type"] == "T cell"
    assert (types.loc["T", "n_cells"], types.loc["B", "n_reference"], result.n_genes) == (2, 1, 2)


def test_opposite_correlations_differ_by_two():
    """Three genes, the third varying alone: a and b rise together here, and against each other there."""
    here = np.array([[4, 4, 2], [1, 1, 8], [2, 2, 6], [3, 3, 4]])
    there = np.array([[4, 1, 5], [1, 4, 5], [2, 3, 5], [3, 2, 5]])
    result = reference_fidelity(
        here,
        ["T"] * 4,
        ["a", "b", "c"],
        reference_counts=there,
        reference_labels=["T"] * 4,
        reference_gene_names=["a", "b", "c"],
        min_cells=1,
    )
    # c is constant in the reference, so that only the pair of a and b is left; there, both have the same values.
    logs = np.log1p(there * 1000.0)
    expected = 1 - np.corrcoef(logs[:, 0], logs[:, 1])[0, 1]
    assert result.correlation_difference == pytest.approx(expected)
    assert result.types["correlation_difference"].item() == pytest.approx(expected)
    assert 1.9 < expected <= 2


@pytest.fixture(scope="module")
def two_sets():
    rng = np.random.default_rng(0)
    labels, other = rng.choice(["x", "y", "z"], 5000, p=[0.7, 0.2, 0.1]), rng.choice(["x", "y", "w"], 300)
    profile = {name: rng.gamma(0.5, 4, 20) for name in "xyzw"}
    counts = rng.poisson([profile[name] for name in labels])
    reference = rng.poisson([profile[name] for name in other])
    genes = [f"g{i}" for i in range(20)]
    return counts, labels, reference[:, ::-1], other, genes


def test_against_numpy(two_sets):
    """Weighted correlations of log-normalized counts, every type with the same weight."""
    counts, labels, reference, other, genes = two_sets
    result = reference_fidelity(
        sp.csr_matrix(counts),
        labels,
        genes,
        reference_counts=reference,
        reference_labels=other,
        reference_gene_names=genes[::-1],
    )
    assert result.types["cell_type"].to_list() == ["x", "y"]
    assert result.n_genes == 20
    correlations = []
    for x, types in ((counts, labels), (reference[:, ::-1], other)):
        z = np.log1p(1e4 * x / x.sum(1, keepdims=True))
        weights = sum((types == t) / (types == t).sum() for t in "xy")
        covariance = np.cov(z, rowvar=False, aweights=weights, ddof=0)
        correlations.append(covariance / np.sqrt(np.outer(np.diag(covariance), np.diag(covariance))))
        for t in "xy":
            correlations.append(np.corrcoef(z[types == t], rowvar=False))
    upper = np.triu_indices(20, 1)
    all_types, of_x, of_y = (np.abs(correlations[i] - correlations[i + 3])[upper].mean() for i in range(3))
    assert result.correlation_difference == pytest.approx(all_types)
    assert result.types["correlation_difference"].to_list() == pytest.approx([of_x, of_y])


def test_the_same_data_agree_and_leakage_disagrees(two_sets):
    counts, labels, *_, genes = two_sets

    def against_itself(layer):
        return reference_fidelity(
            layer, labels, genes, reference_counts=counts, reference_labels=labels, reference_gene_names=genes
        )

    same = against_itself(counts.astype(np.float32))
    assert same.cosine == pytest.approx(1)
    assert same.correlation_difference == pytest.approx(0, abs=1e-12)
    mixed = against_itself(counts + np.random.default_rng(1).permutation(counts))
    assert mixed.cosine < 0.99 * same.cosine
    assert mixed.correlation_difference > 0.01


def test_only_the_genes_with_most_molecules_are_correlated(two_sets):
    counts, labels, reference, other, genes = two_sets
    top = reference_fidelity(
        counts,
        labels,
        genes,
        reference_counts=reference,
        reference_labels=other,
        reference_gene_names=genes[::-1],
        max_correlation_genes=5,
    )
    share = sum(reference[other == t].sum(0) / reference[other == t].sum() for t in "xy")[::-1]
    chosen = np.sort(np.argsort(-share)[:5])
    depth = counts.sum(1, keepdims=True), reference.sum(1, keepdims=True)
    z = np.log1p(1e4 * counts / depth[0])[labels == "x"][:, chosen]
    w = np.log1p(1e4 * reference / depth[1])[other == "x"][:, ::-1][:, chosen]
    difference = np.abs(np.corrcoef(z, rowvar=False) - np.corrcoef(w, rowvar=False))[np.triu_indices(5, 1)].mean()
    assert top.types["correlation_difference"][0] == pytest.approx(difference)


def test_cells_without_molecules_and_labels_do_not_count(two_sets):
    counts, labels, reference, other, genes = two_sets
    more = np.concatenate([counts, np.zeros((50, 20), int), counts[:50]])
    types = pd.Categorical([*labels, *["x"] * 50, *[None] * 50])
    first, second = (
        reference_fidelity(
            c, t, genes, reference_counts=reference, reference_labels=other, reference_gene_names=genes[::-1]
        )
        for c, t in ((counts, labels), (more, types))
    )
    pd.testing.assert_frame_equal(first.types, second.types)


def test_bad_input_is_told_what_to_do(two_sets):
    counts, labels, reference, other, genes = two_sets

    def fidelity(labels=labels, reference_labels=other, genes=genes, reference_genes=genes, **more):
        reference_fidelity(
            counts,
            labels,
            genes,
            reference_counts=reference,
            reference_labels=reference_labels,
            reference_gene_names=reference_genes,
            **more,
        )

    with pytest.raises(ValueError, match=r"shares no genes.*upper or lower case"):
        fidelity(reference_genes=[g.upper() for g in genes])
    with pytest.raises(ValueError, match=r"No type is in both.*'x', 'y', 'z'.*label_map"):
        fidelity(reference_labels=np.char.add(other, " cell"))
    with pytest.raises(KeyError, match="types that do not occur: 'q'"):
        fidelity(label_map={"q": "x"})
    with pytest.raises(KeyError, match=r"reference lacks: 'q'.*'w', 'x', 'y'"):
        fidelity(label_map={"x": "q"})
    with pytest.raises(ValueError, match="0 different labels"):
        fidelity(labels=[None] * 5000)
    with pytest.raises(ValueError, match="`reference_labels` has 2 entries, but there are 300 cells"):
        fidelity(reference_labels=["x", "y"])
    with pytest.raises(ValueError, match="`reference_gene_names` has 3 names"):
        fidelity(reference_genes=["g0", "g1", "g2"])
    with pytest.raises(ValueError, match=r"min_cells=9999.*'x', 'y'"):
        fidelity(min_cells=9999)


def test_types_need_enough_cells_in_both():
    rng = np.random.default_rng(0)
    genes = list("abcde")
    found = reference_fidelity(
        rng.poisson(3, (40, 5)),
        ["A"] * 20 + ["B"] * 20,
        genes,
        reference_counts=rng.poisson(3, (25, 5)),
        reference_labels=["A"] * 20 + ["B"] * 5,
        reference_gene_names=genes,
        min_cells=10,
    )
    assert found.types["cell_type"].tolist() == ["A"]
