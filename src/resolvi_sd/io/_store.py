"""The table of a store on disk: where it is, what it is, and what refuses a write."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import zarr
from anndata import AnnData
from anndata.io import read_elem
from numpy.typing import NDArray
from spatialdata import SpatialData
from spatialdata.models import TableModel

from resolvi_sd._validation import check_key, listing

__all__ = [
    "Element",
    "TableStore",
    "check_columns",
    "check_coordinates",
    "check_layer",
    "check_permissions",
    "check_same_table",
    "open_store",
]

Element = tuple[str, str]
"""Slot of the table (`layers`, `obs`, ...) and key in it."""

_MISSING = ("None", "NaN", "<NA>")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(//|:)")


@dataclass(frozen=True)
class TableStore:
    """A table of a SpatialData store in a local folder.

    Attributes
    ----------
    root
        Folder of the store.
    table_key
        Name of the table.
    zarr_format
        Format of the table's zarr group, 2 or 3.
    """

    root: Path
    table_key: str
    zarr_format: int

    @property
    def path(self) -> Path:
        """Folder of the table."""
        return self.root / "tables" / self.table_key

    def element(self, element: Element) -> Path:
        """Folder of an element of the table."""
        slot, key = element
        return self.path / slot / key

    def group(self) -> zarr.Group:
        """Return the table's group as it is on disk, whatever consolidated metadata say."""
        return zarr.open_group(self.path, mode="r", use_consolidated=False)

    def obs_names(self) -> NDArray[np.str_]:
        """Names of the rows on disk, `(n_cells,)`."""
        return _index_names(self.group(), "obs", axis=0)

    def var_names(self) -> NDArray[np.str_]:
        """Names of the genes on disk, `(n_genes,)`."""
        return _index_names(self.group(), "var", axis=1)

    def columns(self) -> tuple[str, ...]:
        """Names of the columns of `obs` on disk."""
        return tuple(self.group()["obs"].attrs["column-order"])

    def column(self, key: str) -> NDArray[np.str_] | None:
        """Column of `obs` on disk as strings, `(n_cells,)`; None if there is none."""
        return _strings(read_elem(self.group()["obs"][key])) if key in self.columns() else None

    def annotation_keys(self) -> tuple[str, ...]:
        """Columns of `obs` on disk with the region and the instance id of each cell; empty if there are none."""
        attributes = self.group().attrs
        return tuple(str(attributes[name]) for name in ("region_key", "instance_key") if attributes.get(name))

    def identity(self) -> str:
        """Return a digest of the rows and genes on disk, in their order."""
        columns = (self.column(key) for key in self.annotation_keys())
        digest = hashlib.sha256()
        for names in (self.obs_names(), self.var_names(), *(c for c in columns if c is not None)):
            digest.update(f"{len(names)}:".encode())
            digest.update("\0".join(names.tolist()).encode())
        return digest.hexdigest()


def _strings(values: Any) -> NDArray[np.str_]:
    return np.asarray(pd.Index(values).astype(str), dtype=np.str_)


def _index_names(group: zarr.Group, axis_name: str, *, axis: int) -> NDArray[np.str_]:
    if axis_name not in group:  # anndata then numbers them, so this is what a reader sees
        shape = group["X"].attrs["shape"] if isinstance(group["X"], zarr.Group) else group["X"].shape
        return _strings(range(shape[axis]))
    frame = group[axis_name]
    return _strings(read_elem(frame[frame.attrs["_index"]]))


def _local_root(path: object) -> Path:
    # A UPath may be remote, and is no `os.PathLike` then.
    location = (os.fspath(path) if isinstance(path, str | os.PathLike) else str(path)).removeprefix("file://")
    url = _URL.match(location)
    protocol = getattr(path, "protocol", "") or (url[1] if url else "")
    if protocol not in ("", "file", "local"):
        raise ValueError(
            f"The store {location!r} is remote ({protocol}), and has to be in a local folder. Write the object "
            "to one with `sdata.write(path)`; it can be uploaded with its results."
        )
    root = Path(location)
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise ValueError(
            f"The store {str(root)!r} {what}; it has to be a zarr store in a local folder. "
            "Write the object to one with `sdata.write(path)`."
        )
    return root


def open_store(data: SpatialData | str | os.PathLike[str], table_key: str) -> TableStore:
    """Find a table in a store on disk.

    Parameters
    ----------
    data
        A backed SpatialData object, or the folder of a store.
    table_key
        Name of the table.

    Raises
    ------
    TypeError
        If `data` is neither.
    ValueError
        If the object is not backed, or the store is not a local folder.
    KeyError
        If the store has no such table.
    """
    if not hasattr(data, "protocol") and not isinstance(data, SpatialData | str | os.PathLike):
        raise TypeError(f"`sdata` must be a SpatialData object or the path of one, not {type(data).__name__}.")
    path = data.path if isinstance(data, SpatialData) else data
    if path is None:
        raise ValueError(
            "`sdata` is not backed by a store (`sdata.path` is None). `sdata.write(path)` writes it with its results; "
            "an object read with `spatialdata.read_zarr(path)` is backed."
        )
    root = _local_root(path)
    tables = root / "tables"
    stored = [p.name for p in tables.iterdir() if p.is_dir()] if tables.is_dir() else []
    in_memory = isinstance(data, SpatialData) and table_key in data.tables
    hint = f"The table is in memory only: `sdata.write_element({table_key!r})` writes it." if in_memory else ""
    check_key(table_key, sorted(stored), argument="table_key", where=f"{root.name}/tables", hint=hint)
    group = zarr.open_group(tables / table_key, mode="r", use_consolidated=False)
    return TableStore(root, table_key, int(group.metadata.zarr_format))


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
        ("rows (`obs_names`)", _strings(table.obs_names), store.obs_names()),
        ("genes (`var_names`)", _strings(table.var_names), store.var_names()),
    ]
    attrs = table.uns.get(TableModel.ATTRS_KEY, {})
    in_memory = [attrs.get(name) for name in (TableModel.REGION_KEY_KEY, TableModel.INSTANCE_KEY)]
    for key in dict.fromkeys([*store.annotation_keys(), *(str(key) for key in in_memory if key)]):
        disk = store.column(key)
        if disk is not None and key in table.obs:
            pairs.append((f"cells (`obs[{key!r}]`)", _strings(table.obs[key]), disk))
    for what, memory, disk in pairs:
        difference = _difference(memory, disk)
        if difference:
            raise ValueError(
                f"The {what} of `sdata.tables[{store.table_key!r}]` are not those of the table in the store "
                f"{str(store.root)!r}: {difference}. Was the table filtered, re-ordered or renamed after reading? "
                f"{_elsewhere(store)}"
            )


def check_columns(store: TableStore, table: AnnData, columns: Iterable[str]) -> None:
    """Raise unless those of the columns of `obs` that the table in memory has are the same on disk.

    Raises
    ------
    ValueError
        With the columns that are in memory only, or have other values there.
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
    """Whether a column has the same values, numbers or names, whatever holds them."""
    disk = pd.Series(disk)
    if all(pd.api.types.is_numeric_dtype(column.dtype) for column in (memory, disk)):
        one, other = (column.to_numpy(dtype=np.float64, na_value=np.nan) for column in (memory, disk))
        return np.array_equal(one, other, equal_nan=True)
    return np.array_equal(_with_one_missing(memory), _with_one_missing(disk))


def _with_one_missing(column: pd.Series[Any]) -> NDArray[np.str_]:
    """Values as text, missing ones as "nan": anndata has stored them as the text of what stood for them."""
    text = _strings(column)
    return np.where(column.isna().to_numpy() | np.isin(text, _MISSING), "nan", text)


def check_coordinates(store: TableStore, table: AnnData, spatial_key: str | None) -> None:
    """Raise unless the table on disk has the coordinates of the table in memory, if that has them.

    Raises
    ------
    ValueError
        If they are in memory only, or others.
    """
    if spatial_key is None or spatial_key not in table.obsm:
        return
    if store.element(("obsm", spatial_key)).exists():
        disk = read_elem(store.group()[f"obsm/{spatial_key}"])
        if np.array_equal(np.asarray(table.obsm[spatial_key]), np.asarray(disk)):
            return
    raise ValueError(
        f"The fit reads the coordinates obsm[{spatial_key!r}], which are others, or missing, in the table "
        f"{store.table_key!r} of the store {str(store.root)!r}. Without them the results are of no use when they are "
        f"read back. {_elsewhere(store)}"
    )


def check_layer(store: TableStore, table: AnnData, layer: str | None) -> None:
    """Raise unless the table on disk has the layer of counts, if the table in memory has it.

    Raises
    ------
    ValueError
        If the layer is in memory only.
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
    """Raise unless elements can be put into the store and replaced.

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
