"""What the `ResolVI` class holds: a table, the input read from it, and the fitted model with its posterior."""

from __future__ import annotations

from anndata import AnnData
from spatialdata.models import TableModel

from resolvi_sd._engine import infer_posterior
from resolvi_sd._input import ModelInput
from resolvi_sd._keys import Keys
from resolvi_sd._model import ModelConfig, Posterior
from resolvi_sd._random import as_generator
from resolvi_sd._results import FittedModel, write_fit
from resolvi_sd._validation import check_is_table

__all__ = ["RESULTS_KEY", "ModelState", "detach_from_parent"]

# Prefix of the results in a table that is built for one call; not a name that users would choose.
RESULTS_KEY = "resolvi_object"


def detach_from_parent(adata: AnnData) -> None:
    """Make a view a table of its own: if its parent is filtered in place, its rows become those of other cells."""
    if adata.is_view and not adata.isbacked:
        adata.obs_names = adata.obs_names  # whatever is assigned, a view is copied first


class ModelState:
    """A table, and a model that is, or will be, trained on it.

    Attributes
    ----------
    adata
        The table.
    config
        Settings of the model.
    """

    adata: AnnData
    config: ModelConfig

    def _hold(
        self,
        adata: AnnData,
        config: ModelConfig,
        model_input: ModelInput,
        fitted: FittedModel | None = None,
        *,
        is_loaded: bool = False,
    ) -> None:
        """Set all attributes."""
        self.adata, self.config = adata, config
        # The input was read from the table as it is now.
        self._input, self._cells, self._genes = model_input, adata.obs_names, adata.var_names
        self._fitted = fitted
        self._posterior: Posterior | None = None
        self._is_loaded = is_loaded

    @property
    def is_trained(self) -> bool:
        """Whether the model has been trained or loaded."""
        return self._fitted is not None

    @property
    def fitted(self) -> FittedModel:
        """The trained parameters, with everything needed to use them.

        Raises
        ------
        RuntimeError
            If the model has not been trained.
        """
        if self._fitted is None:
            raise RuntimeError("The model has not been trained: run `model.train()` first.")
        return self._fitted

    @property
    def posterior(self) -> Posterior:
        """Posterior expectations for all cells: corrected counts, molecules by source, neighbor weights, flow.

        Raises
        ------
        RuntimeError
            If the model has not been trained.
        ValueError
            If the cells or genes of the model's table have changed.
        """
        return self._infer()

    def _infer(self, *, show_progress_bar: bool = True) -> Posterior:
        self._check_unchanged()
        if self._posterior is None:
            self._posterior = infer_posterior(
                self.fitted, self._input, generator=as_generator(0), show_progress_bar=show_progress_bar
            )
        return self._posterior

    def _table(self, adata: AnnData | None) -> AnnData:
        table = self.adata if adata is None else adata
        check_is_table(table)
        self.fitted.require_genes(table.var_names)
        if table is self.adata:
            self._check_unchanged()
        return table

    def _check_unchanged(self) -> None:
        """Raise ValueError unless the table still has the cells and genes that it had when the model was created."""
        table = self.adata
        for what, now, then in (("cells", table.obs_names, self._cells), ("genes", table.var_names, self._genes)):
            if now.equals(then):
                continue
            gone, new = len(then.difference(now)), len(now.difference(then))
            change = f"{gone:,} of {len(then):,} are gone, {new:,} are new" if gone or new else "in another order"
            raise ValueError(
                f"The {what} of the table are not those that it had when the model was created: {change}. Results "
                "belong to the table as it was then, so use that table. To change the table, create the model on a "
                "copy (`ResolVI(adata.copy())`)."
            )

    def _results_table(self, *, show_progress_bar: bool = True) -> AnnData:
        own = self._table(None)
        table = AnnData(
            own.X,
            obs=own.obs.copy(),
            var=own.var.copy(),
            layers={name: own.layers[name] for name in own.layers if name is not None},
            # The coordinates may come from elements of a SpatialData object, not from the table.
            obsm=dict(own.obsm) | {self._input.setup.spatial_key: self._input.view.coordinates},
        )
        if TableModel.ATTRS_KEY in own.uns:
            table.uns[TableModel.ATTRS_KEY] = own.uns[TableModel.ATTRS_KEY]  # regions may be sections
        # The functions of `tl` do not modify counts or latent means, so no copies are needed.
        posterior = self._infer(show_progress_bar=show_progress_bar)
        self._write_posterior(table, posterior, Keys(RESULTS_KEY))
        return table

    def _write_posterior(self, table: AnnData, posterior: Posterior, keys: Keys) -> None:
        """Write the results for the cells of the model into a table of these cells."""
        held = self._input
        write_fit(table, self.fitted, posterior, held.graph, categories=held.categories, sizes=held.sizes, keys=keys)
