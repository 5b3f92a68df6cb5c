"""Agreement with single-cell RNA-seq: profiles of types, and correlations between genes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from resolvi_sd._csr import group_sums
from resolvi_sd._validation import check_positive_int, listing
from resolvi_sd.metrics._arrays import gene_index, label_codes, matrix
from resolvi_sd.metrics._layers import panel_columns

__all__ = ["ReferenceFidelity", "reference_fidelity"]

_DEPTH = 1e4
# Cells converted to dense at a time; bounds temporary arrays to some megabytes.
_CELLS = 4096


class ReferenceFidelity(NamedTuple):
    """Agreement of a layer with a reference.

    Attributes
    ----------
    cosine
        Mean over the types of the cosine between their pseudobulks.
    correlation_difference
        Mean absolute difference between the correlations of pairs of genes, over all types together, each type with the
        same weight.
    n_genes
        Number of genes in both data sets.
    types
        One row per type: `cell_type`, `reference_type`, `n_cells`, `n_reference`, `cosine`, `cosine_log` (of
        log(1 + molecules per 10,000)), and `correlation_difference` within the type.
    """

    cosine: float
    correlation_difference: float
    n_genes: int
    types: pd.DataFrame


def reference_fidelity(
    expression: Any,
    labels: Any,
    gene_names: Sequence[str] | pd.Index[Any],
    *,
    reference_counts: Any,
    reference_labels: Any,
    reference_gene_names: Sequence[str] | pd.Index[Any],
    label_map: Mapping[str, str] | None = None,
    min_cells: int = 10,
    max_correlation_genes: int = 500,
) -> ReferenceFidelity:
    r"""Compare the pseudobulk of each type (cosine) and gene-gene correlations with those of a reference.

    With :math:`b_{tg} = \sum_{n \in t} x_{ng}`, the molecules of a type in the shared genes, the cosine is
    :math:`b_t \cdot c_t / (\|b_t\| \|c_t\|)`, where c are the sums of the reference. Platforms capture genes unequally,
    so the cosine is not 1 even without leakage: compare it before and after a correction.

    Correlations between genes are Pearson's r of log(1 + molecules per 10,000 of a cell); the difference is the mean of
    :math:`|r_{gh} - r_{gh}^\mathrm{ref}|` over pairs of genes. Over all types together, they show genes of different
    types that seem to be expressed together. In this case, each type has the same weight, since a section and a
    dissociated sample contain the types in different numbers. Sparse counts weaken all correlations, so compare at the
    same depth.

    Parameters
    ----------
    expression
        Cells × genes, non-negative, sparse or dense: raw, thinned or corrected counts.
    labels
        Type of each cell; missing values are allowed.
    gene_names
        Names of the columns.
    reference_counts
        Counts of the reference, cells × genes, sparse or dense.
    reference_labels
        Type of each cell of the reference.
    reference_gene_names
        Names of the columns of `reference_counts`.
    label_map
        Name of each type in the reference. Types that are not listed have the same name in both.
    min_cells
        Types with fewer cells, here or in the reference, are left out, as are cells without molecules of shared genes.
    max_correlation_genes
        Maximum number of shared genes used for the correlations: those with the most molecules in the reference, with
        types weighted equally.

    Returns
    -------
    ReferenceFidelity. Genes that do not vary have no correlation and are left out; NaN if none is left.

    Raises
    ------
    KeyError
        If `label_map` names a type that does not occur, or one that the reference lacks.
    TypeError, ValueError
        If no genes or no types are shared, if no cell has a label, if shapes do not match, or if values are negative,
        NaN or infinite.

    References
    ----------
    Correlations: coexpression similarity of txsim (github.com/theislab/txsim), where the difference is halved and all
    cells have the same weight. The cosine is a common choice; equal weights of the types are ours.

    Examples
    --------
    >>> import numpy as np
    >>> from resolvi_sd.metrics import reference_fidelity
    >>> counts, reference = np.array([[3, 4], [0, 1]]), np.array([[0, 5, 9], [3, 0, 9]])  # columns b, a and a, b, c
    >>> fidelity = reference_fidelity(counts, ["T", "B"], ["b", "a"], reference_counts=reference,
    ...                               reference_labels=["T cell", "B"], reference_gene_names=["a", "b", "c"],
    ...                               label_map={"T": "T cell"}, min_cells=1)
    >>> fidelity.n_genes, fidelity.types["cosine"].tolist()  # of (0, 1) with (0, 3), and of (3, 4) with (5, 0)
    (2, [1.0, 0.6])
    """
    layer, other = matrix(expression, argument="expression"), matrix(reference_counts, argument="reference_counts")
    codes, names = label_codes(labels, layer.shape[0], argument="labels", minimum=1)
    other_codes, other_names = label_codes(reference_labels, other.shape[0], argument="reference_labels", minimum=1)
    index = gene_index(gene_names, layer.shape[1], argument="gene_names")
    other_index = gene_index(reference_gene_names, other.shape[1], argument="reference_gene_names")
    check_positive_int(min_cells, argument="min_cells")
    check_positive_int(max_correlation_genes, argument="max_correlation_genes")
    pairs = _matched(names, other_names, {} if label_map is None else label_map)
    shared = other_index[panel_columns(other_index, index)]
    here = _Side.of(layer[:, index.get_indexer(shared)], codes, len(names))
    there = _Side.of(other[:, other_index.get_indexer(shared)], other_codes, len(other_names))
    used = [(a, b) for a, b in pairs if min(here.sizes[a], there.sizes[b]) >= min_cells]
    if not used:
        raise ValueError(
            f"No type has at least min_cells={min_cells} cells with molecules of the {len(shared)} shared genes both "
            f"here and in the reference. Types in both: {listing(names[a] for a, _ in pairs)}."
        )
    weight = np.mean([there.sums[b] / there.sums[b].sum() for _, b in used], axis=0)
    top = np.sort(np.argsort(-weight, kind="stable")[:max_correlation_genes])
    return _fidelity(here, there, used, top, names, other_names)


def _matched(names: list[str], other_names: list[str], label_map: Mapping[str, str]) -> list[tuple[int, int]]:
    """Return the numbers, here and in the reference, of the types that are in both."""
    unknown = [name for name in label_map if name not in names]
    if unknown:
        raise KeyError(f"`label_map` names types that do not occur: {listing(unknown)}. The types: {listing(names)}.")
    absent = [name for name in label_map.values() if name not in other_names]
    if absent:
        raise KeyError(
            f"`label_map` names types that the reference lacks: {listing(absent)}. It has: {listing(other_names)}."
        )
    called = [label_map.get(name, name) for name in names]
    pairs = [(number, other_names.index(name)) for number, name in enumerate(called) if name in other_names]
    if not pairs:
        raise ValueError(
            f"No type is in both. Here: {listing(names)}. In the reference: {listing(other_names)}. Match them "
            "with label_map={'name here': 'name in the reference'}."
        )
    return pairs


class _Side(NamedTuple):
    """The cells with molecules of shared genes, of one of the data sets."""

    counts: sp.csr_matrix
    depth: NDArray[np.float64]
    codes: NDArray[np.int64]
    sizes: NDArray[np.int64]
    sums: NDArray[np.float64]

    @classmethod
    def of(cls, counts: sp.csr_matrix, codes: NDArray[np.int64], n_types: int) -> _Side:
        depth = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
        used = np.where(depth > 0, codes, -1)
        sizes = np.bincount(used[used >= 0], minlength=n_types).astype(np.int64)
        return cls(counts, depth, used, sizes, group_sums(counts, used, n_types))


def _fidelity(
    here: _Side,
    there: _Side,
    used: list[tuple[int, int]],
    genes: NDArray[np.intp],
    names: list[str],
    other_names: list[str],
) -> ReferenceFidelity:
    pooled = [np.zeros((len(genes) + 1, len(genes) + 1)) for _ in range(2)]
    rows = []
    for a, b in used:
        moments = (_moments(here, a, genes), _moments(there, b, genes))
        for total, moment in zip(pooled, moments, strict=True):
            total += moment
        x, y = here.sums[a], there.sums[b]
        log_x, log_y = (np.log1p(_DEPTH * sums / sums.sum()) for sums in (x, y))
        rows.append(
            {
                "cell_type": names[a],
                "reference_type": other_names[b],
                "n_cells": here.sizes[a],
                "n_reference": there.sizes[b],
                "cosine": _cosine(x, y),
                "cosine_log": _cosine(log_x, log_y),
                "correlation_difference": _difference(*moments),
            }
        )
    types = pd.DataFrame(rows)
    # The means of the types' moments are the moments of cells weighted so that each type counts the same.
    return ReferenceFidelity(
        cosine=float(types["cosine"].mean()),
        correlation_difference=_difference(pooled[0] / len(used), pooled[1] / len(used)),
        n_genes=here.counts.shape[1],
        types=types,
    )


def _cosine(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    return float(x @ y / np.sqrt((x @ x) * (y @ y)))


def _moments(side: _Side, code: int, genes: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the mean products of the log-normalized genes and a last column of ones, over the cells of a type."""
    rows = np.flatnonzero(side.codes == code)
    total = np.zeros((len(genes) + 1, len(genes) + 1))
    for start in range(0, len(rows), _CELLS):
        part = rows[start : start + _CELLS]
        values = np.ones((len(part), len(genes) + 1))
        values[:, :-1] = np.log1p(side.counts[part][:, genes].toarray() * (_DEPTH / side.depth[part])[:, None])
        total += values.T @ values
    return total / len(rows)


def _difference(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Return the mean absolute difference between the correlations, over the pairs of genes that have both."""
    upper = np.triu_indices(len(first) - 1, k=1)
    apart = np.abs(_correlation(first)[upper] - _correlation(second)[upper])
    apart = apart[np.isfinite(apart)]
    return float(apart.mean()) if apart.size else float("nan")


def _correlation(moments: NDArray[np.float64]) -> NDArray[np.float64]:
    mean = moments[-1, :-1]
    covariance = moments[:-1, :-1] - np.outer(mean, mean)
    variance = np.diagonal(covariance).copy()
    variance[variance <= 1e-12 * np.maximum(np.diagonal(moments)[:-1], 1e-300)] = np.nan  # constant, up to rounding
    spread = np.sqrt(variance)
    correlation: NDArray[np.float64] = covariance / np.outer(spread, spread)
    return correlation
