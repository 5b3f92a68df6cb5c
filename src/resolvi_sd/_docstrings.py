"""Docstrings assembled from shared texts or from the docstrings of other functions."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from textwrap import dedent, indent
from typing import Any, TypeVar

__all__ = ["borrowed_docs", "fill_docstring", "parameter_texts", "with_trained_model"]

_Method = TypeVar("_Method", bound=Callable[..., Any])

# The start of the example of a method of `ResolVI`.
_OF_METHODS = {
    "trained_model": """\
>>> import resolvi_sd as rsd
>>> adata = rsd.datasets.simulate_tissue(n_cells=300, n_genes=40, rng=0)["table"]
>>> rsd.ResolVI.setup_anndata(adata)
>>> model = rsd.ResolVI(adata)
>>> model.train(max_epochs=2, show_progress_bar=False)"""
}

_MARKER = re.compile(r"^( *)\{(\w+)\}$", re.MULTILINE)


def fill_docstring(function: Callable[..., Any], texts: Mapping[str, str]) -> None:
    """Replace each line of the docstring that consists of a name in braces with the text of that name."""
    if function.__doc__ is not None:  # python -OO has none
        function.__doc__ = _MARKER.sub(lambda marker: indent(texts[marker[2]], marker[1]), function.__doc__)


def with_trained_model(method: _Method) -> _Method:
    """Replace `{trained_model}` with code that trains a model of a simulated tissue, for the example of a method."""
    fill_docstring(method, _OF_METHODS)
    return method


def borrowed_docs(function: Callable[..., Any]) -> Callable[[_Method], _Method]:
    """Replace `{parameters}` with the parameter descriptions of `function`, for the parameters that the method shares.

    `{trained_model}` is replaced as well, as by :func:`with_trained_model`.

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
        names = set(inspect.signature(method).parameters)
        entries = [entry for entry in _entries(function) if set(entry.partition("\n")[0].split(", ")) <= names]
        fill_docstring(method, {"parameters": "\n".join(entries), **_OF_METHODS})
        return method

    return decorate


def parameter_texts(function: Callable[..., Any]) -> dict[str, str]:
    """Return the description of each parameter; those that are described together have the same."""
    texts: dict[str, str] = {}
    for entry in _entries(function):
        names, _, text = entry.partition("\n")
        texts |= dict.fromkeys(names.split(", "), dedent(text).strip())
    return texts


def _entries(function: Callable[..., Any]) -> list[str]:
    """Return the entries of the parameters section: a line of names, and the lines indented below it."""
    section = (inspect.getdoc(function) or "").partition("Parameters\n----------\n")[2]
    entries: list[str] = []
    for line in re.split(r"\n\n\w+\n-+\n", section, maxsplit=1)[0].splitlines():
        if not line or line.startswith(" "):
            entries[-1] += "\n" + line
        else:
            entries.append(line)
    return entries
