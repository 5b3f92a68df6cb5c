"""The Bayesian bootstrap of group means over pieces of tissue."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

__all__ = ["adjacent_units", "bootstrap_means", "effective_units", "spatial_dependence", "widened"]

_DRAWS = 512


def bootstrap_means(
    totals: NDArray[np.float64],
    n_cells: NDArray[np.float64],
    *,
    varied_prior: bool = False,
    n_samples: int,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Draw the means of groups from their posterior, with blocks of cells as the independent units.

    The neighborhoods of adjacent cells overlap and are similar, so cells are not independent observations: resampling
    them would take chance differences of a patchy tissue for real ones. Each draw gives each block a weight
    (exponential, i.e. a flat Dirichlet after normalizing), the same for all groups, since groups that share a block
    share its peculiarities. A block of typical size (that of :func:`effective_units`), with its own random weight, is
    added to each group: the prior of the Dirichlet process. Its effect vanishes if there are many blocks, and it keeps
    a group that lies in one block from having a mean without uncertainty.

    Parameters
    ----------
    totals
        Sums over the cells of each block and group, versions × blocks × groups × features. Versions are equally
        probable values of the data; each draw takes one.
    n_cells
        Cells of each block and group, blocks × groups; every group has cells.
    varied_prior
        Whether the added block is, in each draw, like one of the blocks of all groups together, chosen at random,
        rather than like their mean. Small pieces of tissue have few kinds of cells each, so that a kind may be missing
        from all blocks of a group by chance; with few large blocks, the mean leaves more power.
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
    in_block, all_cells = n_cells.sum(axis=1), n_cells.sum()
    overall = totals.sum(axis=(1, 2)) / all_cells
    block_size = n_cells.sum(axis=0) / effective_units(n_cells)
    for version, draws in enumerate(np.array_split(np.arange(n_samples), n_versions)):
        for rows in np.array_split(draws, max(1, -(-len(draws) // _DRAWS))):
            weight = rng.standard_exponential((len(rows), n_blocks))
            prior = rng.standard_exponential((len(rows), n_groups)) * block_size
            like = overall[version]
            if varied_prior:
                some = rng.choice(n_blocks, (len(rows), n_groups), p=in_block / all_cells)
                like = totals[version].sum(axis=1)[some] / in_block[some][:, :, None]
            mass = weight @ n_cells + prior
            total = np.tensordot(weight, totals[version], axes=1) + prior[:, :, None] * like
            means[rows] = total / mass[:, :, None]
    return means


def adjacent_units(edges: sp.csr_matrix, unit: NDArray[np.int64]) -> sp.csr_matrix:
    """Return which units have neighboring cells, units × units, symmetric, with ones as entries and an empty diagonal.

    `edges` is cells × cells; cells of unit -1 are in none.
    """
    pairs = edges.tocoo()
    first, second = unit[pairs.row], unit[pairs.col]
    between = (first >= 0) & (second >= 0) & (first != second)
    n_units = int(unit.max(initial=0)) + 1
    ones = np.ones(int(between.sum()), dtype=bool)
    found = sp.csr_matrix((ones, (first[between], second[between])), shape=(n_units, n_units))
    return sp.csr_matrix((found + found.T).astype(np.float64))


def spatial_dependence(totals: NDArray[np.float64], n_cells: NDArray[np.floating], adjacent: sp.csr_matrix) -> float:
    """Return by how much adjacent units that resemble each other raise the variance of the difference of two means.

    This is the ratio, at least 1, of the variance with the covariances of adjacent units (Conley 1999) to that of
    independent units, for all features together. Deviations from a mean sum to zero, which makes any two of them
    slightly negative on average; this is allowed for.

    Parameters
    ----------
    totals
        Sums over the cells of each unit and side, units × 2 × features.
    n_cells
        Cells of each unit and side, units × 2.
    adjacent
        Which units are adjacent, see :func:`adjacent_units`.
    """
    size = n_cells.sum(axis=0)
    influence = (totals - n_cells[:, :, None] * (totals.sum(axis=0) / size[:, None])) / size[:, None]
    deviation = influence[:, 0] - influence[:, 1]
    alone = np.square(deviation).sum()
    used = np.flatnonzero(n_cells.any(axis=1))
    if not alone or len(used) < 2:
        return 1.0
    together = float((deviation * (adjacent @ deviation)).sum() / alone)
    chance = adjacent[used][:, used].sum() / (len(used) * (len(used) - 1))
    return max(1.0, 1.0 + together + float(chance))


def effective_units(n_cells: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the number of equally large units that the cells of each group, units × groups, are worth (Kish 1965).

    A mean over the cells of one large and many small units is mostly that of the large one.
    """
    cells = n_cells.astype(np.float64)
    units: NDArray[np.float64] = np.square(cells.sum(axis=0)) / np.square(cells).sum(axis=0)
    return units


def widened(
    draws: NDArray[np.float32], n_units: NDArray[np.floating], *, dependence: float = 1.0, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return the draws of a bootstrap, widened to the spread of means of few units.

    With n units, the variance of the draws is (n - 1) / (n + 1) times that of a mean whose units are sampled anew, and
    it varies as much as the spread of n values does. Deviations from the median are therefore multiplied by the root of
    the inverse, and by that of (n - 1) / chi2, one number per draw for all groups (using the smallest number of units):
    Student's t instead of a normal. Units that depend on each other are worth fewer. A single unit carries no
    information about the spread; together with the prior, it counts as two.

    Parameters
    ----------
    draws
        Draws of logarithms of means, draws × groups × features.
    n_units
        Number of units of each group, see :func:`effective_units`.
    dependence
        Ratio of the variance to that of independent units, see :func:`spatial_dependence`.
    rng
        Generator.

    Returns
    -------
    Draws × groups × features, float32.
    """
    units = np.maximum(n_units, 2)
    center = np.median(draws, axis=0)
    degrees = max(units.min() / dependence, 2.0) - 1
    tail = np.sqrt(degrees / rng.chisquare(degrees, len(draws)))
    factor = tail[:, None] * np.sqrt(dependence * (units + 1) / (units - 1))
    wide: NDArray[np.float32] = center + (draws - center) * factor[:, :, None].astype(np.float32)
    return wide
