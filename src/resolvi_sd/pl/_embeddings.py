"""Representations of cells, and their embedding in two dimensions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
from anndata import AnnData
from numpy.typing import NDArray

from resolvi_sd._analysis import principal_components
from resolvi_sd._keys import Keys
from resolvi_sd._results import corrected_counts, fitted_counts
from resolvi_sd._validation import check_key, group_names
from resolvi_sd.pl._results import check_written

__all__ = [
    "CORRECTED_COUNTS",
    "COUNTS",
    "choose_cells",
    "embed",
    "is_embedding",
    "read_representations",
]

COUNTS, CORRECTED_COUNTS = "counts", "corrected"
_N_COMPONENTS, _N_NEIGHBORS = 50, 15
# Fewest cells to draw, and fewest from which UMAP can start.
_FEWEST_CELLS, _FEWEST_FOR_UMAP = 3, 5


def read_representations(
    adata: AnnData, keys: Keys, layer: str | None, names: Sequence[str], *, corrected_layer: str | None
) -> dict[str, Any]:
    """Return the representations as matrices, cells × features; those of counts are sparse.

    Parameters
    ----------
    adata
        The table.
    keys
        Names of the fit's entries.
    layer
        Layer of the counts that were fitted; None for `X`.
    names
        `"counts"`, `"corrected"`, or entries of `obsm`.
    corrected_layer
        Layer with corrected counts other than those of the fit.

    Raises
    ------
    KeyError
        If a representation does not exist.
    ValueError
        If `names` is empty, or an entry of `obsm` has fewer than two columns.
    """
    names = group_names(names)
    if not names:
        raise ValueError(
            f"`representations` is empty; name {COUNTS!r}, {CORRECTED_COUNTS!r} or entries of `table.obsm`."
        )
    matrices: dict[str, Any] = {}
    counts = fitted_counts(adata, layer) if {COUNTS, CORRECTED_COUNTS} & set(names) else None
    for name in names:
        if name == COUNTS:
            matrices[name] = counts
        elif name == CORRECTED_COUNTS:
            if corrected_layer is None:
                check_written(keys, [keys.counts], adata.layers, where="table.layers")
            matrices[name] = corrected_counts(adata, keys, counts, layer=corrected_layer)
        else:
            hint = f"Besides these, there are {COUNTS!r} and {CORRECTED_COUNTS!r}."
            check_key(name, adata.obsm, argument="representations", where="table.obsm", hint=hint)
            matrices[name] = np.asarray(adata.obsm[name], dtype=np.float32)
            if matrices[name].ndim != 2 or matrices[name].shape[1] < 2:
                shape = matrices[name].shape
                raise ValueError(f"`table.obsm[{name!r}]` must have at least two columns, but its shape is {shape}.")
    return matrices


def choose_cells(matrices: Mapping[str, Any], n_cells: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the sorted rows of at most `n_cells` random cells that have counts and no NaN.

    Raises
    ------
    ValueError
        If there are fewer than three such cells.
    """
    usable: NDArray[np.bool_] = np.ones(next(iter(matrices.values())).shape[0], dtype=bool)
    for matrix in matrices.values():
        total = np.asarray(matrix.sum(axis=1)).reshape(-1)
        usable &= total > 0 if sp.issparse(matrix) else np.isfinite(total)
    rows = np.flatnonzero(usable)
    fewest = _FEWEST_CELLS if all(is_embedding(matrix) for matrix in matrices.values()) else _FEWEST_FOR_UMAP
    if min(n_cells, rows.size) < fewest:
        raise ValueError(
            f"Only {rows.size} of {usable.size} cells have counts in {list(matrices)}, and n_cells={n_cells}; at least "
            f"{fewest} are needed."
        )
    return np.sort(rng.choice(rows, size=min(n_cells, rows.size), replace=False))


def is_embedding(matrix: Any) -> bool:
    """Return whether the representation already has two dimensions."""
    return isinstance(matrix, np.ndarray) and matrix.shape[1] == 2


def embed(matrix: Any, *, seed: int) -> NDArray[np.float32]:
    """Return the UMAP of the rows of a matrix, `(n_cells, 2)`; a dense matrix of two columns is returned unchanged.

    Parameters
    ----------
    matrix
        Counts (sparse), which are normalized, log-transformed and reduced by PCA first, or a latent space (dense).
    seed
        Seed of the PCA and the UMAP.
    """
    if is_embedding(matrix):
        return np.asarray(matrix)
    import scanpy as sc  # slow

    if sp.issparse(matrix):
        matrix = principal_components(matrix, _N_COMPONENTS, seed=seed)
    cells = AnnData(matrix.astype(np.float32))
    n_neighbors = min(_N_NEIGHBORS, cells.n_obs - 1)
    sc.pp.neighbors(cells, n_neighbors=n_neighbors, use_rep="X", random_state=seed)
    sc.tl.umap(cells, random_state=seed)
    return np.asarray(cells.obsm["X_umap"], dtype=np.float32)
