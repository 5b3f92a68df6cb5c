"""Expected true expression of a fitted table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray
from spatialdata import SpatialData

from resolvi_sd._analysis import ExpressionRequest, LibrarySize, importance_expression, mean_expression
from resolvi_sd._csr import CSR, row_sums
from resolvi_sd._keys import DEFAULT_KEY, Keys
from resolvi_sd._model import ResolviModule, Weights, decode, encode
from resolvi_sd._random import RandomLike, as_generator
from resolvi_sd._results import (
    FittedModel,
    category_codes,
    checked_counts,
    read_fit,
    restore_tissue,
)
from resolvi_sd._tables import read_sizes, resolve_table
from resolvi_sd._validation import check_result, check_takes_results

__all__ = ["normalized_expression"]

# A dense layer above this many bytes stays a dask array, computed when it is read or written.
_LARGE = 2 << 30
_CHUNK = 16_384


def normalized_expression(
    data: SpatialData | AnnData,
    *,
    library_size: LibrarySize = 1e4,
    genes: Sequence[str] | None = None,
    transform_batch: str | Sequence[str] | None = None,
    size_scaling: bool = False,
    n_samples: int = 1,
    weights: Weights = "uniform",
    table_key: str = "table",
    key_added: str = DEFAULT_KEY,
    rng: RandomLike = 0,
    copy: bool = False,
    show_progress_bar: bool = True,
) -> AnnData | None:
    """Write the expected true expression rho of every cell, scaled to a library size.

    Unlike the corrected counts, which stay within the observed counts, this is the decoder's smooth estimate, which is
    positive for every gene.

    Parameters
    ----------
    data
        A SpatialData object or table on which :func:`resolvi_sd.tl.fit` was run, in this session or before it was
        stored.
    library_size
        Sum over all genes of the model in each cell. `"latent"`: the number of the cell's own molecules, so that rates
        are on the scale of the counts.
    genes
        Names of the genes; all if None.
    transform_batch
        Decode as if all cells were in this batch, or average over these batches.
    size_scaling
        With `library_size="latent"`, divide by the size of each cell relative to that of the median cell, which gives
        own molecules in a cell of median size. Only after a fit with `size_factor_key`.
    n_samples
        1: expression at the mean of the encoder's normal q(z | x); more: averaged over this many draws from it.
    weights
        Weights of the draws. `"uniform"`: equal. `"importance"`: for cell n, proportional to
        p(x_n | z) p(z) / q(z | x_n) and summing to 1 over its draws; the mean then tends to the expectation under the
        model's posterior. Here, p(z) is the mixture prior, and p(x_n | z) the probability of all counts of the cell,
        Delaporte or Poisson as fitted, given its shares, neighbor weights, background and overdispersion, and the
        expression of its neighbors at the means of their q. This requires at least two draws, and the graph and the
        neighbor weights of the table. Of 25 draws, the median effective number was 22 (simulated `xenium`, 200 genes).
    table_key
        Name of the table in a SpatialData object.
    key_added
        Prefix of the results of the fit.
    rng
        Seed or generator for the draws.
    copy
        Leave `data` unchanged and return a copy of the table with the result.
    show_progress_bar
        Whether to show a progress bar.

    Returns
    -------
    None, or the table if `copy`. Modifies the table with:

    - `.layers['resolvi_expression']`: cells × genes, float32, if `genes` is None; a dask array if it would take more
      than 2 GiB (`n_samples` must then be 1);
    - `.obsm['resolvi_expression']`: cells × `genes`, float32, otherwise, with their names in
      `.uns['resolvi_expression']`.

    The one of them that an earlier call may have written is removed.

    Raises
    ------
    KeyError
        If there is no fit, or a gene is not in it.
    ValueError
        If the genes of the table are no longer those of the fit, a number is out of range, or importance weights are
        requested for a single draw.

    References
    ----------
    Ergen & Yosef (2025), doi:10.1101/2025.01.20.634005; Boyeau et al. (2023), doi:10.1073/pnas.2209124120, for the
    importance weights.

    Examples
    --------
    >>> import resolvi_sd as rsd
    >>> sdata = rsd.datasets.simulate_tissue(n_cells=300, n_genes=40, rng=0)
    >>> rsd.tl.fit(sdata, max_epochs=2, show_progress_bar=False)
    >>> rsd.tl.normalized_expression(sdata, library_size=100, show_progress_bar=False)
    >>> float(sdata.tables["table"].layers["resolvi_expression"][0].sum().round(3))
    100.0
    """
    adata = resolve_table(data, table_key)
    keys = Keys(key_added)
    check_takes_results(adata, copy=copy)
    fitted = read_fit(adata, keys)
    categories = category_codes(adata, fitted)
    request = ExpressionRequest.of(
        fitted,
        categories,
        genes=genes,
        argument="genes",
        transform_batch=transform_batch,
        library_size=library_size,
        size_scaling=size_scaling,
        n_samples=n_samples,
        weights=weights,
    )
    lazy = genes is None and adata.n_obs * adata.n_vars * 4 > _LARGE
    if lazy and (n_samples > 1 or len(request.settings) > 1):
        raise ValueError(
            f"{adata.n_obs:,} cells × {adata.n_vars:,} genes are too many to average over: choose some `genes`, or one "
            "draw (`n_samples=1`) and one batch (`transform_batch`)."
        )
    generator = as_generator(rng)
    if request.weights == "importance":
        tissue, graph = restore_tissue(adata, keys, fitted)
        scale = _scale(adata, fitted, keys, request, tissue.counts)
        expression = importance_expression(
            fitted.module, tissue, graph, request, scale, rng=generator, show_progress_bar=show_progress_bar
        )
    else:
        counts = checked_counts(adata, fitted, keys)
        scale = _scale(adata, fitted, keys, request, counts)
        if lazy:
            expression = _lazy_expression(fitted.module, counts, categories, request, scale, show_progress_bar)
        else:
            expression = mean_expression(
                fitted.module, counts, categories, request, scale, rng=generator, show_progress_bar=show_progress_bar
            )
    target = adata.copy() if copy else adata
    for entries in (target.layers, target.obsm, target.uns):
        entries.pop(keys.expression, None)  # of an earlier call, with other genes or another scale
    if genes is None:
        target.layers[keys.expression] = expression
    else:
        target.obsm[keys.expression] = expression
        target.uns[keys.expression] = np.array(request.names, dtype=object)
    return target if copy else None


def _scale(
    adata: AnnData, fitted: FittedModel, keys: Keys, request: ExpressionRequest, counts: CSR
) -> np.float32 | NDArray[np.float32]:
    """Return the factor by which the expression of each cell is multiplied."""
    own = relative = None
    if request.needs_own:
        check_result(keys.true, adata.obs, where="table.obs", tool=keys.call("fit"))
        own = np.nan_to_num(adata.obs[keys.true].to_numpy(np.float64)) * row_sums(counts)
    if request.size_scaling:
        relative = read_sizes(adata, str(fitted.setup.size_column(keys))) / fitted.module.data.median_size
    return request.scale(own, relative)


def _lazy_expression(
    module: ResolviModule,
    counts: CSR,
    categories: NDArray[np.int64],
    request: ExpressionRequest,
    scale: np.float32 | NDArray[np.float32],
    show_progress_bar: bool,
) -> Any:
    """Return a dask array, cells × genes, that decodes blocks of cells at the latent mean when they are computed."""
    import dask.array as da

    latent, _ = encode(module, counts, categories, show_progress_bar=show_progress_bar)
    blocks = (_CHUNK, latent.shape[1])
    return da.map_blocks(
        lambda rows, codes, factor: factor * decode(module, rows, codes, slice(None), request.among),
        da.from_array(latent, chunks=blocks),
        da.from_array(request.settings[0], chunks=(_CHUNK, categories.shape[1])),
        da.from_array(np.broadcast_to(scale, (len(latent), 1)), chunks=(_CHUNK, 1)),
        dtype=np.float32,
        chunks=(da.from_array(latent, chunks=blocks).chunks[0], (module.data.n_genes,)),
        meta=np.empty((0, 0), np.float32),
    )
