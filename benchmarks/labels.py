"""The case "labels": cell types of real sections, of which the methods see a tenth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from anndata import AnnData
from exchange import LABEL, UNLABELED
from sections import piece

LABELLED = 0.1
# Types with fewer cells are not labeled, and not scored.
FEWEST_CELLS = 10


def make_labels(n_cells: int, regime: str, seed: int) -> tuple[AnnData, AnnData]:
    """Return a piece of a section with a tenth of its labels, and all of them."""
    rng = np.random.default_rng(seed)
    table = piece(regime, n_cells, rng, seed)
    known = table.obs["cell_type"].astype(str)
    known = known.where(known.map(known.value_counts()) >= FEWEST_CELLS, UNLABELED)
    seen = pd.Categorical(np.where(_chosen(known.to_numpy(), rng), known, UNLABELED))
    spatial = np.asarray(table.obsm["spatial"], dtype=np.float64)
    names = table.obs_names
    data = AnnData(table.X, obs=pd.DataFrame({LABEL: seen}, index=names), obsm={"spatial": spatial})
    return data, AnnData(table.X, obs=pd.DataFrame({LABEL: pd.Categorical(known), "seen": seen}, index=names))


def _chosen(label: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A tenth of the cells of each type, at least one."""
    chosen = np.zeros(len(label), bool)
    for name in np.unique(label[label != UNLABELED]):
        cells = np.flatnonzero(label == name)
        chosen[rng.choice(cells, size=max(1, round(LABELLED * len(cells))), replace=False)] = True
    return chosen


def score_labels(truth_path: Path, predicted: np.ndarray) -> dict[str, Any]:
    """Accuracy on the cells whose label was held out, over cells and as the mean over types."""
    obs = ad.read_h5ad(truth_path).obs.astype(str)
    held_out = ((obs["seen"] == UNLABELED) & (obs[LABEL] != UNLABELED)).to_numpy()
    label, right = obs[LABEL].to_numpy()[held_out], (predicted.astype(str) == obs[LABEL].to_numpy())[held_out]
    recall = pd.Series(right).groupby(label).mean()
    return {"accuracy": float(right.mean()), "mean_recall": float(recall.mean()), "n_held_out": int(held_out.sum())}


def predict_from_counts(truth_path: Path) -> np.ndarray:
    """Labels by logistic regression on log-normalized counts, without any correction."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    truth = ad.read_h5ad(truth_path)
    counts, seen = truth.X.toarray(), truth.obs["seen"].astype(str).to_numpy()
    size = counts.sum(axis=1, keepdims=True)
    features = StandardScaler().fit_transform(np.log1p(counts / size * np.median(size)))
    labeled = seen != UNLABELED
    model = LogisticRegression(C=0.1, max_iter=500).fit(features[labeled], seen[labeled])
    return np.asarray(model.predict(features))
