"""The main workflow from end to end: `python -m resolvi_sd.demo`, on a simulated tissue or on a given store.

Simulates a tissue (or copies the given store), fits the model, writes the results into the store, prints a short table
and saves plots.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["main"]

_OUT = Path("demo_output")


def main(arguments: list[str] | None = None) -> None:
    """Run the demonstration.

    Parameters
    ----------
    arguments
        Command line; None means that of the process.
    """
    options = _parse(arguments)
    import matplotlib as mpl
    import spatialdata as sd

    import resolvi_sd as rsd

    mpl.use("Agg")
    # zarr warns about an upcoming default for every array that is written.
    warnings.filterwarnings("ignore", message="zarr v3 autosharding")
    logging.getLogger("resolvi_sd").addHandler(logging.StreamHandler(sys.stdout))
    options.out.mkdir(parents=True, exist_ok=True)
    store = _simulated_store(options) if options.data is None else _store_of_user(options)
    sdata = sd.read_zarr(store)

    started = time.perf_counter()
    rsd.tl.fit(sdata, table_key=options.table, layer=options.layer, max_epochs=options.max_epochs)
    seconds = time.perf_counter() - started
    rsd.io.write_results(sdata, options.table)

    table = sdata.tables[options.table]
    rows = _summary(table, seconds)
    if options.data is None:
        rows += _agreement(sdata, options.table)
    width = max(len(name) for name, _ in rows)
    sys.stdout.write("\n".join(f"{name:<{width}}  {value}" for name, value in rows) + "\n")

    counts = table.X if options.layer is None else table.layers[options.layer]
    gene = str(table.var_names[int(np.argmax(np.asarray(counts.sum(axis=0)).ravel()))])
    with warnings.catch_warnings():
        # Plotting libraries warn about each other's deprecations, which does not concern the user of a demo.
        warnings.simplefilter("ignore")
        rsd.pl.training(sdata, table_key=options.table, save=options.out / "training.png")
        rsd.pl.sources(sdata, table_key=options.table, save=options.out / "sources.png")
        rsd.pl.spatial(sdata, gene, table_key=options.table, save=options.out / "spatial.png")
    sys.stdout.write(f"Results are in {store}, plots in {options.out}.\n")


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m resolvi_sd.demo", description=__doc__)
    parser.add_argument("--data", type=Path, help="SpatialData store (.zarr); if omitted, a tissue is simulated")
    parser.add_argument("--table", default="table", help="name of the table in the store")
    parser.add_argument("--layer", help="layer with the raw counts (default: X)")
    parser.add_argument("--in-place", action="store_true", help="write the results into DATA itself instead of a copy")
    parser.add_argument("--out", type=Path, default=_OUT, help="folder for the store and the plots")
    parser.add_argument("--cells", type=int, default=6000, help="number of cells to simulate")
    parser.add_argument("--max-epochs", type=int, help="number of epochs (default: until convergence)")
    options = parser.parse_args(arguments)
    if options.data is not None and not options.data.exists():
        parser.error(f"there is no store at {options.data}")
    if options.in_place and options.data is None:
        parser.error("--in-place needs --data")
    if options.data is not None:
        table = options.data / "tables" / options.table
        if not table.is_dir():
            parser.error(f"there is no table {options.table!r} in {options.data}")
        if options.layer is not None and not (table / "layers" / options.layer).exists():
            parser.error(f"the table {options.table!r} has no layer {options.layer!r}")
    if options.max_epochs is not None and options.max_epochs < 1:
        parser.error("--max-epochs must be at least 1")
    return options


def _simulated_store(options: argparse.Namespace) -> Path:
    import resolvi_sd as rsd

    store: Path = options.out / "tissue.zarr"
    _replace(store)
    rsd.datasets.simulate_tissue(options.cells, 300, rng=0).write(store)
    return store


def _store_of_user(options: argparse.Namespace) -> Path:
    if options.in_place:
        data: Path = options.data
        return data
    store: Path = options.out / options.data.resolve().name
    if store.resolve() == options.data.resolve():
        raise SystemExit(f"{options.data} is already in the output folder: choose another --out, or use --in-place.")
    _replace(store)
    shutil.copytree(options.data, store)
    return store


def _replace(store: Path) -> None:
    """Remove the store that an earlier run created in the default folder; a store elsewhere may be the user's own."""
    if not store.exists():
        return
    if store.parent != _OUT:
        raise SystemExit(f"{store} exists already: remove it, or choose another --out.")
    shutil.rmtree(store)


def _summary(table: Any, seconds: float) -> list[tuple[str, str]]:
    from resolvi_sd._keys import Keys

    keys = Keys()
    own, diffusion, background = (100 * np.nanmean(table.obs[key]) for key in keys.shares)
    return [
        ("cells", f"{table.n_obs:,}"),
        ("genes", f"{table.n_vars:,}"),
        ("seconds to fit", f"{seconds:.0f}"),
        ("own molecules, mean share", f"{own:.1f}%"),
        ("from neighbors", f"{diffusion:.1f}%"),
        ("background", f"{background:.1f}%"),
    ]


def _agreement(sdata: Any, table_key: str) -> list[tuple[str, str]]:
    """Return how closely the data agree with the simulated truth before and after correction."""
    import resolvi_sd as rsd
    from resolvi_sd._keys import Keys

    keys = Keys()
    table = rsd.tl.normalized_expression(sdata, table_key=table_key, copy=True, show_progress_bar=False)
    truth = table.obs["true_own_share"].to_numpy()
    seen = ~np.isnan(truth)
    profile = table.layers["true_profile"][seen]
    before, after = (
        np.mean(rsd.metrics.profile_error(matrix[seen], profile)) for matrix in (table.X, table.layers[keys.expression])
    )
    removed = rsd.metrics.removal(table.X, table.layers["true_own"], table.layers[keys.counts])
    found = table.obs[keys.true].to_numpy()[seen]
    return [
        ("", ""),
        ("true own share", f"{100 * truth[seen].mean():.1f}%"),
        ("error of the own share, before", f"{np.abs(1 - truth[seen]).mean():.3f} (all assumed own)"),
        ("error of the own share, after", f"{np.abs(found - truth[seen]).mean():.3f}"),
        ("correlation of the own share", f"{np.corrcoef(found, truth[seen])[0, 1]:.2f}"),
        ("profile error, before", f"{before:.3f} (total variation, raw counts)"),
        ("profile error, after", f"{after:.3f} (normalized expression)"),
        ("foreign molecules removed", f"{100 * removed.foreign:.1f}%"),
        ("own molecules removed", f"{100 * removed.own:.1f}%"),
    ]


if __name__ == "__main__":
    main()
