"""Checks of the coordinates: finite, of cells rather than spots, and without overlapping sections."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy.spatial import KDTree

from resolvi_sd._validation._warning import warn_user

__all__ = ["check_coordinates", "warn_of_units", "warn_of_overlapping_sections", "warn_of_spots"]

# Spots lie on a lattice: nearly all nearest-neighbor distances equal the pitch, up to rounding to pixels. Segmented
# cells are far from this: at most a fifth of them are within 5% of the median (Xenium, MERFISH, CosMx, ISS).
_LATTICE_TOLERANCE = 0.05
_LATTICE_SHARE = 0.9
_NAMES, _BARCODE = 1000, r"[ACGTN]{8,}(-\d+)?"
_LATTICE_CELLS = 20
_LATTICE_SAMPLE = 2_000
# Segmented cells occupy space: for at most 0.04% of them, the nearest cell is within a fifth of the median distance
# (Xenium, MERFISH, CosMx, ISS); in overlapping sections, for 1 to 3%. Such pairs come from different sections (they
# share a section 0 to 3% as often as by chance), whereas they share groups within one section as often as by chance or
# more often (0.8 to 7 times).
_TOO_NEAR, _MOST_NEAR, _LEAST_SAME = 0.2, 0.005, 0.2
_ENOUGH_PAIRS = 10
_MOST_SECTIONS = 100
# Median distances between nearest cells differ by a smaller factor than this between sections of tissue.
_MOST_STRETCH, _ENOUGH_CELLS = 3.0, 20


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
            "Drop these cells first, or repair their geometries."
        )


def warn_of_spots(adata: AnnData, coordinates: NDArray[np.float64], section: NDArray[np.int64]) -> None:
    """Warn if the rows look like spots, beads or bins rather than segmented cells.

    Evidence is any of the following, none of which segmented cells have: the position in the capture array that Space
    Ranger writes (`array_row`, `array_col`), coordinates of the largest section that lie on a lattice, or DNA barcodes
    as names, such as those of Slide-seq beads.
    """
    if {"array_row", "array_col"} <= set(adata.obs.columns):
        evidence = "`obs` has `array_row` and `array_col`"
    elif _on_lattice(coordinates[section == np.bincount(section).argmax()]):
        evidence = "the coordinates lie on a regular lattice"
    elif adata.obs_names[:_NAMES].astype(str).str.fullmatch(_BARCODE).all():
        evidence = f"the rows are named by DNA barcodes ({adata.obs_names[0]!r}, ...)"
    else:
        return
    warn_user(
        f"This looks like spot data (Visium, Slide-seq or bins): {evidence}. The model assumes that each row is a "
        "single segmented cell; for spots, shares and corrected counts cannot be interpreted as such."
    )


def warn_of_overlapping_sections(obs: pd.DataFrame, nearest: NDArray[np.int64], distance: NDArray[np.floating]) -> None:
    """Warn if cells overlap and a column separates them, so that several sections may be treated as one.

    Parameters
    ----------
    obs
        Columns of `obs`.
    nearest, distance
        Row of the nearest cell of each cell, and the distance between their centers.
    """
    near = np.flatnonzero(distance < _TOO_NEAR * np.median(distance))
    if len(near) < _MOST_NEAR * len(obs):
        return
    found = [str(name) for name, column in obs.items() if _tells_apart(column, near, nearest[near])]
    if found:
        columns = " and ".join(f"obs[{name!r}]" for name in found)
        warn_user(
            f"{len(near):,} cells lie on top of others, which differ from them in {columns}: are these "
            f"different sections with overlapping coordinates? If so, pass library_key={found[0]!r}, so that cells of "
            "different sections are not neighbors."
        )


def warn_of_units(section: NDArray[np.int64], distance: NDArray[np.floating], names: tuple[str, ...]) -> None:
    """Warn if cells are so much farther apart in one section than in another that their units must differ.

    Parameters
    ----------
    section
        Section of each cell, `(n_cells,)`.
    distance
        Distance from each cell to its nearest neighbor.
    names
        Names of the sections.
    """
    found = pd.Series(distance).groupby(section).agg(["median", "size"])
    median = found.loc[(found["size"] >= _ENOUGH_CELLS) & (found["median"] > 0), "median"].sort_values()
    if len(median) > 1 and median.iloc[-1] > _MOST_STRETCH * median.iloc[0]:
        near, far = (names[code] for code in (median.index[0], median.index[-1]))
        warn_user(
            f"Nearest cells are {median.iloc[-1]:.3g} apart in section {far!r} and {median.iloc[0]:.3g} in {near!r}: "
            "are their coordinates in different units, such as pixels and micrometers? The model has one length scale "
            "for all sections: convert them to the same unit."
        )


def _tells_apart(column: pd.Series[Any], first: NDArray[np.int64], second: NDArray[np.int64]) -> bool:
    """Whether a column has few values, and pairs of cells share a value far less often than by chance."""
    if column.dtype.kind in "fc":
        return False
    try:
        code, values = pd.factorize(column)
    except TypeError:  # of lists, for example
        return False
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
