"""Comparisons of the expression of groups of cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from resolvi_sd._analysis._group_expression import GroupTotals, draw_expression
from resolvi_sd._analysis._groups import Comparison
from resolvi_sd._analysis._shrinkage import shrunk_probability
from resolvi_sd._analysis._statistics import DecisionRule, add_calls, describe_change
from resolvi_sd._csr import CSR, group_sums
from resolvi_sd._tables import Groups

__all__ = ["Detection", "compare_expression", "detection", "estimate_pseudocount"]

# An expected number of molecules below this is more likely none than one.
_DETECTED = 0.5
# Genes detected in a smaller fraction of cells than this in both groups show the level of genes that are not expressed.
_HARDLY_DETECTED = 0.01
_FEWEST_GENES = 10
# If there are fewer such genes, their level is taken to be this, in molecules per cell.
_FEW_MOLECULES = 0.01
_QUANTILE = 0.9
# Size of the draws held at a time, in bytes.
_HELD = 1 << 28


@dataclass(frozen=True)
class Detection:
    """Sums over the cells of each group, from which the means of any union of groups are computed.

    Attributes
    ----------
    n_cells
        Number of cells of each group, `(n_groups,)`.
    total, detected
        Number of molecules, and of cells in which the gene is detected, `(n_groups, n_genes)`.
    """

    n_cells: NDArray[np.int64]
    total: NDArray[np.float64]
    detected: NDArray[np.float64]

    def mean(self, codes: Sequence[int]) -> NDArray[np.float64]:
        """Return the molecules per cell in these groups together."""
        return np.asarray(self.total[list(codes)].sum(axis=0) / self.n_cells[list(codes)].sum())

    def fraction(self, codes: Sequence[int]) -> NDArray[np.float64]:
        """Return the fraction of the cells of these groups in which each gene is detected."""
        return np.asarray(self.detected[list(codes)].sum(axis=0) / self.n_cells[list(codes)].sum())


def detection(counts: CSR, groups: Groups, *, genes: NDArray[np.intp], among: NDArray[np.bool_]) -> Detection:
    """Return the detection of some genes in each group; an expected count below 0.5 is not detected."""
    codes, n_groups = np.where(among, groups.codes, -1), len(groups.names)
    detected = group_sums(counts, codes, n_groups, of=lambda values: (values >= _DETECTED).astype(np.float64))
    return Detection(groups.sizes(among), group_sums(counts, codes, n_groups)[:, genes], detected[:, genes])


def estimate_pseudocount(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    fraction1: NDArray[np.float64],
    fraction2: NDArray[np.float64],
    *,
    depth: float,
) -> float:
    """Return the pseudocount with which fold changes of genes that neither group expresses are near zero.

    This is the 0.9 quantile, over the genes that are detected in fewer than 1% of the cells of both groups, of their
    larger mean expression. With fewer than ten such genes, it is the expression at which a cell of median depth has
    0.01 molecules.

    Parameters
    ----------
    first, second
        Mean expression of the two groups, one value per gene.
    fraction1, fraction2
        Fraction of cells in which each gene is detected.
    depth
        Median number of molecules of a cell.
    """
    hardly = np.maximum(fraction1, fraction2) < _HARDLY_DETECTED
    if hardly.sum() < _FEWEST_GENES:
        return _FEW_MOLECULES / depth
    return float(np.quantile(np.maximum(first[hardly], second[hardly]), _QUANTILE))


def compare_expression(
    totals: GroupTotals,
    comparisons: Sequence[Comparison],
    raw: Detection,
    corrected: Detection,
    rule: DecisionRule,
    *,
    pseudocount: float | None,
    depths: Sequence[float],
    n_samples: int,
    rng: np.random.Generator,
) -> list[pd.DataFrame]:
    """Compare the mean expression of groups over draws from its posterior.

    Several groups together are one group of all their cells, however they are divided: sums over their cells have one
    posterior. Genes are drawn block by block, each side once for all comparisons in which it takes part.

    Parameters
    ----------
    totals
        Sums over the cells of each group.
    comparisons
        The comparisons.
    raw, corrected
        Detection in the counts and in the corrected counts.
    rule
        When a gene is called.
    pseudocount
        Added to the expression; None uses :func:`estimate_pseudocount`.
    depths
        Median number of molecules of the cells of each comparison.
    n_samples
        Draws of each side.
    rng
        Generator.

    Returns
    -------
    For each comparison, a table with one row per gene.
    """
    sides = sorted({codes for comparison in comparisons for codes in comparison.sides})
    rows = [[sides.index(codes) for codes in comparison.sides] for comparison in comparisons]
    pooled = totals.pooled(sides)
    expression = pooled.mean_expression()
    added = [
        pseudocount or _pseudocount(expression[pair], comparison, corrected, depth)
        for comparison, pair, depth in zip(comparisons, rows, depths, strict=True)
    ]
    parts: list[list[pd.DataFrame]] = [[] for _ in comparisons]
    n_genes = totals.own.shape[1]
    width = max(1, _HELD // (4 * n_samples * len(sides)))
    for start in range(0, n_genes, width):
        draws = draw_expression(pooled, slice(start, start + width), n_samples=n_samples, rng=rng)
        for part, pair, small in zip(parts, rows, added, strict=True):
            means = [draws[:, row] for row in pair]
            first, second = (np.log2(mean + np.float32(small)) for mean in means)
            table = describe_change(first - second, rule)
            for side, mean in enumerate(means, start=1):
                table[f"expression{side}"] = mean.mean(axis=0, dtype=np.float64)
            part.append(table)
    tables = []
    for part, comparison, small in zip(parts, comparisons, added, strict=True):
        table = pd.concat(part, ignore_index=True)
        change, error = (table[name].to_numpy().astype(np.float64) for name in ("lfc_mean", "lfc_std"))
        shrunk = shrunk_probability(change, error, rule)
        table = add_calls(table, rule, probability=shrunk)
        tables.append(_with_detection(table, comparison, raw, corrected).assign(pseudocount=float(small)))
    return tables


def _pseudocount(expression: NDArray[np.float64], comparison: Comparison, judged: Detection, depth: float) -> float:
    """Estimate the pseudocount from the mean expression of the two sides, 2 × genes."""
    first, second = expression
    return estimate_pseudocount(first, second, *(judged.fraction(codes) for codes in comparison.sides), depth=depth)


def _with_detection(table: pd.DataFrame, comparison: Comparison, raw: Detection, corrected: Detection) -> pd.DataFrame:
    for side, codes in enumerate(comparison.sides, start=1):
        for name, counted in (("raw", raw), ("corrected", corrected)):
            table[f"{name}_mean{side}"] = counted.mean(codes)
            table[f"{name}_fraction{side}"] = counted.fraction(codes)
        table[f"n_cells{side}"] = int(raw.n_cells[list(codes)].sum())
    return table
