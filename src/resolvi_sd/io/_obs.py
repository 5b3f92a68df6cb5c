"""Columns of `obs` on disk: a column is visible if the attribute `column-order` names it, and must then have data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from resolvi_sd.io import _files
from resolvi_sd.io._store import TableStore

__all__ = ["OBS", "set_columns", "without"]

OBS = "obs"
_ORDER = "column-order"


def without(attributes: dict[str, Any], columns: Sequence[str]) -> dict[str, Any]:
    """Return the attributes of `obs` without the names of these columns."""
    order = [column for column in attributes.get(_ORDER, []) if column not in columns]
    return {**attributes, _ORDER: order}


def set_columns(store: TableStore, *, drop: Sequence[str], add: Sequence[str], hidden: Path) -> None:
    """Change atomically which columns `obs` shows; the file is not touched if it already shows them.

    Parameters
    ----------
    store
        The table on disk.
    drop
        Columns to hide.
    add
        Columns to show, after the remaining ones.
    hidden
        Folder for the file while it is written.
    """
    file = store.path / OBS / ("zarr.json" if store.zarr_format == 3 else ".zattrs")
    content = _files.read_json(file)
    before = content["attributes"] if store.zarr_format == 3 else content
    after = without(before, [*drop, *add])
    after[_ORDER] = [*after[_ORDER], *add]
    if after == before:
        return
    _files.replace_json(file, {**content, "attributes": after} if store.zarr_format == 3 else after, hidden=hidden)
