"""What a fit left in a table, looked up for drawing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from resolvi_sd._keys import Keys
from resolvi_sd._results import check_whole, check_within_counts, naming_the_fit
from resolvi_sd._validation import check_counts, check_key, check_unique, listing, warn_user

__all__ = [
    "SHARE_TITLES",
    "Place",
    "check_written",
    "fitted",
    "gene_counts",
    "read_shares",
    "resolve_genes",
    "setup_layer",
    "warn_of_other_cells",
]

# What the shares are called in plots, in the order of `Keys.shares`.
SHARE_TITLES = ("own", "from neighbors", "background")


def fitted(adata: AnnData, keys: Keys) -> Mapping[str, Any]:
    """Return the record of the fit, `uns[key_added]`.

    Raises
    ------
    KeyError
        If there was no fit under that name; the message lists the names there are.
    """
    record = adata.uns.get(keys.model)
    if isinstance(record, Mapping) and "history" in record:
        return record
    names = [name for name, entry in adata.uns.items() if isinstance(entry, Mapping) and "history" in entry]
    hint = ""
    if keys.true in adata.obs:
        hint = (
            "It has the shares of one, whose record is lost when tables are concatenated: `resolvi_sd.pl.shares` draws "
            "these, and a new fit needs another `key_added=`. "
        )
    raise KeyError(
        f"No fit under key_added={keys.prefix!r} in this table; fits under: {listing(names)}. {hint}"
        "Please run `resolvi_sd.tl.fit(...)` first."
    )


def warn_of_other_cells(adata: AnnData, n_cells: int, *, what: str, tool: str) -> None:
    """Warn if a result is of another number of cells than the table has now."""
    if n_cells != adata.n_obs:
        warn_user(f"{what} is of {n_cells:,} cells, and the table has {adata.n_obs:,} now: run `{tool}` again.")


def check_written(keys: Keys, wanted: Iterable[str], available: Iterable[object], *, where: str) -> None:
    """Raise unless the fit's results `wanted` are among `available`.

    Raises
    ------
    KeyError
        If one is missing, e.g. because it was deleted after the fit.
    """
    names = list(available)
    missing = [name for name in wanted if name not in names]
    if missing:
        raise KeyError(
            f"The results {listing(missing)} of the fit under key_added={keys.prefix!r} are not in `{where}`; it has: "
            f"{listing(names)}. Please run `resolvi_sd.tl.fit(...)` again."
        )


def read_shares(adata: AnnData, keys: Keys) -> tuple[NDArray[np.float64], ...]:
    """Return the own, diffused and background share of each cell, `(n_cells,)` each, NaN for cells without counts.

    Raises
    ------
    KeyError
        If one is missing.
    """
    if keys.true not in adata.obs:
        fitted(adata, keys)  # says which fits there are
    check_written(keys, keys.shares, adata.obs.columns, where="table.obs")
    return tuple(adata.obs[key].to_numpy(dtype=np.float64) for key in keys.shares)


def _setup(record: Mapping[str, Any], key: str) -> str | None:
    """Return an argument of the fit; one that was None may be left out of the record."""
    value = record.get("setup", {}).get(key)
    return None if value is None else str(value)


def setup_layer(record: Mapping[str, Any]) -> str | None:
    """Return the layer of counts that was fitted; None is X."""
    return _setup(record, "layer")


@dataclass(frozen=True)
class Place:
    """Where the cells are.

    Attributes
    ----------
    coordinate_system
        Of the SpatialData object.
    spatial_key
        Entry of `obsm` with the coordinates, where no element is annotated.
    library_key
        Column of `obs` by which sections are told apart; None if there is none.
    """

    coordinate_system: str
    spatial_key: str
    library_key: str | None

    @classmethod
    def of(
        cls,
        record: Mapping[str, Any],
        *,
        coordinate_system: str | None,
        spatial_key: str | None,
        library_key: str | None,
    ) -> Place:
        """Return what the user gave, and in place of None what the fit read."""
        return cls(
            coordinate_system or _setup(record, "coordinate_system") or "global",
            spatial_key or _setup(record, "spatial_key") or "spatial",
            library_key or _setup(record, "library_key") or _setup(record, "batch_key"),
        )


def resolve_genes(adata: AnnData, gene: str | Sequence[str]) -> tuple[str, ...]:
    """Return the genes asked for, all of them in the table.

    Raises
    ------
    ValueError
        If no gene is given, or gene names repeat.
    KeyError
        If a gene is not in the table; the message names the closest ones.
    """
    genes = (gene,) if isinstance(gene, str) else tuple(gene)
    if not genes:
        raise ValueError("`gene` is empty; give the name of a gene or a list of names.")
    check_unique(adata.var_names, what="Gene names (`table.var_names`)", todo="Call `table.var_names_make_unique()`.")
    unknown = [name for name in genes if name not in adata.var_names]
    if unknown:
        raise KeyError(
            " ".join(f"{name!r} is {_no_gene(adata, name)}." for name in unknown)
            + f" The table has {adata.n_vars} genes, such as {listing(adata.var_names[:5])}."
        )
    return genes


def _no_gene(adata: AnnData, name: str) -> str:
    if name in adata.obs:
        return (
            "a column of `table.obs` and no gene: `squidpy.pl.spatial_scatter` and spatialdata-plot draw it on the "
            "tissue, `resolvi_sd.pl.sources` the shares"
        )
    return f"not among the genes of the table{_closest(adata, name)}"


def _closest(adata: AnnData, name: str) -> str:
    by_lower = {str(known).lower(): str(known) for known in adata.var_names}
    found = [by_lower[match] for match in get_close_matches(str(name).lower(), by_lower, n=3)]
    return f"; the closest names are {listing(found)}" if found else ""


def gene_counts(
    adata: AnnData, keys: Keys, gene: str, layers: tuple[str | None, str]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return one gene's counts that were fitted, and its corrected ones, each `(n_cells,)`.

    Parameters
    ----------
    adata
        The table.
    keys
        Names of the fit's entries.
    gene
        One of the genes of the table.
    layers
        The layer that was fitted, None is X, and that of the corrected counts.

    Raises
    ------
    ValueError
        If the counts are none any more, or the corrected ones are not between 0 and these.
    """
    before, after = (_gene_column(adata, gene, layer) for layer in layers)
    with naming_the_fit(layers[0]):
        check_counts(before, adata, layer=layers[0])
    check_whole(after, keys, layers[1])
    check_within_counts(after, before, keys, layers[1])
    return before, after


def _gene_column(adata: AnnData, gene: str, layer: str | None) -> NDArray[np.float64]:
    """Return one gene's values in a layer (None is X), `(n_cells,)`, without converting the others.

    Raises
    ------
    KeyError
        If there is no such layer.
    """
    if layer is not None:
        check_key(layer, adata.layers, argument="layer", where="table.layers")
    matrix = adata.X if layer is None else adata.layers[layer]
    position = int(adata.var_names.get_loc(gene))
    column: Any = matrix[:, [position]]
    if hasattr(column, "compute"):
        column = column.compute()
    dense = column if isinstance(column, np.ndarray) else column.toarray()
    return np.asarray(dense, dtype=np.float64).reshape(-1)
