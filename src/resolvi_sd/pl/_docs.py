"""What the arguments mean that several plots have, written once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from resolvi_sd._docstrings import fill_docstring

__all__ = ["shared_docs"]

Function = TypeVar("Function", bound=Callable[..., Any])

_FITTED = """
data
    A SpatialData object or a table, fitted by `resolvi_sd.tl.fit`.
"""
_TABLE = """
table_key
    Name of the table in a SpatialData object.
key_added
    The name that the fit was given.
"""
_COORDINATES = """
coordinate_system
    Coordinate system of the SpatialData object. None: as in the fit.
spatial_key
    Entry of `obsm` with the coordinates, where no element is annotated. None: as in the fit.
library_key
    Column of `obs` with the section of each cell; regions are split by it. None: as in the fit.
"""
_CORRECTED_LAYER = """
corrected_layer
    Layer with other corrected counts to draw, e.g. those of `resolvi_sd.tl.decontaminated_counts`. None: those of the
    fit.
"""
_LIBRARY_ID = """
library_id
    Sections to draw, in this order: names of regions, or values of `library_key`. None draws all.
"""
_PALETTE = """
palette
    Colors of the groups: a name in `matplotlib.color_sequences` or `matplotlib.colormaps`, a list in the order of the
    groups, or a dict. None: `uns[f"{column}_colors"]` where the table has them, as scanpy and squidpy write them;
    otherwise colors that can be told apart with color-blind eyes, as far as their number allows.
"""
_UNITS = """
units
    Unit of the coordinates for the labels of the axes, e.g. `"µm"`. None: from the name of the coordinate
    system, where that is a unit.
"""
_SIZE = """
size
    Factor on the size of dots and shapes. At 1, shapes are as they are, and neighboring dots about touch. Labels
    are always as they are.
"""
_FIGSIZE = """
figsize
    Width and height of a new figure, in inches.
"""
_SAVE = """
save
    File to write the figure to; the suffix chooses the format.
return_ax
    Whether to return the axes.
"""
_PANELS_END = """
title
    Title of the figure, or a list with one for each panel.
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
    "axes": "ax\n    Axes to draw on, one per panel, row by row; None makes a new figure.\n" + _FIGSIZE.lstrip(),
    "one_ax": "ax\n    Axes to draw on; None makes a new figure.\n" + _FIGSIZE.lstrip(),
    "save": _SAVE,
    "end": _PANELS_END + _SAVE.lstrip(),
    "one_end": _AXES_END + _SAVE.lstrip(),
}


def shared_docs(function: Function) -> Function:
    """Fill the docstring with the shared texts.

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
