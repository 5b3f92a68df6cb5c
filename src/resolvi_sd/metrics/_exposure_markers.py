"""Markers for the exposure audit: given, or chosen from the raw counts."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from resolvi_sd.metrics._exposure_sums import ExposureSums

__all__ = ["MarkerRules", "own_markers", "pair_markers"]

# Thresholds of cellAdmix-core: shares of a type's molecules (there per million), ratios and numbers of genes.
_SOURCE_SHARE = 50e-6
_BASELINE_FLOOR = 20e-6
_OWN_SHARE = 200e-6
_OWN_MARKERS = 10
# Ours: a type's molecules of a gene that other types express as much are not certain to be its own.
_OWN_RATIO = 2
_FEWEST_MARKERS = 3


class MarkerRules(NamedTuple):
    """Rules for choosing markers.

    Attributes
    ----------
    given
        Columns of the markers of each type; None if they are to be chosen.
    n_markers
        Maximum number of markers of a pair.
    min_cells
        Minimum number of exposed and of unexposed target cells of a pair.
    """

    given: dict[int, NDArray[np.int64]] | None
    n_markers: int
    min_cells: int


def own_markers(shares: NDArray[np.float64], own: int, rules: MarkerRules) -> NDArray[np.int64]:
    """Return the markers that identify a type's own molecules; empty if it has none.

    Parameters
    ----------
    shares
        Distribution of each type's molecules over the genes, types × genes; rows sum to 1.
    own
        The type.
    rules
        Rules for choosing them.
    """
    if rules.given is not None:
        return rules.given.get(own, np.empty(0, np.int64))
    candidates = np.flatnonzero((shares.argmax(axis=0) == own) & (shares[own] >= _OWN_SHARE))
    runner_up = np.delete(shares, own, axis=0)[:, candidates].max(axis=0)
    specific = shares[own, candidates] >= _OWN_RATIO * runner_up
    specificity = shares[own, candidates] / (shares[own, candidates] + runner_up)
    markers: NDArray[np.int64] = candidates[specific][np.argsort(-specificity[specific], kind="stable")][:_OWN_MARKERS]
    return markers


def pair_markers(shares: NDArray[np.float64], source: int, sums: ExposureSums, rules: MarkerRules) -> NDArray[np.int64]:
    """Return the markers of a source for one target; empty if there are too few cells or genes to compare.

    Parameters
    ----------
    shares
        Distribution of each type's molecules over the genes, types × genes; rows sum to 1.
    source
        The source type.
    sums
        The cells of the target type.
    rules
        Rules for choosing them.
    """
    none = np.empty(0, np.int64)
    cells, offset = sums.cells[source], sums.offset[source]
    if min(cells[0], cells[1:].sum()) < rules.min_cells or offset[0] == 0:
        return none
    if rules.given is not None:
        return rules.given.get(source, none)
    candidates = np.flatnonzero((shares.argmax(axis=0) == source) & (shares[source] >= _SOURCE_SHARE))
    if candidates.size < _FEWEST_MARKERS:
        return none
    baseline = sums.before[source, 0, candidates] / offset[0]
    contrast = shares[source, candidates] / np.maximum(baseline, _BASELINE_FLOOR)
    return candidates[np.lexsort((-shares[source, candidates], -contrast))][: rules.n_markers]
