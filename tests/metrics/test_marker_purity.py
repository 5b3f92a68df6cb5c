"""Negative marker purity, by hand and against txsim's formula written with pandas."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from resolvi_sd.metrics import negative_marker_purity

GENES = ["A", "B", "C"]
REFERENCE = {"reference_counts": np.array([[9, 0, 3], [9, 0, 3], [0, 9, 3], [0, 9, 3]]),
             "reference_labels": ["a", "a", "b", "b"], "reference_gene_names": GENES, "min_cells": 2}  # fmt: skip


def test_by_hand():
    # Negative pairs: A in b, B in a. Means: A 4 in a and 1 in b, so 1/5; B 1 in a and 3 in b, so 1/4. Of the cells of b
    # half have A, of those of a all have B.
    counts = np.array([[5, 1, 0], [3, 1, 2], [0, 2, 7], [2, 4, 0]])
    found = negative_marker_purity(counts, ["a", "a", "b", "b"], GENES, **REFERENCE)
    assert found.reads == pytest.approx(1 - (1 / 5 + 1 / 4) / 2)
    assert found.cells == pytest.approx(1 - (1 / 2 + 1) / 2)
    assert (found.n_reads, found.n_cells) == (2, 2)


def test_the_reference_itself_is_pure():
    counts = REFERENCE["reference_counts"]
    found = negative_marker_purity(counts, REFERENCE["reference_labels"], GENES, **REFERENCE)
    assert (found.reads, found.cells) == (1, 1)


def test_scaling_all_counts_leaves_the_reads_alone():
    rng = np.random.default_rng(0)
    counts = rng.poisson(1.0, (40, 3))
    labels = np.repeat(["a", "b"], 20)
    raw, scaled = (negative_marker_purity(layer, labels, GENES, **REFERENCE) for layer in (counts, counts * 0.25))
    assert scaled.reads == pytest.approx(raw.reads)
    assert scaled.cells > raw.cells


def by_pandas(spatial, labels, reference, reference_labels):
    """Formula of txsim, for labels with ten cells in both."""
    result = []
    for statistic, normalise in ((lambda t: t, True), (lambda t: t.clip(upper=1), False)):
        means = []
        for counts, names in ((reference, reference_labels), (spatial, labels)):
            table = statistic(counts).groupby(np.asarray(names)).mean().loc[["a", "b", "c"]]
            means.append(table / table.sum(axis=0) if normalise else table)
        negative = means[0] < 0.005
        low = [np.nanmean(table.to_numpy()[negative.to_numpy()]) for table in means]
        result.append(1 - max(0, low[1] - low[0]))
    return result


def test_against_pandas():
    rng = np.random.default_rng(1)
    profile = rng.gamma(0.2, 4.0, (4, 30)) * (rng.random((4, 30)) < 0.6)
    profile[:, 0] = 0
    genes = [f"g{i}" for i in range(30)]
    reference_labels = np.repeat(["a", "b", "c", "only here"], 50)
    reference = pd.DataFrame(rng.poisson(profile.repeat(50, axis=0)), columns=genes)
    # Another order of genes and one more, labels with too few cells and cells without one, fractions.
    labels = np.repeat(["c", "a", "few", "b", ""], [60, 40, 5, 30, 7]).astype(object)
    labels[labels == ""] = None
    counts = rng.poisson(1.0, (142, 31)) * rng.choice([1.0, 0.5, 0.0], (142, 31))
    spatial = pd.DataFrame(counts, columns=[*genes[::-1], "extra"])
    found = negative_marker_purity(
        sp.csr_matrix(counts), labels, spatial.columns,
        reference_counts=sp.csr_matrix(reference.to_numpy()), reference_labels=pd.Categorical(reference_labels),
        reference_gene_names=genes,
    )  # fmt: skip
    known = pd.notna(labels)
    expected = by_pandas(spatial.loc[known, genes], labels[known], reference, reference_labels)
    np.testing.assert_allclose(found[:2], expected, rtol=1e-6)
    assert found.n_reads >= 3


def test_bad_input_is_told():
    counts, labels = REFERENCE["reference_counts"], REFERENCE["reference_labels"]
    with pytest.raises(ValueError, match="1 labels have min_cells=2 .*Reference labels: 'a', 'x'.*spelled alike"):
        negative_marker_purity(counts, labels, GENES, **(REFERENCE | {"reference_labels": ["a", "a", "x", "x"]}))
    with pytest.raises(ValueError, match="shares no genes"):
        negative_marker_purity(counts, labels, ["x", "y", "z"], **REFERENCE)
    with pytest.raises(ValueError, match="at least 2"):
        negative_marker_purity(counts, ["a"] * 4, GENES, **REFERENCE)
    with pytest.raises(ValueError, match="dense rates"):
        negative_marker_purity(np.full((4, 20), 0.5), labels, GENES, **REFERENCE)
    with pytest.raises(ValueError, match="`reference_counts`.*raw molecule counts"):
        negative_marker_purity(counts, labels, GENES, **(REFERENCE | {"reference_counts": np.log1p(counts)}))
    with pytest.raises(ValueError, match=r"No negative markers .* the lowest of the reference are 0\.\d+ and 1"):
        negative_marker_purity(counts, labels, GENES, **(REFERENCE | {"reference_counts": counts + 1}))


def test_genes_without_molecules_are_left_out_of_both_means():
    layer = np.array([[3, 0, 2.0], [0, 0, 4]])
    reference = {"reference_counts": np.array([[9, 5, 0], [0, 0, 9]]), "reference_labels": ["a", "b"]}
    found = negative_marker_purity(
        layer, ["a", "b"], list("ABC"), min_cells=1, reference_gene_names=list("ABC"), **reference
    )
    # (b, A) and (a, C) are negative and known; a third of gene C is in label a.
    assert found.n_reads == 2 and found.reads == pytest.approx(1 - (0 + 1 / 3) / 2)
