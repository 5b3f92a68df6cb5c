"""Local numbers of the cells of a minibatch: the core first, then the halo, every cell once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import int64, njit, uint64
from numpy.typing import NDArray

__all__ = ["number_locally"]


@njit(inline="always")
def _slot(cell: Any, keys: Any, shift: Any) -> Any:
    """Return the slot of a cell in the hash table, or the one it would get (multiplicative hash, linear probing)."""
    slot = int64((uint64(cell) * uint64(0x9E3779B97F4A7C15)) >> shift)
    while keys[slot] >= 0 and keys[slot] != cell:
        slot = (slot + int64(1)) & int64(len(keys) - 1)
    return slot


@njit(nogil=True, cache=True)
def _number(core: Any, neighbor: Any, mask: Any, bits: int, cells: Any, local: Any) -> int:
    shift = uint64(64 - bits)
    keys, number = np.full(1 << bits, -1), np.empty(1 << bits, np.int64)
    found = 0
    for cell in core:
        slot = _slot(cell, keys, shift)
        keys[slot], number[slot], cells[found] = cell, found, cell
        found += 1
    for i in range(neighbor.shape[0]):
        for m in range(neighbor.shape[1]):
            if mask[i, m]:
                cell = neighbor[i, m]
                slot = _slot(cell, keys, shift)
                if keys[slot] < 0:
                    keys[slot], number[slot], cells[found] = cell, found, cell
                    found += 1
                local[i, m] = number[slot]
    return found


def number_locally(
    core: NDArray[np.int64], neighbor: NDArray[np.int64], mask: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find the cells of a minibatch and number them; the cost does not depend on the size of the tissue.

    Parameters
    ----------
    core
        Rows of the table, each once.
    neighbor, mask
        Rows of their neighbors, core × k, and which slots hold a neighbor.

    Returns
    -------
    Rows of all cells, the core first, then the halo in order of first occurrence; and the position of each neighbor
    among them, core × k, 0 where there is none.

    Examples
    --------
    >>> import numpy as np
    >>> from resolvi_sd._tiles._numbering import number_locally
    >>> number_locally(np.array([7, 4]), np.array([[4, 9], [7, 2]]), np.array([[True, True], [True, False]]))
    (array([7, 4, 9]), array([[1, 2], [0, 0]]))
    """
    most = len(core) + neighbor.size
    cells, local = np.empty(most, np.int64), np.zeros(neighbor.shape, np.int64)
    # A table that is at most half full keeps the probes short.
    found = _number(core, neighbor, mask, max(1, (2 * most).bit_length()), cells, local)
    return cells[:found], local
