"""Reading of a fit from its table: the model, the counts that it read and corrected, the categories of the cells."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from resolvi_sd._csr import CSR, row_blocks, row_sums
from resolvi_sd._keys import Keys, fits
from resolvi_sd._results._fitted import FittedModel, from_state
from resolvi_sd._setup import fitted_setup, plain_names
from resolvi_sd._tables import read_groups, read_matrix, table_counts
from resolvi_sd._validation import check_complete, check_key, check_result, first_fraction, listing, matrix_name

__all__ = [
    "category_codes",
    "check_whole",
    "check_within_counts",
    "corrected_counts",
    "corrected_layer_name",
    "fitted_counts",
    "kept_counts",
    "naming_the_fit",
    "read_fit",
    "unmeasured_genes",
]

# Number of molecules that rounding may add.
_ROUNDING = 1e-3


def unmeasured_genes(adata: AnnData, keys: Keys) -> tuple[str, ...]:
    """Return the genes of the reference that the table of a query lacks, whose counts are zero only for this reason."""
    return tuple(adata.uns.get(keys.model, {}).get("unmeasured", ()))


def read_fit(adata: AnnData, keys: Keys) -> FittedModel:
    """Return the model that was fitted on `adata`, without the neighbor weights of its cells.

    Raises
    ------
    KeyError
        If there is no fit under these keys.
    ValueError
        If the genes are no longer those of the fit, or if there are more cells.
    """
    if keys.model not in adata.uns:
        others = fits(adata.uns)
        hint = f" There are fits with `key_added` {others}." if others else ""
        raise KeyError(
            f"The table has no fit in `uns[{keys.model!r}]`.{hint} Please run "
            f"`{keys.call('fit')}` first, or `write()` the results of a trained "
            "`ResolVI` object."
        )
    fitted = from_state(adata.uns[keys.model], n_cells=adata.n_obs, n_neighbors=1)
    n_fitted = int(adata.uns[keys.model]["data"]["n_cells"])
    if adata.n_obs > n_fitted:
        raise ValueError(
            f"The table has {adata.n_obs:,} cells, but the fit in `uns[{keys.model!r}]` has {n_fitted:,}: were tables "
            "concatenated? The fit does not cover the other cells. Fit the combined table, or use the original tables; "
            "`resolvi_sd.tl.map_query` applies a fit to other cells."
        )
    fitted.require_genes(adata.var_names)
    return fitted


@contextmanager
def naming_the_fit(layer: str | None) -> Iterator[None]:
    """Add to an error about counts that the fit read them, and what to do."""
    try:
        yield
    except ValueError as error:
        raise ValueError(
            f"The fit read its counts from `{matrix_name(layer)}`; they are needed again here, but have changed since. "
            f"{error} Put them back, using the counts as measured (not a copy of corrected counts), or fit again from "
            "a layer that stays unchanged, such as `layer='counts'`."
        ) from error


def fitted_counts(adata: AnnData, layer: str | None) -> CSR:
    """Return the counts that the fit read from `layer` (None is X), as :func:`resolvi_sd._tables.table_counts` does.

    Raises
    ------
    KeyError
        If the layer no longer exists.
    ValueError
        If it no longer holds counts, e.g. because X was normalized after the fit.
    """
    if layer is not None and layer not in adata.layers:
        raise KeyError(
            f"The fit read its counts from `layers[{layer!r}]`, which the table lacks: put them there. "
            f"The table has: {listing(adata.layers)}."
        )
    with naming_the_fit(layer):
        return table_counts(adata, layer)


def kept_counts(adata: AnnData, keys: Keys) -> CSR | None:
    """Return the counts that the fit read, or None if the table no longer has them, for functions that allow this."""
    setup = fitted_setup(adata, keys)
    layer = None if setup is None else setup.layer
    if setup is None or (layer is not None and layer not in adata.layers) or (layer is None and adata.X is None):
        return None
    counts = read_matrix(adata.X if layer is None else adata.layers[layer], name="the counts of the fit")
    return counts if first_fraction(counts.data) is None else None


def corrected_counts(adata: AnnData, keys: Keys, counts: CSR | None, *, layer: str | None = None) -> CSR:
    """Return the corrected counts of the fit, cells × genes, as :func:`resolvi_sd._tables.read_matrix` does.

    Parameters
    ----------
    adata
        The table.
    keys
        Names of the fit's entries.
    counts
        The counts that were fitted; None, if they are not known, skips the comparison with the corrected counts.
    layer
        Another layer, requested by the user with `corrected_layer=`.

    Raises
    ------
    KeyError
        If the layer does not exist.
    ValueError
        If values are not between 0 and the counts, or if the integer counts of the fit are no longer integers.
    """
    name = corrected_layer_name(adata, keys, layer)
    matrix = _corrected_matrix(adata, name, keys)
    if counts is not None:
        check_within_counts(matrix, counts, keys, name)
        _check_no_logarithm(matrix, counts, name)
        if name == keys.counts:
            _check_shares(adata, matrix, counts, keys)
    return matrix


def _check_shares(adata: AnnData, matrix: CSR, counts: CSR, keys: Keys) -> None:
    """Raise ValueError if cells do not have the share of own molecules in the corrected counts that the fit wrote.

    A logarithm of the corrected counts, or rates, may be between 0 and the counts as well. Integers are draws, whose
    sums vary, and the shares are those of all genes of the fit.
    """
    some = next(row_blocks(counts.shape[0]))
    genes = plain_names(adata.uns.get(keys.model, {}).get("genes", ()))
    if keys.true not in adata.obs or set(genes) != set(adata.var_names) or first_fraction(matrix[some].data) is None:
        return
    molecules = row_sums(counts[some])
    expected = adata.obs[keys.true].to_numpy(dtype=np.float64)[some] * molecules
    off = np.abs(row_sums(matrix[some]) - expected) > _ROUNDING * (1 + molecules)
    if off.any():
        raise ValueError(
            f"`{matrix_name(keys.counts)}` does not have the molecules that the fit left in {int(off.sum()):,} of "
            f"{len(off):,} cells, according to obs[{keys.true!r}]: it was transformed in place (log1p, normalized), or "
            f"one of the two, or the counts, were replaced. Restore what was replaced, or fit again. To transform the "
            f"layer, use a copy (`table.X = {matrix_name(keys.counts)}.copy()`)."
        )


def _check_no_logarithm(matrix: CSR, counts: CSR, layer: str) -> None:
    """Raise ValueError if a layer holds the logarithms of the counts, which are also between 0 and these."""
    some = next(row_blocks(counts.shape[0]))
    values, counted = matrix[some].data, counts[some].data.astype(np.float64)
    if counted.any() and len(values) == len(counted) and np.allclose(values, np.log1p(counted), rtol=1e-4):
        raise ValueError(f"`table.layers[{layer!r}]` holds logarithms of the counts (log1p), not corrected counts.")


def _corrected_matrix(adata: AnnData, name: str, keys: Keys) -> CSR:
    matrix = read_matrix(adata.layers[name], name=matrix_name(name))
    check_whole(matrix.data, keys, name)
    return matrix


def check_whole(values: NDArray[Any], keys: Keys, layer: str) -> None:
    """Raise ValueError if `layer` is that of the decontaminated counts, and values are no longer integers."""
    if layer == keys.decontaminated and first_fraction(values) is not None:
        raise ValueError(
            f"`table.layers[{layer!r}]` has fractions, but `resolvi_sd.tl.decontaminated_counts` wrote whole "
            "molecules: it was normalized or log-transformed since. Run that function again, and transform a copy of "
            "the layer."
        )


def corrected_layer_name(adata: AnnData, keys: Keys, layer: str | None) -> str:
    """Return the name of the layer with the corrected counts of the fit, or `layer` if the user requested another.

    Raises
    ------
    KeyError
        If the layer does not exist.
    """
    if layer is not None:
        check_key(layer, adata.layers, argument="corrected_layer", where="table.layers")
        return layer
    tool = keys.call("fit")
    check_result(keys.counts, adata.layers, where="table.layers", tool=tool)
    return keys.counts


def check_within_counts(corrected: Any, counts: Any, keys: Keys, layer: str) -> None:
    """Raise unless the corrected counts in a layer are between 0 and the counts.

    Parameters
    ----------
    corrected, counts
        Both CSR, or both arrays.
    keys
        Names of the fit's entries.
    layer
        Name of the layer.

    Raises
    ------
    ValueError
        If they are not, for example because the layer was normalized.
    """
    of_fit = layer in (keys.counts, keys.decontaminated)
    name = f"`table.layers[{layer!r}]`" if of_fit else f"corrected_layer={layer!r}"
    for rows in row_blocks(counts.shape[0]):
        more = float((corrected[rows].astype(np.float64) - counts[rows]).max())  # unsigned integers have no less than 0
        least = float(corrected[rows].min())
        if not np.isfinite(more + least):
            raise ValueError(f"{name} has values that are NaN or infinite.")
        if more > _ROUNDING or least < -_ROUNDING:
            what = f"up to {more:g} more than was counted" if more > _ROUNDING else f"values down to {least:g}"
            todo = (
                " The layer was transformed in place, or the counts were replaced: put them back, or fit again. To "
                f"normalize the layer, use a copy (`table.X = table.layers[{layer!r}].copy()`)."
            )
            raise ValueError(
                f"{name} has {what}. Corrected counts are the remaining part of the fitted counts, so they must be "
                f"between 0 and these, and not normalized or log-transformed.{todo if of_fit else ''}"
            )


def category_codes(
    adata: AnnData, fitted: FittedModel, rows: slice | NDArray[np.int64] = slice(None)
) -> NDArray[np.int64]:
    """Return batch and further covariates of some cells, cells × (1 + covariates), as codes of the fitted categories.

    Raises
    ------
    KeyError
        If a column used by the fit is missing.
    ValueError
        If it holds a category that the model has not seen.
    """
    setup, obs = fitted.setup, adata.obs.iloc[rows]
    codes = np.zeros((len(obs), 1 + len(fitted.covariates)), dtype=np.int64)
    if setup.batch_key is not None:
        codes[:, 0] = _codes(obs, "batch_key", setup.batch_key, fitted.batches)
    for i, (key, known) in enumerate(zip(setup.categorical_covariate_keys, fitted.covariates, strict=True)):
        codes[:, 1 + i] = _codes(obs, "categorical_covariate_keys", key, known)
    return codes


def _codes(obs: pd.DataFrame, argument: str, key: str, known: tuple[str, ...]) -> NDArray[np.int64]:
    if key not in obs:
        raise KeyError(f"The model was fitted with `{argument}={key!r}`, which `obs` lacks: {list(obs.columns)}.")
    groups = read_groups(obs[key]).with_cells()
    check_complete(obs[key], argument=argument)
    new = sorted(set(groups.names) - set(known))
    if new:
        raise ValueError(
            f"`obs[{key!r}]` has categories that the model has not seen: {listing(new)}; it knows {listing(known)}. To "
            "map cells of new categories onto a model, use `resolvi_sd.tl.map_query` or `ResolVI.load_query_data`."
        )
    return np.array([known.index(name) for name in groups.names], dtype=np.int64)[groups.codes]
