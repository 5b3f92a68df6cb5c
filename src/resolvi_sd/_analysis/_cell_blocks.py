"""Own molecules and expected expression of the cells, block by block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from tqdm.auto import tqdm

from resolvi_sd._csr import CSR, row_blocks
from resolvi_sd._graphs import NeighborGraph
from resolvi_sd._model import (
    ResolviModule,
    Sampler,
    decode,
    decode_mean,
    encode,
    in_batch,
    weigh_draws,
    weighted_expression,
    weighted_own,
)

__all__ = ["CellBlock", "blocks_at_mean", "importance_blocks"]

_ROWS = 8192
_WEIGHTED_ROWS = 2048


@dataclass(frozen=True)
class CellBlock:
    """Own molecules and expected expression of a block of cells.

    Attributes
    ----------
    rows
        Rows of the cells in the table.
    own
        Expected own molecules, cells × genes, CSR.
    expression
        Expected expression rho, cells × genes; rows sum to 1.
    reference
        Expression as if the cells belonged to all batches in equal parts; `expression` itself without batch correction.
    """

    rows: NDArray[np.int64]
    own: CSR
    expression: NDArray[np.float32]
    reference: NDArray[np.float32]


def blocks_at_mean(
    module: ResolviModule,
    counts: CSR,
    own: CSR,
    categories: NDArray[np.int64],
    rows: NDArray[np.int64],
    *,
    batch_correction: bool,
    show_progress_bar: bool,
) -> Iterator[CellBlock]:
    """Yield the corrected counts of the fit, and the expression at the mean of the latent posterior.

    Parameters
    ----------
    module
        The fitted model.
    counts, own
        Counts and corrected counts, cells × genes.
    categories
        Batch and further covariates of each cell, cells × (1 + covariates).
    rows
        Rows of the requested cells.
    batch_correction
        Whether to also decode in every batch.
    show_progress_bar
        Whether to show a progress bar.
    """
    parts = [rows[block] for block in row_blocks(len(rows), _ROWS)]
    for some in _with_bar(parts, show_progress_bar):
        mean, _ = encode(module, counts[some], categories[some], show_progress_bar=False)
        expression = decode(module, mean, categories[some], slice(None))
        reference = expression
        if batch_correction:
            reference = decode_mean(module, mean, _all_batches(module, categories[some]), slice(None))
        yield CellBlock(some, own[some], expression, reference)


def importance_blocks(
    sampler: Sampler,
    graph: NeighborGraph,
    rows: NDArray[np.int64],
    *,
    batch_correction: bool,
    show_progress_bar: bool,
) -> Iterator[CellBlock]:
    """Yield own molecules and expression as importance-weighted means over draws of the latent.

    Parameters
    ----------
    sampler
        Model, tissue and seeds of the draws.
    graph
        Neighbors of the cells, according to which they are divided into blocks.
    rows
        Rows of the requested cells.
    batch_correction
        Whether to also decode in every batch.
    show_progress_bar
        Whether to show a progress bar.
    """
    module, tissue = sampler.module, sampler.tissue
    parts = [rows[part] for part in graph.compact_parts(_WEIGHTED_ROWS, rows)]
    for some in _with_bar(parts, show_progress_bar):
        categories = tissue.categories[some]
        draws = weigh_draws(sampler, some)
        expression = weighted_expression(module, draws, [categories], slice(None))
        reference = expression
        if batch_correction:
            reference = weighted_expression(module, draws, _all_batches(module, categories), slice(None))
        own = tissue.counts[some]
        own.eliminate_zeros()
        own = sp.csr_matrix((weighted_own(sampler, draws), own.indices, own.indptr), shape=own.shape)
        yield CellBlock(some, own, expression, reference)


def _with_bar(parts: Sequence[NDArray[np.int64]], show_progress_bar: bool) -> Iterator[NDArray[np.int64]]:
    n_cells = sum(len(part) for part in parts)
    with tqdm(total=n_cells, desc="Expression of cells", unit="cell", disable=not show_progress_bar) as bar:
        for part in parts:
            yield part
            bar.update(len(part))


def _all_batches(module: ResolviModule, categories: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Return the categories of the cells with every batch in turn."""
    return [in_batch(categories, batch) for batch in range(module.data.n_batches)]
