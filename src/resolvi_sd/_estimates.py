"""Results per cell of the `ResolVI` class, for its own table or others: latent, expression, counts, shares, labels."""

from __future__ import annotations

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
from resolvi_sd._csr import CSR, row_sums
from resolvi_sd._docstrings import with_trained_model
from resolvi_sd._model import Posterior, Weights, classify, latent_of
from resolvi_sd._random import RandomLike, as_generator
from resolvi_sd._results import (
    CellColumns,
    category_codes,
    encode_some,
    fitted_counts,
    most_probable,
    some_rows,
    warn_of_other_columns,
    warn_of_other_input,
)
from resolvi_sd._scratch import is_in_file
from resolvi_sd._tasks import TableTasks
from resolvi_sd._validation import check_flag, check_positive_int

__all__ = ["Estimates"]


class Estimates(TableTasks):
    """Results of a trained model."""

    @with_trained_model
    def get_latent_representation(
        self,
        adata: AnnData | None = None,
        *,
        give_mean: bool = True,
        return_dist: bool = False,
        rng: RandomLike = 0,
        show_progress_bar: bool = True,
    ) -> NDArray[np.float32] | tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the position of each cell in the latent space.

        Parameters
        ----------
        adata
            Another table with the same genes; None means the table of the model.
        give_mean
            Whether to return the mean of the posterior; if False, one draw from it.
        return_dist
            Whether to return the mean and the variance of the posterior instead.
        rng
            Seed or generator of the draw.
        show_progress_bar
            Whether to show a progress bar.

        Returns
        -------
        Array of cells × n_latent, float32; with `return_dist`, a tuple of two such arrays, mean and variance.

        Raises
        ------
        RuntimeError
            If the model has not been trained.
        ValueError
            If the genes or categories of the table are not those of the model, or if the table no longer has counts.

        Examples
        --------
        {trained_model}
        >>> model.get_latent_representation(show_progress_bar=False).shape
        (300, 10)
        """
        table, fitted = self._table(adata), self.fitted
        codes = self._categories(table)
        return latent_of(
            fitted.module,
            self._counts(table, codes),
            codes,
            give_mean=give_mean,
            return_dist=return_dist,
            rng=as_generator(rng),
            show_progress_bar=show_progress_bar,
        )

    @with_trained_model
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
        """Return the expected true expression rho of each cell.

        Parameters
        ----------
        adata
            Another table with the same genes; None means the table of the model.
        transform_batch
            Batch in which all cells are decoded, or several batches to average over.
        gene_list
            Genes to return; None means all.
        library_size
            Sum of each cell over all genes. `"latent"` uses the cell's own molecules, which puts the rates on the scale
            of the counts.
        size_scaling
            With `library_size="latent"`, divide by the size of each cell relative to that of the median cell; requires
            `size_factor_key`.
        n_samples
            1 decodes the mean of the latent posterior; larger values decode that many draws from it.
        return_mean
            Whether to average over the draws; if False, they are returned separately.
        weights
            `"uniform"` or `"importance"`: see :func:`resolvi_sd.tl.normalized_expression`.
        rng
            Seed or generator of the draws.
        show_progress_bar
            Whether to show a progress bar.

        Returns
        -------
        DataFrame, cells × genes; with `return_mean=False` and several draws, an array of draws × cells × genes.

        Raises
        ------
        RuntimeError
            If the model has not been trained.
        KeyError
            If the model does not know a gene or batch.
        ValueError
            If a number is out of range, if another table is passed for something available only for the cells of the
            model, or if the genes of the table are not those of the model.

        Examples
        --------
        {trained_model}
        >>> rates = model.get_normalized_expression(gene_list=["gene_00"], library_size=1e4, show_progress_bar=False)
        >>> rates.shape
        (300, 1)
        """
        table, fitted, generator = self._table(adata), self.fitted, as_generator(rng)
        categories = self._categories(table)
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
            # Labels are left out, as in `tl.normalized_expression`: a label would determine the mixture component.
            tissue = replace(self._input, labels=None).tissue()
            mean = importance_expression(fitted.module, tissue, self._input.graph, request, scale, **settings)
        else:
            counts = self._counts(table, categories)
            if n_samples > 1 and not return_mean:
                draws = expression_draws(fitted.module, counts, categories, request, **settings)
                return np.stack([scale * drawn for drawn in draws])
            mean = mean_expression(fitted.module, counts, categories, request, scale, **settings)
        return pd.DataFrame(mean, index=table.obs_names, columns=list(request.names))

    @with_trained_model
    def get_corrected_counts(self, *, show_progress_bar: bool = True) -> CSR:
        """Return a copy of the corrected counts, the expected own molecules of each cell.

        They are those of the counts that the model was trained on, even if others have replaced these in the table.

        Parameters
        ----------
        show_progress_bar
            Whether to show a progress bar if the posterior still has to be computed.

        Returns
        -------
        CSR matrix of cells × genes, float32, with values between 0 and these counts.

        Raises
        ------
        RuntimeError
            If the model has not been trained.
        ValueError
            If the cells or genes of the table have changed since the model was made.

        Examples
        --------
        {trained_model}
        >>> corrected = model.get_corrected_counts(show_progress_bar=False)
        >>> bool((adata.X - corrected).min() >= 0)
        True
        """
        return self._given_away(show_progress_bar=show_progress_bar).own

    @with_trained_model
    def get_decontaminated_counts(
        self, *, fpr: float | None = None, per_gene: bool = False, show_progress_bar: bool = True
    ) -> CSR:
        """Return integer counts decontaminated at a chosen cost in own molecules.

        Parameters
        ----------
        fpr
            Share of the cells' own molecules that may be removed along with foreign ones; None removes molecules that
            are more likely foreign than own. See :func:`resolvi_sd.tl.decontaminated_counts`.
        per_gene
            Whether `fpr` limits the share that each gene loses of its own molecules, rather than the share that all
            genes lose together. Requires `fpr`.
        show_progress_bar
            Whether to show a progress bar.

        Returns
        -------
        CSR matrix of cells × genes, int32, with values between 0 and the counts.

        Raises
        ------
        RuntimeError
            If the model has not been trained.
        ValueError
            If `fpr` is not between 0 and 1, or is missing although `per_gene` is given, or the cells or genes of the
            table have changed since the model was made.

        Examples
        --------
        {trained_model}
        >>> whole = model.get_decontaminated_counts(fpr=0.1, show_progress_bar=False)
        >>> whole.dtype.name, bool(whole.sum() < adata.X.sum())
        ('int32', True)
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

    @with_trained_model
    def get_shares(self, *, show_progress_bar: bool = True) -> pd.DataFrame:
        """Return the expected shares of own, diffused and background molecules in each cell.

        Parameters
        ----------
        show_progress_bar
            Whether to show a progress bar if the posterior still has to be computed.

        Returns
        -------
        DataFrame, cells × (`true`, `diffusion`, `background`). Rows sum to 1 and are NaN for cells without molecules.

        Raises
        ------
        RuntimeError
            If the model has not been trained.
        ValueError
            If the cells or genes of the table have changed since the model was made.

        Examples
        --------
        {trained_model}
        >>> list(model.get_shares(show_progress_bar=False))
        ['true', 'diffusion', 'background']
        """
        shares = self._infer(show_progress_bar=show_progress_bar).shares
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
            Another table with the same genes; None means the table of the model.
        soft
            Whether to return the probability of each label instead of the most probable label.
        n_samples
            1 classifies the mean of the latent posterior; larger values average over that many draws from it.
        rng
            Seed or generator of the draws.
        show_progress_bar
            Whether to show a progress bar.

        Returns
        -------
        One label per cell or, with `soft`, a DataFrame of cells × labels; NaN for cells without counts.

        Raises
        ------
        RuntimeError
            If the model has not been trained.
        ValueError
            If the model has no labels, or if the genes or categories of the table are not those of the model.

        Examples
        --------
        >>> import resolvi_sd as rsd
        >>> adata = rsd.datasets.simulate_tissue(n_cells=300, n_genes=40, rng=0)["table"]
        >>> rsd.ResolVI.setup_anndata(adata, labels_key="cell_type")
        >>> model = rsd.ResolVI(adata, semisupervised=True)
        >>> model.train(max_epochs=2, show_progress_bar=False)
        >>> model.predict(show_progress_bar=False).shape
        (300,)
        """
        check_flag(soft, argument="soft")
        check_positive_int(n_samples, argument="n_samples")
        fitted = self.fitted
        fitted.require_labels()
        table = self._table(adata)
        codes = self._categories(table)
        probabilities = classify(
            fitted.module,
            self._counts(table, codes),
            codes,
            n_samples=n_samples,
            rng=as_generator(rng),
            show_progress_bar=show_progress_bar,
        )
        if soft:
            return pd.DataFrame(probabilities, index=table.obs_names, columns=list(fitted.labels))
        return np.asarray(most_probable(fitted, probabilities), dtype=object)

    def _categories(self, table: AnnData) -> NDArray[np.int64]:
        """Return the batch and further covariates of the cells of a table; warn if they are not those of the fit."""
        codes = category_codes(table, self.fitted)
        if table is self.adata:
            warn_of_other_columns(self.fitted, CellColumns(codes), CellColumns(self._input.categories))
        return codes

    def _counts(self, table: AnnData, codes: NDArray[np.int64]) -> CSR:
        """Return the counts of a table; warn if they are not those of the fit."""
        fitted = self.fitted
        counts = fitted_counts(table, fitted.setup.layer)
        if table is self.adata:
            rows = some_rows(table.n_obs)
            latent = encode_some(fitted, counts, codes), self._some_latent()
            molecules = row_sums(counts[rows]), self._input.view.molecules[rows]
            warn_of_other_input(fitted, latent, molecules, source="at the fit")
        return counts

    def _some_latent(self) -> NDArray[np.float32]:
        """Return the latent means that a few cells of the model had at the fit."""
        if self._posterior is not None:
            return self._posterior.latent[some_rows(len(self._cells))]
        return encode_some(self.fitted, self._input.view.counts, self._input.categories)

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

    def _given_away(self, *, show_progress_bar: bool) -> Posterior:
        """Return the posterior with copies of the arrays that users (or scanpy, for layers) may modify in place."""
        posterior = self._infer(show_progress_bar=show_progress_bar)
        own = posterior.own if is_in_file(posterior.own.data) else posterior.own.copy()
        probabilities = None if posterior.probabilities is None else posterior.probabilities.copy()
        return replace(posterior, own=own, latent=posterior.latent.copy(), probabilities=probabilities)

    def _check_own_cells(self, adata: AnnData | None, what: str) -> None:
        if adata is not None and adata is not self.adata:
            raise ValueError(
                f"`{what}` is available only for the cells of the model: leave out `adata`. For the cells of another "
                "table, use `ResolVI.load_query_data`."
            )
