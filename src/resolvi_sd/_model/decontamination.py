"""Choice of the molecules to keep when some own molecules may be lost with the foreign ones.

Let o be the number of own molecules in a count x. A corrected count c loses max(o - c, 0) own molecules and leaves
max(c - o, 0) foreign ones. Keeping a c-th molecule saves an own molecule with the probability P(o >= c | counts),
called the tail, and leaves a foreign one otherwise. Therefore, among all integer corrected counts with the same
expected loss of own molecules, the fewest foreign molecules remain if one keeps the molecules whose tail exceeds a
level that is the same for all entries (Neyman & Pearson 1933): the corrected count is a quantile of the posterior of o.
At a level of one half, it is the median, which minimizes the expected absolute error. If each gene has a level of its
own, the expected share of own molecules that are lost is the same for all genes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray

from resolvi_sd._csr import CSR, canonical, entry_positions, map_rows
from resolvi_sd._model.delaporte import EntryRates, own_tails
from resolvi_sd._model.module import ResolviModule
from resolvi_sd._model.molecules import entry_rates
from resolvi_sd._model.posterior import core_rates
from resolvi_sd._scratch import copy_beside, zeros_beside
from resolvi_sd._tiles import Tissue, cut_minibatch

__all__ = [
    "MEDIAN",
    "KeptCounts",
    "RemovalCurve",
    "Removed",
    "highest_level",
    "keep_above",
    "molecules_to_keep",
    "removal_curves",
]

MEDIAN = 0.5
# Number of levels between 0 and 1: a power of 2, so that molecules are counted at a level exactly as they were sorted.
_N_LEVELS = 1 << 14
# Number of levels for each gene; there may be many thousands of genes.
_N_GENE_LEVELS = 1 << 9


@dataclass(frozen=True)
class RemovalCurve:
    """Molecules that are expected to be removed, by level.

    Attributes
    ----------
    level
        Levels from 0 to 1, evenly spaced; molecules with a tail below the level are removed, and all of them at 1.
    own, foreign
        Expected own and foreign molecules that are removed at each level.
    """

    level: NDArray[np.float64]
    own: NDArray[np.float64]
    foreign: NDArray[np.float64]

    def shares(self, level: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the expected shares of the own and of the foreign molecules that are removed at the given levels.

        The shares are NaN if there are no such molecules.
        """
        at = np.searchsorted(self.level, level)
        with np.errstate(invalid="ignore"):
            return self.own[at] / self.own[-1], self.foreign[at] / self.foreign[-1]


def highest_level(own: NDArray[np.float64], own_removed: float) -> NDArray[np.float64]:
    """Return the highest level at which no larger share of the own molecules is expected to be removed.

    Parameters
    ----------
    own
        Expected own molecules that are removed at evenly spaced levels from 0 to 1: `(n_levels,)`, or genes × levels.
    own_removed
        Largest share of the own molecules to remove.

    Returns
    -------
    One level, or one for each gene, which is NaN for genes without molecules.
    """
    total = own[..., -1:]
    level = ((own <= own_removed * total).sum(axis=-1) - 1) / (own.shape[-1] - 1)
    return np.where(total[..., 0] > 0, level, np.nan)


class KeptMolecules(NamedTuple):
    """Molecules of some counts that are kept, and the expected loss, one value per entry.

    Attributes
    ----------
    kept
        Molecules that are kept, int32.
    own
        Expected own molecules of the count.
    own_removed
        Number of these that are expected to be removed.
    """

    kept: NDArray[np.int32]
    own: NDArray[np.float64]
    own_removed: NDArray[np.float64]


def keep_above(entries: EntryRates, level: NDArray[np.float64] | float) -> KeptMolecules:
    """Keep the molecules of each entry whose tail is at least `level`, which is common to all or given per entry."""
    tail, start = own_tails(entries)
    goes = tail < np.repeat(np.broadcast_to(np.float64(level), len(entries.value)), np.diff(start))
    gone = np.add.reduceat(goes, start[:-1], dtype=np.int32)
    own, own_removed = (np.add.reduceat(x, start[:-1]) for x in (tail, tail * goes))
    return KeptMolecules(entries.value.astype(np.int32) - gone, own, own_removed)


@dataclass(frozen=True)
class Removed:
    """Molecules of the genes, and how many of them are expected to be removed.

    Attributes
    ----------
    own, own_removed
        Expected own molecules, and how many of these are expected to be removed.
    foreign, foreign_removed
        The same of foreign molecules.
    """

    own: NDArray[np.float64]
    own_removed: NDArray[np.float64]
    foreign: NDArray[np.float64]
    foreign_removed: NDArray[np.float64]

    def total(self) -> Removed:
        """Return the totals over all genes."""
        return Removed(*(part.sum() for part in (self.own, self.own_removed, self.foreign, self.foreign_removed)))

    def shares(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the shares of the own and of the foreign molecules that are removed, NaN if there are none."""
        with np.errstate(invalid="ignore"):
            return self.own_removed / self.own, self.foreign_removed / self.foreign

    def own_among_removed(self) -> NDArray[np.float64]:
        """Return the share of own molecules among those that are removed, NaN if none are."""
        with np.errstate(invalid="ignore"):
            return self.own_removed / (self.own_removed + self.foreign_removed)


@dataclass(frozen=True)
class KeptCounts:
    """Molecules that are kept, and the expected loss of each cell and gene.

    Attributes
    ----------
    counts
        Molecules that are kept, cells × genes, CSR int32 without zeros; in files if the counts are.
    own_removed_by_cell
        Share of the own molecules of each cell that is expected to be removed, float32; NaN for cells without
        molecules.
    genes
        Molecules of each gene, and how many of them are removed.
    """

    counts: CSR
    own_removed_by_cell: NDArray[np.float32]
    genes: Removed


def removal_curves(
    module: ResolviModule, tissue: Tissue, cores: Iterable[NDArray[np.int64]], *, per_gene: bool
) -> tuple[RemovalCurve, NDArray[np.float64] | None]:
    """Sort all molecules by their tails, with the latent and the shares at their means.

    Parameters
    ----------
    module
        Fitted model.
    tissue
        All cells.
    cores
        A partition of the cells; parts of cells that are near each other save work.
    per_gene
        Whether to also sort the own molecules of each gene.

    Returns
    -------
    The curve of all molecules; and, with `per_gene`, the own molecules of each gene that are removed at each of several
    levels, genes × levels.
    """
    own, molecules = np.zeros((2, _N_LEVELS))
    of_genes = np.zeros((tissue.n_genes if per_gene else 0, _N_GENE_LEVELS))
    counts = tissue.counts
    for core, entries in _entries_of(module, tissue, cores):
        tail, start = own_tails(entries)
        below = _bins(tail, _N_LEVELS)
        own += np.bincount(below, tail, minlength=_N_LEVELS)
        molecules += np.bincount(below, minlength=_N_LEVELS)
        if per_gene:
            gene = np.repeat(counts.indices[entry_positions(counts.indptr, core)], np.diff(start))
            flat = gene.astype(np.int64) * _N_GENE_LEVELS + _bins(tail, _N_GENE_LEVELS)
            np.add.at(of_genes.reshape(-1), flat, tail)
    removed_own, removed = _up_to(own), _up_to(molecules)
    level = np.arange(_N_LEVELS + 1) / _N_LEVELS
    return RemovalCurve(level, removed_own, removed - removed_own), _up_to(of_genes) if per_gene else None


def _bins(tail: NDArray[np.float64], n_bins: int) -> NDArray[np.int64]:
    """Return the bin of each tail, out of `n_bins` bins between 0 and 1; the last bin includes both of its ends."""
    return np.minimum((tail * n_bins).astype(np.int64), n_bins - 1)


def _up_to(histogram: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sum of the bins below each bound."""
    summed = np.zeros((*histogram.shape[:-1], histogram.shape[-1] + 1))
    np.cumsum(histogram, axis=-1, out=summed[..., 1:])
    return summed


def molecules_to_keep(
    module: ResolviModule, tissue: Tissue, cores: Iterable[NDArray[np.int64]], level: NDArray[np.float64] | float
) -> KeptCounts:
    """Keep the molecules whose tail is at least `level`, which is common to all genes or given per gene.

    The other arguments are those of :func:`removal_curves`.
    """
    counts, n_genes = tissue.counts, tissue.n_genes
    kept = zeros_beside(counts.data, np.int32)
    own_removed = np.full(tissue.n_cells, np.nan, np.float32)
    genes = Removed(*np.zeros((4, n_genes)))
    levels = np.broadcast_to(np.float64(level), n_genes)
    for core, entries in _entries_of(module, tissue, cores):
        stored = entry_positions(counts.indptr, core)
        gene = counts.indices[stored]
        found = keep_above(entries, levels[gene])
        kept[stored] = found.kept
        cell = np.repeat(np.arange(len(core)), counts.indptr[core + 1] - counts.indptr[core])
        removed, own = (np.bincount(cell, part, minlength=len(core)) for part in (found.own_removed, found.own))
        with np.errstate(invalid="ignore"):
            own_removed[core] = removed / own
        foreign, foreign_removed = entries.value - found.own, entries.value - found.kept - found.own_removed
        totals = (genes.own, genes.own_removed, genes.foreign, genes.foreign_removed)
        for total, part in zip(totals, (found.own, found.own_removed, foreign, foreign_removed), strict=True):
            total += np.bincount(gene, part, minlength=n_genes)
    structure = copy_beside(counts.indices), counts.indptr.copy()
    layer = map_rows(sp.csr_matrix((kept, *structure), counts.shape), canonical)
    return KeptCounts(layer, own_removed, genes)


@torch.no_grad()
def _entries_of(
    module: ResolviModule, tissue: Tissue, cores: Iterable[NDArray[np.int64]]
) -> Iterator[tuple[NDArray[np.int64], EntryRates]]:
    """Yield each core with the rates of its stored counts."""
    module.eval()
    for core in cores:
        minibatch = cut_minibatch(tissue, core)
        mean, _ = module.encode_all(minibatch)
        beta, shares = module.neighbor_weights(minibatch), module.shares(minibatch)
        rates, _ = core_rates(module, minibatch, mean, shares, beta)
        yield core, entry_rates(module, minibatch, rates)
