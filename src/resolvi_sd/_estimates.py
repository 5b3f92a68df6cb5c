"""What the `ResolVI` class says of cells, of its own table or others: latent, expression, counts, shares, labels."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from resolvi_sd._analysis import (
    ExpressionRequest,
    LibrarySize,
    check_fpr,
    decontaminate,
    expression_draws,
    importance_expression,
    mean_expression,
)
from resolvi_sd._csr import CSR
from resolvi_sd._input import ModelInput
from resolvi_sd._model import Posterior, Weights, classify, latent_of
from resolvi_sd._random import RandomLike, as_generator
from resolvi_sd._results import FittedModel, category_codes, fitted_counts, most_probable
from resolvi_sd._scratch import is_in_file
from resolvi_sd._tasks import TableTasks
from resolvi_sd._validation import check_is_table, check_positive_int

__all__ = ["Estimates"]


class Estimates(TableTasks):
    """Results of a trained model.

    Attributes
    ----------
    adata
        The table of the model.
    """

    adata: AnnData
    # Cells and genes that the table had when the model was made, and what was read of it then.
    _cells: pd.Index[str]
    _genes: pd.Index[str]
    _input: ModelInput

    @property
    @abstractmethod
    def fitted(self) -> FittedModel:
        """The parameters and all that is needed to use them."""

    @property
    @abstractmethod
    def posterior(self) -> Posterior:
        """Posterior expectations of all cells of the table."""

    @abstractmethod
    def _infer(self, *, show_progress_bar: bool = True) -> Posterior:
        """Return the posterior, which is computed if it is not known yet."""

    def get_latent_representation(
        self,
        adata: AnnData | None = None,
        *,
        give_mean: bool = True,
        return_dist: bool = False,
        rng: RandomLike = 0,
        show_progress_bar: bool = True,
    ) -> NDArray[np.float32] | tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the latent of every cell.

        Parameters
        ----------
        adata
            Another table with the same genes; that of the model when None.
        give_mean
            The mean of the posterior; False: one draw.
        return_dist
            Return mean and variance instead.
        rng
            Seed or generator of the draw.
        show_progress_bar
            Whether to show a progress bar.

        Returns
        -------
        Cells × n_latent, float32; with `return_dist` two of them.

        Raises
        ------
        RuntimeError
            If the model has not been trained.
        ValueError
            If the genes or categories of the table are not those of the model, or it has no counts any more.
        """
        table = self._table(adata)
        return latent_of(
            self.fitted.module,
            *self._counts(table),
            give_mean=give_mean,
            return_dist=return_dist,
            rng=as_generator(rng),
            show_progress_bar=show_progress_bar,
        )

    def get_normalized_expression(
        self,
        adata: AnnData | None = None,
        *,
        transform_batch: str | Sequence[str] | None = None,
        gene_list: Sequence[str] | None = None,
        library_size: LibrarySize = 1.0,
        size_scaling: bool = False,
        n_samples: int = 1,
        return_mean: bool = True,
        weights: Weights = "uniform",
        rng: RandomLike = 0,
        show_progress_bar: bool = True,
    ) -> pd.DataFrame | NDArray[np.float32]:
        """Return the expected true expression rho of every cell.

        Parameters
        ----------
        adata
            Another table with the same genes; that of the model when None.
        transform_batch
            Decode as if all cells were of this batch, or average over these.
        gene_list
            Only these genes.
        library_size
            Sum of a cell over all genes; `"latent"`: its own molecules, so that rates are on the counts' scale.
        size_scaling
            With `library_size="latent"`, divide by the size of each cell over that of the median cell; only with
            `size_factor_key`.
        n_samples
            1: at the mean of the latent posterior; more: from so many draws.
        return_mean
            Average the draws; False: return them one by one.
        weights
            `"uniform"`, or `"importance"`: see :func:`resolvi_sd.tl.normalized_expression`.
        rng
            Seed or generator of the draws.
        show_progress_bar
            Whether to show a progress bar.

        Returns
        -------
        DataFrame, cells × genes; with `return_mean=False` and several draws an array, draws × cells × genes.

        Raises
        ------
        RuntimeError
            If the model has not been trained.
        KeyError
            If a gene or batch is not one of the model's.
        ValueError
            If a number is out of range, something is asked of another table that is known of the model's cells only, or
            the genes of the table are not those of the model.
        """
        table, fitted, generator = self._table(adata), self.fitted, as_generator(rng)
        categories = category_codes(table, fitted)
        request = ExpressionRequest.of(
            fitted,
            categories,
            genes=gene_list,
            argument="gene_list",
            transform_batch=transform_batch,
            library_size=library_size,
            size_scaling=size_scaling,
            n_samples=n_samples,
            weights=weights,
        )
        scale = self._scale(adata, request, show_progress_bar=show_progress_bar)
        settings: dict[str, Any] = {"rng": generator, "show_progress_bar": show_progress_bar}
        if request.weights == "importance":
            self._check_own_cells(adata, "weights='importance'")
            if not return_mean:
                raise ValueError("`weights='importance'` gives a weighted mean of the draws: leave `return_mean` True.")
            # Without labels, as the fit of a table is: a label would decide for its component.
            tissue = replace(self._input, labels=None).tissue()
            mean = importance_expression(fitted.module, tissue, self._input.graph, request, scale, **settings)
        else:
            counts = fitted_counts(table, fitted.setup.layer)
            if n_samples > 1 and not return_mean:
                draws = expression_draws(fitted.module, counts, categories, request, **settings)
                return np.stack([scale * drawn for drawn in draws])
            mean = mean_expression(fitted.module, counts, categories, request, scale, **settings)
        return pd.DataFrame(mean, index=table.obs_names, columns=list(request.names))

    def get_corrected_counts(self) -> CSR:
        """Return the expected own molecules of every cell, a copy.

        Returns
        -------
        Cells × genes, CSR float32, between 0 and the counts.

        Raises
        ------
        RuntimeError
            If the model has not been trained.
        ValueError
            If the table has changed since the model was made.
        """
        return self._given_away().own

    def get_decontaminated_counts(
        self, *, fpr: float | None = None, per_gene: bool = False, show_progress_bar: bool = True
    ) -> CSR:
        """Return the whole molecules that are kept at a cost in own ones.

        Parameters
        ----------
        fpr
            Share of the cells' own molecules that may be removed with the foreign ones; None removes what is more
            likely foreign than own. See :func:`resolvi_sd.tl.decontaminated_counts`.
        per_gene
            Whether no gene may lose a larger share of its own molecules, rather than all genes together.
        show_progress_bar
            Whether to show a progress bar.

        Returns
        -------
        Cells × genes, CSR int32, between 0 and the counts.

        Raises
        ------
        RuntimeError
            If the model has not been trained.
        ValueError
            If `fpr` is not between 0 and 1, or the table has changed since the model was made.
        """
        check_fpr(fpr, per_gene=per_gene)
        fitted = self.fitted
        self._check_unchanged()
        tissue, graph = self._input.tissue(), self._input.graph
        return decontaminate(
            fitted.module,
            tissue,
            graph,
            fpr,
            per_gene=per_gene,
            genes=fitted.genes,
            show_progress_bar=show_progress_bar,
        ).counts

    def get_shares(self) -> pd.DataFrame:
        """Return each cell's expected shares of own, diffused and background molecules.

        Returns
        -------
        DataFrame, cells × (`true`, `diffusion`, `background`); rows sum to 1, and are NaN for cells without molecules.

        Raises
        ------
        RuntimeError
            If the model has not been trained.
        ValueError
            If the table has changed since the model was made.
        """
        molecules = self.posterior.molecules
        with np.errstate(invalid="ignore"):
            shares = molecules / molecules.sum(axis=1, keepdims=True)
        return pd.DataFrame(shares, index=self._cells, columns=["true", "diffusion", "background"])

    def predict(
        self,
        adata: AnnData | None = None,
        *,
        soft: bool = False,
        n_samples: int = 1,
        rng: RandomLike = 0,
        show_progress_bar: bool = True,
    ) -> pd.DataFrame | NDArray[np.object_]:
        """Predict labels with the classifier of a semi-supervised model.

        Parameters
        ----------
        adata
            Another table with the same genes; that of the model when None.
        soft
            Return probabilities.
        n_samples
            1: at the mean of the latent posterior; more: averaged over so many draws.
        rng
            Seed or generator of the draws.
        show_progress_bar
            Whether to show a progress bar.

        Returns
        -------
        Labels, one per cell, or with `soft` a DataFrame, cells × labels; NaN for cells without counts.

        Raises
        ------
        RuntimeError
            If the model has not been trained.
        ValueError
            If it has no labels, or the genes or categories of the table are not those of the model.
        """
        check_positive_int(n_samples, argument="n_samples")
        fitted = self.fitted
        fitted.require_labels()
        table = self._table(adata)
        probabilities = classify(
            fitted.module,
            *self._counts(table),
            n_samples=n_samples,
            rng=as_generator(rng),
            show_progress_bar=show_progress_bar,
        )
        if soft:
            return pd.DataFrame(probabilities, index=table.obs_names, columns=list(fitted.labels))
        return np.asarray(most_probable(fitted, probabilities), dtype=object)

    def _table(self, adata: AnnData | None) -> AnnData:
        table = self.adata if adata is None else adata
        check_is_table(table)
        self.fitted.require_genes(table.var_names)
        if table is self.adata:
            self._check_unchanged()
        return table

    def _check_unchanged(self) -> None:
        """Raise ValueError unless the table has the cells and genes that it had when the model was made."""
        table = self.adata
        for what, now, then in (("cells", table.obs_names, self._cells), ("genes", table.var_names, self._genes)):
            if now.equals(then):
                continue
            gone, new = len(then.difference(now)), len(now.difference(then))
            change = f"{gone:,} of {len(then):,} are gone, {new:,} are new" if gone or new else "in another order"
            raise ValueError(
                f"The {what} of the table are not those that it had when the model was made: {change}. Results belong "
                "to the table as it was: use that. If the table is to change, make the model on a copy "
                "(`ResolVI(adata.copy())`)."
            )

    def _counts(self, table: AnnData) -> tuple[CSR, NDArray[np.int64]]:
        """Return counts and categories of the cells of a table."""
        return fitted_counts(table, self.fitted.setup.layer), category_codes(table, self.fitted)

    def _scale(
        self, adata: AnnData | None, request: ExpressionRequest, *, show_progress_bar: bool
    ) -> np.float32 | NDArray[np.float32]:
        own = relative = None
        if request.needs_own:
            self._check_own_cells(adata, "library_size='latent'")
            own = self._infer(show_progress_bar=show_progress_bar).molecules[:, 0]
        if request.size_scaling and self._input.sizes is not None:
            relative = self._input.sizes / self.fitted.module.data.median_size
        return request.scale(own, relative)

    def _given_away(self) -> Posterior:
        """Return the posterior with copies of what users transform in place, as scanpy does with layers."""
        posterior = self.posterior
        own = posterior.own if is_in_file(posterior.own.data) else posterior.own.copy()
        return replace(posterior, own=own, latent=posterior.latent.copy())

    def _check_own_cells(self, adata: AnnData | None, what: str) -> None:
        if adata is not None and adata is not self.adata:
            raise ValueError(f"`{what}` is known only for the cells of the model: leave `adata` out.")
