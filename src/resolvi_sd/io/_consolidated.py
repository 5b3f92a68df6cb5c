"""Consolidated metadata: copies, stored in a parent group, of the metadata of the nodes below it.

A reader that finds such a copy trusts it, so an outdated copy makes new elements invisible and replaced ones
unreadable. Copies are therefore edited: results are removed from them before the first result is touched, and added
after the last; in between, every reader sees the user's own data. Entries of other nodes are left unchanged.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from resolvi_sd.io import _files
from resolvi_sd.io._obs import OBS, without
from resolvi_sd.io._store import Element, TableStore

__all__ = ["hide", "renew"]

# spatialdata 0.2 to 0.4 put the copy of a zarr v2 store into `zmetadata`.
_V2_COPIES = (".zmetadata", "zmetadata")
_V2_FILES = (".zgroup", ".zattrs", ".zarray")
_V3_FILE = "zarr.json"


@dataclass(frozen=True)
class _Copy:
    """One file with consolidated metadata, and the group that it describes."""

    file: Path
    group: Path

    @property
    def is_v3(self) -> bool:
        return self.file.name == _V3_FILE

    def nodes(self, content: dict[str, Any]) -> dict[str, Any]:
        """Return the entries of the copy: node (v3) or metadata file (v2), relative to the group, and its content."""
        nodes: dict[str, Any] = (content["consolidated_metadata"] if self.is_v3 else content)["metadata"]
        return nodes

    def node_of(self, entry: str) -> str:
        """Return the path of the node that an entry describes."""
        return entry if self.is_v3 else entry.rpartition("/")[0]


def _slots(elements: Sequence[Element]) -> list[str]:
    return sorted({slot for slot, _ in elements})


def _copies(store: TableStore, elements: Sequence[Element]) -> Iterator[_Copy]:
    for group in (store.root, store.path.parent, store.path, *(store.path / slot for slot in _slots(elements))):
        for name in _V2_COPIES:
            if (group / name).is_file():
                yield _Copy(group / name, group)
        file = group / _V3_FILE
        if file.is_file() and _files.read_json(file).get("consolidated_metadata"):
            yield _Copy(file, group)


def _below(copy: _Copy, paths: Iterable[Path]) -> Iterator[tuple[str, Path]]:
    """Yield the nodes that a copy describes, with their names in it."""
    for path in paths:
        if copy.group in path.parents:
            yield path.relative_to(copy.group).as_posix(), path


def _drop(nodes: dict[str, Any], copy: _Copy, elements: Sequence[Path]) -> None:
    owned = [name for name, _ in _below(copy, elements)]
    for entry in list(nodes):
        node = copy.node_of(entry)
        if any(node == name or node.startswith(f"{name}/") for name in owned):
            del nodes[entry]


def _metadata_files(folder: Path, *, deep: bool) -> Iterator[Path]:
    """Yield the metadata files of a node and, if `deep`, of all nodes below it, without listing folders of chunks."""
    for path, folders, files in os.walk(folder):
        found = [Path(path) / name for name in (_V3_FILE, *_V2_FILES) if name in files]
        yield from found
        is_array = any(
            file.name == ".zarray" or (file.name == _V3_FILE and _files.read_json(file)["node_type"] == "array")
            for file in found
        )
        if is_array or not deep:
            folders.clear()


def _entries(copy: _Copy, folder: Path, name: str, *, deep: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the metadata of the node `name`, located in `folder`, and of the nodes below it, as stored in a copy."""
    for file in _metadata_files(folder, deep=deep):
        content = _files.read_json(file)
        node = (PurePosixPath(name) / file.parent.relative_to(folder).as_posix()).as_posix()
        if not copy.is_v3:
            yield f"{node}/{file.name}", content
            continue
        if content["node_type"] == "group":
            # As zarr writes it: an empty copy in a group means that its children are listed in this copy.
            content["consolidated_metadata"] = {"kind": "inline", "must_understand": False, "metadata": {}}
        yield node, content


def _save(copy: _Copy, content: dict[str, Any], *, hidden: Path) -> None:
    if content != _files.read_json(copy.file):
        _files.replace_json(copy.file, content, hidden=hidden)


def hide(store: TableStore, elements: Sequence[Element], *, hidden: Path) -> None:
    """Remove elements from every copy that names them.

    Parameters
    ----------
    store
        The table on disk.
    elements
        Slots and keys; elements that a copy does not name are skipped.
    hidden
        Folder for files while they are written.
    """
    columns = [key for slot, key in elements if slot == OBS]
    for copy in list(_copies(store, elements)):
        content = _files.read_json(copy.file)
        nodes = copy.nodes(content)
        _drop(nodes, copy, [store.element(element) for element in elements])
        for name, _ in _below(copy, [store.path / OBS]):
            if copy.is_v3 and name in nodes:
                nodes[name]["attributes"] = without(nodes[name]["attributes"], columns)
            elif f"{name}/.zattrs" in nodes:
                nodes[f"{name}/.zattrs"] = without(nodes[f"{name}/.zattrs"], columns)
        _save(copy, content, hidden=hidden)


def renew(store: TableStore, elements: Sequence[Element], *, hidden: Path) -> None:
    """Make every copy match what is on disk for these elements and for the groups that contain them.

    Parameters
    ----------
    store
        The table on disk.
    elements
        Slots and keys; elements that no longer exist are removed from the copies.
    hidden
        Folder for files while they are written.
    """
    paths = [store.element(element) for element in elements]
    for copy in list(_copies(store, elements)):
        content = _files.read_json(copy.file)
        nodes = copy.nodes(content)
        _drop(nodes, copy, paths)
        for name, folder in _below(copy, [store.path / slot for slot in _slots(elements)]):
            nodes.update(_entries(copy, folder, name, deep=False))
        for name, folder in _below(copy, paths):
            nodes.update(_entries(copy, folder, name, deep=True))
        # zarr nests entries by runs of the same parent: parents must come first, and siblings next to each other.
        ordered = sorted(nodes.items(), key=lambda item: (copy.node_of(item[0]).count("/"), item[0]))
        nodes.clear()
        nodes.update(ordered)
        _save(copy, content, hidden=hidden)
