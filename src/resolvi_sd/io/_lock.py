"""A lock for one writer of a store at a time, since copies of metadata in its root are read, edited and replaced."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from resolvi_sd._logging import logger

if sys.platform != "win32":
    import fcntl

__all__ = ["only_writer"]


@contextmanager
def only_writer(root: Path) -> Iterator[None]:
    """Become the only writer of a store, waiting for any other writer to finish.

    The folder itself is locked, so that no lock file is added to the store. The operating system releases the lock when
    a process ends, however it ends, so there are never stale locks to clean up. Readers are not blocked.

    Parameters
    ----------
    root
        Folder of the store.

    Notes
    -----
    If folders cannot be locked (on Windows and some network file systems), writers are not kept apart; on the latter, a
    warning is logged.
    """
    if sys.platform == "win32":
        yield
        return
    folder = os.open(root, os.O_RDONLY)
    try:
        _lock(folder, root)
        yield
    finally:
        os.close(folder)


def _lock(folder: int, root: Path) -> None:
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        logger.info("Waiting for another process or thread that is writing to %s.", root)
        fcntl.flock(folder, fcntl.LOCK_EX)
    except OSError as error:  # the file system has no such locks
        logger.warning("%s cannot be locked (%s): no other process may write to it at the same time.", root, error)
