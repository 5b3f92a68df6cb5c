"""Labels of the cells as probabilities, from a column of `obs` or from the classifier of the fit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from resolvi_sd._analysis._groups import label_groups
from resolvi_sd._keys import Keys
from resolvi_sd._setup import fitted_setup

__all__ = ["LabelProbabilities", "draw_labels", "label_probabilities"]


@dataclass(frozen=True)
class LabelProbabilities:
    """Probability of each label for each cell.

    Attributes
    ----------
    values
        Cells × labels, float32; rows sum to 1, or are zero for cells without a label.
    names
        Names of the labels.
    certain
        Whether all probabilities are zero or one.
    """

    values: NDArray[np.float32]
    names: tuple[str, ...]
    certain: bool


def label_probabilities(adata: AnnData, keys: Keys, labels_key: str | None) -> LabelProbabilities:
    """Return the labels in a column of `obs` or, if None, the probabilities of a semi-supervised fit.

    Raises
    ------
    KeyError
        If there is no such column, or no fit with labels.
    ValueError
        If no cell has a label, or if the column contains measurements.
    """
    if labels_key is not None:
        groups = label_groups(adata, labels_key, fitted_setup(adata, keys))
        one_hot: NDArray[np.float32] = np.zeros((adata.n_obs, len(groups.names)), np.float32)
        labeled = np.flatnonzero(groups.codes >= 0)
        one_hot[labeled, groups.codes[labeled]] = 1
        return LabelProbabilities(one_hot, groups.names, certain=True)
    names = adata.uns.get(keys.model, {}).get("labels")
    if names is None or keys.probabilities not in adata.obsm:
        raise KeyError(
            f"The table has no label probabilities (`obsm[{keys.probabilities!r}]` with names in `uns[{keys.model!r}]"
            "['labels']`): fit with `labels_key=` first, or name a column of `obs` with labels here: labels_key=..."
        )
    values = np.nan_to_num(np.asarray(adata.obsm[keys.probabilities], dtype=np.float32))
    return LabelProbabilities(values, tuple(str(name) for name in names), certain=False)


def draw_labels(labels: LabelProbabilities, rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw one label for each cell that has any, cells × labels, zeros and ones."""
    edges = np.cumsum(labels.values, axis=1)
    point = rng.random((len(edges), 1), dtype=np.float32) * edges[:, -1:]
    chosen = (point >= edges).sum(axis=1).clip(max=edges.shape[1] - 1)
    drawn: NDArray[np.float32] = np.zeros_like(labels.values)
    drawn[np.arange(len(drawn)), chosen] = edges[:, -1] > 0
    return drawn
