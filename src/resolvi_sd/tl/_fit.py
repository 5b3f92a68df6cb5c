"""The main job: fit the model on a table and write the results into it."""

from __future__ import annotations

import threading
import warnings
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from anndata import AnnData
from spatialdata import SpatialData

from resolvi_sd._keys import DEFAULT_KEY, Keys
from resolvi_sd._logging import logger
from resolvi_sd._model import (
    DataSummary,
    ModelConfig,
    Posterior,
    ResolviModule,
    TrainingConfig,
    infer,
    patch_size_of,
    train,
)
from resolvi_sd._random import RandomLike, as_generator, draw_seed
from resolvi_sd._results import FittedModel, Setup, write_fit
from resolvi_sd._tables import TableView, table_view
from resolvi_sd._tiles import Tissue, cut_patches
from resolvi_sd._validation import check_positive_int
from resolvi_sd.gr._existing import graph_from_table
from resolvi_sd.gr._graph import NeighborGraph
from resolvi_sd.gr._neighbors import knn_graph

__all__ = ["fit"]

# torch has one random state per process: two fits in threads would draw from each other's.
_ONE_FIT_AT_A_TIME = threading.Lock()

# The posterior's minibatches are neighbouring patches, so that larger ones only save on bookkeeping.
_INFERENCE_PATCH = 128


def fit(
    data: SpatialData | AnnData,
    *,
    table_key: str = "table",
    layer: str | None = None,
    batch_key: str | None = None,
    library_key: str | None = None,
    spatial_key: str = "spatial",
    coordinate_system: str = "global",
    n_neighbors: int = 10,
    neighbors_key: str | None = None,
    likelihood: Literal["nb", "poisson"] = "nb",
    dispersion: Literal["gene", "gene-batch"] = "gene",
    n_latent: int = 10,
    max_epochs: int | None = None,
    batch_size: int | None = None,
    n_samples: int = 1,
    accelerator: str = "auto",
    devices: int | str | list[int] = "auto",
    rng: RandomLike = 0,
    key_added: str = DEFAULT_KEY,
    integer_counts: bool = False,
    config: ModelConfig | None = None,
    training: TrainingConfig | None = None,
    copy: bool = False,
    show_progress_bar: bool = True,
) -> AnnData | None:
    """Separate each cell's own molecules from its neighbors' and from background.

    Fits ResolVI (Ergen & Yosef 2025) and writes the corrected counts, the latent space and the shares of the three
    sources into the table.

    Parameters
    ----------
    data
        A SpatialData object whose table annotates cells, or a table with coordinates in `obsm`.
    table_key
        Name of the table in a SpatialData object.
    layer
        Layer with the raw counts, whole numbers; None is `X`.
    batch_key
        Column of `obs` with the batch (slide, donor, run) of each cell: the decoder and the background profile
        depend on it.
    library_key
        Column of `obs` with the section of each cell; cells of different sections are never neighbors. Regions of a
        SpatialData object are always sections of their own. None is `batch_key`.
    spatial_key
        Entry of `obsm` with the coordinates of a table that annotates no element.
    coordinate_system
        Coordinate system of the SpatialData object in which distances are measured.
    n_neighbors
        Nearest cells that may leak into a cell.
    neighbors_key
        An existing graph to use instead, as squidpy names it in `uns` (e.g. `"spatial_neighbors"`).
    likelihood
        `"nb"` (negative binomial plus Poisson background) or `"poisson"`.
    dispersion
        One overdispersion per gene, or per gene and batch.
    n_latent
        Dimensions of the latent space.
    max_epochs
        Exactly this many passes over the cells; None: until the ELBO has converged.
    batch_size
        Cells of a minibatch; None chooses by the number of cells.
    n_samples
        1: the posterior at the mean of the latent; more: averaged over so many draws.
    accelerator, devices
        Where to train, as in Lightning. `"auto"` takes a CUDA device where there is one.
    rng
        Seed or generator; the same seed on the same machine gives the same result. Global random states are left
        alone.
    key_added
        Prefix of all that is written.
    integer_counts
        Write whole corrected counts, drawn from the posterior, in place of expectations.
    config
        All settings of the model; then `likelihood`, `dispersion` and `n_latent` must be left at their defaults.
    training
        All settings of the training; then `max_epochs` and `batch_size` must be left at their defaults.
    copy
        Leave `data` alone and return a copy of the table with the results.
    show_progress_bar
        Whether to show progress bars.

    Returns
    -------
    None, or the table if `copy`. Modifies the table (`data` itself, or `data.tables[table_key]`) with:

    - `.layers['resolvi_counts']`: corrected counts, CSR float32, between 0 and the counts, with their sparsity;
    - `.obsm['X_resolvi']`: mean of the latent posterior, cells × n_latent, float32;
    - `.obs['resolvi_true']`, `.obs['resolvi_diffusion']`, `.obs['resolvi_background']`: expected shares of the cell's
      molecules, summing to 1; NaN for cells without counts;
    - `.obsp['resolvi_distances']`, `.obsp['resolvi_connectivities']`, `.uns['resolvi_neighbors']`: the graph;
    - `.obsp['resolvi_weights']`: neighbor weights, rows sum to 1;
    - `.obsp['resolvi_flow']`: expected molecules in the cell of the row from the neighbor of the column;
    - `.varm['resolvi_dispersion']`, `.varm['resolvi_background']`: per gene, genes × 1 or genes × batches;
    - `.uns['resolvi']`: configuration, history, versions and the weights of the fitted model.

    Raises
    ------
    KeyError, ValueError, TypeError
        If something is missing or wrong, before anything is computed; nothing is written then.

    Warns
    -----
    UserWarning
        If cells have no counts (they are left out of the training), or if the rows look like spots.

    References
    ----------
    Ergen & Yosef (2025), ResolVI: addressing noise and bias in spatial transcriptomics,
    doi:10.1101/2025.01.20.634005.

    Examples
    --------
    >>> import resolvi_sd as rsd
    >>> sdata = rsd.datasets.simulate_tissue(n_cells=300, n_genes=40, rng=0)
    >>> rsd.tl.fit(sdata, max_epochs=2, show_progress_bar=False)
    >>> table = sdata.tables["table"]
    >>> bool((table.X - table.layers["resolvi_counts"]).min() >= 0)
    True
    """
    keys = Keys(key_added)
    model_config = _model_config(config, likelihood, dispersion, n_latent)
    training_config = _training_config(training, max_epochs, batch_size)
    generator = as_generator(rng)
    check_positive_int(n_neighbors, argument="n_neighbors")
    check_positive_int(n_samples, argument="n_samples")
    view = table_view(
        data,
        table_key=table_key,
        layer=layer,
        batch_key=batch_key,
        library_key=library_key,
        spatial_key=spatial_key,
        coordinate_system=coordinate_system,
    )
    graph = (
        knn_graph(view.coordinates, view.library, n_neighbors)
        if neighbors_key is None
        else graph_from_table(view.adata, neighbors_key, view.library)
    )
    _warn_empty(view)
    setup = Setup(
        n_neighbors=int(graph.index.shape[1]),
        table_key=table_key if isinstance(data, SpatialData) else None,
        layer=layer,
        batch_key=batch_key,
        library_key=library_key,
        spatial_key=spatial_key,
        coordinate_system=coordinate_system,
        neighbors_key=neighbors_key,
    )
    with _ONE_FIT_AT_A_TIME, torch.random.fork_rng():
        fitted, posterior = _fit(
            view,
            graph,
            setup,
            model_config,
            training_config,
            generator=generator,
            n_samples=n_samples,
            integer_counts=integer_counts,
            accelerator=accelerator,
            devices=devices,
            show_progress_bar=show_progress_bar,
        )
    target = view.adata.copy() if copy else view.adata
    write_fit(target, fitted, posterior, graph, keys=keys, integer_counts=integer_counts)
    shares = posterior.molecules.sum(axis=0) / posterior.molecules.sum()
    logger.info("Of all molecules, %.1f%% own, %.1f%% from neighbors, %.1f%% background.", *(100 * shares))
    return target if copy else None


def _fit(
    view: TableView,
    graph: NeighborGraph,
    setup: Setup,
    config: ModelConfig,
    training: TrainingConfig,
    *,
    generator: np.random.Generator,
    n_samples: int,
    integer_counts: bool,
    accelerator: str,
    devices: int | str | list[int],
    show_progress_bar: bool,
) -> tuple[FittedModel, Posterior]:
    seed = draw_seed(generator)
    torch.manual_seed(seed)
    tissue = Tissue.assemble(view.counts, view.batch, graph.index, graph.distance, graph.mask)
    module = ResolviModule(config, _summarise(view, graph))
    patch_size = patch_size_of(training, module.data.n_train)
    patches = cut_patches(view.coordinates, view.library, patch_size=patch_size, include=view.has_counts)
    history = train(
        module,
        tissue,
        patches,
        training,
        rng=generator,
        accelerator=accelerator,
        devices=devices,
        show_progress_bar=show_progress_bar,
    )
    everywhere = cut_patches(view.coordinates, view.library, patch_size=_INFERENCE_PATCH)
    posterior = infer(
        module,
        tissue,
        everywhere,
        n_samples=n_samples,
        integer_counts=integer_counts,
        rng=generator,
        show_progress_bar=show_progress_bar,
    )
    genes = tuple(view.adata.var_names.astype(str))
    return FittedModel(module, setup, training, genes, view.batch_names, history, seed), posterior


def _summarise(view: TableView, graph: NeighborGraph) -> DataSummary:
    """Return what the priors take from the data."""
    distances = graph.distance[graph.mask]
    median = float(np.median(distances)) if len(distances) else 0.0
    totals = np.stack(
        [np.asarray(view.counts[view.batch == code].sum(axis=0)).ravel() for code in range(len(view.batch_names))]
    )
    return DataSummary(
        n_cells=view.n_cells,
        n_train=int(view.has_counts.sum()),
        n_genes=view.n_genes,
        n_batches=len(view.batch_names),
        n_neighbors=int(graph.index.shape[1]),
        # Where all neighbors coincide, any length scale gives them equal weight.
        neighbor_distance=median if median > 0 else 1.0,
        gene_profile=torch.from_numpy(totals / np.maximum(totals.sum(axis=1, keepdims=True), 1)).float(),
        depth=float(np.median(np.asarray(view.counts.sum(axis=1)).ravel()[view.has_counts])),
    )


def _warn_empty(view: TableView) -> None:
    n_empty = int((~view.has_counts).sum())
    if n_empty:
        warnings.warn(
            f"{n_empty:,} of {view.n_cells:,} cells have no counts: they are left out of the training and get empty "
            "corrected counts and NaN shares.",
            UserWarning,
            stacklevel=3,
        )


def _model_config(config: ModelConfig | None, likelihood: str, dispersion: str, n_latent: int) -> ModelConfig:
    default = ModelConfig()
    given: dict[str, Any] = {"likelihood": likelihood, "dispersion": dispersion, "n_latent": n_latent}
    changed = {name: value for name, value in given.items() if value != getattr(default, name)}
    if config is not None:
        _refuse_mixture(changed, "config=ModelConfig(...)")
    return replace(config or default, **changed)


def _training_config(training: TrainingConfig | None, max_epochs: int | None, batch_size: int | None) -> TrainingConfig:
    given: dict[str, Any] = {"max_epochs": max_epochs, "batch_size": batch_size}
    changed = {name: value for name, value in given.items() if value is not None}
    if training is not None:
        _refuse_mixture(changed, "training=TrainingConfig(...)")
    return replace(training or TrainingConfig(), **changed)


def _refuse_mixture(changed: dict[str, Any], argument: str) -> None:
    if changed:
        raise ValueError(f"Give {sorted(changed)} inside `{argument}`, not beside it.")
