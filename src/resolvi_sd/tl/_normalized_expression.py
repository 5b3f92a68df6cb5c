"""Expected true expression of a fitted table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from spatialdata import SpatialData

from resolvi_sd._keys import DEFAULT_KEY, Keys
from resolvi_sd._model import ResolviModule, decode, encode, latent_draws
from resolvi_sd._random import RandomLike, as_generator
from resolvi_sd._results import batch_codes, read_fit
from resolvi_sd._tables import resolve_table, table_counts
from resolvi_sd._validation import check_key, check_positive_int

__all__ = ["normalized_expression"]

# A dense layer above this many bytes stays a dask array, computed when it is read or written.
_LARGE = 2 << 30
_CHUNK = 16_384


def normalized_expression(
    data: SpatialData | AnnData,
    *,
    library_size: float = 1e4,
    genes: Sequence[str] | None = None,
    n_samples: int = 1,
    table_key: str = "table",
    key_added: str = DEFAULT_KEY,
    rng: RandomLike = 0,
    copy: bool = False,
    show_progress_bar: bool = True,
) -> AnnData | None:
    """Write the expected true expression rho of every cell, scaled to a library size.

    Unlike the corrected counts, which stay within what was observed, this is the decoder's smooth estimate: positive
    for every gene.

    Parameters
    ----------
    data
        A SpatialData object or table on which :func:`resolvi_sd.tl.fit` was run, now or before it was stored.
    library_size
        Sum over all genes of the model in each cell.
    genes
        Only these genes; all when None.
    n_samples
        1: at the mean of the latent posterior; more: averaged over so many draws.
    table_key
        Name of the table in a SpatialData object.
    key_added
        Prefix of the fit.
    rng
        Seed or generator of the draws.
    copy
        Leave `data` alone and return a copy of the table with the result.
    show_progress_bar
        Whether to show a progress bar.

    Returns
    -------
    None, or the table if `copy`. Modifies the table with:

    - `.layers['resolvi_expression']`: cells × genes, float32, if `genes` is None; a dask array where it would take
      more than 2 GiB (then `n_samples` must be 1);
    - `.obsm['resolvi_expression']`: DataFrame, cells × `genes`, float32, otherwise.

    Raises
    ------
    KeyError
        If there is no fit, or a gene is not in it.
    ValueError
        If the genes of the table are no longer those of the fit, or a number is out of range.

    References
    ----------
    Ergen & Yosef (2025), doi:10.1101/2025.01.20.634005.

    Examples
    --------
    >>> import resolvi_sd as rsd
    >>> sdata = rsd.datasets.simulate_tissue(n_cells=300, n_genes=40, rng=0)
    >>> rsd.tl.fit(sdata, max_epochs=2, show_progress_bar=False)
    >>> rsd.tl.normalized_expression(sdata, library_size=100, show_progress_bar=False)
    >>> float(sdata.tables["table"].layers["resolvi_expression"][0].sum().round(3))
    100.0
    """
    if not library_size > 0:
        raise ValueError(f"`library_size` must be positive, got {library_size}.")
    check_positive_int(n_samples, argument="n_samples")
    adata = resolve_table(data, table_key)
    keys = Keys(key_added)
    fitted = read_fit(adata, keys)
    columns = slice(None) if genes is None else _columns(genes, adata.var_names)
    batch = batch_codes(adata, fitted)
    lazy = genes is None and adata.n_obs * adata.n_vars * 4 > _LARGE
    if lazy and n_samples > 1:
        raise ValueError(
            f"{adata.n_obs:,} cells × {adata.n_vars:,} genes are too many to average draws of: choose some `genes`, or "
            "`n_samples=1`."
        )
    counts = table_counts(adata, fitted.setup.layer)
    mean, spread = encode(fitted.module, counts, show_progress_bar=show_progress_bar)
    target = adata.copy() if copy else adata
    if lazy:
        target.layers[keys.expression] = _lazy_expression(fitted.module, mean, batch, library_size)
    else:
        expression = np.zeros((adata.n_obs, adata.n_vars if genes is None else len(genes)), np.float32)
        for latent in latent_draws(mean, spread, n_samples, as_generator(rng)):
            expression += decode(fitted.module, latent, batch, columns)
        expression *= np.float32(library_size / n_samples)
        if genes is None:
            target.layers[keys.expression] = expression
        else:
            target.obsm[keys.expression] = pd.DataFrame(expression, index=adata.obs_names, columns=list(genes))
    return target if copy else None


def _columns(genes: Sequence[str], known: pd.Index[str]) -> NDArray[np.int64]:
    columns = known.get_indexer(pd.Index(genes))
    for gene, column in zip(genes, columns, strict=True):
        if column < 0:
            check_key(gene, known, argument="genes", where="table.var_names")
    return columns.astype(np.int64)


def _lazy_expression(
    module: ResolviModule, latent: NDArray[np.float32], batch: NDArray[np.int64], library_size: float
) -> Any:
    """Dask array, cells × genes, that decodes a block of cells when it is asked for."""
    import dask.array as da

    blocks = (_CHUNK, latent.shape[1])
    return da.map_blocks(
        lambda rows, codes: np.float32(library_size) * decode(module, rows, codes.ravel(), slice(None)),
        da.from_array(latent, chunks=blocks),
        da.from_array(batch[:, None], chunks=(_CHUNK, 1)),
        dtype=np.float32,
        chunks=(da.from_array(latent, chunks=blocks).chunks[0], (module.data.n_genes,)),
        meta=np.empty((0, 0), np.float32),
    )
