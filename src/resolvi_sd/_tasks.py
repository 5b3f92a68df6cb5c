"""What the `ResolVI` class answers as the functions of `tl` do, with a table of its results made for the question."""

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

__all__ = ["TableTasks"]

# A mask, positions or names of cells, or a query on `obs`.
CellSelection: TypeAlias = (
    "str | Sequence[bool] | Sequence[int] | Sequence[str] | NDArray[np.bool_] | NDArray[np.integer] | pd.Series[bool]"
)
# Column of a table of results, which is made for one question, with the cells that were chosen for it.
_CHOSEN = "idx"


class TableTasks(ABC):
    """Draws, summaries and comparisons; they take the arguments of the functions of `tl`, and return the results."""

    @abstractmethod
    def _results_table(self, *, show_progress_bar: bool = True) -> AnnData:
        """Return a table that shares the counts of the model's and has its results, for the functions of `tl`."""

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
        Dataset with a variable for each site, which names its dimensions and units.

        Raises
        ------
        RuntimeError
            If the model has not been trained.
        KeyError, TypeError, ValueError
            As the function does.
        """
        return tl.sample_posterior(
            self._results_table(show_progress_bar=show_progress_bar),
            sites=sites,
            n_samples=n_samples,
            genes=genes,
            cells=cells,
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
        """Summarise draws from the posterior, as :func:`resolvi_sd.tl.posterior_summary` does.

        Parameters
        ----------
        {parameters}

        Returns
        -------
        Dataset with a variable for each statistic.

        Raises
        ------
        RuntimeError
            If the model has not been trained.
        KeyError, TypeError, ValueError
            As the function does.
        """
        return tl.posterior_summary(
            self._results_table(show_progress_bar=show_progress_bar),
            site=site,
            statistics=statistics,
            quantiles=quantiles,
            n_samples=n_samples,
            genes=genes,
            cells=cells,
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
            Cells to compare, in place of `groupby`, and what they are compared with (None: all others): a mask (a
            Series is matched by the names in its index), positions, names, or a query on `obs`
            (``"cell_type == 'T' and sample == 'a'"``). The groups of the result are called so.

        Returns
        -------
        DataFrame, one row per comparison and gene: that of `uns['resolvi_de']`.

        Raises
        ------
        RuntimeError
            If the model has not been trained.
        KeyError, TypeError, ValueError
            As the function does.
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
        DataFrame, cells × labels: share of each label among the neighbors.

        Raises
        ------
        RuntimeError
            If the model has not been trained.
        KeyError, TypeError, ValueError
            As the function does.
        """
        result = tl.niche_abundance(self._results_table(), labels_key=labels_key, weighting=weighting, copy=True)
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
        """Compare what surrounds groups of cells, as :func:`resolvi_sd.tl.differential_niche_abundance` does.

        Parameters
        ----------
        {parameters}
        idx1, idx2
            Cells to compare, as in :meth:`differential_expression`.

        Returns
        -------
        DataFrame, one row per comparison and label: that of `uns['resolvi_dna']`.

        Raises
        ------
        RuntimeError
            If the model has not been trained.
        KeyError, TypeError, ValueError
            As the function does.
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
        Table with a row for each group and sample.

        Raises
        ------
        RuntimeError
            If the model has not been trained.
        KeyError, TypeError, ValueError
            As the function does.
        """
        return tl.pseudobulk(
            self._results_table(),
            groupby=groupby,
            sample_key=sample_key,
            layer=layer,
            min_cells=min_cells,
            integer_counts=integer_counts,
        )


def _compared(
    table: AnnData,
    groupby: str | None,
    group1: str | Sequence[str] | None,
    group2: str | Sequence[str] | None,
    idx1: CellSelection | None,
    idx2: CellSelection | None,
) -> dict[str, Any]:
    """Return what is compared as the functions of `tl` take it; cells that were chosen get a column of the table.

    Raises
    ------
    ValueError
        If neither or both of a column and cells are named, or cells are on both sides.
    """
    if idx1 is None:
        if idx2 is not None or groupby is None:
            raise ValueError(
                "Say which cells to compare: groupby=..., a column of `obs` with groups, or idx1=..., cells (`idx2` is "
                "what they are compared with)."
            )
        return {"groupby": groupby, "group1": group1, "group2": group2}
    named = {"groupby": groupby, "group1": group1, "group2": group2}
    if given := [name for name, value in named.items() if value is not None]:
        raise ValueError(f"`idx1` chooses cells by themselves: leave out {', '.join(f'`{name}`' for name in given)}.")
    first = _chosen(table, idx1, argument="idx1")
    second = ~first if idx2 is None else _chosen(table, idx2, argument="idx2")
    if not second.any():
        raise ValueError("`idx1` are all cells of the table: there is nothing to compare them with.")
    if both := int((first & second).sum()):
        raise ValueError(f"{both:,} cells are in `idx1` and in `idx2`.")
    sides = np.select([first, second], [0, 1], -1)
    table.obs[_CHOSEN] = pd.Categorical.from_codes(sides, categories=pd.Index(["idx1", "idx2"]))
    return {"groupby": _CHOSEN, "group1": "idx1", "group2": "idx2"}


def _chosen(table: AnnData, cells: CellSelection, *, argument: str) -> NDArray[np.bool_]:
    """Return which cells a mask, positions, names or a query choose.

    Raises
    ------
    ValueError, TypeError, KeyError
        If it names none, or cells that are not there, or is none of these.
    """
    chosen = np.zeros(table.n_obs, dtype=bool)
    if isinstance(cells, str):
        try:
            chosen[table.obs.set_axis(np.arange(table.n_obs)).query(cells).index] = True
        except Exception as error:
            raise ValueError(f"{argument}={cells!r} is no query on `obs` (`obs.query(...)`): {error}") from error
    else:
        values = _by_position(table, cells, argument=argument)
        if values.ndim != 1 or values.dtype.kind not in "biu":
            raise TypeError(
                f"`{argument}` must be a mask, positions or names of cells, or a query on `obs`, not {values.dtype} of "
                f"{values.ndim} dimensions."
            )
        if values.dtype.kind == "b" and len(values) != table.n_obs:
            raise ValueError(f"The mask `{argument}` has {len(values):,} values, and the table {table.n_obs:,} cells.")
        if values.dtype.kind != "b" and len(values) and not 0 <= values.min() <= values.max() < table.n_obs:
            raise ValueError(f"`{argument}` has positions beyond the {table.n_obs:,} cells of the table.")
        chosen[values] = True
    if not chosen.any():
        raise ValueError(
            f"{argument}={cells!r} names no cell." if isinstance(cells, str) else f"`{argument}` is empty."
        )
    return chosen


def _by_position(table: AnnData, cells: Any, *, argument: str) -> NDArray[Any]:
    """Return a mask in the order of the table, or positions in place of names; all else as an array."""
    if isinstance(cells, pd.Series) and pd.api.types.is_bool_dtype(cells.dtype):
        if cells.isna().any():
            raise ValueError(f"The mask `{argument}` has missing values: fill them in, e.g. `mask.fillna(False)`.")
        if cells.index.equals(table.obs_names):
            return cells.to_numpy(dtype=bool)
        if not cells.index.is_unique or len(cells) != table.n_obs or not table.obs_names.isin(cells.index).all():
            raise ValueError(
                f"The mask `{argument}` is a Series of {len(cells):,} values whose index does not name the "
                f"{table.n_obs:,} cells of the table, each once: pass `mask.to_numpy()` if it is in their order."
            )
        return cells.reindex(table.obs_names).to_numpy(dtype=bool)
    values = np.asarray(cells)
    if values.ndim != 1 or not len(values) or not all(isinstance(name, str) for name in values):
        return values
    check_unique(table.obs_names, what="`obs_names`", todo=f"Make it unique, or choose `{argument}` by a mask.")
    found: NDArray[np.intp] = table.obs_names.get_indexer(pd.Index(values, dtype=object))
    if (found < 0).any():
        raise KeyError(
            f"`{argument}` names {int((found < 0).sum()):,} cells that are not in the table: "
            f"{listing(values[found < 0], 5)}. It has: {listing(table.obs_names, 5)}."
        )
    return found
