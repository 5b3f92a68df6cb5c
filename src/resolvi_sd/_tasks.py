"""Methods of the `ResolVI` class that wrap functions of `tl`, run on a table that is built for each call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import pandas as pd
import xarray as xr
from anndata import AnnData

from resolvi_sd import tl
from resolvi_sd._analysis import CellSelection, Mode, Weighting, selected_groups
from resolvi_sd._docstrings import borrowed_docs
from resolvi_sd._model import Weights
from resolvi_sd._random import RandomLike
from resolvi_sd._results import check_kept_counts
from resolvi_sd._state import RESULTS_KEY, ModelState
from resolvi_sd._tables import means_x
from resolvi_sd._validation import check_key

__all__ = ["TableTasks"]

# Column that marks the selected cells.
_CHOSEN = f"{RESULTS_KEY}_idx"


class TableTasks(ModelState):
    """Draws, summaries and comparisons, with the arguments of the functions of `tl`; the results are returned."""

    @borrowed_docs(tl.sample_posterior)
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
        """Draw from the posterior, as :func:`resolvi_sd.tl.sample_posterior` does.

        Parameters
        ----------
        {parameters}

        Returns
        -------
        Dataset with one variable per site, which names its dimensions and units.

        Raises
        ------
        RuntimeError
            If the model has not been trained.
        KeyError, TypeError, ValueError
            As in :func:`resolvi_sd.tl.sample_posterior`.

        Examples
        --------
        {trained_model}
        >>> draws = model.sample_posterior(sites=["shares"], n_samples=5, show_progress_bar=False)
        >>> dict(draws["shares"].sizes)
        {'sample': 5, 'cell': 300, 'source': 3}
        """
        return tl.sample_posterior(
            self._results_table(show_progress_bar=show_progress_bar),
            sites=sites,
            n_samples=n_samples,
            genes=genes,
            cells=cells,
            key_added=RESULTS_KEY,
            rng=rng,
            show_progress_bar=show_progress_bar,
        )

    @borrowed_docs(tl.posterior_summary)
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
        """Summarize draws from the posterior, as :func:`resolvi_sd.tl.posterior_summary` does.

        Parameters
        ----------
        {parameters}

        Returns
        -------
        Dataset with one variable per statistic.

        Raises
        ------
        RuntimeError
            If the model has not been trained.
        KeyError, TypeError, ValueError
            As in :func:`resolvi_sd.tl.posterior_summary`.

        Examples
        --------
        {trained_model}
        >>> summary = model.posterior_summary(site="shares", n_samples=5, show_progress_bar=False)
        >>> list(summary)
        ['mean', 'std']
        """
        return tl.posterior_summary(
            self._results_table(show_progress_bar=show_progress_bar),
            site=site,
            statistics=statistics,
            quantiles=quantiles,
            n_samples=n_samples,
            genes=genes,
            cells=cells,
            key_added=RESULTS_KEY,
            rng=rng,
            show_progress_bar=show_progress_bar,
        )

    @borrowed_docs(tl.differential_expression)
    def differential_expression(
        self,
        groupby: str | None = None,
        *,
        group1: str | Sequence[str] | None = None,
        group2: str | Sequence[str] | None = None,
        idx1: CellSelection | None = None,
        idx2: CellSelection | None = None,
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
        """Compare the true expression of groups of cells, as :func:`resolvi_sd.tl.differential_expression` does.

        Parameters
        ----------
        {parameters}
        idx1, idx2
            Cells to compare instead of groups of `groupby`, and the cells they are compared with (None means all other
            cells): a mask (a Series is matched by the names in its index), positions, names, or a query on `obs`
            (``"cell_type == 'T' and sample == 'a'"``). The groups in the result are named `idx1` and `idx2`.

        Returns
        -------
        DataFrame with one row per comparison and gene, as in `uns['resolvi_de']`.

        Raises
        ------
        RuntimeError
            If the model has not been trained.
        KeyError, TypeError, ValueError
            As in :func:`resolvi_sd.tl.differential_expression`.

        Examples
        --------
        {trained_model}
        >>> de = model.differential_expression("cell_type", n_samples=100, show_progress_bar=False)
        >>> bool(de["is_de_fdr"].any())
        True
        """
        self._check_column(groupby)
        self._check_counts()
        table = self._results_table(show_progress_bar=show_progress_bar)
        result = tl.differential_expression(
            table,
            **selected_groups(table, groupby, group1, group2, idx1, idx2, column=_CHOSEN),
            mode=mode,
            delta=delta,
            fdr=fdr,
            n_samples=n_samples,
            pseudocount=pseudocount,
            weights=weights,
            batch_correction=batch_correction,
            key_added=RESULTS_KEY,
            rng=rng,
            copy=True,
            show_progress_bar=show_progress_bar,
        )
        return cast(pd.DataFrame, result)

    @borrowed_docs(tl.niche_abundance)
    def niche_abundance(
        self, *, labels_key: str | None = None, weighting: Weighting = "uniform", show_progress_bar: bool = True
    ) -> pd.DataFrame:
        """Describe each cell by the labels of its neighbors, as :func:`resolvi_sd.tl.niche_abundance` does.

        Parameters
        ----------
        {parameters}
        show_progress_bar
            Whether to show a progress bar if the posterior still has to be computed.

        Returns
        -------
        DataFrame of cells × labels: share of each label among the neighbors.

        Raises
        ------
        RuntimeError
            If the model has not been trained.
        KeyError, TypeError, ValueError
            As in :func:`resolvi_sd.tl.niche_abundance`.

        Examples
        --------
        {trained_model}
        >>> model.niche_abundance(labels_key="cell_type", show_progress_bar=False).shape[0]
        300
        """
        self._check_labels(labels_key)
        table = self._results_table(show_progress_bar=show_progress_bar)
        result = tl.niche_abundance(table, labels_key=labels_key, weighting=weighting, key_added=RESULTS_KEY, copy=True)
        return cast(pd.DataFrame, result)

    @borrowed_docs(tl.differential_niche_abundance)
    def differential_niche_abundance(
        self,
        groupby: str | None = None,
        *,
        group1: str | Sequence[str] | None = None,
        group2: str | Sequence[str] | None = None,
        idx1: CellSelection | None = None,
        idx2: CellSelection | None = None,
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
        show_progress_bar: bool = True,
    ) -> pd.DataFrame:
        """Compare the neighborhoods of groups of cells, as :func:`resolvi_sd.tl.differential_niche_abundance` does.

        Parameters
        ----------
        {parameters}
        idx1, idx2
            Cells to compare, as in :meth:`differential_expression`.
        show_progress_bar
            Whether to show a progress bar if the posterior still has to be computed.

        Returns
        -------
        DataFrame with one row per comparison and label, as in `uns['resolvi_dna']`.

        Raises
        ------
        RuntimeError
            If the model has not been trained.
        KeyError, TypeError, ValueError
            As in :func:`resolvi_sd.tl.differential_niche_abundance`.

        Examples
        --------
        {trained_model}
        >>> dna = model.differential_niche_abundance(
        ...     "domain",
        ...     group1="domain_0",
        ...     group2="domain_1",
        ...     labels_key="cell_type",
        ...     patch_size=20,
        ...     n_samples=100,
        ...     show_progress_bar=False,
        ... )
        >>> {"group1", "label", "lfc_mean"} <= set(dna)
        True
        """
        self._check_column(groupby)
        self._check_column(sample_key, argument="sample_key")
        self._check_labels(labels_key)
        table = self._results_table(show_progress_bar=show_progress_bar)
        result = tl.differential_niche_abundance(
            table,
            **selected_groups(table, groupby, group1, group2, idx1, idx2, column=_CHOSEN),
            labels_key=labels_key,
            weighting=weighting,
            mode=mode,
            delta=delta,
            fdr=fdr,
            n_samples=n_samples,
            pseudocount=pseudocount,
            sample_key=sample_key,
            patch_size=patch_size,
            key_added=RESULTS_KEY,
            rng=rng,
            copy=True,
        )
        return cast(pd.DataFrame, result)

    @borrowed_docs(tl.pseudobulk)
    def pseudobulk(
        self,
        groupby: str,
        *,
        sample_key: str | None = None,
        layer: str | None = None,
        min_cells: int = 10,
        integer_counts: bool = True,
        show_progress_bar: bool = True,
    ) -> AnnData:
        """Sum the corrected counts of each group in each sample, as :func:`resolvi_sd.tl.pseudobulk` does.

        Parameters
        ----------
        {parameters}
        show_progress_bar
            Whether to show a progress bar if the posterior still has to be computed.

        Returns
        -------
        Table with one row per group and sample.

        Raises
        ------
        RuntimeError
            If the model has not been trained.
        KeyError, TypeError, ValueError
            As in :func:`resolvi_sd.tl.pseudobulk`.

        Examples
        --------
        {trained_model}
        >>> model.pseudobulk("domain", show_progress_bar=False).n_vars
        40
        """
        self._check_column(groupby)
        self._check_column(sample_key, argument="sample_key")
        if layer is None:
            self._check_counts()
        elif not means_x(self.adata, layer):
            check_key(layer, self.adata.layers, argument="layer", where="adata.layers", hint="layer='X' sums X.")
        return tl.pseudobulk(
            self._results_table(show_progress_bar=show_progress_bar),
            groupby=groupby,
            sample_key=sample_key,
            layer=layer,
            min_cells=min_cells,
            integer_counts=integer_counts,
            key_added=RESULTS_KEY,
        )

    def _check_counts(self) -> None:
        """Raise before the posterior is inferred if the counts of the table are no longer those of the model."""
        check_kept_counts(self._table(None), self.fitted.setup.layer, self._input.view.molecules)

    def _check_column(self, key: str | None, *, argument: str = "groupby") -> None:
        """Raise before the posterior is inferred if a column of groups is missing, or is another table."""
        if isinstance(key, AnnData):
            raise TypeError(
                "Comparisons use the cells of the model, so no table is passed: `groupby=` comes first. For other "
                "cells, use `ResolVI.load_query_data`."
            )
        if key is not None:
            check_key(key, self.adata.obs.columns, argument=argument, where="adata.obs")

    def _check_labels(self, labels_key: str | None) -> None:
        """Raise before the posterior is inferred if there are no labels of the neighbors."""
        if labels_key is not None:
            check_key(labels_key, self.adata.obs.columns, argument="labels_key", where="adata.obs")
        elif not self.fitted.labels:
            raise KeyError(
                "The model has no labels: name a column of `obs` with the labels of the cells, `labels_key=...`, or "
                "train a model with labels (`setup_anndata(..., labels_key=)`, `ResolVI(adata, semisupervised=True)`)."
            )
