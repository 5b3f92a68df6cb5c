"""Differential expression in scanpy's layout, recreated from the stored results."""

from __future__ import annotations

import pandas as pd
from anndata import AnnData
from spatialdata import SpatialData

from resolvi_sd._analysis import rank_genes_groups as scanpy_layout
from resolvi_sd._keys import DEFAULT_KEY, Keys
from resolvi_sd._results import read_fit
from resolvi_sd._tables import read_groups, resolve_table
from resolvi_sd._validation import check_result, check_takes_results, listing

__all__ = ["rank_genes_groups"]


def rank_genes_groups(
    data: SpatialData | AnnData,
    *,
    table_key: str = "table",
    key_added: str = DEFAULT_KEY,
) -> None:
    """Write the differential expression results in scanpy's layout, for its plots and getters.

    :func:`resolvi_sd.tl.differential_expression` already does so. :func:`resolvi_sd.io.write_results` leaves this view
    out of the store, since a store with scanpy's record arrays cannot be opened by all versions of zarr; this function
    recreates it for a table that was read back.

    Parameters
    ----------
    data
        A SpatialData object or table with `.uns['resolvi_de']`.
    table_key
        Name of the table in a SpatialData object.
    key_added
        Prefix of the results of the fit.

    Returns
    -------
    None. Modifies the table with `.uns['resolvi_rank_genes_groups']`.

    Raises
    ------
    KeyError
        If there is no fit, or there are no differential expression results.
    ValueError
        If the groups that were compared are no longer in their column, or the table cannot take results.

    Examples
    --------
    >>> import resolvi_sd as rsd
    >>> sdata = rsd.datasets.simulate_tissue(n_cells=300, n_genes=40, rng=0)
    >>> rsd.tl.fit(sdata, max_epochs=2, show_progress_bar=False)
    >>> rsd.tl.differential_expression(sdata, groupby="cell_type", show_progress_bar=False)
    >>> table = sdata.tables["table"]
    >>> del table.uns["resolvi_rank_genes_groups"]
    >>> rsd.tl.rank_genes_groups(sdata)
    >>> table.uns["resolvi_rank_genes_groups"]["names"].dtype.names[:2]
    ('type_0', 'type_1')
    """
    adata = resolve_table(data, table_key)
    check_takes_results(adata)
    keys = Keys(key_added)
    fitted = read_fit(adata, keys)
    tool = keys.call("differential_expression")
    check_result(keys.de, adata.uns, where="table.uns", tool=tool)
    result: pd.DataFrame = adata.uns[keys.de]
    groupby = str(result["groupby"].iloc[0])
    # The comparisons may have been stored without the column, such as clusters that were found after the fit.
    known = read_groups(adata.obs[groupby]).names if groupby in adata.obs else tuple(result["group1"].astype(str))
    unknown = sorted(set(result["group1"].astype(str)) - set(known))
    if unknown:
        raise ValueError(
            f"The groups {listing(unknown)} of `uns[{keys.de!r}]` are not in obs[{groupby!r}], which has "
            f"{listing(known)}. Compare again with `{tool}`."
        )
    layer = keys.counts if keys.counts in adata.layers else fitted.setup.layer
    adata.uns[keys.rank_genes_groups] = scanpy_layout(result, groupby=groupby, layer=layer)
