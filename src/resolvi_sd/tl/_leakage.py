"""Leakage between cell types, and the genes that leaked most."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from spatialdata import SpatialData
from tqdm.auto import tqdm

from resolvi_sd._analysis import label_groups
from resolvi_sd._csr import group_sums
from resolvi_sd._keys import DEFAULT_KEY, Keys
from resolvi_sd._model import leaked_molecules
from resolvi_sd._ratio import ratio
from resolvi_sd._results import restore
from resolvi_sd._setup import fitted_setup
from resolvi_sd._tables import Groups, resolve_table
from resolvi_sd._validation import check_positive_int, check_takes_results

__all__ = ["leakage"]

_CELLS = 2048


def leakage(
    data: SpatialData | AnnData,
    labels_key: str | None = None,
    *,
    n_genes: int = 10,
    table_key: str = "table",
    key_added: str = DEFAULT_KEY,
    copy: bool = False,
    show_progress_bar: bool = True,
) -> dict[str, Any] | None:
    """Sum the molecules that leaked between cell types, and find the genes that leaked most.

    The sums are taken in one pass over the posterior, at the means of the latent space and the shares: among the
    molecules of gene g counted in cell n, those expected to come from neighbor m are summed over the cells n of the
    target type and the cells m of the source type.

    Parameters
    ----------
    data
        A SpatialData object or table on which :func:`resolvi_sd.tl.fit` was run, in this session or before it was
        stored.
    labels_key
        Column of `obs` with the type of each cell; molecules from or into cells without a value (or, in the labels of
        the fit, with its `unlabeled_category`) are left out. None: the predictions of a semi-supervised fit.
    n_genes
        Number of genes to keep for each pair of types, those with the most leaked molecules first; fewer if fewer
        genes leaked.
    table_key
        Name of the table in a SpatialData object.
    key_added
        Prefix of the results of the fit.
    copy
        Leave `data` unchanged and return the result.
    show_progress_bar
        Whether to show a progress bar.

    Returns
    -------
    None, or the entry if `copy`. Modifies the table with:

    - `.uns['resolvi_leakage']['pairs']`: a DataFrame with a row for each pair of types: `source`, `target`, `molecules`
      (the expected number, from source into target), `fraction` (of all molecules counted in cells of the target type),
      `per_cell` (molecules per cell of the target type);
    - `.uns['resolvi_leakage']['genes']`: a DataFrame with a row for each pair and top gene: `source`, `target`, `gene`,
      `molecules`, `fraction` (of the gene's molecules counted in cells of the target type);
    - `.uns['resolvi_leakage']['labels_key']`, `['n_cells']`: the column, and the number of cells.

    Raises
    ------
    KeyError
        If there is no fit, the column does not exist, or there are no predictions.
    ValueError
        If no cell has a type, the column seems to contain measurements, or the genes of the table are no longer those
        of the fit.

    Examples
    --------
    >>> import resolvi_sd as rsd
    >>> sdata = rsd.datasets.simulate_tissue(n_cells=300, n_genes=40, rng=0)
    >>> rsd.tl.fit(sdata, max_epochs=2, show_progress_bar=False)
    >>> rsd.tl.leakage(sdata, "cell_type", n_genes=3, show_progress_bar=False)
    >>> list(sdata.tables["table"].uns["resolvi_leakage"]["pairs"].columns)
    ['source', 'target', 'molecules', 'fraction', 'per_cell']
    """
    check_positive_int(n_genes, argument="n_genes")
    adata = resolve_table(data, table_key)
    if not copy:
        check_takes_results(adata)
    keys = Keys(key_added)
    groups = _types(adata, keys, labels_key)
    fitted, tissue, graph = restore(adata, keys)
    molecules = leaked_molecules(
        fitted.module,
        tissue,
        tqdm(graph.compact_parts(_CELLS), desc="Leakage", disable=not show_progress_bar),
        groups.codes,
        len(groups.names),
    )
    counted = group_sums(tissue.counts, groups.codes, len(groups.names))
    result = {
        "labels_key": groups.key,
        "n_cells": adata.n_obs,
        "pairs": _pairs(molecules, counted, groups),
        "genes": _top_genes(molecules, counted, groups, np.asarray(fitted.genes, dtype=object), n_genes),
    }
    if copy:
        return result
    adata.uns[keys.leakage] = result
    return None


def _types(adata: AnnData, keys: Keys, labels_key: str | None) -> Groups:
    """Return the type of each cell."""
    if labels_key is None and keys.predicted not in adata.obs:
        raise KeyError(
            f"The table has no predicted labels (`obs[{keys.predicted!r}]`): name a column of `obs` with the types of "
            "the cells, `labels_key=...`, or fit with `labels_key=` first."
        )
    return label_groups(adata, labels_key or keys.predicted, fitted_setup(adata, keys))


def _named(codes: NDArray[np.int64], groups: Groups) -> pd.Categorical[str]:
    return pd.Categorical.from_codes(codes, categories=pd.Index(groups.names))


def _pairs(molecules: NDArray[np.float64], counted: NDArray[np.float64], groups: Groups) -> pd.DataFrame:
    source, target = (codes.ravel() for codes in np.indices(molecules.shape[:2]))
    total = molecules.sum(axis=2)
    return pd.DataFrame(
        {
            "source": _named(source, groups),
            "target": _named(target, groups),
            "molecules": total.ravel(),
            "fraction": ratio(total, counted.sum(axis=1)).ravel(),
            "per_cell": ratio(total, groups.sizes()).ravel(),
        }
    )


def _top_genes(
    molecules: NDArray[np.float64],
    counted: NDArray[np.float64],
    groups: Groups,
    genes: NDArray[np.object_],
    n_genes: int,
) -> pd.DataFrame:
    top = np.argsort(-molecules, axis=2, kind="stable")[:, :, :n_genes]
    source, target = (codes for codes in np.indices(top.shape)[:2])
    leaked = molecules[source, target, top]
    kept = leaked > 0
    source, target, gene, leaked = source[kept], target[kept], top[kept], leaked[kept]
    return pd.DataFrame(
        {
            "source": _named(source, groups),
            "target": _named(target, groups),
            "gene": genes[gene],
            "molecules": leaked,
            "fraction": ratio(leaked, counted[target, gene]),
        }
    )
