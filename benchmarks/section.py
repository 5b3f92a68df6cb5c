"""A whole Xenium section (human pancreas, 140,702 cells × 377 genes) by default settings: time, epochs, memory.

    RESOLVI_SD_DATA=folder python benchmarks/section.py

The section is `xenium_pancreas.h5ad` in the folder; another file is `--file`.
"""

from __future__ import annotations

import argparse

import anndata as ad
import exchange
import torch
from sections import real_data_folder

import resolvi_sd as rsd


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--file", default="xenium_pancreas.h5ad")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    table = ad.read_h5ad(real_data_folder() / options.file)
    before, watch = exchange.peak_memory(), exchange.Stopwatch()
    with watch("fit"):
        rsd.tl.fit(table)
    after_fit = exchange.peak_memory()
    with watch("decontaminated counts"):
        rsd.tl.decontaminated_counts(table)
    epochs = len(table.uns["resolvi"]["history"]["epoch"])
    shares = ", ".join(f"{table.obs[key].mean():.3f}" for key in table.obs if key.startswith("resolvi_"))
    print(f"{table.n_obs:,} x {table.n_vars:,}: {watch.seconds['fit']:.0f} s for {epochs} epochs; peak memory")
    print(f"{after_fit:.0f} MB, {before:.0f} MB of it before the fit; mean shares {shares}")
    print(f"decontaminated counts: {watch.seconds['decontaminated counts']:.1f} s, {exchange.peak_memory():.0f} MB")


if __name__ == "__main__":
    main()
