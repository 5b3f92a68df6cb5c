"""Coordinates of the cells: finite, of cells rather than spots, and of one section."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy.spatial import KDTree

from resolvi_sd._validation._warning import warn_user

__all__ = ["check_coordinates", "warn_overlapping_sections", "warn_spots"]

# Spots lie on a lattice: nearly all nearest neighbors are at the pitch, up to rounding to pixels. Segmented cells
# are not even close: at most a fifth of them are within 5 % of the median (Xenium, MERFISH, CosMx, ISS).
_LATTICE_TOLERANCE = 0.05
_LATTICE_SHARE = 0.9
_NAMES, _BARCODE = 1000, r"[ACGTN]{8,}(-\d+)?"
_LATTICE_CELLS = 20
_LATTICE_SAMPLE = 2_000
# Segmented cells have a size: at most 0.04% have their nearest at a fifth of the median (Xenium, MERFISH, CosMx, ISS),
# of sections on top of each other 1 to 3%. Those pairs are of different sections (0 to 3% of what chance would make the
# same), where groups in one section are as often the same as by chance, or more (0.8 to 7 times).
_TOO_NEAR, _MOST_NEAR, _LEAST_SAME = 0.2, 0.005, 0.2
_ENOUGH_PAIRS = 10
_MOST_SECTIONS = 100


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
    warn_user(
        f"This looks like spot data (Visium, Slide-seq or bins): {evidence}. The model assumes that a row is a "
        "single segmented cell; on spots, shares and corrected counts do not mean what they say."
    )


def warn_overlapping_sections(obs: pd.DataFrame, nearest: NDArray[np.int64], distance: NDArray[np.floating]) -> None:
    """Warn if cells lie on top of each other, and a column tells those apart: sections taken for one.

    Parameters
    ----------
    obs
        Columns of the cells.
    nearest, distance
        Row of the nearest cell of each cell, and the distance between their centers.
    """
    near = np.flatnonzero(distance < _TOO_NEAR * np.median(distance))
    if len(near) < _MOST_NEAR * len(obs):
        return
    found = [str(name) for name in obs.columns if _tells_apart(obs[name], near, nearest[near])]
    if found:
        columns = " and ".join(f"obs[{name!r}]" for name in found)
        warn_user(
            f"{len(near):,} cells lie on top of others, which differ from them in {columns}: are these "
            f"different sections, whose coordinates overlap? Then pass library_key={found[0]!r}, so that cells of "
            "different sections are no neighbors."
        )


def _tells_apart(column: pd.Series[Any], first: NDArray[np.int64], second: NDArray[np.int64]) -> bool:
    """Whether a column has few values, and pairs of cells the same one far more seldom than by chance."""
    if column.dtype.kind in "fc":
        return False
    code, values = pd.factorize(column)
    if not 2 <= len(values) <= _MOST_SECTIONS:
        return False
    share = np.bincount(code[code >= 0], minlength=len(values)) / len(code)
    by_chance = len(first) * float(np.square(share).sum())
    return by_chance >= _ENOUGH_PAIRS and float((code[first] == code[second]).sum()) <= _LEAST_SAME * by_chance


def _on_lattice(coordinates: NDArray[np.float64]) -> bool:
    """Whether nearly all nearest-neighbor distances are the same, as for spots on a grid."""
    if len(coordinates) < _LATTICE_CELLS:
        return False
    some = coordinates[:: max(1, len(coordinates) // _LATTICE_SAMPLE)]
    nearest = np.asarray(KDTree(coordinates).query(some, k=2)[0])[:, 1]
    pitch = float(np.median(nearest))
    return pitch > 0 and float((np.abs(nearest - pitch) <= _LATTICE_TOLERANCE * pitch).mean()) >= _LATTICE_SHARE
