"""Writing the results of a fit into the store that its object was read from."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import zarr
from anndata import AnnData
from anndata.abc import CSCDataset, CSRDataset
from anndata.io import read_elem
from spatialdata import SpatialData
from zarr.storage import LocalStore

from resolvi_sd._keys import DEFAULT_KEY, Keys
from resolvi_sd._logging import logger
from resolvi_sd._validation import listing
from resolvi_sd.io._check import check_inputs, find_table
from resolvi_sd.io._commit import commit, is_superseded
from resolvi_sd.io._hidden import Hidden, Plan
from resolvi_sd.io._lock import only_writer
from resolvi_sd.io._obs import OBS
from resolvi_sd.io._same import check_permissions, check_same_table
from resolvi_sd.io._state import check_store_free, stored_elements
from resolvi_sd.io._storable import check_storable
from resolvi_sd.io._store import Element, TableStore

__all__ = ["write_results"]


def write_results(sdata: SpatialData, table_key: str = "table", *, key_added: str = DEFAULT_KEY) -> None:
    """Add the results of a fit to the store that backs `sdata`, without touching anything else in it.

    Only results are written: the entries of the table that `resolvi_sd.tl.fit` and the other functions of `tl` create
    under `key_added`. Afterwards, the results in the store are those in memory: earlier results are replaced, and those
    that are no longer in memory (such as a layer of an earlier fit) are removed, so that a store never mixes two fits.
    All other files remain unchanged, byte for byte, except for the attribute of `obs` that names its columns and, if
    present, consolidated metadata. Counts on disk and in memory are not compared. Layers that :func:`read_backed` has
    left in this store remain unchanged.

    The process may be killed at any moment. Even then, the store can be opened, the user's own data are intact, and the
    results are either the old ones, the new ones, or reported as incomplete by `resolvi_sd.io.results_state`. Calling
    this function again finishes an incomplete write, even in a new process with the object read from the store again,
    because all results were on disk before the first old one was touched. (This guarantee does not extend to power
    failures, after which the file system decides what was written.)

    Processes and threads that write to the same store wait for each other, even if they write to different tables.
    Windows and some network file systems lack the necessary locks; there, run only one writer at a time. Other ways of
    writing, such as `sdata.write_element`, ignore the lock.

    `uns['resolvi_rank_genes_groups']` stays in memory: its record arrays, which scanpy requires, have no fixed
    representation in zarr, and a store that contains them can only be read by the version of zarr that wrote it and by
    newer ones. The same numbers are in `uns['resolvi_de']`, from which :func:`resolvi_sd.tl.rank_genes_groups` can
    recreate them.

    Parameters
    ----------
    sdata
        A SpatialData object backed by a store in a local folder.
    table_key
        Name of the table.
    key_added
        Prefix of the results, as given to `resolvi_sd.tl.fit`.

    Raises
    ------
    TypeError
        If `sdata` is not a SpatialData object, or if a result cannot be stored unchanged.
    ValueError
        If `sdata` is not backed, or not by a local folder; if the rows or genes on disk are not those in memory, in the
        same order; if columns of `obs` or coordinates that the fit has read exist in memory only, or differ; if the
        store has entries with the names of results but no fit; if `key_added`, or a name in the results, is not a valid
        name in a store.
    KeyError
        If the table or results under that prefix are missing.
    OSError
        If the store is read-only (PermissionError), or if a file operation fails (e.g. because the disk is full).

    Notes
    -----
    Results are first written to a hidden folder of the store, which takes the space of a second copy of them, and are
    then renamed into place. The model in `uns[key_added]` serves as the commit mark: the old one is removed first,
    and the new one is put in place last.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np, spatialdata as sd
    >>> from anndata import AnnData
    >>> import resolvi_sd as rsd
    >>> sdata = sd.SpatialData(tables={"table": AnnData(np.ones((3, 2), dtype="float32"))})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     sdata.write(f"{folder}/section.zarr")
    ...     sdata["table"].obsm["X_resolvi"] = np.zeros((3, 2))  # what `resolvi_sd.tl.fit` does
    ...     sdata["table"].uns["resolvi"] = {"seed": 0}
    ...     rsd.io.write_results(sdata)
    ...     sorted(sd.read_zarr(sdata.path)["table"].obsm), rsd.io.results_state(sdata)
    (['X_resolvi'], 'complete')
    """
    keys = Keys(key_added)
    table, store = find_table(sdata, table_key)
    with only_writer(store.root):
        _write_or_finish(table, store, keys)


def _write_or_finish(table: AnnData, store: TableStore, keys: Keys) -> None:
    hidden = Hidden(store, keys.prefix)
    plan = hidden.plan()
    has_results = keys.model in table.uns
    if plan is None:
        _check_has_results(table, keys)
    if has_results:
        check_same_table(store, table)
        check_inputs(store, table, keys)
        _check_storable(table, keys)
    check_permissions(store, stored_elements(store, keys), keys.owned())

    finished = _finish(hidden, plan)
    if has_results:
        check_store_free(store, keys)
        _write(hidden, table, keys)
    elif finished:
        logger.info("Finished an interrupted write of %r to %s: read the store again.", keys.prefix, store.path)
    else:
        _check_has_results(table, keys)


def _check_has_results(table: AnnData, keys: Keys) -> None:
    if keys.model not in table.uns:
        raise KeyError(
            f"The table has no results under key_added={keys.prefix!r} (`table.uns[{keys.model!r}]`): run "
            f"`resolvi_sd.tl.fit` first. `table.uns` has: {listing(table.uns)}."
        )


def _check_storable(table: AnnData, keys: Keys) -> None:
    for slot, names in _in_memory(table, keys).items():
        for name in names:
            check_storable(getattr(table, slot)[name], where=f"table.{slot}[{name!r}]")


def _in_memory(table: AnnData, keys: Keys) -> dict[str, list[str]]:
    """Return the keys of the results that the table has and a store can keep, by slot."""
    found = {
        slot: [name for name in names if name in getattr(table, slot) and name != keys.rank_genes_groups]
        for slot, names in keys.owned().items()
    }
    return {slot: names for slot, names in found.items() if names}


def _left_in_store(store: TableStore, table: AnnData, results: Mapping[str, Sequence[str]], keys: Keys) -> set[Element]:
    """Return the results that :func:`read_backed` has left in the store.

    Raises
    ------
    ValueError
        If results of another fit have been written there since.
    """
    elements = [(slot, name) for slot, names in results.items() for name in names if slot != OBS]
    left = {(slot, name) for slot, name in elements if _is_in_store(store, (slot, name), getattr(table, slot)[name])}
    if left and not _is_fit_of_store(store, table.uns[keys.model], keys):
        raise ValueError(
            f"{listing(f'{slot}/{name}' for slot, name in sorted(left))} of the table are read from the store "
            f"{str(store.root)!r}, and results of another fit have been written there since. Read the store again "
            "(`resolvi_sd.io.read_backed(path)`)."
        )
    return left


def _is_in_store(store: TableStore, element: Element, value: object) -> bool:
    """Return whether a matrix is the one in the store."""
    of = value.group if isinstance(value, CSRDataset | CSCDataset) else value
    if not isinstance(of, zarr.Group | zarr.Array) or not isinstance(of.store, LocalStore):
        return False
    return bool((of.store.root / of.path).resolve() == store.element(element).resolve())


def _is_fit_of_store(store: TableStore, model: Mapping[str, Any], keys: Keys) -> bool:
    """Return whether the fitted model in memory is the one in the store."""
    if ("uns", keys.model) not in stored_elements(store, keys):
        return False
    return _is_equal(model, read_elem(store.group()["uns"][keys.model]))


def _is_equal(one: Any, other: Any) -> bool:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_is_equal(one[key], other[key]) for key in one)
    return np.array_equal(np.asarray(one), np.asarray(other))


def _contents(table: AnnData, slot: str, names: list[str]) -> Any:
    if slot == OBS:  # the index is on disk already
        return table.obs[names].reset_index(drop=True)
    return {name: getattr(table, slot)[name] for name in names}


def _finish(hidden: Hidden, plan: Plan | None) -> bool:
    """Finish or clean up what an earlier writer has left behind; return whether a write was finished."""
    if plan is None:
        hidden.clear()
        return False
    if is_superseded(hidden, plan):
        logger.warning("The table %s has been written anew since a write to it was interrupted.", hidden.store.path)
        hidden.clear()
        return False
    commit(hidden, plan)
    return True


def _write(hidden: Hidden, table: AnnData, keys: Keys) -> None:
    store = hidden.store
    results = _in_memory(table, keys)
    kept = _left_in_store(store, table, results, keys)
    names = {slot: [name for name in found if (slot, name) not in kept] for slot, found in results.items()}
    names = {slot: found for slot, found in names.items() if found}
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="zarr v3 autosharding")  # a default to come, of every array
            hidden.stage({slot: _contents(table, slot, found) for slot, found in names.items()})
    except Exception:
        hidden.clear()  # nothing in the table has been touched
        raise
    placed = [(slot, name) for slot, found in names.items() for name in found]
    stored = stored_elements(store, keys)
    mark = ("uns", keys.model)
    plan = Plan(
        mark=keys.model,
        placed=placed,
        removed=[element for element in stored if element not in placed and element not in kept],
        had_mark=mark in stored,
        identity=store.identity(),
    )
    hidden.write_plan(plan)
    commit(hidden, plan)
