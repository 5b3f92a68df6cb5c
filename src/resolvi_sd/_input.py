"""The input of the model: a table that is read and checked, with its graph, before anything is computed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast, get_args

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray
from spatialdata import SpatialData

from resolvi_sd._graphs import NeighborGraph, graph_from_table, nearest_graph
from resolvi_sd._results import FittedModel, category_codes
from resolvi_sd._setup import Setup
from resolvi_sd._tables import (
    Groups,
    Quantity,
    TableView,
    cell_sizes,
    group_by,
    one_group,
    read_labels,
    read_sizes,
    resolve_table,
    size_unit,
    table_view,
)
from resolvi_sd._tiles import Tissue
from resolvi_sd._validation import (
    MOST_CATEGORIES,
    check_not_corrected,
    matrix_name,
    warn_of_overlapping_sections,
    warn_of_units,
    warn_user,
)

__all__ = ["ModelInput", "as_fitted", "read_input"]

# Many categories with fewer cells than this on average are taken for measurements.
_FEW_CELLS = 10
# The molecules of equally sized cells have a variance equal to their mean (Poisson), and cells of different sizes vary
# far more. If the variance is below half the mean in at least this many cells, the counts have been equalized.
_LEAST_DISPERSION, _ENOUGH_CELLS = 0.5, 50


@dataclass(frozen=True)
class ModelInput:
    """The checked input of the model.

    Attributes
    ----------
    view, graph
        Counts, coordinates, sections and batches; the neighbors.
    labels, covariates, sizes
        Optional columns named by the setup: labels, further covariates, and size factors in their units.
    setup
        Where all of this was read from.
    """

    view: TableView
    graph: NeighborGraph
    labels: Groups | None
    covariates: tuple[Groups, ...]
    sizes: NDArray[np.float32] | None
    setup: Setup

    @property
    def categories(self) -> NDArray[np.int64]:
        """Batch and further covariates of each cell, `(n_cells, 1 + n_covariates)`."""
        groupings = (self.view.batches, *self.covariates)
        return np.stack([groups.codes for groups in groupings], axis=1)

    def tissue(self) -> Tissue:
        """Return the plain arrays that minibatches are cut from."""
        graph = self.graph
        return Tissue.assemble(
            self.view.counts,
            self.categories,
            graph.index,
            graph.distance,
            graph.mask,
            molecules=self.view.molecules,
            label=None if self.labels is None else self.labels.codes,
            size=self.sizes,
        )


def read_input(
    data: SpatialData | AnnData,
    setup: Setup,
    *,
    table_key: str = "table",
    graph: NeighborGraph | None = None,
    coordinates: NDArray[np.float64] | None = None,
) -> ModelInput:
    """Read and check everything that `setup` names, and build the graph unless it is given; nothing is written.

    Known coordinates are not looked for.

    The name of the table in a SpatialData object is not part of the setup, since tables are renamed, filtered and
    copied.

    Raises
    ------
    ValueError
        If the counts are corrected counts, in addition to the errors of the readers.

    Warns
    -----
    UserWarning
        If cells have no counts, if all have nearly the same number of molecules, if the rows look like spots, if
        sections seem to overlap, if no cell has a neighbor, if all cells are at the same position, if sections seem to
        have different units, or if grouping columns look like measurements.
    """
    check_not_corrected(resolve_table(data, table_key), layer=setup.layer)
    view = table_view(
        data,
        table_key=table_key,
        layer=setup.layer,
        batch_key=setup.batch_key,
        library_key=setup.library_key,
        spatial_key=setup.spatial_key,
        coordinate_system=setup.coordinate_system,
        coordinates=coordinates,
    )
    labels = None
    if setup.labels_key is not None:
        labels = read_labels(view.adata, setup.labels_key, setup.unlabeled_category)
    covariates = tuple(
        group_by(view.adata, key, argument="categorical_covariate_keys") for key in setup.categorical_covariate_keys
    )
    _warn_of_measurements(setup, view, labels, covariates)
    sizes, setup = _sizes(data, view.adata, setup, table_key)
    if graph is None:
        graph = _make_graph(data, view, setup, table_key)
    _warn_of_empty_cells(view)
    _warn_of_equal_depth(view, setup)
    _warn_of_places(view, graph, setup)
    return ModelInput(view, graph, labels, covariates, sizes, setup)


def _make_graph(data: SpatialData | AnnData, view: TableView, setup: Setup, table_key: str) -> NeighborGraph:
    if setup.neighbors_key is not None:
        # Without a column of sections, only a SpatialData object knows that its regions are not one piece of tissue.
        named = isinstance(data, SpatialData) or setup.library_key is not None or setup.batch_key is not None
        sections = view.sections if named else one_group(view.n_cells, "all")
        return graph_from_table(view.adata, setup.neighbors_key, sections.codes)
    return nearest_graph(
        data,
        view.coordinates,
        view.sections.codes,
        setup.n_neighbors,
        distance=setup.distance,
        table_key=table_key,
        coordinate_system=setup.coordinate_system,
    )


def as_fitted(model_input: ModelInput, fitted: FittedModel) -> ModelInput:
    """Return the input of a fitted table with all batches and categories of the fit, even those that the table lacks.

    Raises
    ------
    ValueError
        If the table has batches or categories that the fit does not.
    """
    codes = category_codes(model_input.view.adata, fitted)
    groupings = zip(codes.T, (fitted.batches, *fitted.covariates), strict=True)
    batches, *covariates = (Groups(of_cells, names) for of_cells, names in groupings)
    return replace(model_input, view=replace(model_input.view, batches=batches), covariates=tuple(covariates))


def _sizes(
    data: SpatialData | AnnData, adata: AnnData, setup: Setup, table_key: str
) -> tuple[NDArray[np.float32] | None, Setup]:
    """Return the cell sizes, from `obs` or else measured from outlines, and the setup with their unit."""
    key = setup.size_factor_key
    if key is None:
        return None, setup
    if key in adata.obs or not isinstance(data, SpatialData) or key not in get_args(Quantity):
        return read_sizes(adata, key), replace(setup, size_unit=size_unit(adata, key))
    measured = cell_sizes(
        data, quantity=cast(Quantity, key), table_key=table_key, coordinate_system=setup.coordinate_system
    )
    return measured.values.astype(np.float32), replace(setup, size_unit=measured.unit)


def _warn_of_measurements(setup: Setup, view: TableView, labels: Groups | None, covariates: tuple[Groups, ...]) -> None:
    """Warn about columns that look like continuous measurements, since each value would become its own category."""
    effects, component = "its own effects on expression", "a component of the latent space to itself"
    keys = setup.categorical_covariate_keys
    names = [(key, groups.names, effects) for key, groups in zip(keys, covariates, strict=True)]
    if setup.batch_key is not None:
        names.append((setup.batch_key, view.batches.names, effects))
    if setup.labels_key is not None and labels is not None:
        names.append((setup.labels_key, labels.names, component))
    for key, found, has in names:
        if len(found) > MOST_CATEGORIES and len(found) > view.n_cells / _FEW_CELLS:
            warn_user(
                f"obs[{key!r}] has {len(found):,} categories for {view.n_cells:,} cells: is it a measurement? Each "
                f"category has {has}. Leave it out, or bin it into a few (`pandas.cut`)."
            )


def _warn_of_equal_depth(view: TableView, setup: Setup) -> None:
    """Warn if molecules per cell vary less than counting noise alone would make them vary in equally sized cells."""
    molecules = view.molecules[view.has_counts]
    if len(molecules) >= _ENOUGH_CELLS and molecules.var() < _LEAST_DISPERSION * molecules.mean():
        warn_user(
            f"All cells have nearly the same number of molecules in `{matrix_name(setup.layer)}` "
            f"({molecules.mean():.0f} ± {molecules.std():.1f}): were these counts normalized and rounded? The model "
            "needs the counts as measured."
        )


def _warn_of_empty_cells(view: TableView) -> None:
    n_empty = int((~view.has_counts).sum())
    if n_empty:
        warn_user(
            f"{n_empty:,} of {view.n_cells:,} cells have no counts: they are excluded from training and get empty "
            "corrected counts, NaN shares and no predicted label."
        )


def _warn_of_places(view: TableView, graph: NeighborGraph, setup: Setup) -> None:
    if view.n_cells < 2:
        return
    if (view.coordinates == view.coordinates[0]).all():
        warn_user(
            f"All {view.n_cells:,} cells are at the same position, so their neighbors are arbitrary. Are these the "
            "right coordinates (`spatial_key=`, or the elements that the table annotates)?"
        )
    if setup.neighbors_key is None and setup.distance == "centroid":
        has_neighbor = graph.mask[:, 0]
        warn_of_units(view.sections.codes[has_neighbor], graph.distance[has_neighbor, 0], view.sections.names)
        if has_neighbor.all():
            warn_of_overlapping_sections(view.adata.obs, graph.index[:, 0], graph.distance[:, 0])
    if graph.mask.any():
        return
    key, n_sections = setup.section_key, len(view.sections.names)
    if setup.neighbors_key is not None:
        reason = f"The graph of neighbors_key={setup.neighbors_key!r} has no edges"
    else:
        column = "the regions of the table" if key is None else f"obs[{key!r}]"
        reason = (
            f"Cells of different sections are never neighbors, and the {view.n_cells:,} cells are in {n_sections:,} "
            f"sections (according to {column})"
        )
    warn_user(f"No cell has a neighbor, so no leakage can be detected. {reason}.")
