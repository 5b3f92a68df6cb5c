"""Inputs of the metrics: matrices, labels, graphs and gene names, checked before any work is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from resolvi_sd._csr import of_plain_type
from resolvi_sd._tables import read_groups
from resolvi_sd._validation import check_unique, first_fraction, listing

__all__ = [
    "check_integers",
    "check_no_rates",
    "check_part",
    "gene_index",
    "label_codes",
    "marker_positions",
    "matrix",
    "neighbor_counts",
    "neighbor_matrix",
]

# Molecules that rounding may add to an entry, and in float32 to one with many, relative to its count.
_ROUNDING, _RELATIVE = 1e-3, 1e-6


def matrix(values: Any, *, argument: str) -> sp.csr_matrix:
    """Return cells × genes as CSR with unique entries, copying only if necessary.

    Raises
    ------
    TypeError
        If it is neither an array nor a sparse matrix in memory, or does not hold real numbers.
    ValueError
        If it does not have two dimensions, or holds negative, NaN or infinite values.
    """
    in_memory = isinstance(values, np.ndarray) or sp.issparse(values)
    if not in_memory:
        raise TypeError(
            f"`{argument}` must be a numpy array or a scipy sparse matrix, cells × genes, not {type(values).__name__}. "
            "Bring it into memory first, e.g. with `.compute()` or `.to_numpy()`."
        )
    if values.ndim != 2:
        raise ValueError(f"`{argument}` must be cells × genes, but its shape is {values.shape}.")
    if values.dtype.kind not in "buif":
        raise TypeError(f"`{argument}` must hold real numbers, but its type is {values.dtype}.")
    csr = sp.csr_matrix(of_plain_type(values))
    if not csr.has_canonical_format:
        csr = csr.copy()
        csr.sum_duplicates()
    if csr.nnz and not (np.isfinite(csr.data).all() and csr.data.min() >= 0):
        raise ValueError(
            f"`{argument}` must not hold negative, NaN or infinite values; is it scaled or centered? Pass counts."
        )
    return csr


def check_integers(csr: sp.csr_matrix, *, argument: str) -> None:
    """Raise unless all stored values are integers.

    Raises
    ------
    ValueError
        Naming one of the fractions.
    """
    fraction = first_fraction(csr.data) if csr.data.dtype.kind == "f" else None
    if fraction is not None:
        raise ValueError(
            f"`{argument}` must be raw molecule counts, but has values that are not integers, such as {fraction:g}: "
            "rates and normalized expression are not counts."
        )


def check_no_rates(corrected: sp.csr_matrix, counts: sp.csr_matrix) -> None:
    """Raise if fractional corrected counts fill more entries than the raw counts: a correction removes molecules.

    Raises
    ------
    ValueError
        Naming what to pass instead.
    """
    values = corrected.data
    if values.dtype.kind != "f" or np.count_nonzero(values) <= np.count_nonzero(counts.data):
        return
    if (np.rint(values) != values).any():
        raise ValueError(
            f"`corrected` has {np.count_nonzero(values)} non-zero entries, the raw counts have "
            f"{np.count_nonzero(counts.data)}: these are expression rates, not molecules that a correction kept. Pass "
            "corrected counts (layer 'resolvi_counts'), or integer draws."
        )


def check_part(
    part: sp.csr_matrix,
    counts: sp.csr_matrix,
    *,
    argument: str,
    hint: str = "Pass corrected counts, such as the layer 'resolvi_counts'.",
) -> None:
    """Raise if entries have more molecules than were counted, beyond rounding of float32.

    Raises
    ------
    ValueError
        Naming the number of such entries, and what to do.
    """
    # Differences of small integers would overflow.
    part, counts = (matrix.astype(np.float64, copy=False) for matrix in (part, counts))
    excess = int(((part - (1 + _RELATIVE) * counts).data > _ROUNDING).sum())
    if excess:
        raise ValueError(
            f"`{argument}` has more molecules than `counts` in {excess} entries, but must be a part of them. {hint}"
        )


def label_codes(labels: Any, n_cells: int, *, argument: str, minimum: int = 2) -> tuple[NDArray[np.int64], list[str]]:
    """Return the label of each cell as a number, -1 where it is missing, and the names of the labels that occur.

    Names are in the order of the categories if there are any; otherwise numbers are sorted by value, other values by
    their text.

    Raises
    ------
    ValueError
        If there is not one label per cell, or if fewer than `minimum` labels occur.
    """
    column = pd.Series(getattr(labels, "array", labels))
    if len(column) != n_cells:
        raise ValueError(f"`{argument}` has {len(column)} entries, but there are {n_cells} cells.")
    groups = read_groups(column).with_cells()
    if len(groups.names) < minimum:
        raise ValueError(
            f"`{argument}` has {len(groups.names)} different labels besides missing ones ({listing(groups.names)}), "
            f"but at least {minimum} are needed."
        )
    return groups.codes, list(groups.names)


def neighbor_matrix(graph: Any, n_cells: int) -> sp.csr_matrix:
    """Return a matrix with a one for each neighbor (column) of a cell (row), `(n_cells, n_cells)`, CSR int32.

    Every stored entry off the diagonal is an edge, so both connectivities and distances (in which coincident cells are
    stored zeros) may be passed.

    Raises
    ------
    TypeError
        If the graph is not sparse.
    ValueError
        If it is not cells × cells, or has no edge.
    """
    is_sparse = sp.issparse(graph)
    if not is_sparse:
        raise TypeError(
            f"`graph` must be a sparse matrix of connectivities or distances, cells × cells, not "
            f"{type(graph).__name__}; `resolvi_sd.gr.neighbors` computes both."
        )
    if graph.shape != (n_cells, n_cells):
        raise ValueError(
            f"`graph` is {graph.shape[0]} × {graph.shape[1]}, but there are {n_cells} cells. Was the table "
            "filtered after the graph was made?"
        )
    edges = sp.csr_matrix(graph).tocoo()
    between = edges.row != edges.col
    ones = np.ones(int(between.sum()), dtype=np.int32)
    neighbors = sp.csr_matrix((ones, (edges.row[between], edges.col[between])), shape=(n_cells, n_cells))
    if neighbors.nnz == 0:
        raise ValueError("`graph` has no edges: no cell has a neighbor.")
    neighbors.data[:] = 1  # duplicates were summed
    return neighbors


def neighbor_counts(neighbors: sp.csr_matrix, codes: NDArray[np.int64], n_types: int) -> NDArray[np.int32]:
    """Return the number of neighbors of each type, cells × types; neighbors without a label are not counted."""
    labeled = np.flatnonzero(codes >= 0)
    ones = np.ones(len(labeled), dtype=np.int32)
    types = sp.csr_matrix((ones, (labeled, codes[labeled])), shape=(len(codes), n_types))
    counts: NDArray[np.int32] = (neighbors @ types).toarray()
    return counts


def gene_index(genes: Any, n_genes: int, *, argument: str) -> pd.Index[Any]:
    """Return the names of the columns.

    Raises
    ------
    ValueError
        If there is not one name per column, or if names repeat.
    """
    names: pd.Index[Any] = pd.Index(genes)
    if len(names) != n_genes:
        raise ValueError(f"`{argument}` has {len(names)} names, but the matrix has {n_genes} columns.")
    check_unique(names, what=f"`{argument}`", todo="Make them unique first, as in `adata.var_names_make_unique()`.")
    return names


def marker_positions(
    markers: Mapping[str, Sequence[str]], genes: pd.Index[Any], names: Sequence[str]
) -> dict[int, NDArray[np.int64]]:
    """Return the columns of each label's markers, keyed by the number of the label.

    Raises
    ------
    KeyError
        If a label does not occur, or a marker is not among the genes.
    """
    unknown = [label for label in markers if label not in names]
    if unknown:
        raise KeyError(f"`markers` names labels that do not occur: {listing(unknown)}. The labels: {listing(names)}.")
    positions = {}
    for label, wanted in markers.items():
        unique = list(dict.fromkeys(wanted))
        found = genes.get_indexer(pd.Index(unique, dtype=genes.dtype))
        missing = [gene for gene, place in zip(unique, found, strict=True) if place < 0]
        if missing:
            raise KeyError(f"`markers` of {label!r} are not among the genes: {listing(missing)}.")
        positions[list(names).index(label)] = found.astype(np.int64)
    return positions
