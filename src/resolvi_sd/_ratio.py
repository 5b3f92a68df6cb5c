"""Division of arrays whose denominators may be zero."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["ratio"]


def ratio(part: ArrayLike, whole: ArrayLike, *, otherwise: float = np.nan) -> NDArray[Any]:
    """Return `part / whole`, broadcast, and `otherwise` wherever `whole` is not positive.

    Single precision is kept.
    """
    above, below = np.asarray(part), np.asarray(whole)
    dtype = np.result_type(above.dtype, below.dtype, np.float32)
    result: NDArray[Any] = np.full(np.broadcast_shapes(above.shape, below.shape), otherwise, dtype=dtype)
    np.divide(above, below, out=result, where=below > 0)
    return result
