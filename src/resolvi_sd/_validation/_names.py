"""Checks of names passed by the user, and lists of names for messages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from resolvi_sd._validation._warning import warn_user

__all__ = [
    "MOST_CATEGORIES",
    "MOST_LISTED",
    "check_complete",
    "check_key",
    "check_markers",
    "check_names",
    "check_no_measurement",
    "check_result",
    "check_unique",
    "group_name",
    "group_names",
    "listing",
    "matrix_name",
    "shortened",
]

# Maximum number of names that a message lists.
MOST_LISTED = 20
# A column with more categories than this, and few cells in each, is taken for a measurement.
MOST_CATEGORIES = 50


def listing(names: Iterable[object], limit: int = MOST_LISTED) -> str:
    """Return `names` as a readable list, cut after `limit`."""
    # anndata 0.13 lists X as layer `None`.
    plain = (name.item() if isinstance(name, np.generic) else name for name in names if name is not None)
    return shortened([repr(name) for name in plain], limit)


def matrix_name(layer: str | None) -> str:
    """Return how messages name a matrix of the table: a layer, or X if it is None."""
    return "table.X" if layer is None else f"table.layers[{layer!r}]"


def shortened(texts: Sequence[str], limit: int = MOST_LISTED) -> str:
    """Return `texts` separated by commas, cut after `limit`."""
    if not texts:
        return "none"
    more = f" and {len(texts) - limit} more" if len(texts) > limit else ""
    return ", ".join(texts[:limit]) + more


def group_name(value: object) -> str:
    """Return the name of a group as text; whole numbers have no decimals, whatever the type of their column.

    pandas turns a column of whole numbers into one of floats if a value is missing.

    Examples
    --------
    >>> from resolvi_sd._validation import group_name
    >>> group_name(1), group_name(1.0), group_name(0.5), group_name("1.0")
    ('1', '1', '0.5', '1.0')
    """
    is_whole = isinstance(value, float | np.floating) and float(value).is_integer()
    return str(int(value)) if is_whole else str(value)  # type: ignore[call-overload]


def unlabeled_name(value: object) -> str:
    """Return the :func:`group_name` of the one value that stands for a missing label.

    Raises
    ------
    TypeError
        If it is neither text nor a number.
    """
    if not isinstance(value, str | float | int | np.generic):
        raise TypeError(
            f"`unlabeled_category` must be one value, text or a number, not {value!r} ({type(value).__name__}). NaN "
            "always means unlabeled; to have several values mean it, set them to NaN."
        )
    return group_name(value)


def group_names(names: object) -> list[str]:
    """Return the :func:`group_name` of one or several groups, the form in which groups are read from a column."""
    several = names if isinstance(names, Iterable) and not isinstance(names, str) else [names]
    return [group_name(name) for name in several]


def check_key(key: str, available: Iterable[object], *, argument: str, where: str, hint: str = "") -> None:
    """Raise unless `key` is among `available`.

    Parameters
    ----------
    key
        Key requested by the user.
    available
        Existing keys.
    argument
        Name of the argument that `key` was passed as.
    where
        Place that was searched, as the user writes it, e.g. `table.obs`, or in words beginning with "the".
    hint
        Further advice for the message.

    Raises
    ------
    KeyError
        If `key` is missing; the message lists what exists.
    """
    names = list(available)
    if key not in names:
        place = where if where.startswith("the ") else f"`{where}`"
        message = f"{argument}={key!r} is not in {place}; it has: {listing(names)}. {hint}"
        raise KeyError(message.strip())


def check_result(name: str, available: Iterable[object], *, where: str, tool: str) -> None:
    """Raise unless a result exists.

    Parameters
    ----------
    name
        Key of the result.
    available
        Existing keys.
    where
        Place that was searched, as the user writes it, e.g. `table.uns`.
    tool
        The call that writes it, e.g. `resolvi_sd.tl.fit(...)`.

    Raises
    ------
    KeyError
        If `name` is missing; the message lists what exists.
    """
    names = list(available)
    if name not in names:
        raise KeyError(f"{name!r} is not in `{where}`; it has: {listing(names)}. Please run `{tool}` first.")


def check_names(names: Sequence[str] | str, *, argument: str) -> tuple[str, ...]:
    """Return several names as a tuple, or raise if they are a single string, not strings, or not distinct.

    Raises
    ------
    TypeError
        If `names` is a single string or no list, or contains anything other than strings.
    ValueError
        If a name occurs more than once.
    """
    if isinstance(names, str):
        raise TypeError(f"`{argument}` must be a list of names; did you mean [{names!r}]?")
    if not isinstance(names, Iterable):
        raise TypeError(f"`{argument}` must be a list of names, not {names!r} ({type(names).__name__}).")
    found = tuple(names)
    for name in found:
        if not isinstance(name, str):
            raise TypeError(f"`{argument}` must hold strings, not {name!r} ({type(name).__name__}).")
    if len(set(found)) < len(found):
        raise ValueError(f"`{argument}` names something twice: {list(found)}.")
    return found


def check_markers(markers: Mapping[str, Sequence[str]], genes: pd.Index[Any]) -> None:
    """Raise unless each label has a list of names, some of which are genes; warn about the other names.

    Raises
    ------
    TypeError, ValueError
        If the markers of a label are not a list of distinct names, or if none of them is a gene.

    Warns
    -----
    UserWarning
        If some of them are not genes.
    """
    names = [name for label, given in markers.items() for name in check_names(given, argument=f"markers[{label!r}]")]
    unknown = [name for name in dict.fromkeys(names) if name not in genes]
    if unknown and len(unknown) == len(set(names)):
        raise ValueError(
            f"None of the markers is a gene of the table: {listing(unknown)}. The table has: {listing(genes, 5)}. Use "
            "the same kind of gene names in both."
        )
    if unknown:
        warn_user(f"Markers that are not genes of the table are left out: {listing(unknown)}.")


def check_unique(names: pd.Index[Any], *, what: str, todo: str) -> None:
    """Raise if a name occurs more than once.

    Raises
    ------
    ValueError
        If there are duplicates; the message gives their number, a few of them, and `todo`.
    """
    if not names.is_unique:
        duplicates = names[names.duplicated()].unique()
        raise ValueError(f"{what} must be unique, but {len(duplicates)} occur more than once: "
                         f"{listing(duplicates, 5)}. {todo}")  # fmt: skip


def check_complete(column: pd.Series[Any], *, argument: str) -> None:
    """Raise if a column has missing values.

    Raises
    ------
    ValueError
        If cells have no value; the message gives their number.
    """
    missing = int(column.isna().sum())
    if missing:
        raise ValueError(
            f"{argument}={column.name!r}: {missing} of {len(column)} cells have no value (NaN). "
            "Fill them in, or drop those cells first: `table[table.obs[key].notna()].copy()`."
        )


def check_no_measurement(n_names: int, n_cells: int, *, key: str, argument: str) -> None:
    """Raise if a column of labels has so many values that it must be a measurement.

    Raises
    ------
    ValueError
        If there are more than 50 values, and fewer than two cells per value on average.
    """
    if n_names > MOST_CATEGORIES and n_names > n_cells / 2:
        raise ValueError(
            f"{argument}={key!r} has {n_names:,} different values in {n_cells:,} cells: is it a measurement? It must "
            "contain labels, such as cell types: bin it into a few (`pandas.cut`), or merge rare labels."
        )
