"""Main entry point: fit the model to a table and write the results into it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from anndata import AnnData
from spatialdata import SpatialData

from resolvi_sd._engine import fit_model, infer_posterior
from resolvi_sd._graphs import Distance
from resolvi_sd._input import read_input
from resolvi_sd._keys import DEFAULT_KEY, Keys
from resolvi_sd._logging import logger
from resolvi_sd._model import ModelConfig, TrainingConfig, check_accelerator, combine_configs
from resolvi_sd._random import RandomLike, as_generator
from resolvi_sd._results import check_room, write_fit
from resolvi_sd._setup import Setup
from resolvi_sd._tables import check_place_used, resolve_table, size_unit
from resolvi_sd._validation import check_flag, check_names, check_positive_int, check_takes_results, unlabeled_name
from resolvi_sd.io import check_writable, write_results

__all__ = ["fit"]


def fit(
    data: SpatialData | AnnData,
    *,
    table_key: str = "table",
    layer: str | None = None,
    batch_key: str | None = None,
    library_key: str | None = None,
    labels_key: str | None = None,
    unlabeled_category: str | float = "unknown",
    categorical_covariate_keys: Sequence[str] | None = None,
    size_factor_key: str | None = None,
    spatial_key: str = "spatial",
    coordinate_system: str = "global",
    n_neighbors: int = 10,
    distance: Distance = "centroid",
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
    write: bool = False,
    show_progress_bar: bool = True,
) -> AnnData | None:
    """Separate each cell's own molecules from those of its neighbors and from background.

    Fits ResolVI (Ergen & Yosef 2025) and writes the corrected counts, the latent space and the shares of the three
    sources into the table.

    Parameters
    ----------
    data
        A SpatialData object whose table annotates cells, or a table with coordinates in `obsm`.
    table_key
        Name of the table in a SpatialData object.
    layer
        Layer with the raw counts (whole numbers). None: `X`.
    batch_key
        Column of `obs` with the batch (slide, donor, run) of each cell: the decoder, the background profile and the
        prior of the shares depend on it.
    library_key
        Column of `obs` with the section of each cell; cells of different sections are never neighbors. Regions of a
        SpatialData object are always separate sections. None: `batch_key`, or else, for a table on its own, the regions
        that it names.
    labels_key
        Column of `obs` with cell-type labels, for the semi-supervised model, which has a mixture component for each
        label and a classifier, and predicts the labels of all cells. Labels are treated as text: numbers are returned
        as `"1"`, `"2"`, ...
    unlabeled_category
        Value of `labels_key` for cells whose label is unknown; NaN has the same meaning.
    categorical_covariate_keys
        Columns of `obs` with further covariates (donor, chemistry, ...), which enter every layer of the decoder in
        addition to the batch; with `ModelConfig(encode_covariates=True)`, they enter the latent encoder as well.
    size_factor_key
        Column of `obs` with the physical size of each cell: the model then expects molecules in proportion to size, at
        a density that it learns, instead of the observed total. `"area"` and `"volume"` are measured from the outlines
        if `obs` has no such column (:func:`resolvi_sd.gr.cell_sizes`).
    spatial_key
        Entry of `obsm` with the coordinates of a table that annotates no element.
    coordinate_system
        Coordinate system of the SpatialData object in which distances are measured. For elements combined with
        `spatialdata.concatenate`, `"global"` stands for the coordinate system of each (`"global-A"`, ...).
    n_neighbors
        Number of nearest cells that may leak into a cell.
    distance
        `"centroid"`, or `"boundary"` for large and elongated cells: the gap between the outlines of two cells, 0 if
        they touch.
    neighbors_key
        An existing graph to use instead, named as squidpy does in `uns` (e.g. `"spatial_neighbors"`). `n_neighbors` and
        `distance` then apply to cells that the model is transferred to (:func:`resolvi_sd.tl.map_query`).
    likelihood
        `"nb"` (negative binomial plus Poisson background) or `"poisson"`.
    dispersion
        One overdispersion per gene, or per gene and batch.
    n_latent
        Number of dimensions of the latent space.
    max_epochs
        Exactly this many passes over the cells; None: until the ELBO has converged.
    batch_size
        Number of cells per minibatch. None: chosen from the number of cells.
    n_samples
        1: results at the posterior means of the latent space and the shares; more: results averaged over this many
        draws of both.
    accelerator, devices
        Where to train: `"auto"`, `"cpu"`, `"cuda"`, `"mps"`, or `"gpu"` for either of the last two. `"auto"` takes a
        CUDA device if there is one, but not MPS. One device is used unless a larger number is given: each then has its
        own process, with part of the tissue, and a script has to be protected by `if __name__ == "__main__":`.
    rng
        Seed or generator; the same seed on the same machine gives the same result. Global random states are not
        changed.
    key_added
        Prefix of everything that is written. Results of an earlier fit with this prefix are replaced, and those that
        were computed from them (differential expression, niches, leakage, audit, expression) are removed.
    integer_counts
        Write integer corrected counts instead of expectations: they are drawn given the counts, at the posterior means
        of the latent space and the shares, or at a draw of both if `n_samples` is above 1.
    config
        All settings of the model; `likelihood`, `dispersion` and `n_latent` must then be left at their defaults.
    training
        All settings of the training; `max_epochs` and `batch_size` must then be left at their defaults.
    copy
        Leave `data` unchanged and return a copy of the table with the results.
    write
        Write the results to the store that `data` is backed by, as :func:`resolvi_sd.io.write_results` does. Whether
        this is possible is checked before anything is computed; the columns that the fit reads have to be in the store
        as well.
    show_progress_bar
        Whether to show progress bars.

    Returns
    -------
    None, or the table if `copy`. Modifies the table (`data` itself, or `data.tables[table_key]`) with:

    - `.layers['resolvi_counts']`: corrected counts, CSR float32, between 0 and the counts, with the same sparsity (with
      `integer_counts`, int32 and without the zeros); in a temporary file if the counts are not in memory;
    - `.obsm['X_resolvi']`: mean of the latent posterior, cells × n_latent, float32;
    - `.obs['resolvi_true']`, `.obs['resolvi_diffusion']`, `.obs['resolvi_background']`: expected shares of the cell's
      molecules, summing to 1; NaN for cells without counts;
    - `.obsp['resolvi_distances']`, `.obsp['resolvi_connectivities']`, `.uns['resolvi_neighbors']`: the graph;
    - `.obsp['resolvi_weights']`: neighbor weights; rows sum to 1;
    - `.obsp['resolvi_flow']`: expected number of molecules in the cell (row) from the neighbor (column);
    - `.varm['resolvi_dispersion']`, `.varm['resolvi_background']`: per gene, genes × 1 or genes × batches;
    - `.obs['resolvi_predicted']`, `.obsm['resolvi_probabilities']`: with `labels_key`, the most probable label, and the
      probability of each label in `.uns['resolvi']['labels']`;
    - `.obs['resolvi_size']`: with `size_factor_key`, the sizes, if they were measured here or by
      :func:`resolvi_sd.gr.cell_sizes`; their unit is `.uns['resolvi']['setup']['size_unit']`;
    - `.uns['resolvi']`: configuration, history, versions and the weights of the fitted model.

    Raises
    ------
    KeyError, ValueError, TypeError, OSError
        If something is missing or invalid; the error is raised before anything is computed, and nothing is written.

    Warns
    -----
    UserWarning
        If cells have no counts (they are left out of the training), or if the input looks wrong: spots instead of
        cells, equalized depths, overlapping sections, sections in different units, no neighbors, or measurements as
        labels, batches or covariates.

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
    model_config = combine_configs(
        config, ModelConfig(), "config", likelihood=likelihood, dispersion=dispersion, n_latent=n_latent
    )
    training_config = combine_configs(
        training, TrainingConfig(), "training", max_epochs=max_epochs, batch_size=batch_size
    )
    generator = as_generator(rng)
    check_accelerator(accelerator)
    n_neighbors = check_positive_int(n_neighbors, argument="n_neighbors")
    n_samples = check_positive_int(n_samples, argument="n_samples")
    for argument, flag in (("integer_counts", integer_counts), ("copy", copy), ("write", write)):
        check_flag(flag, argument=argument)
    covariates = () if categorical_covariate_keys is None else categorical_covariate_keys
    covariates = check_names(covariates, argument="categorical_covariate_keys")
    setup = Setup(
        n_neighbors=n_neighbors,
        layer=layer,
        batch_key=batch_key,
        library_key=library_key,
        spatial_key=spatial_key,
        coordinate_system=coordinate_system,
        neighbors_key=neighbors_key,
        distance=distance,
        labels_key=labels_key,
        unlabeled_category=unlabeled_name(unlabeled_category),
        categorical_covariate_keys=covariates,
        size_factor_key=size_factor_key,
    )
    table = resolve_table(data, table_key)
    check_place_used(data, table, spatial_key=spatial_key, coordinate_system=coordinate_system)
    if labels_key is None and setup.unlabeled_category != Setup.unlabeled_category:
        raise ValueError(f"unlabeled_category={unlabeled_category!r} would be ignored without `labels_key=`.")
    check_takes_results(table, copy=copy)
    if write:
        _check_store(data, table_key, setup, key_added, copy=copy)
    model_input = read_input(data, setup, table_key=table_key)
    check_room(model_input.view.adata, model_input.setup, keys, copy=copy)
    fitted = fit_model(
        model_input,
        model_config,
        training_config,
        generator=generator,
        accelerator=accelerator,
        devices=devices,
        show_progress_bar=show_progress_bar,
    )
    posterior = infer_posterior(
        fitted,
        model_input,
        generator=generator,
        n_samples=n_samples,
        integer_counts=integer_counts,
        show_progress_bar=show_progress_bar,
    )
    adata = model_input.view.adata
    target = adata.copy() if copy else adata
    write_fit(
        target,
        fitted,
        posterior,
        model_input.graph,
        categories=model_input.categories,
        sizes=model_input.sizes,
        keys=keys,
    )
    shares = posterior.molecules.sum(axis=0) / posterior.molecules.sum()
    logger.info("Of all molecules, %.1f%% own, %.1f%% from neighbors, %.1f%% background.", *(100 * shares))
    if isinstance(data, SpatialData) and write:
        write_results(data, table_key, key_added=key_added)
    return target if copy else None


def _check_store(data: SpatialData | AnnData, table_key: str, setup: Setup, key_added: str, *, copy: bool) -> None:
    """Raise unless the results can be written into the store of `data`."""
    if copy:
        raise ValueError("`write=True` writes the results of `data` to its store, but with `copy=True` it has none.")
    if not isinstance(data, SpatialData):
        raise TypeError(
            f"`write=True` needs a SpatialData object that is backed by a store, not {type(data).__name__}: write a "
            "table yourself, with `table.write_zarr(path)` or `table.write_h5ad(path)`."
        )
    key = setup.size_factor_key
    unit = None if key is None else size_unit(resolve_table(data, table_key), key)
    columns = replace(setup, size_unit=unit).columns
    check_writable(
        data, table_key, key_added=key_added, columns=columns, layer=setup.layer, spatial_key=setup.spatial_key
    )
