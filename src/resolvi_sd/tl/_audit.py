"""Audit of the correction of a fitted table: what it removed, and what it should have kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from spatialdata import SpatialData

from resolvi_sd._analysis import CORRECTED, audit_input, audit_rows
from resolvi_sd._keys import DEFAULT_KEY, Keys
from resolvi_sd._logging import logger
from resolvi_sd._random import RandomLike, as_generator
from resolvi_sd._results import read_fit
from resolvi_sd._tables import resolve_table
from resolvi_sd._validation import check_takes_results, warn_user

__all__ = ["audit"]

# A correction that removes a larger share of the types' own markers than this removes too much.
_HIGH_FALSE_REMOVAL = 0.2
# A correction that removes a smaller share of all molecules than this did nothing.
_NOTHING_REMOVED = 0.005


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
    """Evaluate corrected counts against raw counts with all metrics that the data allow.

    Every metric is also computed for a control: raw counts thinned to the corrected depth (:func:`metrics.depth_matched
    <resolvi_sd.metrics.depth_matched>`). An improvement of the corrected counts over the control is not explained by
    the smaller number of molecules. Labels and markers come from before the correction and are the same for all layers.

    Parameters
    ----------
    data
        A SpatialData object or table on which :func:`resolvi_sd.tl.fit` was run, in this session or before it was
        stored.
    labels_key
        Column of `obs` with the type of each cell, found without the fit; cells without a value (or, in the labels of
        the fit, with its `unlabeled_category`) are left out.
    reference
        Single-cell RNA-seq table with counts, used to find markers and to compare expression profiles.
    reference_labels_key
        Column of `reference.obs` with the types.
    reference_layer
        Layer of the reference with the counts. None: `X`.
    label_map
        Names of the types (keys) in the reference and in `markers` (values); types that are not listed have the same
        name there. Several types may be mapped to one name.
    markers
        Genes that each type expresses and the other types do not, instead of those found in the reference or, without a
        reference, in the raw counts.
    corrected_layer
        Layer with other corrected counts to evaluate, between 0 and the counts, e.g. those of
        :func:`resolvi_sd.tl.decontaminated_counts` or of another method. None: those of the fit. Several layers are
        evaluated with the same markers and gene pairs, each against a control of its own depth, and are drawn one below
        the other by :func:`resolvi_sd.pl.audit`.
    table_key
        Name of the table in a SpatialData object.
    key_added
        Prefix of the results of the fit.
    rng
        Seed or generator for the thinning, and for the cells and folds that some metrics draw.
    copy
        Leave `data` unchanged and return the result.
    show_progress_bar
        Whether to show a progress bar.

    Returns
    -------
    None, or the DataFrame if `copy`. Modifies the table with `.uns['resolvi_audit']`, a DataFrame with one row per
    metric and layer, for each evaluated correction in turn:

    - `metric`: see Notes;
    - `layer`: `"raw"`, `"depth_matched"` or `"corrected"`; empty for a metric that could not be measured at all;
    - `value`;
    - `better`: `"higher"`, `"lower"`, or empty;
    - `n`: the number of cells, genes, or pairs of genes or types over which the value is averaged;
    - `note`: the reason, if there is no value;
    - `corrected_layer`: the layer that `"corrected"` refers to; the values of the raw counts and of the latent space of
      the fit are the same for all of them.

    Raises
    ------
    KeyError
        If there is no fit, or a named column, layer or type does not exist.
    ValueError
        If the labels are predictions of the fit, there are fewer than two labels, the reference shares no genes or
        types with the table, or `corrected_layer` is empty or names a layer whose values are not between 0 and the
        counts.

    Warns
    -----
    UserWarning
        If more than a fifth of the types' own markers was removed (in cells that cannot have received any, if there are
        such cells), or almost nothing was removed; if the counts do not seem to be those of the fit, or the table has
        since lost neighbors of its cells; if labels of the table and of the reference have no counterpart with the same
        name.

    Notes
    -----
    The metrics are `molecules_removed`, the share of all molecules; `leak_sensitivity`, with `own_markers_removed` and
    `own_markers_removed_unexposed` (:func:`metrics.exposure_audit <resolvi_sd.metrics.exposure_audit>`);
    `coexpression_rate` and `coexpression_odds_ratio` of mutually exclusive genes; `neighbor_contamination`, the mean
    share of a cell's molecules; `leakage_predictability`, the AUC above that of permuted labels, averaged over pairs of
    types; and `latent_knn_accuracy`, `latent_silhouette` and, with batches, `latent_batch_mixing`, for which `"raw"`
    denotes the first 30 principal components of the log-normalized raw counts. With a reference, there are also
    `negative_marker_purity_reads` and `_cells`, `reference_cosine` and `reference_correlation_difference`, and on
    simulated tissues, which have the layer `true_own`, `true_foreign_removed` and `true_own_removed`. Each metric is
    defined in the corresponding function of :mod:`resolvi_sd.metrics`.

    Examples
    --------
    >>> import resolvi_sd as rsd
    >>> sdata = rsd.datasets.simulate_tissue(n_cells=300, n_genes=40, rng=0)
    >>> rsd.tl.fit(sdata, max_epochs=20, show_progress_bar=False)
    >>> result = rsd.tl.audit(sdata, "cell_type", copy=True, show_progress_bar=False)
    >>> list(result.columns)
    ['metric', 'layer', 'value', 'better', 'n', 'note', 'corrected_layer']

    Two corrections side by side:

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
    judged = audit_input(
        data,
        adata,
        fitted,
        keys,
        table_key=table_key,
        labels_key=labels_key,
        label_map=label_map,
        reference=reference,
        reference_labels_key=reference_labels_key,
        reference_layer=reference_layer,
        markers=markers,
        corrected_layer=corrected_layer,
        rng=as_generator(rng),
    )
    rows = pd.DataFrame(audit_rows(judged, show_progress_bar=show_progress_bar))
    result = _by_correction(rows, list(judged.corrections))
    _report(result, keys)
    if copy:
        return result
    adata.uns[keys.audit] = result
    return None


def _by_correction(rows: pd.DataFrame, corrections: Sequence[str]) -> pd.DataFrame:
    """Return the rows of each correction in turn, repeating the rows that are common to all of them."""
    parts = [rows[rows["corrected_layer"].isin(["", name])].assign(corrected_layer=name) for name in corrections]
    return pd.concat(parts, ignore_index=True)


def _report(result: pd.DataFrame, keys: Keys) -> None:
    """Log what could not be measured, and warn about corrections that removed too much or nothing."""
    for row in result[result["note"] != ""].drop_duplicates(["metric", "note"]).itertuples():
        logger.info("Left out of the audit: %s, because: %s", row.metric, row.note)
    measured = result[result["layer"] == CORRECTED]
    for layer, rows in measured.groupby("corrected_layer", sort=False):
        name = "The correction" if layer == keys.counts else f"The correction in `table.layers[{layer!r}]`"
        _warn_of_extremes(name, rows.set_index("metric")["value"])


def _warn_of_extremes(name: str, corrected: pd.Series[float]) -> None:
    """Warn about a correction that removed too much or nothing."""
    if corrected["molecules_removed"] < _NOTHING_REMOVED:
        warn_user(
            f"{name} removed {100 * corrected['molecules_removed']:.2f}% of the molecules: either the data are "
            "clean, or the model found nothing, or corrected counts have replaced the counts that the fit read. "
            "Look at `resolvi_sd.pl.training`, and check whether the graph connects cells that touch."
        )
    own, where = corrected.get("own_markers_removed_unexposed", np.nan), " in cells that cannot have received any"
    if np.isnan(own):
        own, where = corrected.get("own_markers_removed", np.nan), ""
    if own > _HIGH_FALSE_REMOVAL:
        warn_user(
            f"{name} removed {100 * own:.0f}% of the molecules of cell types' own markers{where}, which are "
            "almost surely genuine: it removes too much. Use the corrected counts with care, and look at "
            "`resolvi_sd.pl.audit`."
        )
