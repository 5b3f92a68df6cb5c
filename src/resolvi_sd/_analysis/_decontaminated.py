"""Decontaminated counts at a chosen cost in own molecules, and the results at other costs."""

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
from resolvi_sd._validation import check_flag, check_number, shortened, warn_user

__all__ = ["MIN_OWN", "Decontaminated", "check_fpr", "decontaminate"]

_CELLS = 2048
# `fpr` is too large if more than this share of the removed molecules is own, or of a gene's own molecules is removed.
_MOST = 0.5
# Expected own molecules below which the removed share of a gene is not informative.
MIN_OWN = 50
# Number of levels in the table, including both ends.
_N_LEVELS = 129


@dataclass(frozen=True)
class Decontaminated:
    """Decontaminated counts, and their cost.

    Attributes
    ----------
    counts
        Molecules that are kept, cells × genes, CSR int32; in files if the counts are.
    own_removed_by_cell
        Expected share of the own molecules of each cell that are removed, float32; NaN for cells without molecules.
    genes
        For each `gene`: its `level`, its expected molecules `own` and `foreign`, and the shares of these that are
        removed, `own_removed` and `foreign_removed`; NaN if there are no molecules.
    level
        Molecules are kept if they are own with at least this probability; None if each gene has its own level.
    own_removed, foreign_removed
        Expected shares of the own and of the foreign molecules that are removed.
    own_among_removed
        Expected share of own molecules among the removed molecules; NaN if none are removed.
    curve
        `own_removed` and `foreign_removed` by level.
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
    """Raise unless `fpr` is a share between 0 and 1, or None without `per_gene`.

    Raises
    ------
    TypeError, ValueError
        If one of the two has the wrong type, or if `fpr` is out of range or missing.
    """
    check_flag(per_gene, argument="per_gene")
    if fpr is None:
        if per_gene:
            raise ValueError(
                "per_gene=True needs `fpr`, the share of its own molecules that each gene may lose, e.g. 0.05. Without "
                "both, molecules that are more likely foreign than own are removed."
            )
        return
    why = "the share of their own molecules that cells may lose, e.g. 0.05; None removes the more likely foreign ones"
    check_number(fpr, argument="fpr", above=0, below=1, why=why)


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
    """Find the level, and keep the molecules above it, in two passes over the posterior.

    Parameters
    ----------
    module
        Fitted model with the neighbor weights of its cells.
    tissue, graph
        All cells, and their neighbors.
    fpr
        Largest expected share of the own molecules that may be removed; None means a level of one half.
    per_gene
        Whether `fpr` applies to each gene rather than to all genes together.
    genes
        Names of the genes.
    show_progress_bar
        Whether to show progress bars.

    Warns
    -----
    UserWarning
        If most molecules removed at `fpr` are own, or if most of the own molecules of some genes are removed.
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
            f"with a probability of {highest:.2f}: few molecules are foreign here. A smaller `fpr` removes fewer "
            f"molecules, and {otherwise} removes only those that are more likely foreign than own."
        )
    by_gene = _gene_table(kept.genes, genes, level)
    _tell_of_genes(by_gene, per_gene=per_gene)
    levels = np.linspace(0, 1, _N_LEVELS)
    own, foreign = curve.shares(levels)
    return Decontaminated(
        kept.counts,
        kept.own_removed_by_cell,
        by_gene,
        None if per_gene else float(level),
        own_removed,
        foreign_removed,
        own_among_removed,
        pd.DataFrame({"level": levels, "own_removed": own, "foreign_removed": foreign}),
    )


def _tell_of_genes(genes: pd.DataFrame, *, per_gene: bool) -> None:
    """Report genes that are mostly removed where they are expressed or, with `per_gene`, kept where they leaked."""
    if per_gene:
        foreign = (genes["foreign"] >= MIN_OWN) & (genes["foreign"] > genes["own"])
        some = genes[foreign & (genes["foreign_removed"] < _MOST)].sort_values("foreign_removed")
        what = (
            "Most molecules of %d of %d genes are expected to be foreign, but less than half of these are removed: %s."
        )
        if not some.empty:
            logger.info(what, len(some), len(genes), _shares(some, "foreign_removed"))
        return
    some = genes[(genes["own"] >= MIN_OWN) & (genes["own_removed"] > _MOST)].sort_values("own_removed")[::-1]
    if not some.empty:
        warn_user(
            f"More than half of the own molecules of {len(some)} of {len(genes)} genes are expected to be removed, "
            f"where they are expressed: {_shares(some, 'own_removed')}. With `per_gene=True`, no gene loses more than "
            "`fpr`; `resolvi_sd.pl.decontamination` plots the losses of all genes."
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
