"""Input of an audit from a fitted table, its labels and a reference, checked before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from spatialdata import SpatialData

from resolvi_sd._analysis._audit import CORRECTED, RAW, AuditInput, Reference
from resolvi_sd._analysis._components import principal_components
from resolvi_sd._analysis._groups import cell_groups, label_groups
from resolvi_sd._csr import row_sums
from resolvi_sd._keys import Keys, fits
from resolvi_sd._random import draw_seed
from resolvi_sd._results import (
    FittedModel,
    corrected_counts,
    corrected_layer_name,
    fitted_counts,
    warn_of_lost_neighbors,
    warn_of_other_counts,
)
from resolvi_sd._setup import Setup
from resolvi_sd._tables import cell_positions, read_groups, read_matrix, table_counts
from resolvi_sd._validation import (
    check_is_table,
    check_key,
    check_markers,
    check_result,
    check_unique,
    group_name,
    listing,
    warn_user,
)
from resolvi_sd.metrics import depth_matched

__all__ = ["audit_input"]

_COMPONENTS = 30
_TRUTH = "true_own"


def _audit_labels(adata: AnnData, labels_key: str, setup: Setup) -> NDArray[np.object_]:
    """Return the label of each cell, None if it has none."""
    if labels_key in {Keys(prefix).predicted for prefix in fits(adata.uns)}:
        raise ValueError(
            f"labels_key={labels_key!r} contains predictions of a fit, which would then judge itself: use labels "
            "from before the fit, such as clusters of the raw counts."
        )
    groups = label_groups(adata, labels_key, setup)
    found = groups.with_cells().names
    if len(found) < 2:
        raise ValueError(f"obs[{labels_key!r}] has {len(found)} labels ({listing(found)}), but an audit needs two.")
    return groups.of_cells()


def _translated(
    labels: NDArray[np.object_], label_map: Mapping[str, str] | None, adata: AnnData, labels_key: str
) -> NDArray[np.object_]:
    """Return the labels with the names used by the reference."""
    if not label_map:
        return labels
    label_map = {group_name(name): group_name(other) for name, other in label_map.items()}
    known = read_groups(adata.obs[labels_key]).with_cells().names
    for name in label_map:
        hint = "Its keys are names in the table, its values names in the reference."
        check_key(name, known, argument="label_map", where=f"table.obs[{labels_key!r}]", hint=hint)
    return np.array([label_map.get(label, label) for label in labels], dtype=object)


def _audit_reference(
    reference: AnnData | None, labels_key: str | None, layer: str | None, panel: pd.Index[Any]
) -> Reference | None:
    """Check the reference given by the user."""
    if reference is None:
        if labels_key is not None or layer is not None:
            raise ValueError("`reference_labels_key` and `reference_layer` require a `reference`.")
        return None
    check_is_table(reference, argument="reference")
    if labels_key is None:
        raise ValueError(
            f"A reference needs its labels: reference_labels_key=..., one of {listing(reference.obs.columns)}."
        )
    check_key(labels_key, reference.obs.columns, argument="reference_labels_key", where="reference.obs")
    todo = "Call `reference.var_names_make_unique()` first."
    check_unique(reference.var_names, what="Gene names of the reference", todo=todo)
    shared = panel.intersection(reference.var_names)
    if not len(shared):
        raise ValueError(
            f"The reference shares no gene with the table. Table: {listing(panel, 5)}; reference: "
            f"{listing(reference.var_names, 5)}. Use the same kind of gene names in both."
        )
    try:
        counts = table_counts(reference, layer)
    except (KeyError, TypeError, ValueError) as error:
        # The message refers to the table that was read, which here is the reference.
        raise type(error)(f"In the reference, with reference_layer={layer!r}: {error.args[0]}") from error
    return Reference(counts, label_groups(reference, labels_key).of_cells(), reference.var_names)


def _check_matched(labels: NDArray[np.object_], reference_labels: NDArray[np.object_]) -> None:
    """Raise if no type of the table is in the reference; warn if both have types that the other lacks."""
    here, there = (set(names) - {None} for names in (labels, reference_labels))
    if not here & there:
        raise ValueError(
            f"The reference shares no label with the table. Table: {listing(pd.unique(labels))}; reference: "
            f"{listing(pd.unique(reference_labels))}. Specify which are the same: label_map={{...}}."
        )
    if here - there and there - here:
        warn_user(
            f"{len(here & there)} of {len(here)} labels of the table are in the reference. Only in the table: "
            f"{listing(sorted(here - there))}; only in the reference: {listing(sorted(there - here))}. If some are the "
            "same with different names, pass `label_map={'name in the table': 'name in the reference'}`."
        )


def audit_input(
    data: SpatialData | AnnData,
    adata: AnnData,
    fitted: FittedModel,
    keys: Keys,
    *,
    table_key: str,
    labels_key: str,
    label_map: Mapping[str, str] | None,
    reference: AnnData | None,
    reference_labels_key: str | None,
    reference_layer: str | None,
    markers: Mapping[str, Sequence[str]] | None,
    corrected_layer: str | Sequence[str] | None,
    rng: np.random.Generator,
) -> AuditInput:
    """Gather the input of an audit; the arguments are those of :func:`resolvi_sd.tl.audit`."""
    setup = fitted.setup
    if label_map and reference is None and markers is None:
        raise ValueError("`label_map` would be ignored: it gives types their names in `reference=` or `markers=`.")
    labels = _audit_labels(adata, labels_key, setup)
    reference_labels = _translated(labels, label_map, adata, labels_key)
    known = _audit_reference(reference, reference_labels_key, reference_layer, adata.var_names)
    if markers is not None:
        markers = {str(label): genes for label, genes in markers.items()}
        for label in markers:
            check_key(label, pd.unique(reference_labels), argument="markers", where="the labels of the table")
        check_markers(markers, adata.var_names)
    if known is not None:
        _check_matched(reference_labels, known.labels)
    tool = keys.call("fit")
    layers = _corrected_layers(adata, keys, corrected_layer)
    check_result(keys.latent, adata.obsm, where="table.obsm", tool=tool)
    check_result(keys.connectivities, adata.obsp, where="table.obsp", tool=tool)
    positions = cell_positions(
        data,
        table_key=table_key,
        library_key=setup.section_key,
        spatial_key=setup.spatial_key,
        coordinate_system=setup.coordinate_system,
    )
    raw = fitted_counts(adata, setup.layer)
    corrections = {name: corrected_counts(adata, keys, raw, layer=layer) for name, layer in layers.items()}
    molecules = row_sums(raw)
    warn_of_other_counts(adata, fitted, keys, raw)
    if keys.weights in adata.obsp:
        so = "They are not counted, so some exposed cells are treated as unexposed. Audit the whole table."
        warn_of_lost_neighbors(adata, fitted, keys, molecules, so=so)
    seed = draw_seed(rng)
    truth = read_matrix(adata.layers[_TRUTH], name="table.layers['true_own']") if _TRUTH in adata.layers else None
    batch = None if setup.batch_key is None else cell_groups(adata, setup.batch_key, argument="batch_key").codes
    measured = fitted.measured
    if fitted.unmeasured:
        raw, truth = raw[:, measured], None if truth is None else truth[:, measured]
        corrections = {name: corrected[:, measured] for name, corrected in corrections.items()}
    return AuditInput(
        raw=raw,
        corrections=corrections,
        controls={name: depth_matched(raw, corrected, rng=seed) for name, corrected in corrections.items()},
        genes=adata.var_names[measured],
        labels=labels,
        reference_labels=reference_labels,
        graph=adata.obsp[keys.connectivities],
        coordinates=positions.coordinates,
        latents={
            RAW: principal_components(raw, _COMPONENTS, seed=seed),
            CORRECTED: np.asarray(adata.obsm[keys.latent]),
        },
        batch=batch if batch is not None and len(np.unique(batch)) > 1 else None,
        reference=known,
        markers=markers,
        truth=truth,
        seed=seed,
    )


def _corrected_layers(adata: AnnData, keys: Keys, layers: str | Sequence[str] | None) -> dict[str, str | None]:
    """Return the layers with corrected counts requested by the user, by name; None means those of the fit."""
    asked: list[str | None] = [None] if layers is None else [layers] if isinstance(layers, str) else list(layers)
    if not asked:
        raise ValueError(f"`corrected_layer` is empty; the table has the layers {listing(adata.layers)}.")
    return {corrected_layer_name(adata, keys, layer): layer for layer in asked}
