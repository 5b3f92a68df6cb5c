"""Tissue: the data of a table that the model sees, in the form from which minibatches are cut."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from resolvi_sd._csr import CSR, row_sums, with_own_values

__all__ = ["Tissue"]

# Relative difference between sums of whole numbers that rounding to float32 can cause.
_ROUNDING = 1e-5


@dataclass(frozen=True)
class Tissue:
    """Counts, covariates and neighbors of all cells, as plain arrays.

    Attributes
    ----------
    counts
        Cells × genes, CSR, in memory or in files. In memory, it is usually the table's own matrix, not a copy.
    categories
        Batch of each cell and its category in each further covariate, cells × (1 + covariates), int64.
    neighbor
        Rows of the neighbors, cells × k, int64; padded slots hold any valid row.
    distance
        Distances to the neighbors, cells × k, float32.
    mask
        True where there is a neighbor that has molecules, cells × k.
    molecules
        Molecules of each cell, float32.
    label
        Label of each cell, int64, -1 if it has none.
    size
        Size factor of each cell, float32: its molecules, or a physical size in any unit.
    """

    counts: CSR
    categories: NDArray[np.int64]
    neighbor: NDArray[np.int64]
    distance: NDArray[np.float32]
    mask: NDArray[np.bool_]
    molecules: NDArray[np.float32]
    label: NDArray[np.int64]
    size: NDArray[np.float32]

    @classmethod
    def assemble(
        cls,
        counts: CSR,
        categories: NDArray[np.int64],
        neighbor: NDArray[np.int64],
        distance: NDArray[np.float32],
        mask: NDArray[np.bool_],
        *,
        molecules: NDArray[np.float64] | None = None,
        label: NDArray[np.int64] | None = None,
        size: NDArray[np.float32] | None = None,
    ) -> Tissue:
        """Combine the arrays into a tissue, masking neighbors without molecules, from which nothing can leak.

        Without `molecules`, the molecules of each cell are counted; without `label`, no cell has one; without `size`,
        the molecules of each cell are its size.
        """
        counted = (row_sums(counts) if molecules is None else molecules).astype(np.float32)
        gives = counted > 0
        if label is None:
            label = np.full(len(counted), -1, dtype=np.int64)
        size = counted if size is None else size
        return cls(counts, categories, neighbor, distance, mask & gives[neighbor], counted, label, size)

    def rows(self, cells: NDArray[np.int64]) -> CSR:
        """Return the counts of some cells.

        Raises
        ------
        ValueError
            If the counts are not those from which the tissue was made, because the table's matrix has since been
            changed in place.
        """
        counts = self.counts[cells]
        molecules = self.molecules[cells]
        changed = np.abs(np.asarray(counts.sum(axis=1)).ravel() - molecules) > _ROUNDING * molecules
        if changed.any():
            raise ValueError(
                f"The counts have been changed in place since they were read, in {int(changed.sum()):,} of "
                f"{len(cells):,} cells, as `scanpy.pp.normalize_total` and `log1p` do. Put them back, and compute the "
                "result or the model again. To protect the counts, keep them in a separate layer, named by `layer=`: "
                "`table.layers['counts'] = table.X.copy()`."
            )
        return counts

    def kept(self) -> Tissue:
        """Return the same tissue with counts that cannot change, for later computations."""
        return replace(self, counts=with_own_values(self.counts))

    @property
    def batch(self) -> NDArray[np.int64]:
        """Batch of each cell."""
        return self.categories[:, 0]

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return int(self.counts.shape[0])

    @property
    def n_genes(self) -> int:
        """Number of genes."""
        return int(self.counts.shape[1])

    @property
    def n_neighbors(self) -> int:
        """Number of slots for neighbors of each cell."""
        return int(self.neighbor.shape[1])
