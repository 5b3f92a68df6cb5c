"""Checks whether results can be written to a store, made before a fit and again before a write."""

from __future__ import annotations

from collections.abc import Sequence

from anndata import AnnData
from spatialdata import SpatialData

from resolvi_sd._keys import DEFAULT_KEY, Keys
from resolvi_sd._setup import fitted_setup
from resolvi_sd._tables import annotation
from resolvi_sd._validation import check_key, check_names
from resolvi_sd.io._hidden import Hidden
from resolvi_sd.io._same import (
    check_has_layer,
    check_permissions,
    check_same_columns,
    check_same_coordinates,
    check_same_table,
)
from resolvi_sd.io._state import check_store_free, stored_elements
from resolvi_sd.io._store import TableStore, open_store

__all__ = ["check_inputs", "check_writable", "find_table"]


def check_writable(
    sdata: SpatialData,
    table_key: str = "table",
    *,
    key_added: str = DEFAULT_KEY,
    columns: Sequence[str] | None = None,
    layer: str | None = None,
    spatial_key: str | None = None,
) -> None:
    """Raise unless `resolvi_sd.io.write_results` can add results to the store that `sdata` is backed by.

    Nothing is written or computed, so a long job can fail before it starts. The table need not have results yet.

    Parameters
    ----------
    sdata
        A SpatialData object.
    table_key
        Name of the table.
    key_added
        Prefix of the results, as given to `resolvi_sd.tl.fit`.
    columns
        Columns of `obs` that the fit will read (batches, sections, labels, covariates, sizes). If None, the columns
        that the fit in the table has read, if there is one.
    layer
        Layer with the counts that the fit will read. If None, X, or what the fit in the table has read, if any.
    spatial_key
        Entry of `obsm` with the coordinates that the fit will read, if the table annotates no element. If None, the
        entry that the fit in the table has read, if there is one.

    Raises
    ------
    TypeError
        If `sdata` is not a SpatialData object.
    ValueError
        If `sdata` is not backed, or not by a local folder (but by a remote store or a file); if the rows or genes on
        disk are not those in memory, in the same order; if columns, coordinates or the layer that the fit reads exist
        in memory only, or if the columns or coordinates differ from those on disk; if the store has entries with the
        names of results but no fit; if `key_added` is not a valid name for elements of a store.
    KeyError
        If the table is missing in memory or in the store.
    PermissionError
        If the store is read-only.
    OSError
        If parts of the table are on another file system than the store.

    Examples
    --------
    >>> import resolvi_sd as rsd
    >>> sdata = rsd.datasets.simulate_tissue(n_cells=100, n_genes=30, rng=0)
    >>> rsd.io.check_writable(sdata)
    Traceback (most recent call last):
    ValueError: `sdata` is not backed by a store (`sdata.path` is None). ...
    """
    keys = Keys(key_added)
    table, store = find_table(sdata, table_key)
    check_same_table(store, table)
    if Hidden(store, keys.prefix).plan() is None:
        check_store_free(store, keys)
    check_inputs(store, table, keys, columns, layer, spatial_key)
    check_permissions(store, stored_elements(store, keys), keys.owned())


def check_inputs(
    store: TableStore,
    table: AnnData,
    keys: Keys,
    columns: Sequence[str] | None = None,
    layer: str | None = None,
    spatial_key: str | None = None,
) -> None:
    """Raise unless everything that a fit reads is on disk or among its results.

    Columns of `obs` and coordinates are checked to be the same as in memory; the values of the counts are not compared.

    Parameters
    ----------
    store, table
        The table on disk and in memory.
    keys
        Names of the results.
    columns, layer, spatial_key
        What the fit reads. If `columns` is None, everything that the fit in the table has read, if there is one.

    Raises
    ------
    ValueError
        If something exists in memory only or differs there; the message names it.
    """
    if columns is None:
        columns, fitted_layer, fitted_key = _read_by_fit(table, keys)
        layer, spatial_key = layer or fitted_layer, spatial_key or fitted_key
    read = check_names(columns, argument="columns")
    check_same_columns(store, table, [column for column in read if column not in keys.owned()["obs"]])
    check_has_layer(store, table, layer)
    if annotation(table) is None:
        check_same_coordinates(store, table, spatial_key)


def _read_by_fit(table: AnnData, keys: Keys) -> tuple[tuple[str, ...], str | None, str | None]:
    """Return the columns, the layer and the coordinates that the fit in the table has read."""
    setup = fitted_setup(table, keys)
    if setup is None:
        return (), None, None
    return setup.columns, setup.layer, setup.spatial_key


def find_table(sdata: SpatialData, table_key: str) -> tuple[AnnData, TableStore]:
    """Return a table in memory and the same table on disk.

    Raises
    ------
    TypeError, ValueError, KeyError
        As in :func:`check_writable`, but the two tables are not compared.
    """
    if not isinstance(sdata, SpatialData):
        raise TypeError(
            f"`sdata` must be a SpatialData object, not {type(sdata).__name__}: a table alone has no store."
        )
    check_key(table_key, sdata.tables, argument="table_key", where="sdata.tables")
    return sdata.tables[table_key], open_store(sdata, table_key)
