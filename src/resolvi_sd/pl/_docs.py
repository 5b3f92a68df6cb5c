"""Descriptions of the parameters that several plots share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from resolvi_sd._docstrings import fill_docstring

__all__ = ["shared_docs"]

Function = TypeVar("Function", bound=Callable[..., Any])

_FITTED = """
data
    A SpatialData object or table on which `resolvi_sd.tl.fit` was run.
"""
_TABLE = """
table_key
    Name of the table in a SpatialData object.
key_added
    The `key_added` that was used for the fit.
"""
_COORDINATES = """
coordinate_system
    Coordinate system of the SpatialData object. None: as in the fit.
spatial_key
    Entry of `obsm` with the coordinates, used if the table annotates no element. None: as in the fit.
library_key
    Column of `obs` with the section of each cell; regions are split by it. None: as in the fit.
"""
_CORRECTED_LAYER = """
corrected_layer
    Layer with the corrected counts to draw, e.g. that of `resolvi_sd.tl.decontaminated_counts`. None: the corrected
    counts of the fit.
"""
_LIBRARY_ID = """
library_id
    Sections to draw, in this order: names of regions or values of `library_key`, or `"region:value"` if `library_key`
    splits regions. None: all sections.
"""
_PALETTE = """
palette
    Colors of the groups: a name in `matplotlib.color_sequences` or `matplotlib.colormaps`, a list in the order of the
    groups, or a dict. None: `uns[f"{column}_colors"]`, as written by scanpy and squidpy, if the table has it; otherwise
    colors that color-blind readers can distinguish, as far as their number allows.
"""
_UNITS = """
units
    Unit of the coordinates for the axis labels, e.g. `"µm"`. None: taken from the name of the coordinate system, if
    that is a unit.
"""
_SIZE = """
size
    Scale factor for dots and shapes. At 1, shapes have their actual size and neighboring dots just about touch. Label
    images are never scaled.
"""
_FIGSIZE = """
figsize
    Width and height of a new figure, in inches.
"""
_SAVE = """
save
    File to write the figure to; its suffix determines the format.
return_ax
    Whether to return the axes.
"""
_PANELS_END = """
title
    Title of the figure, or a list of titles, one per panel.
"""
_AXES_END = """
title
    Title of the axes.
"""

_TEXTS = {
    "data": _FITTED,
    "table": _TABLE,
    "coordinates": _COORDINATES,
    "corrected_layer": _CORRECTED_LAYER,
    "library_id": _LIBRARY_ID,
    "palette": _PALETTE,
    "size": _SIZE,
    "units": _UNITS,
    "figsize": _FIGSIZE,
    "axes": "ax\n    Axes to draw on, one per panel, row by row. None: a new figure.\n" + _FIGSIZE.lstrip(),
    "one_ax": "ax\n    Axes to draw on. None: a new figure.\n" + _FIGSIZE.lstrip(),
    "save": _SAVE,
    "end": _PANELS_END + _SAVE.lstrip(),
    "one_end": _AXES_END + _SAVE.lstrip(),
}


def shared_docs(function: Function) -> Function:
    """Fill shared parameter descriptions into the docstring of a function.

    Examples
    --------
    >>> from resolvi_sd.pl._docs import shared_docs
    >>> @shared_docs
    ... def draw(figsize):
    ...     '''Draw.
    ...
    ...     Parameters
    ...     ----------
    ...     {figsize}
    ...     '''
    >>> "Width and height of a new figure" in draw.__doc__
    True
    """
    fill_docstring(function, {name: text.strip() for name, text in _TEXTS.items()})
    return function
