"""Neighbor contamination: markers of the neighbors' types in cells that should not have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from resolvi_sd._ratio import ratio
from resolvi_sd._validation import listing
from resolvi_sd.metrics._arrays import gene_index, label_codes, neighbor_matrix
from resolvi_sd.metrics._layers import cell_blocks, count_layer
from resolvi_sd.metrics._markers import Markers

__all__ = ["NeighborContamination", "neighbor_contamination"]


class NeighborContamination(NamedTuple):
    """Contamination of cells by the types of their neighbors.

    Attributes
    ----------
    molecules
        Molecules of each cell that plausibly leaked from a neighbor, `(n_cells,)`; NaN for cells that cannot be judged.
    share
        The same, divided by the cell's total.
    contaminated
        Share of the judged cells of the target (column) with such a molecule from the source (row); NaN if there are no
        judged cells.
    mean_share
        Mean over the judged cells of the target of the share of molecules from the source.
    n_judged
        Number of judged cells, source × target.
    """

    molecules: NDArray[np.float64]
    share: NDArray[np.float64]
    contaminated: pd.DataFrame
    mean_share: pd.DataFrame
    n_judged: pd.DataFrame


def neighbor_contamination(
    counts: Any,
    labels: Any,
    graph: Any,
    gene_names: Sequence[str] | pd.Index[Any],
    markers: Markers,
    *,
    neighbor_counts: Any = None,
) -> NeighborContamination:
    r"""Compute the neighbor contamination of SegTraQ, by cell and by source and target type.

    For a cell i of type t and a source type s among the types of its neighbors, the genes that may indicate leakage are

    .. math:: G_i(s) = \{g : g \in \mathrm{negative}(t) \cap \mathrm{positive}(s), \;
              x_{jg} > 0 \text{ for a neighbor } j \text{ of type } s\}.

    A cell is judged if it has molecules and any :math:`G_i(s)` is not empty. Its contamination is the number of its
    molecules of genes in the union of these sets, each gene counted once, and this number divided by the cell's total.
    For source s and target t, the results over the cells of type t with a non-empty :math:`G_i(s)` are the share of
    these cells with a molecule of :math:`G_i(s)`, and the mean share of their molecules that are of :math:`G_i(s)`
    [1]_. A gene of two sources counts for both.

    Differences from SegTraQ: the argument `neighbor_counts`; for a layer of expected counts c, the expected number of
    cells with a molecule, where a gene is present with probability min(c, 1), see :func:`coexpression_rate`, and at
    least one of several genes with one minus the product of the complements, which is the same as in SegTraQ for
    integers; and a number of judged cells that is 0 instead of NaN if there are none.

    Parameters
    ----------
    counts
        Raw, thinned or corrected counts, cells × genes, sparse or dense.
    labels
        Type of each cell, fixed before the correction; a cell without a type is neither target nor source.
    graph
        Neighbors of each cell, cells × cells, sparse: the stored entries of its row, regardless of their values.
    gene_names
        Name of each gene.
    markers
        Positive and negative markers of the types, from :func:`marker_genes` or :func:`given_markers`. Genes that are
        not among `gene_names` are left out.
    neighbor_counts
        Counts that determine whether a neighbor has a gene; `counts` if None. To compare layers, pass the raw counts
        for all of them, so that the same cells are judged by the same genes.

    Returns
    -------
    NeighborContamination

    Raises
    ------
    TypeError, ValueError
        If counts are dense rates or not valid counts, shapes differ, there are fewer than two labels, or the markers
        name none of the labels and genes.

    References
    ----------
    .. [1] SegTraQ, `neighbor_contamination` with `require_neighbor_expression`, https://github.com/LazDaria/SegTraQ.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> from resolvi_sd.metrics import given_markers, neighbor_contamination
    >>> genes = ["A", "B"]
    >>> found = neighbor_contamination(
    ...     np.array([[3, 1], [0, 4]]), ["a", "b"], sp.csr_matrix([[0, 1], [1, 0]]), genes,
    ...     given_markers({"a": ["A"], "b": ["B"]}, genes),
    ... )
    >>> found.share
    array([0.25, 0.  ])
    >>> found.contaminated
    target    a    b
    source
    a       NaN  0.0
    b       1.0  NaN
    """
    if not isinstance(markers, Markers):
        raise TypeError(
            f"`markers` must be Markers, not {type(markers).__name__}. Make them with `marker_genes` from a reference, "
            "or with `given_markers` from positive markers."
        )
    layer = count_layer(counts, argument="counts")
    source = layer if neighbor_counts is None else count_layer(neighbor_counts, argument="neighbor_counts")
    codes, names = label_codes(labels, layer.shape[0], argument="labels")
    edges = neighbor_matrix(graph, layer.shape[0])
    if source.shape != layer.shape:
        raise ValueError(f"The shapes differ: counts {layer.shape}, neighbor_counts {source.shape}.")
    genes = gene_index(gene_names, layer.shape[1], argument="gene_names")
    positive, negative = (_membership(found, names, genes) for found in markers)
    if not (negative.any(axis=0) & positive.any(axis=0)).any():
        raise ValueError(
            "No gene of the panel is a negative marker of one label and a positive one of another. Labels: "
            f"{listing(names)}. Labels of the markers: {listing(markers.positive)}. Genes: {listing(genes, 3)}."
        )
    total = np.asarray(layer.sum(axis=1, dtype=np.float64)).ravel()
    targets = np.where(total > 0, codes, -1)
    markers_seen = _source_markers(source, codes, positive & negative.any(axis=0))
    return _summary(edges, markers_seen, negative, layer, targets, total, names)


@dataclass(frozen=True)
class _SourceMarkers:
    """Presence of the positive markers of a label in its own cells.

    Attributes
    ----------
    present
        One for each cell that has the gene, cells × (label, gene), int32.
    label, gene
        Label and gene of each column, sorted by label.
    """

    present: sp.csr_matrix
    label: NDArray[np.intp]
    gene: NDArray[np.intp]


def _membership(found: Mapping[str, Sequence[str]], names: Sequence[str], genes: pd.Index[Any]) -> NDArray[np.bool_]:
    """Return which genes are markers of which label, labels × genes."""
    return np.stack([genes.isin(found.get(name, ())) for name in names])


def _source_markers(counts: sp.csr_matrix, codes: NDArray[np.int64], positive: NDArray[np.bool_]) -> _SourceMarkers:
    label, gene = np.nonzero(positive)
    entries = sp.coo_matrix(counts[:, gene])
    own = (codes[entries.row] == label[entries.col]) & (entries.data > 0)
    ones = np.ones(int(own.sum()), dtype=np.int32)
    present = sp.csr_matrix((ones, (entries.row[own], entries.col[own])), shape=(counts.shape[0], label.size))
    return _SourceMarkers(present, label, gene)


def _summary(
    edges: sp.csr_matrix,
    sources: _SourceMarkers,
    negative: NDArray[np.bool_],
    layer: sp.csr_matrix,
    targets: NDArray[np.int64],
    total: NDArray[np.float64],
    names: Sequence[str],
) -> NeighborContamination:
    """Count the molecules that may have leaked from neighbors, one block of cells at a time."""
    molecules = np.full(total.size, np.nan)
    tables = np.zeros((3, len(names), len(names)))
    leaking, first = np.unique(sources.label, return_index=True)
    by_gene = np.argsort(sources.gene, kind="stable")
    _, first_of_gene = np.unique(sources.gene[by_gene], return_index=True)
    for cells in cell_blocks(total.size, sources.gene.size):
        target = targets[cells]
        told = (edges[cells] @ sources.present).toarray() > 0
        told &= negative[:, sources.gene][target] & (target >= 0)[:, None]
        counts = layer[cells][:, sources.gene].toarray()
        # A gene may indicate several sources, but its molecules count once.
        gene_told = np.logical_or.reduceat(told[:, by_gene], first_of_gene, axis=1)
        once = (counts[:, by_gene[first_of_gene]] * gene_told).sum(axis=1, dtype=np.float64)
        molecules[cells] = np.where(gene_told.any(axis=1), once, np.nan)

        judged = np.logical_or.reduceat(told, first, axis=1)
        absent = np.multiply.reduceat(np.where(told, 1 - np.minimum(counts, 1.0), 1.0), first, axis=1)
        leaked = np.add.reduceat(counts * told, first, axis=1, dtype=np.float64)
        share = ratio(leaked, total[cells, None], otherwise=0.0)
        member = np.eye(len(names))[target]  # an arbitrary label for -1, for which all values are 0
        for table, values in zip(tables, (judged, 1 - absent, share), strict=True):
            table[leaking] += values.T @ member
    return _result(molecules, total, tables, names)


def _result(
    molecules: NDArray[np.float64], total: NDArray[np.float64], tables: NDArray[np.float64], names: Sequence[str]
) -> NeighborContamination:
    n_judged, hits, shares = tables
    rows, columns = pd.Index(names, name="source"), pd.Index(names, name="target")
    with np.errstate(invalid="ignore"):
        return NeighborContamination(
            molecules=molecules,
            share=ratio(molecules, total),
            contaminated=pd.DataFrame(hits / n_judged, rows, columns),
            mean_share=pd.DataFrame(shares / n_judged, rows, columns),
            n_judged=pd.DataFrame(n_judged.astype(np.int64), rows, columns),
        )
