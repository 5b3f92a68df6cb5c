"""Differential expression between groups of cells of a fitted table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from spatialdata import SpatialData

from resolvi_sd._analysis import (
    CellBlock,
    Mode,
    blocks_at_mean,
    cell_groups,
    check_settings,
    check_sizes,
    compare_expression,
    detection,
    group_totals,
    importance_blocks,
    make_comparisons,
    rank_genes_groups,
    stack_comparisons,
)
from resolvi_sd._csr import row_sums
from resolvi_sd._keys import DEFAULT_KEY, Keys
from resolvi_sd._model import Sampler, Weights, check_weights
from resolvi_sd._random import RandomLike, as_generator
from resolvi_sd._results import (
    category_codes,
    corrected_counts,
    fitted_counts,
    read_fit,
    restore,
    warn_of_other_counts,
)
from resolvi_sd._tables import resolve_table
from resolvi_sd._validation import check_takes_results

__all__ = ["differential_expression"]

# Of these, 9 count on median (xenium, 200 genes); groups average over cells as well.
_WEIGHTED_DRAWS = 10
_WEIGHTED_ROWS = 2048


def differential_expression(
    data: SpatialData | AnnData,
    groupby: str,
    *,
    group1: str | Sequence[str] | None = None,
    group2: str | Sequence[str] | None = None,
    mode: Mode = "change",
    delta: float = 0.25,
    fdr: float = 0.05,
    n_samples: int = 5000,
    pseudocount: float | None = None,
    weights: Weights = "uniform",
    batch_correction: bool = False,
    table_key: str = "table",
    key_added: str = DEFAULT_KEY,
    rng: RandomLike = 0,
    copy: bool = False,
    show_progress_bar: bool = True,
) -> pd.DataFrame | None:
    """Compare the mean true expression of groups of cells, leakage and background set aside.

    The expression of a group is its own molecules of a gene over its own molecules of all genes; its uncertainty has
    three parts. *Few molecules*: a Gamma posterior, whose prior is what the decoder expects of the group's cells and
    counts as much as one molecule, and whose evidence are the own molecules over their dispersion from cell to cell.
    *Attribution*: how much of a gene a group received is known up to a factor with a relative error of 0.15, which
    more cells do not average out; so a gene of which a group has mostly received molecules is uncertain in it. *Draws*:
    `n_samples` from this posterior for each group, once for all comparisons it takes part in; several groups together
    are averaged over their cells. All cells of the groups are used.

    On top of that comes the decision of lvm-DE: the posterior probability that the log2 fold change is at least
    `delta`, and calls at an expected rate of false discoveries. That rate takes all genes of the comparison into
    account: where no more of them change than their errors allow for, few are called, however large single changes
    seem (adaptive shrinkage); the changes themselves are not shrunk. lvm-DE compares random pairs of cells; here the
    means of the groups are compared, which is what differs between cell types that vary within, and between a type and
    a mixture of all others.

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
        in each comparison, and they are more probable than not.
    n_samples
        Draws of each group.
    pseudocount
        Added to the expression (which sums to 1 over genes) before taking logarithms. None: estimated for each
        comparison, as the 0.9 quantile of the mean expression of the genes that are detected in fewer than 1% of the
        cells of both sides; with fewer than ten such genes, the expression that gives a cell of median depth 0.01
        molecules.
    weights
        Of the latent's draws from which a cell's own molecules and expected expression follow. `"uniform"`: they are
        those at the mean of the encoder's normal q(z | x), i.e. the corrected counts of the fit. `"importance"`: means
        over ten draws z_s from q with weights in proportion to p(x | z_s) p(z_s) / q(z_s | x), which tend to
        expectations under the model's posterior. Here p(z) is the mixture prior, and p(x | z) the probability of the
        cell's counts, Delaporte or Poisson as fitted, given its shares, neighbor weights, background and
        overdispersion, and the expression of its neighbors at the means of their q. The table's graph and neighbor
        weights are needed for it.
    batch_correction
        Multiply what the decoder expects on average over all batches, in place of the cell's own batch, by the ratio
        of the own molecules to what is expected in the cell's own batch.
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

    - `.uns['resolvi_de']`: DataFrame, one row per comparison and gene (of a mapped query, of the genes that it has):
      `group1`, `group2` (`"rest"` for all others), `gene`; `proba_de`, of the gene by itself, and its Monte Carlo
      standard error `proba_de_se`; `bayes_factor`, log(p / (1 - p)), where p is kept half a draw from 0 and 1;
      `lfc_mean`, `lfc_median`, `lfc_std` of the posterior; `expression1`, `expression2` (posterior mean of the
      expression); `expected_fdr`, the expected share of false calls when this gene and all that are more probable,
      given the changes of all genes, are called, and `is_de_fdr`, the calls;
      `raw_mean1`, `raw_fraction1`, ... (molecules per cell, fraction of cells with any) and `corrected_mean1`,
      `corrected_fraction1`, ... of the corrected counts (a gene is detected if at least half a molecule is expected);
      `n_cells1`, `n_cells2`, `pseudocount`, and `groupby`;
    - `.uns['resolvi_rank_genes_groups']`: the same for scanpy, to be given as `key=` to
      `scanpy.get.rank_genes_groups_df` and `scanpy.pl.rank_genes_groups`: `scores` are `lfc_mean / lfc_std`, `pvals`
      are `1 - proba_de` and `pvals_adj` are `expected_fdr`. These are posterior probabilities, not p-values.

    Raises
    ------
    KeyError
        If there is no fit, no corrected counts, no column `groupby`, or no such group.
    ValueError
        If a group has fewer than two cells with counts, a group is on both sides, a number is out of range, or the
        genes of the table are no longer those of the fit.

    Warns
    -----
    UserWarning
        If groups have a single cell, and are not compared (with `group1` left out).

    Notes
    -----
    Of groups that differ by nothing (cells of one type at random, MERFISH, 135 genes), 4 genes are called on average
    with 2 cells on one side, 3 with 5, one in three comparisons with 20, and none with 500: with a handful of cells the
    posterior is skewed, and calls are to be taken with care.

    Cells are taken for independent. Between conditions or animals these are the units, not cells: export
    :func:`resolvi_sd.tl.pseudobulk` for a test that knows them.

    References
    ----------
    Lopez et al. (2018), Deep generative modeling for single-cell transcriptomics; Boyeau et al. (2023), An empirical
    Bayes method for differential expression analysis of single cells with deep generative models,
    doi:10.1073/pnas.2209124120; Newton et al. (2004), doi:10.1093/biostatistics/5.2.155, and Stephens (2017),
    doi:10.1093/biostatistics/kxw041, for the rate of false calls.

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
    check_weights(weights)
    generator = as_generator(rng)
    adata = resolve_table(data, table_key)
    if not copy:
        check_takes_results(adata)
    keys = Keys(key_added)
    fitted = read_fit(adata, keys)
    groups = cell_groups(adata, groupby, argument="groupby")
    counts = fitted_counts(adata, fitted.setup.layer)
    measured = fitted.measured
    depth = row_sums(counts)
    usable = depth > 0
    comparisons = make_comparisons(groups, group1, group2, among=usable)
    check_sizes(groups, comparisons, among=usable, kind="with counts")
    corrected = corrected_counts(adata, keys, counts)
    rows = groups.members(sorted({code for c in comparisons for code in (c.first, *c.second)}), usable)
    blocks: Iterable[CellBlock]
    if weights == "importance":
        blocks = _weighted_blocks(adata, keys, rows, generator, batch_correction, show_progress_bar)
    else:
        warn_of_other_counts(adata, fitted, keys, counts)
        categories = category_codes(adata, fitted)
        blocks = blocks_at_mean(
            fitted.module,
            counts,
            corrected,
            categories,
            rows,
            batch_correction=batch_correction,
            show_progress_bar=show_progress_bar,
        )
    tables = compare_expression(
        group_totals(counts, groups, blocks, genes=measured, among=usable),
        comparisons,
        detection(counts, groups, genes=measured, among=usable),
        detection(corrected, groups, genes=measured, among=usable),
        mode=mode,
        delta=delta,
        fdr=fdr,
        pseudocount=pseudocount,
        depth=float(np.median(depth[usable])),
        n_samples=n_samples,
        rng=generator,
    )
    names = [fitted.genes[column] for column in measured]
    result = stack_comparisons(tables, comparisons, groupby=groupby, feature="gene", names=names)
    if copy:
        return result
    adata.uns[keys.de] = result
    adata.uns[keys.rank_genes_groups] = rank_genes_groups(result, groupby=groupby, layer=keys.counts)
    return None


def _weighted_blocks(
    adata: AnnData,
    keys: Keys,
    rows: NDArray[np.int64],
    rng: np.random.Generator,
    batch_correction: bool,
    show_progress_bar: bool,
) -> Iterable[CellBlock]:
    fitted, tissue, graph = restore(adata, keys)
    sampler = Sampler.create(fitted.module, tissue, n_samples=_WEIGHTED_DRAWS, rng=rng)
    order = graph.compact_order(rows, _WEIGHTED_ROWS)
    return importance_blocks(
        sampler, rows[order], batch_correction=batch_correction, show_progress_bar=show_progress_bar
    )
