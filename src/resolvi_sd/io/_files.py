"""The only operations that change a store. Each is atomic or acts inside the hidden folder, which readers ignore."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import zarr
from anndata.io import write_elem

__all__ = ["move", "read_json", "remove_file", "remove_tree", "replace_json", "write_element"]


def move(source: Path, target: Path) -> None:
    """Rename a folder; `target` must not exist, but its parent must."""
    os.rename(source, target)


def remove_file(path: Path) -> None:
    """Delete a file if it exists."""
    path.unlink(missing_ok=True)


def remove_tree(path: Path) -> None:
    """Delete a folder inside the hidden folder, with everything in it, if it exists."""
    if path.exists():
        shutil.rmtree(path)


def replace_json(path: Path, content: dict[str, Any], *, hidden: Path) -> None:
    """Replace a JSON file by `content` atomically: a reader sees the old file or the new one, never a partial one.

    Parameters
    ----------
    path
        The file.
    content
        New content of the file.
    hidden
        A folder on the same file system, which holds the file while it is being written.
    """
    partial = hidden / f"{path.name}.partial"
    partial.write_text(json.dumps(content, indent=2), encoding="utf-8")
    os.replace(partial, path)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def write_element(group: zarr.Group, key: str, element: object) -> None:
    """Write an element into a group of the hidden folder."""
    write_elem(group, key, element)
