"""Consolidated metadata: copies, in a group above, of what the nodes below say of themselves.

A reader that finds such a copy believes it, so a copy that is out of date makes new elements invisible and replaced
ones unreadable. Copies are therefore edited: results are taken out before the first of them is touched, and put in
after the last; in between every reader sees the user's own data. Entries of other nodes stay as they are.
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

# `zmetadata` is where spatialdata 0.2 to 0.4 put the copy of a zarr v2 store.
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
        """Entries of the copy: node (v3) or metadata file (v2), relative to the group, and its content."""
        nodes: dict[str, Any] = (content["consolidated_metadata"] if self.is_v3 else content)["metadata"]
        return nodes

    def node_of(self, entry: str) -> str:
        """Path of the node that an entry is about."""
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
    """Nodes that a copy is about, with their names in it."""
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
    """Metadata files of a node and, if `deep`, of all nodes below; folders of chunks are not listed."""
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
    """Metadata of the node `name`, which is in `folder`, and of those below, as a copy has them."""
    for file in _metadata_files(folder, deep=deep):
        content = _files.read_json(file)
        node = (PurePosixPath(name) / file.parent.relative_to(folder).as_posix()).as_posix()
        if not copy.is_v3:
            yield f"{node}/{file.name}", content
            continue
        if content["node_type"] == "group":
            # As zarr writes it: an empty copy in a group says that its children are listed in this one.
            content["consolidated_metadata"] = {"kind": "inline", "must_understand": False, "metadata": {}}
        yield node, content


def _save(copy: _Copy, content: dict[str, Any], *, hidden: Path) -> None:
    if content != _files.read_json(copy.file):
        _files.replace_json(copy.file, content, hidden=hidden)


def hide(store: TableStore, elements: Sequence[Element], *, hidden: Path) -> None:
    """Take elements out of every copy that names them.

    Parameters
    ----------
    store
        The table on disk.
    elements
        Slots and keys; those that are not there are skipped.
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
    """Make every copy say what is on disk of these elements and of the groups that hold them.

    Parameters
    ----------
    store
        The table on disk.
    elements
        Slots and keys; those that are not there any more are taken out.
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
        # zarr nests entries by runs of the same parent: parents first, and siblings side by side.
        ordered = sorted(nodes.items(), key=lambda item: (copy.node_of(item[0]).count("/"), item[0]))
        nodes.clear()
        nodes.update(ordered)
        _save(copy, content, hidden=hidden)
