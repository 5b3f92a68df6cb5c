"""Quality of a latent space: separation of labels and mixing of batches."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from resolvi_sd._random import RandomLike, as_generator
from resolvi_sd._validation import check_positive_int
from resolvi_sd.metrics._arrays import label_codes

__all__ = ["LatentQuality", "latent_quality"]


class LatentQuality(NamedTuple):
    """Separation of labels and mixing of batches in a latent space.

    Attributes
    ----------
    knn_accuracy
        Share of cells whose label is the most common one among their nearest neighbors.
    knn_accuracy_macro
        Mean of the accuracies of the labels, in which rare labels count as much as frequent ones.
    silhouette
        Mean silhouette of the labels, -1 to 1.
    batch_mixing
        Number of neighbors of the same label from other batches, divided by the number expected if batches were mixed:
        0 if they are separate, 1 if they are mixed; NaN without batches.
    n_cells
        Number of cells over which these values are averaged.
    """

    knn_accuracy: float
    knn_accuracy_macro: float
    silhouette: float
    batch_mixing: float
    n_cells: int


def latent_quality(
    latent: Any,
    labels: Any,
    batch: Any = None,
    *,
    n_neighbors: int = 15,
    max_cells: int = 10_000,
    rng: RandomLike = 0,
) -> LatentQuality:
    r"""Compute the accuracy of a nearest-neighbor classifier, the silhouette of labels, and the mixing of batches.

    The classifier predicts the most common label among a cell's k nearest neighbors, by Euclidean distance, in all
    other labeled cells (in case of a tie, the first label). The silhouette of a cell is :math:`(b - a) / \max(a, b)`,
    with its mean distance a to cells of its own label and b to those of the closest other label. The mixing of batches
    considers only cells of the same label, since batches may differ in their labels: if :math:`o_n` of the k neighbors
    are from batches other than the cell's, and :math:`e_n` is the share of other batches among the other cells of the
    label,

    .. math:: \mathrm{mixing} = \frac{\sum_n o_n / k}{\sum_n e_n}.

    Parameters
    ----------
    latent
        Cells × dimensions, dense.
    labels
        Label of each cell; cells without one are left out.
    batch
        Batch of each cell.
    n_neighbors
        Number k of neighbors; if a label has fewer other cells, all of them.
    max_cells
        Number of cells to draw if there are more: neighbors of the drawn cells are searched among all cells, whereas
        the silhouette uses the drawn cells only.
    rng
        Seed or generator.

    Returns
    -------
    LatentQuality. The silhouette is NaN if each of the drawn cells has a label of its own.

    Raises
    ------
    TypeError, ValueError
        If there are fewer than two labels or batches, if the lengths differ, if a cell has no batch, if `latent` is
        not cells × dimensions, or if it holds NaN or infinite values.

    References
    ----------
    Silhouette: Rousseeuw 1987, doi 10.1016/0377-0427(87)90125-7. Comparing observed with expected compositions of
    neighborhoods is the idea of kBET (Buettner et al. 2019, doi 10.1038/s41592-018-0254-1); this ratio, within labels,
    is ours.

    Examples
    --------
    >>> import numpy as np
    >>> from resolvi_sd.metrics import latent_quality
    >>> latent = np.array([[0.0], [1], [2], [10], [11], [12]])
    >>> latent_quality(latent, list("aaabbb"), list("xyxyxy"), n_neighbors=2).knn_accuracy
    1.0
    """
    points = _points(latent)
    codes, names = label_codes(labels, len(points), argument="labels")
    batches = None if batch is None else label_codes(batch, len(points), argument="batch")[0]
    if batches is not None and (batches < 0).any():
        raise ValueError(f"`batch`: {(batches < 0).sum()} of {len(points)} cells have no batch.")
    check_positive_int(n_neighbors, argument="n_neighbors")
    check_positive_int(max_cells, argument="max_cells")
    labeled = np.flatnonzero(codes >= 0)
    drawn = np.arange(len(labeled))
    if len(labeled) > max_cells:
        drawn = np.sort(as_generator(rng).choice(len(labeled), max_cells, replace=False))
    points, codes = points[labeled], codes[labeled]
    right = _predicted(points, codes, drawn, n_neighbors, len(names)) == codes[drawn]
    recall = [right[codes[drawn] == code].mean() for code in np.unique(codes[drawn])]
    return LatentQuality(
        knn_accuracy=float(right.mean()),
        knn_accuracy_macro=float(np.mean(recall)),
        silhouette=_silhouette(points[drawn], codes[drawn]),
        batch_mixing=float("nan") if batches is None else _mixing(points, codes, batches[labeled], drawn, n_neighbors),
        n_cells=len(drawn),
    )


def _points(latent: Any) -> NDArray[np.floating]:
    points = np.asarray(latent)
    if points.ndim != 2:
        raise ValueError(f"`latent` must be cells × dimensions, dense, but its shape is {points.shape}.")
    if points.dtype.kind not in "buif":
        raise TypeError(f"`latent` must hold real numbers, but its type is {points.dtype}.")
    if not np.isfinite(points).all():
        cells = int((~np.isfinite(points)).any(axis=1).sum())
        raise ValueError(f"`latent` is NaN or infinite for {cells} of {len(points)} cells. Drop those cells first.")
    return points


def _neighbors(points: NDArray[np.floating], queries: NDArray[np.intp], k: int) -> NDArray[np.intp]:
    """Return the k nearest other points of each query, queries × k; all of them if there are fewer than k."""
    from sklearn.neighbors import NearestNeighbors

    k = min(k, len(points) - 1)
    found = NearestNeighbors(n_neighbors=k + 1).fit(points).kneighbors(points[queries], return_distance=False)
    # Among coincident points, the query itself may be at any position or missing; then the last one is dropped.
    other = found != queries[:, None]
    other[other.all(axis=1), -1] = False
    neighbors: NDArray[np.intp] = found[other].reshape(len(queries), k)
    return neighbors


def _predicted(
    points: NDArray[np.floating], codes: NDArray[np.int64], queries: NDArray[np.intp], k: int, n_labels: int
) -> NDArray[np.int64]:
    votes = codes[_neighbors(points, queries, k)]
    place = votes + n_labels * np.arange(len(votes))[:, None]
    counts = np.bincount(place.ravel(), minlength=n_labels * len(votes)).reshape(len(votes), n_labels)
    predicted: NDArray[np.int64] = counts.argmax(axis=1)
    return predicted


def _silhouette(points: NDArray[np.floating], codes: NDArray[np.int64]) -> float:
    from sklearn.metrics import silhouette_score

    if not 2 <= len(np.unique(codes)) < len(codes):
        return float("nan")
    return float(silhouette_score(points, codes))


def _mixing(
    points: NDArray[np.floating],
    codes: NDArray[np.int64],
    batches: NDArray[np.int64],
    drawn: NDArray[np.intp],
    k: int,
) -> float:
    """Return the ratio of the observed to the expected share of neighbors from other batches, within labels."""
    observed, expected = 0.0, 0.0
    for code in np.unique(codes[drawn]):
        members = np.flatnonzero(codes == code)
        if len(members) < 2:
            continue
        of_label = batches[members]
        queries = np.flatnonzero(np.isin(members, drawn))
        own = of_label[queries]
        near = of_label[_neighbors(points[members], queries, k)]
        observed += float((near != own[:, None]).mean(axis=1).sum())
        expected += float((len(members) - np.bincount(of_label)[own]).sum() / (len(members) - 1))
    return observed / expected if expected > 0 else float("nan")
