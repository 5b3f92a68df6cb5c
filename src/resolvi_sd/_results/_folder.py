"""A fitted model in a folder, as safetensors (tensors) and JSON (the rest), so that reading it cannot run any code."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from resolvi_sd._graphs import NeighborGraph
from resolvi_sd._results._fitted import FittedModel, check_format, from_state, to_state
from resolvi_sd._validation import listing

__all__ = ["TABLE_FILE", "StoredModel", "check_holds_table", "load_folder", "save_folder"]

_TENSORS, _DESCRIPTION, TABLE_FILE = "model.safetensors", "model.json", "adata.h5ad"
_WEIGHT, _HISTORY, _GRAPH = "weights.", "history.", "graph."
_LOGITS, _CATEGORIES, _SIZES, _LATENT = "neighbor_logits", "categories", "sizes", "some_latent"


def save_folder(
    folder: Path,
    fitted: FittedModel,
    cells: pd.Index[Any],
    graph: NeighborGraph,
    *,
    categories: NDArray[np.int64],
    latent: NDArray[np.float32],
    sizes: NDArray[np.float32] | None = None,
    table: AnnData | None = None,
    overwrite: bool = False,
) -> None:
    """Write the model, including its parameters for each cell.

    Parameters
    ----------
    folder
        Folder to write to; it is created with its parents if missing.
    fitted
        The model.
    cells
        Names of the cells, stored to recognize them.
    graph
        Neighbors of the cells, in whose slots the neighbor weights are stored.
    categories
        Batch and further covariates of the cells, stored to recognize these columns.
    latent
        Latent means of some cells, stored to recognize the counts; see :func:`warn_of_other_latent`.
    sizes
        Sizes of the cells, if these were measured from outlines.
    table
        Table to store with the model, if any.
    overwrite
        Whether to replace a model that is already in `folder`; other files in it are kept.

    Raises
    ------
    NotADirectoryError
        If `folder` is a file.
    FileExistsError
        If `folder` holds a model and `overwrite` is not given, or if it holds something other than a model.
    """
    folder = folder.absolute()
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file, but the model is written into a folder; choose another name.")
    staging = {name: folder / f".{name}.writing" for name in (_TENSORS, TABLE_FILE, _DESCRIPTION)}
    found = {path.name for path in folder.iterdir()} if folder.exists() else set()
    if _DESCRIPTION in found and not overwrite:
        raise FileExistsError(f"{folder} already holds a model; pass `overwrite=True` to replace it.")
    # Files left over from an interrupted write are accepted; a table alone is not one of these.
    left = found & {_TENSORS, *(path.name for path in staging.values())}
    if _DESCRIPTION not in found and found - left - ({TABLE_FILE} if left else set()):
        raise FileExistsError(f"{folder} holds something other than a model; choose another folder.")
    state = to_state(fitted)
    tensors = {_WEIGHT + name: array for name, array in state.pop("weights").items()}
    tensors |= {_HISTORY + name: np.asarray(array) for name, array in state.pop("history").items()}
    tensors[_LOGITS] = fitted.module.neighbor_logits.weight.detach().numpy()
    tensors |= {_GRAPH + name: array for name, array in vars(graph).items()}
    tensors |= {_CATEGORIES: categories, _LATENT: latent} | ({} if sizes is None else {_SIZES: sizes})
    state |= {name: list(getattr(fitted, name)) for name in ("genes", "batches", "labels", "colors", "unmeasured")}
    state["covariates"] = {str(i): list(names) for i, names in enumerate(fitted.covariates)}
    state["setup"] = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in state["setup"].items()}
    state["has_table"] = table is not None
    state["cells"] = {"number": len(cells), "digest": _digest(cells)}

    # The model is written completely before it replaces an older one. The description is removed first and moved into
    # place last: a folder without it holds no model, and no folder ever holds parts of two models.
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, staging[_TENSORS])
    if table is not None:
        table.write_h5ad(staging[TABLE_FILE])
    staging[_DESCRIPTION].write_text(json.dumps(state, indent=1))
    (folder / _DESCRIPTION).unlink(missing_ok=True)
    if table is None:
        del staging[TABLE_FILE]
    for name, path in staging.items():
        path.replace(folder / name)


@dataclass(frozen=True)
class StoredModel:
    """Content of a folder written by :func:`save_folder`.

    Attributes
    ----------
    fitted
        The model.
    graph
        Neighbors of the cells.
    categories
        Batch and further covariates of the cells, `(n_cells, 1 + n_covariates)`.
    latent
        Latent means of some cells.
    sizes
        Sizes of the cells, if they were measured.
    """

    fitted: FittedModel
    graph: NeighborGraph
    categories: NDArray[np.int64]
    latent: NDArray[np.float32]
    sizes: NDArray[np.float32] | None

    def check_categories(self, given: NDArray[np.int64]) -> None:
        """Raise ValueError unless the cells have the batches and further covariates that they had in the fit."""
        other = (given != self.categories).any(axis=1)
        if other.any():
            columns = (self.fitted.setup.batch_key, *self.fitted.setup.categorical_covariate_keys)
            raise ValueError(
                f"The model was fitted with other values of the columns {listing(columns)} of `obs`, in "
                f"{int(other.sum()):,} of {len(other):,} cells, and expression and corrected counts depend on these. "
                "Restore them, or train a model on this table."
            )


def load_folder(folder: Path, cells: pd.Index[Any]) -> StoredModel:
    """Load a model for the cells that it was fitted on.

    Raises
    ------
    FileNotFoundError
        If `folder` holds no model.
    ValueError
        If it has another format, is incomplete, or was fitted on other cells.
    """
    check_holds_model(folder)
    state: dict[str, Any] = json.loads((folder / _DESCRIPTION).read_text())
    check_format(state)
    check_holds_model(folder, _TENSORS)
    tensors: dict[str, NDArray[Any]] = load_file(folder / _TENSORS)
    known = state.get("cells", {})
    if known.get("number") != len(cells) or known.get("digest") != _digest(cells):
        raise ValueError(
            f"The model was fitted on {known.get('number'):,} cells, but `adata` holds {len(cells):,}, which are not "
            "the same in the same order. Pass the table of the fit; for other cells use `ResolVI.load_query_data`."
        )
    logits = tensors[_LOGITS]
    for part, prefix in (("weights", _WEIGHT), ("history", _HISTORY)):
        state[part] = {name.removeprefix(prefix): a for name, a in tensors.items() if name.startswith(prefix)}
    fitted = from_state(state, n_cells=len(cells), n_neighbors=logits.shape[1])
    with torch.no_grad():
        fitted.module.neighbor_logits.weight.copy_(torch.from_numpy(logits))
    graph = NeighborGraph(**{field.name: tensors[_GRAPH + field.name] for field in fields(NeighborGraph)})
    return StoredModel(fitted, graph, tensors[_CATEGORIES], tensors[_LATENT], tensors.get(_SIZES))


def check_holds_model(folder: Path, name: str = _DESCRIPTION) -> None:
    """Raise FileNotFoundError unless the folder holds a model, as indicated by the description, written last."""
    if not (folder / name).exists():
        raise FileNotFoundError(f"{folder} holds no model: {name} is missing. Models are written by `ResolVI.save`.")


def check_holds_table(folder: Path) -> None:
    """Raise FileNotFoundError unless the folder holds a model, and the table that was saved with it."""
    check_holds_model(folder)
    if not json.loads((folder / _DESCRIPTION).read_text()).get("has_table"):
        raise FileNotFoundError(
            f"There is no table of the model in {str(folder)!r}: pass it, `ResolVI.load(folder, adata)`, or save the "
            "model with `save_anndata=True`."
        )


def _digest(cells: pd.Index[Any]) -> str:
    return hashlib.sha256("\n".join(cells.astype(str)).encode()).hexdigest()
