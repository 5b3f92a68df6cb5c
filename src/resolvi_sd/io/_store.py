"""Location and contents of a table in a store on disk."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import zarr
from anndata.io import read_elem
from numpy.typing import NDArray
from spatialdata import SpatialData

from resolvi_sd._validation import check_key

__all__ = ["Element", "TableStore", "open_store", "text_values"]

Element = tuple[str, str]
"""Slot of the table (`layers`, `obs`, ...) and key in it."""

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
        """Return the table's group as it is on disk, ignoring consolidated metadata."""
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

    def names(self, slot: str) -> tuple[str, ...]:
        """Names of the entries of a slot on disk."""
        if slot == "obs":
            return self.columns()
        group = self.group()
        return tuple(group[slot].keys()) if slot in group else ()

    def column(self, key: str) -> NDArray[np.str_] | None:
        """Column of `obs` on disk as strings, `(n_cells,)`; None if there is no such column."""
        return text_values(read_elem(self.group()["obs"][key])) if key in self.columns() else None

    def annotation_keys(self) -> tuple[str, ...]:
        """Columns of `obs` on disk with the region and the instance id of each cell; empty if there are none."""
        attributes = self.group().attrs
        return tuple(str(attributes[name]) for name in ("region_key", "instance_key") if attributes.get(name))

    def identity(self) -> str:
        """Return a digest of the rows and genes on disk, including their order."""
        columns = (self.column(key) for key in self.annotation_keys())
        digest = hashlib.sha256()
        for names in (self.obs_names(), self.var_names(), *(c for c in columns if c is not None)):
            digest.update(f"{len(names)}:".encode())
            digest.update("\0".join(names.tolist()).encode())
        return digest.hexdigest()


def text_values(values: Any) -> NDArray[np.str_]:
    """Return names, or the values of a column, as text, `(n,)`."""
    return np.asarray(pd.Index(values).astype(str), dtype=np.str_)


def _index_names(group: zarr.Group, axis_name: str, *, axis: int) -> NDArray[np.str_]:
    if axis_name not in group:  # anndata then numbers them, so a reader sees these names
        shape = group["X"].attrs["shape"] if isinstance(group["X"], zarr.Group) else group["X"].shape
        return text_values(range(shape[axis]))
    frame = group[axis_name]
    return text_values(read_elem(frame[frame.attrs["_index"]]))


def _local_root(path: object) -> Path:
    # A UPath may be remote, in which case it is not an `os.PathLike`.
    location = (os.fspath(path) if isinstance(path, str | os.PathLike) else str(path)).removeprefix("file://")
    url = _URL.match(location)
    protocol = getattr(path, "protocol", "") or (url[1] if url else "")
    if protocol not in ("", "file", "local"):
        raise ValueError(
            f"The store {location!r} is remote ({protocol}), but must be in a local folder. Write the object "
            "to one with `sdata.write(path)`; it can be uploaded with its results."
        )
    root = Path(location).expanduser()
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise ValueError(
            f"The store {str(root.absolute())!r} {what}; it must be a zarr store in a local folder. "
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
        If `data` is neither an object nor a path.
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
