"""Leakage of a type's markers as a function of the number of its cells nearby, before and after a correction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from resolvi_sd._csr import group_sums
from resolvi_sd._ratio import ratio
from resolvi_sd._validation import check_integer, check_positive_int
from resolvi_sd.metrics._arrays import (
    check_part,
    gene_index,
    label_codes,
    marker_positions,
    neighbor_counts,
    neighbor_matrix,
)
from resolvi_sd.metrics._exposure_markers import MarkerRules, own_markers, pair_markers
from resolvi_sd.metrics._exposure_sums import ExposureSums, excess, exposure_sums
from resolvi_sd.metrics._layers import counts_and_corrected

__all__ = ["ExposureAudit", "exposure_audit"]

# Thresholds of cellAdmix-core.
_STRICT_RATIO = 0.05
_Q_VALUE = 0.01

_PAIR_COLUMNS = [
    "source", "target", "n_unexposed", "n_exposed", "n_markers", "n_strict", "excess", "excess_corrected",
    "sensitivity", "sensitivity_strict", "unexposed_removed", "admixture_rate", "q_value", "detected",
]  # fmt: skip
_PROFILE_COLUMNS = [
    "source", "target", "exposure", "n_cells", "molecules", "marker_molecules", "marker_molecules_corrected",
    "excess", "excess_corrected", "sensitivity", "removed",
]  # fmt: skip
_OWN = ("molecules", "removed", "molecules_unexposed", "removed_unexposed")
_OWN_COLUMNS = ["cell_type", "n_markers", *_OWN]


class ExposureAudit(NamedTuple):
    """Leakage that a correction removed, and genuine molecules that it removed falsely.

    Attributes
    ----------
    sensitivity
        Share of the leaked marker molecules that was removed, over all detected pairs; NaN if none is detected.
    own_removed
        Share of the molecules of the types' own markers, in cells of these types, that was removed: the false removal.
    own_removed_unexposed
        The same in cells without a neighbor of their own type, whose marker molecules cannot have come from such a
        neighbor; NaN if there are no such cells.
    pairs
        One row per source and target: numbers of cells `n_unexposed` and `n_exposed`; number of markers `n_markers`, of
        which `n_strict` are nearly absent from unexposed target cells; leaked marker molecules `excess` and
        `excess_corrected`; `sensitivity` of all markers and `sensitivity_strict`; `unexposed_removed`, the share of the
        marker molecules in unexposed cells that was removed (native expression, background, or leakage that reaches
        even these cells); `admixture_rate`, the estimated share of the target's molecules (of all genes) that leaked
        from the source; `q_value` and `detected`.
    profile
        One row per source, target and `exposure` (number of source neighbors; the last value means "or more"):
        `n_cells`, `molecules` (raw, all genes), the marker molecules and their excess before and after the correction,
        `sensitivity`, and `removed`, the share of the marker molecules that was removed. Rows with the same source and
        target are those of own markers, which have no excess.
    own_markers
        One row per type with own markers: their number, their `molecules` in cells of this type, and the share
        `removed`; the last two also for cells without a neighbor of their own type.
    """

    sensitivity: float
    own_removed: float
    own_removed_unexposed: float
    pairs: pd.DataFrame
    profile: pd.DataFrame
    own_markers: pd.DataFrame


def exposure_audit(
    counts: Any,
    corrected: Any,
    labels: Any,
    graph: Any,
    gene_names: Sequence[str] | pd.Index[Any],
    *,
    markers: Mapping[str, Sequence[str]] | None = None,
    max_exposure: int = 3,
    n_markers: int = 20,
    min_cells: int = 50,
    min_excess: float = 50,
) -> ExposureAudit:
    r"""Estimate leakage by the number of source neighbors, how much of it a correction removes, and its false removal.

    A cell is contaminated by the cells that it borders. For a source type S and a target type T, the cells of T are
    binned by their exposure b, the number of S cells among their neighbors. With :math:`m_b` molecules of S's markers
    and :math:`M_b` molecules of all genes in the cells of a bin, the leaked marker molecules are

    .. math:: L = \sum_{b>0} \max(m_b / M_b - m_0 / M_0, 0) M_b,

    since unexposed cells (b = 0) show what T itself expresses. A correction is judged by
    :math:`\mathrm{sensitivity} = 1 - L_\mathrm{corrected} / L`, with :math:`M_b` of the raw counts in both terms.
    Deleting the markers altogether would give a sensitivity of 1, so it is never reported without the false removal:
    the share of the molecules of a type's own markers, in cells of this type, that was removed. These molecules are
    almost surely genuine. Some may still have leaked from neighbors of the same type, but not in cells without such
    neighbors.

    A pair is detected if the rate of marker molecules is higher in exposed than in unexposed cells (one-sided exact
    test of two Poisson rates: given their sum, the number in exposed cells is binomial, with the share of exposed cells
    in :math:`\sum_b M_b` as its probability; Benjamini-Hochberg, q < 0.01) and L is at least `min_excess`. If leakage
    samples the source's transcripts, of which the markers are a share s, then :math:`L / (s \sum_b M_b)` of the
    target's molecules leaked from S. The true share is somewhat smaller, as contamination of the source's cells lowers
    s. Expression of the target that varies between regions along with the number of source cells looks like leakage;
    strict markers are hardly affected by this.

    Parameters
    ----------
    counts
        Raw counts, cells × genes, integers, sparse or dense.
    corrected
        Corrected counts of the same cells and genes; for comparison, depth-matched raw counts.
    labels
        Type of each cell, fixed before the correction; missing values are allowed.
    graph
        Connectivities or distances, cells × cells, sparse; stored entries are neighbors.
    gene_names
        Names of the columns.
    markers
        Markers of each type, by name. If None, they are chosen from the raw counts as in cellAdmix-core: for a pair,
        the genes that S expresses more than any other type, starting with the highest ratio to unexposed cells of T;
        as own markers, the 10 most specific of the genes that no other type expresses more than half as much.
    max_exposure
        The bins are 0, 1, ..., and this number or more.
    n_markers
        Maximum number of markers of a pair if they are chosen.
    min_cells
        Minimum number of exposed and of unexposed target cells of a pair.
    min_excess
        Minimum number of leaked marker molecules of a detected pair.

    Returns
    -------
    ExposureAudit. Pairs with too few cells, or with fewer than 3 markers to choose from, have no rows.

    Raises
    ------
    KeyError
        If `markers` names labels or genes that do not exist.
    TypeError, ValueError
        If there are fewer than two labels, shapes do not match, `counts` are not integers, or `corrected` holds dense
        rates or exceeds the counts.

    References
    ----------
    The admixture audit of cellAdmix-core (github.com/kharchenkolab/cellAdmix-core, docs/benchmarks.md: "The neighbor
    benchmark"), without its screen for induced genes and its distant reference; after Mitchel et al. 2025, doi
    10.1101/2025.01.02.631135. Our additions are the exact test (cellAdmix-core treats the unexposed rate as known), the
    requirement that own markers be at least twice as high as in other types, and the false removal in cells without
    neighbors of their own type.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> from resolvi_sd.metrics import exposure_audit
    >>> counts = np.array([[100, 0], [100, 0], [40, 60], [0, 100]])  # cells A, A, B next to an A, B
    >>> corrected = np.array([[90, 0], [90, 0], [10, 60], [0, 100]])
    >>> graph = sp.csr_matrix(([1, 1, 1, 1, 1], ([0, 1, 2, 2, 3], [1, 0, 1, 3, 2])), shape=(4, 4))
    >>> markers = {"A": ["a"], "B": ["b"]}
    >>> audit = exposure_audit(counts, corrected, ["A", "A", "B", "B"], graph, gene_names=["a", "b"], markers=markers,
    ...                        min_cells=1, min_excess=1)
    >>> audit.sensitivity, round(audit.own_removed, 4)  # 30 of 40 leaked ones removed, 20 of 360 own ones
    (0.75, 0.0556)
    """
    raw, kept = counts_and_corrected(counts, corrected)
    check_part(kept, raw, argument="corrected")
    codes, names = label_codes(labels, raw.shape[0], argument="labels")
    index = gene_index(gene_names, raw.shape[1], argument="gene_names")
    neighbors = neighbor_matrix(graph, raw.shape[0])
    given = None if markers is None else marker_positions(markers, index, names)
    top = check_positive_int(max_exposure, argument="max_exposure")
    check_positive_int(n_markers, argument="n_markers")
    check_integer(min_cells, 0, argument="min_cells")
    rules = MarkerRules(given, n_markers, min_cells)
    bins = np.minimum(neighbor_counts(neighbors, codes, len(names)), top)
    targets = (np.flatnonzero(codes == code) for code in range(len(names)))
    # One target at a time, since sources × bins × genes is large for many types and a large panel.
    sums = (exposure_sums(raw, kept, bins, rows, top + 1) for rows in targets)
    return _audit(sums, group_sums(raw, codes, len(names)), names, rules, min_excess)


def _audit(
    sums: Iterator[ExposureSums], totals: NDArray[np.float64], names: list[str], rules: MarkerRules, min_excess: float
) -> ExposureAudit:
    shares = totals / np.maximum(totals.sum(axis=1, keepdims=True), 1)
    pairs, profiles, own = [], [], []
    for target, of_target in enumerate(sums):
        for source, name in enumerate(names):
            is_own = source == target
            chosen = own_markers(shares, source, rules) if is_own else pair_markers(shares, source, of_target, rules)
            if chosen.size == 0:
                continue
            profile = _profile(of_target, source, chosen, own=is_own)
            profiles.append(profile.assign(source=name, target=names[target])[_PROFILE_COLUMNS])
            if is_own:
                own.append({"cell_type": name, "n_markers": chosen.size, **_own_row(profile)})
            else:
                row = _pair_row(of_target, source, chosen, profile, shares[source])
                pairs.append({"source": name, "target": names[target], **row})
    tested = _detected(pd.DataFrame(pairs), min_excess)
    profile = pd.concat(profiles, ignore_index=True) if profiles else pd.DataFrame(columns=_PROFILE_COLUMNS)
    return _summary(tested, profile, pd.DataFrame(own, columns=_OWN_COLUMNS))


def _summary(pairs: pd.DataFrame, profile: pd.DataFrame, own: pd.DataFrame) -> ExposureAudit:
    found = pairs[pairs["detected"]]
    removed, removed_unexposed = (
        _ratio((own[share] * own[whole]).sum(), own[whole].sum()) for whole, share in (_OWN[:2], _OWN[2:])
    )
    return ExposureAudit(
        sensitivity=1 - _ratio(found["excess_corrected"].sum(), found["excess"].sum()),
        own_removed=removed,
        own_removed_unexposed=removed_unexposed,
        pairs=pairs,
        profile=profile,
        own_markers=own,
    )


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole > 0 else float("nan")


def _profile(sums: ExposureSums, source: int, markers: NDArray[np.int64], *, own: bool) -> pd.DataFrame:
    before, after = (m[source][:, markers].sum(axis=1) for m in (sums.before, sums.after))
    offset = sums.offset[source]
    nothing = np.full(len(offset), np.nan)
    above, above_after = (nothing, nothing) if own else (excess(before, offset), excess(after, offset))
    return pd.DataFrame(
        {
            "exposure": np.arange(len(offset)),
            "n_cells": sums.cells[source],
            "molecules": offset,
            "marker_molecules": before,
            "marker_molecules_corrected": after,
            "excess": above,
            "excess_corrected": above_after,
            "sensitivity": 1 - ratio(above_after, above),
            "removed": 1 - ratio(after, before),
        }
    )


def _own_row(profile: pd.DataFrame) -> dict[str, float]:
    before, after = profile["marker_molecules"], profile["marker_molecules_corrected"]
    whole = float(before.sum())
    values = (whole, 1 - _ratio(after.sum(), whole), before[0], profile["removed"][0])
    return dict(zip(_OWN, values, strict=True))


def _pair_row(
    sums: ExposureSums, source: int, markers: NDArray[np.int64], profile: pd.DataFrame, share: NDArray[np.float64]
) -> dict[str, float]:
    leaked, left = profile["excess"].sum(), profile["excess_corrected"].sum()
    offset = sums.offset[source]
    strict = markers[sums.before[source, 0, markers] / offset[0] < _STRICT_RATIO * share[markers]]
    strict_before, strict_after = (
        excess(m[source][:, strict].sum(axis=1), offset).sum() for m in (sums.before, sums.after)
    )
    unexposed, exposed = profile["marker_molecules"][0], profile["marker_molecules"][1:].sum()
    return {
        "n_unexposed": profile["n_cells"][0],
        "n_exposed": profile["n_cells"][1:].sum(),
        "n_markers": markers.size,
        "n_strict": strict.size,
        "excess": leaked,
        "excess_corrected": left,
        "sensitivity": 1 - _ratio(left, leaked),
        "sensitivity_strict": 1 - _ratio(strict_after, strict_before),
        "unexposed_removed": profile["removed"][0],
        "admixture_rate": _ratio(leaked, share[markers].sum() * offset.sum()),
        "p_value": stats.binom.sf(exposed - 1, exposed + unexposed, offset[1:].sum() / offset.sum()),
    }


def _detected(pairs: pd.DataFrame, min_excess: float) -> pd.DataFrame:
    if pairs.empty:
        return pairs.reindex(columns=_PAIR_COLUMNS).astype({"detected": bool})
    q_value = stats.false_discovery_control(pairs["p_value"])
    detected = (q_value < _Q_VALUE) & (pairs["excess"] >= min_excess)
    return pairs.assign(q_value=q_value, detected=detected)[_PAIR_COLUMNS]
