"""The object API: a model that holds a table, is trained, and returns results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pandas as pd
from anndata import AnnData, read_h5ad
from spatialdata import SpatialData

from resolvi_sd._docstrings import with_trained_model
from resolvi_sd._engine import fit_model, infer_posterior, read_query
from resolvi_sd._estimates import Estimates
from resolvi_sd._input import ModelInput, as_fitted, read_input
from resolvi_sd._keys import DEFAULT_KEY, Keys
from resolvi_sd._model import ModelConfig, TrainingConfig, check_accelerator, combine_configs
from resolvi_sd._random import RandomLike, as_generator
from resolvi_sd._results import (
    TABLE_FILE,
    CellColumns,
    FittedModel,
    category_codes,
    check_columns_of_fit,
    check_holds_table,
    check_room,
    load_folder,
    restore,
    save_folder,
    warn_of_other_input,
    warn_of_replaced_counts,
)
from resolvi_sd._setup import Setup
from resolvi_sd._state import detach_from_parent
from resolvi_sd._tables import (
    cell_positions,
    group_by,
    read_labels,
    read_sizes,
    resolve_table,
    table_counts,
)
from resolvi_sd._validation import (
    check_flag,
    check_is_table,
    check_key,
    check_names,
    check_positive_int,
    check_takes_results,
    unlabeled_name,
    warn_user,
)

__all__ = ["ResolVI"]

_SETUP = "resolvi_setup"


class ResolVI(Estimates):
    """ResolVI on a table (Ergen & Yosef 2025).

    An object-oriented interface to the engine behind :func:`resolvi_sd.tl.fit`: results are returned, and nothing is
    written into the table unless you call :meth:`write`. The model keeps its table in the attribute `adata`; the cells
    and genes of this table must stay the same for as long as the model is used. A view of another table becomes a table
    of its own.

    Parameters
    ----------
    adata
        Table that was prepared with :meth:`setup_anndata`.
    semisupervised
        Whether to use the labels of `setup_anndata(..., labels_key=)`: one mixture component per label, and a
        classifier. If False, labels that were set up are ignored with a warning.
    n_latent, likelihood, dispersion
        See :class:`resolvi_sd.ModelConfig`.
    config
        All settings of the model; if given, `n_latent`, `likelihood` and `dispersion` must be left at their defaults.

    Examples
    --------
    >>> import resolvi_sd as rsd
    >>> adata = rsd.datasets.simulate_tissue(n_cells=300, n_genes=40, rng=0).tables["table"]
    >>> rsd.ResolVI.setup_anndata(adata)
    >>> model = rsd.ResolVI(adata)
    >>> model.train(max_epochs=2, show_progress_bar=False)
    >>> model.get_latent_representation().shape
    (300, 10)
    """

    def __init__(
        self,
        adata: AnnData,
        *,
        semisupervised: bool = False,
        n_latent: int = 10,
        likelihood: Literal["nb", "poisson"] = "nb",
        dispersion: Literal["gene", "gene-batch"] = "gene",
        config: ModelConfig | None = None,
    ) -> None:
        check_is_table(adata)
        detach_from_parent(adata)
        setup = _read_setup(adata)
        if check_flag(semisupervised, argument="semisupervised") and setup.labels_key is None:
            raise ValueError("`semisupervised=True` needs labels: `ResolVI.setup_anndata(adata, ..., labels_key=...)`.")
        if setup.labels_key is not None and not semisupervised:
            warn_user(
                f"The labels of labels_key={setup.labels_key!r} are not used: `ResolVI(adata, semisupervised=True)` "
                "uses them."
            )
            setup = replace(setup, labels_key=None)
        config = combine_configs(
            config, ModelConfig(), "config", n_latent=n_latent, likelihood=likelihood, dispersion=dispersion
        )
        self._hold(adata, config, read_input(adata, setup))

    @staticmethod
    def setup_anndata(
        adata: AnnData,
        *,
        layer: str | None = None,
        spatial_key: str = "spatial",
        batch_key: str | None = None,
        library_key: str | None = None,
        labels_key: str | None = None,
        unlabeled_category: str | float = "unknown",
        categorical_covariate_keys: Sequence[str] | None = None,
        size_factor_key: str | None = None,
        n_neighbors: int = 10,
        neighbors_key: str | None = None,
    ) -> None:
        """Register where the model finds its input in a table.

        Counts, coordinates and columns are checked here; the values of the labels and an existing graph are checked
        when the model is created.

        Parameters
        ----------
        adata
            The table.
        layer
            Layer with the raw counts; None means `X`.
        spatial_key
            Entry of `obsm` with the coordinates.
        batch_key, library_key
            Columns of `obs` with the batch and the section of each cell. Without `library_key`, each batch is one
            section; without both, each region annotated by the table is one.
        labels_key, unlabeled_category
            Column of `obs` with labels, and the value in it that marks cells with unknown labels.
        categorical_covariate_keys
            Columns of `obs` with further covariates, which the decoder sees in addition to the batch.
        size_factor_key
            Column of `obs` with the physical size of each cell, used instead of its observed number of molecules.
        n_neighbors, neighbors_key
            Number of neighbors of a cell, or the name of an existing graph to use instead.

        Returns
        -------
        None. Adds `.uns['resolvi_setup']` to `adata`.

        Raises
        ------
        KeyError, ValueError, TypeError
            If an entry is missing or invalid.

        Examples
        --------
        >>> import resolvi_sd as rsd
        >>> adata = rsd.datasets.simulate_tissue(n_cells=300, n_genes=40, n_samples=2, rng=0)["table"]
        >>> rsd.ResolVI.setup_anndata(adata, batch_key="sample", labels_key="cell_type")
        >>> rsd.ResolVI(adata, semisupervised=True).config.n_latent
        10
        """
        check_is_table(adata)
        detach_from_parent(adata)
        n_neighbors = check_positive_int(n_neighbors, argument="n_neighbors")
        covariates = () if categorical_covariate_keys is None else categorical_covariate_keys
        covariates = check_names(covariates, argument="categorical_covariate_keys")
        setup = Setup(
            n_neighbors=n_neighbors,
            layer=layer,
            batch_key=batch_key,
            library_key=library_key,
            spatial_key=spatial_key,
            neighbors_key=neighbors_key,
            labels_key=labels_key,
            unlabeled_category=unlabeled_name(unlabeled_category),
            categorical_covariate_keys=covariates,
            size_factor_key=size_factor_key,
        )
        table_counts(adata, layer)
        if batch_key is not None:
            group_by(adata, batch_key, argument="batch_key")
        cell_positions(adata, library_key=library_key, spatial_key=spatial_key)
        if labels_key is not None:
            check_key(labels_key, adata.obs.columns, argument="labels_key", where="adata.obs")
        for key in setup.categorical_covariate_keys:
            group_by(adata, key, argument="categorical_covariate_keys")
        if size_factor_key is not None:
            read_sizes(adata, size_factor_key)
        adata.uns[_SETUP] = setup.to_plain()

    @with_trained_model
    def train(
        self,
        max_epochs: int | None = None,
        *,
        lr: float = TrainingConfig.lr,
        batch_size: int | None = None,
        training: TrainingConfig | None = None,
        accelerator: str = "auto",
        devices: int | str | list[int] = "auto",
        rng: RandomLike = 0,
        show_progress_bar: bool = True,
    ) -> None:
        """Fit the model, and infer the posterior of all cells.

        Every call trains from scratch, even if the model was trained or loaded before; only the model of a query
        continues from its current state (unless a checkpoint of a finished training is given: that is taken up, and
        there is nothing left to do). To train longer, increase `max_epochs`, or resume with
        `TrainingConfig(checkpoint_dir=...)`. Without checkpoints, an interrupted call leaves the model as it was
        before, and its epochs are lost.

        Parameters
        ----------
        max_epochs
            Exact number of passes over the cells; None trains until the ELBO has converged.
        lr, batch_size
            See :class:`resolvi_sd.TrainingConfig`.
        training
            All settings of the training, instead of the three above.
        accelerator, devices
            See :func:`resolvi_sd.tl.fit`.
        rng
            Seed or generator.
        show_progress_bar
            Whether to show progress bars.

        Raises
        ------
        KeyError, ValueError
            If a loaded model cannot be trained again, because the table lacks the labels of the fit or the model is
            that of a query.

        Examples
        --------
        {trained_model}
        >>> model.history.shape
        (2, 2)
        """
        training = combine_configs(
            training, TrainingConfig(), "training", max_epochs=max_epochs, lr=lr, batch_size=batch_size
        )
        generator = as_generator(rng)
        check_accelerator(accelerator)
        self._check_unchanged()
        model_input = self._training_input()
        fitted = fit_model(
            model_input,
            self.config,
            training,
            generator=generator,
            accelerator=accelerator,
            devices=devices,
            show_progress_bar=show_progress_bar,
            mapped=self._fitted if self._fitted is not None and self._fitted.is_query else None,
        )
        posterior = infer_posterior(fitted, model_input, generator=generator, show_progress_bar=show_progress_bar)
        # Assigned only now, so that an interrupted call leaves the previous state intact.
        self._fitted, self._posterior, self._input, self._is_loaded = fitted, posterior, model_input, False

    @property
    @with_trained_model
    def history(self) -> pd.DataFrame:
        """ELBO (nats per cell) and learning rate of each epoch.

        Examples
        --------
        {trained_model}
        >>> list(model.history)
        ['elbo', 'learning_rate']
        """
        return pd.DataFrame(dict(self.fitted.history)).set_index("epoch")

    @with_trained_model
    def write(
        self, adata: AnnData | None = None, *, key_added: str = DEFAULT_KEY, show_progress_bar: bool = True
    ) -> None:
        """Write all results into the table of the model (or a copy of it), as :func:`resolvi_sd.tl.fit` does.

        If :meth:`load_query_data` had to match genes, the table of the model is `model.adata`, not the table that was
        passed to it.

        Parameters
        ----------
        adata
            The table to write into; None means the table of the model.
        key_added
            Prefix of all keys that are written.
        show_progress_bar
            Whether to show a progress bar if the posterior still has to be computed.

        Raises
        ------
        ValueError
            If the genes or cells of the table are not those of the model, or if writing would replace entries that
            are not results or that the model reads.

        Warns
        -----
        UserWarning
            If the table no longer has the counts that the model was trained on.

        Examples
        --------
        {trained_model}
        >>> model.write()
        >>> "resolvi_counts" in adata.layers
        True
        """
        target, keys = self._table(adata), Keys(key_added)
        if not target.obs_names.equals(self._cells):
            raise ValueError(
                f"The {target.n_obs:,} cells of `adata` are not the {len(self._cells):,} of the model, in the same "
                "order. Pass the table of the model, or a copy of it; for other cells use `ResolVI.load_query_data`."
            )
        check_takes_results(target)
        check_room(target, self.fitted.setup, keys)
        posterior = self._given_away(show_progress_bar=show_progress_bar)
        warn_of_replaced_counts(target, self.fitted.setup.layer, self._input.view.molecules)
        self._write_posterior(target, posterior, keys)

    @with_trained_model
    def save(self, folder: str | Path, *, overwrite: bool = False, save_anndata: bool = False) -> None:
        """Save the model to a folder, as safetensors and JSON files.

        Parameters
        ----------
        folder
            Folder to write to; created if missing.
        overwrite
            Whether to replace a model that is already in the folder; other files in it are kept.
        save_anndata
            Whether to also write the table, as `adata.h5ad`, where :meth:`load` finds it.

        Raises
        ------
        ValueError
            With `save_anndata`, if the cells, genes, batches, covariates or sizes of the table have changed.

        Warns
        -----
        UserWarning
            With `save_anndata`, if its counts have changed.

        Examples
        --------
        {trained_model}
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> model.save(folder)
        >>> rsd.ResolVI.load(folder, adata).get_latent_representation(show_progress_bar=False).shape
        (300, 10)
        """
        if save_anndata:
            self._check_unchanged()
            held, setup = self._input, self.fitted.setup
            # Sizes that were measured from outlines are not in the table.
            in_table = setup.size_factor_key is not None and setup.size_unit is None
            sizes = read_sizes(self.adata, str(setup.size_factor_key)) if in_table else None
            now = CellColumns(category_codes(self.adata, self.fitted), sizes)
            check_columns_of_fit(self.fitted, now, CellColumns(held.categories, held.sizes))
            self._counts(self.adata, held.categories)
        save_folder(
            Path(folder).expanduser(),
            self.fitted,
            self._cells,
            self._input.graph,
            coordinates=self._input.view.coordinates,
            categories=self._input.categories,
            latent=self._some_latent(),
            molecules=self._input.view.molecules,
            sizes=self._input.sizes,
            table=self.adata if save_anndata else None,
            overwrite=overwrite,
        )

    @classmethod
    @with_trained_model
    def load(cls, folder: str | Path, adata: AnnData | None = None) -> ResolVI:
        """Load a model that was saved with :meth:`save`; no code from the folder is executed.

        Parameters
        ----------
        folder
            Folder that the model was saved to.
        adata
            The table that the model was fitted on; None reads the one written with `save_anndata=True`.

        Returns
        -------
        The trained model.

        Raises
        ------
        FileNotFoundError
            If the folder contains no model, or if no table is given and the folder contains none.
        KeyError, ValueError
            If the cells, genes, layer or columns of the table do not match the model, cells have other batches or
            sizes, or a file of the model is damaged.

        Warns
        -----
        UserWarning
            If the counts are not those that the model was fitted on.

        Examples
        --------
        {trained_model}
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> model.save(folder, save_anndata=True)
        >>> rsd.ResolVI.load(folder).adata.shape
        (300, 40)
        """
        folder = Path(folder).expanduser()
        if adata is None:
            check_holds_table(folder)
            adata = read_h5ad(folder / TABLE_FILE)
        check_is_table(adata)
        detach_from_parent(adata)
        stored = load_folder(folder, adata.obs_names)
        setup = replace(stored.fitted.setup, labels_key=None)
        # Sizes that were measured from outlines are not in the table.
        read = replace(setup, size_factor_key=None) if setup.size_unit is not None else setup
        found = read_input(adata, read, graph=stored.graph, coordinates=stored.coordinates)
        found = as_fitted(found, stored.fitted)
        now, then = (CellColumns(source.categories, source.sizes) for source in (found, stored))
        check_columns_of_fit(stored.fitted, now, then)
        model_input = replace(found, sizes=stored.sizes, setup=setup)
        model = cls._of(stored.fitted, adata, model_input, is_loaded=True)
        latent, molecules = (model._some_latent(), stored.latent), (found.view.molecules, stored.molecules)
        warn_of_other_input(stored.fitted, latent, molecules, source="was saved with the model")
        return model

    @classmethod
    def from_table(
        cls, data: SpatialData | AnnData, *, table_key: str = "table", key_added: str = DEFAULT_KEY
    ) -> ResolVI:
        """Restore the model from a table that was fitted with :func:`resolvi_sd.tl.fit`, in this session or earlier.

        Parameters
        ----------
        data
            A SpatialData object, or the table.
        table_key
            Current name of the table in a SpatialData object; it may have changed since the fit.
        key_added
            Prefix of the fit.

        Returns
        -------
        The trained model, which gives the same results that the fit wrote.

        Raises
        ------
        KeyError
            If there is no fit, or if parts of it or of its input are missing.
        ValueError
            If the genes or categories of the table are not those of the fit, or if the table no longer has counts.

        Warns
        -----
        UserWarning
            If the table lacks neighbors that cells had in the fit, or if the counts have changed.

        Examples
        --------
        >>> import resolvi_sd as rsd
        >>> sdata = rsd.datasets.simulate_tissue(n_cells=300, n_genes=40, rng=0)
        >>> rsd.tl.fit(sdata, max_epochs=2, show_progress_bar=False)
        >>> rsd.ResolVI.from_table(sdata).get_shares(show_progress_bar=False).shape
        (300, 3)
        """
        adata = resolve_table(data, table_key)
        detach_from_parent(adata)
        keys = Keys(key_added)
        fitted, _, graph = restore(adata, keys)
        setup = fitted.setup
        # The results of the fit, such as the graph and measured sizes, are in the table and are not computed again.
        found = replace(setup, labels_key=None, size_factor_key=setup.size_column(keys))
        model_input = read_input(data, found, table_key=table_key, graph=graph)
        # If the model is trained again, the same keys are written, including measured sizes.
        model_input = replace(model_input, setup=replace(setup, labels_key=None))
        return cls._of(fitted, adata, as_fitted(model_input, fitted), is_loaded=True)

    @classmethod
    @with_trained_model
    def load_query_data(
        cls,
        adata: AnnData,
        reference_model: ResolVI,
        *,
        layer: str | None = None,
        batch_key: str | None = None,
        library_key: str | None = None,
        spatial_key: str | None = None,
        size_factor_key: str | None = None,
        freeze: bool = True,
    ) -> ResolVI:
        """Extend a trained model to the cells of another table.

        Genes are matched by name, as in :func:`resolvi_sd.tl.map_query`: counts of genes that the query lacks are
        zero, with a warning, and genes unknown to the reference are dropped. The returned model can be used immediately
        (labels, latent space, expression); :meth:`train` then learns the neighbor weights of the new cells and the
        effects of new batches, and keeps everything learned on the reference unless `freeze` is False.

        If the query does not have the genes of the reference in the same order, the table of the model, `model.adata`,
        is a copy with these genes: :meth:`write` writes into this copy, and :meth:`load` expects it.

        Parameters
        ----------
        adata
            The query.
        reference_model
            The trained model of the reference.
        layer
            Layer of the query with the counts, `"X"` for its X; None means the same as in the reference.
        batch_key, library_key, spatial_key, size_factor_key
            Columns of `obs` with the batches and sections of the query, entry of `obsm` with its coordinates, and
            column of `obs` with the sizes of its cells; None means the same as in the reference.
        freeze
            Whether training keeps everything learned on the reference. If False, training starts from the reference
            but may change every parameter of the query's model; `reference_model` itself is not modified.

        Returns
        -------
        The model of the query, which has been trained on the reference only.

        Raises
        ------
        ValueError
            If the query and the reference have no genes in common, or the query is the table of the reference.
        KeyError
            If the query lacks a layer, column or coordinates of the reference.

        Warns
        -----
        UserWarning
            If genes are missing, or if the table of the model is a copy.

        Examples
        --------
        {trained_model}
        >>> query = rsd.datasets.simulate_tissue(n_cells=200, n_genes=40, rng=1)["table"]
        >>> rsd.ResolVI.load_query_data(query, model).get_latent_representation(show_progress_bar=False).shape
        (200, 10)
        """
        if not isinstance(reference_model, ResolVI):
            raise TypeError(
                f"`reference_model` must be a ResolVI, not {type(reference_model).__name__}; a saved one is read by "
                "`ResolVI.load(folder, adata)`."
            )
        check_is_table(adata)
        detach_from_parent(adata)
        if adata is reference_model.adata:
            raise ValueError(
                "The query is the table of the reference, whose results `write` would replace: pass other cells, or a "
                "copy (`adata.copy()`)."
            )
        model_input, fitted = read_query(
            adata,
            reference_model.fitted,
            reference_model.adata,
            layer=layer,
            batch_key=batch_key,
            library_key=library_key,
            spatial_key=spatial_key,
            size_factor_key=size_factor_key,
            freeze=freeze,
        )
        table = model_input.view.adata
        if table is not adata:
            warn_user(
                "The genes of the query are not those of the reference in the same order: the table of the model, "
                "`model.adata`, is a copy with these genes, and `model.write()` writes there."
            )
        return cls._of(fitted, table, model_input)

    @classmethod
    def _of(cls, fitted: FittedModel, adata: AnnData, model_input: ModelInput, *, is_loaded: bool = False) -> ResolVI:
        fitted.require_genes(adata.var_names)
        model = cls.__new__(cls)
        model._hold(adata, fitted.module.config, model_input, fitted, is_loaded=is_loaded)
        return model

    def __repr__(self) -> str:
        """Summarize the table and the state of the model."""
        state = f"trained for {len(self.history)} epochs" if self.is_trained else "not trained"
        if self.is_trained and self.fitted.is_query and not len(self.history):
            state = "trained on the reference only"
        names = (
            self._fitted.labels if self._fitted is not None else self._input.labels.names if self._input.labels else ()
        )
        labels = f", {len(names)} labels" if names else ""
        n_batches = len(self._input.view.batches.names)
        return (
            f"ResolVI on {self.adata.n_obs:,} cells × {self.adata.n_vars:,} genes, "
            f"{n_batches} {'batch' if n_batches == 1 else 'batches'}{labels}: {state}"
        )

    def _training_input(self) -> ModelInput:
        """Return the input with the labels of the fit; loading does not read these, since only training needs them."""
        if not self._is_loaded:
            return self._input
        if self.fitted.is_query:
            raise ValueError(
                "The model is that of a query and was loaded: which of its parameters belong to the reference and have "
                "to be kept is no longer known. Map the query again, with "
                "`ResolVI.load_query_data(adata, reference_model)`, and train that model."
            )
        setup = self.fitted.setup
        if setup.labels_key is None:
            return self._input
        hint = "The model was fitted with these labels: put them back, or start anew with `ResolVI.setup_anndata`."
        check_key(setup.labels_key, self.adata.obs.columns, argument="labels_key", where="adata.obs", hint=hint)
        labels = read_labels(self.adata, setup.labels_key, setup.unlabeled_category)
        return replace(self._input, labels=labels, setup=replace(self._input.setup, labels_key=setup.labels_key))


def _read_setup(adata: AnnData) -> Setup:
    """Return what :meth:`ResolVI.setup_anndata` wrote."""
    if _SETUP not in adata.uns:
        raise KeyError("The table is not set up: run `ResolVI.setup_anndata(adata, layer=..., spatial_key=...)` first.")
    return Setup.from_plain(adata.uns[_SETUP])
