"""Whole corrected counts at a chosen cost in own molecules, and what other costs would give."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm.auto import tqdm

from resolvi_sd._csr import CSR
from resolvi_sd._graphs import NeighborGraph
from resolvi_sd._logging import logger
from resolvi_sd._model import MEDIAN, Removed, ResolviModule, highest_level, molecules_to_keep, removal_curves
from resolvi_sd._tiles import Tissue
from resolvi_sd._validation import shortened, warn_user

__all__ = ["MIN_OWN", "Decontaminated", "check_fpr", "decontaminate"]

_CELLS = 2048
# Share of own molecules among those removed above which `fpr` asks for too much, and of a gene's own ones, likewise.
_MOST = 0.5
# Expected own molecules without which a gene's share of removed ones says little.
MIN_OWN = 50
# Levels of the table, both ends with it.
_N_LEVELS = 129


@dataclass(frozen=True)
class Decontaminated:
    """Whole corrected counts, and what they cost.

    Parameters
    ----------
    counts
        Molecules that are kept, cells × genes, CSR int32; in files if the counts are.
    own_removed_by_cell
        Expected share of the own molecules of each cell that are removed, float32; NaN for cells without molecules.
    genes
        By `gene`: its `level`, expected molecules, `own` and `foreign`, and the shares of these that are removed,
        `own_removed` and `foreign_removed`; NaN where there are none.
    level
        Those are kept that are own with at least this probability; None if each gene has its own.
    own_removed, foreign_removed
        Expected shares of the own and of the foreign molecules that are removed.
    own_among_removed
        Expected share of own molecules among those that are removed; NaN if none are.
    curve
        These two shares, by level.
    """

    counts: CSR
    own_removed_by_cell: NDArray[np.float32]
    genes: pd.DataFrame
    level: float | None
    own_removed: float
    foreign_removed: float
    own_among_removed: float
    curve: pd.DataFrame


def check_fpr(fpr: object, *, per_gene: object) -> None:
    """Raise unless `fpr` is a share between 0 and 1, or None where it is not `per_gene`.

    Raises
    ------
    TypeError, ValueError
        If one of the two is of another type, or `fpr` is out of range or missing.
    """
    if not isinstance(per_gene, (bool, np.bool_)):
        raise TypeError(f"`per_gene` must be True or False, not {per_gene!r}.")
    if fpr is None:
        if per_gene:
            raise ValueError(
                "per_gene=True needs `fpr`, the share of its own molecules that each gene may lose, e.g. 0.05. Without "
                "both, what is more likely foreign than own is removed."
            )
        return
    if isinstance(fpr, bool) or not isinstance(fpr, (int, float, np.integer, np.floating)):
        raise TypeError(f"`fpr` must be a number or None, not {fpr!r}.")
    if not 0 < fpr < 1:
        raise ValueError(
            f"`fpr` is the share of the cells' own molecules that may be removed with the foreign ones, above 0 and "
            f"below 1, e.g. 0.05; not {fpr!r}. None removes what is more likely foreign than own."
        )


def decontaminate(
    module: ResolviModule,
    tissue: Tissue,
    graph: NeighborGraph,
    fpr: float | None,
    *,
    per_gene: bool,
    genes: Sequence[str],
    show_progress_bar: bool,
) -> Decontaminated:
    """Find the level, and keep the molecules above it; two passes over the posterior.

    Parameters
    ----------
    module
        Fitted model with the neighbor weights of its cells.
    tissue, graph
        All cells, and their neighbors.
    fpr
        Largest share of the own molecules that is expected to be removed; None: a level of one half.
    per_gene
        Whether it is that of each gene, rather than of all genes together.
    genes
        Names of the genes.
    show_progress_bar
        Whether to show progress bars.

    Warns
    -----
    UserWarning
        If most of what `fpr` removes is own, or most of the own molecules of some genes go.
    """
    parts = graph.compact_parts(_CELLS)

    def shown(what: str) -> Iterable[NDArray[np.int64]]:
        bar: Iterable[NDArray[np.int64]] = tqdm(parts, desc=what, disable=not show_progress_bar)
        return bar

    curve, of_genes = removal_curves(module, tissue, shown("Own and foreign molecules"), per_gene=per_gene)
    level = np.array(MEDIAN) if fpr is None else highest_level(curve.own if of_genes is None else of_genes, fpr)
    lowest, highest = np.nanmin(level), np.nanmax(level)
    kept = molecules_to_keep(module, tissue, shown("Removing molecules"), level)
    total = kept.genes.total()
    own_removed, foreign_removed = map(float, total.shares())
    own_among_removed = float(total.own_among_removed())
    logger.info(
        "Removed, as expected: %.1f%% of the cells' own molecules and %.1f%% of the foreign ones (level %s).",
        100 * own_removed,
        100 * foreign_removed,
        f"{lowest:.3f} to {highest:.3f}, by gene" if per_gene else f"{level:.3f}",
    )
    if fpr is not None and own_among_removed > _MOST:
        otherwise = "fpr=None without `per_gene`" if per_gene else "None"
        warn_user(
            f"Of the molecules that fpr={fpr:g} removes, {100 * own_among_removed:.0f}% are expected to be own, some "
            f"with a probability of {highest:.2f}: little is foreign here. A smaller `fpr` removes less, and "
            f"{otherwise} only what is more likely foreign than own."
        )
    by_gene = _gene_table(kept.genes, genes, level)
    _tell_of_genes(by_gene, per_gene=per_gene)
    levels = np.linspace(0, 1, _N_LEVELS)
    own, foreign = curve.shares(levels)
    return Decontaminated(
        kept.counts,
        kept.own_removed,
        by_gene,
        None if per_gene else float(level),
        own_removed,
        foreign_removed,
        own_among_removed,
        pd.DataFrame({"level": levels, "own_removed": own, "foreign_removed": foreign}),
    )


def _tell_of_genes(genes: pd.DataFrame, *, per_gene: bool) -> None:
    """Name the genes that are hardly left where they are expressed; by gene, those that are left where they leaked."""
    if per_gene:
        foreign = (genes["foreign"] >= MIN_OWN) & (genes["foreign"] > genes["own"])
        some = genes[foreign & (genes["foreign_removed"] < _MOST)].sort_values("foreign_removed")
        what = "Most molecules of %d of %d genes are expected to be foreign, but less than half of these go: %s."
        if not some.empty:
            logger.info(what, len(some), len(genes), _shares(some, "foreign_removed"))
        return
    some = genes[(genes["own"] >= MIN_OWN) & (genes["own_removed"] > _MOST)].sort_values("own_removed")[::-1]
    if not some.empty:
        warn_user(
            f"More than half of the own molecules of {len(some)} of {len(genes)} genes are expected to go, where they "
            f"are expressed: {_shares(some, 'own_removed')}. With `per_gene=True` none loses more than `fpr`; "
            "`resolvi_sd.pl.decontamination` draws what all lose."
        )


def _shares(genes: pd.DataFrame, column: str) -> str:
    return shortened([f"{gene} {share:.0%}" for gene, share in zip(genes["gene"], genes[column], strict=True)], 10)


def _gene_table(removed: Removed, genes: Sequence[str], level: NDArray[np.float64]) -> pd.DataFrame:
    own_removed, foreign_removed = removed.shares()
    return pd.DataFrame(
        {
            "gene": list(genes),
            "level": np.broadcast_to(level, len(genes)),
            "own": removed.own,
            "own_removed": own_removed,
            "foreign": removed.foreign,
            "foreign_removed": foreign_removed,
        }
    )
