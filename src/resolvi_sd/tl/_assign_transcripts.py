"""Which transcripts belong to the cells that they were counted for."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import dask.dataframe as dd
import numpy as np
import shapely
from numpy.typing import NDArray
from spatialdata import SpatialData

from resolvi_sd._analysis import CellIds, Sample, SourceColumns
from resolvi_sd._keys import DEFAULT_KEY, Keys
from resolvi_sd._logging import logger
from resolvi_sd._random import RandomLike, as_generator
from resolvi_sd._results import read_fit, restore
from resolvi_sd._tables import Outlines, Transcripts, cell_outlines, read_transcripts, resolve_table

__all__ = ["assign_transcripts"]

# Transcripts that the scale is estimated from, and partitions that they are taken from: its standard error is 3%.
_SAMPLE = 20_000
_SAMPLED_PARTITIONS = 4


def assign_transcripts(
    sdata: SpatialData,
    *,
    points_key: str | None = None,
    region: str | None = None,
    table_key: str = "table",
    cell_id_key: str = "cell_id",
    gene_key: str | None = None,
    scale: float | None = None,
    reassign: bool = False,
    unassigned: str | int | None = None,
    key_added: str = DEFAULT_KEY,
    rng: RandomLike = 0,
    copy: bool = False,
) -> dd.DataFrame | None:
    r"""Write, for each transcript, the probability that it belongs to the cell that it was counted for.

    A fit says which shares :math:`\pi_{ngs}` of the molecules of gene g in cell n came from the cell itself, from each
    of its neighbors, and from background. Where in the cell a transcript lies says more: foreign ones lie near the
    outline of the neighbor that made them, own ones less often near the border. For a transcript of gene g at y,

    .. math::

        P(s \mid g, y) \propto \pi_{ngs}\, f_{ns}(y), \qquad
        f_{ns}(y) = \frac{S(d_s(y) / \sigma)}{\mathrm{mean}_{y' \in n} S(d_s(y') / \sigma)}, \qquad
        S(t) = \begin{cases} 1 - e^t / 2 & t \le 0 \\ e^{-t} / 2 & t > 0 \end{cases}

    where :math:`d_s` is the signed distance to the outline of cell s, n itself or a neighbor, negative inside. A
    molecule that is made anywhere in s, and displaced across its border by a Laplace variable of scale
    :math:`\sigma`, has a density in proportion to S, the variable's survival function; it is taken given that the
    molecule was counted in n. Background is uniform, f = 1. Transcripts of an entry are treated one by one.

    With ``scale=numpy.inf`` positions tell nothing: every transcript of an entry gets the entry's shares, and the
    probabilities of a cell's transcripts of a gene sum to its corrected count.

    Parameters
    ----------
    sdata
        A SpatialData object with a table on which :func:`resolvi_sd.tl.fit` was run. Its elements may be backed by a
        store: nothing is loaded as a whole.
    points_key
        Name of the points element; None: the only one that has a column `cell_id_key`.
    region
        Element that the cells of these transcripts annotate, where a table annotates several. None: all of them, if
        their ids differ.
    table_key
        Name of the table.
    cell_id_key
        Column of the points with the cell that each transcript was counted for: its instance id in the table, as
        string, number or category; or, where more transcripts have these, its id in the column of `obs` of the same
        name (Xenium: points have names of cells, and instance ids are numbers of labels).
    gene_key
        Column of the points with the gene, as in `table.var_names`; None: the element's feature key.
    scale
        Mean displacement :math:`\sigma` of molecules across a border, in the units of the coordinate system of the fit
        (micrometres, if that has them). None: the one that makes the positions of 20,000 transcripts most likely; it
        is logged. Infinity: positions are left out of account, and outlines are not needed.
    reassign
        Whether to write the most probable cell of each transcript, too.
    unassigned
        Id for transcripts that are most probably background. None: what the column has for transcripts of no cell
        ("UNASSIGNED", "", -1, 0 or missing); else "" or, for numbers, 0 (-1 if a cell has the id 0).
    key_added
        Prefix of the fit, and of the new columns.
    rng
        Seed or generator that chooses the transcripts to estimate the scale from.
    copy
        Leave `sdata` alone and return the points element with the new columns.

    Returns
    -------
    None, or the element if `copy`. Otherwise `sdata.points[points_key]` is replaced by one that has these columns, too;
    they are computed by partition when they are read, and its transformations and attributes are kept:

    - `'{key_added}_true'`, `'{key_added}_diffusion'`, `'{key_added}_background'`: probabilities that the transcript was
      made by the cell, by one of its neighbors, or is background, float32; they sum to 1. NaN for transcripts whose
      cell or gene is not in the table, or whose cell has no counts there.
    - `'{key_added}_{cell_id_key}'`, if `reassign`: the most probable of the cell, each of its neighbors, and
      background, of the type of the ids (strings where these are categories); the id that it had for transcripts
      without probabilities.

    Raises
    ------
    TypeError, KeyError, ValueError
        If there is no fit, or if points, columns or outlines are missing or ambiguous; the message says what exists.

    Notes
    -----
    spatialdata does not overwrite an element in the store that it is read from. Store the result under another name
    (``sdata["assigned"] = rsd.tl.assign_transcripts(sdata, copy=True)``, then ``sdata.write_element("assigned")``), or
    in another store.

    When dask computes columns that replaced those of an earlier call, it computes those, too: to try several settings,
    start from the element as it was, e.g. with `copy`.

    Positions and outlines are compared in x and y. Where the table leaves transcripts out, e.g. those of low quality,
    one whose cell has no count of its gene is judged as if it was the only one.

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
    if scale is not None and not scale > 0:
        raise ValueError(f"`scale` must be positive, got {scale!r}.")
    if not isinstance(sdata, SpatialData):
        raise TypeError(f"Assigning transcripts needs points: pass a SpatialData, not {type(sdata).__name__}.")
    adata = resolve_table(sdata, table_key)
    system = read_fit(adata, keys).setup.coordinate_system
    transcripts = read_transcripts(
        sdata,
        points_key=points_key,
        region=region,
        table_key=table_key,
        cell_id_key=cell_id_key,
        gene_key=gene_key,
        coordinate_system=system,
        why="Assigning transcripts",
    )
    n_partitions = 1 if scale is not None else _SAMPLED_PARTITIONS
    sample = Sample.draw(transcripts, size=_SAMPLE, n_partitions=n_partitions, rng=generator)
    ids = CellIds.of(transcripts, adata.n_obs, unassigned) if reassign else None
    polygons = None
    if scale != np.inf:
        polygons = _polygons(cell_outlines(sdata, table_key=table_key, coordinate_system=system))
    fitted, tissue, _ = restore(adata, keys)
    sources = SourceColumns(
        fitted.module, tissue.kept(), transcripts.columns, keys, polygons, np.inf if scale is None else scale, ids
    )
    if scale is None:
        sources = replace(sources, scale=sources.estimate_scale(sample))
        logger.info("Transcripts are displaced by %.3g on average (units of %r).", sources.scale, system)
    points = _with_columns(transcripts, sources)
    if copy:
        return points
    sdata.points[transcripts.key] = points
    return None


def _polygons(outlines: Outlines) -> NDArray[np.object_]:
    """Return all outlines as polygons in the plane."""
    polygons = outlines.polygons.copy()
    circles = np.isfinite(outlines.radii)
    polygons[circles] = shapely.buffer(shapely.points(outlines.centers[circles, :2]), outlines.radii[circles])
    return polygons


def _with_columns(transcripts: Transcripts, sources: SourceColumns) -> dd.DataFrame:
    """Return the points with the columns of the sources in place of those of an earlier call.

    Columns are added one by one, so that reading others does not compute them.
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
