"""What the `ResolVI` class answers as the functions of `tl` do, with a table of its results made for the question."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import cast

import pandas as pd
import xarray as xr
from anndata import AnnData

from resolvi_sd import tl
from resolvi_sd._analysis import Mode, Weighting
from resolvi_sd._model.importance import Weights
from resolvi_sd._random import RandomLike

__all__ = ["TableTasks"]


class TableTasks(ABC):
    """Draws, summaries and comparisons; they take the arguments of the functions of `tl`, and return the results."""

    @abstractmethod
    def _results_table(self) -> AnnData:
        """Return a table that shares the counts of the model's and has its results, for the functions of `tl`."""

    def sample_posterior(
        self,
        *,
        sites: Sequence[str] = ("latent",),
        n_samples: int = 20,
        genes: Sequence[str] | None = None,
        cells: Sequence[str] | None = None,
        rng: RandomLike = 0,
        show_progress_bar: bool = True,
    ) -> xr.Dataset:
        """Draw from the posterior, see :func:`resolvi_sd.tl.sample_posterior`."""
        return tl.sample_posterior(
            self._results_table(),
            sites=sites,
            n_samples=n_samples,
            genes=genes,
            cells=cells,
            rng=rng,
            show_progress_bar=show_progress_bar,
        )

    def posterior_summary(
        self,
        *,
        site: str,
        statistics: Sequence[str] = ("mean", "std"),
        quantiles: Sequence[float] = (),
        n_samples: int = 100,
        genes: Sequence[str] | None = None,
        cells: Sequence[str] | None = None,
        rng: RandomLike = 0,
        show_progress_bar: bool = True,
    ) -> xr.Dataset:
        """Summarise draws from the posterior, see :func:`resolvi_sd.tl.posterior_summary`."""
        return tl.posterior_summary(
            self._results_table(),
            site=site,
            statistics=statistics,
            quantiles=quantiles,
            n_samples=n_samples,
            genes=genes,
            cells=cells,
            rng=rng,
            show_progress_bar=show_progress_bar,
        )

    def differential_expression(
        self,
        *,
        groupby: str,
        group1: str | Sequence[str] | None = None,
        group2: str | Sequence[str] | None = None,
        mode: Mode = "change",
        delta: float = 0.25,
        fdr: float = 0.05,
        n_samples: int = 5000,
        pseudocount: float | None = None,
        weights: Weights = "uniform",
        batch_correction: bool = False,
        rng: RandomLike = 0,
        show_progress_bar: bool = True,
    ) -> pd.DataFrame:
        """Compare the true expression of groups of cells, see :func:`resolvi_sd.tl.differential_expression`."""
        result = tl.differential_expression(
            self._results_table(),
            groupby=groupby,
            group1=group1,
            group2=group2,
            mode=mode,
            delta=delta,
            fdr=fdr,
            n_samples=n_samples,
            pseudocount=pseudocount,
            weights=weights,
            batch_correction=batch_correction,
            rng=rng,
            copy=True,
            show_progress_bar=show_progress_bar,
        )
        return cast(pd.DataFrame, result)

    def niche_abundance(self, *, labels_key: str | None = None, weighting: Weighting = "uniform") -> pd.DataFrame:
        """Describe each cell by the labels of its neighbors, see :func:`resolvi_sd.tl.niche_abundance`."""
        result = tl.niche_abundance(self._results_table(), labels_key=labels_key, weighting=weighting, copy=True)
        return cast(pd.DataFrame, result)

    def differential_niche_abundance(
        self,
        *,
        groupby: str,
        group1: str | Sequence[str] | None = None,
        group2: str | Sequence[str] | None = None,
        labels_key: str | None = None,
        weighting: Weighting = "uniform",
        mode: Mode = "change",
        delta: float = 0.25,
        fdr: float = 0.05,
        n_samples: int = 5000,
        pseudocount: float = 0.01,
        sample_key: str | None = None,
        patch_size: int = 100,
        rng: RandomLike = 0,
    ) -> pd.DataFrame:
        """Compare what surrounds groups of cells, see :func:`resolvi_sd.tl.differential_niche_abundance`."""
        result = tl.differential_niche_abundance(
            self._results_table(),
            groupby=groupby,
            group1=group1,
            group2=group2,
            labels_key=labels_key,
            weighting=weighting,
            mode=mode,
            delta=delta,
            fdr=fdr,
            n_samples=n_samples,
            pseudocount=pseudocount,
            sample_key=sample_key,
            patch_size=patch_size,
            rng=rng,
            copy=True,
        )
        return cast(pd.DataFrame, result)

    def pseudobulk(
        self,
        *,
        groupby: str,
        sample_key: str | None = None,
        layer: str | None = None,
        min_cells: int = 10,
        integer_counts: bool = True,
    ) -> AnnData:
        """Sum the corrected counts of each group in each sample, see :func:`resolvi_sd.tl.pseudobulk`."""
        return tl.pseudobulk(
            self._results_table(),
            groupby=groupby,
            sample_key=sample_key,
            layer=layer,
            min_cells=min_cells,
            integer_counts=integer_counts,
        )
