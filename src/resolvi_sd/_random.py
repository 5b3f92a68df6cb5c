"""Random numbers: generators from user input, and seeds for torch drawn from them; global state is not changed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["RandomLike", "as_generator", "draw_seed", "random_elements"]

RandomLike = int | np.random.Generator | None

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def as_generator(rng: RandomLike) -> np.random.Generator:
    """Return `rng` itself, or a generator seeded with it (None: seeded by the operating system).

    Raises
    ------
    TypeError
        If `rng` is neither an int, a :class:`numpy.random.Generator` nor None.
    ValueError
        If it is negative.
    """
    if isinstance(rng, np.random.Generator):
        return rng
    if rng is None or isinstance(rng, (int, np.integer)):
        if rng is not None and rng < 0:
            raise ValueError(f"`rng` must be at least 0, not {rng}.")
        return np.random.default_rng(rng)
    raise TypeError(f"`rng` must be an int, a numpy.random.Generator or None, not {type(rng).__name__}.")


def draw_seed(rng: np.random.Generator) -> int:
    """Draw a seed that torch and Pyro accept."""
    return int(rng.integers(0, 2**31 - 1))


def random_elements(seed: np.uint64, index: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return elements `index` of the SplitMix64 sequence of `seed` (Steele, Lea & Flood 2014).

    The sequence is a counter passed through a mixing function, so any element costs the same as the first.
    """
    z = seed + (index + np.uint64(1)) * _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
