"""The case "labels": cell types of real sections, of which the methods see a tenth."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from anndata import AnnData
from exchange import LABEL, MIN_COUNTS, UNLABELED

# Environment variable with the folder of the real data.
DATA_VARIABLE = "RESOLVI_SD_DATA"
LABELLED = 0.1
# Types with fewer cells are not labelled, and not scored.
FEWEST_CELLS = 10
# Data set, and the column of its sections; a seed takes one section.
DATA = {"mpoa": ("merfish_mpoa.h5ad", "sample"), "cosmx": ("cosmx_nsclc.h5ad", "sample")}


def make_labels(n_cells: int, regime: str, seed: int) -> tuple[AnnData, AnnData]:
    """Return a piece of a section with a tenth of its labels, and all of them."""
    folder = os.environ.get(DATA_VARIABLE)
    if not folder:
        raise RuntimeError(f"The case 'labels' needs real data: set {DATA_VARIABLE} to the folder that holds it.")
    name, section = DATA[regime]
    table = ad.read_h5ad(Path(folder) / name)
    rng = np.random.default_rng(seed)
    sections = table.obs[section].unique()
    table = table[(table.obs[section] == sections[seed % len(sections)]).to_numpy()]
    table = table[np.asarray(table.X.sum(axis=1)).ravel() >= MIN_COUNTS]
    # The cells nearest to one of them: a piece of tissue, with its neighbors.
    position = np.asarray(table.obsm["spatial"], dtype=np.float64)
    distance = np.linalg.norm(position - position[rng.integers(len(position))], axis=1)
    table = table[np.sort(np.argsort(distance, kind="stable")[:n_cells])]
    known = table.obs["cell_type"].astype(str)
    known = known.where(known.map(known.value_counts()) >= FEWEST_CELLS, UNLABELED)
    counts = table.X.astype(np.float32).tocsr()
    counts.sort_indices()
    seen = pd.Categorical(np.where(_chosen(known.to_numpy(), rng), known, UNLABELED))
    spatial = np.asarray(table.obsm["spatial"], dtype=np.float64)
    names = table.obs_names
    data = AnnData(counts, obs=pd.DataFrame({LABEL: seen}, index=names), obsm={"spatial": spatial})
    return data, AnnData(counts, obs=pd.DataFrame({LABEL: pd.Categorical(known), "seen": seen}, index=names))


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
    """Labels by logistic regression on log-normalised counts, without any correction."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    truth = ad.read_h5ad(truth_path)
    counts, seen = truth.X.toarray(), truth.obs["seen"].astype(str).to_numpy()
    size = counts.sum(axis=1, keepdims=True)
    features = StandardScaler().fit_transform(np.log1p(counts / size * np.median(size)))
    labelled = seen != UNLABELED
    model = LogisticRegression(C=0.1, max_iter=500).fit(features[labelled], seen[labelled])
    return np.asarray(model.predict(features))
