"""Principal components of counts, the basis of clustering and embedding without a model."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import scipy.sparse as sp
from anndata import AnnData
from numpy.typing import NDArray

__all__ = ["principal_components"]


def principal_components(counts: Any, n_components: int, *, seed: int) -> NDArray[np.float32]:
    """Return the first principal components of counts normalized by depth and log-transformed, cells × components.

    Parameters
    ----------
    counts
        Cells × genes, sparse; cells without counts are allowed.
    n_components
        Largest number of components; there is one less than cells or genes at most.
    seed
        Seed of the decomposition.
    """
    import scanpy as sc  # slow

    table = AnnData(sp.csr_matrix(counts, dtype=np.float32))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Some cells have zero counts", category=UserWarning)
        sc.pp.normalize_total(table)
    sc.pp.log1p(table)
    sc.pp.pca(table, n_comps=min(n_components, min(counts.shape) - 1), random_state=seed % 2**32)
    return np.asarray(table.obsm["X_pca"], dtype=np.float32)
