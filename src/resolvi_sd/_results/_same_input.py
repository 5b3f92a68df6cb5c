"""Check that counts and batches are still those of the fit, by looking at some cells again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from numpy.typing import NDArray

from resolvi_sd._csr import CSR
from resolvi_sd._keys import Keys
from resolvi_sd._model import encode
from resolvi_sd._results._fitted import FittedModel
from resolvi_sd._results._read import category_codes, fitted_counts
from resolvi_sd._validation import listing, matrix_name, warn_user

__all__ = [
    "categories_to_recognize",
    "checked_counts",
    "encode_some",
    "some_rows",
    "warn_of_other_counts",
    "warn_of_other_latent",
]

# Number of cells that are encoded again.
_N_CELLS = 64
# Larger differences between latent means are not rounding errors.
_TOLERANCE = 0.01
# Entries of the record of a fit: names of some cells, and their batches and covariates.
_CELLS, _CATEGORIES = "some_cells", "some_categories"


def some_rows(n_cells: int) -> NDArray[np.int64]:
    """Return the rows of the cells to encode again, evenly spread over the table."""
    return np.unique(np.linspace(0, n_cells - 1, min(_N_CELLS, n_cells), dtype=np.int64))


def encode_some(fitted: FittedModel, counts: CSR, codes: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the latent means of :func:`some_rows`, from the counts and categories of all cells."""
    rows = some_rows(counts.shape[0])
    return encode(fitted.module, counts[rows], codes[rows], show_progress_bar=False)[0]


def warn_of_other_latent(
    fitted: FittedModel, again: NDArray[np.floating], written: NDArray[np.floating], *, source: str
) -> None:
    """Warn if latent means of cells differ from those at the fit, because counts or categories were replaced.

    Counts that are no longer counts raise an error elsewhere; this check is for integers that replaced them, such as
    sampled corrected counts, and for tables that were combined from several fits.

    Parameters
    ----------
    fitted
        The model.
    again
        Latent means of the cells of :func:`some_rows`, from the current counts and categories.
    written
        Latent means of these cells at the fit.
    source
        Origin of `written`, for the message.

    Warns
    -----
    UserWarning
        If any latent mean differs.
    """
    if written.shape != again.shape:
        return
    n_others = int((np.abs(again - written).max(axis=1) > _TOLERANCE).sum())
    if n_others:
        warn_user(
            f"The counts in `{matrix_name(fitted.setup.layer)}` do not seem to be those of the fit: of {len(again)} "
            f"cells that were encoded again, {n_others} have a different latent mean than {source}. Restore what was "
            "replaced or transformed since (counts, covariates that are encoded, latent means), or fit again from a "
            "layer that stays unchanged, such as `layer='counts'`."
        )


def categories_to_recognize(adata: AnnData, categories: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """Return entries of the record of a fit by which :func:`warn_of_other_counts` recognizes batches and covariates.

    These are the names of some cells, which no other cell has, and their categories; none if all cells have the same.
    """
    if (categories == categories[:1]).all():
        return {}
    rows = some_rows(adata.n_obs)
    rows = rows[~adata.obs_names.duplicated(keep=False)[rows]]
    return {_CELLS: adata.obs_names[rows].astype(str).to_numpy(dtype=object), _CATEGORIES: categories[rows]}


def _warn_of_other_categories(adata: AnnData, fitted: FittedModel, record: Mapping[str, Any]) -> None:
    """Warn if cells whose categories were recorded have others now; the latent need not depend on these."""
    if _CELLS not in record:
        return
    place = pd.Index(record[_CELLS]).get_indexer(adata.obs_names.astype(str))
    rows = np.flatnonzero(place >= 0)
    then, now = np.asarray(record[_CATEGORIES])[place[rows]], category_codes(adata, fitted, rows)
    n_others = int((then != now).any(axis=1).sum())
    if n_others:
        columns = (fitted.setup.batch_key, *fitted.setup.categorical_covariate_keys)
        warn_user(
            f"The columns {listing(columns)} of `obs` are not those of the fit: of {len(rows)} cells that were looked "
            f"at, {n_others} have other values. Expression and corrected counts depend on these: restore them, or fit "
            "again."
        )


def warn_of_other_counts(adata: AnnData, fitted: FittedModel, keys: Keys, counts: CSR) -> None:
    """Warn as :func:`warn_of_other_latent` does, comparing with the latent means that the fit wrote into the table.

    Batches and further covariates are compared as well.
    """
    written = adata.obsm.get(keys.latent)
    known = {fitted.setup.batch_key, *fitted.setup.categorical_covariate_keys} - {None} <= set(adata.obs.columns)
    if written is None or sp.issparse(written) or not known or not adata.n_obs:
        return
    _warn_of_other_categories(adata, fitted, adata.uns[keys.model])
    rows = some_rows(adata.n_obs)
    source = f"the fit wrote into `obsm[{keys.latent!r}]`"
    # Only of these rows: reading the categories of all cells takes long in large tables.
    again, _ = encode(fitted.module, counts[rows], category_codes(adata, fitted, rows), show_progress_bar=False)
    warn_of_other_latent(fitted, again, np.asarray(written)[rows], source=source)


def checked_counts(adata: AnnData, fitted: FittedModel, keys: Keys) -> CSR:
    """Return the counts that the fit read, and warn if they appear to have changed."""
    counts = fitted_counts(adata, fitted.setup.layer)
    warn_of_other_counts(adata, fitted, keys, counts)
    return counts
