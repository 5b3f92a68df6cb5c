"""Checks of the files that a user wants to write, before anything is computed."""

from __future__ import annotations

from pathlib import Path

from resolvi_sd._validation._names import listing

__all__ = ["check_folder", "check_picture"]


def check_folder(path: Path, *, argument: str) -> None:
    """Raise FileNotFoundError if a file cannot be written because its folder does not exist."""
    if not path.expanduser().absolute().parent.is_dir():
        raise FileNotFoundError(f"{argument}={str(path)!r}: the folder {str(path.parent)!r} does not exist.")


def check_picture(path: Path, *, argument: str) -> None:
    """Raise if a figure cannot be saved to a file.

    Raises
    ------
    FileNotFoundError
        If its folder does not exist.
    ValueError
        If the suffix is not a format that matplotlib can write.
    """
    from matplotlib.figure import Figure  # takes a while to load

    check_folder(path, argument=argument)
    formats = Figure().canvas.get_supported_filetypes()
    if path.suffix and path.suffix[1:].lower() not in formats:
        raise ValueError(f"{argument}={str(path)!r} is not in a supported image format: {listing(formats)}.")
