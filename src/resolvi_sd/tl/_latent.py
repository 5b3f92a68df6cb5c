"""The latent space of a fitted table."""

from __future__ import annotations

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray
from spatialdata import SpatialData

from resolvi_sd._keys import DEFAULT_KEY, Keys
from resolvi_sd._model import latent_of
from resolvi_sd._random import RandomLike, as_generator
from resolvi_sd._results import category_codes, checked_counts, read_fit
from resolvi_sd._tables import resolve_table
from resolvi_sd._validation import check_takes_results

__all__ = ["latent"]


def latent(
    data: SpatialData | AnnData,
    *,
    give_mean: bool = True,
    return_dist: bool = False,
    table_key: str = "table",
    key_added: str = DEFAULT_KEY,
    rng: RandomLike = 0,
    copy: bool = False,
    show_progress_bar: bool = True,
) -> NDArray[np.float32] | tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """Infer the latent space again, with the encoder of a fit.

    :func:`resolvi_sd.tl.fit` already writes the latent means. This function recomputes them for a table that was
    changed or has lost them, and also provides single draws and variances.

    Parameters
    ----------
    data
        A SpatialData object or table on which :func:`resolvi_sd.tl.fit` was run.
    give_mean
        Whether to give the mean of the posterior. False, only with `copy`: a single draw.
    return_dist
        Return the mean and the variance of the posterior, which is normal with independent dimensions, and write
        nothing.
    table_key
        Name of the table in a SpatialData object.
    key_added
        Prefix of the results of the fit.
    rng
        Seed or generator for the draw.
    copy
        Leave `data` unchanged and return the result.
    show_progress_bar
        Whether to show a progress bar.

    Returns
    -------
    None; an array, cells × n_latent, float32, if `copy`; two such arrays, the mean and the variance, if `return_dist`.
    Otherwise modifies the table with:

    - `.obsm['X_resolvi']`: cells × n_latent, float32.

    Raises
    ------
    KeyError
        If there is no fit, or a column of `obs` that it used is missing.
    ValueError
        If the genes or categories of the table are not those of the fit, or a draw is requested without `copy` or with
        `return_dist`.

    References
    ----------
    Ergen & Yosef (2025), doi:10.1101/2025.01.20.634005.

    Examples
    --------
    >>> import resolvi_sd as rsd
    >>> sdata = rsd.datasets.simulate_tissue(n_cells=300, n_genes=40, rng=0)
    >>> rsd.tl.fit(sdata, max_epochs=2, show_progress_bar=False)
    >>> mean, variance = rsd.tl.latent(sdata, return_dist=True, show_progress_bar=False)
    >>> mean.shape, bool((variance > 0).all())
    ((300, 10), True)
    """
    if not give_mean and (return_dist or not copy):
        why = "`return_dist` returns mean and variance" if return_dist else "other functions expect means in `obsm`"
        raise ValueError(f"`give_mean=False` gives a single draw, and only with `copy=True`: {why}.")
    adata = resolve_table(data, table_key)
    if not copy and not return_dist:
        check_takes_results(adata)
    keys = Keys(key_added)
    fitted = read_fit(adata, keys)
    counts, categories = checked_counts(adata, fitted, keys), category_codes(adata, fitted)
    found = latent_of(
        fitted.module,
        counts,
        categories,
        give_mean=give_mean,
        return_dist=return_dist,
        rng=as_generator(rng),
        show_progress_bar=show_progress_bar,
    )
    if copy or return_dist:
        return found
    adata.obsm[keys.latent] = found
    return None
