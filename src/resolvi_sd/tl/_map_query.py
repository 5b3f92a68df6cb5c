"""Transfer: a fitted table's model on the cells of another table."""

from __future__ import annotations

from dataclasses import replace

from anndata import AnnData
from spatialdata import SpatialData

from resolvi_sd._engine import fit_model, infer_posterior, read_query
from resolvi_sd._keys import DEFAULT_KEY, Keys
from resolvi_sd._model import TrainingConfig
from resolvi_sd._random import RandomLike, as_generator
from resolvi_sd._results import read_fit, write_fit
from resolvi_sd._tables import resolve_table

__all__ = ["map_query"]


def map_query(
    query: SpatialData | AnnData,
    reference: SpatialData | AnnData,
    *,
    max_epochs: int = 0,
    table_key: str = "table",
    reference_table_key: str = "table",
    key_added: str = DEFAULT_KEY,
    layer: str | None = None,
    batch_key: str | None = None,
    library_key: str | None = None,
    spatial_key: str | None = None,
    coordinate_system: str | None = None,
    accelerator: str = "auto",
    devices: int | str | list[int] = "auto",
    rng: RandomLike = 0,
    show_progress_bar: bool = True,
) -> None:
    """Apply the model of a fitted reference to a query: latent, corrected counts, shares and labels.

    What was learned on the reference is kept. With `max_epochs`, the neighbor weights of the query's cells and the
    effects of batches that the reference did not have are learned; without, weights follow the distances, and new
    batches are taken for an average one.

    Parameters
    ----------
    query
        Table to write into; its genes have to be those of the reference, in any order of the tables' rows.
    reference
        SpatialData object or table on which :func:`resolvi_sd.tl.fit` was run.
    max_epochs
        Passes over the query's cells; 0 is no training.
    table_key, reference_table_key
        Names of the tables in SpatialData objects.
    key_added
        Prefix of the fit in the reference, and of what is written into the query.
    layer, batch_key, library_key, spatial_key, coordinate_system
        Where the query's input is, see :func:`resolvi_sd.tl.fit`; None is as in the reference.
    accelerator, devices
        As in Lightning; one device.
    rng
        Seed or generator.
    show_progress_bar
        Whether to show progress bars.

    Returns
    -------
    None. Modifies the query's table as :func:`resolvi_sd.tl.fit` does; labels are predicted if the reference has them.

    Raises
    ------
    KeyError
        If the reference has no fit, or the query lacks something.
    ValueError
        If the genes differ. `ResolVI.load_query_data` matches tables of other genes, as the results of such a query are
        those of another table.

    Examples
    --------
    >>> import resolvi_sd as rsd
    >>> reference, query = (rsd.datasets.simulate_tissue(n_cells=300, n_genes=40, rng=0) for _ in range(2))
    >>> rsd.tl.fit(reference, labels_key="cell_type", max_epochs=2, show_progress_bar=False)
    >>> rsd.tl.map_query(query, reference, show_progress_bar=False)
    >>> "resolvi_predicted" in query.tables["table"].obs
    True
    """
    if max_epochs < 0:
        raise ValueError(f"`max_epochs` must be at least 0, got {max_epochs}.")
    keys = Keys(key_added)
    fitted = read_fit(resolve_table(reference, reference_table_key), keys)
    table = resolve_table(query, table_key)
    if tuple(table.var_names.astype(str)) != fitted.genes:
        shared = len(set(table.var_names.astype(str)) & set(fitted.genes))
        raise ValueError(
            f"The query has {table.n_vars} genes, {shared} of them among the {len(fitted.genes)} of the reference. "
            "Bring it to the reference's genes first (`query_table[:, reference_table.var_names]`), or use "
            "`ResolVI.load_query_data`, which matches genes by name."
        )
    before = fitted.setup
    setup = replace(
        before,
        table_key=table_key if isinstance(query, SpatialData) else None,
        neighbors_key=None,
        layer=layer or before.layer,
        batch_key=batch_key or before.batch_key,
        library_key=library_key or before.library_key,
        spatial_key=spatial_key or before.spatial_key,
        coordinate_system=coordinate_system or before.coordinate_system,
    )
    model_input, mapped = read_query(query, fitted, setup)
    generator = as_generator(rng)
    if max_epochs:
        trained = fit_model(
            model_input,
            fitted.module.config,
            TrainingConfig(max_epochs=max_epochs),
            generator=generator,
            accelerator=accelerator,
            devices=devices,
            show_progress_bar=show_progress_bar,
            module=mapped.module,
        )
        mapped = replace(trained, labels=fitted.labels)
    posterior = infer_posterior(mapped, model_input, generator=generator, show_progress_bar=show_progress_bar)
    write_fit(table, mapped, posterior, model_input.graph, keys=keys, integer_counts=False)
