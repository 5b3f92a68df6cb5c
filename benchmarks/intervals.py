"""How often posterior intervals hold the truth: on data drawn from the model, and on simulated tissue.

    python benchmarks/intervals.py                        # about two minutes
    python benchmarks/intervals.py --cases model --plot coverage.png

The shares are those of a cell's counted molecules: what it has of each source, over what it has. Their draws, and those
of the corrected counts, are from `tl.sample_posterior`. Neighbour weights of the model are point estimates.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
from anndata import AnnData

import resolvi_sd as rsd

LEVELS = (0.5, 0.8, 0.95)
# Site of the draws, and what the simulation and the fit call the share.
SHARES = {
    "own share": ("own_counts", "true_own_share", "resolvi_true"),
    "diffusion share": ("diffused_counts", "true_leaked_share", "resolvi_diffusion"),
    "background share": ("background_counts", "true_background_share", "resolvi_background"),
}
DEEP = "corrected counts, of 5 or more"


def from_model(n_cells: int, seed: int, **settings: float) -> AnnData:
    return rsd.datasets.simulate_from_model(n_cells, 200, rng=seed, **settings).tables["table"]


def from_tissue(n_cells: int, n_genes: int, regime: str, seed: int) -> AnnData:
    sdata = rsd.datasets.simulate_tissue(n_cells, n_genes, regime=regime, transcripts=False, rng=seed)
    return sdata.tables["table"]


CASES: dict[str, Callable[[int], AnnData]] = {
    "model": partial(from_model, 1500),
    "model_deep": partial(from_model, 1000, counts=650.0),
    "xenium": partial(from_tissue, 1500, 300, "xenium"),
    "deep": partial(from_tissue, 1000, 400, "deep"),
    **{regime: partial(from_tissue, 1500, 300, regime) for regime in ("sparse", "merfish", "high_background", "clean")},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cells", type=int, default=500, help="cells that are drawn")
    parser.add_argument("--samples", type=int, default=99, help="draws of each")
    parser.add_argument("--plot", help="file to draw the calibration of the last case into")
    options = parser.parse_args()
    logging.getLogger("resolvi_sd").setLevel(logging.WARNING)
    rows = []
    for case in options.cases:
        table = CASES[case](options.seed)
        start = time.perf_counter()
        rsd.tl.fit(table, rng=options.seed, show_progress_bar=False)
        fitted = time.perf_counter()
        cells = some_cells(table, options.cells, seed=options.seed)
        curves = coverage_of(table, cells, n_samples=options.samples)
        seconds = fitted - start, time.perf_counter() - fitted
        print(f"{case}: {table.n_obs:,} x {table.n_vars:,}; fit {seconds[0]:.0f} s, draws {seconds[1]:.0f} s")
        rows += [summary(case, table, cells, name, curve) for name, curve in curves.items()]
    print(pd.DataFrame(rows).to_string(index=False, float_format="{:.3f}".format, na_rep=""))
    if options.plot:
        drawn = {name: curve for name, curve in curves.items() if name != DEEP}
        rsd.pl.calibration(table, coverage=drawn, title=case, save=options.plot)


def some_cells(table: AnnData, n_cells: int, *, seed: int) -> np.ndarray:
    """Rows of cells that have counts."""
    filled = np.flatnonzero(np.asarray(table.X.sum(axis=1)).ravel() > 0)
    return np.sort(np.random.default_rng(seed).choice(filled, min(n_cells, len(filled)), replace=False))


def coverage_of(table: AnnData, cells: np.ndarray, *, n_samples: int) -> dict[str, pd.DataFrame]:
    """Coverage of each quantity, at all levels."""
    counts, own = table.X[cells].toarray(), table.layers["true_own"][cells].toarray()
    draws = rsd.tl.sample_posterior(
        table,
        sites=[site for site, *_ in SHARES.values()],
        n_samples=n_samples,
        cells=list(table.obs_names[cells]),
        show_progress_bar=False,
    )
    curves = {}
    for name, (site, true_share, _) in SHARES.items():
        # Both as whole numbers, so that ties are ties.
        true_molecules = np.round(table.obs[true_share].to_numpy()[cells] * counts.sum(axis=1))
        curves[name] = rsd.metrics.coverage(draws[site].sum("gene").to_numpy(), true_molecules, levels=LEVELS)
    drawn = draws["own_counts"].to_numpy()
    curves["corrected counts"] = rsd.metrics.coverage(drawn, own, levels=LEVELS, where=counts > 0)
    curves[DEEP] = rsd.metrics.coverage(drawn, own, levels=LEVELS, where=counts >= 5)
    return curves


def summary(case: str, table: AnnData, cells: np.ndarray, name: str, curve: pd.DataFrame) -> dict[str, object]:
    """One row of the printed table; bias and error are those of the shares that the fit wrote."""
    row: dict[str, object] = {"case": case, "quantity": name}
    row |= {f"{level:.0%}": value for level, value in zip(curve["level"], curve["coverage"], strict=True)}
    row["s.e. 80%"] = curve["standard_error"][curve["level"] == 0.8].item()
    if name in SHARES:
        _, true_share, found = SHARES[name]
        share = rsd.metrics.calibration(*(table.obs[column].to_numpy()[cells] for column in (found, true_share)))
        row |= {"bias": share.bias, "ECE": share.error, "slope": share.slope}
    return row


if __name__ == "__main__":
    main()
