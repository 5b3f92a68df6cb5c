"""Lookup of the table, and of the group (section, batch) that each of its cells belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from spatialdata import SpatialData

from resolvi_sd._validation import check_complete, check_key, check_unique

__all__ = ["Groups", "column_text", "cross", "group_by", "one_group", "resolve_table", "text_categories"]


@dataclass(frozen=True)
class Groups:
    """A partition of the cells.

    Attributes
    ----------
    codes
        Group of each cell, `(n_cells,)` int32, from 0 to the number of groups - 1; every group has cells.
    names
        Name of each group.
    """

    codes: NDArray[np.int32]
    names: tuple[str, ...]


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


def one_group(n_cells: int, name: str) -> Groups:
    """Return the partition with all cells in one group."""
    return Groups(np.zeros(n_cells, dtype=np.int32), (name,))


def group_by(adata: AnnData, key: str, *, argument: str) -> Groups:
    """Partition the cells by a column of `obs`, in the order of :func:`text_categories`.

    Raises
    ------
    KeyError
        If there is no such column.
    ValueError
        If cells have no value.
    """
    check_key(key, adata.obs.columns, argument=argument, where="table.obs")
    column = adata.obs[key]
    check_complete(column, argument=argument)
    return _encode(column)


def column_text(column: pd.Series[Any]) -> NDArray[np.object_]:
    """Return the values of a column as text; for a categorical column, the names of the categories.

    `column.astype(str)` formats categories that are not text, such as dates, differently from their index.
    """
    if not isinstance(column.dtype, pd.CategoricalDtype):
        return column.astype(str).to_numpy(dtype=object)
    # A missing value has the code -1.
    names = np.append(column.cat.categories.astype(str).to_numpy(dtype=object), "nan")
    text: NDArray[np.object_] = names[column.cat.codes.to_numpy()]
    return text


def text_categories(column: pd.Series[Any]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return the category of each cell, -1 if it has none, and the names of the categories.

    Categories keep their order, numbers are sorted numerically, and other values as text.

    Raises
    ------
    ValueError
        If two categories are the same as text (1 and "1").
    """
    if isinstance(column.dtype, pd.CategoricalDtype):
        categories = pd.Index(column.cat.categories.astype(str), dtype=object)
        check_unique(
            categories, what=f"Categories of the column {column.name!r}, read as text,", todo="Rename one of each."
        )
        return column.cat.codes.to_numpy().astype(np.int64), tuple(str(name) for name in categories)
    known = column.dropna()
    if pd.api.types.is_numeric_dtype(column.dtype):
        names = tuple(dict.fromkeys(str(name) for name in known.sort_values().astype(str)))
    else:
        names = tuple(sorted({str(name) for name in known.astype(str)}))
    codes = pd.Index(names, dtype=object).get_indexer(pd.Index(column_text(column), dtype=object))
    return np.where(column.notna(), codes, -1).astype(np.int64), names


def _encode(column: pd.Series[Any]) -> Groups:
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.cat.remove_unused_categories()
    codes, names = text_categories(column)
    return Groups(codes.astype(np.int32), names)


def cross(first: Groups, second: Groups) -> Groups:
    """Partition the cells by both groupings, into the combinations that occur, named `first:second`.

    The first is returned itself if the second does not split it any further, and the second if the first is one group.
    """
    pair = first.codes.astype(np.int64) * len(second.names) + second.codes
    found, codes = np.unique(pair, return_inverse=True)
    if len(found) == len(first.names):
        return first
    if len(first.names) == 1:
        return second
    names = tuple(f"{first.names[i]}:{second.names[j]}" for i, j in (divmod(int(p), len(second.names)) for p in found))
    return Groups(codes.reshape(-1).astype(np.int32), names)
