"""Which molecules to keep, where some of the own ones may be lost with the foreign ones.

Of a count x, let o be own. A corrected count c loses max(o - c, 0) own molecules and leaves max(c - o, 0) foreign ones.
To keep a c-th molecule gains one of its own with the probability P(o >= c | counts), the tail, and leaves a foreign one
otherwise. So of all whole corrected counts that are expected to lose so many own molecules, those leave the fewest
foreign ones that keep what has a tail above one level for all entries (Neyman & Pearson 1933): the corrected count is a
quantile of the posterior of o. At a level of one half it is the median, which makes the expected absolute error least.
With a level of its own, each gene is expected to lose as large a share of its own molecules as any other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray

from resolvi_sd._csr import CSR, canonical, map_rows
from resolvi_sd._model.delaporte import EntryRates, KeptMolecules, molecules_above, tail_histogram
from resolvi_sd._model.module import ResolviModule
from resolvi_sd._model.molecules import entry_rates
from resolvi_sd._model.posterior import core_rates, entry_positions
from resolvi_sd._scratch import copy_beside, zeros_beside
from resolvi_sd._tiles import Tissue, cut_minibatch

__all__ = ["MEDIAN", "Decontamination", "RemovalCurve", "Removed", "molecules_to_keep", "removal_curves"]

MEDIAN = 0.5
# Levels between 0 and 1: a power of 2, so that molecules are counted at a level exactly as they were sorted by it.
_N_LEVELS = 1 << 14
# The same for each gene, of which there may be many thousands.
_N_GENE_LEVELS = 1 << 9


@dataclass(frozen=True)
class RemovalCurve:
    """What is expected to be removed, by level, of all molecules or of each gene.

    Parameters
    ----------
    level
        Levels from 0 to 1, evenly spaced; molecules with a tail below the level are removed, at 1 all.
    own, foreign
        Expected own and foreign molecules that are removed at each level: `(n_levels,)`, or genes × levels.
    """

    level: NDArray[np.float64]
    own: NDArray[np.float64]
    foreign: NDArray[np.float64]

    @classmethod
    def of(cls, own: NDArray[np.float64], molecules: NDArray[np.float64]) -> RemovalCurve:
        """Sum what a histogram of the tails has below each level."""
        removed_own, removed = (np.insert(np.cumsum(x, axis=-1), 0, 0.0, axis=-1) for x in (own, molecules))
        n_bins = own.shape[-1]
        return cls(np.arange(n_bins + 1) / n_bins, removed_own, removed - removed_own)

    def level_where(self, own_removed: float) -> NDArray[np.float64]:
        """Return the highest level at which no larger share of the own molecules is expected to be removed.

        One, or one for each gene.
        """
        allowed = self.own <= own_removed * self.own[..., -1:]
        return np.asarray(self.level[allowed.sum(axis=-1) - 1])

    def shares(self, level: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the expected shares of the own and of the foreign molecules that are removed at some levels.

        NaN where there are none.
        """
        at = np.searchsorted(self.level, level)
        with np.errstate(invalid="ignore"):
            own, foreign = (removed[..., at] / removed[..., -1:] for removed in (self.own, self.foreign))
        return own, foreign


@dataclass(frozen=True)
class Removed:
    """Molecules of cells, or of genes, and how many of them are expected to go.

    Parameters
    ----------
    own, foreign
        Expected own and foreign molecules.
    own_removed, foreign_removed
        How many of these are removed.
    """

    own: NDArray[np.float64]
    own_removed: NDArray[np.float64]
    foreign: NDArray[np.float64]
    foreign_removed: NDArray[np.float64]

    @classmethod
    def none(cls, size: int) -> Removed:
        """Return that of so many cells or genes of which nothing is known yet."""
        return cls(*np.zeros((4, size)))

    def add(
        self,
        value: NDArray[np.floating],
        kept: KeptMolecules,
        place: NDArray[np.integer],
        members: NDArray[np.integer] | slice = slice(None),
    ) -> None:
        """Count the molecules of some entries in; `place` is the cell or gene of each, among all or those `members`."""
        gone = value - kept.kept
        parts = (kept.own, kept.own_removed, value - kept.own, gone - kept.own_removed)
        for total, part in zip((self.own, self.own_removed, self.foreign, self.foreign_removed), parts, strict=True):
            total[members] += np.bincount(place, part, minlength=len(total[members]))

    def total(self) -> Removed:
        """Return that of all cells or genes together."""
        return Removed(*(part.sum() for part in (self.own, self.own_removed, self.foreign, self.foreign_removed)))

    def shares(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the shares of the own and of the foreign molecules that are removed; NaN where there are none."""
        with np.errstate(invalid="ignore"):
            return self.own_removed / self.own, self.foreign_removed / self.foreign

    def own_among_removed(self) -> NDArray[np.float64]:
        """Return the share of own molecules among those that are removed; NaN where none are."""
        with np.errstate(invalid="ignore"):
            return self.own_removed / (self.own_removed + self.foreign_removed)


@dataclass(frozen=True)
class Decontamination:
    """The molecules that are kept, and which cells and genes pay for it.

    Parameters
    ----------
    counts
        Molecules that are kept, cells × genes, CSR int32 without zeros; in files if the counts are.
    cells, genes
        What is removed of each.
    """

    counts: CSR
    cells: Removed
    genes: Removed


def removal_curves(
    module: ResolviModule, tissue: Tissue, cores: Iterable[NDArray[np.int64]], *, per_gene: bool
) -> tuple[RemovalCurve, RemovalCurve | None]:
    """Sort all molecules by their tails, given latent and shares at their means.

    Parameters
    ----------
    module
        Fitted model.
    tissue
        All cells.
    cores
        A partition of the cells; cells near each other in one part save work.
    per_gene
        Whether to do so for each gene, too.

    Returns
    -------
    The curve of all molecules, and those of the genes, if asked for.
    """
    indptr, genes = tissue.counts.indptr, tissue.counts.indices
    of_all = np.zeros((2, 1, _N_LEVELS))
    of_genes = np.zeros((2, tissue.n_genes if per_gene else 0, _N_GENE_LEVELS))
    for core, entries in _entries_of(module, tissue, cores):
        of_all += tail_histogram(entries, _N_LEVELS)
        if per_gene:
            of_genes += tail_histogram(entries, _N_GENE_LEVELS, genes[entry_positions(indptr, core)], tissue.n_genes)
    return RemovalCurve.of(*of_all[:, 0]), RemovalCurve.of(*of_genes) if per_gene else None


def molecules_to_keep(
    module: ResolviModule, tissue: Tissue, cores: Iterable[NDArray[np.int64]], level: NDArray[np.float64] | float
) -> Decontamination:
    """Keep the molecules with a tail of at least `level`, one for all genes or one for each.

    The other arguments are those of :func:`removal_curves`.
    """
    counts = tissue.counts
    kept = zeros_beside(counts.data, np.int32)
    cells, genes = Removed.none(tissue.n_cells), Removed.none(tissue.n_genes)
    levels = np.broadcast_to(np.float64(level), tissue.n_genes)
    for core, entries in _entries_of(module, tissue, cores):
        stored = entry_positions(counts.indptr, core)
        gene = counts.indices[stored]
        found = molecules_above(entries, levels[gene])
        kept[stored] = found.kept
        place = np.repeat(np.arange(len(core)), counts.indptr[core + 1] - counts.indptr[core])
        cells.add(entries.value, found, place, core)
        genes.add(entries.value, found, gene)
    structure = copy_beside(counts.indices), counts.indptr.copy()
    return Decontamination(map_rows(sp.csr_matrix((kept, *structure), counts.shape), canonical), cells, genes)


@torch.no_grad()
def _entries_of(
    module: ResolviModule, tissue: Tissue, cores: Iterable[NDArray[np.int64]]
) -> Iterator[tuple[NDArray[np.int64], EntryRates]]:
    """Yield each core with the rates of its stored counts."""
    module.eval()
    for core in cores:
        minibatch = cut_minibatch(tissue, core)
        mean, _ = module.latent_encoder(minibatch.features, minibatch.categories)
        beta, shares = module.neighbor_weights(minibatch, module.leakage_range()), module.shares(minibatch)
        rates, _ = core_rates(module, minibatch, mean, shares, beta)
        yield core, entry_rates(module, minibatch, rates)
