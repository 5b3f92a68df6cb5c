"""Check for values that a store keeps unchanged: it rejects all others, or returns them as something else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

__all__ = ["check_storable"]


def check_storable(value: object, *, where: str) -> None:
    """Raise unless `value` can be written to a store and read back unchanged.

    Parameters
    ----------
    value
        An element of a table; mappings are checked recursively.
    where
        Location of the element, as the user writes it, e.g. `table.uns['resolvi']`.

    Raises
    ------
    ValueError
        If a key of a mapping or the name of a column is not a string, or contains a `/`, which would make it a path.
    TypeError
        If there is a tuple or a set, or a list of anything but strings or numbers: anndata cannot write the first two
        and silently converts the last to strings.
    """
    if isinstance(value, Mapping):
        _check_names(value.keys(), where=where)
        for key, item in value.items():
            check_storable(item, where=f"{where}[{key!r}]")
    elif isinstance(value, pd.DataFrame):
        _check_names(value.columns, where=f"{where}.columns")
    elif isinstance(value, tuple | set | frozenset):
        raise TypeError(f"{where} is a {type(value).__name__}, which a store cannot hold: use a list or an array.")
    elif isinstance(value, list):
        _check_items(value, where=where)
    elif isinstance(value, np.ndarray) and value.dtype == object:
        _check_items(value.ravel().tolist(), where=where)


def _check_names(names: Iterable[object], *, where: str) -> None:
    for name in names:
        if not isinstance(name, str) or not name or "/" in name:
            raise ValueError(f"{where} has the name {name!r}, but names in a store are strings without '/': rename it.")


def _check_items(items: list[object], *, where: str) -> None:
    if all(isinstance(item, str) for item in items) or _is_numeric(items):
        return
    kinds = ", ".join(sorted({type(item).__name__ for item in items}))
    raise TypeError(
        f"{where} holds {kinds}, which a store would turn into strings: use a list of strings, a list of numbers, or "
        "a dict."
    )


def _is_numeric(items: list[object]) -> bool:
    try:
        return np.asarray(items).dtype.kind in "biuf"
    except ValueError:  # ragged lists have no array
        return False
