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
from anndata.io import write_h5ad
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from resolvi_sd._graphs import NeighborGraph
from resolvi_sd._results._fitted import FittedModel, check_format, from_state, to_state

__all__ = ["TABLE_FILE", "StoredModel", "check_holds_table", "load_folder", "save_folder"]

_TENSORS, _DESCRIPTION, TABLE_FILE = "model.safetensors", "model.json", "adata.h5ad"
_WEIGHT, _HISTORY, _GRAPH = "weights.", "history.", "graph."
_LOGITS, _COORDINATES, _CATEGORIES = "neighbor_logits", "coordinates", "categories"
_SIZES, _LATENT, _MOLECULES = "sizes", "some_latent", "molecules"


def save_folder(
    folder: Path,
    fitted: FittedModel,
    cells: pd.Index[Any],
    graph: NeighborGraph,
    *,
    coordinates: NDArray[np.float64],
    categories: NDArray[np.int64],
    latent: NDArray[np.float32],
    molecules: NDArray[np.float64],
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
    coordinates
        Coordinates of the cells, which the table lacks if they are those of elements of a SpatialData object.
    categories
        Batch and further covariates of the cells, stored to recognize these columns.
    latent
        Latent means of some cells, stored to recognize the counts; see :func:`warn_of_other_input`.
    molecules
        Molecules of the cells, stored for the same purpose.
    sizes
        Sizes of the cells, if the model uses them.
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
    tensors |= {_COORDINATES: coordinates, _CATEGORIES: categories, _LATENT: latent, _MOLECULES: molecules}
    tensors |= {} if sizes is None else {_SIZES: sizes}
    state |= {name: list(getattr(fitted, name)) for name in ("genes", "batches", "labels", "colors", "unmeasured")}
    state["covariates"] = {str(i): list(names) for i, names in enumerate(fitted.covariates)}
    state["setup"] = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in state["setup"].items()}
    state["has_table"] = table is not None
    state["cells"] = {
        "number": len(cells),
        "digest": _digest(cells),
        "digest_in_any_order": _digest(cells.sort_values()),
    }

    # The model is written completely before it replaces an older one. The description is removed first and moved into
    # place last: a folder without it holds no model, and no folder ever holds parts of two models.
    folder.mkdir(parents=True, exist_ok=True)
    try:
        save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, staging[_TENSORS])
        if table is not None:
            write_h5ad(staging[TABLE_FILE], table)  # its method would make a backed table that of the new file
        staging[_DESCRIPTION].write_text(json.dumps(state, indent=1))
    except BaseException:
        for path in staging.values():
            path.unlink(missing_ok=True)
        raise
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
    coordinates
        Coordinates of the cells.
    categories
        Batch and further covariates of the cells, `(n_cells, 1 + n_covariates)`.
    latent
        Latent means of some cells.
    molecules
        Molecules of the cells.
    sizes
        Sizes of the cells, if the model uses them.
    """

    fitted: FittedModel
    graph: NeighborGraph
    coordinates: NDArray[np.float64]
    categories: NDArray[np.int64]
    latent: NDArray[np.float32]
    molecules: NDArray[np.float64]
    sizes: NDArray[np.float32] | None


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
    state = _description(folder)
    check_format(state)
    check_holds_model(folder, _TENSORS)
    try:
        tensors: dict[str, NDArray[Any]] = load_file(folder / _TENSORS)
    except SafetensorError as error:
        raise ValueError(f"{folder / _TENSORS} is damaged, or was not written completely: {error}") from error
    known = state["cells"]
    if known["digest"] != _digest(cells):
        same = known["digest_in_any_order"] == _digest(cells.sort_values())
        what = "the same in another order: restore that of the fit" if same else "others: pass the table of the fit"
        raise ValueError(
            f"The model was fitted on {known['number']:,} cells, and the {len(cells):,} of `adata` are {what}. For "
            "other cells use `ResolVI.load_query_data`."
        )
    logits = tensors[_LOGITS]
    for part, prefix in (("weights", _WEIGHT), ("history", _HISTORY)):
        state[part] = {name.removeprefix(prefix): a for name, a in tensors.items() if name.startswith(prefix)}
    fitted = from_state(state, n_cells=len(cells), n_neighbors=logits.shape[1])
    with torch.no_grad():
        fitted.module.neighbor_logits.weight.copy_(torch.from_numpy(logits))
    graph = NeighborGraph(**{field.name: tensors[_GRAPH + field.name] for field in fields(NeighborGraph)})
    coordinates, categories, latent, molecules = (
        tensors[name] for name in (_COORDINATES, _CATEGORIES, _LATENT, _MOLECULES)
    )
    return StoredModel(fitted, graph, coordinates, categories, latent, molecules, tensors.get(_SIZES))


def check_holds_model(folder: Path, name: str = _DESCRIPTION) -> None:
    """Raise FileNotFoundError unless the folder holds a model, as indicated by the description, written last."""
    if not (folder / name).exists():
        raise FileNotFoundError(f"{folder} holds no model: {name} is missing. Models are written by `ResolVI.save`.")


def check_holds_table(folder: Path) -> None:
    """Raise FileNotFoundError unless the folder holds a model, and the table that was saved with it."""
    check_holds_model(folder)
    if not _description(folder).get("has_table"):
        older = ""
        if (folder / TABLE_FILE).exists():
            older = f" ({TABLE_FILE!r} is of an earlier model: this one was saved without its table)"
        raise FileNotFoundError(
            f"There is no table of the model in {str(folder)!r}{older}: pass it, `ResolVI.load(folder, adata)`, or "
            "save the model with `save_anndata=True`."
        )


def _description(folder: Path) -> dict[str, Any]:
    """Return what the folder says of its model.

    Raises
    ------
    ValueError
        If the file is damaged.
    """
    path = folder / _DESCRIPTION
    try:
        state: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is damaged, or is not of a model of `ResolVI.save`: {error}") from error
    return state


def _digest(cells: pd.Index[Any]) -> str:
    return hashlib.sha256("\n".join(cells.astype(str)).encode()).hexdigest()
