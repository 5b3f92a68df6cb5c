"""The engine behind `tl` and the `ResolVI` class: from the input of the model to a fitted model and its posterior."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import torch
from anndata import AnnData
from spatialdata import SpatialData

from resolvi_sd._csr import group_sums
from resolvi_sd._input import ModelInput, read_input
from resolvi_sd._model import (
    DataSummary,
    ModelConfig,
    Posterior,
    ResolviModule,
    TrainingConfig,
    copy_module,
    extend_module,
    infer,
    patch_size_of,
    train_on_devices,
)
from resolvi_sd._random import draw_seed
from resolvi_sd._results import FittedModel, label_colors
from resolvi_sd._setup import Setup
from resolvi_sd._tables import Groups, align_genes, check_place_used, missing_genes, query_layer, resolve_table
from resolvi_sd._tiles import cut_patches
from resolvi_sd._validation import check_flag, check_key, warn_user

__all__ = ["fit_model", "infer_posterior", "read_query", "summarize"]

# torch has one random state per process, so two fits in different threads would draw from the same state.
_ONE_FIT_AT_A_TIME = threading.Lock()

# The minibatches of the posterior pass are neighboring patches, so larger ones would only save on bookkeeping.
_INFERENCE_PATCH = 128
# Factor by which the sizes of cells of two tables may differ; in other units, they differ by more.
_SIMILAR = 4.0


def fit_model(
    model_input: ModelInput,
    config: ModelConfig,
    training: TrainingConfig,
    *,
    generator: np.random.Generator,
    accelerator: str = "auto",
    devices: int | str | list[int] = "auto",
    show_progress_bar: bool = True,
    mapped: FittedModel | None = None,
) -> FittedModel:
    """Train a model, from scratch or, for a query, from a copy of `mapped`; global random states are not changed."""
    view = model_input.view
    with _ONE_FIT_AT_A_TIME, torch.random.fork_rng():
        seed = draw_seed(generator)
        torch.manual_seed(seed)
        module = ResolviModule(config, summarize(model_input)) if mapped is None else copy_module(mapped.module)
        patch_size = patch_size_of(training, module.data.n_train)
        patches = cut_patches(view.coordinates, view.sections.codes, patch_size=patch_size, include=view.has_counts)
        history = train_on_devices(
            module,
            model_input.tissue(),
            patches,
            training,
            rng=generator,
            accelerator=accelerator,
            devices=devices,
            show_progress_bar=show_progress_bar,
        )
    trained = FittedModel(
        module=module,
        setup=model_input.setup,
        training=training,
        genes=tuple(view.adata.var_names.astype(str)),
        batches=view.batches.names,
        covariates=tuple(covariate.names for covariate in model_input.covariates),
        history=history,
        seed=seed,
        labels=() if model_input.labels is None else model_input.labels.names,
    )
    if mapped is None:
        return trained
    return replace(
        trained,
        labels=mapped.labels,
        colors=mapped.colors,
        is_query=mapped.is_query,
    )


def read_query(
    query: SpatialData | AnnData,
    reference: FittedModel,
    reference_table: AnnData,
    *,
    table_key: str = "table",
    layer: str | None = None,
    batch_key: str | None = None,
    library_key: str | None = None,
    spatial_key: str | None = None,
    coordinate_system: str | None = None,
    size_factor_key: str | None = None,
    freeze: bool = True,
) -> tuple[ModelInput, FittedModel]:
    """Read a query in the form expected by the reference, and extend its model to the cells of the query, untrained.

    Genes are matched by name. New batches and categories are added after those of the reference. The depth and the size
    that the model expects of a cell remain those of the reference. Labels and an existing graph of the query are
    ignored.

    Parameters
    ----------
    query
        The query; it is not modified.
    reference, reference_table
        Fitted model, and the table that it was fitted on.
    table_key
        Name of the query's table in a SpatialData object.
    layer
        Layer of the query with the counts, `"X"` for its X; None means the same as in the reference.
    batch_key, library_key, spatial_key, coordinate_system, size_factor_key
        Where the query has its batches, sections, coordinates and sizes; None means the same as in the reference.
    freeze
        Whether training keeps everything learned on the reference.

    Returns
    -------
    The input of the query, with the genes of the reference and the batches and categories of the extended model, and
    the extended model. The table of the input is the query's own if its genes are the same in the same order, otherwise
    a new one.
    """
    given = resolve_table(query, table_key)
    check_flag(freeze, argument="freeze")
    check_place_used(query, given, spatial_key=spatial_key, coordinate_system=coordinate_system)
    _check_columns_of_reference(given, reference.setup, batch_key=batch_key, library_key=library_key)
    layer = query_layer(given, layer, reference.setup.layer)
    table = align_genes(given, reference.genes, layer)
    same = reference.setup
    if size_factor_key is not None and same.size_factor_key is None:
        raise ValueError(
            f"size_factor_key={size_factor_key!r} would be ignored: the reference was fitted without sizes of cells."
        )
    setup = replace(
        same,
        layer=layer,
        batch_key=batch_key or same.batch_key,
        library_key=library_key or same.library_key,
        spatial_key=spatial_key or same.spatial_key,
        coordinate_system=coordinate_system or same.coordinate_system,
        size_factor_key=size_factor_key or same.size_factor_key,
        labels_key=None,
        neighbors_key=None,
    )
    own = read_input(_with_table(query, table_key, table), setup, table_key=table_key)
    batches = own.view.batches
    # Without a batch key, all cells belong to the only batch, whatever its name.
    batches = _joined(batches, reference.batches) if setup.batch_key else replace(batches, names=reference.batches)
    covariates = tuple(
        _joined(groups, known) for groups, known in zip(own.covariates, reference.covariates, strict=True)
    )
    model_input = replace(own, view=replace(own.view, batches=batches), covariates=covariates)
    before = reference.module.data
    if before.median_size and model_input.setup.size_unit != reference.setup.size_unit:
        raise ValueError(
            f"The sizes of the query's cells are in {model_input.setup.size_unit or 'unknown units'}, those of the "
            f"reference in {reference.setup.size_unit or 'unknown units'}, and the model knows the latter only: "
            f"provide both in the same way, from outlines or as `obs[{reference.setup.size_factor_key!r}]`."
        )
    found = summarize(model_input)
    factor = found.median_size / before.median_size if before.median_size else 1.0
    if not 1 / _SIMILAR <= factor <= _SIMILAR:
        warn_user(
            f"The cells of the query are {factor:.3g} times as large as those of the reference, by the median of "
            f"obs[{setup.size_factor_key!r}]: are both in the same unit?"
        )
    unmeasured = missing_genes(given.var_names, reference.genes)
    data = replace(
        found,
        depth=before.depth,
        median_size=before.median_size,
        n_labels=len(reference.labels),
        unmeasured=tuple(np.flatnonzero(np.isin(reference.genes, unmeasured)).tolist()),
    )
    mapped = replace(
        reference,
        module=extend_module(reference.module, data, freeze=freeze),
        setup=model_input.setup,
        batches=batches.names,
        covariates=tuple(groups.names for groups in covariates),
        is_query=True,
        colors=label_colors(reference_table, reference),
        history={name: values[:0] for name, values in reference.history.items()},
    )
    return model_input, mapped


def _check_columns_of_reference(query: AnnData, setup: Setup, **given: str | None) -> None:
    """Raise unless the query has the columns of the reference for which the user named no others.

    Raises
    ------
    KeyError
        If it lacks one.
    """
    needed = [(argument, getattr(setup, argument)) for argument, key in given.items() if key is None]
    needed += [("categorical_covariate_keys", key) for key in setup.categorical_covariate_keys]
    for argument, key in needed:
        if key is not None:
            other = "" if argument == "categorical_covariate_keys" else f"name another, `{argument}=`, or "
            hint = f"The reference was fitted with this column: {other}add it, e.g. `query.obs[{key!r}] = 'new'`."
            check_key(key, query.obs.columns, argument=argument, where="query.obs", hint=hint)


def _with_table(query: SpatialData | AnnData, table_key: str, table: AnnData) -> SpatialData | AnnData:
    """Return the query with this table instead of its own; the query itself is not modified."""
    if isinstance(query, AnnData):
        return table
    if query.tables[table_key] is table:
        return query
    elements = {name: dict(getattr(query, name)) for name in ("shapes", "labels", "points")}
    return SpatialData(**elements, tables={table_key: table})


def _joined(groups: Groups, known: tuple[str, ...]) -> Groups:
    """Return the same groups, numbered so that known names come first, followed by new ones."""
    names = (*known, *(name for name in groups.names if name not in known))
    codes = np.array([names.index(name) for name in groups.names], dtype=np.int64)
    return replace(groups, codes=codes[groups.codes], names=names)


def infer_posterior(
    fitted: FittedModel,
    model_input: ModelInput,
    *,
    generator: np.random.Generator,
    n_samples: int = 1,
    integer_counts: bool = False,
    show_progress_bar: bool = True,
) -> Posterior:
    """Infer the posterior in one pass over all cells."""
    view = model_input.view
    return infer(
        fitted.module,
        model_input.tissue(),
        cut_patches(view.coordinates, view.sections.codes, patch_size=_INFERENCE_PATCH),
        n_samples=n_samples,
        integer_counts=integer_counts,
        rng=generator,
        show_progress_bar=show_progress_bar,
    )


def summarize(model_input: ModelInput) -> DataSummary:
    """Return the summary of the data on which the priors depend."""
    view, graph, labels = model_input.view, model_input.graph, model_input.labels
    # Cells that coincide or touch carry no information about the length scale.
    distances = graph.distance[graph.mask & (graph.distance > 0)]
    totals = group_sums(view.counts, view.batches.codes, len(view.batches.names))
    return DataSummary(
        n_cells=view.n_cells,
        n_train=int(view.has_counts.sum()),
        n_genes=view.n_genes,
        n_batches=len(view.batches.names),
        n_neighbors=int(graph.index.shape[1]),
        # If all neighbors coincide or touch, any length scale gives them equal weights.
        neighbor_distance=float(np.median(distances)) if len(distances) else 1.0,
        gene_profile=torch.from_numpy(totals / np.maximum(totals.sum(axis=1, keepdims=True), 1)).float(),
        depth=float(np.median(view.molecules[view.has_counts])),
        n_labels=0 if labels is None else len(labels.names),
        n_covariates=tuple(len(covariate.names) for covariate in model_input.covariates),
        median_size=0.0 if model_input.sizes is None else float(np.median(model_input.sizes)),
    )
