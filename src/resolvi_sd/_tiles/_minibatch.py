"""A minibatch: some patches, the core, and their one-hop halo; every cell in it once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from resolvi_sd._tiles._features import encoder_features, log_counts
from resolvi_sd._tiles._numbering import number_locally
from resolvi_sd._tiles._tissue import Tissue
from resolvi_sd._types import CSR

__all__ = ["Minibatch", "SparseCounts", "cut_minibatch"]


@dataclass(frozen=True)
class SparseCounts:
    """Counts of the core cells in CSR form.

    Parameters
    ----------
    indptr
        Row boundaries, int64, cells + 1.
    gene
        Column of each entry, int64.
    value
        Molecules of each entry, float32, positive.
    shape
        Cells, genes.
    """

    indptr: Tensor
    gene: Tensor
    value: Tensor
    shape: tuple[int, int]

    @classmethod
    def from_scipy(cls, counts: CSR) -> SparseCounts:
        """Copy a scipy matrix; entries that are stored but zero are dropped."""
        if counts.nnz and not counts.data.all():
            counts = counts.copy()
            counts.eliminate_zeros()
        return cls(
            torch.from_numpy(counts.indptr.astype(np.int64)),
            torch.from_numpy(counts.indices.astype(np.int64)),
            torch.from_numpy(counts.data.astype(np.float32)),
            (int(counts.shape[0]), int(counts.shape[1])),
        )

    @classmethod
    def from_dense(cls, counts: Tensor) -> SparseCounts:
        """Take the non-zeros of cells × genes."""
        row, gene = counts.nonzero(as_tuple=True)
        per_row = torch.bincount(row, minlength=len(counts))
        indptr = torch.cat([per_row.new_zeros(1), per_row.cumsum(0)])
        return cls(indptr, gene, counts[row, gene], (counts.shape[0], counts.shape[1]))

    def rows(self) -> Tensor:
        """Row of each entry, int64."""
        return torch.repeat_interleave(
            torch.arange(self.shape[0], device=self.indptr.device), self.indptr.diff(), output_size=len(self.value)
        )

    def to_dense(self) -> Tensor:
        """Cells × genes."""
        dense = torch.zeros(self.shape, dtype=self.value.dtype, device=self.value.device)
        dense[self.rows(), self.gene] = self.value
        return dense

    def to(self, device: torch.device) -> SparseCounts:
        """Move to a device."""
        return SparseCounts(self.indptr.to(device), self.gene.to(device), self.value.to(device), self.shape)


@dataclass(frozen=True)
class Minibatch:
    """Everything one step needs. Cells are numbered locally: the core first, then the halo.

    Parameters
    ----------
    cells
        Rows of the table, core then halo, int64.
    n_core
        How many of `cells` are core.
    counts
        Counts of the core.
    log_counts
        log1p of them, dense float32: what the share encoder reads.
    features
        log1p(x / mean x) of all cells, dense float32: what the latent encoder reads. In training the
        core's counts are thinned first.
    categories
        Batch and further covariates of all cells, cells × (1 + covariates), int64.
    library_size
        Molecules of all cells, float32.
    size
        Size factor of the core cells, float32.
    label
        Label of the core cells, int64, -1 where a cell has none.
    neighbor
        Local number of the core's neighbors, core × k, int64.
    distance
        Distances to them, core × k, float32.
    mask
        True where there is a neighbor, core × k.
    """

    cells: Tensor
    n_core: int
    counts: SparseCounts
    log_counts: Tensor
    features: Tensor
    categories: Tensor
    library_size: Tensor
    size: Tensor
    label: Tensor
    neighbor: Tensor
    distance: Tensor
    mask: Tensor

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
            name: value.to(device) if isinstance(value, (Tensor, SparseCounts)) else value
            for name, value in vars(self).items()
        }
        return Minibatch(**moved)


def cut_minibatch(
    tissue: Tissue,
    core: NDArray[np.int64],
    *,
    thinned_size: float | None = None,
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
        Expected molecules that the encoder sees of each core cell (binomial thinning); None: all.
    rng
        Draws the thinning.

    Returns
    -------
    Minibatch on the CPU.
    """
    neighbor, mask = tissue.neighbor[core], tissue.mask[core]
    cells, local = number_locally(core, neighbor, mask)
    depth = None
    if thinned_size is not None:
        depth = np.full(len(cells), np.inf)
        depth[: len(core)] = thinned_size
    return Minibatch(
        cells=torch.from_numpy(cells),
        n_core=len(core),
        counts=SparseCounts.from_scipy(tissue.counts[core]),
        log_counts=torch.from_numpy(log_counts(tissue.counts, core)),
        features=torch.from_numpy(encoder_features(tissue.counts, cells, thinned_size=depth, rng=rng)),
        categories=torch.from_numpy(tissue.categories[cells]),
        library_size=torch.from_numpy(tissue.library_size[cells]),
        size=torch.from_numpy(tissue.size[core]),
        label=torch.from_numpy(tissue.label[core]),
        neighbor=torch.from_numpy(local),
        distance=torch.from_numpy(tissue.distance[core]),
        mask=torch.from_numpy(mask),
    )
