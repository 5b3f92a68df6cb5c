"""Expected true expression: of which cells, genes and batches, from which draws, on which scale."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm.auto import tqdm

from resolvi_sd._csr import CSR
from resolvi_sd._model import (
    ResolviModule,
    Sampler,
    check_weights,
    decode,
    encode,
    latent_draws,
    weigh_draws,
    weighted_expression,
)
from resolvi_sd._results import FittedModel
from resolvi_sd._tiles import Tissue
from resolvi_sd._validation import check_key, check_names, check_positive_int, group_names, listing
from resolvi_sd.gr._graph import NeighborGraph

__all__ = [
    "LibrarySize",
    "cell_scale",
    "check_request",
    "decoding_categories",
    "expression_draws",
    "gene_columns",
    "importance_expression",
]

LibrarySize = float | Literal["latent"]

_ROWS = 2048


def check_request(fitted: FittedModel, library_size: LibrarySize, n_samples: int, weights: str, size: bool) -> None:
    """Raise unless the settings of a request for expression make sense together.

    Raises
    ------
    TypeError, ValueError
        If a number is out of range, or settings contradict each other.
    """
    check_positive_int(n_samples, argument="n_samples")
    check_weights(weights)
    if isinstance(library_size, str):
        if library_size != "latent":
            raise ValueError(f"`library_size` must be a number or 'latent', not {library_size!r}.")
    elif isinstance(library_size, bool) or not 0 < library_size < np.inf:
        raise ValueError(f"`library_size` must be a positive number or 'latent', not {library_size!r}.")
    if weights == "importance" and n_samples == 1:
        raise ValueError("`weights='importance'` weighs draws of a cell against each other: pass e.g. `n_samples=25`.")
    if size and fitted.setup.size_factor_key is None:
        raise ValueError(
            "`size_scaling=True` divides by the sizes of the cells, and the model was fitted without: pass "
            "`size_factor_key=` to the fit."
        )
    if size and library_size != "latent":
        raise ValueError(
            "`size_scaling=True` needs `library_size='latent'`: scaled to a fixed library, expression has no size left "
            "in it."
        )


def gene_columns(genes: Sequence[str], known: Sequence[str] | pd.Index[str], *, argument: str) -> NDArray[np.int64]:
    """Return the columns of some genes.

    Raises
    ------
    TypeError
        If `genes` is a single string.
    KeyError
        If one is not known.
    ValueError
        If one is named twice.
    """
    genes = check_names(genes, argument=argument)
    columns = pd.Index(known).get_indexer(pd.Index(list(genes)))
    for gene, column in zip(genes, columns, strict=True):
        if column < 0:
            check_key(gene, known, argument=argument, where="table.var_names")
    return columns.astype(np.int64)


def decoding_categories(
    fitted: FittedModel, categories: NDArray[np.int64], transform_batch: str | Sequence[str] | None
) -> list[NDArray[np.int64]]:
    """Return the batch and covariates to decode with, cells × (1 + covariates), for each batch that is averaged over.

    Raises
    ------
    KeyError
        If a batch is not known.
    ValueError
        If no batch is named, or the fit had none.
    """
    if transform_batch is None:
        return [categories]
    names = list(dict.fromkeys(group_names(transform_batch)))
    if not names:
        raise ValueError(f"`transform_batch` is empty: name one of {listing(fitted.batches)}, or leave it out.")
    settings = []
    if fitted.setup.batch_key is None:
        raise ValueError("`transform_batch` is for a fit with `batch_key=`; this one has a single batch.")
    for name in names:
        check_key(name, fitted.batches, argument="transform_batch", where=f"obs[{fitted.setup.batch_key!r}]")
        setting = categories.copy()
        setting[:, 0] = fitted.batches.index(name)
        settings.append(setting)
    return settings


def expression_draws(
    module: ResolviModule,
    counts: CSR,
    categories: NDArray[np.int64],
    settings: Sequence[NDArray[np.int64]],
    columns: slice | NDArray[np.int64],
    *,
    n_samples: int,
    rng: np.random.Generator,
    show_progress_bar: bool,
) -> Iterator[NDArray[np.float32]]:
    """Yield the expression rho at the mean of the latent, or from each of several draws, cells × `columns`."""
    mean, spread = encode(module, counts, categories, show_progress_bar=show_progress_bar)
    for latent in latent_draws(mean, spread, n_samples, rng):
        drawn = decode(module, latent, settings[0], columns)
        for setting in settings[1:]:
            drawn += decode(module, latent, setting, columns)
        drawn /= np.float32(len(settings))
        yield drawn


def importance_expression(
    module: ResolviModule,
    tissue: Tissue,
    graph: NeighborGraph,
    settings: Sequence[NDArray[np.int64]],
    columns: slice | NDArray[np.int64],
    *,
    n_samples: int,
    rng: np.random.Generator,
    show_progress_bar: bool,
) -> NDArray[np.float32]:
    """Return the importance-weighted mean of rho over draws, cells × `columns`, block after block of cells."""
    sampler = Sampler.create(module, tissue, n_samples=n_samples, rng=rng)
    n_columns = tissue.n_genes if isinstance(columns, slice) else len(columns)
    expression: NDArray[np.float32] = np.empty((tissue.n_cells, n_columns), np.float32)
    order = graph.compact_order(np.arange(tissue.n_cells), _ROWS)
    for start in tqdm(range(0, len(order), _ROWS), desc="Weighing draws", disable=not show_progress_bar):
        rows = order[start : start + _ROWS]
        draws = weigh_draws(sampler, rows)
        expression[rows] = weighted_expression(module, draws, [setting[rows] for setting in settings], columns)
    return expression


def cell_scale(
    library_size: LibrarySize, own: NDArray[np.floating] | None, relative_size: NDArray[np.floating] | None
) -> np.float32 | NDArray[np.float32]:
    """Return what expression is multiplied by: a number, or one for each cell, cells × 1.

    Parameters
    ----------
    library_size
        Sum of a cell over all genes; `"latent"`: its own molecules.
    own
        Own molecules of each cell, for `"latent"`.
    relative_size
        Size of each cell over that of the median cell, to divide by; None is not to.
    """
    if not isinstance(library_size, str):
        return np.float32(library_size)
    if own is None:
        raise ValueError("`library_size='latent'` needs the own molecules of the cells.")
    molecules = own if relative_size is None else own / relative_size
    return np.asarray(molecules, dtype=np.float32)[:, None]
