"""Reading a store as a SpatialData object whose counts stay on disk."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import spatialdata as sd
import zarr
from anndata import AnnData
from anndata.io import read_elem, sparse_dataset
from spatialdata import SpatialData
from spatialdata.models import TableModel

from resolvi_sd.io._store import open_store

__all__ = ["read_backed"]

_ELEMENTS = ("images", "labels", "points", "shapes")
_IN_MEMORY = ("obs", "var", "obsm", "varm", "obsp", "varp", "uns", "raw")
_SPARSE = ("csr_matrix", "csc_matrix")


def read_backed(path: str | os.PathLike[str], table_key: str = "table") -> SpatialData:
    """Read a store, but leave the matrices of its table (`X` and layers) on disk.

    `spatialdata.read_zarr` reads tables into memory. From the object returned here, the functions of `resolvi_sd` read
    the counts block by block, and :func:`resolvi_sd.io.write_results`, or a fit with `write=True`, adds results to the
    store. A fit reads counts that are stored by rows, usually as CSR.

    Parameters
    ----------
    path
        Folder of the store.
    table_key
        Name of the table; other tables are left out of the object.

    Returns
    -------
    The object, backed by the store. Matrices of the table are `anndata.abc.CSRDataset` (or `CSCDataset`) objects, or
    zarr arrays if they are dense; `table.to_memory()` loads them. Everything else in the table, including `raw`, is in
    memory.

    Raises
    ------
    TypeError, ValueError
        If `path` is not a local folder.
    KeyError
        If the store has no such table.

    Examples
    --------
    >>> import tempfile, resolvi_sd as rsd
    >>> path = tempfile.mkdtemp() + "/tissue.zarr"
    >>> rsd.datasets.simulate_tissue(n_cells=300, n_genes=40, rng=0).write(path)
    >>> sdata = rsd.io.read_backed(path)
    >>> rsd.tl.fit(sdata, max_epochs=2, write=True, show_progress_bar=False)
    >>> type(sdata.tables["table"].X).__name__, rsd.io.results_state(sdata)
    ('_CSRDataset', 'complete')
    """
    store = open_store(path, table_key)
    group = store.group()
    table = AnnData(_left(group.get("X")), **{slot: read_elem(group[slot]) for slot in _IN_MEMORY if slot in group})
    for name, layer in group["layers"].members() if "layers" in group else ():
        table.layers[name] = _left(layer)
    annotation = table.uns.get(TableModel.ATTRS_KEY, {})
    regions = annotation.get(TableModel.REGION_KEY)
    if isinstance(regions, np.ndarray):  # anndata reads a list as an array
        annotation[TableModel.REGION_KEY] = regions.tolist()
    sdata = sd.read_zarr(store.root, selection=_ELEMENTS)
    sdata.tables[table_key] = table
    return sdata


def _left(matrix: zarr.Group | zarr.Array | None) -> Any:
    """Return a matrix without reading its values."""
    kind = None if matrix is None else matrix.attrs.get("encoding-type")
    if kind in _SPARSE:
        return sparse_dataset(matrix)
    return matrix if kind == "array" or matrix is None else read_elem(matrix)
