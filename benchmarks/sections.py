"""Pieces of real sections, which some cases are about."""

from __future__ import annotations

import os
from pathlib import Path

import anndata as ad
import numpy as np
from anndata import AnnData
from exchange import MIN_COUNTS

# Environment variable with the folder of the real data.
DATA_VARIABLE = "RESOLVI_SD_DATA"
# File of each data set, and the column of its sections if it has several; a seed takes one section.
DATA = {
    "mpoa": ("merfish_mpoa.h5ad", "sample"),
    "cosmx": ("cosmx_nsclc.h5ad", "sample"),
    "pancreas": ("xenium_pancreas.h5ad", None),
    "breast": ("xenium_breast.h5ad", None),
    "iss": ("iss_ca1.h5ad", None),
}


def real_data_folder() -> Path:
    """Return the folder of the real data."""
    folder = os.environ.get(DATA_VARIABLE)
    if not folder:
        raise RuntimeError(f"This needs real data: set {DATA_VARIABLE} to the folder that holds it.")
    return Path(folder)


def piece(name: str, n_cells: int, rng: np.random.Generator, seed: int) -> AnnData:
    """Return the cells nearest to one of them, with enough molecules: a piece of tissue, with its neighbors.

    The counts are float32 in CSR form with sorted columns.
    """
    file, section = DATA[name]
    table = ad.read_h5ad(real_data_folder() / file)
    if section is not None:
        sections = table.obs[section].unique()
        table = table[(table.obs[section] == sections[seed % len(sections)]).to_numpy()]
    table = table[np.asarray(table.X.sum(axis=1)).ravel() >= MIN_COUNTS]
    position = np.asarray(table.obsm["spatial"], dtype=np.float64)
    distance = np.linalg.norm(position - position[rng.integers(len(position))], axis=1)
    table = table[np.sort(np.argsort(distance, kind="stable")[:n_cells])].copy()
    table.X = table.X.astype(np.float32).tocsr()
    table.X.sort_indices()
    return table
