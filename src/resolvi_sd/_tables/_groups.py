"""Groups of cells: sections, batches, labels and other columns of `obs`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from resolvi_sd._validation import check_complete, check_key, check_unique, group_name

__all__ = ["Groups", "cross", "group_by", "one_group", "read_groups"]


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

    def without(self, name: str) -> Groups:
        """Return the groups except the one of this name or, if there is none, those of this number (-1 is -1.0)."""
        is_same = str.__eq__ if name in self.names else _is_same_number
        return self.only(np.flatnonzero([not is_same(known, name) for known in self.names]))

    def only(self, chosen: NDArray[np.integer]) -> Groups:
        """Return some groups, numbered by their place in `chosen`; cells of the others are in none."""
        place = np.full(len(self.names) + 1, -1, dtype=np.int64)  # the last entry is what -1 selects
        place[chosen] = np.arange(len(chosen))
        return replace(self, codes=place[self.codes], names=tuple(self.names[code] for code in chosen))


def one_group(n_cells: int, name: str) -> Groups:
    """Return all cells as one group."""
    return Groups(np.zeros(n_cells, dtype=np.int64), (name,))


def read_groups(column: pd.Series[Any]) -> Groups:
    """Return the groups in a column, including categories without cells; cells without a value are in none.

    Categories keep their order, numbers are sorted numerically, and other values as text.

    Raises
    ------
    ValueError
        If two values are the same as text (1 and "1").
    """
    key = "" if column.name is None else str(column.name)
    if isinstance(column.dtype, pd.CategoricalDtype):
        names = _as_text(column.cat.categories)
        _check_distinct(names, column)
        return Groups(column.cat.codes.to_numpy().astype(np.int64), tuple(names), key)
    codes, values = pd.factorize(column)
    found = pd.Index(values)
    text = _as_text(found)
    _check_distinct(text, column)
    names = text[found.argsort()] if pd.api.types.is_numeric_dtype(found.dtype) else text.sort_values()
    place = np.append(names.get_indexer(text), -1)  # the last entry is what -1 selects
    return Groups(place[codes].astype(np.int64), tuple(names), key)


def _check_distinct(names: pd.Index[Any], column: pd.Series[Any]) -> None:
    check_unique(names, what=f"Values of the column {column.name!r}, read as text,", todo="Rename one of each.")


def _as_text(values: pd.Index[Any]) -> pd.Index[Any]:
    """Return each value as text that does not depend on the other values."""
    if pd.api.types.is_datetime64_any_dtype(values.dtype):
        # pandas leaves out the time if it is midnight in all values.
        values = pd.Index([value.date() if value == value.normalize() else value for value in values], dtype=object)
    pairs = zip(values, values.astype(str), strict=True)
    return pd.Index([group_name(value if isinstance(value, float) else text) for value, text in pairs], dtype=object)


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


def _is_same_number(name: str, other: str) -> bool:
    with suppress(ValueError):
        return float(name) == float(other)
    return False


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
