"""A common view of counts, coordinates, sections and batches for all types of input."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray
from spatialdata import SpatialData
from spatialdata.models import TableModel

from resolvi_sd._csr import CSR, row_sums
from resolvi_sd._tables._coordinates import element_coordinates, obsm_coordinates
from resolvi_sd._tables._counts import table_counts
from resolvi_sd._tables._groups import Groups, cross, group_by, one_group
from resolvi_sd._tables._instances import annotation
from resolvi_sd._tables._resolve import resolve_table
from resolvi_sd._validation import check_cells, check_genes, check_has_molecules, warn_of_spots

__all__ = ["CellPositions", "TableView", "cell_positions", "cell_sections", "own_regions", "table_view"]


@dataclass(frozen=True)
class CellPositions:
    """Coordinates and section of each cell.

    Attributes
    ----------
    coordinates
        `(n_cells, 2 or 3)` float64, in the units of the coordinate system.
    sections
        Section of each cell.
    """

    coordinates: NDArray[np.float64]
    sections: Groups


@dataclass(frozen=True)
class TableView:
    """Counts, coordinates, sections and batches of the cells of a table.

    Attributes
    ----------
    adata
        The table itself, not a copy.
    counts
        Cells × genes, CSR with sorted unique indices, in the table's number type; the object in the table itself if it
        already has this form. Its arrays are in temporary files if the table's counts are not in memory.
    coordinates
        `(n_cells, 2 or 3)` float64, in the units of the coordinate system.
    sections
        Section of each cell; cells of different sections are never neighbors.
    batches
        Batch of each cell.
    molecules
        Molecules of each cell, `(n_cells,)` float64.
    """

    adata: AnnData
    counts: CSR
    coordinates: NDArray[np.float64]
    sections: Groups
    batches: Groups
    molecules: NDArray[np.float64]

    @property
    def has_counts(self) -> NDArray[np.bool_]:
        """Whether each cell has any molecules, `(n_cells,)` bool."""
        return self.molecules > 0

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return int(self.counts.shape[0])

    @property
    def n_genes(self) -> int:
        """Number of genes."""
        return int(self.counts.shape[1])


def cell_positions(
    data: SpatialData | AnnData,
    *,
    table_key: str = "table",
    library_key: str | None = None,
    spatial_key: str = "spatial",
    coordinate_system: str = "global",
) -> CellPositions:
    """Return the coordinates and sections of the cells, without reading the counts.

    Parameters
    ----------
    data
        A SpatialData object: coordinates are the centroids of the elements that the table annotates, matched by
        instance id, and sections are its regions. Or a table: coordinates are in `obsm[spatial_key]`, and sections are
        its regions unless `library_key` is given. A table of a SpatialData object that annotates no element is treated
        like a standalone table.
    table_key
        Name of the table in a SpatialData object.
    library_key
        Column of `obs` with the section of each cell; regions are split by it.
    spatial_key
        Entry of `obsm` with the coordinates, used if no element is annotated.
    coordinate_system
        Coordinate system of the SpatialData object.

    Raises
    ------
    KeyError, ValueError, TypeError
        If an entry is missing or invalid; the message says what exists and what to do.
    """
    adata = resolve_table(data, table_key)
    check_cells(adata.n_obs)
    sections = cell_sections(data, adata, library_key)
    columns = annotation(adata) if isinstance(data, SpatialData) else None
    if columns is None:
        hint = "Add them, e.g. `table.obsm['spatial'] = table.obs[['x', 'y']].to_numpy()`."
        if isinstance(data, SpatialData):
            hint = "The table annotates no element (see `TableModel.parse`), so it must contain the coordinates."
        elif TableModel.ATTRS_KEY in adata.uns:
            hint = (
                "The table annotates elements of a SpatialData object, which define the positions of its cells: pass "
                "that object, with `table_key=`."
            )
        coordinates = obsm_coordinates(adata, spatial_key, hint=hint)
    else:
        region_key, instance_key = columns
        regions = group_by(adata, region_key, argument="region_key")
        coordinates = element_coordinates(
            data, adata, regions, instance_key=instance_key, coordinate_system=coordinate_system
        )
    return CellPositions(coordinates, sections)


def check_place_used(
    data: SpatialData | AnnData, table: AnnData, *, spatial_key: str | None, coordinate_system: str | None
) -> None:
    """Raise ValueError if `spatial_key` or `coordinate_system` was given, but the coordinates do not come from there.

    Parameters
    ----------
    data, table
        What was passed by the user, and its table.
    spatial_key, coordinate_system
        Entry of `obsm`, and coordinate system; the defaults ("spatial" and "global") and None count as not given.
    """
    in_elements = isinstance(data, SpatialData) and annotation(table) is not None
    if coordinate_system not in (None, "global") and not in_elements:
        why = "the table annotates no element" if isinstance(data, SpatialData) else "`data` is an AnnData"
        raise ValueError(
            f"coordinate_system={coordinate_system!r} is for a SpatialData object whose table annotates elements, but "
            f"{why}: the coordinates are those in obsm[{spatial_key or 'spatial'!r}]."
        )
    if spatial_key not in (None, "spatial") and in_elements:
        raise ValueError(
            f"spatial_key={spatial_key!r} would be ignored: the table annotates elements of the SpatialData object, "
            "and the coordinates are their centroids. Leave it out, or pass the table itself."
        )


def cell_sections(data: SpatialData | AnnData, adata: AnnData, library_key: str | None) -> Groups:
    """Return the section of each cell, as :func:`cell_positions` does.

    Raises
    ------
    KeyError, ValueError
        If a column is missing or has missing values.
    """
    libraries = None if library_key is None else group_by(adata, library_key, argument="library_key")
    columns = annotation(adata) if isinstance(data, SpatialData) else None
    if columns is None:
        return libraries or own_regions(adata) or one_group(adata.n_obs, "all")
    regions = group_by(adata, columns[0], argument="region_key")
    return regions if libraries is None else cross(regions, libraries)


def own_regions(adata: AnnData) -> Groups | None:
    """Return the regions named by a table without its SpatialData object, if any."""
    key = adata.uns.get(TableModel.ATTRS_KEY, {}).get("region_key")
    if key not in adata.obs or adata.obs[key].isna().any():
        return None
    return group_by(adata, key, argument="region_key")


def table_view(
    data: SpatialData | AnnData,
    *,
    table_key: str = "table",
    layer: str | None = None,
    batch_key: str | None = None,
    library_key: str | None = None,
    spatial_key: str = "spatial",
    coordinate_system: str = "global",
    coordinates: NDArray[np.float64] | None = None,
) -> TableView:
    """Return a common view of counts, coordinates, sections and batches; the data are checked but not copied.

    Parameters
    ----------
    data
        A SpatialData object or a table, see :func:`cell_positions`.
    table_key
        Name of the table in a SpatialData object.
    layer
        Layer with the counts; None means X.
    batch_key
        Column of `obs` with the batch of each cell; None means a single batch.
    library_key
        Column of `obs` with the section of each cell; regions are split by it. None means `batch_key`.
    spatial_key
        Entry of `obsm` with the coordinates, used if no element is annotated.
    coordinate_system
        Coordinate system of the SpatialData object.
    coordinates
        Known coordinates of the cells, `(n_cells, 2 or 3)`, which are then not looked for.

    Raises
    ------
    KeyError, ValueError, TypeError, NotImplementedError
        If an entry is missing or invalid; the message says what exists and what to do.

    Warns
    -----
    UserWarning
        If the rows look like spots rather than cells.
    """
    adata = resolve_table(data, table_key)
    check_genes(adata.var_names)
    batches = one_group(adata.n_obs, "all")
    if batch_key is not None:
        batches = group_by(adata, batch_key, argument="batch_key")
    library_key = batch_key if library_key is None else library_key
    if coordinates is None:
        positions = cell_positions(
            data,
            table_key=table_key,
            library_key=library_key,
            spatial_key=spatial_key,
            coordinate_system=coordinate_system,
        )
    else:
        positions = CellPositions(coordinates, cell_sections(data, adata, library_key))
    counts = table_counts(adata, layer)
    molecules = row_sums(counts)
    check_has_molecules(molecules > 0, layer=layer)
    warn_of_spots(adata, positions.coordinates, positions.sections.codes)
    return TableView(
        adata=adata,
        counts=counts,
        coordinates=positions.coordinates,
        sections=positions.sections,
        batches=batches,
        molecules=molecules,
    )
