"""The hidden folder of a store where one writer prepares its results: what is ready, and what is to happen with it.

    <store>/.resolvi_write/<table>/<prefix>/
        new/<slot>/<key>      results, complete, to be renamed into the table
        slots/<slot>          empty groups, for a table that has no such slot
        old/<slot>/<key>      what they replaced
        plan.json             written once all is ready, deleted once all is in place

It is in the root of the store because readers of a table take every group in there for a part of the table.
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
    """What a writer is about to do; enough to finish it in another process.

    Attributes
    ----------
    mark
        Key in `uns` that is written last.
    placed
        Slots and keys of the new results, with the mark.
    removed
        Slots and keys of earlier results that have no successor.
    had_mark
        Whether there were complete results before.
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
        """All that the write touches."""
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
        """Where a new element waits."""
        slot, key = element
        return self.path / "new" / slot / key

    def old(self, element: Element) -> Path:
        """Where an element goes that is replaced."""
        slot, key = element
        return self.path / "old" / slot / key

    def slot(self, slot: str) -> Path:
        """Where an empty group for a slot waits."""
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
        """Read what is under way; None if there is nothing, or nothing ready."""
        if not self._plan.exists():
            return None
        content = _files.read_json(self._plan)
        for name in ("placed", "removed"):
            content[name] = [(slot, key) for slot, key in content[name]]
        return Plan(**content)

    def write_plan(self, plan: Plan) -> None:
        """From here on the write is under way, and is finished by whoever comes next."""
        _files.replace_json(self._plan, asdict(plan), hidden=self.path)

    def clear(self) -> None:
        """Delete the folder; the plan first, for what it speaks of is incomplete from then on."""
        _files.remove_file(self._plan)
        _files.remove_tree(self.path)
        for parent in (self.path.parent, self.path.parent.parent):
            with suppress(OSError):  # another writer's folder is in there, or it is gone already
                parent.rmdir()
