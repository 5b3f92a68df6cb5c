"""Content of a plot of the flow: a part of a section, and the arrows into its cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from resolvi_sd._validation import listing
from resolvi_sd.pl._sections import Extent, Section, crop_section, room_of

__all__ = ["FlowView", "view_of_cell", "view_of_window"]

_MOST_ARROWS = 5_000
# In units of the room per cell: the margin around a cell and its sources, and how far outside the view the center of a
# cell may be whose edge is visible.
_MARGIN, _MARGIN_CELLS = 0.9, 2.0


@dataclass(frozen=True)
class FlowView:
    """A part of a section, and the arrows that are drawn in it.

    Attributes
    ----------
    section
        The visible cells.
    room
        Side length of the square that a typical cell has to itself, in the units of the coordinates.
    source, target, molecules
        Rows of the table where each arrow starts and ends, and its number of molecules, `(n_arrows,)`.
    total
        Number of molecules of these arrows and of those that are left out.
    marked
        Row of the cell to mark; None for no cell.
    """

    section: Section
    room: float
    source: NDArray[np.int64]
    target: NDArray[np.int64]
    molecules: NDArray[np.float64]
    total: float
    marked: int | None

    def visible(self, positions: NDArray[np.float64]) -> NDArray[np.intp]:
        """Return the rows of the cells that the view shows; of those at its edge, if at least about half is inside."""
        return self.section.rows[_inside(positions[self.section.rows], self.section.extent)]

    @property
    def summary(self) -> str:
        """Number of molecules from neighbors, and how many of them are drawn."""
        drawn, total = (f"{molecules:,.1f}" for molecules in (self.molecules.sum(), self.total))
        return f"{total} molecules from neighbors" if drawn == total else f"{drawn} of {total} molecules from neighbors"


def view_of_cell(
    sections: Sequence[Section],
    positions: NDArray[np.float64],
    edges: sp.csr_matrix,
    row: int,
    name: str,
    least: float | None,
) -> FlowView:
    """Return the view of what came into one cell.

    Parameters
    ----------
    sections
        Sections in which to look for the cell.
    positions
        Centers of all cells of the table, `(n_cells, 2)`.
    edges
        Molecules in each cell (row) from each other cell (column).
    row, name
        Row and name of the cell.
    least
        Number of molecules of the smallest flow to draw; None for all flows.

    Raises
    ------
    ValueError
        If the cell is in none of the sections.
    """
    section = next((section for section in sections if row in section.rows), None)
    if section is None:
        raise ValueError(f"cell={name!r} is in none of the sections {listing(section.name for section in sections)}.")
    room = room_of(positions[section.rows])
    arrows = _find_arrows(edges, np.array([row]), positions, 0.0 if least is None else least)
    extent = _around(positions[[row, *arrows.source]], room)
    return _view(section, positions, extent, room, arrows, row)


def view_of_window(
    sections: Sequence[Section],
    positions: NDArray[np.float64],
    edges: sp.csr_matrix,
    window: Extent,
    least: float | None,
) -> FlowView:
    """Return the view of what came into the cells of a window; the parameters are as in :func:`view_of_cell`.

    If `least` is None, only the largest flows that together make up half of all molecules are drawn.

    Raises
    ------
    ValueError
        If there are several sections, no cell is in the window, or there are too many flows.
    """
    if len(sections) > 1:
        names = listing(section.name for section in sections)
        raise ValueError(f"There are several sections, so `window` needs a `library_id`, one of: {names}.")
    (section,) = sections
    left, right, top, bottom = window
    extent = (float(left), float(right), float(top), float(bottom))
    targets = _rows_in(section, positions, extent)
    room = room_of(positions[section.rows])
    return _view(section, positions, extent, room, _find_arrows(edges, targets, positions, least), None)


@dataclass(frozen=True)
class _Arrows:
    source: NDArray[np.int64]
    target: NDArray[np.int64]
    molecules: NDArray[np.float64]
    total: float


def _view(
    section: Section,
    positions: NDArray[np.float64],
    extent: Extent,
    room: float,
    arrows: _Arrows,
    marked: int | None,
) -> FlowView:
    """Crop the section to the view, including cells whose centers are just outside of it."""
    left, right, top, bottom = extent
    margin = _MARGIN_CELLS * room
    wider = (left - margin, right + margin, top - margin, bottom + margin)
    part = crop_section(section, _inside(positions[section.rows], wider), extent)
    return FlowView(part, room, arrows.source, arrows.target, arrows.molecules, arrows.total, marked)


def _rows_in(section: Section, positions: NDArray[np.float64], window: Extent) -> NDArray[np.intp]:
    rows = section.rows[_inside(positions[section.rows], window)]
    if not rows.size:
        left, right, top, bottom = section.extent
        raise ValueError(
            f"No cell has its center in window={window}; the section {section.name!r} goes from {left:g} to "
            f"{right:g} in x and from {top:g} to {bottom:g} in y."
        )
    return rows


def _inside(positions: NDArray[np.float64], extent: Extent) -> NDArray[np.bool_]:
    low, high = np.array([extent[0], extent[2]]), np.array([extent[1], extent[3]])
    return np.asarray(((positions >= low) & (positions <= high)).all(axis=1))


def _find_arrows(
    edges: sp.csr_matrix, targets: NDArray[np.intp], positions: NDArray[np.float64], least: float | None
) -> _Arrows:
    """Return the flows of at least `least` molecules into the targets, between cells at different places.

    If `least` is None, these are the largest flows that together make up half of all molecules.
    """
    found = edges[targets].tocoo()
    source, target, molecules = found.col.astype(np.int64), targets[found.row].astype(np.int64), found.data
    if least is None:
        least = _half_from(molecules)
    drawn = (molecules > 0) & (molecules >= least) & (positions[source] != positions[target]).any(axis=1)
    if drawn.sum() > _MOST_ARROWS:
        raise ValueError(
            f"There are {drawn.sum():,} flows of at least {least:.3g} molecules into the {len(targets):,} cells "
            f"of the window, but no more than {_MOST_ARROWS:,} can be told apart. Choose a smaller `window`, or raise "
            "`min_molecules`."
        )
    return _Arrows(source[drawn], target[drawn], molecules[drawn].astype(np.float64), float(molecules.sum()))


def _half_from(molecules: NDArray[np.floating]) -> float:
    """Return the size of the smallest of the largest flows that together make up half of all molecules."""
    if not molecules.size:
        return 0.0
    descending = np.sort(molecules.astype(np.float64))[::-1]
    running = np.cumsum(descending)
    return float(descending[np.searchsorted(running, 0.5 * running[-1])])


def _around(points: NDArray[np.float64], room: float) -> Extent:
    """Return a square that contains the points, with room for the cells at its edge."""
    low, high = points.min(axis=0), points.max(axis=0)
    center, half = (low + high) / 2, float((high - low).max()) / 2 + _MARGIN * room
    return center[0] - half, center[0] + half, center[1] - half, center[1] + half
