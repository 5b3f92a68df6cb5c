"""Checks of the files that a user wants to write, before anything is computed."""

from __future__ import annotations

import os
from pathlib import Path

from resolvi_sd._validation._names import listing

__all__ = ["check_place", "check_picture"]


def check_place(path: Path, *, argument: str) -> None:
    """Raise if a file cannot be written to its place.

    Raises
    ------
    FileNotFoundError
        If its folder does not exist.
    IsADirectoryError
        If the place is a folder.
    PermissionError
        If its folder, or a file that it would replace, is write-protected.
    """
    place = path.expanduser().absolute()
    if not place.parent.is_dir():
        raise FileNotFoundError(f"{argument}={str(path)!r}: the folder {str(path.parent)!r} does not exist.")
    if place.is_dir():
        raise IsADirectoryError(f"{argument}={str(path)!r} is a folder: name a file in it.")
    for needed in (place.parent, *([place] if place.exists() else [])):
        if not os.access(needed, os.W_OK):
            raise PermissionError(f"{argument}={str(path)!r}: {str(needed)!r} is write-protected.")


def check_picture(path: Path, *, argument: str) -> None:
    """Raise if a figure cannot be saved to a file.

    Raises
    ------
    FileNotFoundError, IsADirectoryError, PermissionError
        As for :func:`check_place`.
    ValueError
        If the suffix is not a format that matplotlib can write.
    """
    from matplotlib import rcParams  # takes a while to load
    from matplotlib.figure import Figure

    check_place(path if path.suffix else path.with_name(f"{path.name}.{rcParams['savefig.format']}"), argument=argument)
    formats = Figure().canvas.get_supported_filetypes()
    if path.suffix and path.suffix[1:].lower() not in formats:
        raise ValueError(f"{argument}={str(path)!r} is not in a supported image format: {listing(formats)}.")
