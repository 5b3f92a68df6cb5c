"""Areas and volumes of the cells as a column of the table."""

from __future__ import annotations

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray
from spatialdata import SpatialData

from resolvi_sd._keys import check_storable_name, unit_key
from resolvi_sd._tables import CellSizes, Quantity, resolve_table
from resolvi_sd._tables import cell_sizes as measure

__all__ = ["cell_sizes", "write_sizes"]


def write_sizes(adata: AnnData, sizes: CellSizes, *, column: str) -> None:
    """Write sizes into a table.

    Modifies `adata` with:

    - `.obs[column]`: sizes, float64
    - `.uns[unit_key(column)]`: their `unit`, `quantity` and `coordinate_system`
    """
    adata.obs[column] = sizes.values
    adata.uns[unit_key(column)] = {
        "unit": sizes.unit,
        "quantity": sizes.quantity,
        "coordinate_system": sizes.coordinate_system,
    }


def cell_sizes(
    data: SpatialData,
    *,
    quantity: Quantity = "area",
    table_key: str = "table",
    coordinate_system: str = "global",
    unit: str | None = None,
    key_added: str | None = None,
    copy: bool = False,
) -> NDArray[np.float64] | None:
    """Measure the area or volume of each cell.

    Parameters
    ----------
    data
        A SpatialData object whose table annotates shapes or labels. Areas are available for polygons, circles and
        two-dimensional labels (read block by block); volumes for three-dimensional labels and for circles with z, which
        are spheres.
    quantity
        `"area"` or `"volume"`.
    table_key
        Name of the table.
    coordinate_system
        The coordinate system; sizes are in its units, squared or cubed.
    unit
        Unit of length of the coordinate system, e.g. `"micrometer"`, which the object itself does not record. If None,
        `"pixel"` if an image or labels are placed in the coordinate system without a scale, otherwise the name of the
        coordinate system.
    key_added
        Column of `obs` to write; if None, the name of the `quantity`.
    copy
        Return the sizes and leave `data` unchanged.

    Returns
    -------
    None, or with `copy=True` the sizes, `(n_cells,)` float64. Otherwise modifies the table with:

    - `.obs['{key_added}']`: sizes;
    - `.uns['{key_added}_unit']`: their `unit`, `quantity` and `coordinate_system`.

    Raises
    ------
    ValueError
        If the cells have no such quantity, if a physical unit is requested although the unit of the coordinate system
        is a pixel, or if `obs` already has a column of that name from another source.
    KeyError, TypeError
        If something is missing or invalid; the message says what exists and what to do.

    Notes
    -----
    This changes the table in memory, not the store that it was read from. A fit with this column as `size_factor_key`
    includes a copy of the sizes and their unit in its results, which :func:`resolvi_sd.io.write_results` stores. To
    keep the column itself, write the whole object (`sdata.write(path)`), or write the table under another name
    (`sdata["measured"] = sdata["table"]`, then `sdata.write_element("measured")`).

    Examples
    --------
    >>> import resolvi_sd as rsd
    >>> sdata = rsd.datasets.simulate_tissue(n_cells=200, n_genes=20, rng=0)
    >>> rsd.gr.cell_sizes(sdata, unit="micrometer", key_added="cell_area")
    >>> sdata.tables["table"].uns["cell_area_unit"]["unit"]
    'micrometer^2'
    """
    adata = resolve_table(data, table_key)
    column = quantity if key_added is None else key_added
    check_storable_name(column, argument="key_added")
    is_taken = column in adata.obs.columns and unit_key(column) not in adata.uns
    if is_taken and not copy and isinstance(data, SpatialData):
        raise ValueError(
            f"`table.obs` has a column {column!r} from elsewhere, which is not overwritten. Choose another name: "
            "key_added=..., or remove that column first."
        )
    sizes = measure(data, quantity=quantity, table_key=table_key, coordinate_system=coordinate_system, unit=unit)
    if copy:
        return sizes.values
    write_sizes(adata, sizes, column=column)
    return None
