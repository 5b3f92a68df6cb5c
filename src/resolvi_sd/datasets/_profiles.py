"""Expression profiles of cell types: simulated, or averaged from single-cell RNA-seq."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from numpy.typing import NDArray

from resolvi_sd._validation import first_fraction, warn_user

__all__ = ["TypeProfiles", "background_profiles", "exclusive_type", "reference_profiles", "simulate_profiles"]

# Expected share of the cells of a rare type.
RARE_SHARE = 0.01
# A gene is an exclusive marker of a type that expresses it at least this many times as much as any other type.
EXCLUSIVE_FOLD = 8.0


@dataclass(frozen=True)
class TypeProfiles:
    """Properties of the cells of each type.

    Attributes
    ----------
    types
        Names of the types, most frequent first.
    genes
        Names of the genes.
    expression
        Types × genes, float64, rows sum to 1.
    gradient
        Types × genes, float64: change in the log of the expression per step of 1 along the gradient.
    frequencies
        Share of each type in the tissue, sums to 1.
    size
        Factor of each type on the radius of its cells.
    depth
        Factor of each type on the number of molecules of its cells.
    """

    types: list[str]
    genes: list[str]
    expression: NDArray[np.float64]
    gradient: NDArray[np.float64]
    frequencies: NDArray[np.float64]
    size: NDArray[np.float64]
    depth: NDArray[np.float64]

    def of_cells(
        self, types: NDArray[np.intp], position: NDArray[np.float64], gene_effect: NDArray[np.float64]
    ) -> NDArray[np.float32]:
        """Return the expression of single cells.

        Parameters
        ----------
        types
            Type of each cell.
        position
            Position of each cell along its type's gradient.
        gene_effect
            Factor on each gene, such as that of a batch.

        Returns
        -------
        Cells × genes, rows sum to 1.
        """
        expression = np.empty((len(types), len(self.genes)), dtype=np.float32)
        for code in range(len(self.types)):
            rows = np.flatnonzero(types == code)
            values = np.exp(position[rows, None] * self.gradient[code]) * (self.expression[code] * gene_effect)
            expression[rows] = values / values.sum(axis=1, keepdims=True)
        return expression


def _with_traits(
    types: list[str],
    genes: list[str],
    expression: NDArray[np.float64],
    *,
    n_rare: int,
    gradient: float,
    rng: np.random.Generator,
) -> TypeProfiles:
    """Add frequencies, sizes, depths and gradients to the profiles of the types."""
    n_types, n_genes = expression.shape
    n_common = n_types - n_rare
    common = 0.8 ** np.arange(n_common)
    rare_share = min(RARE_SHARE, 0.5 / n_types)
    frequencies = np.full(n_types, rare_share)
    frequencies[:n_common] = common / common.sum() * (1 - n_rare * rare_share)
    # A fifth of the genes follow the gradient, as programs of zonation or activation do.
    follows = rng.random((n_types, n_genes)) < 0.2
    return TypeProfiles(
        types=types,
        genes=genes,
        expression=expression / expression.sum(axis=1, keepdims=True),
        gradient=gradient * np.where(follows, rng.standard_normal((n_types, n_genes)), 0.0),
        frequencies=frequencies,
        size=np.exp(0.12 * rng.standard_normal(n_types)),
        depth=np.exp(0.3 * rng.standard_normal(n_types)),
    )


def simulate_profiles(
    n_types: int, n_genes: int, *, n_rare: int, gradient: float, rng: np.random.Generator
) -> TypeProfiles:
    """Draw the profiles of a targeted panel: half of its genes mark a type or a lineage, half are shared.

    Parameters
    ----------
    n_types, n_genes
        Numbers of types and genes.
    n_rare
        Number of rare types.
    gradient
        Standard deviation of the log fold change of a gene along its type's gradient.
    rng
        Generator.
    """
    # Pairs of types form a lineage. The spreads give a mean total variation between types of 0.6, and half of that
    # within a lineage; it is 0.66 in the single-cell RNA-seq of Moffitt et al. (2018) on their MERFISH panel.
    lineage = np.arange(n_types) // 2
    log_expression = 0.8 * rng.standard_normal(n_genes) + 0.5 * rng.standard_normal((n_types, n_genes))
    log_expression += 0.8 * rng.standard_normal((lineage[-1] + 1, n_genes))[lineage]
    # Markers cycle through the types so that each has some; the order of the genes stays random.
    n_markers = n_genes // 2
    markers = rng.permutation(n_genes)[:n_markers]
    marks = np.zeros((n_types, n_genes), dtype=bool)
    marks[np.arange(n_markers) % n_types, markers] = True
    is_marker = marks.any(axis=0)
    # On average, every other marker is that of a lineage.
    shared = markers[rng.random(n_markers) < 0.5]
    marks[:, shared] = (lineage[:, None] == lineage).astype(int) @ marks[:, shared] > 0
    silent = is_marker & ~marks
    log_expression[marks] += 1.2
    log_expression[silent] -= 2.0 + 0.8 * rng.standard_normal(int(silent.sum()))
    width = len(str(n_genes - 1))
    return _with_traits(
        [f"type_{code}" for code in range(n_types)],
        [f"gene_{gene:0{width}d}" for gene in range(n_genes)],
        np.exp(log_expression),
        n_rare=n_rare,
        gradient=gradient,
        rng=rng,
    )


def reference_profiles(
    adata: AnnData,
    labels_key: str | None,
    *,
    n_genes: int | None,
    n_rare: int,
    gradient: float,
    rng: np.random.Generator,
) -> TypeProfiles:
    """Average single-cell RNA-seq counts per label, with each cell scaled to sum to 1.

    Parameters
    ----------
    adata
        Reference, counts in X.
    labels_key
        Column of `obs` with the cell types; the types are ordered by frequency.
    n_genes
        Number of genes to keep, those whose expression differs most between types; None keeps all.
    n_rare, gradient, rng
        As in :func:`simulate_profiles`.

    Raises
    ------
    TypeError, KeyError, ValueError
        If profiles cannot be computed from the reference; the message says why.
    """
    counts, labels = _check_reference(adata, labels_key, n_genes=n_genes, n_rare=n_rare)
    size = np.asarray(counts.sum(axis=1)).ravel()
    types = [str(label) for label in labels.value_counts().index]
    codes = pd.Categorical(labels, categories=types).codes
    used = (codes >= 0) & (size > 0)
    member = sp.csr_matrix((1 / size[used], (codes[used], np.flatnonzero(used))), shape=(len(types), adata.n_obs))
    expression = np.asarray((member @ counts).todense(), dtype=np.float64)
    empty = [label for label, total in zip(types, expression.sum(axis=1), strict=True) if total == 0]
    if empty:
        raise ValueError(f"Types of `profiles` without any counts: {empty}. Leave them out.")
    expression /= expression.sum(axis=1, keepdims=True)
    genes = np.arange(adata.n_vars)
    if n_genes is not None:
        genes = np.sort(np.argsort(-expression.std(axis=0), kind="stable")[:n_genes])
        expression = expression[:, genes]
        empty = [label for label, total in zip(types, expression.sum(axis=1), strict=True) if total == 0]
        if empty:
            raise ValueError(f"Types of `profiles` without counts in the {n_genes} genes: {empty}. Raise `n_genes`.")
    names = [str(name) for name in adata.var_names[genes]]
    return _with_traits(types, names, expression, n_rare=n_rare, gradient=gradient, rng=rng)


def _check_reference(
    adata: AnnData, labels_key: str | None, *, n_genes: int | None, n_rare: int
) -> tuple[Any, pd.Series[str]]:
    """Check that the reference can be used, and return its counts as CSR and its labels as strings."""
    if not isinstance(adata, AnnData):
        raise TypeError(f"`profiles` must be an AnnData, not {type(adata).__name__}.")
    if labels_key is None:
        raise ValueError(
            f"`profiles` needs `profiles_labels_key`, the column with the cell types: {list(adata.obs.columns)}."
        )
    if labels_key not in adata.obs:
        raise KeyError(f"Column {labels_key!r} not found in `profiles.obs`. Columns: {list(adata.obs.columns)}.")
    if not adata.var_names.is_unique:
        raise ValueError("The genes of `profiles` must have unique names; call `profiles.var_names_make_unique()`.")
    if n_genes is not None and n_genes > adata.n_vars:
        raise ValueError(f"`n_genes` is {n_genes}, but `profiles` has {adata.n_vars} genes; pass at most that many.")
    if adata.X is None:
        raise ValueError("`profiles.X` is empty; put the counts there.")
    if adata.isbacked:
        adata = adata.to_memory()
    counts = sp.csr_matrix(adata.X, dtype=np.float64)
    if counts.nnz == 0 or not np.isfinite(counts.data).all() or counts.data.min() < 0:
        raise ValueError("`profiles.X` must hold counts: finite, not negative, not all zero.")
    fraction = first_fraction(counts.data)
    if fraction is not None:
        warn_user(
            f"`profiles.X` has values that are not integers, such as {fraction:g}. Profiles are means of counts; those "
            "of logarithms would be much too similar between types. If these are logarithms, put the counts into X."
        )
    labels = adata.obs[labels_key].astype(str).where(adata.obs[labels_key].notna())
    n_types = labels.nunique()
    if n_types <= n_rare:
        raise ValueError(f"`n_rare` is {n_rare}, but `profiles` has {n_types} types; at least one must not be rare.")
    return counts, labels


def exclusive_type(profiles: TypeProfiles) -> NDArray[np.intp]:
    """Return for each gene the type that it marks exclusively, -1 for none (`EXCLUSIVE_FOLD` over any other)."""
    if len(profiles.types) == 1:
        return np.full(len(profiles.genes), -1)
    ordered = np.sort(profiles.expression, axis=0)
    exclusive = (ordered[-1] > 0) & (ordered[-1] >= EXCLUSIVE_FOLD * ordered[-2])
    return np.where(exclusive, profiles.expression.argmax(axis=0), -1)


def background_profiles(n_samples: int, n_genes: int, *, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw the background profile of each sample: similar, but not identical, and unlike any cell type.

    Returns
    -------
    Samples × genes, rows sum to 1.
    """
    log_rate = 0.5 * rng.standard_normal(n_genes) + 0.3 * rng.standard_normal((n_samples, n_genes))
    rate = np.exp(log_rate)
    return np.asarray(rate / rate.sum(axis=1, keepdims=True))
