"""Co-expression of mutually exclusive genes: two genes of different cell types in one cell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from resolvi_sd._ratio import ratio
from resolvi_sd._validation import check_key, listing
from resolvi_sd.metrics._arrays import gene_index
from resolvi_sd.metrics._layers import cooccurrence, count_layer, expected_presence

__all__ = ["Coexpression", "coexpression_odds_ratio", "coexpression_rate"]


class Coexpression(NamedTuple):
    """Co-expression of exclusive genes.

    Attributes
    ----------
    mean
        Mean over the pairs: arithmetic for rates, geometric for odds ratios.
    pairs
        One row per pair: `gene_a`, `gene_b`, the expected number of cells with both genes (`n_both`) and with at least
        one of them (`n_either`), and the `rate` or `odds_ratio`. The latter is NaN if no cell has either gene; the mean
        leaves out such pairs.
    """

    mean: float
    pairs: pd.DataFrame


def coexpression_rate(counts: Any, gene_names: Sequence[str] | pd.Index[Any], pairs: Any) -> Coexpression:
    """Compute the mutually exclusive co-expression rate (MECR): how often exclusive genes occur in the same cell.

    For each pair, the rate is the number of cells with both genes divided by the number of cells with at least one;
    the mean over the pairs is the rate of Hartman and Satija [1]_. The best value is 0. Deleting molecules lowers it,
    so compare it with that of :func:`depth_matched` counts.

    A corrected layer holds expected counts c, and the numbers of cells are expected numbers: a gene is present with
    probability min(c, 1), the probability of a positive integer if c is rounded at random to one of the adjacent
    integers without changing its mean; the entries of a cell are rounded independently. For integer counts, this is
    plain counting. `c > 0` would not work, as a corrected layer is positive wherever the raw one is, nor would a cutoff
    such as c >= 0.5, with which scaling all counts by 0.6 would change nothing and scaling by 0.4 would look perfect.
    With this rule, scaling counts that are all 0 or 1 by q gives what thinning them by q gives in expectation.

    Parameters
    ----------
    counts
        Raw, thinned or corrected counts, cells × genes, sparse or dense.
    gene_names
        Name of each gene.
    pairs
        Result of :func:`exclusive_pairs` or :func:`pairs_from_markers`, or pairs of gene names.

    Returns
    -------
    Coexpression
        `mean`, and `pairs` with the column `rate`.

    Raises
    ------
    KeyError
        If a gene of a pair is not among `gene_names`.
    TypeError, ValueError
        If `counts` holds dense rates or is not a matrix of counts, or if there are no pairs.

    References
    ----------
    .. [1] Hartman & Satija 2024, eLife 96949.

    Examples
    --------
    >>> import numpy as np
    >>> from resolvi_sd.metrics import coexpression_rate
    >>> counts = np.array([[2, 1], [3, 0], [0, 1], [1, 0], [0, 0]])
    >>> coexpression_rate(counts, ["CD79A", "CD3E"], [("CD79A", "CD3E")]).mean
    0.25
    """
    both, first, second, table, _ = _cells_with(counts, gene_names, pairs)
    either = first + second - both
    rate = ratio(both, either)
    return Coexpression(_mean(rate), table.assign(n_both=both, n_either=either, rate=rate))


def coexpression_odds_ratio(counts: Any, gene_names: Sequence[str] | pd.Index[Any], pairs: Any) -> Coexpression:
    r"""Compute the odds ratio of exclusive genes: how much likelier a cell has one gene if it has the other.

    Of n cells, a have both genes, b only the first, c only the second, and d neither:

    .. math:: OR = \frac{(a + 1/2)(d + 1/2)}{(b + 1/2)(c + 1/2)}

    1/2 is added to every entry of every table (Haldane and Anscombe), so that no ratio is zero or infinite and layers
    remain comparable. Unlike the rate, the ratio does not fall just because a gene is rare: 1 means independence, and
    values below 1 mean exclusion. SegTraQ [1]_ reports this ratio (without the 1/2) as its form of the rate. Presence
    in a corrected layer is defined as in :func:`coexpression_rate`.

    Parameters
    ----------
    counts, gene_names, pairs
        As in :func:`coexpression_rate`.

    Returns
    -------
    Coexpression
        `mean`, here the geometric mean, and `pairs` with the column `odds_ratio`.

    Raises
    ------
    KeyError, TypeError, ValueError
        As for :func:`coexpression_rate`.

    References
    ----------
    .. [1] SegTraQ, `mutually_exclusive_coexpression_rate`, https://github.com/LazDaria/SegTraQ.

    Examples
    --------
    >>> import numpy as np
    >>> from resolvi_sd.metrics import coexpression_odds_ratio
    >>> counts = np.array([[2, 1], [3, 0], [0, 1], [1, 0], [0, 0]])
    >>> coexpression_odds_ratio(counts, ["CD79A", "CD3E"], [("CD79A", "CD3E")]).mean  # (1.5 * 1.5) / (2.5 * 1.5)
    0.6
    """
    both, first, second, table, n_cells = _cells_with(counts, gene_names, pairs)
    either = first + second - both
    neither = n_cells - either
    ratio = (both + 0.5) * (neither + 0.5) / ((first - both + 0.5) * (second - both + 0.5))
    ratio[either == 0] = np.nan
    mean = float(np.exp(_mean(np.log(ratio))))
    return Coexpression(mean, table.assign(n_both=both, n_either=either, odds_ratio=ratio))


def _mean(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def _cells_with(
    counts: Any, gene_names: Sequence[str] | pd.Index[Any], pairs: Any
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], pd.DataFrame, int]:
    """Return the expected cells with both, the first and the second gene of each pair, the pairs, and n."""
    layer = count_layer(counts, argument="counts")
    names = gene_index(gene_names, layer.shape[1], argument="gene_names")
    table = _pair_table(pairs)
    genes = pd.Index(table.to_numpy().ravel()).unique()
    missing = genes[~genes.isin(names)]
    if len(missing):
        check_key(missing[0], names, argument="pairs: gene", where="gene_names")
    present = expected_presence(layer[:, names.get_indexer(genes)])
    first, second = (genes.get_indexer(table[column]) for column in ("gene_a", "gene_b"))
    cells = np.asarray(present.sum(axis=0, dtype=np.float64)).ravel()
    return cooccurrence(present)[first, second], cells[first], cells[second], table, layer.shape[0]


def _pair_table(pairs: Any) -> pd.DataFrame:
    """Return the pairs as a table of `gene_a` and `gene_b`."""
    if isinstance(pairs, pd.DataFrame):
        for column in ("gene_a", "gene_b"):
            check_key(column, pairs.columns, argument="pairs: column", where="pairs.columns")
        table = pairs[["gene_a", "gene_b"]].astype(object).reset_index(drop=True)
    else:
        table = pd.DataFrame(list(pairs), columns=["gene_a", "gene_b"])
    if table.empty:
        raise ValueError("`pairs` is empty. Find exclusive genes with exclusive_pairs or pairs_from_markers.")
    same = table["gene_a"] == table["gene_b"]
    if same.any():
        raise ValueError(f"A gene is paired with itself: {listing(table.loc[same, 'gene_a'].unique())}.")
    return table
