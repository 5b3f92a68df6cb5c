"""Find the fitted model of a table again."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from resolvi_sd._keys import Keys
from resolvi_sd._results._fitted import FittedModel, from_state

__all__ = ["batch_codes", "read_fit"]


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
    if tuple(adata.var_names.astype(str)) != fitted.genes:
        now, then = set(adata.var_names.astype(str)), set(fitted.genes)
        raise ValueError(
            f"The genes of the table are not those that the model was fitted on: {len(then - now)} of {len(then)} are "
            f"gone, {len(now - then)} are new{'' if now != then else ', the order is another'}. "
            "Use the table as it was fitted, or fit again."
        )
    return fitted


def batch_codes(adata: AnnData, fitted: FittedModel) -> NDArray[np.int64]:
    """Batch of each cell in the order of the fitted batches."""
    key = fitted.setup.batch_key
    if key is None:
        return np.zeros(adata.n_obs, dtype=np.int64)
    if key not in adata.obs:
        raise KeyError(f"The model was fitted with `batch_key={key!r}`, which `obs` lacks: {list(adata.obs.columns)}.")
    codes = pd.Index(fitted.batches).get_indexer(adata.obs[key].astype(str))
    if (codes < 0).any():
        new = sorted(set(adata.obs[key].astype(str)) - set(fitted.batches))
        raise ValueError(f"`obs[{key!r}]` has batches that the model has not seen: {new}; it knows {fitted.batches}.")
    return codes.astype(np.int64)
