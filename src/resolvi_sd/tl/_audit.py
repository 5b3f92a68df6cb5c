"""Judge the correction of a fitted table: what it removed, and what it should not have."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from spatialdata import SpatialData
from tqdm.auto import tqdm

from resolvi_sd._analysis import AuditInput, Reference, audit_rows, cell_groups
from resolvi_sd._csr import CSR, row_sums
from resolvi_sd._keys import DEFAULT_KEY, Keys
from resolvi_sd._logging import logger
from resolvi_sd._random import RandomLike, as_generator, draw_seed
from resolvi_sd._results import (
    FittedModel,
    check_within_counts,
    corrected_counts,
    fitted_counts,
    read_fit,
    warn_of_lost_neighbors,
    warn_of_other_counts,
)
from resolvi_sd._tables import cell_positions, resolve_table, table_counts
from resolvi_sd._validation import check_key, check_takes_results, listing
from resolvi_sd.metrics import depth_matched

__all__ = ["audit"]

# A correction that removes more of the types' own markers than this takes too much.
_HIGH_FALSE_REMOVAL = 0.2
# One that removes less than this of all molecules did nothing.
_NOTHING_REMOVED = 0.005
_COMPONENTS = 30
_TRUTH = "true_own"


def audit(
    data: SpatialData | AnnData,
    labels_key: str,
    *,
    reference: AnnData | None = None,
    reference_labels_key: str | None = None,
    reference_layer: str | None = None,
    label_map: Mapping[str, str] | None = None,
    markers: Mapping[str, Sequence[str]] | None = None,
    corrected_layer: str | Sequence[str] | None = None,
    table_key: str = "table",
    key_added: str = DEFAULT_KEY,
    rng: RandomLike = 0,
    copy: bool = False,
    show_progress_bar: bool = True,
) -> pd.DataFrame | None:
    """Judge corrected counts against the raw ones, with all metrics that the data allow.

    Every metric is also given for a control: raw counts thinned to the corrected depth (:func:`metrics.depth_matched
    <resolvi_sd.metrics.depth_matched>`). What is better in the corrected counts than in the control, fewer molecules do
    not explain. Labels and markers are those from before the correction, and the same for all layers.

    Parameters
    ----------
    data
        A SpatialData object or table on which :func:`resolvi_sd.tl.fit` was run, now or before it was stored.
    labels_key
        Column of `obs` with the type of each cell, found without the fit; cells without a value are left out.
    reference
        Single-cell RNA-seq table with counts, to take markers from, and to compare profiles with.
    reference_labels_key
        Column of its `obs` with types.
    reference_layer
        Its layer with counts; None is `X`.
    label_map
        What a type (key) is called in the reference and in `markers` (value); types that it does not name are called
        the same. Several types may be one there.
    markers
        Genes that each type expresses and the others do not, in place of those found in the reference or, without one,
        in the raw counts.
    corrected_layer
        Layer with other corrected counts to judge, e.g. those of :func:`resolvi_sd.tl.decontaminated_counts`, or of
        another method, between 0 and the counts; None: those of the fit. Several layers are judged by the same markers
        and pairs, each against a control of its own depth, and drawn below each other by :func:`resolvi_sd.pl.audit`.
    table_key
        Name of the table in a SpatialData object.
    key_added
        Prefix of the fit.
    rng
        Seed or generator of the thinning, and of cells and folds where metrics draw them.
    copy
        Leave `data` alone and return the result.
    show_progress_bar
        Whether to show a progress bar.

    Returns
    -------
    None, or the DataFrame if `copy`. Modifies the table with `.uns['resolvi_audit']`, a DataFrame with a row per metric
    and layer, for one judged layer after the other:

    - `metric`: see Notes;
    - `layer`: `"raw"`, `"depth_matched"` or `"corrected"`;
    - `value`;
    - `better`: `"higher"`, `"lower"`, or nothing;
    - `n`: what the value is the mean of (cells, genes, or pairs of them or of types);
    - `note`: why a metric has no value;
    - `corrected_layer`: the layer that `"corrected"` is; raw counts and the latent of the fit are the same whichever it
      is.

    Raises
    ------
    KeyError
        If there is no fit, or a column, layer or type that is named does not exist.
    ValueError
        If the labels are predictions of the fit, there are fewer than two, the reference shares no genes or types, or
        `corrected_layer` names no layer or one that is not between 0 and the counts.

    Warns
    -----
    UserWarning
        If more than a fifth of the types' own markers was removed (in cells that cannot have received any, where there
        are such), or next to nothing was; if the counts seem to be others than those of the fit, or the table has lost
        neighbors of its cells since; if labels of the table and of the reference have no counterpart of the same name.

    Notes
    -----
    `molecules_removed`, share of all; `leak_sensitivity` with `own_markers_removed` and `own_markers_removed_unexposed`
    (:func:`metrics.exposure_audit <resolvi_sd.metrics.exposure_audit>`); `coexpression_rate` and
    `coexpression_odds_ratio` of mutually exclusive genes; `neighbor_contamination`, mean share of a cell's molecules;
    `leakage_predictability`, mean over pairs of types of the AUC above that of permuted labels;
    `latent_knn_accuracy`, `latent_silhouette` and, with batches, `latent_batch_mixing`, where raw is the first 30
    principal components of log-normalised raw counts. With a reference, `negative_marker_purity_reads` and `_cells`,
    `reference_cosine` and `reference_correlation_difference`. On simulated tissues, with the layer `true_own`,
    `true_foreign_removed` and `true_own_removed`. Each is defined in the function of :mod:`resolvi_sd.metrics`.

    Examples
    --------
    >>> import resolvi_sd as rsd
    >>> sdata = rsd.datasets.simulate_tissue(n_cells=300, n_genes=40, rng=0)
    >>> rsd.tl.fit(sdata, max_epochs=20, show_progress_bar=False)
    >>> result = rsd.tl.audit(sdata, "cell_type", copy=True, show_progress_bar=False)
    >>> list(result.columns)
    ['metric', 'layer', 'value', 'better', 'n', 'note', 'corrected_layer']

    Two corrections, side by side:

    >>> rsd.tl.decontaminated_counts(sdata, fpr=0.1, show_progress_bar=False)
    >>> layers = ["resolvi_counts", "resolvi_decontaminated"]
    >>> result = rsd.tl.audit(sdata, "cell_type", corrected_layer=layers, copy=True, show_progress_bar=False)
    >>> corrected = result[result["layer"] == "corrected"].pivot(
    ...     index="metric", columns="corrected_layer", values="value"
    ... )
    >>> corrected.columns.to_list()
    ['resolvi_counts', 'resolvi_decontaminated']
    """
    adata = resolve_table(data, table_key)
    if not copy:
        check_takes_results(adata)
    keys = Keys(key_added)
    fitted = read_fit(adata, keys)
    labels = _labels(adata, keys, labels_key)
    judged = _audit_input(
        data,
        adata,
        fitted,
        keys,
        labels=labels,
        reference_labels=_translated(labels, label_map, labels_key),
        reference=_reference(reference, reference_labels_key, reference_layer, adata.var_names),
        markers=markers,
        corrected_layer=corrected_layer,
        rng=as_generator(rng),
    )
    rows = list(tqdm(audit_rows(judged), desc="Audit", unit="number", disable=not show_progress_bar))
    result = _by_correction(pd.DataFrame(rows), list(judged.corrections))
    _report(result, keys)
    if copy:
        return result
    adata.uns[keys.audit] = result
    return None


def _by_correction(rows: pd.DataFrame, corrections: Sequence[str]) -> pd.DataFrame:
    """Return the rows of each correction, one after the other, with those that are the same for all in each of them."""
    parts = [rows[rows["corrected_layer"].isin(["", name])].assign(corrected_layer=name) for name in corrections]
    return pd.concat(parts, ignore_index=True)


def _labels(adata: AnnData, keys: Keys, labels_key: str) -> NDArray[np.object_]:
    """Return the label of each cell, None where it has none."""
    if labels_key == keys.predicted:
        raise ValueError(
            f"labels_key={labels_key!r} are predictions of the fit, which would judge itself: use labels from before "
            "it, such as clusters of the raw counts."
        )
    groups = cell_groups(adata, labels_key, argument="labels_key")
    names = np.array([*groups.names, None], dtype=object)
    labels: NDArray[np.object_] = names[groups.codes]
    found = pd.unique(labels[groups.codes >= 0])
    if len(found) < 2:
        raise ValueError(f"obs[{labels_key!r}] has {len(found)} labels ({listing(found)}), and an audit needs two.")
    return labels


def _translated(
    labels: NDArray[np.object_], label_map: Mapping[str, str] | None, labels_key: str
) -> NDArray[np.object_]:
    """Return the labels under the names that the reference uses."""
    names = label_map or {}
    for name in names:
        hint = "Names in the table are its keys, those in the reference its values."
        check_key(name, pd.unique(labels), argument="label_map", where=f"table.obs[{labels_key!r}]", hint=hint)
    return np.array([names.get(label, label) for label in labels], dtype=object)


def _reference(
    reference: AnnData | None, labels_key: str | None, layer: str | None, panel: pd.Index[Any]
) -> Reference | None:
    """Check what the user gave as a reference."""
    if reference is None:
        if labels_key is not None or layer is not None:
            raise ValueError("`reference_labels_key` and `reference_layer` say nothing without a `reference`.")
        return None
    if labels_key is None:
        raise ValueError(
            f"A reference needs its labels: reference_labels_key=..., one of {listing(reference.obs.columns)}."
        )
    check_key(labels_key, reference.obs.columns, argument="reference_labels_key", where="reference.obs")
    shared = panel.intersection(reference.var_names)
    if not len(shared):
        raise ValueError(
            f"The reference shares no gene with the table. Table: {listing(panel, 5)}; reference: "
            f"{listing(reference.var_names, 5)}. Use the same kind of gene names in both."
        )
    try:
        counts = table_counts(reference, layer)
    except (KeyError, TypeError, ValueError) as error:
        # A reader of tables: what it says of the table is said of the reference.
        raise type(error)(f"In the reference, with reference_layer={layer!r}: {error.args[0]}") from error
    return Reference(counts, _as_labels(reference.obs[labels_key]), reference.var_names)


def _warn_unmatched(labels: NDArray[np.object_], reference_labels: NDArray[np.object_]) -> None:
    """Say which types of the table have no counterpart of the same name, if any of the reference's are left."""
    here, there = (set(names) - {None} for names in (labels, reference_labels))
    if here - there and there - here:
        warnings.warn(
            f"{len(here & there)} of {len(here)} labels of the table are in the reference. Only in the table: "
            f"{listing(sorted(here - there))}; only in the reference: {listing(sorted(there - here))}. Where these are "
            "the same under other names, `label_map={'name in the table': 'name in the reference'}` says so.",
            UserWarning,
            stacklevel=4,
        )


def _as_labels(column: pd.Series[Any]) -> NDArray[np.object_]:
    return np.array([None if missing else str(x) for x, missing in zip(column, column.isna(), strict=True)], object)


def _audit_input(
    data: SpatialData | AnnData,
    adata: AnnData,
    fitted: FittedModel,
    keys: Keys,
    *,
    labels: NDArray[np.object_],
    reference_labels: NDArray[np.object_],
    reference: Reference | None,
    markers: Mapping[str, Sequence[str]] | None,
    corrected_layer: str | Sequence[str] | None,
    rng: np.random.Generator,
) -> AuditInput:
    if reference is not None and not set(reference_labels) & set(reference.labels) - {None}:
        raise ValueError(
            f"The reference shares no label with the table. Table: {listing(pd.unique(reference_labels))}; reference: "
            f"{listing(pd.unique(reference.labels))}. Say which are the same: label_map={{...}}."
        )
    if reference is not None:
        _warn_unmatched(reference_labels, reference.labels)
    setup = fitted.setup
    hint = f"Please run `resolvi_sd.tl.fit(..., key_added={keys.prefix!r})` again."
    corrections = _corrections(adata, keys, corrected_layer)
    check_key(keys.latent, adata.obsm, argument="a result of the fit", where="table.obsm", hint=hint)
    check_key(keys.connectivities, adata.obsp, argument="a result of the fit", where="table.obsp", hint=hint)
    positions = cell_positions(
        data,
        table_key=setup.table_key or "table",
        library_key=setup.library_key or setup.batch_key,
        spatial_key=setup.spatial_key,
        coordinate_system=setup.coordinate_system,
    )
    raw = fitted_counts(adata, setup.layer)
    molecules = row_sums(raw)
    warn_of_other_counts(adata, fitted, keys, molecules, stacklevel=3)
    if keys.weights in adata.obsp:
        so = "They are not counted, so that cells are taken for unexposed that are not. Audit the whole table."
        warn_of_lost_neighbors(adata, fitted, keys, molecules, so=so, stacklevel=3)
    for name, corrected in corrections.items():
        check_within_counts(corrected, raw, layer=None if name == keys.counts else name)
    seed = draw_seed(rng)
    batch = None if len(fitted.batches) < 2 else _as_labels(adata.obs[str(setup.batch_key)])
    return AuditInput(
        raw=raw,
        corrections=corrections,
        controls={name: depth_matched(raw, corrected, rng=seed) for name, corrected in corrections.items()},
        genes=adata.var_names,
        labels=labels,
        reference_labels=reference_labels,
        graph=adata.obsp[keys.connectivities],
        coordinates=positions.coordinates,
        latents={"raw": _principal_components(raw, seed), "corrected": np.asarray(adata.obsm[keys.latent])},
        batch=batch,
        reference=reference,
        markers=markers,
        truth=adata.layers.get(_TRUTH),
        seed=seed,
    )


def _corrections(adata: AnnData, keys: Keys, layers: str | Sequence[str] | None) -> dict[str, CSR]:
    """Return the corrected counts that the user asked for, by layer; None: those of the fit."""
    if layers is None:
        return {keys.counts: corrected_counts(adata, keys)}
    names = [layers] if isinstance(layers, str) else list(layers)
    if not names:
        raise ValueError(f"`corrected_layer` is empty; the table has the layers {listing(adata.layers)}.")
    return {name: corrected_counts(adata, keys, layer=name) for name in names}


def _principal_components(counts: CSR, seed: int) -> NDArray[np.float32]:
    """Return the first principal components of log-normalised counts: what cells are clustered by without a model."""
    import scanpy as sc

    table = AnnData(counts.astype(np.float32))
    sc.pp.normalize_total(table)
    sc.pp.log1p(table)
    sc.pp.pca(table, n_comps=min(_COMPONENTS, min(counts.shape) - 1), random_state=seed % 2**32)
    return np.asarray(table.obsm["X_pca"], dtype=np.float32)


def _report(result: pd.DataFrame, keys: Keys) -> None:
    """Say what could not be measured, and warn of a correction that took too much, or nothing."""
    for row in result[result["note"] != ""].drop_duplicates(["metric", "note"]).itertuples():
        logger.info("Left out of the audit: %s, because: %s", row.metric, row.note)
    measured = result[result["layer"] == "corrected"]
    for layer, rows in measured.groupby("corrected_layer", sort=False):
        name = "The correction" if layer == keys.counts else f"The correction in `table.layers[{layer!r}]`"
        _warn_of_extremes(name, rows.set_index("metric")["value"])


def _warn_of_extremes(name: str, corrected: pd.Series[float]) -> None:
    """Warn of a correction that took too much, or nothing."""
    if corrected["molecules_removed"] < _NOTHING_REMOVED:
        warnings.warn(
            f"{name} removed {100 * corrected['molecules_removed']:.2f}% of the molecules: either the data are "
            "clean, or the model found nothing, or what the fit read as counts has been replaced by corrected ones. "
            "Look at `resolvi_sd.pl.training`, and at whether the graph joins cells that touch.",
            UserWarning,
            stacklevel=4,
        )
    own, where = corrected.get("own_markers_removed_unexposed", np.nan), " in cells that cannot have received any"
    if np.isnan(own):
        own, where = corrected.get("own_markers_removed", np.nan), ""
    if own > _HIGH_FALSE_REMOVAL:
        warnings.warn(
            f"{name} removed {100 * own:.0f}% of the molecules of cell types' own markers{where}, which are "
            "almost surely genuine: it takes too much. Use the corrected counts with care, and look at "
            "`resolvi_sd.pl.audit`.",
            UserWarning,
            stacklevel=4,
        )
