"""A table as the model sees it: read and checked, with the graph, before anything is computed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast, get_args

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray
from spatialdata import SpatialData

from resolvi_sd._graphs import NeighborGraph, graph_from_table, nearest_graph
from resolvi_sd._results import FittedModel, Setup, category_codes
from resolvi_sd._tables import (
    Groups,
    Labels,
    Quantity,
    TableView,
    cell_sizes,
    group_by,
    read_labels,
    read_sizes,
    resolve_table,
    size_unit,
    table_view,
)
from resolvi_sd._tiles import Tissue
from resolvi_sd._validation import MOST_CATEGORIES, check_not_corrected, warn_overlapping_sections, warn_user

__all__ = ["ModelInput", "as_fitted", "read_input"]

# Fewer cells of each of many categories than this make them measurements.
_FEW_CELLS = 10
# Counted molecules of cells of one size vary as much as they are many (Poisson), of cells of all sizes far more: below
# half of that, of at least so many cells, something has made them equal.
_LEAST_DISPERSION, _ENOUGH_CELLS = 0.5, 50


@dataclass(frozen=True)
class ModelInput:
    """A table as the model sees it, checked.

    Parameters
    ----------
    view, graph
        Counts, coordinates, sections and batches; the neighbors.
    labels, covariates, sizes
        What the setup names beside: labels, further covariates, size factors in their units.
    setup
        Where all of this came from.
    """

    view: TableView
    graph: NeighborGraph
    labels: Labels | None
    covariates: tuple[Groups, ...]
    sizes: NDArray[np.float32] | None
    setup: Setup

    def tissue(self) -> Tissue:
        """Return the plain arrays that minibatches are cut from."""
        graph = self.graph
        categories = np.stack([self.view.batch, *(covariate.codes for covariate in self.covariates)], axis=1)
        return Tissue.assemble(
            self.view.counts,
            categories.astype(np.int64),
            graph.index,
            graph.distance,
            graph.mask,
            molecules=self.view.molecules,
            label=None if self.labels is None else self.labels.codes,
            size=self.sizes,
        )


def read_input(
    data: SpatialData | AnnData, setup: Setup, *, table_key: str = "table", graph: NeighborGraph | None = None
) -> ModelInput:
    """Read and check all that `setup` names, and build the graph unless it is known; nothing is written.

    Which table of a SpatialData object it is, is not part of the setup: tables are renamed, filtered and copied.

    Raises
    ------
    ValueError
        If the counts are corrected ones, beside what the readers raise.

    Warns
    -----
    UserWarning
        If cells have no counts, or all the same number of molecules, the rows look like spots, sections seem to lie on
        top of each other, no cell has a neighbor, all are at one place, or columns of groups seem to be measurements.
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
    )
    labels = None
    if setup.labels_key is not None:
        labels = read_labels(view.adata, setup.labels_key, setup.unlabeled_category)
    covariates = tuple(
        group_by(view.adata, key, argument="categorical_covariate_keys") for key in setup.categorical_covariate_keys
    )
    _warn_continuous(setup, view, labels, covariates)
    sizes, setup = _sizes(data, view.adata, setup, table_key)
    if graph is None:
        graph = _make_graph(data, view, setup, table_key)
    _warn_empty(view)
    _warn_of_equal_depth(view, setup)
    _warn_of_places(view, graph, setup)
    return ModelInput(view, graph, labels, covariates, sizes, setup)


def _make_graph(data: SpatialData | AnnData, view: TableView, setup: Setup, table_key: str) -> NeighborGraph:
    if setup.neighbors_key is not None:
        return graph_from_table(view.adata, setup.neighbors_key, view.library)
    return nearest_graph(
        data,
        view.coordinates,
        view.library,
        setup.n_neighbors,
        distance=setup.distance,
        table_key=table_key,
        coordinate_system=setup.coordinate_system,
    )


def as_fitted(model_input: ModelInput, fitted: FittedModel) -> ModelInput:
    """Return the input of a fitted table with the batches and categories of the fit, whichever of them the table has.

    Raises
    ------
    ValueError
        If the table has others.
    """
    codes = category_codes(model_input.view.adata, fitted).astype(np.int32)
    covariates = (Groups(codes[:, i], names) for i, names in enumerate(fitted.covariates, start=1))
    view = replace(model_input.view, batch=codes[:, 0], batch_names=fitted.batches)
    return replace(model_input, view=view, covariates=tuple(covariates))


def _sizes(
    data: SpatialData | AnnData, adata: AnnData, setup: Setup, table_key: str
) -> tuple[NDArray[np.float32] | None, Setup]:
    """Return the size of each cell: those in `obs`, or measured from outlines where it has none, with their unit."""
    key = setup.size_factor_key
    if key is None:
        return None, setup
    if key in adata.obs or not isinstance(data, SpatialData) or key not in get_args(Quantity):
        return read_sizes(adata, key), replace(setup, size_unit=size_unit(adata, key))
    measured = cell_sizes(
        data, quantity=cast(Quantity, key), table_key=table_key, coordinate_system=setup.coordinate_system
    )
    return measured.values.astype(np.float32), replace(setup, size_unit=measured.unit)


def _warn_continuous(setup: Setup, view: TableView, labels: Labels | None, covariates: tuple[Groups, ...]) -> None:
    """Warn of columns that seem to be measurements: each of their values would have an effect of its own."""
    names = [(key, groups.names) for key, groups in zip(setup.categorical_covariate_keys, covariates, strict=True)]
    if setup.batch_key is not None:
        names.append((setup.batch_key, view.batch_names))
    if setup.labels_key is not None and labels is not None:
        names.append((setup.labels_key, labels.names))
    for key, found in names:
        if len(found) > MOST_CATEGORIES and len(found) > view.n_cells / _FEW_CELLS:
            warn_user(
                f"obs[{key!r}] has {len(found):,} categories for {view.n_cells:,} cells: is it a measurement? Each "
                "category has effects of its own on expression. Leave it out, or cut it into a few (`pandas.cut`)."
            )


def _warn_of_equal_depth(view: TableView, setup: Setup) -> None:
    """Warn if cells have the same number of molecules, more nearly than counting would leave to cells of one size."""
    molecules = view.molecules[view.has_counts]
    if len(molecules) >= _ENOUGH_CELLS and molecules.var() < _LEAST_DISPERSION * molecules.mean():
        where = "X" if setup.layer is None else f"layers[{setup.layer!r}]"
        warn_user(
            f"All cells have nearly the same number of molecules in `{where}` ({molecules.mean():.0f} ± "
            f"{molecules.std():.1f}): are these counts that were normalized and rounded? The model needs them as they "
            "were measured."
        )


def _warn_empty(view: TableView) -> None:
    n_empty = int((~view.has_counts).sum())
    if n_empty:
        warn_user(
            f"{n_empty:,} of {view.n_cells:,} cells have no counts: they are left out of the training and get empty "
            "corrected counts, NaN shares and no predicted label."
        )


def _warn_of_places(view: TableView, graph: NeighborGraph, setup: Setup) -> None:
    if view.n_cells < 2:
        return
    if (view.coordinates == view.coordinates[0]).all():
        warn_user(
            f"All {view.n_cells:,} cells are at the same place, so that their neighbors are any of them. Are these the "
            "coordinates (`spatial_key=`, or the elements that the table annotates)?"
        )
    if setup.neighbors_key is None and setup.distance == "centroid" and graph.mask[:, 0].all():
        warn_overlapping_sections(view.adata.obs, graph.index[:, 0], graph.distance[:, 0])
    if graph.mask.any():
        return
    key, n_sections = setup.library_key or setup.batch_key, len(np.unique(view.library))
    if setup.neighbors_key is not None:
        reason = f"The graph of neighbors_key={setup.neighbors_key!r} has no edges"
    else:
        column = "the regions of the table" if key is None else f"obs[{key!r}]"
        reason = (
            f"Cells of different sections are never neighbors, and {column} make {n_sections:,} sections of "
            f"{view.n_cells:,} cells"
        )
    warn_user(f"No cell has a neighbor, so that nothing can be found to have leaked. {reason}.")
