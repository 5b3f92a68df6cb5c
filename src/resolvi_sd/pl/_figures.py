"""Creation, titles and saving of figures and axes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from resolvi_sd._validation import check_number, check_picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "are_titles",
    "check_figure",
    "figure_of",
    "finish_figure",
    "font_scale",
    "given_axes",
    "label_inches",
    "open_ax",
    "open_panels",
    "panel_titles",
    "scaled",
    "settle_figure",
    "title_panels",
    "wrapped",
]

_DPI = 150
# Mean width of a letter in a font of one point (1/72 inch), in inches.
_LETTER = 0.6 / 72
# Font size in points for which all lengths are given.
_FONT = 10.0
# Part of the labels that matplotlib writes on logarithmic axes.
_FORMULA = r"\mathdefault"


def check_figure(figsize: tuple[float, float] | None, save: str | Path | None) -> None:
    """Raise before any drawing if a figure cannot have this size, or cannot be saved there.

    Raises
    ------
    TypeError
        If the size does not consist of numbers, or `save` is not a path.
    ValueError
        If the size is not two positive numbers.
    OSError, ValueError
        As for :func:`check_picture`.
    """
    if figsize is not None:
        if not isinstance(figsize, tuple | list) or len(figsize) != 2:
            raise ValueError(f"`figsize` must be a width and a height in inches, (6, 4), not {figsize!r}.")
        for length in figsize:
            check_number(length, argument="figsize", above=0, why="width and height in inches")
    if save is not None:
        if not isinstance(save, str | os.PathLike):
            raise TypeError(f"`save` must be the path of a file, not {save!r} ({type(save).__name__}).")
        check_picture(Path(save), argument="save")


def finish_figure(axes: Sequence[Axes], save: str | Path | None) -> None:
    """Complete the panels of a figure, and write it to a file, if one is given.

    They have no grid, even if the style in use gives one to all axes, as scanpy's does.
    """
    _keep_dollars(axes)
    for ax in axes:
        for panel in (ax, *ax.child_axes):
            panel.grid(visible=False, which="both")
    if save is not None:
        figure_of(axes[0]).savefig(Path(save).expanduser(), dpi=_DPI, bbox_inches="tight")


def settle_figure(axes: Sequence[Axes]) -> None:
    """Lay out a figure, so that limits and sizes of its panels are known."""
    _keep_dollars(axes)
    figure_of(axes[0]).draw_without_rendering()


def _keep_dollars(axes: Sequence[Axes]) -> None:
    """Draw names with dollar signs as they are; matplotlib takes the text between two of them for a formula.

    Only tick labels of logarithmic axes are formulas, and titles may be, see :func:`title_panels`.
    """
    from matplotlib.text import Text

    for ax in axes:
        titles = {child for child in ax.get_children() if isinstance(child, Text)} - set(ax.texts)
        for text in set(ax.findobj(Text)) - titles:
            if "$" in text.get_text() and _FORMULA not in text.get_text():
                text.set_parse_math(False)


def are_titles(title: str | Sequence[str] | None) -> bool:
    """Return whether the user gave each panel a title, instead of one title for all of them."""
    return title is not None and not isinstance(title, str)


def figure_of(ax: Axes) -> Figure:
    """Return the figure that holds the axes, even if they are in a subfigure."""
    figure = ax.get_figure(root=True)
    if figure is None:
        raise ValueError("`ax` does not belong to a figure: it has been removed from it.")
    return figure


def panel_titles(names: Sequence[str], title: str | Sequence[str] | None) -> list[str]:
    """Return the title of each panel: the names, unless the user gave a list.

    Raises
    ------
    TypeError
        If `title` is neither a text nor a list of texts.
    ValueError
        If the length of the list differs from the number of panels.
    """
    if title is None or isinstance(title, str):
        return list(names)
    if not isinstance(title, Iterable) or not all(isinstance(text, str) for text in title):
        raise TypeError(f"`title` must be a text, or a list with one for each panel, not {title!r}.")
    if len(title) != len(names):
        raise ValueError(f"`title` has {len(title)} entries, but there are {len(names)} panels: {list(names)}.")
    return list(title)


def title_panels(axes: Sequence[Axes], texts: Sequence[str], title: str | Sequence[str] | None, **style: Any) -> None:
    """Write the title of each panel, and that of the figure if the user gave one; only the user's contain formulas."""
    from matplotlib import rcParams

    parse_math = are_titles(title) and rcParams["text.parse_math"]
    for panel, text in zip(axes, texts, strict=True):
        panel.set_title(text, parse_math=parse_math, **style)
    if isinstance(title, str):
        holder = axes[0].get_figure()  # a subfigure has a title of its own
        common = holder is not None and all(panel.get_figure() is holder for panel in axes)
        (holder if holder is not None and common else figure_of(axes[0])).suptitle(title)


def font_scale() -> float:
    """Return how much larger the font is than that of 10 points for which all lengths here are given."""
    from matplotlib import rcParams

    return float(rcParams["font.size"]) / _FONT


def scaled(width: float, height: float) -> tuple[float, float]:
    """Return a width and a height as they have to be in the font of the current style."""
    return font_scale() * width, font_scale() * height


def wrapped(text: str, inches: float, *, fontsize: float = 12) -> str:
    """Return a title in as many lines as needed to stay clear of its neighbors.

    Words that are longer than a line break behind underscores and hyphens. `inches` is the length of a line before
    :func:`scaled`.
    """
    width = max(8, int(inches / (_LETTER * fontsize)))
    lines = [""]
    for word in text.split():
        for number, part in enumerate(_parts(word, width)):
            longer = f"{lines[-1]} {part}" if lines[-1] and number == 0 else lines[-1] + part
            if len(longer) <= width:
                lines[-1] = longer
            else:
                lines.append(part)
    return "\n".join(line for line in lines if line)


def _parts(word: str, width: int) -> list[str]:
    """Return the word if it fits into a line, otherwise its parts."""
    if len(word) <= width:
        return [word]
    parts = re.findall("[^_-]*[_-]|[^_-]+", word)
    return [part[start : start + width] for part in parts for start in range(0, len(part), width)]


def label_inches(names: Sequence[str], *, fontsize: float) -> float:
    """Return the approximate length of the longest line of some names, in inches before :func:`scaled`."""
    return _LETTER * fontsize * max((len(line) for name in names for line in name.split("\n")), default=0)


def given_axes(ax: Axes | Sequence[Axes], names: Sequence[str]) -> list[Axes]:
    """Return the axes that the user gave as a list, one for each of the named panels.

    Raises
    ------
    TypeError
        If they are no axes.
    ValueError
        If their number differs from that of panels.
    """
    from matplotlib.axes import Axes

    given = [ax] if isinstance(ax, Axes) else list(np.ravel(np.asarray(ax, dtype=object)))
    for one in given:
        if not isinstance(one, Axes):
            raise TypeError(f"`ax` must be matplotlib's axes, one for each panel, not {one!r} ({type(one).__name__}).")
    if len(given) != len(names):
        raise ValueError(f"`ax` has {len(given)} axes, but there are {len(names)} panels, row by row: {list(names)}.")
    return given


def open_ax(
    ax: Axes | None, default: tuple[float, float], *, figsize: tuple[float, float] | None, title: str | None
) -> Axes:
    """Return the given axes or those of a new figure of `figsize` or the default size, with the title.

    Raises
    ------
    TypeError
        If `ax` is no axes, or the title is no text.
    ValueError
        If `ax` holds several axes.
    """
    if title is not None and not isinstance(title, str):
        raise TypeError(f"`title` must be a text, not {title!r} ({type(title).__name__}).")
    if ax is not None:
        (ax,) = given_axes(ax, [title or ""])
    else:
        import matplotlib.pyplot as plt

        _, ax = plt.subplots(figsize=figsize or scaled(*default), layout="constrained")
    if title is not None:
        ax.set_title(title)
    return ax


def open_panels(
    names: Sequence[str],
    *,
    ax: Axes | Sequence[Axes] | None,
    size: tuple[float, float],
    figsize: tuple[float, float] | None,
    title: str | Sequence[str] | None,
    n_columns: int,
    sharey: bool = False,
    beside: float = 0.0,
    labels: float = 0.0,
) -> list[Axes]:
    """Return axes with titles: those given, or those of a new figure with a grid filled row by row.

    Parameters
    ----------
    names
        Name of each panel, which is its title unless `title` is a list.
    ax, figsize, title
        As the user gave them.
    size
        Width and height of a panel in a new figure, in inches in a font of 10 points.
    n_columns
        Number of panels side by side in a new figure.
    sharey
        Whether the panels of a new figure share one y-axis, labeled on the left only.
    beside
        Additional width of a new figure, for a legend or names beside the panels, in inches.
    labels
        Part of the width of a panel that its own labels take, above which the title does not extend, in inches.

    Raises
    ------
    ValueError
        If the number of axes or titles differs from that of panels.
    """
    titles = panel_titles(names, title)
    if ax is not None:
        axes = given_axes(ax, names)
    else:
        n_columns = min(n_columns, len(names))
        width, height = figsize or scaled(size[0] * n_columns + beside, size[1] * -(-len(names) // n_columns))
        titles = [wrapped(text, (width / font_scale() - beside) / n_columns - labels) for text in titles]
        axes = _grid(len(names), n_columns=n_columns, figsize=(width, height), sharey=sharey)
    title_panels(axes, titles, title)
    return axes


def _grid(n_panels: int, *, n_columns: int, figsize: tuple[float, float], sharey: bool) -> list[Axes]:
    import matplotlib.pyplot as plt

    n_rows = -(-n_panels // n_columns)
    _, grid = plt.subplots(n_rows, n_columns, figsize=figsize, sharey=sharey, squeeze=False, layout="constrained")
    axes = list(grid.ravel())
    for unused in axes[n_panels:]:
        unused.remove()
    return axes[:n_panels]
