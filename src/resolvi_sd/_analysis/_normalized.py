"""Expected true expression of requested genes, in requested batches and on a requested scale."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm.auto import tqdm

from resolvi_sd._csr import CSR
from resolvi_sd._graphs import NeighborGraph
from resolvi_sd._model import (
    ResolviModule,
    Sampler,
    Weights,
    check_weights,
    decode_mean,
    encode,
    in_batch,
    latent_draws,
    weigh_draws,
    weighted_expression,
)
from resolvi_sd._results import FittedModel
from resolvi_sd._tiles import Tissue
from resolvi_sd._validation import check_key, check_names, check_number, check_positive_int, group_names, listing

__all__ = ["ExpressionRequest", "LibrarySize", "expression_draws", "importance_expression", "mean_expression"]

LibrarySize = float | Literal["latent"]

_ROWS = 2048


@dataclass(frozen=True)
class ExpressionRequest:
    """A checked request for expression.

    Attributes
    ----------
    names, columns
        The genes, and their columns.
    among
        Columns of the genes over which the expression of a cell sums to `library_size`.
    settings
        Batch and covariates to decode with, cells × (1 + covariates), for each batch that is averaged over.
    library_size
        Sum of a cell over all genes; `"latent"` means its own molecules.
    size_scaling
        Whether the own molecules are divided by the cell's relative size.
    n_samples, weights
        Number of draws of the latent, and how they are weighted.
    """

    names: Sequence[str]
    columns: slice | NDArray[np.int64]
    among: slice | NDArray[np.intp]
    settings: Sequence[NDArray[np.int64]]
    library_size: LibrarySize
    size_scaling: bool
    n_samples: int
    weights: Weights

    @classmethod
    def of(
        cls,
        fitted: FittedModel,
        categories: NDArray[np.int64],
        *,
        genes: Sequence[str] | None,
        argument: str,
        transform_batch: str | Sequence[str] | None,
        library_size: LibrarySize,
        size_scaling: bool,
        n_samples: int,
        weights: Weights,
    ) -> Self:
        """Check a user's request for cells with these batches and covariates; `argument` is the user's name of `genes`.

        Raises
        ------
        TypeError, ValueError
            If a number is out of range, settings contradict each other or the fit, a gene is named twice, or none is.
        KeyError
            If a gene or batch is unknown.
        """
        _check_settings(fitted, library_size, n_samples, weights, size_scaling)
        names = fitted.genes if genes is None else check_names(genes, argument=argument)
        if not names:
            raise ValueError(f"`{argument}` is empty: name genes, or leave it out for all of them.")
        return cls(
            names=names,
            columns=slice(None) if genes is None else _gene_columns(names, fitted.genes, argument=argument),
            # The own molecules of a query are those of the genes that it has.
            among=fitted.measured if library_size == "latent" and fitted.unmeasured else slice(None),
            settings=_decoding_categories(fitted, categories, transform_batch),
            library_size=library_size,
            size_scaling=size_scaling,
            n_samples=n_samples,
            weights=weights,
        )

    @property
    def needs_own(self) -> bool:
        """Whether the own molecules of the cells are needed for the scale."""
        return self.library_size == "latent"

    def scale(
        self, own: NDArray[np.floating] | None, relative_size: NDArray[np.floating] | None
    ) -> np.float32 | NDArray[np.float32]:
        """Return the factor of the expression: a number, or one for each cell, cells × 1.

        Parameters
        ----------
        own
            Own molecules of each cell, if they are needed.
        relative_size
            Size of each cell relative to that of the median cell, with `size_scaling`.
        """
        if not isinstance(self.library_size, str):
            return np.float32(self.library_size)
        if own is None:
            raise ValueError("`library_size='latent'` needs the own molecules of the cells.")
        molecules = own if relative_size is None else own / relative_size
        return np.asarray(molecules, dtype=np.float32)[:, None]


def expression_draws(
    module: ResolviModule,
    counts: CSR,
    categories: NDArray[np.int64],
    request: ExpressionRequest,
    *,
    rng: np.random.Generator,
    show_progress_bar: bool,
) -> Iterator[NDArray[np.float32]]:
    """Yield the expression rho at the mean of the latent, or from each of several draws, cells × genes."""
    mean, spread = encode(module, counts, categories, show_progress_bar=show_progress_bar)
    for latent in latent_draws(mean, spread, request.n_samples, rng):
        yield decode_mean(module, latent, request.settings, request.columns, request.among)


def mean_expression(
    module: ResolviModule,
    counts: CSR,
    categories: NDArray[np.int64],
    request: ExpressionRequest,
    scale: np.float32 | NDArray[np.float32],
    *,
    rng: np.random.Generator,
    show_progress_bar: bool,
) -> NDArray[np.float32]:
    """Return the mean of :func:`expression_draws`, times the scale, cells × genes."""
    draws = expression_draws(module, counts, categories, request, rng=rng, show_progress_bar=show_progress_bar)
    total = next(draws)
    for drawn in draws:
        total += drawn
    total *= scale / np.float32(request.n_samples)
    return total


def importance_expression(
    module: ResolviModule,
    tissue: Tissue,
    graph: NeighborGraph,
    request: ExpressionRequest,
    scale: np.float32 | NDArray[np.float32],
    *,
    rng: np.random.Generator,
    show_progress_bar: bool,
) -> NDArray[np.float32]:
    """Return the importance-weighted mean of rho over draws, times the scale, cells × genes, computed in blocks."""
    sampler = Sampler.create(module, tissue, n_samples=request.n_samples, rng=rng)
    expression: NDArray[np.float32] = np.empty((tissue.n_cells, len(request.names)), np.float32)
    for rows in tqdm(graph.compact_parts(_ROWS), desc="Weighing draws", disable=not show_progress_bar):
        draws = weigh_draws(sampler, rows)
        expression[rows] = weighted_expression(
            module, draws, [setting[rows] for setting in request.settings], request.columns, request.among
        )
    expression *= scale
    return expression


def _check_settings(fitted: FittedModel, library_size: LibrarySize, n_samples: int, weights: str, size: bool) -> None:
    """Raise unless the settings of a request for expression are consistent.

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
    else:
        check_number(library_size, argument="library_size", above=0, why="or 'latent'")
    if weights == "importance" and n_samples == 1:
        raise ValueError("`weights='importance'` weights several draws per cell: pass, e.g., `n_samples=25`.")
    if size and fitted.setup.size_factor_key is None:
        raise ValueError(
            "`size_scaling=True` divides by the sizes of the cells, but the model was fitted without sizes: pass "
            "`size_factor_key=` to the fit."
        )
    if size and library_size != "latent":
        raise ValueError(
            "`size_scaling=True` needs `library_size='latent'`: expression scaled to a fixed library size does not "
            "depend on cell size."
        )


def _gene_columns(genes: Sequence[str], known: Sequence[str] | pd.Index[str], *, argument: str) -> NDArray[np.int64]:
    """Return the columns of some genes.

    Raises
    ------
    KeyError
        If a gene is unknown.
    """
    columns = pd.Index(known).get_indexer(pd.Index(list(genes)))
    for gene, column in zip(genes, columns, strict=True):
        if column < 0:
            check_key(gene, known, argument=argument, where="table.var_names")
    return columns.astype(np.int64)


def _decoding_categories(
    fitted: FittedModel, categories: NDArray[np.int64], transform_batch: str | Sequence[str] | None
) -> list[NDArray[np.int64]]:
    """Return the batch and covariates to decode with, cells × (1 + covariates), for each batch that is averaged over.

    Raises
    ------
    KeyError
        If a batch is unknown.
    ValueError
        If no batch is named, or if the fit had no batches.
    """
    if transform_batch is None:
        return [categories]
    names = list(dict.fromkeys(group_names(transform_batch)))
    if not names:
        raise ValueError(f"`transform_batch` is empty: name one of {listing(fitted.batches)}, or leave it out.")
    if fitted.setup.batch_key is None:
        raise ValueError("`transform_batch` is for a fit with `batch_key=`; this one has a single batch.")
    for name in names:
        check_key(name, fitted.batches, argument="transform_batch", where=f"obs[{fitted.setup.batch_key!r}]")
    return [in_batch(categories, fitted.batches.index(name)) for name in names]
