"""What a fit left in a table: the model, the counts that it read and corrected, the categories of the cells."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from numpy.typing import NDArray

from resolvi_sd._csr import CSR, row_blocks
from resolvi_sd._keys import Keys, fits
from resolvi_sd._model import encode
from resolvi_sd._results._fitted import FittedModel, Setup, from_state
from resolvi_sd._tables import column_text, read_matrix, table_counts
from resolvi_sd._validation import check_key, check_result, first_fraction, listing, warn_user

__all__ = [
    "category_codes",
    "checked_counts",
    "check_whole",
    "check_within_counts",
    "corrected_counts",
    "corrected_layer_name",
    "fitted_counts",
    "kept_counts",
    "naming_the_fit",
    "read_fit",
    "warn_of_other_counts",
]

# Cells whose latent is held against what was written.
_LOOKED_AT = 64
# Molecules that rounding may add.
_ROUNDING = 1e-3
# Difference of latents that rounding does not make.
_TOLERANCE = 0.01


def read_fit(adata: AnnData, keys: Keys) -> FittedModel:
    """Return the model that was fitted on `adata`, without the neighbor weights of its cells.

    Raises
    ------
    KeyError
        If there is none under these keys.
    ValueError
        If the genes are no longer those of the fit, or there are more cells.
    """
    if keys.model not in adata.uns:
        others = fits(adata.uns)
        hint = f" There are fits with `key_added` {others}." if others else ""
        raise KeyError(
            f"The table has no fit in `uns[{keys.model!r}]`.{hint} Please run "
            f"`resolvi_sd.tl.fit(..., key_added={keys.prefix!r})` first, or `write()` a model that was trained as an "
            "object."
        )
    fitted = from_state(adata.uns[keys.model], n_cells=adata.n_obs, n_neighbors=1)
    n_fitted = int(adata.uns[keys.model]["data"]["n_cells"])
    if adata.n_obs > n_fitted:
        raise ValueError(
            f"The table has {adata.n_obs:,} cells, and the fit in `uns[{keys.model!r}]` {n_fitted:,}: were tables "
            "concatenated? It says nothing of the others. Fit the table anew, or use the tables as they were; "
            "`resolvi_sd.tl.map_query` applies a fit to other cells."
        )
    fitted.require_genes(adata.var_names)
    return fitted


@contextmanager
def naming_the_fit(layer: str | None) -> Iterator[None]:
    """Say of an error about counts that the fit read them, and how to go on."""
    try:
        yield
    except ValueError as error:
        where = "table.X" if layer is None else f"table.layers[{layer!r}]"
        raise ValueError(
            f"The fit read its counts from `{where}`; they are needed here again, and have changed since. {error} "
            "Put them back, from the counts as they were measured (copies of corrected ones are no such), or fit anew "
            "from a layer that stays as it is, such as `layer='counts'`."
        ) from error


def fitted_counts(adata: AnnData, layer: str | None) -> CSR:
    """Return the counts that the fit read from `layer` (None is X), as :func:`resolvi_sd._tables.table_counts` does.

    Raises
    ------
    KeyError
        If the layer is gone.
    ValueError
        If it holds no counts any more, e.g. because X was normalised after the fit.
    """
    if layer is not None and layer not in adata.layers:
        raise KeyError(
            f"The fit read its counts from `layers[{layer!r}]`, which the table lacks: put them there. "
            f"It has: {listing(adata.layers)}."
        )
    with naming_the_fit(layer):
        return table_counts(adata, layer)


def kept_counts(adata: AnnData, keys: Keys) -> CSR | None:
    """Return the counts that the fit read, None if the table has them no more: for what can do without."""
    plain = adata.uns.get(keys.model, {}).get("setup")
    layer = None if plain is None else Setup.from_plain(plain).layer
    if plain is None or (layer is not None and layer not in adata.layers) or (layer is None and adata.X is None):
        return None
    counts = read_matrix(adata.X if layer is None else adata.layers[layer], name="the counts of the fit")
    return counts if first_fraction(counts.data) is None else None


def warn_of_other_counts(adata: AnnData, fitted: FittedModel, keys: Keys, counts: CSR) -> None:
    """Warn if cells have another latent than the fit wrote: counts are not those that it read, or cells not its own.

    Counts that are no counts any more are an error already; this is for whole numbers in their place, such as corrected
    counts that were drawn, and for tables of several fits that were put together.
    """
    written = adata.obsm.get(keys.latent)
    known = {fitted.setup.batch_key, *fitted.setup.categorical_covariate_keys} - {None} <= set(adata.obs.columns)
    if written is None or sp.issparse(written) or not known or not adata.n_obs:
        return
    rows = np.unique(np.linspace(0, adata.n_obs - 1, _LOOKED_AT, dtype=np.int64))
    again, _ = encode(fitted.module, counts[rows], category_codes(adata, fitted, rows), show_progress_bar=False)
    latent = np.asarray(written)[rows]
    if latent.shape != again.shape:
        return
    others = np.abs(again - latent).max(axis=1) > _TOLERANCE
    if others.any():
        where = "table.X" if fitted.setup.layer is None else f"table.layers[{fitted.setup.layer!r}]"
        warn_user(
            f"The counts in `{where}` do not seem to be those of the fit: of {len(rows)} cells that were looked at, "
            f"{int(others.sum())} have another latent by them than the fit wrote into `obsm[{keys.latent!r}]`. "
            "Whatever was replaced or transformed since (counts, batches and covariates, latent), put it back, or fit "
            "anew from a layer that stays as it is: `layer='counts'`."
        )


def checked_counts(adata: AnnData, fitted: FittedModel, keys: Keys) -> CSR:
    """Return the counts that were fitted, with a warning if they cannot be those any more."""
    counts = fitted_counts(adata, fitted.setup.layer)
    warn_of_other_counts(adata, fitted, keys, counts)
    return counts


def corrected_counts(adata: AnnData, keys: Keys, counts: CSR | None, *, layer: str | None = None) -> CSR:
    """Return the corrected counts of the fit, cells × genes, as :func:`resolvi_sd._tables.read_matrix` does.

    Parameters
    ----------
    adata
        The table.
    keys
        Names of the fit's entries.
    counts
        Those that were fitted; None, where they are not known, holds the corrected ones against nothing.
    layer
        Others that the user asked for by `corrected_layer=`.

    Raises
    ------
    KeyError
        If the layer is not there.
    ValueError
        If they are not between 0 and the counts, or the whole molecules of the fit are none any more.
    """
    name = corrected_layer_name(adata, keys, layer)
    matrix = _corrected_matrix(adata, name, keys)
    if counts is not None:
        check_within_counts(matrix, counts, keys, name)
    return matrix


def _corrected_matrix(adata: AnnData, name: str, keys: Keys) -> CSR:
    matrix = read_matrix(adata.layers[name], name=f"table.layers[{name!r}]")
    check_whole(matrix.data, keys, name)
    return matrix


def check_whole(values: NDArray[Any], keys: Keys, layer: str) -> None:
    """Raise ValueError if values of the layer of whole molecules, where it is that, are none any more."""
    if layer == keys.decontaminated and first_fraction(values) is not None:
        raise ValueError(
            f"`table.layers[{layer!r}]` has fractions, where `resolvi_sd.tl.decontaminated_counts` wrote whole "
            "molecules: it was normalised or log-transformed since. Run that again, and transform a copy of the layer."
        )


def corrected_layer_name(adata: AnnData, keys: Keys, layer: str | None) -> str:
    """Return the name of the layer with the corrected counts of the fit, or `layer` where the user asked for others.

    Raises
    ------
    KeyError
        If it is not there.
    """
    if layer is not None:
        check_key(layer, adata.layers, argument="corrected_layer", where="table.layers")
        return layer
    tool = f"resolvi_sd.tl.fit(..., key_added={keys.prefix!r})"
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
        If they are not, as where a layer was normalised.
    """
    of_fit = layer in (keys.counts, keys.decontaminated)
    name = f"`table.layers[{layer!r}]`" if of_fit else f"corrected_layer={layer!r}"
    for rows in row_blocks(counts.shape[0]):
        more = float((corrected[rows].astype(np.float64) - counts[rows]).max())  # unsigned integers have no less than 0
        least = float(corrected[rows].min())
        if not np.isfinite(more + least):
            raise ValueError(f"{name} has values that are no numbers (NaN or infinity).")
        if more > _ROUNDING or least < -_ROUNDING:
            what = f"up to {more:g} more than was counted" if more > _ROUNDING else f"values down to {least:g}"
            todo = (
                " The layer was transformed in place, or the counts were replaced: put them back, or fit again. To "
                f"normalise the layer, take a copy (`table.X = table.layers[{layer!r}].copy()`)."
            )
            raise ValueError(
                f"{name} has {what}. Corrected counts are what is left of the counts that were fitted, molecules "
                f"between 0 and these; normalised or log-transformed values are none.{todo if of_fit else ''}"
            )


def category_codes(
    adata: AnnData, fitted: FittedModel, rows: slice | NDArray[np.int64] = slice(None)
) -> NDArray[np.int64]:
    """Batch and further covariates of some cells, cells × (1 + covariates), in the order of the fitted categories.

    Raises
    ------
    KeyError
        If a column of the fit is gone.
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
    values = column_text(obs[key])
    codes = pd.Index(known, dtype=object).get_indexer(pd.Index(values, dtype=object))
    if (codes < 0).any():
        new = listing(sorted(set(values) - set(known), key=str))
        raise ValueError(
            f"`obs[{key!r}]` has categories that the model has not seen: {new}; it knows {listing(known)}. Cells of "
            "others are mapped onto a model by `resolvi_sd.tl.map_query` or `ResolVI.load_query_data`."
        )
    return codes.astype(np.int64)
