"""Predicted labels of the cells of a fitted table."""

from __future__ import annotations

import pandas as pd
from anndata import AnnData
from spatialdata import SpatialData

from resolvi_sd._keys import DEFAULT_KEY, Keys
from resolvi_sd._model import classify
from resolvi_sd._random import RandomLike, as_generator
from resolvi_sd._results import category_codes, checked_counts, most_probable, read_fit, write_labels
from resolvi_sd._tables import resolve_table
from resolvi_sd._validation import check_positive_int, check_takes_results

__all__ = ["predict"]


def predict(
    data: SpatialData | AnnData,
    *,
    soft: bool = False,
    n_samples: int = 1,
    table_key: str = "table",
    key_added: str = DEFAULT_KEY,
    rng: RandomLike = 0,
    copy: bool = False,
    show_progress_bar: bool = True,
) -> pd.Series[str] | pd.DataFrame | None:
    """Predict the label of every cell with the classifier of a semi-supervised fit.

    Parameters
    ----------
    data
        A SpatialData object or table on which :func:`resolvi_sd.tl.fit` was run with `labels_key`.
    soft
        With `copy`: return probabilities instead of labels.
    n_samples
        1: probabilities at the mean of the latent posterior; more: averaged over this many draws.
    table_key
        Name of the table in a SpatialData object.
    key_added
        Prefix of the results of the fit.
    rng
        Seed or generator for the draws.
    copy
        Leave `data` unchanged and return the result.
    show_progress_bar
        Whether to show a progress bar.

    Returns
    -------
    None, or, if `copy`, the labels (categorical Series) or the probabilities (DataFrame, cells × labels). Modifies the
    table with:

    - `.obs['resolvi_predicted']`: most probable label, categorical with the labels of the fit;
    - `.obsm['resolvi_probabilities']`: probabilities, cells × labels, float32; names in `.uns['resolvi']['labels']`.

    Cells without counts have no label and NaN probabilities.

    Raises
    ------
    KeyError
        If there is no fit.
    ValueError
        If the fit had no labels, the genes of the table are no longer those of the fit, or `soft` is given without
        `copy`.

    Examples
    --------
    >>> import resolvi_sd as rsd
    >>> sdata = rsd.datasets.simulate_tissue(n_cells=300, n_genes=40, rng=0)
    >>> rsd.tl.fit(sdata, labels_key="cell_type", max_epochs=2, show_progress_bar=False)
    >>> rsd.tl.predict(sdata, copy=True, soft=True, show_progress_bar=False).shape[0]
    300
    """
    check_positive_int(n_samples, argument="n_samples")
    if soft and not copy:
        raise ValueError(
            "`soft=True` changes what `copy=True` returns; without `copy`, probabilities are written to `obsm` in any "
            "case. Leave it out, or pass both."
        )
    adata = resolve_table(data, table_key)
    if not copy:
        check_takes_results(adata)
    keys = Keys(key_added)
    fitted = read_fit(adata, keys)
    fitted.require_labels()
    counts, categories = checked_counts(adata, fitted, keys), category_codes(adata, fitted)
    probabilities = classify(
        fitted.module,
        counts,
        categories,
        n_samples=n_samples,
        rng=as_generator(rng),
        show_progress_bar=show_progress_bar,
    )
    if not copy:
        write_labels(adata, fitted, probabilities, keys=keys)
        return None
    if soft:
        return pd.DataFrame(probabilities, index=adata.obs_names, columns=list(fitted.labels))
    labels = most_probable(fitted, probabilities)
    return pd.Series(labels, index=adata.obs_names, name=keys.predicted)
