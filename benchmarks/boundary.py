"""Does it help to measure distances between outlines? Fits by centroid and by boundary, where leakage crosses outlines.

    python benchmarks/boundary.py                       # simulated tissues, some five minutes on two cores
    python benchmarks/boundary.py --data my.zarr        # how the graphs of a real section differ, and the fits

In the simulated tissues a molecule is counted by the outline it ends up in, so that what leaks goes by boundary.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from score import foreign_removed_at
from spatialdata import SpatialData, read_zarr
from spatialdata.models import ShapesModel

import resolvi_sd as rsd
from resolvi_sd.datasets import REGIMES

N_CELLS, N_GENES = 3000, 200
STRETCH = 3.0
CASES: dict[str, Callable[[int], SpatialData]] = {
    "round": lambda seed: _simulate("xenium", seed),
    "unequal": lambda seed: _simulate(replace(REGIMES["xenium"], size_sd=0.6, radius=9.0), seed),
    "elongated": lambda seed: _stretched(_simulate("xenium", seed)),
}
DISTANCES = ("centroid", "boundary")


def _simulate(regime: Any, seed: int) -> SpatialData:
    return rsd.datasets.simulate_tissue(N_CELLS, N_GENES, regime=regime, transcripts=False, rng=seed)


def _stretched(sdata: SpatialData) -> SpatialData:
    """The same section drawn out along x: who leaks into whom stays, distances of centroids do not."""
    shapes = sdata.shapes["cells"]
    shapes = shapes.set_geometry(shapes.geometry.scale(xfact=STRETCH, origin=(0, 0)))
    sdata.shapes["cells"] = ShapesModel.parse(shapes.drop(columns="radius", errors="ignore"))
    sdata.tables["table"].obsm["spatial"] = sdata.tables["table"].obsm["spatial"] * [STRETCH, 1.0]
    return sdata


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--data", help="a SpatialData store in place of the simulations")
    parser.add_argument("--table", default="table")
    options = parser.parse_args()
    logging.getLogger("resolvi_sd").setLevel(logging.WARNING)
    if options.data:
        print(compare_real(options.data, options.table))
        return
    rows = []
    for case, seed in product(options.cases, range(options.seeds)):
        sdata = CASES[case](seed)
        for distance in DISTANCES:
            rsd.tl.fit(sdata, distance=distance, rng=seed, show_progress_bar=False)
            rows.append({"case": case, "distance": distance} | scores(sdata.tables["table"]))
    table = pd.DataFrame(rows).groupby(["case", "distance"], sort=False).mean()
    print(table.round(3).to_string())


def scores(table: AnnData) -> dict[str, float]:
    """What was found of the leakage."""
    rsd.tl.normalized_expression(table, library_size=1.0, show_progress_bar=False)
    true, found = table.obsp["true_flow"].tocsr(), table.obsp["resolvi_flow"].tocsr()
    graph = (table.obsp["resolvi_connectivities"] > 0).astype(float)
    pairs = ((true > 0).astype(float) + graph).tocoo()
    share = table.obs["true_own_share"].to_numpy()
    seen = ~np.isnan(share)
    profile = rsd.metrics.profile_error(table.layers["resolvi_expression"], table.layers["true_profile"])
    return {
        "leak from graph neighbors": float(true.multiply(graph).sum() / true.sum()),
        "flow r": _correlation(true, found, pairs),
        "own share r": float(np.corrcoef(table.obs["resolvi_true"][seen], share[seen])[0, 1]),
        "profile error": float(np.nanmean(profile)),
        "foreign removed at 10% own": foreign_removed_at(
            0.1, table.X, table.layers["true_own"], table.layers["resolvi_counts"]
        )
        or np.nan,
    }


def _correlation(true: sp.csr_matrix, found: sp.csr_matrix, pairs: sp.coo_matrix) -> float:
    """Of the molecules that went from one cell to another, over all pairs where there were or could be any."""
    at = pairs.row, pairs.col
    return float(np.corrcoef(np.asarray(true[at]).ravel(), np.asarray(found[at]).ravel())[0, 1])


def compare_real(path: str, table_key: str) -> str:
    """How the two graphs of a section differ, and what the fits make of it."""
    tables = {}
    for distance in DISTANCES:
        sdata = read_zarr(path)
        rsd.tl.fit(sdata, table_key=table_key, distance=distance, rng=0, show_progress_bar=False)
        tables[distance] = sdata.tables[table_key]
    first, second = (tables[d].obsp["resolvi_connectivities"] > 0 for d in DISTANCES)
    gaps = tables["boundary"].obsp["resolvi_distances"]
    # Neighbors that touch have distance zero, and are only in the connectivities.
    touching = second.nnz - (gaps > 0).nnz
    corrected = [tables[d].layers["resolvi_counts"].sum(axis=1).A1 for d in DISTANCES]
    total = tables["boundary"].X.sum(axis=1).A1
    some = total > 0
    shares = [c[some] / total[some] for c in corrected]
    return "\n".join(
        [
            f"neighbors in both graphs: {first.multiply(second).sum() / first.sum():.3f}",
            f"neighbors that touch: {touching / second.nnz:.3f}",
            f"mean own share: {shares[0].mean():.3f} by centroid, {shares[1].mean():.3f} by boundary",
            f"correlation of the own share: {np.corrcoef(*shares)[0, 1]:.3f}",
        ]
    )


if __name__ == "__main__":
    main()
