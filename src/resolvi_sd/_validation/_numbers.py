"""Numbers that a user passes."""

from __future__ import annotations

from numbers import Integral, Real

import numpy as np

__all__ = ["check_integer", "check_number", "check_positive_int"]


def check_integer(value: object, least: int, most: int | None = None, *, argument: str, why: str = "") -> int:
    """Return `value` as an int, or raise unless it is one from `least` to `most`; `why` says where these are from.

    Raises
    ------
    TypeError
        If `value` is not an integer.
    ValueError
        If it is out of range.
    """
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Integral):
        raise TypeError(f"`{argument}` must be an integer, not {value!r} ({type(value).__name__}).")
    number = int(value)
    if number < least or (most is not None and number > most):
        bounds = f"at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"`{argument}` must be {bounds}{f' ({why})' if why else ''}, not {value}.")
    return number


def check_positive_int(value: object, *, argument: str) -> int:
    """Return `value` as an int, or raise if it is not an integer of at least one, as :func:`check_integer` does."""
    return check_integer(value, 1, argument=argument)


def check_number(value: object, *, argument: str, positive: bool = False) -> float:
    """Return `value` as a float, or raise unless it is finite and not negative, or positive.

    Raises
    ------
    TypeError
        If `value` is no number.
    ValueError
        If it is out of range.
    """
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real):
        raise TypeError(f"`{argument}` must be a number, not {value!r} ({type(value).__name__}).")
    number = float(value)
    if not 0 <= number < np.inf or (positive and number == 0):
        what = "positive and finite" if positive else "finite and not negative"
        raise ValueError(f"`{argument}` must be {what}, not {value}.")
    return number
