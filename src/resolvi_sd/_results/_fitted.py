"""A fitted model, and its representation in `uns` by plain dicts of arrays, numbers and strings, without pickle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from resolvi_sd._model import PER_CELL, DataSummary, ModelConfig, ResolviModule, TrainingConfig, from_plain, to_plain
from resolvi_sd._setup import Setup, plain_names

__all__ = ["FittedModel", "check_format", "from_state", "to_state"]

_FORMAT = 10
# Summary of the data on which the priors depend.
_SUMMARY = ("n_cells", "n_train", "neighbor_distance", "depth", "median_size")
_PACKAGES = ("resolvi-sd", "anndata", "spatialdata", "torch")


@dataclass(frozen=True)
class FittedModel:
    """A fitted model, with everything needed to use it again on its table.

    Attributes
    ----------
    module
        The parameters of the model.
    setup
        Location of the input.
    training
        Settings of the training.
    genes, batches, labels
        Names, in the order of the parameters; there are no labels without semi-supervision.
    covariates
        Names of the categories of each of the setup's covariates, in the order of the parameters.
    history
        One value per epoch: `epoch`, `elbo`, `learning_rate`.
    seed
        Seed from which all random numbers were derived.
    is_query
        Whether this is the model of a reference, applied to the cells of a query.
    colors
        Colors of the labels, in their order, that the model of a query takes from its reference; empty if none.
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

    @property
    def unmeasured(self) -> tuple[str, ...]:
        """Genes of the reference that the query lacks, whose counts are zero only for this reason."""
        return tuple(self.genes[column] for column in self.module.data.unmeasured)

    @property
    def measured(self) -> NDArray[np.intp]:
        """Columns of the genes that were measured."""
        return np.setdiff1d(np.arange(len(self.genes)), self.module.data.unmeasured)

    def require_genes(self, names: pd.Index[Any]) -> None:
        """Raise ValueError unless `names` are the genes that the model was fitted on, in the same order."""
        given = tuple(names.astype(str))
        if given != self.genes:
            now, then = set(given), set(self.genes)
            if now == then:
                raise ValueError(
                    "The genes of the table are those that the model was fitted on, in another order. Reorder them as "
                    "in the fit: `table[:, genes].copy()` with `genes = table.uns[key_added]['genes']`, "
                    "`model.adata.var_names`, or the `genes` in the `model.json` of a saved model."
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
    """Return the entry for `uns`; neighbor weights are per cell and are stored in `obsp` instead."""
    data = fitted.module.data
    weights = {k: v.cpu().numpy().copy() for k, v in fitted.module.state_dict().items() if k != PER_CELL}
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
        # Numbered, since names in a store must not contain slashes.
        "covariates": {str(i): np.array(names, dtype=object) for i, names in enumerate(fitted.covariates)},
        "history": dict(fitted.history),
        "weights": weights,
    }


def check_format(state: Mapping[str, Any]) -> None:
    """Raise ValueError unless a stored model has the format that this version reads."""
    if "format" not in state:
        raise ValueError(
            "The stored entry is not a model of resolvi_sd; something else replaced it (as `sc.pp.neighbors(..., "
            "key_added='resolvi')` would). Fit again, and give other results another name."
        )
    found = int(state["format"])
    if found != _FORMAT:
        raise ValueError(
            f"The stored model has format {found}, but this version of resolvi_sd reads format {_FORMAT}. "
            "Update resolvi_sd, or fit again."
        )


def from_state(state: Mapping[str, Any], *, n_cells: int, n_neighbors: int) -> FittedModel:
    """Invert :func:`to_state`, for a table that now has `n_cells` rows; its neighbor weights are not restored.

    Raises
    ------
    ValueError
        If the state has another format, or is incomplete.
    """
    check_format(state)
    genes, batches, labels, unmeasured = (
        plain_names(state.get(name, ())) for name in ("genes", "batches", "labels", "unmeasured")
    )
    setup = Setup.from_plain(state["setup"])
    covariates = tuple(plain_names(state["covariates"][str(i)]) for i in range(len(setup.categorical_covariate_keys)))
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
        unmeasured=tuple(np.flatnonzero(np.isin(genes, unmeasured)).tolist()),
    )
    module = ResolviModule.blank(config, data)
    weights = {k: torch.from_numpy(np.array(v)) for k, v in state["weights"].items()}
    expected = set(module.state_dict()) - {PER_CELL}
    if set(weights) != expected:
        raise ValueError(
            f"The stored model is incomplete: missing {sorted(expected - set(weights))}, "
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
        colors=plain_names(state.get("colors", ())),
    )
