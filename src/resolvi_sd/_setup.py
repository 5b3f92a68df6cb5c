"""Where in a table the model finds its input, as a record that is kept with the fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from anndata import AnnData

from resolvi_sd._graphs import Distance
from resolvi_sd._keys import Keys

__all__ = ["Setup", "fitted_setup", "plain_names"]


@dataclass(frozen=True)
class Setup:
    """Location of the model's input in a table; None means the default.

    Attributes
    ----------
    n_neighbors
        Number of neighbors of a cell.
    layer
        Layer with the counts; None is `X`.
    batch_key, library_key
        Columns of `obs` with batches and sections.
    spatial_key
        Entry of `obsm` with the coordinates, used if the table annotates no element.
    coordinate_system
        Coordinate system of the elements that it annotates.
    neighbors_key
        Existing graph to use.
    labels_key, unlabeled_category
        Column of `obs` with labels, and its value for cells without one.
    size_factor_key
        Column of `obs` with sizes of the cells.
    size_unit
        Unit of the sizes if they were measured from outlines; they are then among the results of the fit.
    distance
        How distances between cells are measured.
    categorical_covariate_keys
        Columns of `obs` with further covariates.
    """

    n_neighbors: int = 10
    layer: str | None = None
    batch_key: str | None = None
    library_key: str | None = None
    spatial_key: str = "spatial"
    coordinate_system: str = "global"
    neighbors_key: str | None = None
    labels_key: str | None = None
    unlabeled_category: str = "unknown"
    size_factor_key: str | None = None
    size_unit: str | None = None
    distance: Distance = "centroid"
    categorical_covariate_keys: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of `obs` that are read, except for sizes that are among the results of the fit."""
        sizes = self.size_factor_key if self.size_unit is None else None
        named = (self.batch_key, self.library_key, self.labels_key, sizes, *self.categorical_covariate_keys)
        return tuple(dict.fromkeys(key for key in named if key is not None))

    @property
    def section_key(self) -> str | None:
        """Column of `obs` that distinguishes sections; None if there is none."""
        return self.library_key or self.batch_key

    def size_column(self, keys: Keys) -> str | None:
        """Column of `obs` with the sizes of the cells of a fitted table; None without sizes."""
        return self.size_factor_key if self.size_unit is None else keys.size

    def to_plain(self) -> dict[str, Any]:
        """Return a dict that can be stored, without None or tuples; missing entries mean the default."""
        given = {name: value for name, value in asdict(self).items() if value not in (None, ())}
        return {k: np.array(v, dtype=object) if isinstance(v, tuple) else v for k, v in given.items()}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Setup:
        """Return the setup from a dict of :meth:`to_plain` that was read from a store."""
        values: dict[str, Any] = {f.name: plain[f.name] for f in fields(cls) if f.name in plain}
        read: dict[str, Callable[[Any], Any]] = {"n_neighbors": int, "categorical_covariate_keys": plain_names}
        return cls(**{name: read.get(name, str)(value) for name, value in values.items()})


def fitted_setup(adata: AnnData, keys: Keys) -> Setup | None:
    """Return the setup of the fit, or None if the table has no fit, for functions that do not require one."""
    plain = adata.uns.get(keys.model, {}).get("setup")
    return None if plain is None else Setup.from_plain(plain)


def plain_names(values: Any) -> tuple[str, ...]:
    """Return names as text, from what a store returns for a sequence of them."""
    return tuple(str(value) for value in np.asarray(values).ravel())
