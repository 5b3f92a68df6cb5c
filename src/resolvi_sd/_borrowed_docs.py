"""Documentation of parameters, of the function that a method passes them on to."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from textwrap import indent
from typing import Any, TypeVar

__all__ = ["borrowed_docs"]

_Method = TypeVar("_Method", bound=Callable[..., Any])

_MARKER = re.compile(r"^( *)\{parameters\}$", re.MULTILINE)


def borrowed_docs(function: Callable[..., Any]) -> Callable[[_Method], _Method]:
    """Put what `function` says of its parameters in place of `{parameters}`, as far as the method has them, too.

    Examples
    --------
    >>> def scale(data, factor):
    ...     '''Scale.
    ...
    ...     Parameters
    ...     ----------
    ...     data
    ...         Numbers.
    ...     factor
    ...         What they are multiplied by.
    ...     '''
    >>> @borrowed_docs(scale)
    ... def scaled(self, factor):
    ...     '''Scale what is held.
    ...
    ...     Parameters
    ...     ----------
    ...     {parameters}
    ...     '''
    >>> inspect.getdoc(scaled).splitlines()[-2:]
    ['factor', '    What they are multiplied by.']
    """

    def decorate(method: _Method) -> _Method:
        if method.__doc__ is not None:  # python -OO has none
            names = set(inspect.signature(method).parameters)
            entries = [entry for entry in _entries(function) if set(entry.partition("\n")[0].split(", ")) <= names]
            method.__doc__ = _MARKER.sub(lambda marker: indent("\n".join(entries), marker[1]), method.__doc__)
        return method

    return decorate


def _entries(function: Callable[..., Any]) -> list[str]:
    """Return the entries of the section on parameters: a line of names, and what is indented below it."""
    section = (inspect.getdoc(function) or "").partition("Parameters\n----------\n")[2]
    entries: list[str] = []
    for line in re.split(r"\n\n\w+\n-+\n", section, maxsplit=1)[0].splitlines():
        if not line or line.startswith(" "):
            entries[-1] += "\n" + line
        else:
            entries.append(line)
    return entries
