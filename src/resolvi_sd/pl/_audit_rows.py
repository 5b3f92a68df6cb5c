"""Conversion of the table of an audit to the rows and sections of its plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from anndata import AnnData

from resolvi_sd._analysis import CONTROL, CORRECTED, RAW
from resolvi_sd._keys import Keys
from resolvi_sd._validation import check_key, check_result, listing

__all__ = ["FEW", "LAYERS", "AuditRow", "AuditSection", "audit_sections", "judged_layers", "read_audit"]

LAYERS = (RAW, CONTROL, CORRECTED)
_COLUMNS = ("metric", "layer", "value", "better", "n", "note")

# Name in the plot, and the items over which the value is a mean, by section and metric.
_METRICS: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "removed": {
        "leak_sensitivity": ("leaked markers", "pairs of types"),
        "own_markers_removed": ("own markers", "types"),
        "own_markers_removed_unexposed": ("own markers, no neighbor of the type", "types"),
        "true_foreign_removed": ("foreign molecules (truth)", "cells"),
        "true_own_removed": ("own molecules (truth)", "cells"),
        "molecules_removed": ("all molecules", "cells"),
    },
    "left": {
        "coexpression_rate": ("co-expression of exclusive genes", "pairs of genes"),
        "coexpression_odds_ratio": ("the same, as odds ratio", "pairs of genes"),
        "neighbor_contamination": ("neighbor contamination", "cells"),
        "leakage_predictability": ("predictability of neighbors", "pairs of types"),
    },
    "reference": {
        "negative_marker_purity_reads": ("negative marker purity, reads", "genes in types"),
        "negative_marker_purity_cells": ("negative marker purity, cells", "genes in types"),
        "reference_cosine": ("cosine of mean profiles", "types"),
        "reference_correlation_difference": ("difference of gene correlations", "genes"),
    },
    "latent": {
        "latent_knn_accuracy": ("label accuracy of nearest cells", "cells"),
        "latent_silhouette": ("silhouette of labels", "cells"),
        "latent_batch_mixing": ("mixing of batches", "cells"),
    },
}
# Title and x-axis label of each section.
_SECTIONS = {
    "removed": ("What was removed", "molecules removed (%)"),
    "left": ("Contamination that is left", "relative to the raw counts (%)"),
    "reference": ("Agreement with the reference", "value"),
    "latent": ("Latent space", "value"),
    "other": ("Other metrics", "value"),
}
# Without one of these, what a correction removed cannot be interpreted.
_FALSE_REMOVAL = ("own_markers_removed", "own_markers_removed_unexposed", "true_own_removed")
# A ratio to a raw value near zero can be arbitrarily large; marks beyond these limits are drawn at the edge.
_LEAST_RATIO, _MOST_RATIO = -0.25, 1.75
_MARGIN = 0.03
# A mean of fewer pairs, types or genes than this says little.
FEW = 5
# Differences below this share of the axis count as neither better nor worse.
_EQUAL = 0.005


@dataclass(frozen=True)
class AuditRow:
    """One metric of one correction.

    Attributes
    ----------
    label
        Name in the plot, with an arrow in the direction of better values, and the layer if there are several; only the
        layer in rows after the first of a metric.
    first
        Whether this is the first row of its metric.
    values
        Value for each layer on which the metric was measured; NaN if it is undefined.
    places
        Positions of the marks on the axis.
    improved
        Whether the corrected counts are better than the depth-matched ones, or than the raw ones if depth-matched
        counts were not measured; None if neither is better, or a value is missing.
    counted
        Number and kind of the items over which the value is a mean.
    few
        Whether there are fewer than `FEW` of them.
    reason
        Why there are no marks, if there are none.
    """

    label: str
    first: bool
    values: Mapping[str, float]
    places: Mapping[str, float]
    improved: bool | None
    counted: str
    few: bool
    reason: str


@dataclass(frozen=True)
class AuditSection:
    """Metrics on one axis.

    Attributes
    ----------
    title, xlabel
        Title and x-axis label of the panel.
    rows
        Rows of the metrics.
    limits
        Limits of the axis.
    whole
        Value that represents the whole: 100 for percentages, otherwise 1.
    percent
        Whether the values are shares to be written as percentages.
    """

    title: str
    xlabel: str
    rows: tuple[AuditRow, ...]
    limits: tuple[float, float]
    whole: float
    percent: bool


def read_audit(adata: AnnData, keys: Keys) -> pd.DataFrame:
    """Return the audit of a fit.

    Raises
    ------
    KeyError
        If there is no audit.
    ValueError
        If it lacks columns or rows.
    """
    tool = keys.call("audit")
    check_result(keys.audit, adata.uns, where="table.uns", tool=tool)
    table = adata.uns[keys.audit]
    missing = [name for name in _COLUMNS if name not in getattr(table, "columns", ())]
    if missing:
        raise ValueError(
            f"`table.uns[{keys.audit!r}]` lacks the columns {listing(missing)}. Please run `{tool}` again."
        )
    if not len(table):
        raise ValueError(f"`table.uns[{keys.audit!r}]` has no rows. Please run `{tool}` again.")
    return pd.DataFrame(table)


def judged_layers(table: pd.DataFrame) -> list[str]:
    """Return the layers of corrected counts that were judged; none for audits of earlier versions that name none."""
    return list(dict.fromkeys(table["corrected_layer"].astype(str))) if "corrected_layer" in table else []


def audit_sections(table: pd.DataFrame, metrics: Sequence[str] | None) -> list[AuditSection]:
    """Return the requested metrics (None for all) by section, always including the false removal.

    With several corrections, each metric has one row per correction, except for those of the latent space, which belong
    to the fit and have a single row.

    Raises
    ------
    KeyError
        If the audit has no such metric.
    ValueError
        If `metrics` is empty.
    """
    found = list(dict.fromkeys(table["metric"].astype(str)))
    chosen = _chosen(found, metrics)
    known = {metric for section in _METRICS.values() for metric in section}
    by_section = {name: [metric for metric in section if metric in chosen] for name, section in _METRICS.items()}
    by_section["other"] = [metric for metric in found if metric in chosen and metric not in known]
    return [_section(name, members, table) for name, members in by_section.items() if members]


def _chosen(found: Sequence[str], metrics: Sequence[str] | None) -> list[str]:
    wanted = list(found) if metrics is None else [metrics] if isinstance(metrics, str) else list(metrics)
    if not wanted:
        raise ValueError(f"`metrics` is empty; the audit has: {listing(found)}.")
    for metric in wanted:
        check_key(metric, found, argument="metrics", where="the audit")
    false_removal = [metric for metric in _FALSE_REMOVAL if metric in found]
    # If it was not measured, its row says so.
    return wanted + (false_removal if _FALSE_REMOVAL[0] in found else [*false_removal, _FALSE_REMOVAL[0]])


def _section(name: str, metrics: Sequence[str], table: pd.DataFrame) -> AuditSection:
    title, xlabel = _SECTIONS[name]
    rows = tuple(row for metric in metrics for row in _rows(name, metric, table))
    places = [place for row in rows for place in row.places.values() if np.isfinite(place)]
    whole = _whole(name)
    low, high = min([0.0, *places]), max([whole, *places])
    if name == "left":
        low, high = max(low, _LEAST_RATIO * whole), min(high, _MOST_RATIO * whole)
    margin = _MARGIN * (high - low)
    return AuditSection(title, xlabel, rows, (low - margin, high + margin), whole, name == "removed")


def _rows(section: str, metric: str, table: pd.DataFrame) -> list[AuditRow]:
    layers = judged_layers(table)
    if len(layers) < 2:
        return [_row(section, metric, table)]
    of_layer = {layer: table[table["corrected_layer"] == layer] for layer in layers}
    # Shown once if it was not measured, or is the same for all layers.
    if section == "latent" or not table.loc[table["metric"] == metric, "value"].notna().any():
        return [_row(section, metric, of_layer[layers[0]])]
    first, *others = (_row(section, metric, of_layer[layer]) for layer in layers)
    return [
        replace(first, label=f"{first.label}  {layers[0]}"),
        *(replace(row, label=layer, first=False) for row, layer in zip(others, layers[1:], strict=True)),
    ]


def _row(section: str, metric: str, table: pd.DataFrame) -> AuditRow:
    lines = table[table["metric"] == metric]
    measured = lines[lines["layer"].isin(LAYERS)].set_index("layer")
    values = {layer: float(measured["value"][layer]) for layer in LAYERS if layer in measured.index}
    better = next((str(side) for side in lines["better"] if side), "")
    label, counted = _METRICS.get(section, {}).get(metric, (metric.replace("_", " "), ""))
    arrow = {"higher": "  →", "lower": "  ←"}.get(better, "      ")
    n = int(lines["n"].iloc[-1]) if len(lines) else 0
    places = _places(section, values)
    return AuditRow(
        label=label + arrow,
        first=True,
        values=values,
        places=places,
        improved=_improved(places, better, whole=_whole(section)),
        counted=_count(n, counted) if n else "",
        few=0 < n < FEW,
        reason=_reason(metric, table, values),
    )


def _count(n: int, items: str) -> str:
    """Return the number and kind of some items, whose first word is a plural."""
    first, *others = items.split(" ")
    return " ".join([f"{n:,}", first.removesuffix("s") if n == 1 else first, *others]).strip()


def _reason(metric: str, table: pd.DataFrame, values: Mapping[str, float]) -> str:
    """Return why there are no marks; the false removal is measured along with the sensitivity."""
    if any(np.isfinite(value) for value in values.values()):
        return "no positive raw value that it could be relative to"
    part = "leak_sensitivity" if metric in _FALSE_REMOVAL and metric not in set(table["metric"]) else metric
    note = next((str(note) for note in table.loc[table["metric"] == part, "note"] if note), "")
    return f"not measured: {note}" if note else "not measured"


def _whole(section: str) -> float:
    return 100.0 if section in ("removed", "left") else 1.0


def _places(section: str, values: Mapping[str, float]) -> dict[str, float]:
    if section == "removed":
        return {layer: 100 * value for layer, value in values.items()}
    if section != "left":
        return dict(values)
    raw = values.get(RAW, np.nan)
    return {layer: 100 * value / raw for layer, value in values.items()} if raw > 0 else {}


def _improved(places: Mapping[str, float], better: str, *, whole: float) -> bool | None:
    gain = places.get(CORRECTED, np.nan) - places.get(CONTROL, places.get(RAW, np.nan))
    if not better or np.isnan(gain) or abs(gain) < _EQUAL * whole:
        return None
    return bool((gain > 0) == (better == "higher"))
