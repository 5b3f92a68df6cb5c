"""Comparison with nuclear molecules, which are rarely from a neighbor."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray
from spatialdata import SpatialData

from resolvi_sd._csr import group_sums
from resolvi_sd._random import RandomLike
from resolvi_sd._ratio import ratio
from resolvi_sd._tables import read_transcripts
from resolvi_sd._validation import check_key, listing
from resolvi_sd.metrics._arrays import check_part, label_codes
from resolvi_sd.metrics._depth_matched import depth_matched
from resolvi_sd.metrics._layers import counts_and_corrected, molecule_counts
from resolvi_sd.metrics._truth import profile_error

__all__ = ["NuclearAgreement", "nuclear_agreement", "nuclear_counts"]

# Xenium's tables do not include transcripts of lower quality.
_MIN_QUALITY = 20.0


class NuclearAgreement(NamedTuple):
    """Distances between cells and their nuclei, and nuclear molecules that were removed, by label.

    Attributes
    ----------
    labels
        Names of the labels.
    raw, matched, corrected
        Total variation distance between the profile of the nuclei and that of the cells around them, between 0 and 1:
        for raw counts, raw counts thinned to the corrected depth, and corrected counts; over the same cells, those in
        which all three have molecules around the nucleus. NaN if there are none.
    removed, removed_matched
        Minimum share of the nuclear molecules that the correction, or the thinning, has removed; NaN if there are none.
    n_cells
        Number of cells with nuclear molecules, on which the shares removed are based.
    n_compared
        Number of these cells on which the distances are based.
    """

    labels: tuple[str, ...]
    raw: NDArray[np.float64]
    matched: NDArray[np.float64]
    corrected: NDArray[np.float64]
    removed: NDArray[np.float64]
    removed_matched: NDArray[np.float64]
    n_cells: NDArray[np.int64]
    n_compared: NDArray[np.int64]


def nuclear_agreement(
    counts: Any, corrected: Any, nuclear: Any, labels: Any, *, rng: RandomLike = 0
) -> NuclearAgreement:
    r"""Compare cells, before and after correction, with their own nuclei.

    Most molecules of other cells lie near the border of a cell, around the nucleus rather than on it. Contamination
    therefore makes the profile around the nucleus differ from that of the nucleus. With raw counts x, of which y are
    nuclear, and corrected counts c, the molecules around the nucleus that are left are

    .. math:: w_{ng} = (x_{ng} - y_{ng})\, c_{ng} / x_{ng},

    as a correction does not specify which molecules of an entry it removed. Over the cells of a label, the distance is

    .. math::

        \frac{1}{2} \sum_g |p_g - q_g|, \qquad
        p_g \propto \sum_n y_{n\cdot} \frac{w_{ng}}{w_{n\cdot}}, \qquad q_g \propto \sum_n y_{ng} :

    each cell has the same weight in both profiles, so that a correction gains nothing by removing more from some cells
    than from others; and since the two profiles share no molecules, it gains nothing from their noise.

    A correction that works lowers the distance below `matched`, that of raw counts from which as many molecules were
    removed at random. It does not reach 0: profiles of few molecules differ by chance, the molecules of some genes stay
    in the nucleus, and nuclei are not free of other cells' molecules. Removing too much can change the distance in
    either direction, so also look at `removed`, :math:`\sum \max(y - c, 0) / \sum y`: the share of nuclear molecules
    that are certain to be gone, and that were mostly own molecules.

    Parameters
    ----------
    counts
        Raw counts, cells × genes, sparse or dense.
    corrected
        Corrected counts of the same cells and genes, at most the raw ones.
    nuclear
        Raw counts of molecules that lie on the cell's nucleus: a layer of the table, or from :func:`nuclear_counts`.
    labels
        Type of each cell, fixed before the correction; missing values are left out.
    rng
        Seed or generator for the thinning.

    Returns
    -------
    NuclearAgreement

    Raises
    ------
    TypeError, ValueError
        If the shapes differ, the counts are not valid counts, or nuclear or corrected counts exceed the raw ones.

    References
    ----------
    Marco Salas et al. (2025), Nature Methods 22, 813, doi:10.1038/s41592-025-02617-2, for an assessment of the
    transcripts of Xenium and of segmentations that start from nuclei.

    Examples
    --------
    >>> import numpy as np
    >>> from resolvi_sd.metrics import nuclear_agreement
    >>> found = nuclear_agreement(
    ...     np.array([[6, 2, 0]]), np.array([[6, 0.5, 0]]), np.array([[3, 0, 0]]), ["T cell"], rng=0
    ... )
    >>> found.raw.round(3), found.corrected.round(3), found.removed
    (array([0.4]), array([0.143]), array([0.]))
    """
    raw, kept = counts_and_corrected(counts, corrected)
    inside = molecule_counts(nuclear, argument="nuclear")
    if raw.shape != inside.shape:
        raise ValueError(f"The shapes differ: counts {raw.shape}, nuclear {inside.shape}.")
    raw, kept, inside = (matrix.astype(np.float64) for matrix in (raw, kept, inside))  # small integers overflow below
    hint = "Were transcripts of low quality left out of the counts? See `quality_key` of `nuclear_counts`."
    check_part(inside, raw, argument="nuclear", hint=hint)
    check_part(kept, raw, argument="corrected")
    codes, names = label_codes(labels, raw.shape[0], argument="labels", minimum=1)
    codes = np.where(np.asarray(inside.sum(axis=1)).ravel() > 0, codes, -1)
    matched = depth_matched(raw, kept, rng=rng)
    around = [_around(layer, raw, inside) for layer in (raw, matched, kept)]
    left = np.min([layer.sum(axis=1) for layer in around], axis=0).ravel() > 0
    compared = np.where(left, codes, -1)
    from_raw, from_matched, from_corrected = (_distance(layer, inside, compared, len(names)) for layer in around)
    return NuclearAgreement(
        labels=tuple(names),
        raw=from_raw,
        matched=from_matched,
        corrected=from_corrected,
        removed=_removed(kept, inside, codes, len(names)),
        removed_matched=_removed(matched, inside, codes, len(names)),
        n_cells=np.bincount(codes[codes >= 0], minlength=len(names)),
        n_compared=np.bincount(compared[compared >= 0], minlength=len(names)),
    )


def _around(layer: sp.csr_matrix, raw: sp.csr_matrix, nuclear: sp.csr_matrix) -> sp.csr_matrix:
    """Return the molecules of a layer around the nuclei, if all molecules of an entry are equally likely to be kept."""
    inverse = raw.copy()
    inverse.data = ratio(1.0, inverse.data, otherwise=0.0)
    return sp.csr_matrix((raw - nuclear).multiply(layer).multiply(inverse))


def _distance(
    around: sp.csr_matrix, nuclear: sp.csr_matrix, codes: NDArray[np.int64], n_labels: int
) -> NDArray[np.float64]:
    """Return the total variation distance between the nuclei of each label and the molecules around them."""
    depth, weight = (np.asarray(m.sum(axis=1)).ravel() for m in (around, nuclear))
    weight = ratio(weight, depth, otherwise=0.0)
    weighted = sp.csr_matrix(sp.diags(weight) @ around)
    return profile_error(group_sums(weighted, codes, n_labels), group_sums(nuclear, codes, n_labels))


def _removed(
    layer: sp.csr_matrix, nuclear: sp.csr_matrix, codes: NDArray[np.int64], n_labels: int
) -> NDArray[np.float64]:
    """Return the share of each label's nuclear molecules that exceed the counts of `layer`."""
    total = group_sums(nuclear, codes, n_labels).sum(axis=1)
    left = group_sums(sp.csr_matrix(nuclear.minimum(layer)), codes, n_labels).sum(axis=1)
    return ratio(total - left, total)


def nuclear_counts(
    sdata: SpatialData,
    *,
    points_key: str | None = None,
    region: str | None = None,
    table_key: str = "table",
    cell_id_key: str | None = None,
    gene_key: str | None = None,
    nucleus_key: str = "overlaps_nucleus",
    nucleus_value: str | int | None = None,
    quality_key: str | None = None,
    min_quality: float | None = None,
) -> sp.csr_matrix:
    """Count the transcripts of each cell that lie on its nucleus, one partition of the points at a time.

    Parameters
    ----------
    sdata
        A SpatialData object.
    points_key
        Name of the points element; if None, the only one that has a column with cells.
    region
        Element that the cells of these transcripts annotate, if the table annotates several.
    table_key
        Name of the table.
    cell_id_key, gene_key
        Columns of the points with the cell and the gene; if None, the element's instance key (or else `"cell_id"`) and
        feature key. Cells are matched by instance id or by the column `cell_id_key` of `obs`, whichever matches more
        transcripts.
    nucleus_key
        Column of the points that tells which transcripts are on a nucleus.
    nucleus_value
        Its value for these (CosMx: `nucleus_key="CellComp"`, `nucleus_value="Nuclear"`); if None, true or above 0.
    quality_key
        Column of the points with a quality, if the table only contains transcripts with at least `min_quality` (Xenium:
        `"qv"`); if None, all transcripts count.
    min_quality
        Minimum quality, used with `quality_key`; None means 20, as for Xenium's tables.

    Returns
    -------
    Cells × genes of the table, CSR int32; cells of other regions have no molecules.

    Raises
    ------
    TypeError, KeyError, ValueError
        If points or columns are missing or ambiguous, or no transcript is counted; the message says what exists.

    Examples
    --------
    >>> import resolvi_sd as rsd
    >>> sdata = rsd.datasets.simulate_tissue(n_cells=50, n_genes=20, rng=0)
    >>> sdata.points["transcripts"]["overlaps_nucleus"] = 1
    >>> nuclear = rsd.metrics.nuclear_counts(sdata)
    >>> (nuclear != sdata.tables["table"].X).nnz
    0
    """
    if quality_key is None and min_quality is not None:
        raise ValueError(f"`min_quality={min_quality:g}` needs a column of the points: name it with `quality_key=`.")
    least = _MIN_QUALITY if min_quality is None else min_quality
    transcripts = read_transcripts(
        sdata,
        points_key=points_key,
        region=region,
        table_key=table_key,
        cell_id_key=cell_id_key,
        gene_key=gene_key,
        coordinate_system=None,
        why="Counting nuclear transcripts",
    )
    further = {"nucleus_key": nucleus_key} | ({} if quality_key is None else {"quality_key": quality_key})
    for argument, name in further.items():
        check_key(name, transcripts.points.columns, argument=argument, where=f"sdata.points[{transcripts.key!r}]")
    columns = transcripts.columns
    points = transcripts.points[list(dict.fromkeys([columns.cell_id, columns.gene, *further.values()]))]
    shape = (int(sdata.tables[table_key].n_obs), len(columns.genes))
    parts = []
    for partition in range(points.npartitions):
        frame = points.partitions[partition].compute()
        counted = _is_nuclear(frame[nucleus_key], nucleus_value)
        if quality_key is not None:
            counted &= frame[quality_key] >= least
        nuclear = frame[counted]
        cell, gene = columns.cell_rows(nuclear), columns.gene_columns(nuclear)
        known = (cell >= 0) & (gene >= 0)
        ones = np.ones(int(known.sum()), dtype=np.int32)
        parts.append(sp.csr_matrix((ones, (cell[known], gene[known])), shape=shape))
    total: sp.csr_matrix = sum(parts[1:], start=parts[0])
    if not total.nnz:
        quality = "" if quality_key is None else f", with {quality_key!r} of at least {least:g}"
        raise ValueError(
            f"No transcript of {transcripts.key!r} is on a nucleus ({nucleus_key!r} true or above 0){quality}, and "
            f"belongs to a cell and a gene of the table. Its column {columns.gene!r} has values such as "
            f"{listing(pd.Index(frame[columns.gene].unique()), 3)}, the table's genes {listing(columns.genes, 3)}. "
            "Choose the columns with nucleus_key=... and gene_key=...."
        )
    return total


def _is_nuclear(column: pd.Series[Any], value: str | int | None) -> pd.Series[bool]:
    """Return which transcripts are on a nucleus.

    Raises
    ------
    ValueError
        If no value is given, and the column does not hold numbers or truth values.
    """
    if value is not None:
        return column.astype(object) == value
    try:
        return (pd.to_numeric(column) > 0).fillna(False).astype(bool)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"nucleus_key={column.name!r} has values such as {listing(pd.Index(column.unique()), 3)}, not numbers or "
            "truth values: specify the one of transcripts on a nucleus, `nucleus_value=...`."
        ) from error
