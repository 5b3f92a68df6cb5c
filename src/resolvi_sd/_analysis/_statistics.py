"""From draws of log fold changes to probabilities and calls of a stated false discovery rate."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from resolvi_sd._validation import check_positive_int

__all__ = ["Mode", "add_calls", "check_settings", "describe_change", "posterior_expected_fdr", "summarise_change"]

Mode = Literal["change", "vanilla"]


def check_settings(mode: str, delta: float, fdr: float, n_samples: int, pseudocount: float | None) -> None:
    """Raise ValueError or TypeError unless the settings of a comparison are in their range."""
    if mode not in get_args(Mode):
        raise ValueError(f"`mode` must be 'change' or 'vanilla', not {mode!r}.")
    if not 0 <= delta < np.inf:
        raise ValueError(f"`delta` is a log2 fold change and must be finite and not negative, got {delta}.")
    if not 0 < fdr < 1:
        raise ValueError(f"`fdr` must be between 0 and 1, got {fdr}.")
    if pseudocount is not None and not 0 < pseudocount < 1:
        raise ValueError(
            f"`pseudocount` is added to what is compared, and must be above 0 and below 1, got {pseudocount}."
        )
    check_positive_int(n_samples, argument="n_samples")


def posterior_expected_fdr(probability: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the expected share of false discoveries if this hypothesis and all more probable ones are called.

    Parameters
    ----------
    probability
        Posterior probability of each hypothesis.

    References
    ----------
    Newton et al. (2004), Detecting differential gene expression with a semiparametric hierarchical mixture method.

    Examples
    --------
    >>> import numpy as np
    >>> posterior_expected_fdr(np.array([0.5, 1.0, 0.9])).round(3)
    array([0.2 , 0.  , 0.05])
    """
    order = np.argsort(-probability, kind="stable")
    expected: NDArray[np.float64] = np.empty(len(probability))
    # Probabilities that were summed may be above 1 by rounding.
    false = np.clip(1.0 - probability[order].astype(np.float64), 0.0, 1.0)
    expected[order] = np.cumsum(false) / np.arange(1, len(probability) + 1)
    return expected


def summarise_change(change: NDArray[np.float32], *, mode: Mode, delta: float, fdr: float) -> pd.DataFrame:
    """Summarise draws of the log2 fold change of each feature, and call features: both of the functions below."""
    return add_calls(describe_change(change, mode=mode, delta=delta), fdr=fdr)


def describe_change(change: NDArray[np.float32], *, mode: Mode, delta: float) -> pd.DataFrame:
    """Summarise draws of the log2 fold change of each feature.

    The hypothesis is about a direction: that the change is at least `delta` upwards, or at least `delta` downwards,
    whichever is more probable. Were both directions added up, a feature of which little is known would be called for
    its uncertainty alone.

    Parameters
    ----------
    change
        Draws × features.
    mode
        `"change"`: the larger of P(change >= delta) and P(change <= -delta); `"vanilla"`: of P(change > 0) and
        P(change < 0), where a draw of zero counts half to each.
    delta
        Smallest log2 fold change that matters.

    Returns
    -------
    One row per feature: `proba_de`, its Monte Carlo standard error `proba_de_se`, `bayes_factor` (log odds, finite),
    `lfc_mean`, `lfc_median`, `lfc_std`.
    """
    n_draws = len(change)
    if mode == "change" and delta > 0:
        up, down = ((sign * change >= delta).mean(axis=0) for sign in (1, -1))
    else:
        up = (change > 0).mean(axis=0) + 0.5 * (change == 0).mean(axis=0)
        down = 1.0 - up
    probability = np.maximum(up, down)
    # n draws cannot tell a probability from 0 or 1 more closely than this.
    bounded = probability.clip(0.5 / n_draws, 1 - 0.5 / n_draws)
    return pd.DataFrame(
        {
            "proba_de": probability,
            "proba_de_se": np.sqrt(bounded * (1 - bounded) / n_draws),
            "bayes_factor": np.log(bounded / (1 - bounded)),
            "lfc_mean": change.mean(axis=0, dtype=np.float64),
            "lfc_median": np.median(change, axis=0).astype(np.float64),
            "lfc_std": change.std(axis=0, dtype=np.float64),
        }
    )


def add_calls(table: pd.DataFrame, *, fdr: float, probability: NDArray[np.float64] | None = None) -> pd.DataFrame:
    """Return the table with `expected_fdr` and `is_de_fdr`, over all its features together.

    By `proba_de`, or by a `probability` that knows of the other features. Called are those up to the false discovery
    rate that are more probable than not: among many certain ones there would be room for some that surely are false.
    """
    probability = table["proba_de"].to_numpy() if probability is None else probability
    expected = posterior_expected_fdr(probability)
    return table.assign(expected_fdr=expected, is_de_fdr=(expected <= fdr) & (probability >= 0.5))
