"""The Bayesian bootstrap of group means over pieces of tissue."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["bootstrap_means", "widened"]

_DRAWS = 512


def bootstrap_means(
    totals: NDArray[np.float64],
    n_cells: NDArray[np.float64],
    *,
    n_samples: int,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Draw the means of groups from their posterior, with blocks of cells as the independent units.

    The neighborhoods of adjacent cells overlap and are similar, so cells are not independent observations: resampling
    them would take chance differences of a patchy tissue for real ones. Each draw gives each block a weight
    (exponential, i.e. a flat Dirichlet after normalizing), the same for all groups, since groups that share a block
    share its peculiarities. A block of average size, with the mean of all groups together and its own random weight, is
    added to each group: the prior of the Dirichlet process. Its effect vanishes if there are many blocks, and it keeps
    a group that lies in one block from having a mean without uncertainty.

    Parameters
    ----------
    totals
        Sums over the cells of each block and group, versions × blocks × groups × features. Versions are equally
        probable values of the data; each draw takes one.
    n_cells
        Cells of each block and group, blocks × groups; every group has cells.
    n_samples
        Number of draws.
    rng
        Generator.

    Returns
    -------
    Draws × groups × features, float32.

    References
    ----------
    Rubin (1981), The Bayesian bootstrap; Ferguson (1973), A Bayesian analysis of some nonparametric problems.
    """
    n_versions, n_blocks, n_groups, n_features = totals.shape
    means: NDArray[np.float32] = np.empty((n_samples, n_groups, n_features), np.float32)
    overall = totals.sum(axis=(1, 2)) / n_cells.sum()
    block_size = n_cells.sum(axis=0) / np.maximum((n_cells > 0).sum(axis=0), 1)
    for version, draws in enumerate(np.array_split(np.arange(n_samples), n_versions)):
        for rows in np.array_split(draws, max(1, -(-len(draws) // _DRAWS))):
            weight = rng.standard_exponential((len(rows), n_blocks))
            prior = rng.standard_exponential((len(rows), n_groups)) * block_size
            mass = weight @ n_cells + prior
            total = np.tensordot(weight, totals[version], axes=1) + prior[:, :, None] * overall[version]
            means[rows] = total / mass[:, :, None]
    return means


def widened(
    draws: NDArray[np.float32], n_units: NDArray[np.integer], *, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return the draws of a bootstrap, widened to the spread of means of few units.

    With n units, the variance of the draws is (n - 1) / (n + 1) times that of a mean whose units are sampled anew, and
    it varies as much as the spread of n values does. Deviations from the median are therefore multiplied by the root of
    the inverse, and by that of (n - 1) / chi2, one number per draw for all groups (using the smallest number of units):
    Student's t instead of a normal. A single unit carries no information about the spread; together with the prior, it
    counts as two.

    Parameters
    ----------
    draws
        Draws of logarithms of means, draws × groups × features.
    n_units
        Number of independent units of each group.
    rng
        Generator.

    Returns
    -------
    Draws × groups × features, float32.
    """
    units = np.maximum(n_units, 2)
    center = np.median(draws, axis=0)
    degrees = int(units.min()) - 1
    tail = np.sqrt(degrees / rng.chisquare(degrees, len(draws)))
    factor = tail[:, None] * np.sqrt((units + 1) / (units - 1))
    wide: NDArray[np.float32] = center + (draws - center) * factor[:, :, None].astype(np.float32)
    return wide
