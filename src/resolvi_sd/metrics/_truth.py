"""Comparison with a known truth: what was removed, and what should not have been."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from resolvi_sd.metrics._arrays import check_part, matrix

__all__ = ["Removal", "profile_error", "removal"]


class Removal(NamedTuple):
    """Shares of molecules that a correction removed.

    A high `foreign` is good, a high `own` is not. Neither is informative without the other, since deleting everything
    removes all foreign molecules.
    """

    foreign: float
    own: float


def removal(counts: Any, true_own: Any, corrected: Any) -> Removal:
    """Compute the shares of foreign and of own molecules that a correction removed.

    In an entry with x molecules, of which o are own, and corrected count c, max(o - c, 0) own molecules are gone and
    max(c - o, 0) foreign ones are left. The shares are `1 - sum max(c - o, 0) / sum (x - o)` and
    `sum max(o - c, 0) / sum o`.

    Parameters
    ----------
    counts, true_own, corrected
        Cells × genes, sparse or dense; `true_own` and `corrected` are between 0 and `counts`.

    Returns
    -------
    Removal, two shares between 0 and 1; NaN if there is nothing to remove.

    Raises
    ------
    TypeError, ValueError
        If an argument is not a matrix of counts in memory, the shapes differ, or `true_own` or `corrected` exceeds the
        counts.

    Examples
    --------
    >>> import numpy as np
    >>> from resolvi_sd.metrics import removal
    >>> removal(np.array([[4, 2]]), np.array([[2, 0]]), np.array([[1, 1]]))
    Removal(foreign=0.75, own=0.5)
    """
    given = {"counts": counts, "true_own": true_own, "corrected": corrected}
    x, own, kept = (matrix(values, argument=name).astype(np.float64) for name, values in given.items())
    if not x.shape == own.shape == kept.shape:
        raise ValueError(f"The shapes differ: counts {x.shape}, true_own {own.shape}, corrected {kept.shape}.")
    check_part(own, x, argument="true_own", hint="Pass the number of own molecules of each entry.")
    check_part(kept, x, argument="corrected")
    agreed = own.minimum(kept).sum()
    foreign = x.sum() - own.sum()
    return Removal(
        foreign=float(1 - (kept.sum() - agreed) / foreign) if foreign else float("nan"),
        own=float((own.sum() - agreed) / own.sum()) if own.sum() else float("nan"),
    )


def profile_error(expression: Any, true_profile: NDArray[np.floating]) -> NDArray[np.float64]:
    """Compute the total variation distance of each cell's expression profile from the truth.

    This is half the sum over genes of `|p - q|`, with both profiles scaled to sum to 1.

    Parameters
    ----------
    expression
        Counts, rates or profiles, cells × genes, sparse or dense, non-negative.
    true_profile
        True profiles, cells × genes.

    Returns
    -------
    One distance per cell between 0 and 1, float64; NaN for a cell without expression.

    Raises
    ------
    ValueError
        If the shapes differ, or values are negative or not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from resolvi_sd.metrics import profile_error
    >>> profile_error(np.array([[3.0, 1.0]]), np.array([[0.5, 0.5]]))
    array([0.25])
    """
    dense = expression.toarray() if hasattr(expression, "toarray") else expression
    found = np.asarray(dense, dtype=np.float64)
    if found.shape != true_profile.shape:
        raise ValueError(f"The shapes differ: expression {found.shape}, true_profile {true_profile.shape}.")
    for name, values in (("expression", found), ("true_profile", np.asarray(true_profile))):
        if not (np.isfinite(values) & (values >= 0)).all():
            raise ValueError(f"`{name}` has values that are negative, NaN or infinite.")
    with np.errstate(invalid="ignore"):
        found, truth = (m / m.sum(axis=1, keepdims=True) for m in (found, np.asarray(true_profile, dtype=np.float64)))
    distance: NDArray[np.float64] = 0.5 * np.abs(found - truth).sum(axis=1)
    return distance
