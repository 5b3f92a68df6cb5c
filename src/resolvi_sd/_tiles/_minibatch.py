"""A minibatch: a core of some patches, and its one-hop halo; it contains every cell once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from resolvi_sd._tiles._features import encoder_features
from resolvi_sd._tiles._numbering import number_locally
from resolvi_sd._tiles._sparse_rows import SparseRows
from resolvi_sd._tiles._tissue import Tissue

__all__ = ["Minibatch", "cut_minibatch"]


@dataclass(frozen=True)
class Minibatch:
    """Everything that one step needs, with cells numbered locally: the core first, then the halo.

    Attributes
    ----------
    cells
        Rows of the table, core then halo, int64.
    n_core
        Number of `cells` in the core.
    counts
        Counts of the core.
    features
        log1p(x / mean x) of all cells, the input of the latent encoder. In training, the core's counts are thinned
        first.
    unthinned_features
        The same without thinning, the input of the share encoder.
    categories
        Batch and further covariates of all cells, cells × (1 + covariates), int64.
    molecules
        Molecules of all cells, float32.
    size
        Size factor of the core cells, float32.
    label
        Label of the core cells, int64, -1 if a cell has none.
    neighbor
        Local numbers of the core's neighbors, core × k, int64.
    distance
        Distances to these neighbors, core × k, float32.
    mask
        True where there is a neighbor, core × k.
    """

    cells: Tensor
    n_core: int
    counts: SparseRows
    features: SparseRows
    unthinned_features: SparseRows
    categories: Tensor
    molecules: Tensor
    size: Tensor
    label: Tensor
    neighbor: Tensor
    distance: Tensor
    mask: Tensor

    @property
    def core_features(self) -> SparseRows:
        """Features of the core cells."""
        return self.features.between(0, self.n_core)

    @property
    def halo_features(self) -> SparseRows:
        """Features of the cells around the core."""
        return self.features.between(self.n_core, len(self.cells))

    @property
    def core_batch(self) -> Tensor:
        """Batch of the core cells."""
        return self.categories[: self.n_core, 0]

    @property
    def core_categories(self) -> Tensor:
        """Batch and further covariates of the core cells."""
        return self.categories[: self.n_core]

    def to(self, device: torch.device) -> Minibatch:
        """Move to a device."""
        moved: dict[str, Any] = {
            name: value.to(device) if isinstance(value, (Tensor, SparseRows)) else value
            for name, value in vars(self).items()
        }
        return Minibatch(**moved)


def cut_minibatch(
    tissue: Tissue,
    core: NDArray[np.int64],
    *,
    thinned_size: float | NDArray[np.float64] | None = None,
    kept: NDArray[np.float32] | None = None,
    rng: np.random.Generator | None = None,
) -> Minibatch:
    """Cut the cells `core` and their neighbors out of the tissue.

    Parameters
    ----------
    tissue
        All cells.
    core
        Rows of the table, each once.
    thinned_size
        Expected number of molecules of each core cell that the encoder sees (binomial thinning), one number for all or
        one for each; if None, all.
    kept
        Probability that the encoder sees a molecule of each stored count of the core, cell after cell; if None, 1.
    rng
        Generator for the thinning.

    Returns
    -------
    Minibatch on the CPU.

    Raises
    ------
    ValueError
        If the counts have been changed in place.
    """
    neighbor, mask = tissue.neighbor[core], tissue.mask[core]
    cells, local = number_locally(core, neighbor, mask)
    counts = SparseRows.from_scipy(tissue.rows(cells))
    features = unthinned_features = encoder_features(counts)
    if thinned_size is not None or kept is not None:
        depth = np.full(len(cells), np.inf)
        depth[: len(core)] = np.inf if thinned_size is None else thinned_size
        if kept is not None:
            kept = np.concatenate([kept, np.ones(len(counts.value) - len(kept), np.float32)])
        features = encoder_features(counts, thinned_size=depth, kept=kept, rng=rng)
    return Minibatch(
        cells=torch.from_numpy(cells),
        n_core=len(core),
        counts=counts.between(0, len(core)),
        features=features,
        unthinned_features=unthinned_features,
        categories=torch.from_numpy(tissue.categories[cells]),
        molecules=torch.from_numpy(tissue.molecules[cells]),
        size=torch.from_numpy(tissue.size[core]),
        label=torch.from_numpy(tissue.label[core]),
        neighbor=torch.from_numpy(local),
        distance=torch.from_numpy(tissue.distance[core]),
        mask=torch.from_numpy(mask),
    )
