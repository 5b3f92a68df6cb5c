"""Assignment of transcripts to cells."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import dask.dataframe as dd
import numpy as np
from spatialdata import SpatialData

from resolvi_sd._analysis import CellIds, SourceColumns, TranscriptSample
from resolvi_sd._keys import DEFAULT_KEY, Keys
from resolvi_sd._logging import logger
from resolvi_sd._random import RandomLike, as_generator
from resolvi_sd._results import read_fit, restore_tissue
from resolvi_sd._tables import Transcripts, cell_outlines, read_transcripts, resolve_table
from resolvi_sd._validation import check_number, warn_user

__all__ = ["assign_transcripts"]

# Transcripts from which the scale is estimated (its standard error is 3%), and partitions that they are taken from.
_SAMPLE = 20_000
_SAMPLED_PARTITIONS = 4
# Smallest share of transcripts inside of their cells' outlines that is not suspicious.
_MOSTLY_INSIDE = 0.5
_WHY = "Assigning transcripts"


def assign_transcripts(
    sdata: SpatialData,
    *,
    points_key: str | None = None,
    region: str | None = None,
    table_key: str = "table",
    cell_id_key: str | None = None,
    gene_key: str | None = None,
    scale: float | None = None,
    reassign: bool = False,
    unassigned: str | int | None = None,
    coordinate_system: str | None = None,
    key_added: str = DEFAULT_KEY,
    rng: RandomLike = 0,
    copy: bool = False,
) -> dd.DataFrame | None:
    r"""Write the probability that each transcript belongs to the cell that it was counted in.

    A fit estimates the shares :math:`\pi_{ngs}` of the molecules of gene g in cell n that came from the cell itself,
    from each of its neighbors, and from background. The position of a transcript in the cell adds information:
    diffused transcripts lie near the outline of the neighbor that made them, whereas own transcripts are less often
    near the border. For a transcript of gene g at position y,

    .. math::

        P(s \mid g, y) \propto \pi_{ngs}\, f_{ns}(y), \qquad
        f_{ns}(y) = \frac{S(d_s(y) / \sigma)}{\mathrm{mean}_{y' \in n} S(d_s(y') / \sigma)}, \qquad
        S(t) = \begin{cases} 1 - e^t / 2 & t \le 0 \\ e^{-t} / 2 & t > 0 \end{cases}

    where :math:`d_s` is the signed distance (negative inside) to the outline of cell s, which is n itself or one of
    its neighbors. A molecule that is made anywhere in s, and displaced across its border by a Laplace variable of
    scale :math:`\sigma`, has a density proportional to S, the survival function of that variable; the density is
    conditioned on the molecule having been counted in n. Background is uniform, f = 1. The transcripts of a gene in a
    cell are treated one by one.

    With ``scale=numpy.inf``, positions are uninformative: every transcript gets the shares of its gene in its cell, and
    the probabilities of a cell's transcripts of a gene sum to the corrected count.

    Parameters
    ----------
    sdata
        A SpatialData object with a table on which :func:`resolvi_sd.tl.fit` was run. Its elements may be backed by a
        store; nothing is loaded as a whole.
    points_key
        Name of the points element. None: the only one that has a column with cells.
    region
        Annotated element with the cells of these transcripts, if the table annotates several. None: all of them,
        provided that their ids differ.
    table_key
        Name of the table.
    cell_id_key
        Column of the points with the cell that each transcript was counted in: its instance id in the table, as a
        string, number or category; or, if more transcripts match it, its id in the column of `obs` with the same name
        (Xenium: the points have cell names, whereas the instance ids are label numbers). None: the instance key of the
        element, or else `"cell_id"`.
    gene_key
        Column of the points with the gene, named as in `table.var_names`. None: the feature key of the element.
    scale
        Mean displacement :math:`\sigma` of molecules across a border, in the units of the coordinate system
        (micrometers, if those are its units). None: the value under which the positions of 20,000 transcripts are most
        likely, which is logged. Infinity: positions are ignored, and outlines are not needed.
    reassign
        Whether to write the most probable cell of each transcript as well.
    unassigned
        Id for transcripts that are most probably background. None: the value that the column already has for
        transcripts without a cell ("UNASSIGNED", "", -1, 0 or missing); if there is none, "" or, for numeric ids, 0
        (-1 if a cell has the id 0).
    coordinate_system
        Coordinate system in which positions and outlines are compared. None: that of the fit.
    key_added
        Prefix of the results of the fit and of the new columns.
    rng
        Seed or generator for choosing the transcripts from which the scale is estimated.
    copy
        Leave `sdata` unchanged and return the points element with the new columns.

    Returns
    -------
    None, or the element if `copy`. Otherwise `sdata.points[points_key]` is replaced by an element with the same
    transformations and attributes that also has the following columns, computed by partition when they are read:

    - `'{key_added}_true'`, `'{key_added}_diffusion'`, `'{key_added}_background'`: probabilities that the transcript was
      made by the cell or by one of its neighbors, or is background, float32; they sum to 1. NaN for transcripts whose
      cell or gene is not in the table, or whose cell has no counts there.
    - `'{key_added}_{cell_id_key}'`, if `reassign`: the most probable source among the cell, its neighbors, and
      background, with the type of the ids (strings if these are categorical). Transcripts without probabilities keep
      their id.

    Raises
    ------
    TypeError, KeyError, ValueError
        If there is no fit, or if points, columns or outlines are missing or ambiguous; the message lists what exists.

    Warns
    -----
    UserWarning
        If most transcripts lie outside of the outline of their cell.

    Notes
    -----
    spatialdata does not overwrite an element in the store from which it was read. Write the result under another name
    (``sdata["assigned"] = rsd.tl.assign_transcripts(sdata, copy=True)``, then ``sdata.write_element("assigned")``), or
    to another store. Later calls then have to name the original element with `points_key`, since both have cells.

    When dask computes columns that replaced those of an earlier call, it also computes the earlier ones. To try several
    settings, start from the original element each time, e.g. with `copy`.

    Positions and outlines are compared in x and y. If the table excludes some transcripts, e.g. those of low quality, a
    transcript whose cell has no count of its gene is treated as if it were the only one.

    References
    ----------
    Ergen & Yosef (2025), doi:10.1101/2025.01.20.634005, for the shares.

    Examples
    --------
    >>> import resolvi_sd as rsd
    >>> sdata = rsd.datasets.simulate_tissue(n_cells=300, n_genes=40, rng=0)
    >>> rsd.tl.fit(sdata, max_epochs=2, show_progress_bar=False)
    >>> rsd.tl.assign_transcripts(sdata, reassign=True)
    >>> transcripts = sdata.points["transcripts"].compute()
    >>> bool(transcripts["resolvi_true"].dropna().between(0, 1).all())
    True
    >>> bool(transcripts.loc[transcripts["cell_id"] == "", "resolvi_true"].isna().all())
    True
    """
    generator, keys = as_generator(rng), Keys(key_added)
    if scale is not None:
        check_number(scale, argument="scale", above=0, finite=False)
    if unassigned is not None and not reassign:
        raise ValueError(
            "`unassigned` is the id of background transcripts after `reassign=True`: pass both or neither."
        )
    if not isinstance(sdata, SpatialData):
        raise TypeError(f"Assigning transcripts needs points: pass a SpatialData, not {type(sdata).__name__}.")
    adata = resolve_table(sdata, table_key)
    fitted = read_fit(adata, keys)
    system = coordinate_system or fitted.setup.coordinate_system
    transcripts = read_transcripts(
        sdata,
        points_key=points_key,
        region=region,
        table_key=table_key,
        cell_id_key=cell_id_key,
        gene_key=gene_key,
        coordinate_system=system,
        why=_WHY,
    )
    n_partitions = 1 if scale is not None else _SAMPLED_PARTITIONS
    sample = TranscriptSample.draw(transcripts, size=_SAMPLE, n_partitions=n_partitions, rng=generator)
    ids = CellIds.of(transcripts, adata.n_obs, unassigned) if reassign else None
    polygons = None
    if scale != np.inf:
        outlines = cell_outlines(sdata, table_key=table_key, coordinate_system=system, why=_WHY)
        polygons = outlines.in_plane()
    tissue, _ = restore_tissue(adata, keys, fitted)
    sources = SourceColumns(
        fitted.module, tissue.kept(), transcripts.columns, keys, polygons, np.inf if scale is None else scale, ids
    )
    inside = sources.share_inside(sample)
    if inside < _MOSTLY_INSIDE:
        warn_user(
            f"Only {100 * inside:.0f}% of the transcripts of {transcripts.key!r} that were looked at lie in "
            "the outline of their cell. Are these their cells (ids may start anew in each field of view: `region=`), "
            f"and are the transformations of points and outlines to {system!r} right?"
        )
    if scale is None:
        sources = replace(sources, scale=sources.estimate_scale(sample))
        logger.info("Transcripts are displaced by %.3g on average (units of %r).", sources.scale, system)
    points = _with_columns(transcripts, sources)
    if copy:
        return points
    sdata.points[transcripts.key] = points
    return None


def _with_columns(transcripts: Transcripts, sources: SourceColumns) -> dd.DataFrame:
    """Return the points with the columns of the sources, which replace those of an earlier call.

    Columns are added one by one, so that reading other columns does not compute them.
    """
    read = transcripts.points[sources.columns.names]
    new = read.map_partitions(sources, meta=sources.meta(read._meta))
    earlier = [name for name in (*sources.keys.shares, sources.id_name) if name in transcripts.points.columns]
    points = transcripts.points.drop(columns=earlier)
    # Derived frames share their attributes: https://github.com/scverse/spatialdata/issues/1224.
    points.attrs.update(deepcopy(dict(transcripts.points.attrs)))
    for name in new.columns:
        points[name] = new[name]
    return points
