"""Checks of the counts, which must be molecules as they were measured."""

from __future__ import annotations

from typing import Any

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from resolvi_sd._keys import result_layers
from resolvi_sd._validation._tables import STORED

__all__ = ["check_counts", "check_has_molecules", "check_not_corrected", "check_number_type", "first_fraction"]

# Entries of the counts checked at a time; limits temporary arrays to a few megabytes for tables of any size.
_SCAN = 1 << 20
# Number of cells used to check whether a layer that is not in memory holds counts.
_HEAD = 100
# A cell has some 1e6 molecules of RNA. The likelihood adds up as many terms as an entry has molecules.
_MOST_MOLECULES = 10**7


def first_fraction(values: NDArray[np.floating]) -> float | None:
    """Return the first value that is not an integer, or None if all are integers."""
    for start in range(0, values.size, _SCAN):
        part = values[start : start + _SCAN]
        fractions = np.flatnonzero(np.rint(part) != part)
        if fractions.size:
            return float(part[fractions[0]])
    return None


def check_not_corrected(adata: AnnData, *, layer: str | None) -> None:
    """Raise if the counts to fit are the corrected counts of another fit.

    Raises
    ------
    ValueError
        If they are; the message names that fit.
    """
    prefix = result_layers(adata.uns).get(layer or "")
    if prefix is not None:
        raise ValueError(
            f"layer={layer!r} holds results of the fit under key_added={prefix!r}, not counts as they were measured: "
            "leaked molecules are already removed from it. Name the layer with the raw counts, or None for X."
        )


def check_number_type(dtype: np.dtype[Any], *, layer: str | None) -> None:
    """Raise unless the type is one of real numbers.

    Raises
    ------
    TypeError
        If it is any other type, such as objects, text or complex numbers.
    """
    if dtype.kind not in "buif":
        raise TypeError(f"{_matrix_name(layer)} must hold molecule counts, but its type is {dtype}.")


def check_counts(values: NDArray[Any], adata: AnnData, *, layer: str | None) -> None:
    """Raise unless the stored values are molecule counts: finite, non-negative integers in any number type.

    Parameters
    ----------
    values
        Stored entries of the counts, `(n_entries,)`.
    adata
        The table they come from, which is searched for a layer that does hold counts.
    layer
        The layer they come from; None means X.

    Raises
    ------
    ValueError
        If some are NaN, infinite, negative, not integers, or more than a cell can have.
    """
    name = _matrix_name(layer)
    if values.dtype.kind == "f":
        bad = sum(int((~np.isfinite(values[i : i + _SCAN])).sum()) for i in range(0, values.size, _SCAN))
        if bad:
            raise ValueError(
                f"{name} must hold molecule counts, but {bad} entries are NaN or infinite. "
                f"{_where_counts_may_be(adata, layer)}"
            )
    if values.dtype.kind in "if" and values.size and values.min() < 0:
        raise ValueError(
            f"{name} must hold molecule counts, but its smallest value is {values.min():g}: it looks scaled or "
            f"centered. {_where_counts_may_be(adata, layer)}"
        )
    fraction = first_fraction(values) if values.dtype.kind == "f" else None
    if fraction is not None:
        raise ValueError(
            f"{name} must hold molecule counts, but has values that are not integers, such as {fraction:g}: it looks "
            f"normalized or log-transformed. {_where_counts_may_be(adata, layer)}"
        )
    if values.size and values.max() > _MOST_MOLECULES:
        raise ValueError(
            f"{name} must hold molecule counts, but its largest value is {values.max():g}, more molecules than a cell "
            f"has. Are these intensities? {_where_counts_may_be(adata, layer)}"
        )


def check_has_molecules(has_counts: NDArray[np.bool_], *, layer: str | None) -> None:
    """Raise if no cell has a count.

    Raises
    ------
    ValueError
        If all cells are empty.
    """
    if not has_counts.any():
        raise ValueError(
            f"None of the {has_counts.size} cells has any count in {_matrix_name(layer)}. Does another layer hold them?"
        )


def _where_counts_may_be(adata: AnnData, layer: str | None) -> str:
    # Corrected counts may be integers, but they are not raw counts.
    others = [name for name in adata.layers if name not in (None, layer, *result_layers(adata.uns))]
    found = [f"layer={name!r}" for name in others if _holds_counts(adata.layers[name])]
    if layer is not None and _holds_counts(adata.X):
        found.append("layer=None (X)")
    if adata.raw is not None and _holds_counts(adata.raw.X):
        found.append("`table.raw` (copy it into a layer first)")
    if found:
        return f"Non-negative integers are in: {', '.join(found)}."
    return "No layer, X or raw of this table holds non-negative integers: load the raw counts from the platform output."


def _holds_counts(matrix: Any) -> bool:
    values = _stored(matrix)
    if values is None or values.size == 0 or values.dtype.kind not in "uif":
        return False
    head = values[:_SCAN]
    return bool(np.isfinite(head).all() and (head >= 0).all()) and first_fraction(head) is None


def _stored(matrix: Any) -> NDArray[Any] | None:
    """Return the stored values of a matrix, or those of its first cells if it is not in memory."""
    if isinstance(matrix, STORED):
        matrix = matrix[:_HEAD]
    elif hasattr(matrix, "compute"):
        matrix = matrix[:_HEAD].compute()
    if isinstance(matrix, np.ndarray):
        return matrix.reshape(-1)
    data = getattr(matrix, "data", None)
    return data if isinstance(data, np.ndarray) else None


def _matrix_name(layer: str | None) -> str:
    return "`table.X`" if layer is None else f"layer={layer!r}"
