"""Cells in contact, and the length of the border that they share."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from spatialdata import SpatialData

from resolvi_sd._graphs import (
    NeighborGraph,
    box_tree,
    check_no_fit_on_graph,
    pairs_within,
    sections,
    shared_border,
    write_graph,
)
from resolvi_sd._keys import DEFAULT_KEY, Keys
from resolvi_sd._tables import Outlines, cell_outlines, cell_positions, resolve_table
from resolvi_sd._validation import check_number

__all__ = ["ContactsResult", "contacts"]

_BLOCK = 1 << 15


class ContactsResult(NamedTuple):
    """Return value of :func:`contacts` with `copy=True`: symmetric matrices of the same sparsity.

    Attributes
    ----------
    connectivities
        Ones, `(n_cells, n_cells)` CSR float32.
    distances
        Gaps between the outlines; outlines that touch have an explicit zero.
    borders
        Lengths of the shared borders; zero, up to rounding, for cells that touch only at a point.
    """

    connectivities: Any
    distances: Any
    borders: Any


def contacts(
    data: SpatialData,
    *,
    max_gap: float = 0.0,
    table_key: str = "table",
    library_key: str | None = None,
    coordinate_system: str = "global",
    key_added: str = DEFAULT_KEY,
    copy: bool = False,
) -> ContactsResult | None:
    """Find the cells whose outlines touch, and measure the length of the border that they share.

    Parameters
    ----------
    data
        A SpatialData object whose table annotates shapes or two-dimensional labels. Each region is a section, and cells
        of different sections never touch.
    max_gap
        Largest gap, in units of the coordinate system, at which cells still count as touching: segmentations often
        leave a pixel between cells or shrink their outlines. Cells that overlap always count as touching.
    table_key
        Name of the table.
    library_key
        Column of `obs` with the section of each cell; it subdivides the regions.
    coordinate_system
        The coordinate system; gaps and lengths are in its units.
    key_added
        Prefix of the keys that are written.
    copy
        Return the matrices and leave `data` unchanged.

    Returns
    -------
    None, or with `copy=True` connectivities, distances and borders. Otherwise modifies the table with:

    - `.obsp['{key_added}_borders']`: length of the shared border, symmetric CSR float32. For each of the two cells,
      this is the length of outline that lies within `max_gap` of the other cell or inside it; the mean of both is
      stored;
    - `.obsp['{key_added}_contacts_connectivities']`: ones, of the same sparsity;
    - `.obsp['{key_added}_contacts_distances']`: gaps, 0 where outlines touch or overlap;
    - `.uns['{key_added}_contacts_neighbors']`: names of the latter two matrices and the parameters, so that squidpy
      finds the graph with `connectivity_key='{key_added}_contacts'` and :func:`resolvi_sd.tl.fit` with
      `neighbors_key='{key_added}_contacts'`.

    Raises
    ------
    ValueError
        If `max_gap` is negative or not finite, if there are no outlines, or if they are spheres.
    KeyError, TypeError, NotImplementedError
        If something is missing or invalid; the message says what exists and what to do.

    Notes
    -----
    This changes the table in memory, not the store that it was read from, and :func:`resolvi_sd.io.write_results` only
    stores the results of fits. To keep contacts and borders, write the whole object (`sdata.write(path)`), or write the
    table under another name (`sdata["touching"] = sdata["table"]`, then `sdata.write_element("touching")`).

    Examples
    --------
    >>> import resolvi_sd as rsd
    >>> sdata = rsd.datasets.simulate_tissue(n_cells=200, n_genes=20, rng=0)
    >>> rsd.gr.contacts(sdata, max_gap=0.5)
    >>> borders = sdata.tables["table"].obsp["resolvi_borders"]
    >>> borders.shape, bool(abs(borders - borders.T).max() == 0)
    ((200, 200), True)
    """
    reach = check_number(max_gap, argument="max_gap", least=0)
    adata = resolve_table(data, table_key)
    keys = Keys(key_added)
    if not copy:
        check_no_fit_on_graph(adata, Keys(keys.contacts))
    why = "A graph of contacts"
    outlines = cell_outlines(data, table_key=table_key, coordinate_system=coordinate_system, why=why)
    cells = cell_positions(data, table_key=table_key, library_key=library_key, coordinate_system=coordinate_system)
    if outlines.centers.shape[1] > 2:
        raise ValueError("Spheres share areas, not borders: `contacts` needs outlines in the plane, without z.")
    first, second, gap, length = _pairs(outlines, cells.sections.codes, reach)
    result = ContactsResult(*(_symmetric(first, second, v, adata.n_obs) for v in (np.ones(len(gap)), gap, length)))
    if copy:
        return result
    params: dict[str, Any] = {"coord_type": "generic", "transform": "none", "distance": "boundary", "max_gap": reach}
    params |= {"coordinate_system": coordinate_system} | ({} if library_key is None else {"library_key": library_key})
    graph = NeighborGraph.from_sparse(result.distances, result.connectivities)
    write_graph(adata, graph, keys=Keys(keys.contacts), params=params)
    adata.obsp[keys.borders] = result.borders
    return None


def _pairs(
    outlines: Outlines, section: NDArray[np.integer], max_gap: float
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64], NDArray[np.float64]]:
    """Return the rows, the gap and the shared border of each pair of cells in contact, listing every pair once."""
    rounding = outlines.rounding()
    reach = max_gap + rounding
    found = []
    for members in sections(section):
        here = outlines.take(members)
        tree = box_tree(here)
        for start in range(0, members.size, _BLOCK):
            rows = np.arange(start, min(start + _BLOCK, members.size))
            first, second, gap = pairs_within(here, tree, rows, np.full(rows.size, reach))
            once = first < second
            first, second, gap = first[once], second[once], np.where(gap > rounding, gap, 0)[once]
            found.append((members[first], members[second], gap, shared_border(here, first, second, reach)))
    first, second, gap, length = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return first, second, gap, length


def _symmetric(
    first: NDArray[np.intp], second: NDArray[np.intp], values: NDArray[np.float64], n_cells: int
) -> sp.csr_matrix:
    """Return the symmetric matrix of the pairs, keeping explicit zeros."""
    rows, columns = np.concatenate([first, second]), np.concatenate([second, first])
    order = np.lexsort((columns, rows))
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=n_cells))])
    both = np.concatenate([values, values]).astype(np.float32)
    return sp.csr_matrix((both[order], columns[order], indptr), shape=(n_cells, n_cells))
