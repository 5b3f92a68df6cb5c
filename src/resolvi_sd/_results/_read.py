"""Find the fitted model of a table again."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from resolvi_sd._keys import Keys
from resolvi_sd._results._fitted import FittedModel, from_state

__all__ = ["category_codes", "read_fit"]


def read_fit(adata: AnnData, keys: Keys) -> FittedModel:
    """Return the model that was fitted on `adata`, with neighbor weights of zero.

    Raises
    ------
    KeyError
        If there is none under these keys.
    ValueError
        If the genes are no longer those of the fit.
    """
    if keys.model not in adata.uns:
        others = [k for k, v in adata.uns.items() if isinstance(v, dict) and {"weights", "model_config"} <= set(v)]
        hint = f" There are fits with `key_added` {others}." if others else ""
        raise KeyError(
            f"The table has no fit in `uns[{keys.model!r}]`.{hint} Please run "
            f"`resolvi_sd.tl.fit(..., key_added={keys.prefix!r})` first."
        )
    fitted = from_state(adata.uns[keys.model], n_cells=adata.n_obs, n_neighbors=1)
    fitted.require_genes(adata.var_names)
    return fitted


def category_codes(adata: AnnData, fitted: FittedModel) -> NDArray[np.int64]:
    """Batch and further covariates of each cell, cells × (1 + covariates), in the order of the fitted categories.

    Raises
    ------
    KeyError
        If a column of the fit is gone.
    ValueError
        If it holds a category that the model has not seen.
    """
    setup = fitted.setup
    codes = np.zeros((adata.n_obs, 1 + len(fitted.covariates)), dtype=np.int64)
    if setup.batch_key is not None:
        codes[:, 0] = _codes(adata, "batch_key", setup.batch_key, fitted.batches)
    for i, (key, known) in enumerate(zip(setup.categorical_covariate_keys, fitted.covariates, strict=True)):
        codes[:, 1 + i] = _codes(adata, "categorical_covariate_keys", key, known)
    return codes


def _codes(adata: AnnData, argument: str, key: str, known: tuple[str, ...]) -> NDArray[np.int64]:
    if key not in adata.obs:
        raise KeyError(f"The model was fitted with `{argument}={key!r}`, which `obs` lacks: {list(adata.obs.columns)}.")
    values = adata.obs[key].astype(str)
    codes = pd.Index(known).get_indexer(values)
    if (codes < 0).any():
        new = sorted(set(values) - set(known))
        raise ValueError(f"`obs[{key!r}]` has categories that the model has not seen: {new}; it knows {known}.")
    return codes.astype(np.int64)
