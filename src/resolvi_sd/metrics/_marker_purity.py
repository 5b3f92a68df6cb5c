"""Negative marker purity, based on genes detected in cells of types that do not express them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from resolvi_sd._csr import group_sums
from resolvi_sd._validation import check_integer, listing
from resolvi_sd.metrics._arrays import gene_index, label_codes
from resolvi_sd.metrics._layers import count_layer, expected_presence, molecule_counts, panel_columns

__all__ = ["NegativeMarkerPurity", "negative_marker_purity"]


class NegativeMarkerPurity(NamedTuple):
    """Negative marker purity by reads and by cells; 1 is the best value.

    Attributes
    ----------
    reads, cells
        The two purities; NaN if there are no negative pairs of a gene and a label to compute them from.
    n_reads, n_cells
        Number of negative pairs that each is based on; pairs of genes without any molecule in the layer do not count
        for `n_reads`.
    """

    reads: float
    cells: float
    n_reads: int
    n_cells: int


def negative_marker_purity(
    counts: Any,
    labels: Any,
    gene_names: Sequence[str] | pd.Index[Any],
    *,
    reference_counts: Any,
    reference_labels: Any,
    reference_gene_names: Sequence[str] | pd.Index[Any],
    max_expression: float = 0.005,
    max_detection: float = 0.005,
    min_cells: int = 10,
) -> NegativeMarkerPurity:
    r"""Compute the negative marker purity of txsim, by reads and by cells.

    With the mean count :math:`m_{cg}` of gene g in label c, normalized over the labels,
    :math:`e_{cg} = m_{cg} / \sum_{c'} m_{c'g}`, and the share :math:`f_{cg}` of the label's cells that have the gene,

    .. math::

        \mathrm{reads} = 1 - \max(0, \overline{e}^{\,\mathrm{spatial}} - \overline{e}^{\,\mathrm{reference}}), \qquad
        \mathrm{cells} = 1 - \max(0, \overline{f}^{\,\mathrm{spatial}} - \overline{f}^{\,\mathrm{reference}}),

    where the means are taken over the negative pairs (c, g): for reads, those with
    :math:`e^{\mathrm{reference}}_{cg}` below `max_expression`; for cells, those with
    :math:`f^{\mathrm{reference}}_{cg}` below `max_detection` [1]_. Genes without any molecule in the layer have no
    :math:`e^{\mathrm{spatial}}_{cg}` and are left out of the pairs for reads, in the means of both data sets. Only
    labels with at least `min_cells` cells in both data sets are used. The thresholds are txsim's. Deleting molecules
    raises the purity by cells, but not the purity by reads if all labels lose the same share.

    Differences from txsim: genes are matched by name, instead of requiring a reference with all genes of the panel;
    presence in a layer of expected counts c is min(c, 1), see :func:`coexpression_rate`, instead of c > 0, which is the
    same for integers; and an error is raised, instead of returning NaN, if there are no negative pairs at all or fewer
    than two labels.

    Parameters
    ----------
    counts
        Raw, thinned or corrected counts, cells × genes, sparse or dense.
    labels
        Label of each cell, fixed before the correction; missing values are left out.
    gene_names
        Name of each gene.
    reference_counts, reference_labels, reference_gene_names
        Molecule counts of single cells, their labels (spelled as in `labels`), and the names of their genes.
    max_expression, max_detection
        See above.
    min_cells
        Labels with fewer cells in either data set are left out.

    Returns
    -------
    NegativeMarkerPurity

    Raises
    ------
    TypeError, ValueError
        If counts are dense rates or not valid counts, if fewer than two labels or no genes are shared, or if no pair is
        negative.

    References
    ----------
    .. [1] txsim, `negative_marker_purity_reads` and `negative_marker_purity_cells`, https://github.com/theislab/txsim.

    Examples
    --------
    >>> import numpy as np
    >>> from resolvi_sd.metrics import negative_marker_purity
    >>> negative_marker_purity(
    ...     np.array([[3, 1], [0, 4]]), ["a", "b"], ["A", "B"], min_cells=1,
    ...     reference_counts=np.array([[9, 0], [0, 9]]), reference_labels=["a", "b"], reference_gene_names=["A", "B"],
    ... )
    NegativeMarkerPurity(reads=0.9, cells=0.5, n_reads=2, n_cells=2)
    """
    layer = count_layer(counts, argument="counts")
    check_integer(min_cells, 0, argument="min_cells")
    reference = molecule_counts(reference_counts, argument="reference_counts")
    genes = gene_index(gene_names, layer.shape[1], argument="gene_names")
    reference_genes = gene_index(reference_gene_names, reference.shape[1], argument="reference_gene_names")
    reference_columns = panel_columns(reference_genes, genes)
    columns = genes.get_indexer(reference_genes[reference_columns])
    spatial_codes, reference_codes, n_labels = _shared_labels(
        label_codes(labels, layer.shape[0], argument="labels"),
        label_codes(reference_labels, reference.shape[0], argument="reference_labels"),
        min_cells,
    )
    expected_e, expected_f = _means(reference[:, reference_columns], reference_codes, n_labels)
    found_e, found_f = _means(layer[:, columns], spatial_codes, n_labels)
    # A gene without molecules in the layer has no share by label, and is uninformative about reads.
    by_reads, by_cells = (expected_e < max_expression) & ~np.isnan(found_e), expected_f < max_detection
    if not (by_reads.any() or by_cells.any()):
        raise ValueError(
            f"No negative markers at these thresholds (max_expression={max_expression}, max_detection={max_detection}) "
            f"among {len(columns)} genes and {n_labels} labels; the lowest of the reference are "
            f"{np.nanmin(expected_e):.2g} and {expected_f.min():.2g}."
        )
    return NegativeMarkerPurity(
        reads=_purity(found_e[by_reads], expected_e[by_reads]),
        cells=_purity(found_f[by_cells], expected_f[by_cells]),
        n_reads=int(by_reads.sum()),
        n_cells=int(by_cells.sum()),
    )


def _shared_labels(
    spatial: tuple[NDArray[np.int64], list[str]],
    reference: tuple[NDArray[np.int64], list[str]],
    min_cells: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Return both codes in terms of the labels with enough cells in both data sets, and the number of these labels."""
    sizes = [
        pd.Series(np.bincount(codes[codes >= 0], minlength=len(names)), index=names)
        for codes, names in (spatial, reference)
    ]
    enough = [set(size.index[size >= min_cells]) for size in sizes]
    shared = pd.Index(sorted(enough[0] & enough[1]))
    if len(shared) < 2:
        raise ValueError(
            f"{len(shared)} labels have min_cells={min_cells} cells in both data sets ({listing(shared)}), but at "
            f"least two are needed. Labels: {listing(spatial[1])}. Reference labels: {listing(reference[1])}. Are they "
            "spelled alike?"
        )
    recoded = []
    for codes, names in (spatial, reference):
        # The last entry is what the code -1 (no label) selects.
        recoded.append(np.append(shared.get_indexer(pd.Index(names)), -1)[codes].astype(np.int64))
    return recoded[0], recoded[1], len(shared)


def _means(
    layer: sp.csr_matrix, codes: NDArray[np.int64], n_labels: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean counts normalized over the labels, and the share of cells with the gene, labels × genes."""
    sizes = np.bincount(codes[codes >= 0], minlength=n_labels)[:, None]
    mean = group_sums(layer, codes, n_labels) / sizes
    with np.errstate(invalid="ignore"):
        normalized = mean / mean.sum(axis=0)
    return normalized, group_sums(expected_presence(layer), codes, n_labels) / sizes


def _purity(found: NDArray[np.float64], expected: NDArray[np.float64]) -> float:
    """Return 1 minus the excess of the mean found over the mean expected; NaN without pairs."""
    return float(1 - max(0.0, found.mean() - expected.mean())) if found.size else float("nan")
