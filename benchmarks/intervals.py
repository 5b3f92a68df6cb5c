"""How often posterior intervals hold the truth: on data drawn from the model, and on simulated tissue.

    python benchmarks/intervals.py                        # about two minutes on one core
    python benchmarks/intervals.py --cases model --plot coverage.png

The shares are those of a cell's counted molecules: what it has of each source, over what it has. Their draws, and those
of the corrected counts, are from `tl.sample_posterior`. Neighbour weights of the model are point estimates.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from spatialdata import SpatialData

import resolvi_sd as rsd
from resolvi_sd._model import Rates, ResolviModule

LEVELS = (0.5, 0.8, 0.95)
SHARES = {"own share": "own", "diffusion share": "leaked", "background share": "background"}
DEEP = "corrected counts, of 5 or more"
FOUND = dict(zip(SHARES, ("resolvi_true", "resolvi_diffusion", "resolvi_background"), strict=True))
CASES: dict[str, Callable[[int], AnnData]] = {
    "model": lambda seed: _table(rsd.datasets.simulate_from_model(1500, 200, rng=seed)),
    "model_deep": lambda seed: _table(rsd.datasets.simulate_from_model(1000, 200, counts=650.0, rng=seed)),
    "xenium": lambda seed: _table(rsd.datasets.simulate_tissue(1500, 300, transcripts=False, rng=seed)),
    "deep": lambda seed: _table(rsd.datasets.simulate_tissue(1000, 400, regime="deep", transcripts=False, rng=seed)),
}
# What stands in for the own rate, and what for the diffused one, so that the draws of own molecules are those of
# another source: there are no public draws of the others.
IN_PLACE_OF_OWN: dict[str, Callable[[Rates], Rates]] = {
    "own": lambda rates: rates,
    "leaked": lambda rates: Rates(rates.diffused, rates.own, rates.background),
    "signal": lambda rates: Rates(rates.signal, torch.zeros_like(rates.own), rates.background),
}


def _table(sdata: SpatialData) -> AnnData:
    return sdata.tables["table"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=["model", "xenium", "deep"])
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
    drawn = {source: draws_of(source, table, cells, n_samples=n_samples) for source in IN_PLACE_OF_OWN}
    molecules = {source: drawn[source].sum(axis=2) for source in ("own", "leaked")}
    molecules["background"] = counts.sum(axis=1) - drawn["signal"].sum(axis=2)
    curves = {}
    for name, source in SHARES.items():
        true = table.obs[f"true_{source}_share"].to_numpy()[cells]
        # Both as whole numbers, so that ties are ties.
        true_molecules = np.round(true * counts.sum(axis=1))
        curves[name] = rsd.metrics.coverage(molecules[source], true_molecules, levels=LEVELS)
    curves["corrected counts"] = rsd.metrics.coverage(drawn["own"], own, levels=LEVELS, where=counts > 0)
    curves[DEEP] = rsd.metrics.coverage(drawn["own"], own, levels=LEVELS, where=counts >= 5)
    return curves


def draws_of(source: str, table: AnnData, cells: np.ndarray, *, n_samples: int) -> np.ndarray:
    """Draws of the molecules of a source (`"signal"`: of all but background), samples x cells x genes."""
    rates_of = ResolviModule.rates

    def other_rates(*arguments: Any) -> Rates:
        return IN_PLACE_OF_OWN[source](rates_of(*arguments))

    with patch.object(ResolviModule, "rates", other_rates):
        draws = rsd.tl.sample_posterior(
            table,
            sites=["own_counts"],
            n_samples=n_samples,
            cells=list(table.obs_names[cells]),
            show_progress_bar=False,
        )
        return draws["own_counts"].to_numpy()


def summary(case: str, table: AnnData, cells: np.ndarray, name: str, curve: pd.DataFrame) -> dict[str, object]:
    """One row of the printed table; bias and error are those of the shares that the fit wrote."""
    row: dict[str, object] = {"case": case, "quantity": name}
    row |= {f"{level:.0%}": value for level, value in zip(curve["level"], curve["coverage"], strict=True)}
    row["s.e. 80%"] = curve["standard_error"][curve["level"] == 0.8].item()
    if name in SHARES:
        share = rsd.metrics.calibration(
            table.obs[FOUND[name]].to_numpy()[cells], table.obs[f"true_{SHARES[name]}_share"].to_numpy()[cells]
        )
        row |= {"bias": share.bias, "ECE": share.error, "slope": share.slope}
    return row


if __name__ == "__main__":
    main()
