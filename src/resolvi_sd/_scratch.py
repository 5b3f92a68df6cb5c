"""Arrays in temporary files, for data that may not fit into memory; the files disappear with their last use.

The files have no name (or, on Windows, are deleted when they are closed), so nothing is left behind, not even by a
process that is killed. They are in the folder given by the environment variable TMPDIR, or else in `/var/tmp`, the
place for large temporary files: on some systems, `/tmp` is in memory.
"""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["copy_beside", "is_in_file", "scratch_array", "scratch_file", "scratch_folder", "view_file", "zeros_beside"]

_FOLDER_VARIABLES = ("TMPDIR", "TEMP", "TMP")
_LARGE_FILES = "/var/tmp"
_NO_ROOM = "Set the environment variable TMPDIR to a folder on a disk with more room for temporary files."
# Elements copied at a time.
_BLOCK = 1 << 24


def scratch_folder(n_bytes: int = 0) -> str:
    """Return the folder of the temporary files.

    Raises
    ------
    FileNotFoundError
        If the requested folder does not exist.
    OSError
        If the folder has no room for `n_bytes`.
    """
    asked = next((name for name in _FOLDER_VARIABLES if os.environ.get(name)), None)
    if asked is not None:
        folder = os.environ[asked]
        if not os.path.isdir(folder):
            message = f"The folder for temporary files, set by the environment variable {asked}, does not exist"
            raise FileNotFoundError(errno.ENOENT, message, folder)
    else:
        folder = _LARGE_FILES if os.access(_LARGE_FILES, os.W_OK | os.X_OK) else tempfile.gettempdir()
    if shutil.disk_usage(folder).free < n_bytes:
        raise OSError(errno.ENOSPC, f"{n_bytes / 2**30:.1f} GB do not fit. {_NO_ROOM}", folder)
    return folder


@contextmanager
def scratch_file() -> Iterator[IO[bytes]]:
    """Open an empty file, to be written and then viewed."""
    with tempfile.TemporaryFile(dir=scratch_folder()) as file:
        try:
            yield file
        except OSError as error:
            if error.errno == errno.ENOSPC:
                error.add_note(_NO_ROOM)
            raise


def view_file(file: IO[bytes], dtype: DTypeLike) -> NDArray[Any]:
    """Return the content of a file as a read-only array, which remains valid when the file is closed."""
    file.flush()
    if not os.fstat(file.fileno()).st_size:
        return np.empty(0, dtype)
    return np.asarray(np.memmap(file, dtype, mode="r"))


def scratch_array(size: int, dtype: DTypeLike) -> NDArray[Any]:
    """Return zeros in a file.

    Raises
    ------
    OSError
        If there is not enough disk space.
    """
    if size == 0:
        return np.zeros(0, dtype)
    n_bytes = size * np.dtype(dtype).itemsize
    # Writing into a memory-mapped file on a full disk would kill the process.
    folder = scratch_folder(n_bytes)
    with tempfile.TemporaryFile(dir=folder) as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, n_bytes)
        return np.asarray(np.memmap(file, dtype, mode="w+", shape=(size,)))


def is_in_file(array: NDArray[Any]) -> bool:
    """Whether the elements of an array are in a file rather than in memory."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(base, mmap.mmap)


def zeros_beside(array: NDArray[Any], dtype: DTypeLike) -> NDArray[Any]:
    """Return as many zeros as `array` has elements, in a file if `array` is in one."""
    return scratch_array(array.size, dtype) if is_in_file(array) else np.zeros(array.size, dtype)


def copy_beside(array: NDArray[Any], dtype: DTypeLike | None = None) -> NDArray[Any]:
    """Return a copy, in a file if `array` is in one."""
    copy = zeros_beside(array, array.dtype if dtype is None else dtype)
    for start in range(0, array.size, _BLOCK):
        copy[start : start + _BLOCK] = array[start : start + _BLOCK]
    return copy
