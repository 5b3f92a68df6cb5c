"""The case "de": differential expression on simulated tissues whose profiles are known.

Three kinds of comparisons: `pairs` of cell types, each type against the `rest`, and `leaked`: cells of a type that lie
beside another type against cells of the same type that do not, whose raw counts differ in the other type's genes.
"""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from exchange import COMPARISONS
from scipy.spatial import cKDTree

KINDS = ("pairs", "rest", "leaked")
# Log2 fold changes: the smallest that counts; what counts as none; how much more the leaking type has of a gene.
DELTA, NONE, LEAKING = 0.25, 0.15, 2.0
FDR = 0.05
# Cells on a side of a comparison, or a 25th of all where that is less.
_FEWEST_CELLS = 40
_MOST_LEAKED = 8
_N_NEAREST = 6


def add_comparisons(data: AnnData, truth: AnnData, label: pd.Series[Any]) -> None:
    """Say in the data which cells are compared (1 with 2), and in the truth what differs.

    `truth.varm` holds the true log2 fold changes, and for the kind `leaked` which genes the beside type leaks. The
    pseudocount gives a cell of median depth 0.01 molecules.
    """
    fewest = min(_FEWEST_CELLS, len(label) // 25)
    sizes = label.value_counts()
    names = sizes[sizes >= fewest].index
    compared = [("pairs", label == one, label == other, "") for one, other in combinations(names, 2)]
    compared += [("rest", label == name, label != name, "") for name in names]
    compared += _leaked(data, label, fewest)
    sides = np.stack([np.select([first, second], [1, 2], 0) for _, first, second, _ in compared], axis=1)
    profile, small = truth.layers["profile"], 0.01 / np.median(np.asarray(truth.X.sum(axis=1)))

    def mean(cells: np.ndarray) -> np.ndarray:
        return np.asarray(np.log2(profile[cells].mean(axis=0, dtype=np.float64) + small))

    data.obsm[COMPARISONS] = sides.astype(np.int8)
    truth.obsm[COMPARISONS] = data.obsm[COMPARISONS]
    truth.varm["change"] = np.stack([mean(side == 1) - mean(side == 2) for side in sides.T], axis=1)
    leaks = [
        mean((label == beside).to_numpy()) - mean(side == 2) > LEAKING if beside else np.zeros(truth.n_vars, bool)
        for side, (*_, beside) in zip(sides.T, compared, strict=True)
    ]
    truth.varm["leaks"] = np.stack(leaks, axis=1)
    truth.uns["kinds"] = np.array([kind for kind, *_ in compared], dtype=object)
    truth.uns["pseudocount"] = float(small)


def _leaked(data: AnnData, label: pd.Series[Any], fewest: int) -> list[tuple[str, Any, Any, str]]:
    """Cells with at least two of their nearest six of another type, against those with none; the largest groups."""
    position = data.obsm["spatial"]
    _, nearest = cKDTree(position).query(position, _N_NEAREST + 1)
    around = label.to_numpy()[np.asarray(nearest)[:, 1:]]
    found = []
    for other in label.unique():
        beside = (around == other).sum(axis=1)
        for name in label.unique():
            if name != other:
                near, far = (label == name) & (beside >= 2), (label == name) & (beside == 0)
                found.append((min(near.sum(), far.sum()), near, far, str(other)))
    found = sorted((f for f in found if f[0] >= fewest), key=lambda f: -f[0])[:_MOST_LEAKED]
    return [("leaked", near, far, other) for _, near, far, other in found]


def score_de(truth_path: Path, called: np.ndarray, change: np.ndarray, strength: np.ndarray) -> dict[str, Any]:
    """Scores by kind of comparison.

    Parameters
    ----------
    truth_path
        File of the truth.
    called, change, strength
        Comparisons × genes: whether a method calls the gene at an FDR of 5%, its log2 fold change, and what it ranks
        genes by.
    """
    truth = ad.read_h5ad(truth_path)
    true, kinds, leaks = truth.varm["change"].T, truth.uns["kinds"], truth.varm["leaks"].T
    scores: dict[str, Any] = {}
    for kind in ("pairs", "rest"):
        rows = kinds == kind
        scores[kind] = power_scores(true[rows], called[rows], change[rows], strength[rows])
    rows = kinds == "leaked"
    none = np.abs(true[rows]) < NONE
    leaked = none & leaks[rows]
    scores["leaked"] = {
        "genes": int(leaked.sum()),
        "false_calls": _mean(called[rows][leaked]),
        "false_calls_other": _mean(called[rows][none & ~leaked]),
    }
    return scores


def power_scores(true: np.ndarray, called: np.ndarray, change: np.ndarray, strength: np.ndarray) -> dict[str, Any]:
    """Power and false discoveries; a call is right if the true change is at least 0.25, and in the same direction."""
    differs = np.abs(true) >= DELTA
    right = differs & (np.sign(true) == np.sign(change))
    order = np.argsort(-strength.ravel(), kind="stable")
    found = right.ravel()[order]
    within = np.flatnonzero(np.cumsum(~found) <= FDR * np.arange(1, len(found) + 1))
    at_equal = found[: within[-1] + 1].sum() if len(within) else 0
    return {
        "fdr": _mean(~right[called]),
        "power": float((called & right).sum() / differs.sum()),
        "power_at_equal_fdr": float(at_equal / differs.sum()),
        "correlation": float(np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(true, change, strict=True)])),
        "slope": float(np.polyfit(true.ravel(), change.ravel(), 1)[0]),
    }


def wilcoxon(counts: sp.csr_matrix, truth_path: Path) -> dict[str, np.ndarray]:
    """Scanpy's rank-sum test on log-normalized counts; genes of adjusted p < 0.05 and a change of 0.25 are called."""
    import scanpy as sc

    truth = ad.read_h5ad(truth_path)
    size = np.asarray(counts.sum(axis=1)).ravel()
    some = size > 0
    profile = sp.diags(1 / np.where(some, size, 1)) @ counts
    table = AnnData(sp.csr_matrix(profile * np.median(size[some])).log1p(), var=pd.DataFrame(index=truth.var_names))
    small, results = truth.uns["pseudocount"], []
    for side in truth.obsm[COMPARISONS].T:
        cells = (side > 0) & some
        part = table[cells].copy()
        part.obs["side"] = pd.Categorical(side[cells].astype(str))
        sc.tl.rank_genes_groups(part, "side", groups=["1"], reference="2", method="wilcoxon")
        found = sc.get.rank_genes_groups_df(part, "1").set_index("names").loc[table.var_names]
        means = [np.asarray(profile[(side == s) & some].mean(axis=0)).ravel() for s in (1, 2)]
        change = np.log2(means[0] + small) - np.log2(means[1] + small)
        called = (found["pvals_adj"] < FDR).to_numpy() & (np.abs(change) >= DELTA)
        results.append((called, change, np.abs(found["scores"].to_numpy())))
    return dict(zip(("called", "change", "strength"), map(np.stack, zip(*results, strict=True)), strict=True))


def _mean(values: np.ndarray) -> float | None:
    return float(np.mean(values)) if values.size else None
