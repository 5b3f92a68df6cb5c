"""Transcripts of a points element, matched to the cells and genes of a table that they were counted for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import dask.dataframe as dd
import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from spatialdata import SpatialData

from resolvi_sd._tables._groups import group_by
from resolvi_sd._tables._instances import annotation, check_placed, id_positions, system_of, to_affine
from resolvi_sd._tables._resolve import resolve_table
from resolvi_sd._validation import check_complete, check_key, check_unique, listing

__all__ = ["TranscriptColumns", "Transcripts", "read_transcripts"]

# Where points declare their columns, and the column with the cells if they do not.
_ATTRS, _FEATURE, _INSTANCE = "spatialdata_attrs", "feature_key", "instance_key"
_USUAL_COLUMN = "cell_id"


@dataclass(frozen=True)
class TranscriptColumns:
    """Columns of a frame of transcripts, and how they are matched to the table.

    Attributes
    ----------
    cell_id, gene
        Names of the columns with the cell and the gene.
    ids
        Ids of the cells to match, unique.
    rows
        Rows of these cells in the table.
    genes
        Names of the genes of the table.
    matrix
        Homogeneous transformation of x and y to the coordinate system, 3 × 3.
    """

    cell_id: str
    gene: str
    ids: pd.Index[Any]
    rows: NDArray[np.intp]
    genes: pd.Index[Any]
    matrix: NDArray[np.float64]

    @property
    def names(self) -> list[str]:
        """Names of the columns that are read."""
        return ["x", "y", self.cell_id, self.gene]

    def cell_rows(self, frame: pd.DataFrame) -> NDArray[np.int64]:
        """Return the row in the table of each transcript's cell, -1 if there is none."""
        return np.append(self.rows, -1)[_codes(frame[self.cell_id], self.ids)].astype(np.int64)

    def gene_columns(self, frame: pd.DataFrame) -> NDArray[np.int64]:
        """Return the column in the table of each transcript's gene, -1 if there is none."""
        return _codes(frame[self.gene], self.genes)

    def positions(self, frame: pd.DataFrame) -> NDArray[np.float64]:
        """Return x and y in the coordinate system, `(n_transcripts, 2)`."""
        local = frame[["x", "y"]].to_numpy(dtype=np.float64)
        return np.asarray(local @ self.matrix[:2, :2].T + self.matrix[:2, 2])


@dataclass(frozen=True)
class Transcripts:
    """A points element (not a copy), and the meaning of its columns."""

    key: str
    points: dd.DataFrame
    columns: TranscriptColumns


def read_transcripts(
    sdata: SpatialData,
    *,
    points_key: str | None,
    region: str | None,
    table_key: str,
    cell_id_key: str | None,
    gene_key: str | None,
    coordinate_system: str | None,
    why: str,
) -> Transcripts:
    """Find the transcripts of a table; cell ids are read from the points only until one is found in the table.

    Parameters
    ----------
    sdata
        Object with the points and the table.
    points_key
        Name of the points element; None means the only one that has a column with cells.
    region
        Element that the cells of these transcripts annotate; None means all elements that the table annotates.
    table_key
        Name of the table.
    cell_id_key
        Column of the points with the id of the cell that each transcript was counted for. This is the instance id of
        the cell or, if these differ, its id in the column of `obs` with the same name. None means the instance key of
        the element, or else "cell_id".
    gene_key
        Column of the points with the gene; None means the feature key of the element.
    coordinate_system
        Coordinate system of the positions; None means the element's own.
    why
        What the transcripts are needed for, for messages.

    Raises
    ------
    TypeError
        If `sdata` is not a SpatialData object.
    KeyError
        If an element, column, region or coordinate system is missing.
    ValueError
        If the points element is ambiguous, if no id is in the table, or if ids are ambiguous.
    """
    if not isinstance(sdata, SpatialData):
        raise TypeError(f"{why} needs points: pass a SpatialData object, not {type(sdata).__name__}.")
    key = _points_key(sdata, points_key, cell_id_key)
    points = sdata.points[key]
    cell_id_key = _cell_column(points, cell_id_key)
    where = f"sdata.points[{key!r}]"
    check_key(cell_id_key, points.columns, argument="cell_id_key", where=where)
    gene = points.attrs.get(_ATTRS, {}).get(_FEATURE) if gene_key is None else gene_key
    if gene is None:
        raise ValueError(f"`{where}` names no feature key: pass gene_key=..., one of {listing(points.columns)}.")
    check_key(gene, points.columns, argument="gene_key", where=where)
    if gene in (cell_id_key, "x", "y"):
        raise ValueError(f"gene_key={gene!r} names a column with {'cells' if gene == cell_id_key else 'positions'}.")
    matrix = np.eye(3)
    if coordinate_system is not None:
        check_placed(points, coordinate_system, where=f"the coordinate systems of {where}")
        matrix = to_affine(points, coordinate_system, ("x", "y"))
    adata = resolve_table(sdata, table_key)
    if coordinate_system is not None and region is not None and region in sdata:
        here, there = (system_of(element, coordinate_system) for element in (points, sdata[region]))
        if here != there:
            raise ValueError(
                f"`{where}` are in the coordinate system {here!r}, but the cells of region={region!r} are in "
                f"{there!r}: they belong to different sections."
            )
    ids, rows = _cells(adata, region, points[[cell_id_key]], where=key, why=why)
    return Transcripts(key, points, TranscriptColumns(cell_id_key, gene, ids, rows, adata.var_names, matrix))


def _cell_column(points: dd.DataFrame, cell_id_key: str | None) -> str:
    """Return the column with the cells: the one that the user named, that the element declares, or the usual one."""
    if cell_id_key is not None:
        return cell_id_key
    declared = points.attrs.get(_ATTRS, {}).get(_INSTANCE)
    return str(declared) if declared in points.columns else _USUAL_COLUMN


def _points_key(sdata: SpatialData, points_key: str | None, cell_id_key: str | None) -> str:
    if points_key is not None:
        check_key(points_key, sdata.points, argument="points_key", where="sdata.points")
        return points_key
    found: list[str] = [
        name for name, points in sdata.points.items() if _cell_column(points, cell_id_key) in points.columns
    ]
    if len(found) != 1:
        column = f"a column {cell_id_key or _USUAL_COLUMN!r}"
        column += "" if cell_id_key is not None else ", or declare another one,"
        raise ValueError(
            f"{len(found)} of {len(sdata.points)} points elements have {column} with the cell of each transcript "
            f"({listing(found)}); name one with points_key=..., or the column with cell_id_key=.... "
            f"There are: {listing(sdata.points)}."
        )
    return found[0]


def _cells(
    adata: AnnData, region: str | None, of_points: dd.DataFrame, *, where: str, why: str
) -> tuple[pd.Index[Any], NDArray[np.intp]]:
    """Return the ids used by the points, and the rows, of the cells of the region, or of all regions."""
    columns = annotation(adata)
    if columns is None:
        raise ValueError(
            f"{why} matches transcripts to instance ids, but the table annotates no element. Make it annotate one with "
            "`spatialdata.models.TableModel.parse(table, region=..., region_key=..., instance_key=...)`."
        )
    region_key, instance_key = columns
    regions = group_by(adata, region_key, argument="region_key")
    rows = np.arange(adata.n_obs)
    if region is not None:
        check_key(region, regions.names, argument="region", where=f"table.obs[{region_key!r}]")
        rows = np.flatnonzero(regions.codes == regions.names.index(region))
    (cell_id_key,) = of_points.columns
    names = dict.fromkeys([instance_key, cell_id_key])
    obs = adata.obs[[name for name in names if name in adata.obs]].iloc[rows]
    name = _id_column(obs, of_points, where=where)
    check_complete(obs[name], argument="instance_key" if name == instance_key else "cell_id_key")
    ids = pd.Index(obs[name])
    check_unique(
        ids,
        what=f"Ids of cells (`table.obs[{name!r}]`)",
        todo=f"Specify the region that the transcripts belong to, region=..., one of: {listing(regions.names)}.",
    )
    return ids, rows


def _id_column(obs: pd.DataFrame, of_points: dd.DataFrame, *, where: str) -> str:
    """Return the column of `obs` with ids of the points, whose partitions are read until one has any of these ids.

    If two columns match, the one that matches more transcripts is returned; if these are equally many, the one with the
    same name as the column of the points.
    """
    candidates = {str(name): pd.Index(obs[name].unique()) for name in obs}
    for partition in range(of_points.npartitions):
        found = of_points.partitions[partition].compute().iloc[:, 0]
        known = {name: int((_codes(found, ids) >= 0).sum()) for name, ids in candidates.items()}
        if any(known.values()):
            return max(known, key=lambda name: (known[name], name == found.name))
    of_table = ", ".join(f"`table.obs[{name!r}]` has {listing(ids, 3)}" for name, ids in candidates.items())
    raise ValueError(
        f"No transcript of {where!r} has a cell of the table: its column {found.name!r} has, for example, "
        f"{listing(pd.Index(found.unique()), 3)}, and {of_table}. Choose the column with cell_id_key=...; besides the "
        "instance ids, the table may have these ids in a column of `obs` of the same name."
    )


def _codes(column: pd.Series[Any], names: pd.Index[Any]) -> NDArray[np.int64]:
    """Return the position of each value among `names`, -1 if it is not there; `7` and `"7"` are the same."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        codes, values = column.cat.codes.to_numpy(), column.cat.categories
    else:
        codes, values = pd.factorize(column)
    found = id_positions(names, pd.Index(values))
    return np.append(found, -1)[codes].astype(np.int64)
