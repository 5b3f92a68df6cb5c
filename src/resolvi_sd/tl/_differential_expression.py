"""Differential expression between groups of cells of a fitted table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from spatialdata import SpatialData

from resolvi_sd._analysis import (
    Mode,
    cell_groups,
    check_settings,
    check_sizes,
    compare_expression,
    detection,
    make_comparisons,
    rank_genes_groups,
    sample_expression,
    stack_comparisons,
)
from resolvi_sd._keys import DEFAULT_KEY, Keys
from resolvi_sd._random import RandomLike, as_generator
from resolvi_sd._results import batch_codes, read_fit
from resolvi_sd._tables import resolve_table, table_counts

__all__ = ["differential_expression"]


def differential_expression(
    data: SpatialData | AnnData,
    *,
    groupby: str,
    group1: str | Sequence[str] | None = None,
    group2: str | Sequence[str] | None = None,
    mode: Mode = "change",
    delta: float = 0.25,
    fdr: float = 0.05,
    n_samples: int = 5000,
    pseudocount: float | None = None,
    batch_correction: bool = False,
    table_key: str = "table",
    key_added: str = DEFAULT_KEY,
    rng: RandomLike = 0,
    copy: bool = False,
    show_progress_bar: bool = True,
) -> pd.DataFrame | None:
    """Compare the true expression of groups of cells, leakage and background set aside.

    Cells are drawn from each group, their latent from its posterior, and the expression rho is decoded. The log2 fold
    change is taken over random pairs of the two sides, so the draws hold both the uncertainty about a cell and the
    differences between the cells of a group. Each group is drawn once for all comparisons it takes part in; "all
    other groups" are put together from the draws of each, in proportion to their cells.

    Parameters
    ----------
    data
        A SpatialData object or table on which :func:`resolvi_sd.tl.fit` was run, now or before it was stored.
    groupby
        Column of `obs` with the groups. Cells without a value are in no group, and cells without counts are not used.
    group1
        Each of these groups is compared; None: every group that is not in `group2`.
    group2
        What each is compared with, several groups together; None: all other groups.
    mode
        `"change"`: is the fold change at least `delta` in one direction? The probability is the larger of
        P(lfc >= delta) and P(lfc <= -delta). `"vanilla"`: which side is larger? The larger of P(rho1 > rho2) and
        P(rho1 < rho2).
    delta
        Smallest log2 fold change that matters.
    fdr
        Genes are called, the most probable ones first, as long as the expected share of false calls is at most this,
        in each comparison.
    n_samples
        Draws from each group. The memory taken is groups × `n_samples` × genes × 4 bytes.
    pseudocount
        Added to the expression (which sums to 1 over genes) before taking logarithms. None: estimated for each
        comparison, as the 0.9 quantile of the mean expression of the genes that are detected in fewer than 1% of the
        cells of both sides; with fewer than ten such genes, the expression that gives a cell of median depth 0.01
        molecules.
    batch_correction
        Decode every draw in all batches and average, in place of the cell's own batch.
    table_key
        Name of the table in a SpatialData object.
    key_added
        Prefix of the fit.
    rng
        Seed or generator of the draws.
    copy
        Leave `data` alone and return the result.
    show_progress_bar
        Whether to show progress bars.

    Returns
    -------
    None, or the DataFrame if `copy`. Modifies the table with:

    - `.uns['resolvi_de']`: DataFrame, one row per comparison and gene: `group1`, `group2` (`"rest"` for all others),
      `gene`; `proba_de` and its Monte Carlo standard error `proba_de_se`; `bayes_factor`, log(p / (1 - p)), where p is
      kept half a draw from 0 and 1; `lfc_mean`, `lfc_median`, `lfc_std`; `expected_fdr`, the expected share of false
      calls when this gene and all more probable ones are called, and `is_de_fdr`; `expression1`, `expression2` (mean
      rho); `raw_mean1`, `raw_fraction1`, ... (molecules per cell, fraction of cells with any) and
      `corrected_mean1`, `corrected_fraction1`, ... of the corrected counts where the table has them (a gene is
      detected if at least half a molecule is expected); `n_cells1`, `n_cells2`, `pseudocount`;
    - `.uns['resolvi_rank_genes_groups']`: the same for scanpy, to be given as `key=` to
      `scanpy.get.rank_genes_groups_df` and `scanpy.pl.rank_genes_groups`: `scores` are `lfc_mean / lfc_std`, `pvals`
      are `1 - proba_de` and `pvals_adj` are `expected_fdr`. These are posterior probabilities, not p-values.

    Raises
    ------
    KeyError
        If there is no fit, no column `groupby`, or no such group.
    ValueError
        If a group has fewer than two cells with counts, a group is on both sides, a number is out of range, or the
        genes of the table are no longer those of the fit.

    References
    ----------
    Lopez et al. (2018), Deep generative modeling for single-cell transcriptomics; Boyeau et al. (2023), An empirical
    Bayes method for differential expression analysis of single cells with deep generative models,
    doi:10.1073/pnas.2209124120.

    Examples
    --------
    >>> import resolvi_sd as rsd
    >>> sdata = rsd.datasets.simulate_tissue(n_cells=300, n_genes=40, rng=0)
    >>> rsd.tl.fit(sdata, max_epochs=2, show_progress_bar=False)
    >>> rsd.tl.differential_expression(sdata, groupby="domain", n_samples=100, show_progress_bar=False)
    >>> de = sdata.tables["table"].uns["resolvi_de"]
    >>> bool(de["proba_de"].between(0, 1).all())
    True
    """
    check_settings(mode, delta, fdr, n_samples, pseudocount)
    generator = as_generator(rng)
    adata = resolve_table(data, table_key)
    keys = Keys(key_added)
    fitted = read_fit(adata, keys)
    groups = cell_groups(adata, groupby, argument="groupby")
    counts = table_counts(adata, fitted.setup.layer)
    depth = np.asarray(counts.sum(axis=1)).reshape(-1)
    comparisons = make_comparisons(groups, group1, group2, among=depth > 0)
    check_sizes(groups, comparisons, among=depth > 0, kind="with counts")
    corrected = sp.csr_matrix(adata.layers[keys.counts]) if keys.counts in adata.layers else None
    batch = batch_codes(adata, fitted)
    raw_detection = detection(counts, groups, among=depth > 0)
    corrected_detection = None if corrected is None else detection(corrected, groups, among=depth > 0)
    expression = sample_expression(
        fitted.module,
        counts,
        groups,
        sorted({code for c in comparisons for code in (c.first, *c.second)}),
        among=depth > 0,
        batch=batch,
        molecules=(corrected_detection or raw_detection).total,
        n_samples=n_samples,
        batch_correction=batch_correction,
        rng=generator,
        show_progress_bar=show_progress_bar,
    )
    tables = [
        compare_expression(
            expression,
            comparison,
            raw_detection,
            corrected_detection,
            mode=mode,
            delta=delta,
            fdr=fdr,
            pseudocount=pseudocount,
            depth=float(np.median(depth[depth > 0])),
            rng=generator,
        )
        for comparison in comparisons
    ]
    result = stack_comparisons(tables, comparisons, feature="gene", names=fitted.genes)
    if copy:
        return result
    adata.uns[keys.de] = result
    layer = fitted.setup.layer if corrected is None else keys.counts
    adata.uns[keys.rank_genes_groups] = rank_genes_groups(result, groupby=groupby, layer=layer)
    return None
