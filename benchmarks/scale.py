"""Many cells: time of an epoch and of all else, and memory, with the counts in memory or on disk.

    python benchmarks/scale.py --cells 1000000 --backed

The cells are copies of a simulated section of 50,000 × 300 (regime xenium), in sections of at most a million. Memory is
that which no file stands behind (Linux): pages of mapped files are given back when others need the room.
"""

from __future__ import annotations

import argparse
import importlib
import tempfile
import threading
import time
from pathlib import Path

import anndata as ad
import exchange
import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from torch.multiprocessing.spawn import spawn

import resolvi_sd as rsd

_PIECE, _GENES, _LARGEST_SECTION = 50_000, 300, 1_000_000


class Memory(threading.Thread):
    """Watches the memory of this process, GB."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0.0

    @staticmethod
    def now() -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) / 2**20

    def run(self) -> None:
        while True:
            self.peak = max(self.peak, self.now())
            time.sleep(0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=1_000_000)
    parser.add_argument("--backed", action="store_true", help="leave the counts on disk")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    # The first call of all compiles kernels and loads libraries.
    rsd.tl.fit(rsd.datasets.simulate_tissue(300, 50, transcripts=False, rng=0), max_epochs=1, show_progress_bar=False)
    base = Memory.now()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        path = Path(folder) / "cells.h5ad"
        # In a process of its own, whose memory is gone then.
        spawn(write_cells, args=(path, options.cells), nprocs=1)
        table = ad.read_h5ad(path, backed="r" if options.backed else None)
        loaded, memory = Memory.now(), Memory()
        training = exchange.Phase(importlib.import_module("resolvi_sd._engine"), "train_on_devices")
        memory.start()
        watch = exchange.Stopwatch()
        with watch("fit"):
            rsd.tl.fit(table, library_key="section", max_epochs=options.epochs, show_progress_bar=False)
        seconds, epoch = watch.seconds["fit"], training.seconds / options.epochs
        print(f"{table.n_obs:,} x {table.n_vars}, counts {'on disk' if options.backed else 'in memory'}:")
        print(f"{epoch:.0f} s an epoch, {seconds - training.seconds:.0f} s all else; memory {base:.2f} GB before,")
        print(f"{loaded:.2f} GB with the table, {memory.peak:.2f} GB at most")


def write_cells(_: int, path: Path, n_cells: int) -> None:
    """Write copies of a simulated section side by side."""
    piece = rsd.datasets.simulate_tissue(_PIECE, _GENES, regime="xenium", transcripts=False, rng=0).tables["table"]
    counts, place = piece.X.astype(np.float32).tocsr(), np.asarray(piece.obsm["spatial"])
    step = np.ptp(place, axis=0) + 20
    n_pieces, per_section = -(-n_cells // _PIECE), _LARGEST_SECTION // _PIECE
    columns = max(1, round(per_section**0.5))
    # Neighbouring sections may overlap: cells of different ones are never neighbors.
    spots = [divmod(i % per_section, columns) for i in range(n_pieces)]
    table = ad.AnnData(
        sp.vstack([counts] * n_pieces, format="csr")[:n_cells],
        obs=pd.DataFrame(index=np.arange(n_cells).astype(str)),
        obsm={"spatial": np.concatenate([place + step * spot for spot in spots])[:n_cells]},
    )
    table.obs["section"] = pd.Categorical((np.arange(n_cells) // _LARGEST_SECTION).astype(str))
    table.write_h5ad(path)


if __name__ == "__main__":
    main()
