"""Check that the counts are still those used for the fit, by encoding a few cells again."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from anndata import AnnData
from numpy.typing import NDArray

from resolvi_sd._csr import CSR
from resolvi_sd._keys import Keys
from resolvi_sd._model import encode
from resolvi_sd._results._fitted import FittedModel
from resolvi_sd._results._read import category_codes, fitted_counts
from resolvi_sd._validation import matrix_name, warn_user

__all__ = ["checked_counts", "encode_some", "some_rows", "warn_of_other_counts", "warn_of_other_latent"]

# Number of cells that are encoded again.
_N_CELLS = 64
# Larger differences between latent means are not rounding errors.
_TOLERANCE = 0.01


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
            "replaced or transformed since (counts, batches and covariates, latent means), or fit again from a layer "
            "that stays unchanged, such as `layer='counts'`."
        )


def warn_of_other_counts(adata: AnnData, fitted: FittedModel, keys: Keys, counts: CSR) -> None:
    """Warn as :func:`warn_of_other_latent` does, comparing with the latent means that the fit wrote into the table."""
    written = adata.obsm.get(keys.latent)
    known = {fitted.setup.batch_key, *fitted.setup.categorical_covariate_keys} - {None} <= set(adata.obs.columns)
    if written is None or sp.issparse(written) or not known or not adata.n_obs:
        return
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
