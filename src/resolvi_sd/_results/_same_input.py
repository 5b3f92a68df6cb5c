"""Check that counts and batches are still those of the fit, by looking at some cells again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from numpy.typing import NDArray

from resolvi_sd._csr import CSR, row_sums
from resolvi_sd._keys import Keys
from resolvi_sd._model import encode
from resolvi_sd._results._fitted import FittedModel
from resolvi_sd._results._read import category_codes, fitted_counts
from resolvi_sd._tables import read_sizes
from resolvi_sd._validation import listing, matrix_name, warn_user

__all__ = [
    "CellColumns",
    "check_columns_of_fit",
    "check_kept_counts",
    "checked_counts",
    "columns_to_recognize",
    "encode_some",
    "some_rows",
    "warn_of_other_columns",
    "warn_of_other_counts",
    "warn_of_other_input",
    "warn_of_replaced_counts",
]

# Number of cells that are encoded again.
_N_CELLS = 64
# Larger differences between latent means are not rounding errors.
_TOLERANCE = 0.01
# Relative difference of sizes and of numbers of molecules beyond rounding.
_SIZE_TOLERANCE = 1e-4
# Entries of the record of a fit: names of some cells, their molecules, their batches and covariates, and their sizes.
_CELLS, _MOLECULES, _CATEGORIES, _SIZES = "some_cells", "some_molecules", "some_categories", "some_sizes"

# The same of some cells, from the current input and at the fit.
NowAndThen = tuple[NDArray[np.floating], NDArray[np.floating]]


def some_rows(n_cells: int) -> NDArray[np.int64]:
    """Return the rows of the cells to encode again, evenly spread over the table."""
    return np.unique(np.linspace(0, n_cells - 1, min(_N_CELLS, n_cells), dtype=np.int64))


def encode_some(fitted: FittedModel, counts: CSR, codes: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the latent means of :func:`some_rows`, from the counts and categories of all cells."""
    rows = some_rows(counts.shape[0])
    return encode(fitted.module, counts[rows], codes[rows], show_progress_bar=False)[0]


def warn_of_other_input(fitted: FittedModel, latent: NowAndThen, molecules: NowAndThen, *, source: str) -> None:
    """Warn if cells are encoded differently than at the fit or, if not, have other numbers of molecules.

    Counts that are no longer counts raise an error elsewhere; this check is for integers that replaced them, such as
    sampled corrected counts, for tables that were combined from several fits, and for multiples of the counts, on which
    the latent does not depend.

    Parameters
    ----------
    fitted
        The model.
    latent
        Latent means of the cells of :func:`some_rows`, from the current counts and categories, and at the fit.
    molecules
        Molecules of some cells, now and at the fit.
    source
        Origin of the latent means of the fit, for the message.

    Warns
    -----
    UserWarning
        If any cell differs.
    """
    layer = fitted.setup.layer
    message = _of_other_latent(layer, *latent, source=source) or _of_other_molecules(layer, *molecules)
    if message:
        warn_user(message)


def warn_of_replaced_counts(adata: AnnData, layer: str | None, molecules: NDArray[np.floating]) -> None:
    """Warn if cells have other row sums than at the fit; the matrix may hold anything by now.

    Parameters
    ----------
    adata
        The table.
    layer
        Where the counts were, None for X; it may be gone.
    molecules
        Molecules that each cell had at the fit.
    """
    message = _of_other_molecules(layer, *_molecules_of_some(adata, layer, molecules))
    if message:
        warn_user(message)


def check_kept_counts(adata: AnnData, layer: str | None, molecules: NDArray[np.floating]) -> None:
    """Raise ValueError where :func:`warn_of_replaced_counts` would warn."""
    message = _of_other_molecules(layer, *_molecules_of_some(adata, layer, molecules))
    if message:
        raise ValueError(message)


def _molecules_of_some(adata: AnnData, layer: str | None, molecules: NDArray[np.floating]) -> NowAndThen:
    """Return the row sums of some cells now, and those that they had; none if the matrix is gone."""
    matrix, rows = adata.X if layer is None else adata.layers.get(layer), some_rows(adata.n_obs)
    if matrix is None:
        return np.empty(0), np.empty(0)
    return np.asarray(matrix[rows].sum(axis=1)).ravel(), molecules[rows]


def _of_other_latent(layer: str | None, now: NDArray[np.floating], then: NDArray[np.floating], *, source: str) -> str:
    """Return the message about cells with other latent means; empty if there are none, or of another fit."""
    n_others = int((np.abs(now - then).max(axis=1) > _TOLERANCE).sum()) if now.shape == then.shape else 0
    if not n_others:
        return ""
    return (
        f"The counts in `{matrix_name(layer)}` do not seem to be those of the fit: of {len(now)} cells that were "
        f"encoded again, {n_others} have a different latent mean than {source}. Restore what was replaced or "
        "transformed since (counts, covariates that are encoded, latent means), or fit again from a layer that stays "
        "unchanged, such as `layer='counts'`."
    )


def _of_other_molecules(layer: str | None, now: NDArray[np.floating], then: NDArray[np.floating]) -> str:
    """Return the message about cells with other numbers of molecules; empty if there are none."""
    n_others = int((~np.isclose(now, then, rtol=_SIZE_TOLERANCE)).sum())
    if not n_others:
        return ""
    return (
        f"The counts in `{matrix_name(layer)}` are not those of the fit: of {len(then):,} cells that were looked at, "
        f"{n_others:,} have other numbers of molecules. Results of the fit belong to the counts that it read: restore "
        "these, or fit again."
    )


class CellColumns(NamedTuple):
    """What a model reads of some cells besides their counts and neighbors.

    Attributes
    ----------
    categories
        Batch and further covariates, `(n_cells, 1 + n_covariates)`.
    sizes
        Sizes, `(n_cells,)`; None without sizes, or if they are not compared.
    """

    categories: NDArray[np.int64]
    sizes: NDArray[np.float32] | None = None


def check_columns_of_fit(fitted: FittedModel, now: CellColumns, then: CellColumns) -> None:
    """Raise ValueError unless cells have the batches, covariates and sizes that they had in the fit."""
    n_others, columns = _others(fitted, now, then)
    if n_others:
        raise ValueError(
            f"The model was fitted with other values of the columns {columns} of `obs`, in {n_others:,} of "
            f"{len(now.categories):,} cells, and expression and corrected counts depend on these. Restore them, or "
            "train a model on this table."
        )


def columns_to_recognize(
    adata: AnnData, columns: CellColumns, molecules: NDArray[np.floating]
) -> dict[str, NDArray[Any]]:
    """Return entries of the record of a fit by which :func:`warn_of_other_counts` recognizes its input.

    These are the names of some cells, which no other cell has, their molecules, their batches and covariates, and their
    sizes, if there are any.
    """
    categories, sizes = columns
    rows = some_rows(adata.n_obs)
    rows = rows[~adata.obs_names.duplicated(keep=False)[rows]]
    names = adata.obs_names[rows].astype(str).to_numpy(dtype=object)
    known = {_CELLS: names, _MOLECULES: molecules[rows], _CATEGORIES: categories[rows]}
    return known | ({} if sizes is None else {_SIZES: sizes[rows]})


def _recorded(adata: AnnData, record: Mapping[str, Any]) -> tuple[NDArray[np.intp], Mapping[str, NDArray[Any]]]:
    """Return the rows of the cells that were recorded at the fit, and what was recorded of them."""
    place = pd.Index(record[_CELLS]).get_indexer(adata.obs_names.astype(str))
    rows = np.flatnonzero(place >= 0)
    names = {_MOLECULES, _CATEGORIES, _SIZES} & set(record)
    return rows, {name: np.asarray(record[name])[place[rows]] for name in names}


def _warn_of_other_columns(
    adata: AnnData, fitted: FittedModel, rows: NDArray[np.intp], known: Mapping[str, NDArray[Any]]
) -> None:
    """Warn if cells whose columns were recorded have other values now; the latent need not depend on these."""
    key = fitted.setup.size_factor_key
    sizes = read_sizes(adata[rows], str(key)) if _SIZES in known and key in adata.obs else None
    now = CellColumns(category_codes(adata, fitted, rows), sizes)
    warn_of_other_columns(fitted, now, CellColumns(known[_CATEGORIES], known.get(_SIZES)))


def warn_of_other_columns(fitted: FittedModel, now: CellColumns, then: CellColumns) -> None:
    """Warn unless cells have the batches, covariates and sizes that they had in the fit."""
    n_others, columns = _others(fitted, now, then)
    if n_others:
        warn_user(
            f"The columns {columns} of `obs` are not those of the fit: of {len(now.categories):,} cells that were "
            f"looked at, {n_others:,} have other values. Expression and corrected counts depend on these: restore "
            "them, or fit again."
        )


def _others(fitted: FittedModel, now: CellColumns, then: CellColumns) -> tuple[int, str]:
    """Return the number of cells with other values, and the columns that differ."""
    other = now.categories != then.categories
    keys: list[str | None] = [fitted.setup.batch_key, *fitted.setup.categorical_covariate_keys]
    if now.sizes is not None and then.sizes is not None:
        other = np.column_stack([other, ~np.isclose(now.sizes, then.sizes, rtol=_SIZE_TOLERANCE)])
        keys.append(fitted.setup.size_factor_key)
    differ = [key for key, column in zip(keys, other.T, strict=True) if column.any()]
    return int(other.any(axis=1).sum()), listing(differ)


def warn_of_other_counts(adata: AnnData, fitted: FittedModel, keys: Keys, counts: CSR) -> None:
    """Warn as :func:`warn_of_other_input` does, comparing with the latent means that the fit wrote into the table.

    Batches, further covariates and sizes are compared as well.
    """
    written = adata.obsm.get(keys.latent)
    known = {fitted.setup.batch_key, *fitted.setup.categorical_covariate_keys} - {None} <= set(adata.obs.columns)
    if written is None or sp.issparse(written) or not known or not adata.n_obs:
        return
    recorded, before = _recorded(adata, adata.uns[keys.model])
    _warn_of_other_columns(adata, fitted, recorded, before)
    rows = some_rows(adata.n_obs)
    source = f"the fit wrote into `obsm[{keys.latent!r}]`"
    # Only of these rows: reading the categories of all cells takes long in large tables.
    again, _ = encode(fitted.module, counts[rows], category_codes(adata, fitted, rows), show_progress_bar=False)
    latent, molecules = (again, np.asarray(written)[rows]), (row_sums(counts[recorded]), before[_MOLECULES])
    warn_of_other_input(fitted, latent, molecules, source=source)


def checked_counts(adata: AnnData, fitted: FittedModel, keys: Keys) -> CSR:
    """Return the counts that the fit read, and warn if they appear to have changed."""
    counts = fitted_counts(adata, fitted.setup.layer)
    warn_of_other_counts(adata, fitted, keys, counts)
    return counts
