"""Patches: compact sets of cells of one section, by k-d bisection."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Patches", "cut_patches"]


@dataclass(frozen=True)
class Patches:
    """A partition of cells into compact pieces of tissue.

    Attributes
    ----------
    order
        Rows of the table, patch after patch, int64.
    offsets
        Patch p holds `order[offsets[p]:offsets[p + 1]]`, int64, n_patches + 1.
    """

    order: NDArray[np.int64]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def cells(self, patch: int) -> NDArray[np.int64]:
        """Rows of the table that belong to `patch`."""
        return self.order[self.offsets[patch] : self.offsets[patch + 1]]

    def sizes(self) -> NDArray[np.int64]:
        """Cells in each patch."""
        return np.diff(self.offsets)


def cut_patches(
    coordinates: NDArray[np.float64],
    section: NDArray[np.integer],
    *,
    patch_size: int = 128,
    include: NDArray[np.bool_] | None = None,
) -> Patches:
    """Cut every section into patches of at most `patch_size` cells, halving pieces along their longest side.

    A compact patch has a short border, so few cells outside the patch are neighbors of cells inside.

    Parameters
    ----------
    coordinates
        Cell positions, cells × 2 or 3.
    section
        Section of each cell; a patch never spans two.
    patch_size
        Largest number of cells in a patch; patches of one section differ in size by at most a factor of two.
    include
        Cells to use, boolean; all other cells are in no patch. If None, all cells are used.

    Returns
    -------
    Patches, with neighboring patches next to each other in `order`.

    Examples
    --------
    >>> import numpy as np
    >>> from resolvi_sd._tiles import cut_patches
    >>> grid = np.stack(np.meshgrid(np.arange(8.0), np.arange(8.0)), -1).reshape(-1, 2)
    >>> cut_patches(grid, np.zeros(64, int), patch_size=16).sizes()
    array([16, 16, 16, 16])
    """
    if patch_size < 1:
        raise ValueError(f"`patch_size` must be at least 1, got {patch_size}.")
    rows = np.arange(len(coordinates)) if include is None else np.flatnonzero(include)
    pieces: list[NDArray[np.int64]] = []
    for code in np.unique(section[rows]):
        # A stack instead of recursion; the first half on top keeps neighboring patches adjacent in the order.
        stack = [rows[section[rows] == code]]
        while stack:
            piece = stack.pop()
            if len(piece) <= patch_size:
                pieces.append(piece)
                continue
            first, second = _halve(coordinates, piece)
            stack += [second, first]
    order = np.concatenate(pieces) if pieces else np.empty(0, dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum([len(piece) for piece in pieces])]).astype(np.int64)
    return Patches(order.astype(np.int64), offsets)


def _halve(coordinates: NDArray[np.float64], piece: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    points = coordinates[piece]
    values = points[:, np.argmax(np.ptp(points, axis=0))]
    middle = len(piece) // 2
    split = np.argpartition(values, middle)
    return piece[np.sort(split[:middle])], piece[np.sort(split[middle:])]
