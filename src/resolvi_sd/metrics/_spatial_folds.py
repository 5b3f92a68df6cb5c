"""Folds for cross-validation on a tissue: blocks of cells, with training and test cells kept apart."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

__all__ = ["spatial_folds", "train_apart"]


def spatial_folds(coordinates: NDArray[np.floating], n_folds: int) -> NDArray[np.int64]:
    """Return the fold of each cell: n_folds × n_folds blocks of equal size, with n_folds spread-out blocks per fold.

    The cells are cut into columns of equal size along the first coordinate, and each column along the second. Blocks
    of the same fold in adjacent columns are a knight's move apart, with fewer than four folds they touch. Sections
    whose coordinates overlap share the blocks.

    Parameters
    ----------
    coordinates
        Cells × 2 or more.
    n_folds
        Number of folds.
    """
    n_cells = len(coordinates)
    column = np.empty(n_cells, dtype=np.int64)
    row = np.empty(n_cells, dtype=np.int64)
    for number, cells in enumerate(np.array_split(np.argsort(coordinates[:, 0], kind="stable"), n_folds)):
        column[cells] = number
        for place, part in enumerate(np.array_split(np.argsort(coordinates[cells, 1], kind="stable"), n_folds)):
            row[cells[part]] = place
    fold: NDArray[np.int64] = (row + 2 * column) % n_folds
    return fold


def train_apart(neighbors: sp.csr_matrix, rows: NDArray[np.intp], test: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which cells to train on: those that are not a neighbor of a test cell and share no neighbor with one.

    A source cell leaks into all cells around it, so what two cells with a common neighbor received is not independent
    evidence.

    Parameters
    ----------
    neighbors
        Cells × cells, all cells of the tissue.
    rows
        The cells used for training and testing.
    test
        Which of `rows` are in the test fold.
    """
    is_test = np.zeros(neighbors.shape[0], dtype=np.int32)
    is_test[rows[test]] = 1
    near_test = is_test + neighbors.T @ is_test  # test cells and their neighbors
    touching = near_test[rows] + neighbors[rows] @ near_test
    apart: NDArray[np.bool_] = touching == 0
    return apart
