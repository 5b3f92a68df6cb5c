"""Coordinates of the cells, and spots that are none."""

from __future__ import annotations

import warnings

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray
from scipy.spatial import KDTree

__all__ = ["check_coordinates", "warn_spots"]

# Spots lie on a lattice: nearly all nearest neighbors are at the pitch, up to rounding to pixels. Segmented cells
# are not even close: at most a fifth of them are within 5 % of the median (Xenium, MERFISH, CosMx, ISS).
_LATTICE_TOLERANCE = 0.05
_LATTICE_SHARE = 0.9
_NAMES, _BARCODE = 1000, r"[ACGTN]{8,}(-\d+)?"
_LATTICE_CELLS = 20
_LATTICE_SAMPLE = 2_000


def check_coordinates(coordinates: NDArray[np.float64], *, where: str) -> None:
    """Raise unless there are two or three finite coordinates per cell.

    Raises
    ------
    ValueError
        If the shape is wrong, or if coordinates are NaN or infinite.
    """
    if coordinates.ndim != 2 or coordinates.shape[1] not in (2, 3):
        raise ValueError(f"{where} must have 2 or 3 columns (x, y or x, y, z), but its shape is {coordinates.shape}.")
    bad = int((~np.isfinite(coordinates).all(axis=1)).sum())
    if bad:
        raise ValueError(
            f"{where}: {bad} of {len(coordinates)} cells have NaN or infinite coordinates. "
            "Drop those cells first, or repair their geometries."
        )


def warn_spots(adata: AnnData, coordinates: NDArray[np.float64], library: NDArray[np.int32]) -> None:
    """Warn if the rows look like spots, beads or bins rather than segmented cells.

    The evidence is the position in the capture array that Space Ranger writes (`array_row`, `array_col`), the
    coordinates of the largest section lying on a lattice, or names that are DNA barcodes, as of the beads of Slide-seq:
    segmented cells have none.
    """
    if {"array_row", "array_col"} <= set(adata.obs.columns):
        evidence = "`obs` has `array_row` and `array_col`"
    elif _on_lattice(coordinates[library == np.bincount(library).argmax()]):
        evidence = "the coordinates lie on a regular lattice"
    elif adata.obs_names[:_NAMES].astype(str).str.fullmatch(_BARCODE).all():
        evidence = f"the rows are named by DNA barcodes ({adata.obs_names[0]!r}, ...)"
    else:
        return
    warnings.warn(
        f"This looks like spot data (Visium, Slide-seq or bins): {evidence}. The model assumes that a row is a "
        "single segmented cell; on spots, shares and corrected counts do not mean what they say.",
        UserWarning,
        stacklevel=3,
    )


def _on_lattice(coordinates: NDArray[np.float64]) -> bool:
    """Whether nearly all nearest-neighbor distances are the same, as for spots on a grid."""
    if len(coordinates) < _LATTICE_CELLS:
        return False
    some = coordinates[:: max(1, len(coordinates) // _LATTICE_SAMPLE)]
    nearest = np.asarray(KDTree(coordinates).query(some, k=2)[0])[:, 1]
    pitch = float(np.median(nearest))
    return pitch > 0 and float((np.abs(nearest - pitch) <= _LATTICE_TOLERANCE * pitch).mean()) >= _LATTICE_SHARE
