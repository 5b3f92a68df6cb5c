"""Calibration against a known truth: of predicted shares, and of the intervals and ranks of posterior draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from resolvi_sd._random import RandomLike, as_generator
from resolvi_sd._validation import check_positive_int

__all__ = ["Calibration", "RankUniformity", "calibration", "coverage", "rank_uniformity"]

# Predictions that differ by no more than this are considered equal.
_ROUNDING = 1e-6


class Calibration(NamedTuple):
    """Calibration of predicted against true values.

    Attributes
    ----------
    bins
        One row per bin with cells: `lower`, `upper`, the mean `predicted` and `true` value, the `standard_error` of the
        latter (NaN for a single cell), and `n_cells`.
    error
        Expected calibration error: mean over cells of the absolute difference between the two means of their bin.
    slope, intercept
        Of the least-squares line of the true on the predicted values; 1 and 0 are ideal. A slope below 1 means that
        predictions are too extreme, above 1 that they are too timid. NaN if all predictions are the same.
    bias
        Mean of predicted minus true.
    n_cells
        Number of cells for which both values are known.
    """

    bins: pd.DataFrame
    error: float
    slope: float
    intercept: float
    bias: float
    n_cells: int


class RankUniformity(NamedTuple):
    """Ranks of truths among posterior draws.

    Attributes
    ----------
    ranks
        Relative ranks between 0 and 1, one per truth; uniform if the posterior is calibrated. If they pile up at both
        ends, the posterior is too narrow; in the middle, too wide; at one end, biased (at 0, the draws are too large).
    histogram
        Number of ranks in each bin; the bins have equal width.
    statistic, p_value
        Of the chi-squared test of uniformity. If truths depend on each other, as those of one cell do, the p-value is
        too small.
    """

    ranks: NDArray[np.float64]
    histogram: NDArray[np.int64]
    statistic: float
    p_value: float


def calibration(predicted: ArrayLike, true: ArrayLike, *, n_bins: int = 10) -> Calibration:
    """Compare predicted with true shares in bins of the prediction.

    With N cells, N_b of them in bin b, the expected calibration error is `sum_b N_b / N |mean predicted - mean true|`
    [1]_; intercept and slope are those of the calibration line [2]_. The bins divide the range from 0 to 1 evenly.

    Parameters
    ----------
    predicted, true
        Shares between 0 and 1, one per cell. Cells where either is NaN are left out.
    n_bins
        Number of bins.

    Returns
    -------
    Calibration.

    Raises
    ------
    ValueError
        If the shapes differ, no cell is left, or values are not between 0 and 1.
    TypeError
        If `n_bins` is not an integer.

    References
    ----------
    .. [1] Naeini, Cooper & Hauskrecht (2015), Obtaining well calibrated probabilities using Bayesian binning, AAAI;
       here with shares instead of the frequencies of an event.
    .. [2] Cox (1958), Two further applications of a model for binary regression, Biometrika 45; fitted
       to shares by least squares.

    Examples
    --------
    >>> from resolvi_sd.metrics import calibration
    >>> result = calibration([0.2, 0.2, 0.8, 0.8], [0.1, 0.2, 0.9, 1.0], n_bins=2)
    >>> round(result.error, 3), round(result.bias, 3), round(result.slope, 3)
    (0.1, -0.05, 1.333)
    >>> result.bins["true"].round(2).tolist()
    [0.15, 0.95]
    """
    n_bins = check_positive_int(n_bins, argument="n_bins")
    x, y = _known_shares(predicted, true)
    code = np.minimum((x * n_bins).astype(np.int64), n_bins - 1)
    groups = pd.DataFrame({"predicted": x, "true": y}).groupby(code)
    means, n_cells = groups.mean(), groups.size()
    lower = means.index.to_numpy(dtype=np.float64) / n_bins
    bins = pd.DataFrame(
        {
            "lower": lower,
            "upper": lower + 1 / n_bins,
            "predicted": means["predicted"].to_numpy(),
            "true": means["true"].to_numpy(),
            "standard_error": groups["true"].sem().to_numpy(),
            "n_cells": n_cells.to_numpy(),
        }
    )
    slope = float(np.cov(x, y, bias=True)[0, 1] / x.var()) if np.ptp(x) > _ROUNDING else float("nan")
    return Calibration(
        bins=bins,
        error=float(np.average(np.abs(bins["predicted"] - bins["true"]), weights=bins["n_cells"])),
        slope=slope,
        intercept=float(y.mean() - slope * x.mean()),
        bias=float((x - y).mean()),
        n_cells=len(x),
    )


def coverage(
    samples: Any, true: Any, *, levels: float | Sequence[float] = 0.8, where: ArrayLike | None = None
) -> pd.DataFrame:
    """Compute how often the central intervals of posterior draws contain the truth.

    S draws divide the line into S + 1 pieces, and a truth that is drawn from the same posterior is equally likely to
    fall into each of them: for 9 draws, the interval between the smallest and the largest has the level 0.8. A truth
    that equals some of the draws, as is common for counts, is spread evenly over the pieces it touches [1]_; if an
    interval cuts a piece, the part inside counts. The expected coverage of a calibrated posterior is therefore the
    level itself, for any number of draws and also for counts, whose closed intervals would always cover too much.

    Parameters
    ----------
    samples
        Draws, samples × any shape, such as (sample, cell, gene) from :func:`resolvi_sd.tl.sample_posterior`.
    true
        Truths, of the same shape without the axis of samples, dense or sparse. NaN values are left out.
    levels
        Nominal levels, between 0 and 1.
    where
        Mask of the shape of `true` that selects the truths to use. For corrected counts, select the entries with
        counts: in all others the truth is certain, and is covered exactly as often as it should be at any level.

    Returns
    -------
    One row per level: `level`, `coverage` (share of truths covered), its binomial `standard_error` and `n`, the number
    of truths. If truths depend on each other, as those of one cell do, the standard error is too small.

    Raises
    ------
    ValueError
        If the shapes do not match, no truth is left, or a level is not between 0 and 1.

    References
    ----------
    .. [1] Czado, Gneiting & Held (2009), Predictive model assessment for count data, Biometrics 65: the nonrandomized
       probability integral transform.

    Examples
    --------
    >>> import numpy as np
    >>> from resolvi_sd.metrics import coverage
    >>> draws = np.arange(1.0, 10.0)[:, None].repeat(4, axis=1)
    >>> coverage(draws, [0.5, 1.5, 5.5, 9.5], levels=0.8)["coverage"].item()
    0.5
    """
    wanted = np.atleast_1d(np.asarray(levels, dtype=np.float64))
    if wanted.ndim != 1 or not ((wanted > 0) & (wanted < 1)).all():
        raise ValueError(f"`levels` must lie between 0 and 1, not {levels!r}.")
    low, high = _relative_ranks(samples, true, where)
    tail = (1 - wanted[:, None]) / 2
    inside = np.minimum(high, 1 - tail) - np.maximum(low, tail)
    found = (np.maximum(inside, 0.0) / (high - low)).mean(axis=1)
    error = np.sqrt(found * (1 - found) / len(low))
    return pd.DataFrame({"level": wanted, "coverage": found, "standard_error": error, "n": len(low)})


def rank_uniformity(
    samples: Any, true: Any, *, n_bins: int = 20, where: ArrayLike | None = None, rng: RandomLike = 0
) -> RankUniformity:
    """Test whether the ranks of truths among posterior draws are uniform (simulation-based calibration).

    The data and the truths must be drawn from the model itself; see :func:`resolvi_sd.datasets.simulate_from_model`.

    Parameters
    ----------
    samples, true, where
        As in :func:`coverage`.
    n_bins
        Number of bins of the histogram.
    rng
        Seed or generator, used to break ties and to place each rank within its piece of 1 / (number of draws + 1).

    Returns
    -------
    RankUniformity.

    Raises
    ------
    ValueError
        If the shapes do not match, or no truth is left.
    TypeError
        If `n_bins` is not an integer.

    References
    ----------
    Talts, Betancourt, Simpson, Vehtari & Gelman (2018), Validating Bayesian inference algorithms with simulation-based
    calibration, arXiv:1804.06788.

    Examples
    --------
    >>> import numpy as np
    >>> from resolvi_sd.metrics import rank_uniformity
    >>> draws = np.random.default_rng(0).normal(size=(99, 1000))
    >>> truth = np.random.default_rng(1).normal(size=1000)
    >>> rank_uniformity(draws, truth).p_value > 0.01, rank_uniformity(0.5 * draws, truth).p_value < 0.01
    (True, True)
    """
    from scipy.stats import chisquare

    n_bins = check_positive_int(n_bins, argument="n_bins")
    generator = as_generator(rng)
    low, high = _relative_ranks(samples, true, where)
    ranks = low + (high - low) * generator.random(len(low))
    histogram = np.bincount(np.minimum((ranks * n_bins).astype(np.int64), n_bins - 1), minlength=n_bins)
    test = chisquare(histogram)
    return RankUniformity(ranks, histogram.astype(np.int64), float(test.statistic), float(test.pvalue))


def _known_shares(predicted: ArrayLike, true: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the pairs of shares without NaN; raise if there are none or they are not shares."""
    x, y = np.asarray(predicted, dtype=np.float64), np.asarray(true, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"There must be one share per cell in both, but predicted is {x.shape} and true {y.shape}.")
    known = ~(np.isnan(x) | np.isnan(y))
    if not known.any():
        raise ValueError(f"None of the {len(x)} cells has both a predicted and a true share (the others are NaN).")
    x, y = x[known], y[known]
    for name, values in (("predicted", x), ("true", y)):
        # Shares are sums of float32 values.
        if values.min() < -1e-6 or values.max() > 1 + 1e-6:
            raise ValueError(
                f"`{name}` must hold shares between 0 and 1, but goes from {values.min():g} to {values.max():g}."
            )
    return x.clip(0, 1), y.clip(0, 1)


def _relative_ranks(
    samples: Any, true: Any, where: ArrayLike | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the start and end of the part of the unit interval that each truth's rank among the draws occupies."""
    dense = true.toarray() if hasattr(true, "toarray") else true
    truth, draws = np.asarray(dense, dtype=np.float64), np.asarray(samples)
    if draws.ndim < 1 or draws.shape[1:] != truth.shape or not len(draws):
        raise ValueError(
            f"`samples` must be draws × the shape of `true`, but they are {draws.shape} and {truth.shape}."
        )
    kept = ~np.isnan(truth)
    if where is not None:
        mask = np.asarray(where, dtype=bool)
        if mask.shape != truth.shape:
            raise ValueError(f"`where` must have the shape of `true`, {truth.shape}, not {mask.shape}.")
        kept &= mask
    if not kept.any():
        raise ValueError("No truth is left to compare: all are NaN or outside of `where`.")
    picked, chosen = draws[:, kept], truth[kept]
    if np.isnan(picked).any():
        raise ValueError("`samples` has NaN where the truth is known; leave those out with `where`.")
    below = (picked < chosen).sum(axis=0)
    equal = (picked == chosen).sum(axis=0)
    pieces = len(draws) + 1
    return below / pieces, (below + equal + 1) / pieces
