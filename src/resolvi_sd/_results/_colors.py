"""Colors of the labels of a fit."""

from __future__ import annotations

import pandas as pd
from anndata import AnnData

from resolvi_sd._results._fitted import FittedModel
from resolvi_sd._validation import group_names

__all__ = ["label_colors"]


def label_colors(adata: AnnData, fitted: FittedModel) -> tuple[str, ...]:
    """Return the color of each label of the fit, from the table or, if it has none, from the reference.

    Parameters
    ----------
    adata
        The table; colors are stored by scanpy in `uns[f"{labels_key}_colors"]`.
    fitted
        The model.

    Returns
    -------
    Colors in the order of the labels; empty if neither has any.
    """
    key = fitted.setup.labels_key
    colors = adata.uns.get(f"{key}_colors")
    if colors is None or key not in adata.obs or not isinstance(adata.obs[key].dtype, pd.CategoricalDtype):
        return fitted.colors
    by_name = dict(zip(group_names(adata.obs[key].cat.categories), colors, strict=False))
    return tuple(str(by_name[name]) for name in fitted.labels) if set(fitted.labels) <= set(by_name) else fitted.colors
