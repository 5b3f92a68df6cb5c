"""A neighbor graph, as arrays of fixed degree and as the sparse matrices that squidpy writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.csgraph import reverse_cuthill_mckee

from resolvi_sd._csr import CSR, canonical, row_blocks

__all__ = ["NeighborGraph"]


@dataclass(frozen=True)
class NeighborGraph:
    """Neighbors of each cell, nearest first.

    Attributes
    ----------
    index
        Row of each neighbor, `(n_cells, k)` int64; slots without a neighbor hold the cell's own row.
    distance
        Distance to each neighbor, `(n_cells, k)` float32, in the units of the coordinates; 0 in slots without a
        neighbor.
    mask
        Whether each slot has a neighbor, `(n_cells, k)` bool; the slots that have one come first.
    """

    index: NDArray[np.int64]
    distance: NDArray[np.float32]
    mask: NDArray[np.bool_]

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return int(self.index.shape[0])

    def compact_parts(self, size: int, cells: NDArray[np.int64] | None = None) -> list[NDArray[np.int64]]:
        """Split `cells`, by default all, into parts of `size` cells or fewer that have few neighbors outside.

        Uses the reverse Cuthill-McKee algorithm; if all cells fit into one part, their order is left unchanged.

        Returns
        -------
        Positions in `cells`, for each part.
        """
        cells = np.arange(self.n_cells) if cells is None else cells
        if len(cells) <= size:
            return [np.arange(len(cells))]
        rank = np.empty(self.n_cells, np.int64)
        rank[reverse_cuthill_mckee(self.to_sparse()[1], symmetric_mode=False)] = np.arange(self.n_cells)
        order = np.argsort(rank[cells])
        return [order[block] for block in row_blocks(len(order), size)]

    @classmethod
    def empty(cls, n_cells: int, n_neighbors: int) -> Self:
        """Return a graph without edges, with room for `n_neighbors` neighbors of each cell."""
        return cls(
            index=np.repeat(np.arange(n_cells, dtype=np.int64)[:, None], n_neighbors, axis=1),
            distance=np.zeros((n_cells, n_neighbors), dtype=np.float32),
            mask=np.zeros((n_cells, n_neighbors), dtype=np.bool_),
        )

    def to_sparse(self) -> tuple[Any, Any]:
        """Return distances and connectivities (ones), `(n_cells, n_cells)` CSR float32 of the same sparsity.

        Coincident neighbors keep an explicit zero among the distances.
        """
        distances = self.by_edge(self.distance)
        ones = np.ones(distances.nnz, dtype=np.float32)
        return distances, sp.csr_matrix((ones, distances.indices.copy(), distances.indptr.copy()), distances.shape)

    def by_edge(self, values: NDArray[np.float32]) -> sp.csr_matrix:
        """Return the values of slots, `(n_cells, k)`, as `(n_cells, n_cells)` CSR with one entry per neighbor."""
        indptr = np.concatenate([[0], np.cumsum(self.mask.sum(axis=1))])
        # Use the type that scipy needs right away, since these take gigabytes for millions of cells.
        small = sp.get_index_dtype(maxval=max(self.n_cells, int(indptr[-1])))
        columns = np.empty(indptr[-1], small)
        for rows in row_blocks(self.n_cells):
            columns[indptr[rows.start] : indptr[rows.stop]] = self.index[rows][self.mask[rows]]
        matrix = sp.csr_matrix((values[self.mask], columns, indptr.astype(small)), shape=(self.n_cells, self.n_cells))
        matrix.sort_indices()
        return matrix

    def by_slot(self, matrix: Any) -> NDArray[np.float32]:
        """Return the entries of a cells × cells matrix at the edges, `(n_cells, k)`, 0 in empty slots."""
        row, slot = np.nonzero(self.mask)
        values = np.zeros(self.mask.shape, np.float32)
        values[row, slot] = _entries(canonical(matrix), row, self.index[row, slot])
        return values

    @classmethod
    def from_sparse(cls, distances: Any, connectivities: Any) -> Self:
        """Return the graph with an edge wherever the connectivities are not zero.

        The number of slots is the largest number of neighbors, but at least one. Neighbors at the same distance are
        ordered by row.

        Parameters
        ----------
        distances
            `(n_cells, n_cells)`, sparse. An edge without an entry has distance 0: squidpy drops the zeros of coincident
            cells, so the two matrices may differ in their sparsity.
        connectivities
            `(n_cells, n_cells)`, sparse. The diagonal is ignored, since a cell is not its own neighbor.
        """
        edges = canonical(connectivities).tocoo()  # row by row, columns in order
        used = edges.row != edges.col
        rows, columns = edges.row[used].astype(np.int64), edges.col[used].astype(np.int64)
        n_cells = edges.shape[0]
        degree = np.bincount(rows, minlength=n_cells)
        slot = np.arange(rows.size) - (np.cumsum(degree) - degree)[rows]
        length = _entries(canonical(distances), rows, columns)
        nearest = np.lexsort((length, rows))  # rows keep their places
        graph = cls.empty(n_cells, max(1, int(degree.max(initial=0))))
        graph.index[rows, slot] = columns[nearest]
        graph.distance[rows, slot] = length[nearest]
        graph.mask[rows, slot] = True
        return graph


def _entries(matrix: CSR, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return `matrix[rows, columns]`, 0 where nothing is stored, in time that grows with the number of entries."""
    values = np.zeros(rows.size, dtype=np.float64)
    if matrix.nnz == 0:
        return values
    n_rows, n_columns = matrix.shape
    keys = np.repeat(np.arange(n_rows, dtype=np.int64), np.diff(matrix.indptr)) * n_columns + matrix.indices
    wanted = rows * n_columns + columns
    place = np.minimum(np.searchsorted(keys, wanted), keys.size - 1)
    stored = keys[place] == wanted
    values[stored] = matrix.data[place[stored]]
    return values
