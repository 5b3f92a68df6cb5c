"""Checks of numbers passed by the user."""

from __future__ import annotations

from numbers import Integral, Real

import numpy as np

__all__ = ["check_flag", "check_integer", "check_number", "check_positive_int"]


def check_integer(value: object, least: int, most: int | None = None, *, argument: str, why: str = "") -> int:
    """Return `value` as an int, or raise unless it is one from `least` to `most`; `why` explains these bounds.

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
    """Return `value` as an int, or raise, as :func:`check_integer` does, unless it is an integer of at least one."""
    return check_integer(value, 1, argument=argument)


def check_number(
    value: object,
    *,
    argument: str,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    finite: bool = True,
    why: str = "",
) -> float:
    """Return `value` as a float, or raise unless it is a number within its bounds, and finite unless stated otherwise.

    Parameters
    ----------
    value
        The value that was passed.
    argument
        Name of the argument.
    least, above
        Smallest allowed value, or a bound that it must exceed.
    most, below
        Largest allowed value, or a bound that it must stay below.
    finite
        Whether infinity is refused.
    why
        Explanation of the bounds.

    Raises
    ------
    TypeError
        If `value` is not a number.
    ValueError
        If it is not finite or out of bounds.
    """
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real):
        raise TypeError(f"`{argument}` must be a number, not {value!r} ({type(value).__name__}).")
    number, holds, bounds = float(value), [], []
    if least is not None:
        holds.append(number >= least)
        bounds.append(f"at least {least}")
    if above is not None:
        holds.append(number > above)
        bounds.append("positive" if above == 0 else f"above {above}")
    if most is not None:
        holds.append(number <= most)
        bounds.append(f"at most {most}")
    if below is not None:
        holds.append(number < below)
        bounds.append(f"below {below}")
    if finite:
        holds.append(bool(np.isfinite(number)))
        bounds += ["finite"] if most is None and below is None else []
    if not all(holds):
        raise ValueError(f"`{argument}` must be {' and '.join(bounds)}{f' ({why})' if why else ''}, not {value!r}.")
    return number


def check_flag(value: object, *, argument: str) -> bool:
    """Return `value` as a bool.

    Raises
    ------
    TypeError
        If it is neither True nor False.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"`{argument}` must be True or False, not {value!r} ({type(value).__name__}).")
    return bool(value)
