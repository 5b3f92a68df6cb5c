"""Pairs of genes that no cell should have together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from resolvi_sd.metrics._arrays import gene_index
from resolvi_sd.metrics._layers import cooccurrence, expected_presence, molecule_counts, panel_columns
from resolvi_sd.metrics._markers import LabelProfiles, given_markers, label_profiles

__all__ = ["exclusive_pairs", "pairs_from_markers"]

_NEAREST = 3
# Genes searched for the nearest pairs if none passes; bounds the genes × genes matrices.
_NEAREST_GENES = 300


def exclusive_pairs(
    reference_counts: Any,
    labels: Any,
    gene_names: Sequence[str] | pd.Index[Any],
    *,
    panel: Sequence[str] | pd.Index[Any] | None = None,
    min_detection: float = 0.25,
    max_relative: float = 0.1,
    max_lift: float = 0.75,
    min_cells: int = 10,
) -> pd.DataFrame:
    """Find pairs of genes that no cell should have together, using a reference.

    Each gene belongs to the label in which its share of the molecules is highest. Two genes g and h of different labels
    a and b are exclusive if

    - each is detected in at least `min_detection` of the cells of its own label,
    - each has, in the label of the other, at most `max_relative` of its expression in its own label, and
    - they occur together in the reference at most `max_lift` times as often as independent genes would, that is,
      n_gh n / (n_g n_h) <= `max_lift`, over all cells, also those without a label or of a label with fewer than
      `min_cells`, since these may express both.

    The construction, reciprocal markers with a bound on their co-occurrence in the reference, is that of SegTraQ [2]_;
    Hartman and Satija [1]_ also take markers from a matched single-cell reference. `max_lift` is SegTraQ's; the other
    thresholds are ours.

    The reference should preferably be a single-cell data set. If there is none, use raw spatial counts with labels and
    a larger `max_relative`; find the pairs once and use them for all layers.

    Parameters
    ----------
    reference_counts
        Molecule counts of the reference, cells × genes, sparse or dense.
    labels
        Label of each cell of the reference; cells without one only count for the last condition.
    gene_names
        Name of each gene of the reference.
    panel
        Genes to choose from, such as those of the spatial data; all if None.
    min_detection, max_relative, max_lift
        See above.
    min_cells
        Labels with fewer cells have no genes of their own.

    Returns
    -------
    One row per pair, lowest `relative` first: `gene_a`, `gene_b`, `label_a`, `label_b`, `relative` (the larger of the
    two), `lift`, `detection` (the smaller of the two).

    Raises
    ------
    TypeError, ValueError
        If the counts are not integers, there are fewer than two labels, the panel shares no genes, or there is no
        exclusive pair; in the last case, the message names the nearest pairs.

    References
    ----------
    .. [1] Hartman & Satija 2024, Comparative analysis of multiplexed in situ gene expression profiling technologies,
       eLife 96949.
    .. [2] SegTraQ, `mutually_exclusive_coexpression_rate`, https://github.com/LazDaria/SegTraQ.

    Examples
    --------
    >>> import numpy as np
    >>> from resolvi_sd.metrics import exclusive_pairs
    >>> counts = np.array([[5, 0, 2], [4, 0, 2], [0, 3, 1], [0, 4, 2]])
    >>> exclusive_pairs(counts, ["a", "a", "b", "b"], ["A", "B", "C"], min_cells=2)
      gene_a gene_b label_a label_b  relative  lift  detection
    0      A      B       a       b       0.0   0.0        1.0
    """
    profiles = label_profiles(reference_counts, labels, min_cells=min_cells, argument="reference_counts")
    names = gene_index(gene_names, profiles.detection.shape[1], argument="gene_names")
    columns = panel_columns(names, panel)
    columns = columns[~np.isnan(profiles.relative[0, columns])]
    present = expected_presence(molecule_counts(reference_counts, argument="reference_counts"))
    top = profiles.relative[:, columns].argmax(axis=0)
    # Necessary for a gene to be in any pair; keeps the genes × genes matrices small for a whole transcriptome.
    detected = profiles.detection[top, columns] >= min_detection
    absent = profiles.relative[:, columns].min(axis=0) <= max_relative
    pairs = _compared_pairs(profiles, present, names, columns[detected & absent])
    found = pairs[(pairs["relative"] <= max_relative) & (pairs["lift"] <= max_lift)]
    if found.empty:
        raise ValueError(
            f"No exclusive markers at these thresholds (min_detection={min_detection}, max_relative={max_relative}, "
            f"max_lift={max_lift}); the nearest: "
            f"{_nearest(profiles, present, names, columns, (min_detection, max_relative, max_lift))}. Loosen the "
            "thresholds, merge labels that share their markers, or pass markers to pairs_from_markers."
        )
    return found.sort_values(["relative", "lift"], kind="stable").reset_index(drop=True)


def pairs_from_markers(markers: Mapping[str, Sequence[str]], gene_names: Sequence[str] | pd.Index[Any]) -> pd.DataFrame:
    """Return all pairs of given markers that belong to different labels.

    Parameters
    ----------
    markers
        Genes that each label expresses and no other given label does; those not among `gene_names` are left out. A
        gene given for several labels is not part of any pair.
    gene_names
        Names of the genes of the panel.

    Returns
    -------
    One row per pair: `gene_a`, `gene_b`, `label_a`, `label_b`.

    Raises
    ------
    ValueError
        If fewer than two labels have a marker in the panel, or all markers are shared between labels.

    Examples
    --------
    >>> from resolvi_sd.metrics import pairs_from_markers
    >>> pairs_from_markers({"B": ["CD79A"], "T": ["CD3E", "CD8A"]}, ["CD3E", "CD79A", "ACTB"])
      gene_a gene_b label_a label_b
    0  CD79A   CD3E       B       T
    """
    own = given_markers(markers, gene_names).positive
    times = pd.Series([gene for genes in own.values() for gene in genes]).value_counts()
    single = [(gene, label) for label, genes in own.items() for gene in genes if times[gene] == 1]
    rows = [(g, h, a, b) for i, (g, a) in enumerate(single) for h, b in single[i + 1 :] if a != b]
    if not rows:
        raise ValueError(
            f"No exclusive markers: all markers in the panel belong to several labels, or to one. Given: {dict(own)}."
        )
    return pd.DataFrame(rows, columns=["gene_a", "gene_b", "label_a", "label_b"])


def _compared_pairs(
    profiles: LabelProfiles, present: sp.csr_matrix, names: pd.Index[Any], columns: NDArray[np.intp]
) -> pd.DataFrame:
    """Return the pairs of these genes whose highest expression is in different labels."""
    relative = profiles.relative[:, columns]
    top = relative.argmax(axis=0)
    detection = profiles.detection[top, columns]
    first, second = np.triu_indices(len(columns), k=1)
    differ = top[first] != top[second]
    first, second = first[differ], second[differ]
    chosen = present[:, columns]
    cells = np.asarray(chosen.sum(axis=0, dtype=np.float64)).ravel()
    labels, genes = np.asarray(profiles.labels, dtype=object), names[columns]
    return pd.DataFrame(
        {
            "gene_a": genes[first],
            "gene_b": genes[second],
            "label_a": labels[top[first]],
            "label_b": labels[top[second]],
            "relative": np.maximum(relative[top[second], first], relative[top[first], second]),
            "lift": cooccurrence(chosen)[first, second] * present.shape[0] / (cells[first] * cells[second]),
            "detection": np.minimum(detection[first], detection[second]),
        }
    )


def _nearest(
    profiles: LabelProfiles,
    present: sp.csr_matrix,
    names: pd.Index[Any],
    columns: NDArray[np.intp],
    thresholds: tuple[float, float, float],
) -> str:
    """Describe the pairs that miss the thresholds by the smallest factor."""
    specific = np.argsort(profiles.relative[:, columns].min(axis=0), kind="stable")[:_NEAREST_GENES]
    pairs = _compared_pairs(profiles, present, names, columns[specific])
    min_detection, max_relative, max_lift = thresholds
    tiny = np.finfo(float).tiny
    excess = np.maximum.reduce([
        min_detection / np.maximum(pairs["detection"], tiny),
        pairs["relative"] / max(max_relative, tiny),
        pairs["lift"] / max(max_lift, tiny),
    ])  # fmt: skip
    if not len(excess):
        return f"none, as all genes are highest in one label, {profiles.labels[0]!r}" if len(columns) else "none"
    return "; ".join(
        f"{row.gene_a} ({row.label_a}) and {row.gene_b} ({row.label_b}) with relative expression {row.relative:.2g}, "
        f"lift {row.lift:.2g}, detection {row.detection:.2g}"
        for row in pairs.iloc[np.argsort(excess, kind="stable")[:_NEAREST]].itertuples()
    )
