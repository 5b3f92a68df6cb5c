"""State of the results in a store."""

from __future__ import annotations

from os import PathLike
from typing import Literal

from spatialdata import SpatialData

from resolvi_sd._keys import DEFAULT_KEY, Keys
from resolvi_sd._logging import logger
from resolvi_sd._validation import listing
from resolvi_sd.io._hidden import Hidden
from resolvi_sd.io._store import Element, TableStore, open_store

__all__ = ["ResultsState", "check_store_free", "results_state", "stored_elements"]

ResultsState = Literal["absent", "complete", "incomplete"]


def stored_elements(store: TableStore, keys: Keys) -> list[Element]:
    """Return slots and keys of the results on disk, whether or not `obs` lists them."""
    owned = ((slot, key) for slot, names in keys.owned().items() for key in names)
    return [element for element in owned if store.element(element).exists()]


def results_state(
    sdata: SpatialData | str | PathLike[str], table_key: str = "table", *, key_added: str = DEFAULT_KEY
) -> ResultsState:
    """Return whether a store on disk holds complete results.

    Parameters
    ----------
    sdata
        A backed SpatialData object, or the path of its store. The contents of the object in memory are not considered.
    table_key
        Name of the table.
    key_added
        Prefix of the results, as given to `resolvi_sd.tl.fit`.

    Returns
    -------
    `"absent"`
        There are no results, and no write is in progress. A neighbor graph alone, as written by
        `resolvi_sd.gr.neighbors`, is not a result of a fit, nor are niches.
    `"complete"`
        All results of one fit are present, as far as the table had them when it was written.
    `"incomplete"`
        Either a write was interrupted: `resolvi_sd.io.write_results(sdata, table_key, key_added=key_added)` finishes
        it, in the same process or, with the object read from the store again, in another one. Or there are results
        without their model (`uns[key_added]`), or the user's own entries have the names of results: remove or rename
        these, or choose another `key_added`.

    Raises
    ------
    TypeError
        If `sdata` is neither an object nor a path.
    ValueError
        If the object is not backed, if the store is not a local folder, or if `key_added` is not a valid prefix.
    KeyError
        If the store has no such table.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np, spatialdata as sd
    >>> from anndata import AnnData
    >>> import resolvi_sd as rsd
    >>> sdata = sd.SpatialData(tables={"table": AnnData(np.ones((3, 2), dtype="float32"))})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     sdata.write(f"{folder}/section.zarr")
    ...     rsd.io.results_state(sdata)
    'absent'
    """
    keys = Keys(key_added)
    store = open_store(sdata, table_key)
    if _is_complete(store, keys):
        return "complete"
    under_way = Hidden(store, key_added).plan() is not None
    if not under_way and not _of_fit(store, keys):
        return "absent"
    if under_way:
        todo = f"call `resolvi_sd.io.write_results(sdata, {table_key!r}, key_added={key_added!r})` to finish the write"
    else:
        todo = "they lack the model, without which they cannot be used: remove them, or fit again under another name"
    logger.warning("The results %r in %s are incomplete: %s.", key_added, store.path, todo)
    return "incomplete"


def check_store_free(store: TableStore, keys: Keys) -> None:
    """Raise ValueError if a write would replace or remove entries that are not results of a fit in the store.

    Parameters
    ----------
    store
        The table on disk; an interrupted write to it must have been finished before.
    keys
        Names of the results.
    """
    keys.check_case(store.names, where=f"the table {store.table_key!r} of the store {str(store.root)!r}")
    taken = [] if store.element(("uns", keys.model)).exists() else _of_fit(store, keys)
    if taken:
        raise ValueError(
            f"The table {store.table_key!r} of the store {str(store.root)!r} has "
            f"{listing(f'{slot}/{name}' for slot, name in taken)}, where results with key_added={keys.prefix!r} would "
            "be, but no fit of that name. Choose another `key_added=`, or rename or remove these in memory and replace "
            f"the table on disk: `sdata.delete_element_from_disk({store.table_key!r})`, then "
            f"`sdata.write_element({store.table_key!r})`."
        )


def _of_fit(store: TableStore, keys: Keys) -> list[Element]:
    """Return the elements on disk that are results of a fit, without graphs and niches."""
    others = keys.of_graph | keys.of_niches
    return [(slot, name) for slot, name in stored_elements(store, keys) if name not in others]


def _is_complete(store: TableStore, keys: Keys) -> bool:
    """Return whether the commit mark is in place and belongs to the results around it.

    It is set aside before the first result is touched, so while a new mark is waiting, a mark in place belongs to the
    old results.
    """
    mark, hidden = ("uns", keys.model), Hidden(store, keys.prefix)
    under_way = hidden.plan() is not None and not hidden.new(mark).exists()
    return store.element(mark).exists() and not under_way
