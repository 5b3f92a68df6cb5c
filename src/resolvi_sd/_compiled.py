"""Shared parts of the compiled functions: the lock that lets one run at a time, their threads, random numbers."""

import threading
from typing import Any

import numpy as np
import torch
from numba import get_num_threads, njit, uint64
from numpy.typing import NDArray

__all__ = ["ONE_AT_A_TIME", "binomial", "is_compiled", "next_uniform", "thread_bounds"]

# Numba's portable threading layer terminates the process if two threads enter a parallel function at once.
ONE_AT_A_TIME = threading.Lock()


def is_compiled(tensor: torch.Tensor) -> bool:
    """Whether the compiled functions support a tensor, which must be float32 and on the CPU."""
    return tensor.device.type == "cpu" and tensor.dtype == torch.float32


def thread_bounds(n: int) -> NDArray[np.int64]:
    """Return the bounds of the parts of `n` rows, one for each thread.

    Sums over rows are made part by part, so that no two threads write to the same place.
    """
    return np.linspace(0, n, get_num_threads() + 1).astype(np.int64)


@njit(inline="always")
def next_uniform(state: Any) -> tuple[Any, float]:
    """Return the next state of splitmix64 and a uniform number in [0, 1) (Steele, Lea & Flood 2014)."""
    state = uint64(state + uint64(0x9E3779B97F4A7C15))
    z = uint64((state ^ (state >> uint64(30))) * uint64(0xBF58476D1CE4E5B9))
    z = uint64((z ^ (z >> uint64(27))) * uint64(0x94D049BB133111EB))
    z = uint64(z ^ (z >> uint64(31)))
    return state, float(z >> uint64(11)) * (1.0 / 9007199254740992.0)


@njit(inline="always", error_model="numpy")
def binomial(n: int, p: float, state: Any) -> tuple[Any, int]:
    """Return the next state and a draw from Binomial(n, p), made molecule by molecule."""
    kept = 0
    for _ in range(n):
        state, u = next_uniform(state)
        kept += u < p
    return state, kept
