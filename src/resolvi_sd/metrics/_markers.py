"""Positive and negative markers of each label, fixed before a correction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from resolvi_sd._csr import group_sums
from resolvi_sd._validation import check_integer, listing
from resolvi_sd.metrics._arrays import gene_index, label_codes
from resolvi_sd.metrics._layers import expected_presence, molecule_counts, panel_columns

__all__ = ["LabelProfiles", "Markers", "given_markers", "label_profiles", "marker_genes"]

_NEAREST = 3


class Markers(NamedTuple):
    """Genes that each label expresses, and genes that it does not express but another label does."""

    positive: dict[str, tuple[str, ...]]
    negative: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class LabelProfiles:
    """Expression of the genes in each label.

    Attributes
    ----------
    labels
        Names of the labels with enough cells.
    detection
        Share of a label's cells that have the gene, labels × genes.
    relative
        A label's expression (share of its molecules) relative to that of the label that expresses the gene most,
        labels × genes; 1 for that label, NaN for genes without molecules.
    """

    labels: tuple[str, ...]
    detection: NDArray[np.float64]
    relative: NDArray[np.float64]


def label_profiles(counts: Any, labels: Any, *, min_cells: int, argument: str) -> LabelProfiles:
    """Return the expression of all genes in the labels with at least `min_cells` cells.

    Raises
    ------
    TypeError, ValueError
        If `counts` are not integers, or fewer than two labels have enough cells.
    """
    check_integer(min_cells, 0, argument="min_cells")
    raw = molecule_counts(counts, argument=argument)
    codes, names = label_codes(labels, raw.shape[0], argument="labels")
    sizes = np.bincount(codes[codes >= 0], minlength=len(names))
    enough = np.flatnonzero(sizes >= min_cells)
    if enough.size < 2:
        raise ValueError(
            f"{enough.size} of {len(names)} labels have min_cells={min_cells} cells, but at least two are needed; "
            f"cells by label: {listing(f'{name}: {size}' for name, size in zip(names, sizes, strict=True))}."
        )
    sums = group_sums(raw, codes, len(names))[enough]
    detection = group_sums(expected_presence(raw), codes, len(names))[enough] / sizes[enough, None]
    with np.errstate(invalid="ignore"):
        share = np.nan_to_num(sums / sums.sum(axis=1, keepdims=True))
        relative = share / share.max(axis=0)
    return LabelProfiles(tuple(names[i] for i in enough), detection, relative)


def marker_genes(
    counts: Any,
    labels: Any,
    gene_names: Sequence[str] | pd.Index[Any],
    *,
    panel: Sequence[str] | pd.Index[Any] | None = None,
    min_detection: float = 0.25,
    min_relative: float = 0.5,
    max_relative: float = 0.1,
    min_absent: float = 0.5,
    min_cells: int = 10,
) -> Markers:
    """Find positive and negative markers of each label.

    The relative expression e of a gene in a label is its share of the label's molecules, divided by its share in the
    label where it is highest. A gene is *absent* from the labels with e <= `max_relative`. It is a positive marker of
    the labels with e >= `min_relative` in which at least `min_detection` of the cells have it, provided that it is
    absent from at least `min_absent` of the other labels; and it is a negative marker of every label that it is absent
    from, provided that it is a positive marker of any label. The rule that negative markers must be positive markers of
    another label is SegTraQ's [1]_. SegTraQ identifies them by pairwise tests, in which any difference becomes
    significant with a large reference; this function uses the size of the effect instead.

    The markers come from a single-cell reference, or from raw counts with labels. Leaked molecules hide negative
    markers in the latter: raise `max_relative` if too few are found. In either case, find them once and use them for
    all layers: markers taken from a corrected layer would reward the correction for agreeing with itself.

    Parameters
    ----------
    counts
        Molecule counts, cells × genes, sparse or dense.
    labels
        Label of each cell; missing values are left out.
    gene_names
        Name of each gene.
    panel
        Genes to choose markers from, such as those of the spatial data; all if None.
    min_detection
        Minimum share of a label's cells that have its positive marker.
    min_relative, max_relative
        Minimum relative expression of a positive marker, and maximum relative expression of a negative marker.
    min_absent
        Minimum share of the other labels from which a positive marker is absent.
    min_cells
        Labels with fewer cells are left out.

    Returns
    -------
    Markers
        Positive and negative markers by label; a label may have none.

    Raises
    ------
    TypeError, ValueError
        If the counts are not integers, there are fewer than two labels, the panel shares no genes, or no label has a
        marker at these thresholds.

    References
    ----------
    .. [1] SegTraQ, `markers_from_reference`, https://github.com/LazDaria/SegTraQ.

    Examples
    --------
    >>> import numpy as np
    >>> from resolvi_sd.metrics import marker_genes
    >>> counts = np.array([[5, 0, 2], [4, 0, 2], [0, 3, 1], [0, 4, 2]])
    >>> marker_genes(counts, ["a", "a", "b", "b"], ["A", "B", "C"], min_cells=2)
    Markers(positive={'a': ('A',), 'b': ('B',)}, negative={'a': ('B',), 'b': ('A',)})
    """
    if not 0 <= max_relative < min_relative <= 1:
        raise ValueError(
            f"`max_relative` ({max_relative}) must be below `min_relative` ({min_relative}), both between 0 and 1."
        )
    profiles = label_profiles(counts, labels, min_cells=min_cells, argument="counts")
    genes = gene_index(gene_names, profiles.detection.shape[1], argument="gene_names")
    columns = panel_columns(genes, panel)
    detection, relative = profiles.detection[:, columns], profiles.relative[:, columns]
    absent = relative <= max_relative
    # Share of the other labels, as a positive marker is expressed in its own label.
    specific = absent.sum(axis=0) >= min_absent * (len(profiles.labels) - 1)
    positive = (relative >= min_relative) & (detection >= min_detection) & specific & absent.any(axis=0)
    if not positive.any():
        raise ValueError(
            f"No markers at these thresholds (min_detection={min_detection}, min_relative={min_relative}, max_relative="
            f"{max_relative}, min_absent={min_absent}); the nearest: "
            f"{_nearest(profiles.labels, genes[columns], detection, relative)}. Loosen the thresholds, or pass markers."
        )
    negative = absent & positive.any(axis=0)
    chosen = genes[columns]
    return Markers(*({label: tuple(chosen[row]) for label, row in zip(profiles.labels, found, strict=True)}
                     for found in (positive, negative)))  # fmt: skip


def given_markers(positive: Mapping[str, Sequence[str]], gene_names: Sequence[str] | pd.Index[Any]) -> Markers:
    """Complete given positive markers with negative markers: the markers of the other labels.

    Parameters
    ----------
    positive
        Genes that each label expresses; those not among `gene_names` are left out. A gene may mark several labels.
    gene_names
        Names of the genes of the panel.

    Returns
    -------
    Markers
        Markers of all labels given; a negative marker of a label is a positive marker of another label but not of this
        one.

    Raises
    ------
    ValueError
        If fewer than two labels have a marker in the panel.

    Examples
    --------
    >>> from resolvi_sd.metrics import given_markers
    >>> given_markers({"B": ["CD79A", "CD19"], "T": ["CD3E"]}, ["CD3E", "CD79A", "ACTB"])
    Markers(positive={'B': ('CD79A',), 'T': ('CD3E',)}, negative={'B': ('CD3E',), 'T': ('CD79A',)})
    """
    panel = pd.Index(gene_names)
    own = {label: tuple(gene for gene in dict.fromkeys(genes) if gene in panel) for label, genes in positive.items()}
    marked = [label for label, genes in own.items() if genes]
    if len(marked) < 2:
        raise ValueError(
            f"Markers of {len(marked)} labels ({listing(marked)}) are in the panel, but those of at least two are "
            f"needed. Given: {listing(gene for genes in positive.values() for gene in genes)}. Panel: "
            f"{listing(panel, 3)}."
        )
    every = dict.fromkeys(gene for genes in own.values() for gene in genes)
    return Markers(own, {label: tuple(gene for gene in every if gene not in genes) for label, genes in own.items()})


def _nearest(
    labels: tuple[str, ...], genes: pd.Index[Any], detection: NDArray[np.float64], relative: NDArray[np.float64]
) -> str:
    """Describe the genes that are detected most in the label where they are highest, and are lowest elsewhere."""
    found = np.flatnonzero(~np.isnan(relative).any(axis=0))
    if not found.size:
        return "none, as no gene has a molecule"
    top = relative[:, found].argmax(axis=0)
    nearest = np.argsort(relative[:, found].min(axis=0) - detection[top, found])[:_NEAREST]
    return "; ".join(
        f"{genes[found[i]]!r} of {labels[top[i]]!r} (in {detection[top[i], found[i]]:.2g} of its cells, lowest "
        f"relative expression elsewhere {relative[:, found[i]].min():.2g})"
        for i in nearest
    )
