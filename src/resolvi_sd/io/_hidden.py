"""The hidden folder of a store in which a writer prepares its results: what is ready, and what to do with it.

    <store>/.resolvi_write/<table>/<prefix>/
        new/<slot>/<key>      complete results, to be renamed into the table
        slots/<slot>          empty groups, for a table that has no such slot
        old/<slot>/<key>      elements that they replaced
        plan.json             written once everything is ready, deleted once everything is in place

It is in the root of the store because readers of a table regard every group inside the table as a part of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import zarr

from resolvi_sd.io import _files
from resolvi_sd.io._store import Element, TableStore

__all__ = ["Hidden", "Plan"]

_ROOT = ".resolvi_write"


@dataclass(frozen=True)
class Plan:
    """Description of a pending write, sufficient to finish it in another process.

    Attributes
    ----------
    mark
        Key in `uns` that is written last.
    placed
        Slots and keys of the new results, including the mark.
    removed
        Slots and keys of earlier results that are not replaced by new ones.
    had_mark
        Whether there were complete results before the write.
    identity
        Digest of the table's rows and genes.
    """

    mark: str
    placed: Sequence[Element]
    removed: Sequence[Element]
    had_mark: bool
    identity: str

    @property
    def elements(self) -> list[Element]:
        """All elements that the write touches."""
        return [*self.placed, *self.removed]


class Hidden:
    """The hidden folder for the results under one prefix in one table.

    Parameters
    ----------
    store
        The table on disk.
    prefix
        Prefix of the results.
    """

    def __init__(self, store: TableStore, prefix: str) -> None:
        self.store = store
        self.path = store.root / _ROOT / store.table_key / prefix
        self._plan = self.path / "plan.json"

    def new(self, element: Element) -> Path:
        """Return the folder in which a new element waits."""
        slot, key = element
        return self.path / "new" / slot / key

    def old(self, element: Element) -> Path:
        """Return the folder to which a replaced element is moved."""
        slot, key = element
        return self.path / "old" / slot / key

    def slot(self, slot: str) -> Path:
        """Return the folder in which an empty group for a slot waits."""
        return self.path / "slots" / slot

    def stage(self, elements: Mapping[str, object]) -> None:
        """Write new elements, slot by slot, into the hidden folder, in the table's zarr format."""
        new = zarr.open_group(self.path / "new", mode="w", zarr_format=self.store.zarr_format)
        slots = zarr.open_group(self.path / "slots", mode="w", zarr_format=self.store.zarr_format)
        for slot, content in elements.items():
            _files.write_element(new, slot, content)
            if not (self.store.path / slot).exists():
                _files.write_element(slots, slot, {})

    def plan(self) -> Plan | None:
        """Return the plan of a write in progress, or None if there is none or if it is not ready."""
        if not self._plan.exists():
            return None
        content = _files.read_json(self._plan)
        for name in ("placed", "removed"):
            content[name] = [(slot, key) for slot, key in content[name]]
        return Plan(**content)

    def write_plan(self, plan: Plan) -> None:
        """Store the plan: from now on the write is in progress, and the next writer will finish it if necessary."""
        _files.replace_json(self._plan, asdict(plan), hidden=self.path)

    def clear(self) -> None:
        """Delete the folder, the plan first, because the files that it describes are incomplete from then on."""
        _files.remove_file(self._plan)
        _files.remove_tree(self.path)
        for parent in (self.path.parent, self.path.parent.parent):
            with suppress(OSError):  # it holds another writer's folder, or is already gone
                parent.rmdir()
