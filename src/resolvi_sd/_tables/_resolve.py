"""Lookup of the table."""

from __future__ import annotations

import pandas as pd
from anndata import AnnData
from spatialdata import SpatialData

from resolvi_sd._validation import check_key

__all__ = ["resolve_table"]


def resolve_table(data: SpatialData | AnnData, table_key: str) -> AnnData:
    """Return the table itself (not a copy).

    Parameters
    ----------
    data
        A SpatialData object, or a table.
    table_key
        Name of the table in a SpatialData object; ignored for an AnnData.

    Raises
    ------
    TypeError
        If `data` is neither, or if the table was read lazily.
    KeyError
        If there is no such table.
    """
    if isinstance(data, AnnData):
        return _loaded(data)
    if not isinstance(data, SpatialData):
        raise TypeError(
            f"`data` must be a SpatialData or an AnnData, not {type(data).__name__}. "
            "Read a store with `spatialdata.read_zarr(path)`, a table with `anndata.read_h5ad(path)`."
        )
    check_key(table_key, data.tables, argument="table_key", where="sdata.tables")
    return _loaded(data.tables[table_key])


def _loaded(adata: AnnData) -> AnnData:
    """Return the table, or raise if its columns are not in memory."""
    if not isinstance(adata.obs, pd.DataFrame):
        raise TypeError(
            f"The table was read lazily: its `obs` is a {type(adata.obs).__name__}, but must be a pandas.DataFrame. "
            "Load it with `table = table.to_memory()`."
        )
    return adata
