"""What a bad input gets told: what was given, what exists, what to do. Every check runs before any work."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import h5py
import numpy as np
import pandas as pd
import zarr
from anndata import AnnData
from anndata.abc import CSCDataset, CSRDataset
from numpy.typing import NDArray
from scipy.spatial import KDTree

from resolvi_sd._keys import result_layers

__all__ = [
    "MOST_LISTED",
    "STORED",
    "check_cells",
    "check_complete",
    "check_coordinates",
    "check_counts",
    "check_genes",
    "check_has_molecules",
    "check_key",
    "check_not_corrected",
    "check_number_type",
    "check_positive_int",
    "check_result",
    "check_takes_results",
    "check_unique",
    "first_fraction",
    "group_names",
    "listing",
    "shortened",
    "warn_spots",
]

# Matrices of a table whose values are in a file.
STORED = (CSRDataset, CSCDataset, h5py.Dataset, zarr.Array)
# Most names that a message lists.
MOST_LISTED = 20

# Entries of the counts looked at in one go: bounds the temporaries to a few megabytes whatever the table's size.
_SCAN = 1 << 20
# Cells of a layer that is not in memory which tell whether it holds counts.
_HEAD = 100
# Spots lie on a lattice: nearly all nearest neighbors are at the pitch, up to rounding to pixels. Segmented cells
# are not even close: at most a fifth of them are within 5 % of the median (Xenium, MERFISH, CosMx, ISS).
_LATTICE_TOLERANCE = 0.05
_LATTICE_SHARE = 0.9
_NAMES, _BARCODE = 1000, r"[ACGTN]{8,}(-\d+)?"
_LATTICE_CELLS = 20
_LATTICE_SAMPLE = 2_000


def listing(names: Iterable[object], limit: int = MOST_LISTED) -> str:
    """Return `names` as a readable list, cut after `limit`."""
    return shortened([repr(name) for name in names if name is not None], limit)  # anndata 0.13 lists X as layer `None`


def shortened(texts: Sequence[str], limit: int = MOST_LISTED) -> str:
    """Return `texts` one after the other, cut after `limit`."""
    if not texts:
        return "none"
    more = f" and {len(texts) - limit} more" if len(texts) > limit else ""
    return ", ".join(texts[:limit]) + more


def group_names(names: object) -> list[str]:
    """Return one name of a group or several as text, which groups are read as whatever their column holds."""
    return [str(name) for name in (names if isinstance(names, Iterable) and not isinstance(names, str) else [names])]


def check_key(key: str, available: Iterable[object], *, argument: str, where: str, hint: str = "") -> None:
    """Raise unless `key` is among `available`.

    Parameters
    ----------
    key
        What the user asked for.
    available
        What there is.
    argument
        The argument that `key` was passed as.
    where
        Where it was looked for, as the user writes it, e.g. `table.obs`.
    hint
        What else to do.

    Raises
    ------
    KeyError
        If `key` is missing; the message lists what exists.
    """
    names = list(available)
    if key not in names:
        message = f"{argument}={key!r} is not in `{where}`; it has: {listing(names)}. {hint}"
        raise KeyError(message.strip())


def check_result(name: str, available: Iterable[object], *, where: str, tool: str) -> None:
    """Raise unless a result is there.

    Parameters
    ----------
    name
        Its key.
    available
        What there is.
    where
        Where it was looked for, as the user writes it, e.g. `table.uns`.
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


def check_positive_int(value: object, *, argument: str) -> int:
    """Return `value` as an int, or raise if it is not an integer of at least one.

    Raises
    ------
    TypeError
        If `value` is not an integer.
    ValueError
        If it is below one.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"`{argument}` must be an integer, not {value!r} ({type(value).__name__}).")
    if value < 1:
        raise ValueError(f"`{argument}` must be at least 1, not {value}.")
    return int(value)


def check_names(names: Sequence[str] | str, *, argument: str) -> tuple[str, ...]:
    """Return several names as a tuple, or raise if they are one string, no strings, or not distinct.

    Raises
    ------
    TypeError
        If `names` is a single string, or holds something else than strings.
    ValueError
        If a name occurs more than once.
    """
    if isinstance(names, str):
        raise TypeError(f"`{argument}` must be a list of names; did you mean [{names!r}]?")
    found = tuple(names)
    for name in found:
        if not isinstance(name, str):
            raise TypeError(f"`{argument}` must hold strings, not {name!r} ({type(name).__name__}).")
    if len(set(found)) < len(found):
        raise ValueError(f"`{argument}` names something twice: {list(found)}.")
    return found


def check_unique(names: pd.Index[Any], *, what: str, todo: str) -> None:
    """Raise if a name occurs more than once.

    Raises
    ------
    ValueError
        With the number of duplicates, a few of them, and `todo`.
    """
    if not names.is_unique:
        duplicates = names[names.duplicated()].unique()
        raise ValueError(f"{what} must be unique, but {len(duplicates)} occur more than once: "
                         f"{listing(duplicates, 5)}. {todo}")  # fmt: skip


def check_complete(column: pd.Series[Any], *, argument: str) -> None:
    """Raise if the column has missing values.

    Raises
    ------
    ValueError
        With the number of cells without a value.
    """
    missing = int(column.isna().sum())
    if missing:
        raise ValueError(
            f"{argument}={column.name!r}: {missing} of {len(column)} cells have no value (NaN). "
            "Fill them in, or drop those cells first: `table[table.obs[key].notna()].copy()`."
        )


def check_cells(n_cells: int) -> None:
    """Raise unless there are at least two cells.

    Raises
    ------
    ValueError
        If there is no cell, or only one: neither has a neighbor to take molecules from.
    """
    if n_cells < 2:
        raise ValueError(
            f"The table has {n_cells} cell{'' if n_cells == 1 else 's'}; at least 2 are needed, as a cell is told "
            "apart from its neighbors. Was the table filtered too strictly?"
        )


def check_takes_results(adata: AnnData, *, copy: bool = False) -> None:
    """Raise if anndata could not put results into a table, or into a copy of it.

    Raises
    ------
    ValueError
        If the table, or a matrix of it, is in a file, and a copy is asked for; or if it is a piece of a table that is
        backed by a file.
    """
    matrices = [adata.X, *(adata.layers[name] for name in adata.layers if name is not None)] if copy else []
    if any(isinstance(matrix, STORED) for matrix in matrices) or (adata.isbacked and (copy or adata.is_view)):
        what = "`copy=True` needs a table in memory, and this one" if copy else "This piece of a table"
        raise ValueError(
            f"{what} is in a file, which anndata does not copy. Pass the whole table, without `copy`: results are "
            "added to it in memory, and the file is not changed. Or load it: `table = table.to_memory()`."
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
            f"The table has {len(names)} gene{'' if len(names) == 1 else 's'}; at least 2 are needed, as the model "
            "tells sources apart by their expression profiles. Was the panel filtered too strictly?"
        )
    check_unique(names, what="Gene names (`table.var_names`)", todo="Call `table.var_names_make_unique()` first.")


def check_coordinates(coordinates: NDArray[np.float64], *, where: str) -> None:
    """Raise unless there are two or three finite coordinates per cell.

    Raises
    ------
    ValueError
        If the shape is wrong, or if coordinates are NaN or infinite.
    """
    if coordinates.ndim != 2 or coordinates.shape[1] not in (2, 3):
        raise ValueError(f"{where} must have 2 or 3 columns (x, y or x, y, z), but its shape is {coordinates.shape}.")
    bad = int((~np.isfinite(coordinates).all(axis=1)).sum())
    if bad:
        raise ValueError(
            f"{where}: {bad} of {len(coordinates)} cells have NaN or infinite coordinates. "
            "Drop those cells first, or repair their geometries."
        )


def first_fraction(values: NDArray[np.floating]) -> float | None:
    """Return the first value that is not an integer, None if all are."""
    for start in range(0, values.size, _SCAN):
        part = values[start : start + _SCAN]
        fractions = np.flatnonzero(np.rint(part) != part)
        if fractions.size:
            return float(part[fractions[0]])
    return None


def _stored(matrix: Any) -> NDArray[Any] | None:
    """Return the stored values of a matrix, of one that is not in memory those of the first cells."""
    if isinstance(matrix, STORED):
        matrix = matrix[:_HEAD]
    elif hasattr(matrix, "compute"):
        matrix = matrix[:_HEAD].compute()
    if isinstance(matrix, np.ndarray):
        return matrix.reshape(-1)
    data = getattr(matrix, "data", None)
    return data if isinstance(data, np.ndarray) else None


def _holds_counts(matrix: Any) -> bool:
    values = _stored(matrix)
    if values is None or values.size == 0 or values.dtype.kind not in "uif":
        return False
    head = values[:_SCAN]
    return bool(np.isfinite(head).all() and (head >= 0).all()) and first_fraction(head) is None


def _where_counts_may_be(adata: AnnData, layer: str | None) -> str:
    # Whole corrected counts are no raw ones.
    others = [name for name in adata.layers if name not in (None, layer, *result_layers(adata.uns))]
    found = [f"layer={name!r}" for name in others if _holds_counts(adata.layers[name])]
    if layer is not None and _holds_counts(adata.X):
        found.append("layer=None (X)")
    if adata.raw is not None and _holds_counts(adata.raw.X):
        found.append("`table.raw` (copy it into a layer first)")
    if found:
        return f"Non-negative integers are in: {', '.join(found)}."
    return "No layer, X or raw of this table holds non-negative integers: load the raw counts of the platform."


def _matrix_name(layer: str | None) -> str:
    return "`table.X`" if layer is None else f"layer={layer!r}"


def check_not_corrected(adata: AnnData, *, layer: str | None) -> None:
    """Raise if the counts to fit are those that a fit has corrected.

    Raises
    ------
    ValueError
        With the name of that fit.
    """
    prefix = result_layers(adata.uns).get(layer or "")
    if prefix is not None:
        raise ValueError(
            f"layer={layer!r} holds results of the fit under key_added={prefix!r}, not counts as they were measured: "
            "what leaked is gone from it already. Name the layer that the raw counts are in, None for X."
        )


def check_number_type(dtype: np.dtype[Any], *, layer: str | None) -> None:
    """Raise unless the type is one of real numbers.

    Raises
    ------
    TypeError
        If it holds anything else: objects, text, complex numbers.
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
        The table they come from, searched for a layer that does hold counts.
    layer
        The layer they come from; None is X.

    Raises
    ------
    ValueError
        If some are NaN, infinite, negative, or not integers.
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
            f"centred. {_where_counts_may_be(adata, layer)}"
        )
    fraction = first_fraction(values) if values.dtype.kind == "f" else None
    if fraction is not None:
        raise ValueError(
            f"{name} must hold molecule counts, but has values that are not integers, such as {fraction:g}: it looks "
            f"normalised or log-transformed. {_where_counts_may_be(adata, layer)}"
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


def _on_lattice(coordinates: NDArray[np.float64]) -> bool:
    """Whether nearly all nearest-neighbor distances are the same, as for spots on a grid."""
    if len(coordinates) < _LATTICE_CELLS:
        return False
    some = coordinates[:: max(1, len(coordinates) // _LATTICE_SAMPLE)]
    nearest = np.asarray(KDTree(coordinates).query(some, k=2)[0])[:, 1]
    pitch = float(np.median(nearest))
    return pitch > 0 and float((np.abs(nearest - pitch) <= _LATTICE_TOLERANCE * pitch).mean()) >= _LATTICE_SHARE


def warn_spots(adata: AnnData, coordinates: NDArray[np.float64], library: NDArray[np.int32]) -> None:
    """Warn if the rows look like spots, beads or bins rather than segmented cells.

    The evidence is the position in the capture array that Space Ranger writes (`array_row`, `array_col`), the
    coordinates of the largest section lying on a lattice, or names that are DNA barcodes, as of the beads of Slide-seq:
    segmented cells have none.
    """
    if {"array_row", "array_col"} <= set(adata.obs.columns):
        evidence = "`obs` has `array_row` and `array_col`"
    elif _on_lattice(coordinates[library == np.bincount(library).argmax()]):
        evidence = "the coordinates lie on a regular lattice"
    elif adata.obs_names[:_NAMES].astype(str).str.fullmatch(_BARCODE).all():
        evidence = f"the rows are named by DNA barcodes ({adata.obs_names[0]!r}, ...)"
    else:
        return
    warnings.warn(
        f"This looks like spot data (Visium, Slide-seq or bins): {evidence}. The model assumes that a row is a "
        "single segmented cell; on spots, shares and corrected counts do not mean what they say.",
        UserWarning,
        stacklevel=3,
    )
