"""Measurements of an audit: every metric that the data allow, on raw, depth-matched and corrected counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm.auto import tqdm

from resolvi_sd import metrics
from resolvi_sd._csr import CSR

__all__ = ["CONTROL", "CORRECTED", "MAX_RELATIVE_RAW", "RAW", "AuditInput", "Reference", "audit_rows"]

# Names of the layers in an audit.
RAW, CONTROL, CORRECTED = "raw", "depth_matched", "corrected"

# Why the value of a metric is NaN, if it was measured.
_UNDEFINED: Mapping[str, str] = {
    "molecules_removed": "there are no molecules",
    "leak_sensitivity": "no leaked markers were detected between any two types",
    "own_markers_removed": "no type has molecules of markers of its own",
    "own_markers_removed_unexposed": "no cell with markers of its type is without neighbors of this type",
    "coexpression_rate": "no cell has a gene of any pair",
    "coexpression_odds_ratio": "no cell has a gene of any pair",
    "neighbor_contamination": "no cell has a neighbor whose type has markers that its own type lacks",
    "leakage_predictability": "no type has enough cells both with and without another type nearby",
    "negative_marker_purity_reads": "no gene is absent from a type by its mean expression",
    "negative_marker_purity_cells": "no gene is absent from a type by its detection",
    "reference_correlation_difference": "no two genes vary in both",
    "latent_silhouette": "each of the drawn cells has a label of its own",
    "latent_batch_mixing": "no label has cells of several batches",
    "true_foreign_removed": "no molecule is foreign",
    "true_own_removed": "no molecule is the cell's own",
}

# Leaked molecules obscure which genes a type lacks, so raw counts need a wider bound than a clean reference.
MAX_RELATIVE_RAW = 0.25


class Row(NamedTuple):
    """One number of an audit; without a `corrected_layer`, it does not depend on the correction that is evaluated."""

    metric: str
    layer: str
    value: float
    better: str
    n: int
    note: str = ""
    corrected_layer: str = ""


class Judged(NamedTuple):
    """Counts on which a metric is measured: raw, depth-matched or corrected, and by which correction."""

    layer: str
    counts: CSR
    corrected_layer: str = ""

    def row(self, metric: str, value: float, better: str, n: int) -> Row:
        """Return a measurement as a row."""
        return Row(metric, self.layer, value, better, n, corrected_layer=self.corrected_layer)


@dataclass(frozen=True)
class Reference:
    """Single-cell counts, with labels to which the labels of the audited cells were translated."""

    counts: Any
    labels: NDArray[np.object_]
    genes: pd.Index[Any]


@dataclass(frozen=True)
class AuditInput:
    """Input of an audit: what is evaluated and compared with; labels and markers are from before the correction.

    Attributes
    ----------
    raw
        Counts before a correction, cells × genes.
    corrections
        Corrected counts by the name of their layer.
    controls
        Raw counts thinned to the depth of each correction, by the same names.
    genes
        Names of the genes.
    labels
        Type of each cell, None if it has none.
    reference_labels
        The same types, with the names used by the reference and the markers.
    graph
        Neighbors of each cell, cells × cells.
    coordinates
        Coordinates of the cells, cells × 2 or 3.
    latents
        Latent spaces by layer, cells × dimensions.
    batch
        Batch of each cell, if there are several.
    reference
        Single-cell counts.
    markers
        Marker genes of the types, as given by the user.
    truth
        Own molecules of each entry, for simulated data.
    seed
        Seed of random draws; every layer is evaluated with the same draws.
    """

    raw: CSR
    corrections: Mapping[str, CSR]
    controls: Mapping[str, CSR]
    genes: pd.Index[Any]
    labels: NDArray[np.object_]
    reference_labels: NDArray[np.object_]
    graph: Any
    coordinates: NDArray[np.float64]
    latents: Mapping[str, NDArray[np.floating]]
    batch: NDArray[np.int64] | None
    reference: Reference | None
    markers: Mapping[str, Sequence[str]] | None
    truth: Any
    seed: int

    def removals(self) -> Iterator[Judged]:
        """Yield each of the corrected counts, preceded by its control."""
        for name, corrected in self.corrections.items():
            yield Judged(CONTROL, self.controls[name], name)
            yield Judged(CORRECTED, corrected, name)

    def all_counts(self) -> Iterator[Judged]:
        """Yield the raw counts, then the controls and corrected counts."""
        yield Judged(RAW, self.raw)
        yield from self.removals()


def audit_rows(data: AuditInput, *, show_progress_bar: bool) -> list[Row]:
    """Return the rows of an audit, metric by metric.

    A part that the data do not allow (a panel without exclusive genes, types with too few cells) yields a row without a
    value, with a note that gives the reason, as do metrics without anything to measure.
    """
    rows: list[Row] = []
    for part, name in tqdm(_PARTS, desc="Audit", unit="part", disable=not show_progress_bar):
        try:
            found = list(part(data))
        except ValueError as reason:
            found = [Row(name, "", float("nan"), "", 0, str(reason))]
        rows += found
    return [row._replace(note=row.note or _UNDEFINED[row.metric]) if np.isnan(row.value) else row for row in rows]


def _removed(data: AuditInput) -> Iterator[Row]:
    before = data.raw.sum()
    for judged in data.removals():
        yield judged.row("molecules_removed", float(1 - judged.counts.sum() / before), "", data.raw.shape[0])


def _pairs(data: AuditInput) -> pd.DataFrame:
    if data.markers is not None:
        return metrics.pairs_from_markers(data.markers, data.genes)
    if data.reference is not None:
        reference = data.reference
        return metrics.exclusive_pairs(reference.counts, reference.labels, reference.genes, panel=data.genes)
    return metrics.exclusive_pairs(data.raw, data.labels, data.genes, max_relative=MAX_RELATIVE_RAW)


def _coexpression(data: AuditInput) -> Iterator[Row]:
    pairs = _pairs(data)
    for judged in data.all_counts():
        rate = metrics.coexpression_rate(judged.counts, data.genes, pairs)
        ratio = metrics.coexpression_odds_ratio(judged.counts, data.genes, pairs)
        yield judged.row("coexpression_rate", rate.mean, "lower", len(pairs))
        yield judged.row("coexpression_odds_ratio", ratio.mean, "lower", len(pairs))


def _markers(data: AuditInput) -> tuple[metrics.Markers, NDArray[np.object_]]:
    """Return the markers of the types, and the labels to which they refer."""
    if data.markers is not None:
        return metrics.given_markers(data.markers, data.genes), data.reference_labels
    if data.reference is not None:
        reference = data.reference
        found = metrics.marker_genes(reference.counts, reference.labels, reference.genes, panel=data.genes)
        return found, data.reference_labels
    found = metrics.marker_genes(data.raw, data.labels, data.genes, max_relative=MAX_RELATIVE_RAW)
    return found, data.labels


def _neighbor_contamination(data: AuditInput) -> Iterator[Row]:
    markers, labels = _markers(data)
    for judged in data.all_counts():
        found = metrics.neighbor_contamination(
            judged.counts, labels, data.graph, data.genes, markers, neighbor_counts=data.raw
        )
        share = found.share[~np.isnan(found.share)]
        mean = float(share.mean()) if share.size else float("nan")
        yield judged.row("neighbor_contamination", mean, "lower", share.size)


def _exposure(data: AuditInput) -> Iterator[Row]:
    """Yield the removal of leaked markers, together with that of own markers."""
    labels, markers = data.labels, None
    if data.markers is not None:
        panel = set(data.genes)
        labels = data.reference_labels
        markers = {label: [gene for gene in genes if gene in panel] for label, genes in data.markers.items()}
    for judged in data.removals():
        found = metrics.exposure_audit(
            data.raw, judged.counts, labels, data.graph, gene_names=list(data.genes), markers=markers
        )
        detected = int(found.pairs["detected"].sum()) if len(found.pairs) else 0
        types = len(found.own_markers)
        yield judged.row("leak_sensitivity", found.sensitivity, "higher", detected)
        yield judged.row("own_markers_removed", found.own_removed, "lower", types)
        yield judged.row("own_markers_removed_unexposed", found.own_removed_unexposed, "lower", types)


def _predictability(data: AuditInput) -> Iterator[Row]:
    for judged in data.all_counts():
        found = metrics.leakage_predictability(judged.counts, data.labels, data.graph, data.coordinates, rng=data.seed)
        mean = float(found["difference"].mean()) if len(found) else float("nan")
        yield judged.row("leakage_predictability", mean, "lower", len(found))


def _purity(data: AuditInput) -> Iterator[Row]:
    reference = data.reference
    if reference is None:
        return
    for judged in data.all_counts():
        found = metrics.negative_marker_purity(
            judged.counts,
            data.reference_labels,
            data.genes,
            reference_counts=reference.counts,
            reference_labels=reference.labels,
            reference_gene_names=reference.genes,
        )
        yield judged.row("negative_marker_purity_reads", found.reads, "higher", found.n_reads)
        yield judged.row("negative_marker_purity_cells", found.cells, "higher", found.n_cells)


def _fidelity(data: AuditInput) -> Iterator[Row]:
    reference = data.reference
    if reference is None:
        return
    for judged in data.all_counts():
        found = metrics.reference_fidelity(
            judged.counts,
            data.reference_labels,
            data.genes,
            reference_counts=reference.counts,
            reference_labels=reference.labels,
            reference_gene_names=reference.genes,
        )
        yield judged.row("reference_cosine", found.cosine, "higher", len(found.types))
        yield judged.row("reference_correlation_difference", found.correlation_difference, "lower", found.n_genes)


def _latent(data: AuditInput) -> Iterator[Row]:
    for layer, latent in data.latents.items():
        found = metrics.latent_quality(latent, data.labels, data.batch, rng=data.seed)
        yield Row("latent_knn_accuracy", layer, found.knn_accuracy, "higher", found.n_cells)
        yield Row("latent_silhouette", layer, found.silhouette, "higher", found.n_cells)
        if data.batch is not None:
            yield Row("latent_batch_mixing", layer, found.batch_mixing, "higher", found.n_cells)


def _truth(data: AuditInput) -> Iterator[Row]:
    if data.truth is None:
        return
    n_cells = data.raw.shape[0]
    for judged in data.removals():
        found = metrics.removal(data.raw, data.truth, judged.counts)
        yield judged.row("true_foreign_removed", found.foreign, "higher", n_cells)
        yield judged.row("true_own_removed", found.own, "lower", n_cells)


_PARTS: tuple[tuple[Callable[[AuditInput], Iterator[Row]], str], ...] = (
    (_removed, "molecules_removed"),
    (_exposure, "leak_sensitivity"),
    (_coexpression, "coexpression_rate"),
    (_neighbor_contamination, "neighbor_contamination"),
    (_predictability, "leakage_predictability"),
    (_purity, "negative_marker_purity_reads"),
    (_fidelity, "reference_cosine"),
    (_latent, "latent_knn_accuracy"),
    (_truth, "true_foreign_removed"),
)
