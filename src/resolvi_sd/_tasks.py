"""Methods of the `ResolVI` class that wrap functions of `tl`, run on a table that is built for each call."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, TypeAlias, cast

import numpy as np
import pandas as pd
import xarray as xr
from anndata import AnnData
from numpy.typing import NDArray

from resolvi_sd import tl
from resolvi_sd._analysis import Mode, Weighting
from resolvi_sd._docstrings import borrowed_docs
from resolvi_sd._model import Weights
from resolvi_sd._random import RandomLike
from resolvi_sd._validation import check_unique, listing

__all__ = ["RESULTS_KEY", "TableTasks"]

# A mask, positions or names of cells, or a query on `obs`.
CellSelection: TypeAlias = (
    "str | Sequence[bool] | Sequence[int] | Sequence[str] | NDArray[np.bool_] | NDArray[np.integer] | pd.Series[bool]"
)
# Prefix of the results in a table that is built for one call; not a name that users would choose.
RESULTS_KEY = "resolvi_object"
# Column of such a table that marks the selected cells.
_CHOSEN = f"{RESULTS_KEY}_idx"


class TableTasks(ABC):
    """Draws, summaries and comparisons, with the arguments of the functions of `tl`; the results are returned."""

    @abstractmethod
    def _results_table(self, *, show_progress_bar: bool = True) -> AnnData:
        """Return a table with the counts (shared) and results of the model, as input for the functions of `tl`."""

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
        """
        table = self._results_table(show_progress_bar=show_progress_bar)
        result = tl.differential_expression(
            table,
            **_compared(table, groupby, group1, group2, idx1, idx2),
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
    def niche_abundance(self, *, labels_key: str | None = None, weighting: Weighting = "uniform") -> pd.DataFrame:
        """Describe each cell by the labels of its neighbors, as :func:`resolvi_sd.tl.niche_abundance` does.

        Parameters
        ----------
        {parameters}

        Returns
        -------
        DataFrame of cells × labels: share of each label among the neighbors.

        Raises
        ------
        RuntimeError
            If the model has not been trained.
        KeyError, TypeError, ValueError
            As in :func:`resolvi_sd.tl.niche_abundance`.
        """
        table = self._results_table()
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
    ) -> pd.DataFrame:
        """Compare the neighborhoods of groups of cells, as :func:`resolvi_sd.tl.differential_niche_abundance` does.

        Parameters
        ----------
        {parameters}
        idx1, idx2
            Cells to compare, as in :meth:`differential_expression`.

        Returns
        -------
        DataFrame with one row per comparison and label, as in `uns['resolvi_dna']`.

        Raises
        ------
        RuntimeError
            If the model has not been trained.
        KeyError, TypeError, ValueError
            As in :func:`resolvi_sd.tl.differential_niche_abundance`.
        """
        table = self._results_table()
        result = tl.differential_niche_abundance(
            table,
            **_compared(table, groupby, group1, group2, idx1, idx2),
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
    ) -> AnnData:
        """Sum the corrected counts of each group in each sample, as :func:`resolvi_sd.tl.pseudobulk` does.

        Parameters
        ----------
        {parameters}

        Returns
        -------
        Table with one row per group and sample.

        Raises
        ------
        RuntimeError
            If the model has not been trained.
        KeyError, TypeError, ValueError
            As in :func:`resolvi_sd.tl.pseudobulk`.
        """
        return tl.pseudobulk(
            self._results_table(),
            groupby=groupby,
            sample_key=sample_key,
            layer=layer,
            min_cells=min_cells,
            integer_counts=integer_counts,
            key_added=RESULTS_KEY,
        )


def _compared(
    table: AnnData,
    groupby: str | None,
    group1: str | Sequence[str] | None,
    group2: str | Sequence[str] | None,
    idx1: CellSelection | None,
    idx2: CellSelection | None,
) -> dict[str, Any]:
    """Return the comparison as arguments for the functions of `tl`; selected cells are marked in a column of the table.

    Raises
    ------
    ValueError
        If neither or both of a column and cells are given, or if cells are on both sides.
    """
    if idx1 is None:
        if idx2 is not None or groupby is None:
            raise ValueError(
                "Specify which cells to compare: groupby=..., a column of `obs` with groups, or idx1=..., a selection "
                "of cells (`idx2` selects the cells that they are compared with)."
            )
        return {"groupby": groupby, "group1": group1, "group2": group2}
    named = {"groupby": groupby, "group1": group1, "group2": group2}
    if given := [name for name, value in named.items() if value is not None]:
        raise ValueError(f"`idx1` already selects the cells: leave out {', '.join(f'`{name}`' for name in given)}.")
    first = _chosen(table, idx1, argument="idx1")
    second = ~first if idx2 is None else _chosen(table, idx2, argument="idx2")
    if not second.any():
        raise ValueError("`idx1` contains all cells of the table: there is nothing to compare them with.")
    if both := int((first & second).sum()):
        raise ValueError(f"{both:,} cells are in both `idx1` and `idx2`.")
    sides = np.select([first, second], [0, 1], -1)
    table.obs[_CHOSEN] = pd.Categorical.from_codes(sides, categories=pd.Index(["idx1", "idx2"]))
    return {"groupby": _CHOSEN, "group1": "idx1", "group2": "idx2"}


def _chosen(table: AnnData, cells: CellSelection, *, argument: str) -> NDArray[np.bool_]:
    """Return a mask of the cells that are selected by a mask, positions, names or a query.

    Raises
    ------
    ValueError, TypeError, KeyError
        If the selection is empty, names cells that do not exist, or is none of these.
    """
    chosen = np.zeros(table.n_obs, dtype=bool)
    if isinstance(cells, str):
        try:
            chosen[table.obs.set_axis(np.arange(table.n_obs)).query(cells).index] = True
        except Exception as error:
            raise ValueError(
                f"{argument}={cells!r} is not a valid query on `obs` (`obs.query(...)`): {error}"
            ) from error
    else:
        values = _by_position(table, cells, argument=argument)
        if values.ndim != 1 or values.dtype.kind not in "biu":
            raise TypeError(
                f"`{argument}` must be a mask, positions or names of cells, or a query on `obs`, not a "
                f"{values.ndim}-dimensional array of {values.dtype}."
            )
        if values.dtype.kind == "b" and len(values) != table.n_obs:
            raise ValueError(
                f"The mask `{argument}` has {len(values):,} values, but the table has {table.n_obs:,} cells."
            )
        if values.dtype.kind != "b" and len(values) == table.n_obs > 2 and np.isin(values, (0, 1)).all():
            raise TypeError(f"`{argument}` has an integer, 0 or 1, for every cell: pass a mask, `{argument} == 1`.")
        if values.dtype.kind != "b" and len(values) and not 0 <= values.min() <= values.max() < table.n_obs:
            raise ValueError(f"`{argument}` has positions beyond the {table.n_obs:,} cells of the table.")
        chosen[values] = True
    if not chosen.any():
        raise ValueError(
            f"{argument}={cells!r} selects no cells." if isinstance(cells, str) else f"`{argument}` is empty."
        )
    return chosen


def _by_position(table: AnnData, cells: Any, *, argument: str) -> NDArray[Any]:
    """Return a mask in the order of the table, or positions instead of names; anything else as an array."""
    if isinstance(cells, pd.Series) and pd.api.types.is_bool_dtype(cells.dtype):
        if cells.isna().any():
            raise ValueError(f"The mask `{argument}` has missing values: fill them in, e.g. `mask.fillna(False)`.")
        if cells.index.equals(table.obs_names):
            return cells.to_numpy(dtype=bool)
        if not cells.index.is_unique or len(cells) != table.n_obs or not table.obs_names.isin(cells.index).all():
            raise ValueError(
                f"The mask `{argument}` is a Series of {len(cells):,} values whose index does not name the "
                f"{table.n_obs:,} cells of the table exactly once: pass `mask.to_numpy()` if it is in their order."
            )
        return cells.reindex(table.obs_names).to_numpy(dtype=bool)
    values = np.asarray(cells)
    if values.ndim != 1 or not len(values) or not all(isinstance(name, str) for name in values):
        return values
    check_unique(table.obs_names, what="`obs_names`", todo=f"Make it unique, or select `{argument}` by a mask.")
    found: NDArray[np.intp] = table.obs_names.get_indexer(pd.Index(values, dtype=object))
    if (found < 0).any():
        raise KeyError(
            f"`{argument}` names {int((found < 0).sum()):,} cells that are not in the table: "
            f"{listing(values[found < 0], 5)}. The table has: {listing(table.obs_names, 5)}."
        )
    return found
