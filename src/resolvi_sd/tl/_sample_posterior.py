"""Named draws from the posterior of a fitted table."""

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
from resolvi_sd._model import SITES, Sampler
from resolvi_sd._random import RandomLike
from resolvi_sd._tables import resolve_table

__all__ = ["sample_posterior"]


def sample_posterior(
    data: SpatialData | AnnData,
    *,
    sites: Sequence[str] = ("latent",),
    n_samples: int = 20,
    genes: Sequence[str] | None = None,
    cells: Sequence[str] | None = None,
    table_key: str = "table",
    key_added: str = DEFAULT_KEY,
    rng: RandomLike = 0,
    show_progress_bar: bool = True,
) -> xr.Dataset:
    """Draw from the posterior of the fitted model.

    The draws of all sites belong together: the first draw of the rates and of the own molecules is that at the first
    draw of the latent. With the same seed, a subset of cells or genes gets the same numbers as it does among all of
    them (up to float32 rounding), and a smaller number of draws is the beginning of a larger one.

    Parameters
    ----------
    data
        A SpatialData object or table on which :func:`resolvi_sd.tl.fit` was run, in this session or before it was
        stored. Choose cells with `cells` rather than by subsetting the table: a subset does not know the neighbors that
        it lacks.
    sites
        Any of

        - `"latent"`: the latent z, (sample, cell, latent_dim);
        - `"expression"`: the expression profile rho, which sums to 1 over all genes, (sample, cell, gene);
        - `"shares"`: the shares alpha of the three sources, (sample, cell, source), in a query that lacks genes those
          of the molecules of all genes;
        - `"neighbor_weights"`: the neighbor weights beta, a point estimate, (cell, neighbor);
        - `"own_counts"`, `"diffused_counts"`, `"background_counts"`: whole molecules by source, int32, (sample, cell,
          gene), which add up to the counts;
        - `"corrected_rate"`: expected own molecules, library size × own share × rho, (sample, cell, gene);
        - `"residual_rate"`: expected molecules from neighbors and background, (sample, cell, gene). Both are zero for
          genes that a query lacks, and in the others on the scale of its counts.
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
        Whether to show a progress bar; for lazy results, see :mod:`dask.diagnostics` instead.

    Returns
    -------
    A dataset with a variable for each site, float32 unless stated otherwise. Coordinates are the names of cells, genes
    and sources; with `"neighbor_weights"`, `neighbor_cell` (cell, neighbor) names the neighbors, nearest first, and is
    empty where a cell has fewer. Above 1 GiB, the variables are dask arrays, chunked over cells and draws, and computed
    when they are read; the numbers are the same.

    Raises
    ------
    KeyError
        If there is no fit, or a cell or gene is not in the table.
    ValueError
        If a site is unknown, a name is repeated, a number is out of range, or the genes of the table are no longer
        those of the fit.

    References
    ----------
    Ergen & Yosef (2025), doi:10.1101/2025.01.20.634005.

    Examples
    --------
    >>> import resolvi_sd as rsd
    >>> sdata = rsd.datasets.simulate_tissue(n_cells=300, n_genes=40, rng=0)
    >>> rsd.tl.fit(sdata, max_epochs=2, show_progress_bar=False)
    >>> draws = rsd.tl.sample_posterior(
    ...     sdata, sites=["own_counts", "shares"], n_samples=5, show_progress_bar=False
    ... )
    >>> dict(draws.sizes) == {"sample": 5, "cell": 300, "gene": 40, "source": 3}
    True
    >>> bool((draws["own_counts"] <= sdata.tables["table"].X.toarray()).all())
    True
    """
    names = check_choices(sites, list(SITES), argument="sites")
    draws = Draws.prepare(
        resolve_table(data, table_key), Keys(key_added), n_samples=n_samples, genes=genes, cells=cells, rng=rng
    )
    return named(
        draws,
        partial(_block, genes=draws.genes),
        {name: SITES[name] for name in names},
        rows=draws.rows(),
        show_progress_bar=show_progress_bar,
    )


def _block(
    sampler: Sampler, cells: NDArray[np.int64], sites: Collection[str], samples: slice, *, genes: NDArray[np.int64]
) -> Mapping[str, NDArray[Any]]:
    return sampler.draw(cells, sites, genes=genes, samples=samples)
