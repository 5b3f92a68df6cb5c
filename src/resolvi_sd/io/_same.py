"""Checks that prevent a write: the table in memory is not the one on disk, or the store cannot be written to."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from anndata.io import read_elem
from numpy.typing import NDArray
from spatialdata.models import TableModel

from resolvi_sd._validation import listing
from resolvi_sd.io._store import Element, TableStore, text_values

__all__ = ["check_same_columns", "check_same_coordinates", "check_has_layer", "check_permissions", "check_same_table"]

_MISSING = ("None", "NaN", "<NA>")


def _difference(memory: NDArray[np.str_], disk: NDArray[np.str_]) -> str | None:
    if np.array_equal(memory, disk):
        return None
    counted = f"{len(memory)} in memory, {len(disk)} in the store"
    missing, extra = np.setdiff1d(disk, memory), np.setdiff1d(memory, disk)
    if missing.size or extra.size:
        only_disk = f"only in the store: {len(missing)} ({listing(missing.tolist(), 3)})"
        only_memory = f"only in memory: {len(extra)} ({listing(extra.tolist(), 3)})"
        return f"{counted}; {only_disk}; {only_memory}"
    return f"{counted}; the names are the same, their order or number is not"


def check_same_table(store: TableStore, table: AnnData) -> None:
    """Raise unless the table on disk has the rows and the genes of the table in memory, in the same order.

    Raises
    ------
    ValueError
        If the names of cells or genes, or the region or instance id of cells, differ.
    """
    pairs = [
        ("rows (`obs_names`)", text_values(table.obs_names), store.obs_names()),
        ("genes (`var_names`)", text_values(table.var_names), store.var_names()),
    ]
    attrs = table.uns.get(TableModel.ATTRS_KEY, {})
    in_memory = [attrs.get(name) for name in (TableModel.REGION_KEY_KEY, TableModel.INSTANCE_KEY)]
    for key in dict.fromkeys([*store.annotation_keys(), *(str(key) for key in in_memory if key)]):
        disk = store.column(key)
        if disk is not None and key in table.obs:
            pairs.append((f"cells (`obs[{key!r}]`)", text_values(table.obs[key]), disk))
    for what, memory, disk in pairs:
        difference = _difference(memory, disk)
        if difference:
            raise ValueError(
                f"The {what} of `sdata.tables[{store.table_key!r}]` are not those of the table in the store "
                f"{str(store.root)!r}: {difference}. Was the table filtered, re-ordered or renamed after reading? "
                f"{_elsewhere(store)}"
            )


def check_same_columns(store: TableStore, table: AnnData, columns: Iterable[str]) -> None:
    """Raise unless the given columns of `obs`, as far as the table in memory has them, are the same on disk.

    Raises
    ------
    ValueError
        If columns exist in memory only, or have other values there; the message names them.
    """
    columns = tuple(columns)
    stored = store.columns()
    missing = [column for column in columns if column in table.obs and column not in stored]
    if missing:
        raise ValueError(
            f"The fit reads columns of `obs` that are not in the table {store.table_key!r} of the store "
            f"{str(store.root)!r}, but in memory only: {listing(missing)}. Without them its results are of no use when "
            f"they are read back. {_elsewhere(store)}"
        )
    frame = store.group()["obs"]
    changed = [c for c in columns if c in table.obs and not _is_same(table.obs[c], read_elem(frame[c]))]
    if changed:
        raise ValueError(
            f"The fit reads columns of `obs` that have other values in memory than in the table {store.table_key!r} of "
            f"the store {str(store.root)!r}: {listing(changed)}. With those on disk its results would mean something "
            f"else when they are read back. {_elsewhere(store)}"
        )


def _is_same(memory: pd.Series[Any], disk: Any) -> bool:
    """Return whether a column has the same values (numbers or names), whatever their data type."""
    disk = pd.Series(disk)
    if all(pd.api.types.is_numeric_dtype(column.dtype) for column in (memory, disk)):
        one, other = (column.to_numpy(dtype=np.float64, na_value=np.nan) for column in (memory, disk))
        return np.array_equal(one, other, equal_nan=True)
    return np.array_equal(_with_one_missing(memory), _with_one_missing(disk))


def _with_one_missing(column: pd.Series[Any]) -> NDArray[np.str_]:
    """Return values as text, missing ones as "nan"; anndata has stored the text of whatever marked them as missing."""
    text = text_values(column)
    return np.where(column.isna().to_numpy() | np.isin(text, _MISSING), "nan", text)


def check_same_coordinates(store: TableStore, table: AnnData, spatial_key: str | None) -> None:
    """Raise unless the table on disk has the coordinates of the table in memory, if the latter has any.

    Raises
    ------
    ValueError
        If the coordinates exist in memory only, or differ.
    """
    if spatial_key is None or spatial_key not in table.obsm:
        return
    if store.element(("obsm", spatial_key)).exists():
        disk = read_elem(store.group()[f"obsm/{spatial_key}"])
        if np.array_equal(np.asarray(table.obsm[spatial_key]), np.asarray(disk)):
            return
    raise ValueError(
        f"The fit reads the coordinates obsm[{spatial_key!r}], which differ or are missing in the table "
        f"{store.table_key!r} of the store {str(store.root)!r}. Without them, the results are of no use when they are "
        f"read back. {_elsewhere(store)}"
    )


def check_has_layer(store: TableStore, table: AnnData, layer: str | None) -> None:
    """Raise unless the table on disk has the layer of counts, if the table in memory has it.

    Raises
    ------
    ValueError
        If the layer exists in memory only.
    """
    if layer is not None and layer in table.layers and not store.element(("layers", layer)).exists():
        raise ValueError(
            f"The fit reads the layer {layer!r}, which is not in the table {store.table_key!r} of the store "
            f"{str(store.root)!r}, but in memory only. Without it the results are of no use when they are read back. "
            f"{_elsewhere(store)}"
        )


def _elsewhere(store: TableStore) -> str:
    name = store.table_key
    return (
        f"Keep it as another table (`sdata.tables['{name}_new'] = sdata.tables['{name}']; "
        f"sdata.write_element('{name}_new')`) or write another store (`sdata.write(path)`)."
    )


def check_permissions(store: TableStore, elements: Iterable[Element], slots: Iterable[str]) -> None:
    """Raise unless elements can be written to the store and replaced.

    Raises
    ------
    PermissionError
        If a folder that has to change is read-only.
    OSError
        If the table is on another file system than the store, so that nothing can be renamed into place.
    """
    folders = [store.root, store.path, *(store.path / slot for slot in slots), *map(store.element, elements)]
    folders = [folder for folder in folders if folder.exists()]
    for folder in folders:
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(
                f"The store {str(store.root)!r} is read-only (no permission to write into {str(folder)!r}). "
                "Write the object with its results elsewhere: `sdata.write(path)`."
            )
        if folder.stat().st_dev != store.root.stat().st_dev:
            raise OSError(
                f"{str(folder)!r} is on another file system than its store {str(store.root)!r}, so that results "
                "cannot be put there in one step. Write the object elsewhere: `sdata.write(path)`."
            )
