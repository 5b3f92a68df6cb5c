"""Differential expression between groups of cells of a fitted table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from spatialdata import SpatialData

from resolvi_sd._analysis import (
    DecisionRule,
    Mode,
    blocks_at_mean,
    cell_groups,
    check_draws,
    check_pseudocount,
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
    restore_tissue,
    warn_of_other_counts,
)
from resolvi_sd._tables import resolve_table
from resolvi_sd._validation import check_flag, check_takes_results

__all__ = ["differential_expression"]

# Of these, the median effective number is 9 (xenium, 200 genes); groups also average over cells.
_WEIGHTED_DRAWS = 10


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
    """Compare the mean true expression of groups of cells, excluding leakage and background.

    The expression of a gene in a group is the number of the group's own molecules of the gene divided by that of all
    genes; its uncertainty has three parts. *Few molecules*: a Gamma posterior, whose prior is the decoder's expectation
    for the cells of the group, weighted as one molecule, and whose evidence is the number of own molecules divided by
    their dispersion between cells. *Attribution*: the number of foreign molecules of a gene in a group is known up to a
    factor with a relative error of 0.15, which does not average out with more cells, so a gene whose molecules in a
    group are mostly foreign is uncertain there. *Draws*: `n_samples` draws from this posterior for each side of
    the comparisons. Several groups together, such as the rest, are one group of all their cells, however they are
    divided. All cells of the groups are used.

    The decision rule is that of lvm-DE: the posterior probability that the log2 fold change is at least `delta`, and
    calls at an expected false discovery rate. That rate takes all genes of the comparison into account: if no more of
    them change than their errors would explain, few are called, however large individual changes seem (adaptive
    shrinkage); the changes themselves are not shrunk. lvm-DE compares random pairs of cells; here, the means of the
    groups are compared, since these are what differs between cell types that vary internally, and between a type and a
    mixture of all others.

    Parameters
    ----------
    data
        A SpatialData object or table on which :func:`resolvi_sd.tl.fit` was run, in this session or before it was
        stored.
    groupby
        Column of `obs` with the groups. Cells without a value are in no group, nor are cells with the
        `unlabeled_category` of the fit if these are its labels. Cells without counts are not used.
    group1
        Groups to compare, one at a time. None: every group that is not in `group2`.
    group2
        Groups that each of them is compared with, taken together. None: all other groups.
    mode
        `"change"`: is the fold change at least `delta` in one direction? The probability is the larger of
        P(lfc >= delta) and P(lfc <= -delta). `"vanilla"`: which side is larger? The probability is the larger of
        P(rho1 > rho2) and P(rho1 < rho2).
    delta
        Smallest log2 fold change that matters.
    fdr
        Largest expected share of false calls in each comparison. Genes are called in order of decreasing probability
        up to this share, and only if they are more probable than not.
    n_samples
        Number of draws for each group, at least 20.
    pseudocount
        Added to the expression (which sums to 1 over genes) before taking logarithms. None: estimated for each
        comparison, as the 0.9 quantile of the mean expression of the genes that are detected in fewer than 1% of the
        cells of both sides; with fewer than ten such genes, the expression at which a cell of median depth has 0.01
        molecules.
    weights
        Weights of the latent draws from which a cell's own molecules and expected expression are computed. `"uniform"`:
        both are taken at the mean of the encoder's normal q(z | x), i.e. the own molecules are the corrected counts of
        the fit. `"importance"`: both are means over ten draws z_s from q with weights proportional to
        p(x | z_s) p(z_s) / q(z_s | x), which tend to expectations under the model's posterior. Here, p(z) is the
        mixture prior, and p(x | z) the probability of the cell's counts, Delaporte or Poisson as fitted, given its
        shares, neighbor weights, background and overdispersion, and the expression of its neighbors at the means of
        their q. This requires the graph and the neighbor weights of the table.
    batch_correction
        Multiply the decoder's expectation averaged over all batches, instead of that for the cell's own batch, by the
        ratio of the own molecules to the expectation for the cell's own batch.
    table_key
        Name of the table in a SpatialData object.
    key_added
        Prefix of the results of the fit.
    rng
        Seed or generator for the draws.
    copy
        Leave `data` unchanged and return the result.
    show_progress_bar
        Whether to show progress bars.

    Returns
    -------
    None, or the DataFrame if `copy`. Modifies the table with:

    - `.uns['resolvi_de']`: DataFrame, one row per comparison and gene (for a mapped query, only the genes that it has):
      `group1`, `group2` (`"rest"` for all others), `gene`; `proba_de`, the probability of the gene by itself, and its
      Monte Carlo standard error `proba_de_se`; `bayes_factor`, log(p / (1 - p)), where p is kept half a draw away from
      0 and 1; `lfc_mean`, `lfc_median`, `lfc_std` of the posterior; `expression1`, `expression2` (posterior mean of the
      expression); `expected_fdr`, the expected share of false calls if this gene and all genes that are more probable,
      given the changes of all genes, are called, and `is_de_fdr`, the calls;
      `raw_mean1`, `raw_fraction1`, ... (molecules per cell, fraction of cells with any) and `corrected_mean1`,
      `corrected_fraction1`, ... for the corrected counts (a gene is detected if at least half a molecule is expected);
      `n_cells1`, `n_cells2`, `pseudocount`, and `groupby`;
    - `.uns['resolvi_rank_genes_groups']`: the same results in scanpy's layout, to be passed as `key=` to
      `scanpy.get.rank_genes_groups_df` and `scanpy.pl.rank_genes_groups`: `scores` are `lfc_mean / lfc_std`, `pvals`
      are `1 - proba_de` and `pvals_adj` are `expected_fdr`. These are posterior probabilities, not p-values.

    Raises
    ------
    KeyError
        If there is no fit, there are no corrected counts, or the column `groupby` or a group does not exist.
    ValueError
        If a group has fewer than two cells with counts, a group is on both sides, a number is out of range, or the
        genes of the table are no longer those of the fit.

    Warns
    -----
    UserWarning
        If groups have a single cell and are therefore not compared (when `group1` is left out), or if the counts do not
        seem to be those of the fit.

    Notes
    -----
    Between groups that do not differ (random cells of one type, MERFISH, 135 genes), 4 genes are called on average with
    2 cells on one side, 3 with 5 cells, one in three comparisons with 20, and none with 500: with a handful of cells,
    the posterior is skewed, and calls should be treated with care.

    Cells are assumed to be independent. In comparisons between conditions or animals, these are the independent units
    rather than the cells: export :func:`resolvi_sd.tl.pseudobulk` for a test that takes them into account.

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
    rule = DecisionRule(mode, delta, fdr)
    check_draws(n_samples)
    if pseudocount is not None:
        check_pseudocount(pseudocount)
    check_flag(batch_correction, argument="batch_correction")
    check_weights(weights)
    generator = as_generator(rng)
    adata = resolve_table(data, table_key)
    if not copy:
        check_takes_results(adata)
    keys = Keys(key_added)
    fitted = read_fit(adata, keys)
    groups = cell_groups(adata, groupby, argument="groupby", setup=fitted.setup)
    restored = restore_tissue(adata, keys, fitted) if weights == "importance" else None
    counts = fitted_counts(adata, fitted.setup.layer) if restored is None else restored[0].counts
    molecules = row_sums(counts)
    usable = molecules > 0
    comparisons = make_comparisons(groups, group1, group2, among=usable)
    check_sizes(groups, comparisons, among=usable, kind="with counts")
    corrected = corrected_counts(adata, keys, counts)
    compared = [tuple(sorted(sum(comparison.sides, ()))) for comparison in comparisons]
    rows = groups.members(sorted({code for codes in compared for code in codes}), usable)
    # Comparisons with the rest are of the same cells.
    depth = {codes: float(np.median(molecules[groups.members(codes, usable)])) for codes in set(compared)}
    how = {"batch_correction": batch_correction, "show_progress_bar": show_progress_bar}
    if restored is None:
        warn_of_other_counts(adata, fitted, keys, counts)
        blocks = blocks_at_mean(fitted.module, counts, corrected, category_codes(adata, fitted), rows, **how)
    else:
        tissue, graph = restored
        sampler = Sampler.create(fitted.module, tissue, n_samples=_WEIGHTED_DRAWS, rng=generator)
        blocks = importance_blocks(sampler, graph, rows, **how)
    measured = fitted.measured
    raw, kept = (detection(matrix, groups, genes=measured, among=usable) for matrix in (counts, corrected))
    tables = compare_expression(
        group_totals(raw.total, groups, blocks, genes=measured, among=usable),
        comparisons,
        raw,
        kept,
        rule,
        pseudocount=pseudocount,
        depths=[depth[codes] for codes in compared],
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
