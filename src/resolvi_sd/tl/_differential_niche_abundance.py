"""Differences between the neighborhoods of groups of cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from numpy.typing import NDArray
from spatialdata import SpatialData

from resolvi_sd._analysis import (
    DecisionRule,
    Mode,
    NicheSums,
    Weighting,
    adjacent_units,
    bootstrap_means,
    cell_groups,
    check_draws,
    check_pseudocount,
    check_sizes,
    draw_labels,
    effective_units,
    label_probabilities,
    make_comparisons,
    neighborhood_composition,
    spatial_dependence,
    stack_comparisons,
    summarize_change,
    table_edges,
    widened,
    write_niches,
)
from resolvi_sd._keys import DEFAULT_KEY, Keys
from resolvi_sd._random import RandomLike, as_generator, draw_seed
from resolvi_sd._setup import fitted_setup
from resolvi_sd._tables import cell_positions, cross, own_regions, resolve_table
from resolvi_sd._tiles import cut_patches
from resolvi_sd._validation import check_no_measurement, check_positive_int, check_takes_results, shortened, warn_user

__all__ = ["differential_niche_abundance"]

# Sets of labels drawn from their probabilities; each is used for many draws of the bootstrap.
_LABEL_DRAWS = 20
# Quantiles of a normal distribution that are one standard deviation from its mean.
_CENTRAL = (0.1587, 0.8413)
# Effective number of units, rounded, below which hardly any difference can be detected.
_FEW_UNITS = 4
# Cells of a patch.
_PATCH_SIZE = 100
# Quantiles between which a change lies with a probability of 95%.
_INTERVAL = (0.025, 0.975)


def differential_niche_abundance(
    data: SpatialData | AnnData,
    groupby: str,
    *,
    group1: str | Sequence[str] | None = None,
    group2: str | Sequence[str] | None = None,
    labels_key: str | None = None,
    weighting: Weighting = "uniform",
    mode: Mode = "change",
    delta: float = 0.25,
    fdr: float = 0.05,
    n_samples: int = 5000,
    pseudocount: float = 0.01,
    sample_key: str | None = None,
    patch_size: int = _PATCH_SIZE,
    table_key: str = "table",
    key_added: str = DEFAULT_KEY,
    rng: RandomLike = 0,
    copy: bool = False,
) -> pd.DataFrame | None:
    """Compare the neighborhoods of the cells of different groups.

    The mean neighborhoods of the groups are compared. Neighborhoods of nearby cells overlap, so cells are not
    independent observations: the uncertainty of the means comes from a Bayesian bootstrap over compact patches of
    tissue, or over samples, with the wider tails that few units require (Student's t): as many as the cells are worth,
    given how unequally they are distributed over the units, and how much adjacent units resemble each other. Each group
    is given one additional unit of typical size, so that changes of groups that lie in few units are shrunk; it is like
    all samples together, or like a patch of any group, chosen at random in each draw. Patches quantify the certainty
    about *these* sections; for statements about conditions or animals, those have to be the units (`sample_key`).

    With simulated animals that differ (standard deviation of log shares 0.5), in two conditions that do not, false
    calls occurred in 0, 5 and 0% of 60 runs with 3, 5 and 10 animals per side, and in none if most cells of either side
    were from one of 10 animals. In a simulated section of 3,600 cells whose labels lie in clusters of about 30 cells,
    regardless of the groups, they occurred in 13% of 60 runs if a group lay in 12 squares of 100 cells, in 20% if it
    lay in 12 squares of 16, and in 2% if it lay in one square of 144 and in 30 single cells; with patches of 400 cells
    instead of 100, in 5, 17 and 0%. With fewer than four units, hardly any difference is called, and a warning is
    issued.

    Parameters
    ----------
    data
        A SpatialData object or table on which :func:`resolvi_sd.tl.fit` was run.
    groupby, group1, group2
        Column of `obs` with the groups, and which groups are compared with which, as in
        :func:`resolvi_sd.tl.differential_expression`.
    labels_key, weighting
        Definition of a neighborhood, as in :func:`niche_abundance`. Label probabilities are treated as uncertainty: the
        labels of neighbors are drawn from them.
    mode
        `"change"`: is the log2 fold change of the share at least `delta` in one direction? `"vanilla"`: which share is
        larger?
    delta
        Smallest log2 fold change that matters.
    fdr
        Largest expected share of false calls in each comparison; only labels whose change is more probable than not
        are called.
    n_samples
        Number of bootstrap draws, at least 20.
    pseudocount
        Added to the shares before taking logarithms; differences between shares far below it are of no interest.
    sample_key
        Column of `obs` with independent units (animals, sections), to be resampled instead of patches; cells without
        a value are not used.
    patch_size
        Largest number of cells in a patch. Patches should be several times larger than the structures that vary by
        chance.
    table_key
        Name of the table in a SpatialData object.
    key_added
        Prefix of the results of the fit.
    rng
        Seed or generator for the draws.
    copy
        Leave `data` unchanged and return the result.

    Returns
    -------
    None, or the DataFrame if `copy`. Modifies the table with:

    - `.uns['resolvi_dna']`: DataFrame, one row per comparison and label: `group1`, `group2`, `label`; `proba_da` and
      its Monte Carlo standard error `proba_da_se`; `bayes_factor`; `lfc_mean`, `lfc_median`, and `lfc_std`, half the
      width of the central 68%; `lfc_low`, `lfc_high`, the central 95%; `expected_fdr`, `is_da_fdr`; `abundance1`,
      `abundance2`, the mean share of the label among the neighbors of the cells; `n_cells1`, `n_cells2`; `n_units1`,
      `n_units2`, the number of patches or samples in which they lie; `n_effective1`, `n_effective2`, how many equally
      large, independent ones these are worth: (sum n)^2 / sum n^2 for units with n cells of the group, divided by the
      ratio by which the resemblance of adjacent units raises the variance; `groupby`, `labels_key` and `weighting`, the
      same in all rows;
    - `.obsm['resolvi_niche']` and its labels in `uns`: the neighborhoods that were compared, as written by
      :func:`resolvi_sd.tl.niche_abundance` with this `labels_key` and `weighting`.

    Raises
    ------
    KeyError
        If the table has no graph of a fit, a column or group does not exist, or there are no label probabilities.
    ValueError
        If a group has fewer than two cells with neighbors, a group is on both sides, or a setting is out of range.

    Warns
    -----
    UserWarning
        If the cells of a group lie in fewer than four units, or mostly in so few, groups have a single cell and are
        therefore not compared, or neighbors of the fit are no longer in the table.

    References
    ----------
    Rubin (1981), The Bayesian bootstrap; Ergen & Yosef (2025), doi:10.1101/2025.01.20.634005.

    Examples
    --------
    >>> import resolvi_sd as rsd
    >>> sdata = rsd.datasets.simulate_tissue(n_cells=300, n_genes=40, rng=0)
    >>> rsd.tl.fit(sdata, max_epochs=2, show_progress_bar=False)
    >>> compared = {"groupby": "domain", "group1": "domain_0", "labels_key": "cell_type", "patch_size": 10}
    >>> rsd.tl.differential_niche_abundance(sdata, **compared, n_samples=200)
    >>> int(sdata.tables["table"].uns["resolvi_dna"]["label"].nunique())
    8
    """
    rule = DecisionRule(mode, delta, fdr)
    check_draws(n_samples)
    check_pseudocount(pseudocount)
    check_positive_int(patch_size, argument="patch_size")
    if sample_key is not None and patch_size != _PATCH_SIZE:
        raise ValueError(f"patch_size={patch_size} would be ignored: units are those of sample_key={sample_key!r}.")
    generator = as_generator(rng)
    adata = resolve_table(data, table_key)
    if not copy:
        check_takes_results(adata)
    keys = Keys(key_added)
    edges = table_edges(adata, keys, weighting)
    labels = label_probabilities(adata, keys, labels_key)
    groups = cell_groups(adata, groupby, argument="groupby", setup=fitted_setup(adata, keys))
    units = _patches(data, adata, keys, table_key, patch_size) if sample_key is None else _samples(adata, sample_key)
    mean = neighborhood_composition(edges, labels.values)
    usable = ~np.isnan(mean).any(axis=1) & (units >= 0)
    comparisons = make_comparisons(groups, group1, group2, among=usable)
    check_sizes(groups, comparisons, among=usable, kind="with labeled neighbors")
    around = np.flatnonzero((mean[usable] > 0).any(axis=0))  # a category may remain of cells that are gone
    place = np.where(usable, units, -1), np.where(usable, groups.codes, -1)
    expected = NicheSums.of([mean[:, around]], *place)
    drawn = expected
    if not labels.certain:
        versions = (neighborhood_composition(edges, draw_labels(labels, generator)) for _ in range(_LABEL_DRAWS))
        drawn = NicheSums.of((version[:, around] for version in versions), *place)
    adjacent = adjacent_units(edges, np.where(place[1] >= 0, place[0], -1))
    seed = draw_seed(generator)
    tables = []
    few: dict[str, float] = {}
    for comparison in comparisons:
        (abundance,), n_cells = expected.of_sides(*comparison.sides)
        totals, _ = drawn.of_sides(*comparison.sides)
        # The same draws for all comparisons, with the sides in a fixed order: the two directions are mirror images.
        draws, order = np.random.default_rng(seed), [0, 1] if comparison.first < min(comparison.second) else [1, 0]
        means = bootstrap_means(
            totals[:, :, order], n_cells[:, order], varied_prior=sample_key is None, n_samples=n_samples, rng=draws
        )[:, order]
        n_units, equal_units = (n_cells > 0).sum(axis=0), effective_units(n_cells)
        dependence = spatial_dependence(abundance, n_cells, adjacent)
        n_effective = equal_units / dependence
        names = (comparison.name1, comparison.name2)
        few |= {name: n for name, n in zip(names, equal_units.tolist(), strict=True) if round(n) < _FEW_UNITS}
        logs = np.log2(means + np.float32(pseudocount))
        wide = widened(logs, equal_units, dependence=dependence, rng=draws)
        table = _summary(logs, wide, rule, limit=np.log2((1 + pseudocount) / pseudocount))
        for i in range(2):
            table[f"abundance{i + 1}"] = abundance[:, i].sum(axis=0) / n_cells[:, i].sum()
            table[f"n_cells{i + 1}"] = int(n_cells[:, i].sum())
            table[f"n_units{i + 1}"] = int(n_units[i])
            table[f"n_effective{i + 1}"] = float(n_effective[i])
        tables.append(table)
    if few:
        _warn_of_few_units(few, sample_key)
    names_around = [labels.names[column] for column in around]
    result = stack_comparisons(tables, comparisons, groupby=groupby, feature="label", names=names_around)
    result["labels_key"] = pd.Categorical([labels_key or ""] * len(result))
    result["weighting"] = pd.Categorical([weighting] * len(result))
    if copy:
        return result
    adata.uns[keys.dna] = result
    write_niches(adata, keys, mean, labels, labels_key, weighting)
    return None


def _summary(logs: NDArray[np.float32], wide: NDArray[np.float32], rule: DecisionRule, *, limit: float) -> pd.DataFrame:
    """Summarize draws of the logarithms of both sides, draws × 2 × labels, with the spread that few units require.

    `limit` is the largest change that is possible: from a share of 0 to one of 1.
    """
    change = (wide[:, 0] - wide[:, 1]).clip(-limit, limit)
    # With very few units, the tails have neither a mean nor a standard deviation.
    low, high, least, most = np.quantile(change, [*_CENTRAL, *_INTERVAL], axis=0).astype(np.float64)
    table = summarize_change(change, rule)
    table["lfc_mean"] = (logs[:, 0] - logs[:, 1]).mean(axis=0, dtype=np.float64)
    table["lfc_std"] = (high - low) / 2
    table["lfc_low"], table["lfc_high"] = least, most
    table.columns = table.columns.str.replace("_de", "_da")
    return table


def _warn_of_few_units(few: Mapping[str, float], sample_key: str | None) -> None:
    """Warn about groups that rest on so few units that hardly any difference can be distinguished from chance."""
    units = "patches of tissue" if sample_key is None else f"units of obs[{sample_key!r}]"
    shown = shortened([f"{name!r} ({n:.2g})" for name, n in few.items()])
    warn_user(
        f"Groups whose cells lie in fewer than {_FEW_UNITS} {units}, or mostly in so few (in parentheses: how many "
        "equally large ones they are worth), so that hardly any difference between their neighborhoods can be "
        f"distinguished from chance: {shown}."
    )


def _samples(adata: AnnData, sample_key: str) -> NDArray[np.int64]:
    samples = cell_groups(adata, sample_key, argument="sample_key")
    check_no_measurement(len(samples.with_cells().names), adata.n_obs, key=sample_key, argument="sample_key")
    return samples.codes


def _patches(
    data: SpatialData | AnnData, adata: AnnData, keys: Keys, table_key: str, patch_size: int
) -> NDArray[np.int64]:
    """Return the patch of each cell, cut from the positions that the graph was built from, within its sections."""
    params = adata.uns.get(keys.neighbors, {}).get("params", {})
    positions = cell_positions(
        data,
        table_key=table_key,
        library_key=params.get("library_key", params.get("batch_key")),
        spatial_key=params.get("spatial_key", "spatial"),
        coordinate_system=params.get("coordinate_system", "global"),
    )
    sections = positions.sections
    regions = None if isinstance(data, SpatialData) else own_regions(adata)
    if regions is not None:
        # For a table on its own, the graph shows whether its regions were sections of the fit, or parts of one.
        edges = sp.csr_matrix(adata.obsp[keys.connectivities]).tocoo()
        if not (regions.codes[edges.row] != regions.codes[edges.col]).any():
            sections = cross(regions, sections)
    patches = cut_patches(positions.coordinates, sections.codes, patch_size=patch_size)
    codes: NDArray[np.int64] = np.empty(adata.n_obs, dtype=np.int64)
    codes[patches.order] = np.repeat(np.arange(len(patches)), patches.sizes())
    return codes
