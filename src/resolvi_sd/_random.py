"""Randomness: one generator in, seeds for torch out; global state is left alone."""

from __future__ import annotations

import numpy as np

__all__ = ["RandomLike", "as_generator", "draw_seed"]

RandomLike = int | np.random.Generator | None


def as_generator(rng: RandomLike) -> np.random.Generator:
    """Return `rng` itself, or a generator seeded with it (`None`: from the operating system).

    Raises
    ------
    TypeError
        If `rng` is neither an int, a :class:`numpy.random.Generator` nor None.
    """
    if isinstance(rng, np.random.Generator):
        return rng
    if rng is None or isinstance(rng, (int, np.integer)):
        return np.random.default_rng(rng)
    raise TypeError(f"`rng` must be an int, a numpy.random.Generator or None, not {type(rng).__name__}.")


def draw_seed(rng: np.random.Generator) -> int:
    """Draw a seed that torch and Pyro accept."""
    return int(rng.integers(0, 2**31 - 1))
