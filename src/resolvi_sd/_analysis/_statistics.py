"""Probabilities and calls at a given false discovery rate from draws of log fold changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from resolvi_sd._validation import check_integer, check_number

__all__ = [
    "DecisionRule",
    "Mode",
    "add_calls",
    "check_draws",
    "check_pseudocount",
    "describe_change",
    "posterior_expected_fdr",
    "summarize_change",
]

Mode = Literal["change", "vanilla"]


# With fewer draws, the standard deviation of a change is too uncertain to judge it by.
_FEWEST_DRAWS = 20


@dataclass(frozen=True)
class DecisionRule:
    """When a feature is called different between two groups.

    Parameters
    ----------
    mode
        `"change"`: if its log2 fold change is at least `delta` in one direction; `"vanilla"`: if one side is larger.
    delta
        Smallest log2 fold change that matters.
    fdr
        Largest expected share of false calls.

    Raises
    ------
    ValueError, TypeError
        If a setting is unknown or out of range.
    """

    mode: Mode
    delta: float
    fdr: float

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise ValueError(f"`mode` must be 'change' or 'vanilla', not {self.mode!r}.")
        check_number(self.delta, argument="delta", least=0, why="a log2 fold change")
        check_number(self.fdr, argument="fdr", above=0, below=1)

    @property
    def least(self) -> float:
        """Smallest log2 fold change that counts as one; 0 means any."""
        return self.delta if self.mode == "change" else 0.0


def check_draws(n_samples: int) -> None:
    """Raise ValueError or TypeError unless there are enough draws to judge a change by."""
    check_integer(n_samples, _FEWEST_DRAWS, argument="n_samples")


def check_pseudocount(pseudocount: float) -> None:
    """Raise ValueError or TypeError unless the pseudocount is a share."""
    check_number(pseudocount, argument="pseudocount", above=0, below=1, why="it is added to what is compared")


def posterior_expected_fdr(probability: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the expected share of false discoveries if each hypothesis is called with all more probable ones.

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
    # Probabilities that were summed may exceed 1 due to rounding.
    false = np.clip(1.0 - probability[order].astype(np.float64), 0.0, 1.0)
    expected[order] = np.cumsum(false) / np.arange(1, len(probability) + 1)
    return expected


def summarize_change(change: NDArray[np.float32], rule: DecisionRule) -> pd.DataFrame:
    """Describe draws of the log2 fold change of each feature, and call: :func:`describe_change`, :func:`add_calls`."""
    return add_calls(describe_change(change, rule), rule)


def describe_change(change: NDArray[np.float32], rule: DecisionRule) -> pd.DataFrame:
    """Summarize draws of the log2 fold change of each feature.

    The hypothesis is directional: the change is at least `delta` upwards, or at least `delta` downwards, whichever is
    more probable. If the probabilities of both directions were added, a feature could be called only because it is
    uncertain.

    Parameters
    ----------
    change
        Draws × features.
    rule
        With the mode `"change"`, the probability is the larger of P(change >= delta) and P(change <= -delta); with
        `"vanilla"`, the larger of P(change > 0) and P(change < 0), with a draw of zero counted half in each.

    Returns
    -------
    One row per feature: `proba_de`, its Monte Carlo standard error `proba_de_se`, `bayes_factor` (log odds, finite),
    `lfc_mean`, `lfc_median`, `lfc_std`.
    """
    n_draws = len(change)
    if rule.least > 0:
        up, down = ((sign * change >= rule.least).mean(axis=0) for sign in (1, -1))
    else:
        up = (change > 0).mean(axis=0) + 0.5 * (change == 0).mean(axis=0)
        down = 1.0 - up
    probability = np.maximum(up, down)
    # n draws cannot distinguish a probability from 0 or 1 more precisely than this.
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


def add_calls(
    table: pd.DataFrame, rule: DecisionRule, *, probability: NDArray[np.float64] | None = None
) -> pd.DataFrame:
    """Return the table with `expected_fdr` and `is_de_fdr`, computed over all of its features.

    These are based on `proba_de`, or on a `probability` that takes the other features into account. Features are called
    up to the false discovery rate if they are also more probable than not: many certain calls would otherwise leave
    room for some that are almost surely false.
    """
    probability = table["proba_de"].to_numpy() if probability is None else probability
    expected = posterior_expected_fdr(probability)
    return table.assign(expected_fdr=expected, is_de_fdr=(expected <= rule.fdr) & (probability >= 0.5))
