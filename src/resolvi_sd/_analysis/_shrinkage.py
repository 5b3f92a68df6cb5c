"""Adaptive shrinkage: the probability of each change given the changes of all features of a comparison."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from resolvi_sd._analysis._statistics import DecisionRule

__all__ = ["shrunk_probability"]

# Standard deviations of the prior's components grow by this factor, starting from a tenth of the smallest error.
_STEP, _FIRST = np.sqrt(2.0), 0.1
_MOST_ROUNDS, _CONVERGED = 500, 1e-6
# Smallest error, relative to the median error and to 1; draws that are all equal have an error of zero.
_LEAST_ERROR = 1e-3


def shrunk_probability(
    mean: NDArray[np.float64], error: NDArray[np.float64], rule: DecisionRule
) -> NDArray[np.float64]:
    """Return the probability that a change is at least as large as the rule asks, given all changes.

    The probability is that of the more probable direction.

    A large change with a large error is not evidence by itself, since such changes occur among many features that do
    not differ at all. Changes are assumed to come from a mixture of normals around zero, one of them a point mass at
    zero, with the weights under which the estimates, given their errors, are most probable.

    Parameters
    ----------
    mean, error
        Estimate of each change and its standard error, `(n_features,)`.
    rule
        Smallest change that matters. With `"vanilla"`, half of the changes that are zero are counted in each direction.

    References
    ----------
    Stephens (2017), False discovery rates: a new deal, doi:10.1093/biostatistics/kxw041.

    Examples
    --------
    >>> import numpy as np
    >>> rule = DecisionRule("change", delta=0.25, fdr=0.05)
    >>> mean = np.append(np.random.default_rng(0).normal(size=99), 3.0)  # none differs, but perhaps the last
    >>> bool(shrunk_probability(mean, np.ones(100), rule)[-1] < 0.5)
    True
    >>> mean[:50] *= 6  # half of them differ
    >>> bool(shrunk_probability(mean, np.ones(100), rule)[-1] > 0.9)
    True
    """
    error = np.maximum(error, max(_LEAST_ERROR * float(np.median(error)), _LEAST_ERROR))
    scale = _scales(mean, error)
    variance = np.square(error)[:, None] + np.square(scale)
    log_density = -0.5 * (np.log(variance) + np.square(mean)[:, None] / variance)
    density = np.exp(log_density - log_density.max(axis=1, keepdims=True))
    posterior = density * _weights(density)
    posterior /= posterior.sum(axis=1, keepdims=True)
    # The posterior of a change under each component is again normal, or zero.
    kept = np.square(scale) / variance
    center, spread = kept * mean[:, None], np.sqrt(kept) * error[:, None]
    directions = []
    for sign in (1, -1):
        with np.errstate(divide="ignore", invalid="ignore"):
            beyond = ndtr((sign * center - rule.least) / spread)
        beyond = np.where(spread > 0, beyond, 0.5 * (rule.least == 0))
        directions.append((posterior * beyond).sum(axis=1))
    result: NDArray[np.float64] = np.maximum(*directions).clip(max=1.0)
    return result


def _scales(mean: NDArray[np.float64], error: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the standard deviations of the prior's components: zero, and up to twice that of the largest change."""
    first = _FIRST * float(error.min())
    last = 2.0 * float(np.sqrt(np.maximum(np.square(mean) - np.square(error), 0.0).max(initial=0.0)))
    n_steps = max(1, int(np.ceil(np.log(max(last, 8 * first) / first) / np.log(_STEP))))
    return np.append(0.0, first * _STEP ** np.arange(n_steps + 1))


def _weights(density: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the most probable weights of the components, by expectation-maximization."""
    weight = np.full(density.shape[1], 1 / density.shape[1])
    for _ in range(_MOST_ROUNDS):
        shares = density * weight
        shares /= shares.sum(axis=1, keepdims=True)
        found: NDArray[np.float64] = shares.mean(axis=0)
        if np.abs(found - weight).max() < _CONVERGED:
            break
        weight = found
    return found
