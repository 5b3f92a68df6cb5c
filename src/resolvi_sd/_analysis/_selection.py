"""Groups of cells for a comparison, given by a column or by selections of cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from resolvi_sd._validation import check_unique, listing

__all__ = ["CellSelection", "selected_groups"]

# A mask, positions or names of cells, or a query on `obs`.
CellSelection: TypeAlias = (
    "str | Sequence[bool] | Sequence[int] | Sequence[str] | NDArray[np.bool_] | NDArray[np.integer] | pd.Series[bool]"
)


def selected_groups(
    table: AnnData,
    groupby: str | None,
    group1: str | Sequence[str] | None,
    group2: str | Sequence[str] | None,
    idx1: CellSelection | None,
    idx2: CellSelection | None,
    *,
    column: str,
) -> dict[str, Any]:
    """Return a comparison as `groupby`, `group1` and `group2`; selected cells are marked in a new column of the table.

    Raises
    ------
    ValueError
        If neither or both of a column and cells are given, or if cells are on both sides.
    """
    if idx1 is None:
        if idx2 is not None or groupby is None:
            raise ValueError(
                "Specify which cells to compare: groupby=..., a column of `obs` with groups, or idx1=..., a selection "
                "of cells (`idx2` selects the cells that they are compared with)."
            )
        return {"groupby": groupby, "group1": group1, "group2": group2}
    named = {"groupby": groupby, "group1": group1, "group2": group2}
    if given := [name for name, value in named.items() if value is not None]:
        raise ValueError(f"`idx1` already selects the cells: leave out {', '.join(f'`{name}`' for name in given)}.")
    first = _chosen(table, idx1, argument="idx1")
    second = ~first if idx2 is None else _chosen(table, idx2, argument="idx2")
    if not second.any():
        raise ValueError("`idx1` contains all cells of the table: there is nothing to compare them with.")
    if both := int((first & second).sum()):
        raise ValueError(f"{both:,} cells are in both `idx1` and `idx2`.")
    for argument, side in (("idx1", first), ("idx2", second)):
        if side.sum() == 1:
            raise ValueError(f"`{argument}` selects a single cell, but a comparison needs at least two on each side.")
    sides = np.select([first, second], [0, 1], -1)
    table.obs[column] = pd.Categorical.from_codes(sides, categories=pd.Index(["idx1", "idx2"]))
    return {"groupby": column, "group1": "idx1", "group2": "idx2"}


def _chosen(table: AnnData, cells: CellSelection, *, argument: str) -> NDArray[np.bool_]:
    """Return a mask of the cells that are selected by a mask, positions, names or a query.

    Raises
    ------
    ValueError, TypeError, KeyError
        If the selection is empty, names cells that do not exist, or is none of these.
    """
    chosen = np.zeros(table.n_obs, dtype=bool)
    if isinstance(cells, str):
        try:
            chosen[table.obs.set_axis(np.arange(table.n_obs)).query(cells).index] = True
        except Exception as error:
            raise ValueError(
                f"{argument}={cells!r} is not a valid query on `obs` (`obs.query(...)`): {error}"
            ) from error
    else:
        values = _by_position(table, cells, argument=argument)
        if values.ndim != 1 or (values.size and values.dtype.kind not in "biu"):
            raise TypeError(
                f"`{argument}` must be a mask, positions or names of cells, or a query on `obs`, not a "
                f"{values.ndim}-dimensional array of {values.dtype}."
            )
        if values.dtype.kind == "b" and len(values) != table.n_obs:
            raise ValueError(
                f"The mask `{argument}` has {len(values):,} values, but the table has {table.n_obs:,} cells."
            )
        if values.dtype.kind != "b" and len(values) == table.n_obs > 2 and np.isin(values, (0, 1)).all():
            raise TypeError(f"`{argument}` has an integer, 0 or 1, for every cell: pass a mask, `{argument} == 1`.")
        if values.dtype.kind != "b" and len(values) and not 0 <= values.min() <= values.max() < table.n_obs:
            raise ValueError(f"`{argument}` has positions beyond the {table.n_obs:,} cells of the table.")
        if values.size:  # an empty list has no integers
            chosen[values] = True
    if not chosen.any():
        raise ValueError(
            f"{argument}={cells!r} selects no cells." if isinstance(cells, str) else f"`{argument}` is empty."
        )
    return chosen


def _by_position(table: AnnData, cells: Any, *, argument: str) -> NDArray[Any]:
    """Return a mask in the order of the table, or positions instead of names; anything else as an array."""
    if isinstance(cells, pd.Series) and pd.api.types.is_bool_dtype(cells.dtype):
        if cells.isna().any():
            raise ValueError(f"The mask `{argument}` has missing values: fill them in, e.g. `mask.fillna(False)`.")
        if cells.index.equals(table.obs_names):
            return cells.to_numpy(dtype=bool)
        if not cells.index.is_unique or len(cells) != table.n_obs or not table.obs_names.isin(cells.index).all():
            raise ValueError(
                f"The mask `{argument}` is a Series of {len(cells):,} values whose index does not name the "
                f"{table.n_obs:,} cells of the table exactly once: pass `mask.to_numpy()` if it is in their order."
            )
        return cells.reindex(table.obs_names).to_numpy(dtype=bool)
    values = np.asarray(cells)
    if values.ndim != 1 or not len(values) or not all(isinstance(name, str) for name in values):
        return values
    check_unique(table.obs_names, what="`obs_names`", todo=f"Make it unique, or select `{argument}` by a mask.")
    found: NDArray[np.intp] = table.obs_names.get_indexer(pd.Index(values, dtype=object))
    if (found < 0).any():
        raise KeyError(
            f"`{argument}` names {int((found < 0).sum()):,} cells that are not in the table: "
            f"{listing(values[found < 0], 5)}. The table has: {listing(table.obs_names, 5)}."
        )
    return found
