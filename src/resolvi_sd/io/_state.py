"""What a store says of the results in it."""

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
    """Return slots and keys of the results on disk, whether shown by `obs` or not."""
    owned = ((slot, key) for slot, names in keys.owned().items() for key in names)
    return [element for element in owned if store.element(element).exists()]


def results_state(
    sdata: SpatialData | str | PathLike[str], table_key: str = "table", *, key_added: str = DEFAULT_KEY
) -> ResultsState:
    """Say whether a store on disk holds complete results.

    Parameters
    ----------
    sdata
        A backed SpatialData object, or the path of its store. What is in memory is not looked at.
    table_key
        Name of the table.
    key_added
        Prefix of the results, as given to `resolvi_sd.tl.fit`.

    Returns
    -------
    `"absent"`
        There are none, and no write is under way. A neighbor graph alone, as of `resolvi_sd.gr.neighbors`, is no
        result of a fit, nor are niches.
    `"complete"`
        All of one fit are there.
    `"incomplete"`
        A write was interrupted: `resolvi_sd.io.write_results(sdata, table_key, key_added=key_added)` finishes it, in
        the same process or, with the object read from the store again, in another one. Or there are results without
        their model (`uns[key_added]`), or entries of the user's with the names of results: then remove or rename
        them, or choose another `key_added`.

    Raises
    ------
    TypeError
        If `sdata` is neither an object nor a path.
    ValueError
        If the object is not backed, the store is not a local folder, or `key_added` cannot name results.
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
    if Hidden(store, key_added).plan() is None and not _of_fit(store, keys):
        return "absent"
    logger.warning(
        "The results %r in %s are incomplete: call `resolvi_sd.io.write_results(sdata, %r, key_added=%r)`.",
        key_added, store.path, table_key, key_added,
    )  # fmt: skip
    return "incomplete"


def check_store_free(store: TableStore, keys: Keys) -> None:
    """Raise ValueError if a write would replace, or remove, what is no result of a fit in the store.

    Parameters
    ----------
    store
        The table on disk; a write to it that was interrupted must have been finished.
    keys
        Names of the results.
    """
    taken = [] if store.element(("uns", keys.model)).exists() else _of_fit(store, keys)
    if taken:
        raise ValueError(
            f"The table {store.table_key!r} of the store {str(store.root)!r} has "
            f"{listing(f'{slot}/{name}' for slot, name in taken)}, where results with key_added={keys.prefix!r} would "
            "be, and no fit of that name. Choose another `key_added=`, or rename or remove these and write the table "
            f"anew: `sdata.write_element({store.table_key!r}, overwrite=True)`."
        )


def _of_fit(store: TableStore, keys: Keys) -> list[Element]:
    """Return what is on disk of results that need a fit."""
    others = keys.of_graph | keys.of_niches
    return [(slot, name) for slot, name in stored_elements(store, keys) if name not in others]


def _is_complete(store: TableStore, keys: Keys) -> bool:
    """Whether the commit mark is in place, and is that of the results around it.

    It is put aside before the first result is touched, so while the next one waits, it speaks of the old results.
    """
    mark, hidden = ("uns", keys.model), Hidden(store, keys.prefix)
    under_way = hidden.plan() is not None and not hidden.new(mark).exists()
    return store.element(mark).exists() and not under_way
