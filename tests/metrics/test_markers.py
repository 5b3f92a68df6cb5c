"""Markers of labels, on counts whose markers are known."""

import numpy as np
import pandas as pd
import pytest

from resolvi_sd.metrics import given_markers, marker_genes

GENES = ["A", "B", "C", "AB", "all", "rare"]


@pytest.fixture
def reference():
    """Counts of 3 × 20 cells: a marker for each label, one of a and b, one of all, one in a tenth of the cells of a."""
    own = {"a": [6, 0, 0, 3, 2, 0], "b": [0, 6, 0, 3, 2, 0], "c": [0, 0, 6, 0, 2, 0]}
    counts = np.array([own[label] for label in "abc" for _ in range(20)])
    counts[:2, 5] = 1
    counts.setflags(write=False)
    return counts, np.repeat(list("abc"), 20)


def test_markers_by_hand(reference):
    # AB is absent from c only: one of the two other labels, the half that is asked for.
    found = marker_genes(*reference, GENES)
    assert found.positive == {"a": ("A", "AB"), "b": ("B", "AB"), "c": ("C",)}
    assert found.negative == {"a": ("B", "C"), "b": ("A", "C"), "c": ("A", "B", "AB")}
    strict = marker_genes(*reference, GENES, min_absent=1.0)
    assert strict.positive == {"a": ("A",), "b": ("B",), "c": ("C",)}
    assert marker_genes(*reference, GENES, min_detection=0.1).positive["a"] == ("A", "AB", "rare")


def test_panel_and_missing_labels(reference):
    counts, labels = reference
    found = marker_genes(counts, labels, GENES, panel=["C", "A", "not there"])
    assert found.positive == {"a": ("A",), "b": (), "c": ("C",)}
    # Without the labels of c there are two, and C is nobody's.
    two = marker_genes(counts, pd.Categorical(np.where(labels == "c", None, labels)), GENES)
    assert two.positive == {"a": ("A",), "b": ("B",)}


def test_relative_expression_does_not_depend_on_depth(reference):
    counts, labels = reference
    deep = counts * np.where(labels == "a", 10, 1)[:, None]
    assert marker_genes(deep, labels, GENES) == marker_genes(counts, labels, GENES)


def test_given_markers_by_hand():
    found = given_markers({"a": ["A", "AB"], "b": ["AB", "B", "off"], "c": ["C"]}, GENES)
    assert found.positive == {"a": ("A", "AB"), "b": ("AB", "B"), "c": ("C",)}
    assert found.negative == {"a": ("B", "C"), "b": ("A", "C"), "c": ("A", "AB", "B")}
    with pytest.raises(ValueError, match="Markers of 1 labels.*at least two"):
        given_markers({"a": ["A"], "b": ["off"]}, GENES)


def test_bad_input_is_told(reference):
    counts, labels = reference
    with pytest.raises(ValueError, match="at least 2"):
        marker_genes(counts, ["a"] * 60, GENES)
    with pytest.raises(ValueError, match="at least 2"):
        marker_genes(counts, [None] * 60, GENES)
    with pytest.raises(ValueError, match="0 of 3 labels have min_cells=21.*'a: 20'"):
        marker_genes(counts, labels, GENES, min_cells=21)
    with pytest.raises(ValueError, match="shares no genes with the panel.*'A'.*'ENSG1'"):
        marker_genes(counts, labels, GENES, panel=["ENSG1"])
    with pytest.raises(ValueError, match="raw molecule counts"):
        marker_genes(np.log1p(counts), labels, GENES)
    with pytest.raises(ValueError, match="59 entries.*60 cells"):
        marker_genes(counts, labels[:-1], GENES)
    with pytest.raises(ValueError, match="must be below"):
        marker_genes(counts, labels, GENES, max_relative=0.6)
    with pytest.raises(ValueError, match="No markers at these thresholds.*nearest: 'AB' of 'a'"):
        marker_genes(counts[:, 3:5], labels, GENES[3:5], min_detection=1, min_absent=1)
