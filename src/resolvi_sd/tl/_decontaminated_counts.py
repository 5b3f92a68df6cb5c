"""Decontaminated (integer) counts at a cost in own molecules that the user chooses."""

from __future__ import annotations

from typing import Any

from anndata import AnnData
from spatialdata import SpatialData

from resolvi_sd._analysis import Decontaminated, check_fpr, decontaminate
from resolvi_sd._keys import DEFAULT_KEY, Keys
from resolvi_sd._results import remove_audits, restore
from resolvi_sd._tables import resolve_table
from resolvi_sd._validation import check_takes_results

__all__ = ["decontaminated_counts"]


def decontaminated_counts(
    data: SpatialData | AnnData,
    *,
    fpr: float | None = None,
    per_gene: bool = False,
    table_key: str = "table",
    key_added: str = DEFAULT_KEY,
    copy: bool = False,
    show_progress_bar: bool = True,
) -> AnnData | None:
    """Keep or remove whole molecules, at a chosen cost in own molecules.

    The corrected counts of a fit are expectations: of a molecule that is as likely to be a neighbor's as the cell's
    own, half remains. This is right for means over cells, but a gene that leaked is still present in every cell that it
    leaked into. Here, the count of a gene in a cell is a whole number, which matters for questions about which genes
    single cells express, and which genes they coexpress.

    The c-th molecule of a count is kept if the probability that at least c molecules of the count are own reaches a
    level, which is the same for all cells and genes. Among all ways to lose equally many own molecules, this is
    expected to leave the fewest foreign molecules.

    Parameters
    ----------
    data
        A SpatialData object or table on which :func:`resolvi_sd.tl.fit` was run, in this session or before it was
        stored.
    fpr
        False positive rate: the share of the cells' own molecules that may be removed along with the foreign ones, as
        expected by the model. The level is as high as `fpr` allows, so that this share is removed even if little is
        foreign. None: a level of one half, so that molecules that are more likely foreign than own are removed. This
        removes little if little has leaked, and minimizes the expected absolute error of each count (it is the
        posterior median).
    per_gene
        Whether `fpr` applies to each gene, with a level of its own, rather than to all genes together. With a single
        level, genes whose own molecules are hard to distinguish from leaked ones pay for the other genes, and may lose
        most of their molecules. With one level per gene, no gene is expected to lose a larger share of its own
        molecules than `fpr`. Fewer foreign molecules are removed overall, and fewest from genes that are hardly
        expressed, whose molecules are nearly all foreign. Requires `fpr`.
    table_key
        Name of the table in a SpatialData object.
    key_added
        Prefix of the results of the fit.
    copy
        Leave `data` unchanged and return a copy of the table with the result.
    show_progress_bar
        Whether to show progress bars, one for each of the two passes over the cells.

    Returns
    -------
    None, or the table if `copy`. Modifies the table with:

    - `.layers['resolvi_decontaminated']`: cells × genes, CSR int32, between 0 and the count;
    - `.uns['resolvi_decontaminated']`: a dict with `fpr` (if given), `level` (if there is only one), `per_gene`,
      `n_cells`, `own_removed` and `foreign_removed` (the expected shares that are removed), `own_among_removed` (the
      expected share of own molecules among all that are removed, i.e. the false discovery rate), `curve`, a DataFrame
      with `own_removed` and `foreign_removed` by `level`, and `genes`, a DataFrame with the `level` of each `gene`, its
      expected `own` and `foreign` molecules, and the shares of these that are removed, `own_removed` and
      `foreign_removed` (NaN if there are none); :func:`resolvi_sd.pl.decontamination` draws both DataFrames;
    - `.obs['resolvi_own_removed']`: the share of each cell's own molecules that is expected to be removed, float32; NaN
      for cells without molecules.

    Audits of earlier decontaminated counts are removed. With `per_gene`, genes that keep most of their foreign
    molecules are logged. There is one such layer per fit: to compare settings, copy it under another name
    (``table.layers["fpr_5"] = table.layers["resolvi_decontaminated"].copy()``), which can be passed as
    `corrected_layer=` to the audit and to plots.

    Raises
    ------
    KeyError
        If there is no fit.
    TypeError, ValueError
        If `fpr` is not between 0 and 1, or is missing although `per_gene` is given, or the genes of the table are no
        longer those of the fit.

    Warns
    -----
    UserWarning
        If most of the molecules that `fpr` removes are expected to be own, more than half of the own molecules of a
        gene that has at least 50 are expected to be removed, neighbors of the fit are no longer in the table, or the
        counts are not those of the fit.

    Notes
    -----
    The latent space and the shares are held at their means, as for the corrected counts of a fit with `n_samples=1`,
    which are the sums of these probabilities over c = 1, ..., x. On simulated tissue, an `fpr` of 0.05 removes 4 to 6%
    of the own molecules, and an `fpr` of 0.1 removes 8 to 11% (means of six regimes, 3,000 to 5,000 cells); with 1,500
    cells, 7 and 12%. Of the own molecules of the most affected gene, an `fpr` of 0.1 removes 28 to 76%, or 12 to 17%
    with `per_gene`; of all foreign molecules, 47 to 61%, or 40 to 58% with `per_gene`. A gene that leaks into many
    similar cells is removed from all of them, so group means are better computed from expectations.

    References
    ----------
    Neyman & Pearson (1933), doi:10.1098/rsta.1933.0009, for the best of all tests of a given size; the `fpr` of
    CellBender, Fleming et al. (2023), doi:10.1038/s41592-023-01943-7, for the choice it gives.

    Examples
    --------
    >>> import resolvi_sd as rsd
    >>> sdata = rsd.datasets.simulate_tissue(n_cells=300, n_genes=40, rng=0)
    >>> rsd.tl.fit(sdata, max_epochs=2, show_progress_bar=False)
    >>> rsd.tl.decontaminated_counts(sdata, fpr=0.05, show_progress_bar=False)
    >>> table = sdata.tables["table"]
    >>> table.layers["resolvi_decontaminated"].dtype
    dtype('int32')
    >>> sorted(table.uns["resolvi_decontaminated"])
    ['curve', 'foreign_removed', 'fpr', 'genes', 'level', 'n_cells', 'own_among_removed', 'own_removed', 'per_gene']
    """
    check_fpr(fpr, per_gene=per_gene)
    adata = resolve_table(data, table_key)
    check_takes_results(adata, copy=copy)
    keys = Keys(key_added)
    fitted, tissue, graph = restore(adata, keys)
    result = decontaminate(
        fitted.module,
        tissue,
        graph,
        fpr,
        per_gene=per_gene,
        genes=fitted.genes,
        show_progress_bar=show_progress_bar,
    )
    target = adata.copy() if copy else adata
    target.layers[keys.decontaminated] = result.counts
    target.obs[keys.own_removed] = result.own_removed_by_cell
    target.uns[keys.decontaminated] = _record(result, fpr, per_gene=per_gene)
    remove_audits(target, [keys.decontaminated])
    return target if copy else None


def _record(result: Decontaminated, fpr: float | None, *, per_gene: bool) -> dict[str, Any]:
    """Return what the counts cost, in a form that stores accept, i.e. without None."""
    chosen = {"fpr": fpr, "level": result.level}
    return {name: float(value) for name, value in chosen.items() if value is not None} | {
        "per_gene": bool(per_gene),
        "n_cells": result.counts.shape[0],
        "own_removed": result.own_removed,
        "foreign_removed": result.foreign_removed,
        "own_among_removed": result.own_among_removed,
        "curve": result.curve,
        "genes": result.genes,
    }
