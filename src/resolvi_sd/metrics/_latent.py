"""Quality of a latent space: do labels keep apart, and batches mix."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from resolvi_sd._random import RandomLike, as_generator
from resolvi_sd._validation import check_positive_int
from resolvi_sd.metrics._arrays import label_codes

__all__ = ["LatentQuality", "latent_quality"]


class LatentQuality(NamedTuple):
    """How well a latent space keeps labels apart and mixes batches.

    Attributes
    ----------
    knn_accuracy
        Share of cells whose nearest neighbors have the cell's label for the most part.
    knn_accuracy_macro
        The same, mean of the labels' accuracies, so that rare ones count as much.
    silhouette
        Mean silhouette of the labels, -1 to 1.
    batch_mixing
        Neighbors of the same label from other batches, over their number were batches mixed: 0 separate, 1 mixed; NaN
        without batches.
    n_cells
        Number of cells that this is the mean of.
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
    r"""Accuracy of a nearest-neighbor classifier, silhouette of the labels, and mixing of the batches.

    The classifier leaves the cell itself out: the label of most of its k nearest neighbors, by Euclidean distance,
    among all other labelled cells (of those tied, the first). The silhouette of a cell is
    :math:`(b - a) / \max(a, b)`, with its mean distance a to cells of its label and b to those of the closest other
    label. For the mixing of batches, only cells of the same label are looked at, since batches may be made of
    different ones: with :math:`o_n` of the k neighbors from other batches than the cell's, and :math:`e_n` the share of
    other batches among the other cells of the label,

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
        Number k of neighbors; of a label with fewer other cells, all.
    max_cells
        Number of cells to draw where there are more: neighbors are sought among all, for those drawn. The silhouette is
        that of the cells drawn.
    rng
        Seed or generator.

    Returns
    -------
    LatentQuality. The silhouette is NaN if every cell drawn has a label of its own.

    Raises
    ------
    TypeError, ValueError
        If there are fewer than two labels or batches, if the lengths differ, if a cell has no batch, if the latent is
        not cells × dimensions, or if it holds NaN or infinite values.

    References
    ----------
    Silhouette: Rousseeuw 1987, doi 10.1016/0377-0427(87)90125-7. Observed over expected composition of neighborhoods is
    the idea of kBET (Buettner et al. 2019, doi 10.1038/s41592-018-0254-1); this ratio, within labels, is ours.

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
    labelled = np.flatnonzero(codes >= 0)
    drawn = np.arange(len(labelled))
    if len(labelled) > max_cells:
        drawn = np.sort(as_generator(rng).choice(len(labelled), max_cells, replace=False))
    points, codes = points[labelled], codes[labelled]
    right = _predicted(points, codes, drawn, n_neighbors, len(names)) == codes[drawn]
    recall = [right[codes[drawn] == code].mean() for code in np.unique(codes[drawn])]
    return LatentQuality(
        knn_accuracy=float(right.mean()),
        knn_accuracy_macro=float(np.mean(recall)),
        silhouette=_silhouette(points[drawn], codes[drawn]),
        batch_mixing=float("nan") if batches is None else _mixing(points, codes, batches[labelled], drawn, n_neighbors),
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
    """Return the k nearest other points of each query, queries × k; fewer if there are fewer."""
    from sklearn.neighbors import NearestNeighbors

    k = min(k, len(points) - 1)
    found = NearestNeighbors(n_neighbors=k + 1).fit(points).kneighbors(points[queries], return_distance=False)
    # Among coincident points the query itself may come anywhere, or not at all; the last one goes then.
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
    """Return the observed over the expected share of neighbors from other batches, within labels."""
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
