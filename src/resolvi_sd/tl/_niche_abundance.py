"""Composition of the neighborhoods of cells."""

from __future__ import annotations

import pandas as pd
from anndata import AnnData
from spatialdata import SpatialData

from resolvi_sd._analysis import Weighting, label_probabilities, neighborhood_composition, table_edges, write_niches
from resolvi_sd._keys import DEFAULT_KEY, Keys
from resolvi_sd._tables import resolve_table
from resolvi_sd._validation import check_takes_results

__all__ = ["niche_abundance"]


def niche_abundance(
    data: SpatialData | AnnData,
    labels_key: str | None = None,
    *,
    weighting: Weighting = "uniform",
    table_key: str = "table",
    key_added: str = DEFAULT_KEY,
    copy: bool = False,
) -> pd.DataFrame | None:
    """Describe each cell by the labels of its neighbors on the graph of the fit.

    Parameters
    ----------
    data
        A SpatialData object or table on which :func:`resolvi_sd.tl.fit` was run. If the table has been subset since,
        only the remaining neighbors count.
    labels_key
        Column of `obs` with labels; cells without a value (or, in the labels of the fit, with its
        `unlabeled_category`) do not count as neighbors. None: the label probabilities of a semi-supervised fit.
    weighting
        How neighbors are weighted. `"uniform"`: equally; `"distance"`: by exp(-distance / median distance);
        `"weights"`: by the neighbor weights of the fit.
    table_key
        Name of the table in a SpatialData object.
    key_added
        Prefix of the results of the fit.
    copy
        Leave `data` unchanged and return the result.

    Returns
    -------
    None, or a DataFrame, cells × labels, if `copy`. Modifies the table with:

    - `.obsm['resolvi_niche']`: share of each label among the neighbors, cells × labels, float32; rows sum to 1, or
      are NaN for cells without a labeled neighbor;
    - `.uns['resolvi_niche_labels']`: names of the labels;
    - `.uns['resolvi_niche_labels_key']`: `labels_key`, empty for the label probabilities of the fit;
    - `.uns['resolvi_niche_weighting']`: `weighting`.

    Raises
    ------
    KeyError
        If the table has no graph of a fit, the column does not exist, or there are no label probabilities.
    ValueError
        If `weighting` is unknown, or no cell has a label.

    Warns
    -----
    UserWarning
        If neighbors of the fit are no longer in the table.

    Examples
    --------
    >>> import resolvi_sd as rsd
    >>> sdata = rsd.datasets.simulate_tissue(n_cells=300, n_genes=40, rng=0)
    >>> rsd.tl.fit(sdata, max_epochs=2, show_progress_bar=False)
    >>> rsd.tl.niche_abundance(sdata, labels_key="cell_type")
    >>> sdata.tables["table"].obsm["resolvi_niche"].shape
    (300, 8)
    """
    adata = resolve_table(data, table_key)
    if not copy:
        check_takes_results(adata)
    keys = Keys(key_added)
    edges = table_edges(adata, keys, weighting)
    labels = label_probabilities(adata, keys, labels_key)
    composition = neighborhood_composition(edges, labels.values)
    if copy:
        return pd.DataFrame(composition, index=adata.obs_names, columns=list(labels.names))
    write_niches(adata, keys, composition, labels, labels_key, weighting)
    return None
