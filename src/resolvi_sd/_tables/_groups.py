"""Groups of cells: sections, batches, labels and other columns of `obs`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from resolvi_sd._validation import check_complete, check_key, check_unique

__all__ = ["Groups", "column_text", "cross", "group_by", "one_group", "read_groups"]


@dataclass(frozen=True)
class Groups:
    """Groups of cells; a cell is in one of them, or in none.

    Attributes
    ----------
    codes
        Group of each cell, `(n_cells,)` int64; -1 for none.
    names
        Name of each group.
    key
        Column of `obs` that they were read from, if any.
    """

    codes: NDArray[np.int64]
    names: tuple[str, ...]
    key: str = ""

    def of_cells(self) -> NDArray[np.object_]:
        """Return the name of each cell's group, None for none."""
        return np.array([*self.names, None], dtype=object)[self.codes]

    def sizes(self, among: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
        """Return the number of cells of each group, limited to those that are marked by `among`."""
        codes = self.codes if among is None else self.codes[among]
        return np.bincount(codes[codes >= 0], minlength=len(self.names))

    def members(self, codes: Sequence[int], among: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Return the rows of those cells of these groups that are marked by `among`."""
        return np.flatnonzero(np.isin(self.codes, codes) & among)

    def with_cells(self) -> Groups:
        """Return the groups that have cells, numbered anew."""
        return self.only(np.flatnonzero(self.sizes()))

    def only(self, chosen: NDArray[np.integer]) -> Groups:
        """Return some groups, numbered by their place in `chosen`; cells of the others are in none."""
        place = np.full(len(self.names) + 1, -1, dtype=np.int64)  # the last entry is what -1 selects
        place[chosen] = np.arange(len(chosen))
        return replace(self, codes=place[self.codes], names=tuple(self.names[code] for code in chosen))


def one_group(n_cells: int, name: str) -> Groups:
    """Return all cells as one group."""
    return Groups(np.zeros(n_cells, dtype=np.int64), (name,))


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


def read_groups(column: pd.Series[Any]) -> Groups:
    """Return the groups in a column, including categories without cells; cells without a value are in none.

    Categories keep their order, numbers are sorted numerically, and other values as text.

    Raises
    ------
    ValueError
        If two categories are the same as text (1 and "1").
    """
    key = "" if column.name is None else str(column.name)
    if isinstance(column.dtype, pd.CategoricalDtype):
        categories = pd.Index(column.cat.categories.astype(str), dtype=object)
        check_unique(
            categories, what=f"Categories of the column {column.name!r}, read as text,", todo="Rename one of each."
        )
        return Groups(column.cat.codes.to_numpy().astype(np.int64), tuple(str(name) for name in categories), key)
    known = column.dropna()
    if pd.api.types.is_numeric_dtype(column.dtype):
        names = tuple(dict.fromkeys(str(name) for name in known.sort_values().astype(str)))
    else:
        names = tuple(sorted({str(name) for name in known.astype(str)}))
    codes = pd.Index(names, dtype=object).get_indexer(pd.Index(column_text(column), dtype=object))
    return Groups(np.where(column.notna(), codes, -1).astype(np.int64), names, key)


def group_by(adata: AnnData, key: str, *, argument: str) -> Groups:
    """Return the groups with cells in a column of `obs` that has a value for each cell, see :func:`read_groups`.

    Raises
    ------
    KeyError
        If there is no such column.
    ValueError
        If cells have no value.
    """
    check_key(key, adata.obs.columns, argument=argument, where="table.obs")
    check_complete(adata.obs[key], argument=argument)
    return read_groups(adata.obs[key]).with_cells()


def cross(first: Groups, second: Groups) -> Groups:
    """Group the cells by both groupings, into the combinations that occur, named `first:second`.

    The first is returned itself if the second does not split it any further, and the second if the first is one group.
    """
    pair = first.codes * len(second.names) + second.codes
    found, codes = np.unique(pair, return_inverse=True)
    if len(found) == len(first.names):
        return first
    if len(first.names) == 1:
        return second
    names = tuple(f"{first.names[i]}:{second.names[j]}" for i, j in (divmod(int(p), len(second.names)) for p in found))
    return Groups(codes.reshape(-1), names)
