"""Writing of a fit into its table, after everything is validated and computed, so that it is never half-written."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from resolvi_sd._graphs import NeighborGraph, is_own_graph, write_graph
from resolvi_sd._keys import Keys, fits
from resolvi_sd._model import Posterior, ResolviModule
from resolvi_sd._results._colors import label_colors
from resolvi_sd._results._fitted import FittedModel, to_state
from resolvi_sd._results._same_input import CellColumns, columns_to_recognize
from resolvi_sd._setup import Setup

__all__ = ["check_room", "most_probable", "remove_audits", "write_fit", "write_labels"]


def check_room(adata: AnnData, setup: Setup, keys: Keys, *, copy: bool = False) -> None:
    """Raise ValueError if the results of a fit cannot be written under `keys`.

    They must not replace what the fit reads or, in the table itself, entries that are not results of the fit with this
    name.
    """
    _check_inputs_kept(setup, keys)
    _check_name(adata, keys)
    if not copy:
        _check_place_free(adata, keys)


def _check_inputs_kept(setup: Setup, keys: Keys) -> None:
    read = {"layers": (setup.layer,), "obs": setup.columns, "obsm": (setup.spatial_key,)}
    owned = keys.owned()
    lost = [f"{slot}[{name!r}]" for slot, names in read.items() for name in names if name in owned[slot]]
    if lost:
        raise ValueError(
            f"The fit reads {', '.join(lost)}, which results with key_added={keys.prefix!r} replace. Choose another "
            "`key_added=` for the results, or copy the input to another name."
        )


def _check_name(adata: AnnData, keys: Keys) -> None:
    keys.check_case(lambda slot: getattr(adata, slot), where="the table")
    for other in fits(adata.uns):
        if keys.prefix in Keys(other).owned()["uns"][:-1] or other in keys.owned()["uns"][:-1]:
            raise ValueError(
                f"key_added={keys.prefix!r}: the table has a fit with the name {other!r}, and the results of one would "
                "replace those of the other. Choose another `key_added=`."
            )


def _check_place_free(adata: AnnData, keys: Keys) -> None:
    if keys.prefix in fits(adata.uns):
        return
    # A graph with this name may be one of squidpy.
    no_fit_needed = keys.of_niches | (keys.of_graph if is_own_graph(adata, keys) else set())
    taken = [
        f"{slot}[{name!r}]"
        for slot, names in keys.owned().items()
        for name in names
        if name in getattr(adata, slot) and name not in no_fit_needed
    ]
    if taken:
        raise ValueError(
            f"Results with key_added={keys.prefix!r} would replace {', '.join(taken)}, and the table has no fit with "
            "this name. Choose another `key_added=`, or rename these entries; remove them if they are left over from a "
            "fit (tables that are concatenated keep results, but lose the model)."
        )


def write_fit(
    adata: AnnData,
    fitted: FittedModel,
    posterior: Posterior,
    graph: NeighborGraph,
    *,
    categories: NDArray[np.int64],
    sizes: NDArray[np.float32] | None,
    keys: Keys,
) -> None:
    """Write all results of a fit under `keys`; results of an earlier fit are replaced or removed.

    Parameters
    ----------
    adata
        The table.
    fitted, posterior, graph
        The fitted model, its posterior for each cell, and the neighbors that were used.
    categories
        Batch and further covariates of each cell, `(n_cells, 1 + n_covariates)`; kept of some cells, to recognize them.
    sizes
        Size factor of each cell, if any; written if it was measured from outlines.
    keys
        Names of the entries.
    """
    module, shares = fitted.module, posterior.shares
    _remove(adata, keys)
    params = fitted.setup.to_plain()
    if fitted.setup.neighbors_key is not None:
        # An existing graph has its own number and kind of neighbors.
        params = {name: value for name, value in params.items() if name not in ("n_neighbors", "distance")}
    write_graph(adata, graph, keys=keys, params=params)
    adata.layers[keys.counts] = posterior.own
    adata.obsm[keys.latent] = posterior.latent
    for key, share in zip(keys.shares, shares.T, strict=True):
        adata.obs[key] = share
    if fitted.setup.size_unit is not None:
        adata.obs[keys.size] = sizes
    adata.obsp[keys.weights] = graph.by_edge(posterior.weights)
    adata.obsp[keys.flow] = graph.by_edge(posterior.flow)
    adata.varm[keys.dispersion] = _inverse_overdispersion(module).T.copy()
    adata.varm[keys.background] = module.background_profile().detach().numpy().T.copy()
    if posterior.probabilities is not None:
        write_labels(adata, fitted, posterior.probabilities, keys=keys)
    columns = CellColumns(categories, sizes if fitted.setup.size_unit is None else None)
    adata.uns[keys.model] = to_state(fitted) | columns_to_recognize(adata, columns, posterior.molecules.sum(axis=1))


def _inverse_overdispersion(module: ResolviModule) -> NDArray[np.float32]:
    """Return the inverse overdispersion, 1 or batches × genes; infinite if counts are Poisson."""
    found: NDArray[np.float32] = module.concentration().detach().numpy()
    return np.full_like(found, np.inf) if module.config.likelihood == "poisson" else found


def most_probable(fitted: FittedModel, probabilities: NDArray[np.float32]) -> pd.Categorical[str]:
    """Return the most probable label of each cell, with the categories of the fit; missing if probabilities are NaN."""
    known = ~np.isnan(probabilities).any(axis=1)
    codes: NDArray[np.int64] = np.where(known, probabilities.argmax(axis=1), -1)
    return pd.Categorical.from_codes(codes, pd.Index(fitted.labels, dtype=object))


def write_labels(adata: AnnData, fitted: FittedModel, probabilities: NDArray[np.float32], *, keys: Keys) -> None:
    """Write predicted labels, with the categories and colors of the labels of the fit, and their probabilities."""
    colors = label_colors(adata, fitted)
    adata.obs[keys.predicted] = most_probable(fitted, probabilities)
    adata.obsm[keys.probabilities] = probabilities
    if colors:
        adata.uns[keys.predicted_colors] = np.array(colors, dtype=object)


def remove_audits(adata: AnnData, layers: Collection[str]) -> None:
    """Remove the audits, under any key, of corrected counts that are replaced."""
    for prefix in fits(adata.uns):
        audit = adata.uns.get(Keys(prefix).audit, {})
        if "corrected_layer" in audit and not set(audit["corrected_layer"].astype(str)).isdisjoint(layers):
            del adata.uns[Keys(prefix).audit]


def _remove(adata: AnnData, keys: Keys) -> None:
    remove_audits(adata, keys.owned()["layers"])
    for slot, names in keys.owned().items():
        container = getattr(adata, slot)
        for name in names:
            if name in container:
                del container[name]
