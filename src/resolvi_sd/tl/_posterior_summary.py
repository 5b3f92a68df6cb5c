"""Mean, spread and quantiles of posterior draws, computed without holding all draws."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from anndata import AnnData
from numpy.typing import NDArray
from spatialdata import SpatialData

from resolvi_sd._analysis import Draws, check_choices, named
from resolvi_sd._keys import DEFAULT_KEY, Keys
from resolvi_sd._model import SITES, Sampler, Site
from resolvi_sd._random import RandomLike
from resolvi_sd._tables import resolve_table
from resolvi_sd._validation import check_number

__all__ = ["posterior_summary"]

_STATISTICS = {"mean": "posterior mean", "std": "posterior standard deviation"}


def posterior_summary(
    data: SpatialData | AnnData,
    *,
    site: str,
    statistics: Sequence[str] = ("mean", "std"),
    quantiles: Sequence[float] = (),
    n_samples: int = 100,
    genes: Sequence[str] | None = None,
    cells: Sequence[str] | None = None,
    table_key: str = "table",
    key_added: str = DEFAULT_KEY,
    rng: RandomLike = 0,
    show_progress_bar: bool = True,
) -> xr.Dataset:
    """Summarize draws from the posterior, one block of cells at a time.

    The draws are those of :func:`resolvi_sd.tl.sample_posterior` with the same seed. Only the draws of one block of
    cells are held at a time, about 128 MiB.

    Parameters
    ----------
    data
        A SpatialData object or table on which :func:`resolvi_sd.tl.fit` was run, in this session or before it was
        stored.
    site
        Site to summarize, see :func:`resolvi_sd.tl.sample_posterior`; point estimates have no draws to summarize.
    statistics
        Any of `"mean"` and `"std"` (of the draws, normalized by their number); may be empty if `quantiles` are given.
    quantiles
        Probabilities between 0 and 1; quantiles are interpolated linearly between draws.
    n_samples
        Number of draws.
    genes, cells
        Names of the genes and cells; all if None.
    table_key
        Name of the table in a SpatialData object.
    key_added
        Prefix of the results of the fit.
    rng
        Seed or generator for the draws.
    show_progress_bar
        Whether to show a progress bar.

    Returns
    -------
    A dataset with a variable for each of `statistics`, with the dimensions of the site except `sample`, and, if
    `quantiles` are given, a variable `quantile` with `probability` as its first dimension; all float32. Above 1 GiB,
    the variables are dask arrays.

    Raises
    ------
    KeyError
        If there is no fit, or a cell or gene is not in the table.
    TypeError
        If `quantiles` is not a list of numbers.
    ValueError
        If the site or a statistic is unknown, the site is a point estimate, a probability or number is out of range,
        or the genes of the table are no longer those of the fit.

    Examples
    --------
    >>> import resolvi_sd as rsd
    >>> sdata = rsd.datasets.simulate_tissue(n_cells=300, n_genes=40, rng=0)
    >>> rsd.tl.fit(sdata, max_epochs=2, show_progress_bar=False)
    >>> summary = rsd.tl.posterior_summary(
    ...     sdata, site="corrected_rate", quantiles=[0.05, 0.95], n_samples=10, show_progress_bar=False
    ... )
    >>> summary["mean"].dims, summary["quantile"].dims
    (('cell', 'gene'), ('probability', 'cell', 'gene'))
    """
    kept = _check(site, statistics, quantiles)
    probabilities = np.asarray(quantiles, dtype=np.float64)
    draws = Draws.prepare(
        resolve_table(data, table_key), Keys(key_added), n_samples=n_samples, genes=genes, cells=cells, rng=rng
    )
    dims, units = SITES[site].dims[1:], SITES[site].units
    variables = {
        name: Site(dims, np.float32, f"{_STATISTICS[name]} of {SITES[site].description}", units) for name in kept
    }
    if len(probabilities):
        description = f"posterior quantiles of {SITES[site].description}"
        variables["quantile"] = Site(("probability", *dims), np.float32, description, units)
    return named(
        draws,
        partial(_block, site=site, genes=draws.genes, probabilities=probabilities),
        variables,
        rows=draws.rows_with_all_samples(),
        coordinates={"probability": probabilities} if len(probabilities) else None,
        show_progress_bar=show_progress_bar,
    )


def _check(site: str, statistics: Sequence[str], quantiles: Sequence[float]) -> tuple[str, ...]:
    """Return the statistics to compute, or raise."""
    sampled = [name for name, what in SITES.items() if what.is_sampled]
    if site in SITES and site not in sampled:
        raise ValueError(
            f"site={site!r} is a point estimate and has no draws to summarize: get it from "
            f"`resolvi_sd.tl.sample_posterior(..., sites=[{site!r}])`."
        )
    if site not in sampled:
        raise ValueError(f"site={site!r} is unknown; choose from {', '.join(map(repr, sampled))}.")
    if np.ndim(quantiles) != 1:
        raise TypeError(
            f"`quantiles` must be a list of probabilities, e.g. `quantiles=[0.05, 0.95]`, not {quantiles!r}."
        )
    for value in quantiles:
        check_number(value, argument="quantiles", least=0, most=1)
    if len(statistics) == 0 and len(quantiles):
        return ()
    return check_choices(statistics, list(_STATISTICS), argument="statistics")


def _block(
    sampler: Sampler,
    cells: NDArray[np.int64],
    statistics: Collection[str],
    samples: slice,
    *,
    site: str,
    genes: NDArray[np.int64],
    probabilities: NDArray[np.float64],
) -> Mapping[str, NDArray[Any]]:
    values: NDArray[Any] = sampler.draw(cells, [site], genes=genes, samples=samples)[site]
    out: dict[str, NDArray[Any]] = {}
    if "mean" in statistics:
        out["mean"] = values.mean(axis=0, dtype=np.float64).astype(np.float32)
    if "std" in statistics:
        out["std"] = values.std(axis=0, dtype=np.float64).astype(np.float32)
    if "quantile" in statistics:
        out["quantile"] = np.quantile(values, probabilities, axis=0).astype(np.float32)
    return out
