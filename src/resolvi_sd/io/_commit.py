"""Moving prepared results into the table by renames only, so that any later writer can complete a partial commit."""

from __future__ import annotations

from resolvi_sd.io import _consolidated, _files
from resolvi_sd.io._hidden import Hidden, Plan
from resolvi_sd.io._obs import OBS, set_columns
from resolvi_sd.io._store import Element

__all__ = ["commit", "is_superseded"]

_TODO = (
    "The results in the store are incomplete; the user's data are unchanged. "
    "Call `resolvi_sd.io.write_results(sdata, ...)` again to finish."
)


def is_superseded(hidden: Hidden, plan: Plan) -> bool:
    """Return whether another writer has written the table since the plan was made, so that it must not be carried out.

    In that case the rows and genes differ, or there is a commit mark although the writer had none or had set it aside.
    """
    mark = ("uns", plan.mark)
    gone = not plan.had_mark or hidden.old(mark).exists()
    if gone and hidden.new(mark).exists() and hidden.store.element(mark).exists():
        return True
    return hidden.store.identity() != plan.identity


def commit(hidden: Hidden, plan: Plan) -> None:
    """Carry out a plan, resuming wherever it was interrupted, and delete the hidden folder.

    Every step leaves a table that can be opened: columns of `obs` are listed only while they have data, each element
    is added or removed by a single rename, and copies of the metadata do not name the elements in the meantime.

    Raises
    ------
    OSError
        If a file operation fails; the results are then incomplete, and another call finishes them.
    """
    try:
        if hidden.new(("uns", plan.mark)).exists():
            _swap(hidden, plan)
        _consolidated.renew(hidden.store, plan.elements, hidden=hidden.path)
        hidden.clear()
    except OSError as error:
        error.add_note(_TODO)
        raise


def _swap(hidden: Hidden, plan: Plan) -> None:
    store, mark = hidden.store, ("uns", plan.mark)
    columns = [key for slot, key in plan.elements if slot == OBS]
    _consolidated.hide(store, plan.elements, hidden=hidden.path)
    _put_aside(hidden, mark)
    set_columns(store, drop=columns, add=[], hidden=hidden.path)
    for slot in dict.fromkeys(slot for slot, _ in plan.placed):
        if not (store.path / slot).exists():
            _files.move(hidden.slot(slot), store.path / slot)
    for element in plan.removed:
        _put_aside(hidden, element)
    for element in plan.placed:
        if element != mark and hidden.new(element).exists():
            _put_aside(hidden, element)
            _files.move(hidden.new(element), store.element(element))
    set_columns(store, drop=[], add=[key for slot, key in plan.placed if slot == OBS], hidden=hidden.path)
    _files.move(hidden.new(mark), store.element(mark))


def _put_aside(hidden: Hidden, element: Element) -> None:
    present = hidden.store.element(element)
    if present.exists():
        aside = hidden.old(element)
        _files.remove_tree(aside)
        aside.parent.mkdir(parents=True, exist_ok=True)
        _files.move(present, aside)
