"""Lookup of the results of a fit in a table, for plotting."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from resolvi_sd._keys import Keys
from resolvi_sd._results import check_whole, check_within_counts, naming_the_fit, unmeasured_genes
from resolvi_sd._setup import Setup
from resolvi_sd._tables import check_place_used
from resolvi_sd._validation import check_counts, check_key, check_names, check_unique, listing, warn_user

if TYPE_CHECKING:
    from spatialdata import SpatialData

__all__ = [
    "SHARE_TITLES",
    "Place",
    "check_written",
    "fit_record",
    "gene_counts",
    "read_setup",
    "read_shares",
    "resolve_genes",
    "warn_of_other_cells",
    "warn_of_unmeasured",
]

# Names of the shares in plots, in the order of `Keys.shares`.
SHARE_TITLES = ("own", "from neighbors", "background")


def fit_record(adata: AnnData, keys: Keys) -> Mapping[str, Any]:
    """Return the record of the fit, `uns[key_added]`.

    Raises
    ------
    KeyError
        If there is no fit under that name; the message lists the existing names.
    """
    record = adata.uns.get(keys.model)
    if isinstance(record, Mapping) and "history" in record:
        return record
    names = [name for name, entry in adata.uns.items() if isinstance(entry, Mapping) and "history" in entry]
    hint = ""
    if keys.true in adata.obs:
        hint = (
            "It has the shares of such a fit, whose record is lost when tables are concatenated: "
            "`resolvi_sd.pl.shares` draws these, and a new fit needs another `key_added=`. "
        )
    raise KeyError(
        f"No fit under key_added={keys.prefix!r} in this table; fits under: {listing(names)}. {hint}"
        "Please run `resolvi_sd.tl.fit` first."
    )


def read_setup(adata: AnnData, keys: Keys) -> Setup:
    """Return where the fit found its input.

    Raises
    ------
    KeyError
        If there is no fit, as :func:`fit_record`.
    """
    return Setup.from_plain(fit_record(adata, keys).get("setup", {}))


def warn_of_other_cells(adata: AnnData, n_cells: int, *, what: str, tool: str) -> None:
    """Warn if a result was computed from a different number of cells than the table has now."""
    if n_cells != adata.n_obs:
        warn_user(f"{what} is for {n_cells:,} cells, but the table has {adata.n_obs:,} now: run `{tool}` again.")


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
            f"{listing(names)}. Please run `{keys.call('fit')}` again."
        )


def read_shares(adata: AnnData, keys: Keys) -> tuple[NDArray[np.float64], ...]:
    """Return the own, diffused and background share of each cell, `(n_cells,)` each, NaN for cells without counts.

    Raises
    ------
    KeyError
        If a share is missing.
    """
    if keys.true not in adata.obs:
        fit_record(adata, keys)  # the message names the existing fits
    check_written(keys, keys.shares, adata.obs.columns, where="table.obs")
    return tuple(adata.obs[key].to_numpy(dtype=np.float64) for key in keys.shares)


@dataclass(frozen=True)
class Place:
    """Where to find the coordinates and sections of the cells.

    Attributes
    ----------
    coordinate_system
        Coordinate system of the SpatialData object.
    spatial_key
        Entry of `obsm` with the coordinates, used if the table annotates no element.
    library_key
        Column of `obs` that distinguishes sections; None if there is none.
    """

    coordinate_system: str
    spatial_key: str
    library_key: str | None

    @classmethod
    def of(
        cls,
        data: SpatialData | AnnData,
        adata: AnnData,
        setup: Setup,
        *,
        coordinate_system: str | None,
        spatial_key: str | None,
        library_key: str | None,
    ) -> Place:
        """Return the settings of the user, with those of the fit instead of None.

        Raises
        ------
        ValueError
            If the user gave a setting that is not used for these data.
        """
        check_place_used(data, adata, spatial_key=spatial_key, coordinate_system=coordinate_system)
        return cls(
            coordinate_system or setup.coordinate_system,
            spatial_key or setup.spatial_key,
            library_key or setup.section_key,
        )


def resolve_genes(adata: AnnData, gene: str | Sequence[str]) -> tuple[str, ...]:
    """Return the requested genes, all of which are in the table.

    Raises
    ------
    ValueError
        If no gene is given, or gene names repeat.
    KeyError
        If a gene is not in the table; the message names the closest ones.
    """
    genes = (gene,) if isinstance(gene, str) else check_names(gene, argument="gene")
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
            "a column of `table.obs`, not a gene: `squidpy.pl.spatial_scatter` and spatialdata-plot draw it on the "
            "tissue, and `resolvi_sd.pl.sources` draws the shares"
        )
    return f"not among the genes of the table{_closest(adata, name)}"


def _closest(adata: AnnData, name: str) -> str:
    by_lower = {str(known).lower(): str(known) for known in adata.var_names}
    found = [by_lower[match] for match in get_close_matches(str(name).lower(), by_lower, n=3)]
    return f"; the closest names are {listing(found)}" if found else ""


def gene_counts(
    adata: AnnData, keys: Keys, gene: str, layers: tuple[str | None, str]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the fitted and the corrected counts of one gene, each `(n_cells,)`.

    Parameters
    ----------
    adata
        The table.
    keys
        Names of the fit's entries.
    gene
        One of the genes of the table.
    layers
        The layer that was fitted (None for `X`), and that of the corrected counts.

    Raises
    ------
    ValueError
        If the fitted counts are no longer counts, or the corrected counts are not between 0 and these.
    """
    before, after = (_gene_column(adata, gene, layer) for layer in layers)
    with naming_the_fit(layers[0]):
        check_counts(before, adata, layer=layers[0])
    check_whole(after, keys, layers[1])
    check_within_counts(after, before, keys, layers[1])
    return before, after


def _gene_column(adata: AnnData, gene: str, layer: str | None) -> NDArray[np.float64]:
    """Return the values of one gene in a layer (None for `X`), `(n_cells,)`, without converting other genes.

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


def warn_of_unmeasured(genes: Sequence[str], adata: AnnData, keys: Keys) -> None:
    """Warn of genes that a query lacks, which would be drawn as not expressed."""
    unmeasured = unmeasured_genes(adata, keys)
    missing = [gene for gene in genes if gene in unmeasured]
    if missing:
        warn_user(
            f"Genes that were not measured in this query have no counts: {listing(missing)}. "
            f"`{keys.call('normalized_expression')}` gives what the reference expects of them."
        )
