"""Physical sizes of the cells, from a column of the table."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from resolvi_sd._keys import unit_key
from resolvi_sd._validation import check_key, listing

__all__ = ["read_sizes", "size_unit"]


def size_unit(adata: AnnData, size_factor_key: str) -> str | None:
    """Return the unit of a column written by :func:`resolvi_sd.gr.cell_sizes`; None for a column from elsewhere."""
    record = adata.uns.get(unit_key(size_factor_key))
    return str(record["unit"]) if isinstance(record, Mapping) and "unit" in record else None


def read_sizes(adata: AnnData, size_factor_key: str) -> NDArray[np.float32]:
    """Return the size of each cell, `(n_cells,)` float32, in the units of the column.

    Raises
    ------
    KeyError
        If there is no such column.
    TypeError
        If it does not hold numbers.
    ValueError
        If sizes are missing, infinite, zero or negative; the message names the cells.
    """
    check_key(size_factor_key, adata.obs.columns, argument="size_factor_key", where="table.obs")
    column = adata.obs[size_factor_key]
    if not pd.api.types.is_numeric_dtype(column.dtype) or pd.api.types.is_bool_dtype(column.dtype):
        raise TypeError(f"size_factor_key={size_factor_key!r} must hold numbers, but its type is {column.dtype}.")
    sizes: NDArray[np.float32] = column.to_numpy(dtype=np.float32, na_value=np.nan)
    bad = ~(np.isfinite(sizes) & (sizes > 0))
    if bad.any():
        raise ValueError(
            f"size_factor_key={size_factor_key!r}: {int(bad.sum())} of {len(bad)} cells have a size that is missing, "
            f"infinite, zero or negative: {listing(adata.obs_names[bad], 5)}. Drop those cells, or repair their sizes."
        )
    return sizes
