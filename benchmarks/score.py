"""What a method found, against the truth of the simulation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from differential import score_de, wilcoxon
from labels import predict_from_counts, score_labels
from scipy.special import gammaln
from scipy.stats import binom
from sklearn.neighbors import NearestNeighbors

from resolvi_sd._model.delaporte import delaporte_log_prob, poisson_log_prob
from resolvi_sd._tiles import SparseRows
from resolvi_sd.metrics import Removal, calibration, latent_quality, profile_error, removal

OWN_REMOVED = 0.1
# What is kept of each count is taken to these powers; 1 is the correction as it is.
POWERS = (0.1, 0.2, 0.4, 0.7, 1.0, 1.5, 2.5, 4.0)
HIGHEST_POWER = 64.0
_BISECTIONS = 16
_NEAREST = 15
_TINY = 1e-12


def score(
    truth_path: Path,
    corrected: dict[str, sp.csr_matrix],
    expression: np.ndarray,
    own_share: np.ndarray,
    rates: Mapping[str, np.ndarray] | None = None,
    latent: np.ndarray | None = None,
) -> dict[str, Any]:
    """Scores of a method: of its rates, of its own share, and of the corrected counts by every recipe of it."""
    truth = ad.read_h5ad(truth_path)
    losses = held_out_losses(truth.X, truth.layers["held_out"], **rates) if "held_out" in truth.layers and rates else {}
    if latent is not None:
        losses["latent_knn"] = latent_quality(latent, truth.obs["cell_type"], rng=0).knn_accuracy
        losses["latent_within_type"] = within_type(latent, truth.layers["profile"], truth.obs["cell_type"])
    return losses | {
        "profile_error": _mean(profile_error(expression, truth.layers["profile"])),
        **share_scores(own_share, truth.obs["own_share"].to_numpy()),
        "counts": {recipe: count_scores(matrix, truth) for recipe, matrix in corrected.items()},
    }


def within_type(latent: np.ndarray, profile: np.ndarray, cell_type: pd.Series) -> float:
    """How much of the true differences within cell types the latent holds.

    R² of the mean true profile of a cell's 15 nearest in the latent, those of its own type, for what its own profile
    has over its type's mean; below 0 where the type's mean would say more.
    """
    code, types = pd.factorize(cell_type)
    means = np.stack([profile[code == k].mean(axis=0) for k in range(len(types))])
    nearest = NearestNeighbors(n_neighbors=_NEAREST).fit(latent).kneighbors(return_distance=False)
    own = code[nearest] == code[:, None]
    told = own.any(axis=1)
    predicted = np.einsum("nkg,nk->ng", profile[nearest[told]], own[told] / own[told].sum(axis=1, keepdims=True))
    residual = np.square(profile[told] - predicted).sum()
    return float(1 - residual / np.square(profile[told] - means[code[told]]).sum())


def score_task(
    kind: str, truth_path: Path, corrected: dict[str, sp.csr_matrix], arrays: dict[str, np.ndarray]
) -> dict[str, Any]:
    """Scores of what a method wrote, by the kind of the case."""
    if kind == "labels":
        return score_labels(truth_path, arrays["predicted"])
    if kind == "de":
        found = {name: arrays[f"de_{name}"] for name in ("called", "change", "strength")}
        tested = {name: score_de(truth_path, **wilcoxon(matrix, truth_path)) for name, matrix in corrected.items()}
        return {"own": score_de(truth_path, **found), "wilcoxon": tested}
    rates = {name: array for name, array in arrays.items() if name in ("signal", "background", "concentration")}
    if kind == "held_out":
        truth = ad.read_h5ad(truth_path)
        return held_out_losses(truth.X, truth.layers["held_out"], **rates)
    return score(truth_path, corrected, arrays["expression"], arrays["own_share"], rates, arrays["latent"])


def score_raw(kind: str, truth_path: Path) -> dict[str, Any]:
    """Scores of the counts as they are; where there is a truth to restore, of the true own counts too."""
    if kind == "labels":
        return score_labels(truth_path, predict_from_counts(truth_path))
    truth = ad.read_h5ad(truth_path)
    if kind == "de":
        return {"wilcoxon": {"default": score_de(truth_path, **wilcoxon(truth.X, truth_path))}}
    counts = {"default": truth.X, "truth": truth.layers["own"]}
    return score(truth_path, counts, truth.X.toarray(), np.ones(truth.n_obs))


def held_out_losses(
    seen: sp.csr_matrix,
    held_out: sp.csr_matrix,
    *,
    signal: np.ndarray,
    background: np.ndarray,
    concentration: np.ndarray | None = None,
) -> dict[str, float]:
    """Losses of the molecules that were not seen, nats for each of them, under a model of the ones seen.

    `held_out` is the negative log-probability of their numbers by the model's own distribution; `held_out_given` is
    that after the seen ones, since what overdispersion made of a gene in a cell is in both halves. Each molecule was
    seen with a probability of one half, so P(seen, unseen) is the probability of their sums at twice the rates, times
    that of the split. `held_out_composition` is the cross-entropy under the expected composition of a cell. Without a
    `concentration` the counts are Poisson.
    """

    def log_prob(counts: sp.csr_matrix, times: float) -> float:
        entries = SparseRows.from_scipy(counts.astype(np.float32))
        mu, lam = (torch.from_numpy(times * np.maximum(rate, _TINY)) for rate in (signal, background))
        if concentration is None:
            values = poisson_log_prob(entries, mu, lam)
        else:
            r = torch.from_numpy(concentration.astype(np.float32))[None]
            values = delaporte_log_prob(entries, mu, lam, r, torch.zeros(len(mu), dtype=torch.long))
        return float(values.double().sum())

    both = (seen + held_out).tocsr()
    split = sum(sign * gammaln(part.data + 1.0).sum() for sign, part in ((1, both), (-1, seen), (-1, held_out)))
    joint = log_prob(both, 2.0) + split - math.log(2) * both.sum()
    n_unseen = float(held_out.sum())
    return {
        "held_out": -log_prob(held_out, 1.0) / n_unseen,
        "held_out_given": -float(joint - log_prob(seen, 1.0)) / n_unseen,
        "held_out_composition": composition_loss(signal + background, held_out),
    }


def composition_loss(expected: np.ndarray, counts: sp.csr_matrix) -> float:
    """Nats per molecule under the expected composition of its cell, all sources together."""
    rate = np.maximum(expected, _TINY)
    composition = rate / rate.sum(axis=1, keepdims=True)
    entries = counts.tocoo()
    return float(-(entries.data * np.log(composition[entries.row, entries.col])).sum() / entries.data.sum())


def count_scores(corrected: sp.csr_matrix, truth: ad.AnnData) -> dict[str, Any]:
    """Scores of corrected counts; their own share is what is left of the cell's molecules."""
    counts, own = truth.X, truth.layers["own"]
    removed = removal(counts, own, corrected)
    left = np.asarray(corrected.sum(axis=1)).ravel() / np.asarray(counts.sum(axis=1)).ravel()
    return {
        "foreign_removed": _finite(removed.foreign),
        "own_removed": _finite(removed.own),
        "foreign_removed_at_equal_own": foreign_removed_at(OWN_REMOVED, counts, own, corrected),
        "foreign_removed_at_equal_own_whole": foreign_removed_at(OWN_REMOVED, counts, own, corrected, whole=True),
        "curve": removal_curve(counts, own, corrected),
        "error_per_molecule": float(abs(corrected - own).sum() / counts.sum()),
        "profile_error": _mean(profile_error(corrected, truth.layers["profile"])),
        **share_scores(left, truth.obs["own_share"].to_numpy()),
    }


def removal_curve(counts: sp.csr_matrix, own: sp.csr_matrix, corrected: sp.csr_matrix) -> list[tuple[float, float]]:
    """Shares of own and of foreign molecules removed, by the correction made weaker and stronger (see `POWERS`)."""
    at_power = by_power(counts, corrected)
    points = (removal(counts, own, at_power(power)) for power in POWERS)
    return [(float(point.own), float(point.foreign)) for point in points]


def foreign_removed_at(
    target: float, counts: sp.csr_matrix, own: sp.csr_matrix, corrected: sp.csr_matrix, *, whole: bool = False
) -> float | None:
    """Share of foreign molecules removed where the share of own ones removed is `target`.

    None if it never is, as for corrections that are whole already. With `whole` by single molecules (:func:`by_level`).
    """
    if (corrected.data == np.rint(corrected.data)).all():
        return None
    at = by_level(counts, corrected) if whole else by_power(counts, corrected)

    def removed(strength: float) -> Removal:
        return removal(counts, own, at(strength))

    strength = strength_where(lambda strength: removed(strength).own, target, highest=1.0 if whole else HIGHEST_POWER)
    return None if strength is None else _finite(removed(strength).foreign)


def kept_share(counts: sp.csr_matrix, corrected: sp.csr_matrix) -> sp.csr_matrix:
    """Return what a correction keeps of each count, as a share of it."""
    return corrected.multiply(counts.power(-1.0)).tocsr()  # type: ignore[call-overload]


def by_power(counts: sp.csr_matrix, corrected: sp.csr_matrix) -> Callable[[float], sp.csr_matrix]:
    """Return the correction as a function of how much it dares.

    Any correction removes more when what it keeps of each count, p, is taken to a power above 1, and less below 1. This
    puts corrections that differ in how much they dare on the same point of their curves.
    """
    kept = kept_share(counts, corrected)
    return lambda power: counts.multiply(kept.power(power)).tocsr()  # type: ignore[call-overload]


def by_level(counts: sp.csr_matrix, corrected: sp.csr_matrix) -> Callable[[float], sp.csr_matrix]:
    """Return whole counts as a function of the level that a molecule's probability has to reach.

    For any correction, as if each molecule of a count x were own with the probability p that it keeps of it: the c-th
    is kept if at least c of x are own with a probability of at least the level.
    """
    counts = counts.tocsr()
    share = np.asarray(kept_share(counts, corrected)[counts.nonzero()]).ravel().clip(0, 1)
    size = counts.data.astype(np.int64)
    first = np.concatenate([[0], np.cumsum(size)])
    entry = np.repeat(np.arange(len(size)), size)
    tail = binom.sf(np.arange(first[-1]) - first[entry], size[entry], share[entry])

    def at(level: float) -> sp.csr_matrix:
        data = np.bincount(entry[tail >= level], minlength=len(size)).astype(np.float64)
        return sp.csr_matrix((data, counts.indices, counts.indptr), shape=counts.shape)

    return at


def strength_where(own_removed: Callable[[float], float], target: float, *, highest: float) -> float | None:
    """Return the power (:func:`by_power`) or level (:func:`by_level`) from which on `own_removed` is at least `target`.

    None where none gets there (all or nothing kept).
    """
    low, high = 0.0, highest
    if not own_removed(high) >= target:
        return None
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if own_removed(middle) < target else (low, middle)
    return high


def share_scores(found: np.ndarray, truth: np.ndarray) -> dict[str, float | None]:
    """Pearson correlation over cells, mean and root mean square of the error, and the error of calibration."""
    error = found.astype(np.float64) - truth
    constant = np.ptp(found) == 0 or np.ptp(truth) == 0
    return {
        "share_correlation": None if constant else _finite(float(np.corrcoef(found, truth)[0, 1])),
        "share_bias": _mean(error),
        "share_rmse": _finite(math.sqrt(np.mean(error**2))),
        "share_calibration_error": _finite(calibration(found, truth).error),
    }


def _mean(values: np.ndarray) -> float | None:
    return _finite(float(np.nanmean(values)))


def _finite(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None
