"""Columns with the sources of transcripts, computed for each partition of a points element."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any
from uuid import uuid4

import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray

from resolvi_sd._analysis._transcripts import Placement, estimate_scale, posterior_sources
from resolvi_sd._keys import Keys
from resolvi_sd._model import ResolviModule, entry_sources
from resolvi_sd._tables import TranscriptColumns, Transcripts, plain_ids
from resolvi_sd._tiles import Tissue
from resolvi_sd._validation import listing

__all__ = ["CellIds", "SourceColumns", "TranscriptSample"]

# Cells per block: about 100,000 transcripts, whose distances to ten neighbors take a few tens of megabytes.
_ROWS = 1024
# Ids that platforms write for transcripts without a cell.
_UNASSIGNED: tuple[object, ...] = ("UNASSIGNED", "", "-1", "0", -1, 0)


@dataclass(frozen=True)
class TranscriptSample:
    """A sample of transcripts, to estimate the scale of displacement.

    Attributes
    ----------
    frame
        All transcripts of some cells, limited to genes in the table.
    """

    frame: pd.DataFrame

    @classmethod
    def draw(
        cls, transcripts: Transcripts, *, size: int, n_partitions: int, rng: np.random.Generator
    ) -> TranscriptSample:
        """Read partitions in random order, one at a time, until `n_partitions` of them contain transcripts of cells.

        Raises
        ------
        ValueError
            If no transcript has a cell and a gene of the table.
        """
        columns = transcripts.columns
        points = transcripts.points[columns.names]
        quota = size // min(n_partitions, points.npartitions)
        frames: list[pd.DataFrame] = []
        for partition in rng.permutation(points.npartitions):
            frame = points.partitions[int(partition)].compute()
            cell, gene = columns.cell_rows(frame), columns.gene_columns(frame)
            some = frame[_of_some_cells(np.where(gene >= 0, cell, -1), quota, rng)]
            frames += [some] if len(some) else []
            if len(frames) == n_partitions:
                break
        if not frames:
            raise ValueError(
                f"No transcript of {transcripts.key!r} has a cell and a gene of the table. Examples of its "
                f"{columns.cell_id!r}: {listing(frame[columns.cell_id].unique(), 5)}; of the table's cells: "
                f"{listing(columns.ids, 5)}; of its genes: {listing(frame[columns.gene].unique(), 5)}; of the table's "
                f"genes: {listing(columns.genes, 5)}. "
                "Choose the columns with cell_id_key=... and gene_key=...."
            )
        return cls(pd.concat(frames, ignore_index=True))


def _of_some_cells(cell: NDArray[np.int64], size: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return the transcripts of randomly chosen cells with about `size` transcripts in total; -1 means no cell."""
    names, codes, counts = np.unique(cell, return_inverse=True, return_counts=True)
    order = rng.permutation(np.flatnonzero(names >= 0))
    chosen = np.zeros(len(names), dtype=np.bool_)
    chosen[order[: 1 + np.searchsorted(np.cumsum(counts[order]), size)]] = True
    return chosen[codes]


@dataclass(frozen=True)
class CellIds:
    """The cell ids of the table, in the type of the transcripts' ids, followed by the id that means no cell."""

    values: Any

    @classmethod
    def of(cls, transcripts: Transcripts, n_cells: int, unassigned: str | int | None) -> CellIds:
        """Convert the ids to the type of the column, and find the id that means no cell.

        Raises
        ------
        ValueError
            If `unassigned` is the id of a cell, or does not have the type of the ids.
        """
        columns = transcripts.columns
        dtype, marker = _look(transcripts)
        numeric = pd.api.types.is_numeric_dtype(dtype)
        ids = plain_ids(columns.ids).astype(dtype if numeric else str)
        nobody: object = unassigned
        if unassigned is None:
            default = "" if not numeric else -1 if 0 in ids else 0
            nobody = default if marker is None else marker
        elif unassigned in ids:
            raise ValueError(f"unassigned={unassigned!r} is the id of a cell: choose one that no cell has.")
        elif isinstance(unassigned, str) == numeric:
            raise ValueError(
                f"unassigned={unassigned!r} is not of the type of the ids, such as {listing(ids, 3)} ({dtype})."
            )
        values = np.full(n_cells + 1, nobody, dtype=object)
        values[columns.rows] = ids.to_numpy(dtype=object)
        try:
            return cls(pd.Series(values, dtype=object).astype(dtype).array)
        except (OverflowError, TypeError, ValueError) as error:
            raise ValueError(
                f"{nobody!r} cannot mark transcripts without a cell among ids of type {dtype}: pass unassigned=...."
            ) from error


def _look(transcripts: Transcripts) -> tuple[Any, object]:
    """Return the type of the ids, and the id of transcripts without a cell in the first partition that has any."""
    columns = transcripts.columns
    ids = transcripts.points[[columns.cell_id]]
    for partition in range(ids.npartitions):
        frame = ids.partitions[partition].compute()
        others = frame.loc[columns.cell_rows(frame) < 0, columns.cell_id].astype(object).unique()
        missing = [value for value in others if pd.isna(value)]
        known = [value for value in others if not pd.isna(value)]  # a comparison with pd.NA is neither true nor false
        found: list[object] = [*(value for value in _UNASSIGNED if value in known), *missing]
        if found:
            break
    dtype = frame[columns.cell_id].dtype
    if isinstance(dtype, pd.CategoricalDtype):
        dtype = dtype.categories.dtype
        if pd.api.types.is_integer_dtype(dtype):  # unlike its categories, the column may have missing values
            dtype = pd.Series(dtype=dtype).convert_dtypes().dtype
    return dtype, next(iter(found), None)


@dataclass(frozen=True)
class SourceColumns:
    """Function that computes the columns of a frame of transcripts, independently for each transcript.

    Attributes
    ----------
    module, tissue
        Fitted model with the neighbor weights of its cells, and the cells.
    columns
        Columns that match transcripts to the table.
    keys
        Names of the computed columns.
    polygons
        Outlines of the cells; None if positions are not used.
    scale
        Scale of displacement, in the units of the coordinate system; infinity without positions.
    ids
        Ids of the cells, to write the most probable one; None to leave it out.
    token
        Identifier used by dask.
    """

    module: ResolviModule
    tissue: Tissue
    columns: TranscriptColumns
    keys: Keys
    polygons: NDArray[np.object_] | None
    scale: float
    ids: CellIds | None
    token: str = field(default_factory=lambda: uuid4().hex)

    def __dask_tokenize__(self) -> str:
        # Hashing weights, counts and outlines would take longer than computing a partition.
        return self.token

    @property
    def id_name(self) -> str:
        """Name of the column with the most probable cell."""
        return f"{self.keys.prefix}_{self.columns.cell_id}"

    def __call__(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the probabilities, and the most probable cell, of each transcript."""
        cell, gene = self.columns.cell_rows(frame), self.columns.gene_columns(frame)
        positions = self.columns.positions(frame)
        known = np.flatnonzero((cell >= 0) & (gene >= 0) & (self.tissue.molecules[cell] > 0))
        known = known[np.argsort(cell[known], kind="stable")]
        probability = np.full((len(frame), 3), np.nan, dtype=np.float32)
        made_by = cell.copy()
        for block in _blocks(cell[known]):
            some = known[block]
            shares, placement, candidates = self._evidence(cell[some], gene[some], positions[some])
            if placement is not None:
                shares, _ = posterior_sources(shares, placement.log_density(self.scale))
            probability[some] = np.column_stack([shares[:, 0], shares[:, 1:-1].sum(axis=1), shares[:, -1]])
            made_by[some] = np.take_along_axis(candidates, shares.argmax(axis=1)[:, None], axis=1)[:, 0]
        result = pd.DataFrame(probability, index=frame.index, columns=list(self.keys.shares))
        if self.ids is not None:
            ids = frame[self.columns.cell_id]
            moved = known[made_by[known] != cell[known]]
            values = ids.astype(self.ids.values.dtype).array.copy()
            values[moved] = self.ids.values[made_by[moved]]
            result[self.id_name] = values
        return result

    def meta(self, points: pd.DataFrame) -> pd.DataFrame:
        """Return an empty frame with the columns and types of the computed ones."""
        empty = points.iloc[:0]
        result = pd.DataFrame(np.empty((0, 3), np.float32), index=empty.index, columns=list(self.keys.shares))
        if self.ids is not None:
            result[self.id_name] = self.ids.values[:0]
        return result

    def share_inside(self, sample: TranscriptSample) -> float:
        """Return the share of some transcripts that lie inside of the outline of their cell; 1 without outlines."""
        if self.polygons is None:
            return 1.0
        x, y = self.columns.positions(sample.frame).T
        return float(shapely.contains_xy(self.polygons[self.columns.cell_rows(sample.frame)], x, y).mean())

    def estimate_scale(self, sample: TranscriptSample) -> float:
        """Return the scale under which the positions of some transcripts are most likely."""
        frame = sample.frame
        frame = frame[self.tissue.molecules[self.columns.cell_rows(frame)] > 0]
        cell, gene = self.columns.cell_rows(frame), self.columns.gene_columns(frame)
        shares, placement, _ = self._evidence(cell, gene, self.columns.positions(frame))
        if placement is None:
            raise ValueError("The scale of displacement is estimated from outlines, but there are none.")
        return estimate_scale(shares, placement, neighbor_distance=self.module.data.neighbor_distance)

    def _evidence(
        self, cell: NDArray[np.int64], gene: NDArray[np.int64], positions: NDArray[np.float64]
    ) -> tuple[NDArray[Any], Placement | None, NDArray[np.int64]]:
        """Return the shares of the sources, the distances to them, and their rows in the table (-1: background)."""
        n_genes = self.tissue.n_genes
        entries, entry = np.unique(cell * n_genes + gene, return_inverse=True)
        shares = entry_sources(self.module, self.tissue, entries // n_genes, entries % n_genes)[entry]
        rows, local = np.unique(cell, return_inverse=True)
        makers = np.column_stack([rows, self.tissue.neighbor[rows]])
        placement = None
        if self.polygons is not None:
            placement = Placement.measure(positions, local, self.polygons, makers)
        return shares, placement, np.pad(makers, ((0, 0), (0, 1)), constant_values=-1)[local]


def _blocks(cell: NDArray[np.int64]) -> Iterator[slice]:
    """Cut sorted cells into blocks of whole cells."""
    starts = np.flatnonzero(np.diff(cell, prepend=-1))[::_ROWS]
    for start, stop in pairwise([*starts.tolist(), len(cell)]):
        yield slice(start, stop)
