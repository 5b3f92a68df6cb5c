"""Co-expression rates of exclusive genes, and how much of each gene is left in cells of its own type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from numpy.typing import NDArray

from resolvi_sd._analysis import CONTROL, CORRECTED, MAX_RELATIVE_RAW, RAW
from resolvi_sd._csr import group_sums
from resolvi_sd._keys import Keys
from resolvi_sd._random import RandomLike
from resolvi_sd._results import corrected_counts, fitted_counts
from resolvi_sd._validation import check_markers, listing
from resolvi_sd.metrics import coexpression_rate, depth_matched, exclusive_pairs, pairs_from_markers
from resolvi_sd.pl._colored_groups import ColoredGroups
from resolvi_sd.pl._results import read_setup

__all__ = ["Points", "find_pairs", "kept_genes", "pair_rates", "read_layers"]

# Types with fewer cells than this are no gene's own type, as for exclusive pairs.
_MIN_CELLS = 10


@dataclass(frozen=True)
class Points:
    """Pairs or genes, as points of a panel.

    Attributes
    ----------
    raw
        Values in the raw counts, `(n_points,)`.
    after
        Values in depth-matched and corrected counts, by layer, in percent, `(n_points,)`.
    names
        Name of each point.
    """

    raw: NDArray[np.float64]
    after: Mapping[str, NDArray[np.float64]]
    names: Sequence[str]

    def mean(self, layer: str) -> float:
        """Return the mean over the points."""
        return float(self.after[layer].mean())

    def places(self, layer: str) -> NDArray[np.float64]:
        """Return the coordinates of the points of a layer, `(n_points, 2)`."""
        return np.column_stack([self.raw, self.after[layer]])


def read_layers(adata: AnnData, keys: Keys, corrected_layer: str | None, rng: RandomLike) -> dict[str, sp.csr_matrix]:
    """Return raw, depth-matched and corrected counts, cells × genes.

    Raises
    ------
    KeyError
        If there is no fit, or one of its layers is missing.
    """
    raw = sp.csr_matrix(fitted_counts(adata, read_setup(adata, keys).layer))
    corrected = sp.csr_matrix(corrected_counts(adata, keys, raw, layer=corrected_layer))
    return {RAW: raw, CONTROL: depth_matched(raw, corrected, rng=rng), CORRECTED: corrected}


def find_pairs(
    raw: sp.csr_matrix,
    adata: AnnData,
    groups: ColoredGroups,
    pairs: pd.DataFrame | Sequence[tuple[str, str]] | None,
    markers: Mapping[str, Sequence[str]] | None,
) -> pd.DataFrame | Sequence[tuple[str, str]]:
    """Return the given pairs, those of the given markers, or those that are exclusive in the raw counts.

    Raises
    ------
    ValueError
        If both are given, there is only one type, or there are no exclusive genes.
    """
    if len(groups.names) < 2:
        raise ValueError(
            f"obs[{groups.key!r}] has one type only, {groups.names[0]!r}: no genes are exclusive, and none "
            "distinguishes its own type from others."
        )
    if pairs is not None and markers is not None:
        raise ValueError("Give either `pairs` or `markers`, not both.")
    if pairs is not None:
        return pairs if isinstance(pairs, pd.DataFrame) else list(pairs)
    if markers is not None:
        check_markers(markers, adata.var_names)
        return pairs_from_markers(markers, adata.var_names)
    labels = groups.of_cells()
    try:
        return exclusive_pairs(raw, labels, adata.var_names, max_relative=MAX_RELATIVE_RAW)
    except ValueError as error:
        raise ValueError(
            f"The raw counts yield no pairs: {error} Here: `markers={{type: [genes]}}`, or `pairs=` from single cells, "
            "`resolvi_sd.metrics.exclusive_pairs(reference.X, reference.obs['label'], reference.var_names)`."
        ) from error


def pair_rates(layers: Mapping[str, sp.csr_matrix], genes: pd.Index[Any], pairs: Any) -> tuple[Points, tuple[str, ...]]:
    """Return the co-expression rate (%) of each pair with a gene in any cell, and the genes of these pairs.

    The rate is zero if a layer has no molecules of either gene left.

    Raises
    ------
    KeyError, TypeError, ValueError
        As :func:`resolvi_sd.metrics.coexpression_rate`, and if no cell has a gene of any pair.
    """
    found = {name: coexpression_rate(layer, genes, pairs).pairs for name, layer in layers.items()}
    known = found[RAW]["rate"].notna().to_numpy()
    if not known.any():
        raise ValueError("No cell has a gene of any of the pairs in the raw counts.")
    rates = {name: 100 * table["rate"].fillna(0.0).to_numpy()[known] for name, table in found.items()}
    first, second = (found[RAW].loc[known, column].astype(str).tolist() for column in ("gene_a", "gene_b"))
    names = [f"{a} + {b}" for a, b in zip(first, second, strict=True)]
    after = {layer: rates[layer] for layer in (CONTROL, CORRECTED)}
    return Points(rates[RAW], after, names), tuple(dict.fromkeys(first + second))


def kept_genes(
    layers: Mapping[str, sp.csr_matrix], genes: pd.Index[Any], groups: ColoredGroups, chosen: Sequence[str]
) -> Points:
    """Return the molecules of each gene per cell of its own type, and how many of them were kept (%).

    A gene's own type is the type with the largest share of that gene among its raw molecules. Genes without molecules
    in any cell with a type are left out.

    Raises
    ------
    ValueError
        If no genes are left.
    """
    n_types = len(groups.names)
    sizes = np.bincount(groups.codes[groups.codes >= 0], minlength=n_types)
    sums = {name: group_sums(layer, groups.codes, n_types) for name, layer in layers.items()}
    share = sums[RAW] / np.maximum(sums[RAW].sum(axis=1, keepdims=True), 1)
    share[sizes < min(_MIN_CELLS, sizes.max())] = -1.0
    column = genes.get_indexer(pd.Index(chosen))
    own = share[:, column].argmax(axis=0)
    found = sums[RAW][own, column] > 0
    if not found.any():
        raise ValueError(f"No cell with a value in obs[{groups.key!r}] has any of the genes {listing(chosen)}.")
    own, column = own[found], column[found]
    raw = sums[RAW][own, column]
    after = {name: 100 * sums[name][own, column] / raw for name in (CONTROL, CORRECTED)}
    names = [f"{genes[gene]} ({groups.names[code]})" for gene, code in zip(column, own, strict=True)]
    return Points(raw / sizes[own], after, names)
