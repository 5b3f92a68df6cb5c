"""Sums of corrected counts per sample and group, for tools that work on bulk samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from spatialdata import SpatialData

from resolvi_sd._analysis import cell_groups
from resolvi_sd._csr import group_sums
from resolvi_sd._keys import DEFAULT_KEY, Keys
from resolvi_sd._results import corrected_counts, kept_counts, unmeasured_genes
from resolvi_sd._setup import fitted_setup
from resolvi_sd._tables import means_x, one_group, read_matrix, resolve_table, table_counts
from resolvi_sd._validation import (
    check_flag,
    check_key,
    check_positive_int,
    check_result,
    check_unique,
    matrix_name,
)

__all__ = ["pseudobulk"]


def pseudobulk(
    data: SpatialData | AnnData,
    groupby: str,
    *,
    sample_key: str | None = None,
    layer: str | None = None,
    min_cells: int = 10,
    integer_counts: bool = True,
    table_key: str = "table",
    key_added: str = DEFAULT_KEY,
) -> AnnData:
    """Sum the corrected counts of each group in each sample.

    Parameters
    ----------
    data
        A SpatialData object or table on which :func:`resolvi_sd.tl.fit` was run. It is not changed.
    groupby
        Column of `obs` with the groups; cells without a value are left out, and so are cells with the
        `unlabeled_category` of the fit if these are its labels.
    sample_key
        Column of `obs` with the samples, the units of replication; cells without a value are left out. None: all
        cells are one sample.
    layer
        Layer to sum, with counts or expected counts; sums of logarithms or of normalized values would mean nothing.
        `"X"`: the counts in X. None: the corrected counts of the fit.
    min_cells
        Minimum number of cells; sums over fewer cells are left out.
    integer_counts
        Round the sums, as required by tools for counts (e.g. pydeseq2).
    table_key
        Name of the table in a SpatialData object.
    key_added
        Prefix of the results of the fit.

    Returns
    -------
    A new table with one row per sample and group, ordered by sample, and the genes of the table except those that a
    mapped query lacks:

    - `.X`: sums, dense; int64 if `integer_counts`, otherwise float64;
    - `.obs`: `sample` and `group` (categorical), `n_cells`, `n_molecules` (sum before rounding);
    - `.var`: that of the table.

    Raises
    ------
    KeyError
        If a column or the layer does not exist, or there is no fit.
    ValueError
        If no group has enough cells in any sample, the layer has negative values or NaN, or X holds no counts.

    Examples
    --------
    >>> import resolvi_sd as rsd
    >>> sdata = rsd.datasets.simulate_tissue(n_cells=300, n_genes=40, n_samples=2, rng=0)
    >>> rsd.tl.fit(sdata, max_epochs=2, show_progress_bar=False)
    >>> bulk = rsd.tl.pseudobulk(sdata, groupby="cell_type", sample_key="sample", min_cells=1)
    >>> int(bulk.obs["n_cells"].sum())
    300
    """
    check_positive_int(min_cells, argument="min_cells")
    check_flag(integer_counts, argument="integer_counts")
    adata = resolve_table(data, table_key)
    keys = Keys(key_added)
    if layer is None:
        tool = keys.call("fit")
        check_result(keys.counts, adata.layers, where="table.layers", tool=tool)
    elif not means_x(adata, layer):
        check_key(layer, adata.layers, argument="layer", where="table.layers", hint="layer='X' sums X.")
    groups = cell_groups(adata, groupby, argument="groupby", setup=fitted_setup(adata, keys))
    if sample_key is None:
        samples = one_group(adata.n_obs, "all")
    else:
        samples = cell_groups(adata, sample_key, argument="sample_key")
    n_groups, n_places = len(groups.names), len(samples.names) * len(groups.names)
    place = np.where((groups.codes >= 0) & (samples.codes >= 0), samples.codes * n_groups + groups.codes, -1)
    n_cells = np.bincount(place[place >= 0], minlength=n_places)
    kept = np.flatnonzero(n_cells >= min_cells)
    if not len(kept):
        raise ValueError(
            f"No group of obs[{groupby!r}] has {min_cells} cells in any sample; the largest has "
            f"{n_cells.max(initial=0)}. Lower `min_cells`, or merge groups."
        )
    if layer in (None, keys.counts, keys.decontaminated):
        # Checked against the counts of the fit, if the table still has them: they may have been transformed in place.
        values = corrected_counts(adata, keys, kept_counts(adata, keys), layer=layer)
    elif means_x(adata, layer):
        values = table_counts(adata, None)
    else:
        values = read_matrix(adata.layers[layer], name=matrix_name(layer), check=_check_molecules)
    measured = ~adata.var_names.isin(unmeasured_genes(adata, keys))
    row = np.full(n_places + 1, -1)  # the last entry is what -1 selects
    row[kept] = np.arange(len(kept))
    sums = group_sums(values, row[place], len(kept))[:, measured]
    of_sample, of_group = (
        np.array(x)[i] for x, i in zip((samples.names, groups.names), np.divmod(kept, n_groups), strict=True)
    )
    obs = pd.DataFrame(
        {
            "sample": pd.Categorical(of_sample, categories=list(samples.names)),
            "group": pd.Categorical(of_group, categories=list(groups.names)),
            "n_cells": n_cells[kept],
            "n_molecules": sums.sum(axis=1),
        },
        index=[f"{sample}:{group}" for sample, group in zip(of_sample, of_group, strict=True)],
    )
    check_unique(
        obs.index, what="Row names (`sample:group`)", todo=f"Rename values of obs[{sample_key!r}] that hold a colon."
    )
    bulk = np.rint(sums).astype(np.int64) if integer_counts else sums
    return AnnData(bulk, obs=obs, var=adata.var[measured].copy())


def _check_molecules(values: NDArray[Any]) -> None:
    """Raise ValueError unless the values are numbers of molecules or rates."""
    if len(values) and not (np.isfinite(values).all() and values.min() >= 0):
        raise ValueError(
            "`layer` has values that are negative or not finite (NaN or infinity): these are not molecules to sum."
        )
