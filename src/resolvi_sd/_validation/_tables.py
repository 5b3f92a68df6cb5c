"""Checks of tables: enough cells and genes, and able to take results."""

from __future__ import annotations

from typing import Any

import h5py
import pandas as pd
import zarr
from anndata import AnnData
from anndata.abc import CSCDataset, CSRDataset

from resolvi_sd._validation._names import check_unique

__all__ = ["STORED", "check_cells", "check_genes", "check_is_table", "check_takes_results"]

# Types of matrices whose values are in a file.
STORED = (CSRDataset, CSCDataset, h5py.Dataset, zarr.Array)


def check_cells(n_cells: int) -> None:
    """Raise unless there are at least two cells.

    Raises
    ------
    ValueError
        If there is no cell, or only one, which has no neighbor to receive molecules from.
    """
    if n_cells < 2:
        raise ValueError(
            f"The table has {n_cells} cell{'' if n_cells == 1 else 's'}; at least 2 are needed, since the model "
            "separates a cell from its neighbors. Was the table filtered too strictly?"
        )


def check_genes(names: pd.Index[Any]) -> None:
    """Raise unless there are at least two genes, with unique names.

    Raises
    ------
    ValueError
        If there are fewer than two genes (an expression profile needs two), or if names repeat.
    """
    if len(names) < 2:
        raise ValueError(
            f"The table has {len(names)} gene{'' if len(names) == 1 else 's'}; at least 2 are needed, since the "
            "model distinguishes sources by their expression profiles. Was the panel filtered too strictly?"
        )
    check_unique(names, what="Gene names (`table.var_names`)", todo="Call `table.var_names_make_unique()` first.")


def check_is_table(adata: object, *, argument: str = "adata") -> None:
    """Raise TypeError unless `adata` is a table (AnnData)."""
    if not isinstance(adata, AnnData):
        hint = " call `resolvi_sd.tl.fit(sdata)`, or" if argument == "adata" else ""
        raise TypeError(
            f"`{argument}` must be an AnnData, not {type(adata).__name__}. For a SpatialData object{hint} pass one of "
            "its tables: `sdata.tables['table']`."
        )


def check_takes_results(adata: AnnData, *, copy: bool = False) -> None:
    """Raise if anndata cannot add results to a table, or to a copy of it.

    Raises
    ------
    ValueError
        If a copy is requested of a table that is, or has a matrix, in a file; or if the table is a view of a table that
        is backed by a file.
    """
    matrices = [adata.X, *(adata.layers[name] for name in adata.layers if name is not None)] if copy else []
    if any(isinstance(matrix, STORED) for matrix in matrices) or (adata.isbacked and (copy or adata.is_view)):
        what = "`copy=True` needs a table in memory, and this one" if copy else "This piece of a table"
        raise ValueError(
            f"{what} is in a file, which anndata does not copy. Pass the whole table, without `copy`: results are "
            "added to it in memory, and the file is not changed. Or load it: `table = table.to_memory()`."
        )
