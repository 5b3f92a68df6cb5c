"""Draws of the true expression of groups of cells, and their comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray
from tqdm.auto import tqdm

from resolvi_sd._analysis._groups import CellGroups, Comparison
from resolvi_sd._analysis._statistics import Mode, summarise_change
from resolvi_sd._model import ResolviModule, decode, encode
from resolvi_sd._types import CSR

__all__ = ["Detection", "compare_expression", "detection", "estimate_pseudocount", "sample_expression"]

# An expected number of molecules below this is more likely none than one.
_DETECTED = 0.5
# A gene detected in fewer cells than this in both groups says what the decoder gives to genes that are not expressed.
_HARDLY_DETECTED = 0.01
_FEWEST_GENES = 10
_QUANTILE = 0.9


def sample_expression(
    module: ResolviModule,
    counts: CSR,
    groups: CellGroups,
    wanted: Sequence[int],
    *,
    among: NDArray[np.bool_],
    batch: NDArray[np.int64],
    molecules: NDArray[np.float64],
    n_samples: int,
    batch_correction: bool,
    rng: np.random.Generator,
    show_progress_bar: bool,
) -> dict[int, NDArray[np.float32]]:
    """Draw from the population of each group: a random cell, its latent from the posterior, its expression rho.

    The decoder is a point estimate and knows a gene only as well as there are molecules of it. What a group says of a
    gene rests on `molecules` of its own, so each draw is multiplied by a Gamma variable of mean 1 and of as many
    events (plus one). Measured on simulated types, pair by pair, at an FDR of 5%: 8.0% of the calls were wrong with
    it, 9.6% without; most of these in genes with fewer than 30 molecules in both groups.

    Parameters
    ----------
    module
        The fitted model.
    counts
        Cells × genes.
    groups, wanted
        The groups, and the codes of those to draw from.
    among
        Cells that may be drawn.
    batch
        Batch of each cell.
    molecules
        Molecules of each gene in the cells of each group, groups × genes.
    n_samples
        Draws from each group.
    batch_correction
        Decode each draw in every batch and average, in place of the cell's own batch.
    rng
        Generator of the draws.
    show_progress_bar
        Whether to show progress bars.

    Returns
    -------
    By code of the group, `n_samples` × genes, float32. Only cells that were drawn are encoded.
    """
    drawn = np.stack([rng.choice(groups.members([code], among), size=n_samples) for code in wanted])
    used, place = np.unique(drawn, return_inverse=True)
    mean, spread = encode(module, counts[used], show_progress_bar=show_progress_bar)
    expression = {}
    for code, rows, cells in tqdm(
        zip(wanted, place.reshape(drawn.shape), drawn, strict=True),
        desc="Decoding groups",
        total=len(wanted),
        disable=not show_progress_bar,
    ):
        latent = mean[rows] + spread[rows] * rng.standard_normal((n_samples, mean.shape[1]), dtype=np.float32)
        expression[code] = _decode(module, latent, None if batch_correction else batch[cells])
        events = (molecules[code] + 1).astype(np.float32)
        expression[code] *= rng.standard_gamma(events, expression[code].shape, dtype=np.float32) / events
    return expression


def _decode(module: ResolviModule, latent: NDArray[np.float32], batch: NDArray[np.int64] | None) -> NDArray[np.float32]:
    """Decode in the given batches, or on average over all of them."""
    if batch is not None:
        return decode(module, latent, batch, slice(None))
    total: NDArray[np.float32] = np.zeros((len(latent), module.data.n_genes), np.float32)
    for code in range(module.data.n_batches):
        total += decode(module, latent, np.full(len(latent), code), slice(None))
    return total / np.float32(module.data.n_batches)


@dataclass(frozen=True)
class Detection:
    """Sums over the cells of each group, from which the means of any union of groups follow.

    Attributes
    ----------
    n_cells
        Cells of each group, `(n_groups,)`.
    total, detected
        Molecules, and cells with at least one, `(n_groups, n_genes)`.
    """

    n_cells: NDArray[np.int64]
    total: NDArray[np.float64]
    detected: NDArray[np.float64]

    def mean(self, codes: Sequence[int]) -> NDArray[np.float64]:
        """Molecules per cell in these groups together."""
        return np.asarray(self.total[list(codes)].sum(axis=0) / self.n_cells[list(codes)].sum())

    def fraction(self, codes: Sequence[int]) -> NDArray[np.float64]:
        """Fraction of the cells of these groups in which the gene is detected."""
        return np.asarray(self.detected[list(codes)].sum(axis=0) / self.n_cells[list(codes)].sum())


def detection(counts: CSR, groups: CellGroups, *, among: NDArray[np.bool_]) -> Detection:
    """Return the detection of each gene in each group; an expected count below 0.5 is not detected."""
    rows = groups.members(range(len(groups.names)), among)
    shape = (len(groups.names), len(groups.codes))
    indicator = sp.csr_matrix((np.ones(len(rows)), (groups.codes[rows], rows)), shape=shape)
    found = sp.csr_matrix(((counts.data >= _DETECTED).astype(np.float64), counts.indices, counts.indptr), counts.shape)
    return Detection(groups.sizes(among), (indicator @ counts).toarray(), (indicator @ found).toarray())


def estimate_pseudocount(
    first: NDArray[np.float32],
    second: NDArray[np.float32],
    fraction1: NDArray[np.float64],
    fraction2: NDArray[np.float64],
    *,
    depth: float,
) -> float:
    """Return what to add to expression, so that fold changes of genes that neither group expresses are near zero.

    The 0.9 quantile, over the genes that are detected in fewer than 1% of the cells of both groups, of their larger
    mean expression. With fewer than ten such genes: the expression at which a cell of median depth has a molecule
    in one of a hundred cases.

    Parameters
    ----------
    first, second
        Draws of the expression of the two groups, draws × genes.
    fraction1, fraction2
        Fraction of cells in which each gene is detected.
    depth
        Median number of molecules of a cell.
    """
    hardly = np.maximum(fraction1, fraction2) < _HARDLY_DETECTED
    if hardly.sum() < _FEWEST_GENES:
        return _HARDLY_DETECTED / depth
    mean = np.maximum(first[:, hardly].mean(axis=0), second[:, hardly].mean(axis=0))
    return float(np.quantile(mean, _QUANTILE))


def compare_expression(
    expression: Mapping[int, NDArray[np.float32]],
    comparison: Comparison,
    raw: Detection,
    corrected: Detection | None,
    *,
    mode: Mode,
    delta: float,
    fdr: float,
    pseudocount: float | None,
    depth: float,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """Compare two sides over random pairs of their draws.

    Parameters
    ----------
    expression
        Draws of each group, see :func:`sample_expression`.
    comparison
        The two sides.
    raw, corrected
        Detection in the counts and in the corrected counts.
    mode, delta, fdr
        See :func:`summarise_change`.
    pseudocount
        Added to the expression; None: :func:`estimate_pseudocount`.
    depth
        Median number of molecules of a cell.
    rng
        Generator of the pairs.

    Returns
    -------
    One row per gene.
    """
    one, other = [comparison.first], list(comparison.second)
    first = expression[comparison.first]
    second = _pool([expression[code] for code in other], raw.n_cells[other], rng=rng)
    judged = raw if corrected is None else corrected
    if pseudocount is None:
        pseudocount = estimate_pseudocount(first, second, judged.fraction(one), judged.fraction(other), depth=depth)
    small = np.float32(pseudocount)
    table = summarise_change(np.log2(first + small) - np.log2(second + small), mode=mode, delta=delta, fdr=fdr)
    for side, codes, draws in ((1, one, first), (2, other, second)):
        table[f"expression{side}"] = draws.mean(axis=0, dtype=np.float64)
        for name, counted in (("raw", raw), ("corrected", corrected)):
            if counted is not None:
                table[f"{name}_mean{side}"] = counted.mean(codes)
                table[f"{name}_fraction{side}"] = counted.fraction(codes)
        table[f"n_cells{side}"] = int(raw.n_cells[codes].sum())
    table["pseudocount"] = float(pseudocount)
    return table


def _pool(
    draws: list[NDArray[np.float32]], sizes: NDArray[np.int64], *, rng: np.random.Generator
) -> NDArray[np.float32]:
    """As many draws from the union of the groups, in random order: of each in proportion to its cells."""
    n_draws = len(draws[0])
    share = n_draws * sizes / sizes.sum()
    take = np.floor(share).astype(np.int64)
    left = n_draws - int(take.sum())
    if left:  # systematic sampling of what rounding down left over keeps the proportions exact on average
        edges = np.cumsum(share - take)
        points = (np.arange(left) + rng.random()) * (edges[-1] / left)
        take += np.bincount(np.searchsorted(edges, points, side="right").clip(max=len(sizes) - 1), minlength=len(sizes))
    rows = [rng.choice(n_draws, size=size, replace=False) for size in np.minimum(take, n_draws)]
    pooled = np.concatenate([draw[row] for draw, row in zip(draws, rows, strict=True)])
    return pooled[rng.permutation(n_draws)]
