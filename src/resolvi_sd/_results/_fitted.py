"""A fitted model, and its form in `uns`: plain dicts of arrays, numbers and strings, so that no pickle is needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from resolvi_sd._graphs import Distance
from resolvi_sd._keys import Keys
from resolvi_sd._model import DataSummary, ModelConfig, ResolviModule, TrainingConfig, from_plain, to_plain

__all__ = ["FittedModel", "Setup", "check_format", "from_state", "to_state"]

_FORMAT = 6
_PER_CELL = "neighbor_logits.weight"
# What the priors took from the data, beside numbers of cells, genes and categories.
_SUMMARY = ("n_cells", "n_train", "neighbor_distance", "depth", "median_size")
_PACKAGES = ("resolvi-sd", "anndata", "spatialdata", "torch")


@dataclass(frozen=True)
class Setup:
    """Where in the data the model's input is; None where the default was taken.

    With `size_unit`, the sizes `size_factor_key` were measured from outlines, and are among the fit's results.
    """

    n_neighbors: int
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
        """Columns of `obs` that are read, but for sizes that are among the fit's results."""
        sizes = self.size_factor_key if self.size_unit is None else None
        named = (self.batch_key, self.library_key, self.labels_key, sizes, *self.categorical_covariate_keys)
        return tuple(dict.fromkeys(key for key in named if key is not None))

    def size_column(self, keys: Keys) -> str | None:
        """Column of `obs` with the sizes of the cells of a fitted table; None without sizes."""
        return self.size_factor_key if self.size_unit is None else keys.size

    def to_plain(self) -> dict[str, Any]:
        """Return what a store can hold: no None, no tuples; what is absent has its default."""
        given = {name: value for name, value in asdict(self).items() if value not in (None, ())}
        return {k: np.array(v, dtype=object) if isinstance(v, tuple) else v for k, v in given.items()}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Setup:
        """Inverse of :meth:`to_plain`, from what a store gives back."""
        values: dict[str, Any] = {f.name: plain[f.name] for f in fields(cls) if f.name in plain}
        read: dict[str, Callable[[Any], Any]] = {"n_neighbors": int, "categorical_covariate_keys": _names}
        return cls(**{name: read.get(name, str)(value) for name, value in values.items()})


@dataclass(frozen=True)
class FittedModel:
    """A fitted model and all that is needed to use it on its table again.

    Parameters
    ----------
    module
        Parameters.
    setup
        Where the input came from.
    training
        How it was trained.
    genes, batches, labels
        Names, in the order of the parameters; no labels without semi-supervision.
    covariates
        Names of the categories of each of the setup's covariates, in the order of the parameters.
    history
        One value per epoch: `epoch`, `elbo`, `learning_rate`.
    seed
        What everything random was derived from.
    is_query
        Whether it is a reference's model on the cells of a query.
    colors
        Colors of the labels, in their order, that a query's model has from its reference; empty without.
    unmeasured
        Genes of the reference that the query lacks, whose counts are zero for no biological reason.
    """

    module: ResolviModule
    setup: Setup
    training: TrainingConfig
    genes: tuple[str, ...]
    batches: tuple[str, ...]
    history: Mapping[str, NDArray[Any]]
    seed: int
    labels: tuple[str, ...] = ()
    covariates: tuple[tuple[str, ...], ...] = ()
    is_query: bool = False
    colors: tuple[str, ...] = ()
    unmeasured: tuple[str, ...] = ()

    @property
    def measured(self) -> NDArray[np.intp]:
        """Columns of the genes that were measured."""
        return np.flatnonzero(~np.isin(np.array(self.genes, dtype=object), self.unmeasured))

    def require_genes(self, names: pd.Index[Any]) -> None:
        """Raise ValueError unless `names` are the genes that the model was fitted on, in the same order."""
        given = tuple(names.astype(str))
        if given != self.genes:
            now, then = set(given), set(self.genes)
            if now == then:
                raise ValueError(
                    "The genes of the table are those that the model was fitted on, in another order. Bring them into "
                    "that of the fit: `table[:, genes].copy()` with `genes = table.uns['resolvi']['genes']`, or "
                    "`model.adata.var_names`."
                )
            raise ValueError(
                f"The genes of the table are not those that the model was fitted on: {len(then - now)} of {len(then)} "
                f"are gone, {len(now - then)} are new. Use the table as it was fitted, or fit again."
            )

    def require_labels(self) -> None:
        """Raise ValueError unless the model was fitted with labels."""
        if not self.labels:
            raise ValueError(
                "The model has no labels to predict: fit with `labels_key=` first (or "
                "`ResolVI(adata, semisupervised=True)` after `setup_anndata(..., labels_key=...)`)."
            )


def to_state(fitted: FittedModel) -> dict[str, Any]:
    """Return what goes into `uns`; neighbor weights are per cell and go into `obsp` instead."""
    data = fitted.module.data
    weights = {k: v.cpu().numpy().copy() for k, v in fitted.module.state_dict().items() if k != _PER_CELL}
    return {
        "format": _FORMAT,
        "versions": {name: version(name) for name in _PACKAGES},
        "seed": fitted.seed,
        "setup": fitted.setup.to_plain(),
        "model_config": to_plain(fitted.module.config),
        "training_config": to_plain(fitted.training),
        "data": {name: getattr(data, name) for name in _SUMMARY},
        "genes": np.array(fitted.genes, dtype=object),
        "batches": np.array(fitted.batches, dtype=object),
        "is_query": fitted.is_query,
        **({"labels": np.array(fitted.labels, dtype=object)} if fitted.labels else {}),
        **({"colors": np.array(fitted.colors, dtype=object)} if fitted.colors else {}),
        **({"unmeasured": np.array(fitted.unmeasured, dtype=object)} if fitted.unmeasured else {}),
        # By number: a store cannot have names with slashes.
        "covariates": {str(i): np.array(names, dtype=object) for i, names in enumerate(fitted.covariates)},
        "history": dict(fitted.history),
        "weights": weights,
    }


def check_format(state: Mapping[str, Any]) -> None:
    """Raise ValueError unless a stored model has the format that this version reads."""
    if "format" not in state:
        raise ValueError(
            "What is stored there is no model of resolvi_sd; something else took its place (`sc.pp.neighbors(..., "
            "key_added='resolvi')` would). Fit again, and give other results another name."
        )
    found = int(state["format"])
    if found != _FORMAT:
        raise ValueError(
            f"The stored model has format {found}, and this version of resolvi_sd reads format {_FORMAT}. "
            "Update resolvi_sd, or fit again."
        )


def from_state(state: Mapping[str, Any], *, n_cells: int, n_neighbors: int) -> FittedModel:
    """Inverse of :func:`to_state`, for a table that now has `n_cells` rows; its neighbor weights are not restored.

    Raises
    ------
    ValueError
        If the state was written by a newer version, or is not whole.
    """
    check_format(state)
    genes, batches, labels = (_names(state.get(name, ())) for name in ("genes", "batches", "labels"))
    setup = Setup.from_plain(state["setup"])
    covariates = tuple(_names(state["covariates"][str(i)]) for i in range(len(setup.categorical_covariate_keys)))
    config = from_plain(ModelConfig, state["model_config"])
    data = DataSummary(
        n_cells=n_cells,
        n_train=int(state["data"]["n_train"]),
        n_genes=len(genes),
        n_batches=len(batches),
        n_neighbors=n_neighbors,
        neighbor_distance=float(state["data"]["neighbor_distance"]),
        gene_profile=torch.full((len(batches), len(genes)), 1 / len(genes)),
        depth=float(state["data"]["depth"]),
        n_labels=len(labels),
        n_covariates=tuple(len(names) for names in covariates),
        median_size=float(state["data"]["median_size"]),
    )
    module = ResolviModule.blank(config, data)
    weights = {k: torch.from_numpy(np.array(v)) for k, v in state["weights"].items()}
    expected = set(module.state_dict()) - {_PER_CELL}
    if set(weights) != expected:
        raise ValueError(
            f"The stored model is not whole: missing {sorted(expected - set(weights))}, "
            f"unknown {sorted(set(weights) - expected)}. Fit again."
        )
    module.load_state_dict(weights, strict=False)
    return FittedModel(
        module=module.eval(),
        setup=setup,
        training=from_plain(TrainingConfig, state["training_config"]),
        genes=genes,
        batches=batches,
        history={k: np.asarray(v) for k, v in state["history"].items()},
        seed=int(state["seed"]),
        labels=labels,
        covariates=covariates,
        is_query=bool(state["is_query"]),
        colors=_names(state.get("colors", ())),
        unmeasured=_names(state.get("unmeasured", ())),
    )


def _names(values: Any) -> tuple[str, ...]:
    return tuple(str(value) for value in np.asarray(values).ravel())
