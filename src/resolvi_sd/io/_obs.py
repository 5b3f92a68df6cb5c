"""Columns of `obs` on disk: a column is seen if the attribute `column-order` names it, and must then have data."""

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
    """Return the attributes of `obs` with these columns not named."""
    order = [column for column in attributes.get(_ORDER, []) if column not in columns]
    return {**attributes, _ORDER: order}


def set_columns(store: TableStore, *, drop: Sequence[str], add: Sequence[str], hidden: Path) -> None:
    """Rename what `obs` shows at once; the file is left alone where it says so already.

    Parameters
    ----------
    store
        The table on disk.
    drop
        Columns that are no longer to be seen.
    add
        Columns that are to be seen from now on, after those that remain.
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
