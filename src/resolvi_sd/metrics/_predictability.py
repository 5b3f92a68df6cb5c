"""Predictability of the types of a cell's neighbors from its expression."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.stats import rankdata

from resolvi_sd._random import RandomLike, as_generator
from resolvi_sd._ratio import ratio
from resolvi_sd._validation import check_coordinates, check_positive_int
from resolvi_sd.metrics._arrays import label_codes, matrix, neighbor_counts, neighbor_matrix
from resolvi_sd.metrics._spatial_folds import spatial_folds, train_apart

__all__ = ["leakage_predictability"]

# Ridge penalty per gene on standardized genes: the prior under which all genes together explain a tenth of the
# variance of presence. Compared with logistic regression on a simulated tissue (48 pairs, mean AUC of raw, thinned and
# true own counts): 0.61, 0.59, 0.49 and 0.60, 0.58, 0.49, in a fifth of the time.
_PENALTY = 10
_COLUMNS = ["target", "source", "n_cells", "n_near", "auc", "auc_permuted", "difference"]


def leakage_predictability(
    expression: Any,
    labels: Any,
    graph: Any,
    coordinates: Any,
    *,
    n_folds: int = 5,
    n_permutations: int = 5,
    min_cells: int = 50,
    max_cells: int = 2000,
    rng: RandomLike = 0,
) -> pd.DataFrame:
    r"""Measure how well the expression of a type's cells predicts that another type is nearby.

    Leaked molecules reveal a cell's neighbors. For the cells of a target type, ridge regression predicts whether any
    neighbor is of a source type from their log-normalized, standardized expression, :math:`\log(1 + x_{ng} m / l_n)`
    with the counts x, their sum l and its median m. The prediction is measured by the area under the receiver operating
    characteristic curve (AUC),

    .. math:: \mathrm{AUC} = \frac{\sum_f U_f}{\sum_f n_f^+ n_f^-},

    with U the number of pairs of test cells of a fold, one with and one without the source nearby, in which the former
    has the higher score (ties count half): 0.5 means no information, 1 perfect prediction. Folds are made of blocks of
    tissue, and no cell that shares a neighbor with a test cell is used for training. The baseline uses the same folds,
    with presence permuted among the cells of each fold.

    Not everything that is predictable is leakage: cells may respond to their neighbors. A correction should lower the
    AUC further than depth matching of the raw counts does; the remaining prediction is then due to own expression.

    Parameters
    ----------
    expression
        Cells × genes, non-negative, sparse or dense: raw, thinned or corrected counts.
    labels
        Type of each cell, fixed before the correction; missing values are allowed.
    graph
        Connectivities or distances, cells × cells, sparse; stored entries are neighbors.
    coordinates
        Positions, cells × 2 or 3, from which the blocks are made.
    n_folds
        Number of folds.
    n_permutations
        Number of permutations.
    min_cells
        Minimum number of target cells with, and of target cells without, the source nearby.
    max_cells
        Number of target cells to draw if a type has more.
    rng
        Seed or generator. The drawn cells, folds and permutations do not depend on the expression, so that layers of
        the same table are compared on the same cells if the seed is the same.

    Returns
    -------
    One row per target and source: `n_cells`, of which `n_near` have the source nearby; `auc`; `auc_permuted`, the mean
    over the permutations; `difference` of the two. Pairs with too few cells, or whose folds cannot be kept apart, have
    no row.

    Raises
    ------
    TypeError, ValueError
        If there are fewer than two labels, if shapes do not match, or if values are negative, NaN or infinite.

    References
    ----------
    The use of predictability as a measure of leakage is ours. U: Mann & Whitney 1947, doi 10.1214/aoms/1177730491.
    Blocked cross-validation: Roberts et al. 2017, doi 10.1111/ecog.02881.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> from resolvi_sd.metrics import leakage_predictability
    >>> cells = np.arange(400)  # in pairs of neighbors: an A with a B, a B with a B
    >>> labels = np.where(cells % 4 == 0, "A", "B")
    >>> graph = sp.csr_matrix((np.ones(400), (cells, cells ^ 1)))
    >>> counts = np.stack([5 * (cells % 4 == 1), np.full(400, 20)], axis=1)  # those next to an A have its molecules
    >>> coordinates = np.stack([cells // 2 % 20, cells // 40], axis=1)
    >>> table = leakage_predictability(counts, labels, graph, coordinates, rng=0)
    >>> table[["target", "source", "n_cells", "n_near", "auc"]]
      target source  n_cells  n_near  auc
    0      B      A      300     100  1.0
    """
    counts = matrix(expression, argument="expression")
    codes, names = label_codes(labels, counts.shape[0], argument="labels")
    neighbors = neighbor_matrix(graph, counts.shape[0])
    places = np.asarray(coordinates, dtype=np.float64)
    check_coordinates(places, where="`coordinates`")
    if len(places) != counts.shape[0]:
        raise ValueError(f"`coordinates` has {len(places)} rows, but there are {counts.shape[0]} cells.")
    if check_positive_int(n_folds, argument="n_folds") < 2:
        raise ValueError("`n_folds` must be at least 2, as cells are tested that were not used for training.")
    for argument, value in (("n_permutations", n_permutations), ("min_cells", min_cells), ("max_cells", max_cells)):
        check_positive_int(value, argument=argument)
    generator = as_generator(rng)
    fold = spatial_folds(places, n_folds)
    near = neighbor_counts(neighbors, codes, len(names)) > 0
    depth = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
    scale = float(np.median(depth[depth > 0])) if depth.any() else 1.0
    tables = []
    for target, name in enumerate(names):
        rows = _draw(np.flatnonzero(codes == target), max_cells, generator)
        presence = near[rows]
        enough = np.minimum(presence.sum(axis=0), (~presence).sum(axis=0)) >= min_cells
        enough[target] = False
        truths = _truths(presence[:, enough], fold[rows], n_permutations, generator)
        if not enough.any():
            continue
        features = _standardized(counts[rows], depth[rows], scale)
        auc = _cross_validated(features, truths, fold[rows], neighbors, rows).reshape(1 + n_permutations, -1)
        tables.append(_rows(auc, presence[:, enough]).assign(target=name, source=np.array(names)[enough]))
    if not tables:
        return pd.DataFrame(columns=_COLUMNS)
    table = pd.concat(tables, ignore_index=True)[_COLUMNS]
    return table[table["auc"].notna()].reset_index(drop=True)


def _draw(rows: NDArray[np.intp], most: int, rng: np.random.Generator) -> NDArray[np.intp]:
    return rows if len(rows) <= most else np.sort(rng.choice(rows, most, replace=False))


def _truths(
    presence: NDArray[np.bool_], fold: NDArray[np.int64], n_permutations: int, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Return the presence, then its permutations within the folds, side by side."""
    sides = [presence]
    for _ in range(n_permutations):
        order = np.empty(len(fold), dtype=np.intp)
        by_fold = np.argsort(fold, kind="stable")
        order[by_fold] = np.lexsort((rng.random(len(fold)), fold))
        sides.append(presence[order])
    return np.concatenate(sides, axis=1)


def _standardized(counts: sp.csr_matrix, depth: NDArray[np.float64], scale: float) -> NDArray[np.float64]:
    factor = ratio(scale, depth, otherwise=0.0)
    values: NDArray[np.float64] = np.log1p(counts.toarray() * factor[:, None])
    spread = values.std(axis=0)
    standardized: NDArray[np.float64] = (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1)
    return standardized


def _cross_validated(
    features: NDArray[np.float64],
    truths: NDArray[np.bool_],
    fold: NDArray[np.int64],
    neighbors: sp.csr_matrix,
    rows: NDArray[np.intp],
) -> NDArray[np.float64]:
    """Return the AUC of each column of `truths`, NaN if no fold has both kinds for training and for testing."""
    won, compared = np.zeros(truths.shape[1]), np.zeros(truths.shape[1])
    for scores, train, test in _fold_scores(features, truths, fold, neighbors, rows):
        positive = test.sum(axis=0)
        pairs = np.where(train.any(axis=0) & ~train.all(axis=0), positive * (len(test) - positive), 0)
        rank_sum = (rankdata(scores, axis=0) * test).sum(axis=0)
        won += np.where(pairs > 0, rank_sum - positive * (positive + 1) / 2, 0)
        compared += pairs
    return ratio(won, compared)


def _fold_scores(
    features: NDArray[np.float64],
    truths: NDArray[np.bool_],
    fold: NDArray[np.int64],
    neighbors: sp.csr_matrix,
    rows: NDArray[np.intp],
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]]:
    """Yield, for each fold, the scores of the test cells, and the truths used for training and for testing."""
    from sklearn.linear_model import Ridge

    # All sources and permutations share the cells of a target, and therefore a single decomposition.
    model = Ridge(alpha=float(_PENALTY * features.shape[1]), solver="cholesky")
    for number in np.unique(fold):
        test = fold == number
        train = train_apart(neighbors, rows, test)
        if train.any():
            model.fit(features[train], truths[train].astype(np.float64))
            yield model.predict(features[test]).reshape(test.sum(), -1), truths[train], truths[test]


def _rows(auc: NDArray[np.float64], presence: NDArray[np.bool_]) -> pd.DataFrame:
    permuted = auc[1:].mean(axis=0)
    return pd.DataFrame(
        {
            "n_cells": len(presence),
            "n_near": presence.sum(axis=0),
            "auc": auc[0],
            "auc_permuted": permuted,
            "difference": auc[0] - permuted,
        }
    )
