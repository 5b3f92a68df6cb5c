"""Posterior draws as named arrays, computed for blocks of cells, immediately or lazily."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from anndata import AnnData
from numpy.typing import NDArray
from tqdm.auto import tqdm

from resolvi_sd._graphs import NeighborGraph
from resolvi_sd._keys import Keys
from resolvi_sd._model import SOURCES, Sampler, Site
from resolvi_sd._random import RandomLike, as_generator
from resolvi_sd._results import restore
from resolvi_sd._validation import check_positive_int, check_unique, listing

__all__ = ["Block", "Draws", "check_choices", "named"]

# Above this many bytes the arrays are dask arrays, computed when they are read.
_LARGE = 1 << 30
# Size of the draws in a block, in bytes.
_BLOCK = 1 << 27
# Cells × genes decoded per block, with all genes of the model and about five arrays of this size; most cells per block.
_DECODED = 1 << 24
_ROWS = 8192

# Function that returns arrays of the named variables for some cells and draws.
Block = Callable[[Sampler, NDArray[np.int64], Collection[str], slice], Mapping[str, NDArray[Any]]]


@dataclass(frozen=True)
class Draws:
    """A checked request for draws of some cells and genes, and the model and tissue to draw from."""

    adata: AnnData
    sampler: Sampler
    graph: NeighborGraph
    cells: NDArray[np.int64]
    genes: NDArray[np.int64]

    @classmethod
    def prepare(
        cls,
        adata: AnnData,
        keys: Keys,
        *,
        n_samples: int,
        genes: Sequence[str] | None,
        cells: Sequence[str] | None,
        rng: RandomLike,
    ) -> Draws:
        """Check the request, then restore the model.

        Raises
        ------
        KeyError, ValueError, TypeError
            If a name is unknown or repeated, a number is out of range, or there is no fit.
        """
        check_positive_int(n_samples, argument="n_samples")
        generator = as_generator(rng)
        columns = _positions(genes, adata.var_names, argument="genes", where="table.var_names")
        rows = _positions(cells, adata.obs_names, argument="cells", where="table.obs_names")
        fitted, tissue, graph = restore(adata, keys)
        sampler = Sampler.create(fitted.module, tissue, n_samples=n_samples, rng=generator)
        return cls(adata, sampler, graph, rows, columns)

    @property
    def sizes(self) -> dict[str, int]:
        """Length of every dimension."""
        return {
            "sample": self.sampler.n_samples,
            "cell": len(self.cells),
            "gene": len(self.genes),
            "neighbor": self.graph.index.shape[1],
            "source": len(SOURCES),
            "latent_dim": self.sampler.module.config.n_latent,
        }

    def coordinates(self, variables: Mapping[str, Site]) -> dict[str, Any]:
        """Return the coordinates of the dimensions of the variables."""
        dims = {dim for variable in variables.values() for dim in variable.dims}
        values: dict[str, Any] = {dim: np.arange(self.sizes[dim]) for dim in dims & set(self.sizes)}
        names = self.adata.obs_names.to_numpy(dtype=object)
        known = {
            "cell": names[self.cells],
            "gene": self.adata.var_names.to_numpy(dtype=object)[self.genes],
            "source": np.array(SOURCES, dtype=object),
        }
        values |= {dim: value for dim, value in known.items() if dim in dims}
        if "neighbor" in dims:
            index, mask = self.graph.index[self.cells], self.graph.mask[self.cells]
            values["neighbor_cell"] = (("cell", "neighbor"), np.where(mask, names[index], ""))
        return values

    def rows(self) -> int:
        """Return the number of cells per block: as many as decoding allows, since small blocks have large halos."""
        return min(_ROWS, max(256, _DECODED // self.sampler.tissue.n_genes))

    def rows_with_all_samples(self) -> int:
        """Return the number of cells per block if the block holds all of its draws at the same time."""
        return min(self.rows(), max(16, _BLOCK // (4 * len(self.genes) * self.sampler.n_samples)))


def check_choices(value: Sequence[str] | str, known: Sequence[str], *, argument: str) -> tuple[str, ...]:
    """Return `value` as a tuple; a single name becomes a tuple of one.

    Raises
    ------
    ValueError
        If there are no names, or if a name is unknown.
    """
    given = (value,) if isinstance(value, str) else tuple(value)
    unknown = [name for name in given if name not in known]
    if unknown or not given:
        what = f"has unknown names: {listing(unknown)}" if unknown else "is empty"
        raise ValueError(f"`{argument}` {what}; choose from {listing(known)}.")
    return tuple(dict.fromkeys(given))


def _positions(names: Sequence[str] | None, known: pd.Index[Any], *, argument: str, where: str) -> NDArray[np.int64]:
    if names is None:
        return np.arange(len(known))
    wanted = pd.Index([names] if isinstance(names, str) else list(names), dtype=object)
    if len(wanted) and all(isinstance(name, (bool, np.bool_)) for name in wanted):
        raise TypeError(f"`{argument}` takes names, not a mask: pass `{where}[mask]`.")
    check_unique(known, what=f"`{where}`", todo=f"Make it unique, or leave `{argument}` out.")
    check_unique(wanted, what=f"`{argument}`", todo="Name each once.")
    found = known.get_indexer(wanted)
    if not len(found):
        raise ValueError(f"`{argument}` is empty; leave it out (None) for all.")
    if (found < 0).any():
        raise KeyError(
            f"`{argument}`: {int((found < 0).sum())} of {len(found)} are not in `{where}`: "
            f"{listing(wanted[found < 0], 5)}. It has: {listing(known, 5)}."
        )
    return found.astype(np.int64)


def named(
    draws: Draws,
    block: Block,
    variables: Mapping[str, Site],
    *,
    rows: int,
    coordinates: Mapping[str, Any] | None = None,
    show_progress_bar: bool,
) -> xr.Dataset:
    """Return the results of `block` for all cells as a dataset, backed by dask if it would be large.

    Parameters
    ----------
    draws
        The requested draws.
    block
        Function that returns arrays of some variables for some cells and draws.
    variables
        Description of each variable.
    rows
        Number of cells per block.
    coordinates
        Values of the dimensions that `draws` does not know.
    show_progress_bar
        Whether to show a progress bar if the draws are computed immediately.
    """
    more = dict(coordinates or {})
    sizes = draws.sizes | {dim: len(values) for dim, values in more.items()}
    shapes = {name: tuple(sizes[dim] for dim in variable.dims) for name, variable in variables.items()}
    n_bytes = sum(math.prod(shapes[name]) * np.dtype(variable.dtype).itemsize for name, variable in variables.items())
    if n_bytes > _LARGE:
        draws = replace(draws, sampler=replace(draws.sampler, tissue=draws.sampler.tissue.kept()))
        arrays = {name: _lazy(draws, block, name, variable, shapes[name], rows) for name, variable in variables.items()}
    else:
        arrays = _eager(draws, block, variables, shapes, rows, show_progress_bar)
    return xr.Dataset(
        {
            name: (variable.dims, arrays[name], {"long_name": variable.description, "units": variable.units})
            for name, variable in variables.items()
        },
        coords=draws.coordinates(variables) | more,
    )


def _eager(
    draws: Draws,
    block: Block,
    variables: Mapping[str, Site],
    shapes: Mapping[str, tuple[int, ...]],
    rows: int,
    show_progress_bar: bool,
) -> dict[str, Any]:
    arrays = {name: np.empty(shapes[name], variable.dtype) for name, variable in variables.items()}
    with tqdm(total=len(draws.cells), desc="Sampling", unit="cell", disable=not show_progress_bar) as bar:
        for some in draws.graph.compact_parts(rows, draws.cells):
            for name, values in block(draws.sampler, draws.cells[some], variables, slice(None)).items():
                axis = variables[name].dims.index("cell")
                np.moveaxis(arrays[name], axis, 0)[some] = np.moveaxis(values, axis, 0)
            bar.update(len(some))
    return arrays


def _lazy(draws: Draws, block: Block, name: str, variable: Site, shape: tuple[int, ...], rows: int) -> Any:
    """Return a dask array of one variable, chunked by cells in the requested order and, if large, also by draws.

    Each variable has its own tasks, so that reading one does not compute the others.
    """
    import dask
    import dask.array as da

    source = dask.delayed(draws.sampler, pure=False, traverse=False)
    task = dask.delayed(_piece, pure=False)
    cell_axis, n_samples = variable.dims.index("cell"), draws.sampler.n_samples
    step = max(1, _BLOCK // (4 * len(draws.genes) * rows)) if variable.is_sampled else n_samples

    def chunk(cells: NDArray[np.int64], samples: slice) -> Any:
        size = list(shape)
        size[cell_axis] = len(cells)
        if variable.is_sampled:
            size[0] = samples.stop - samples.start
        return da.from_delayed(task(source, block, name, cells, samples), tuple(size), variable.dtype)

    starts = range(0, len(draws.cells), rows)
    layers = [
        da.concatenate(
            [chunk(draws.cells[i : i + rows], slice(first, min(first + step, n_samples))) for i in starts], cell_axis
        )
        for first in range(0, n_samples, step)
    ]
    return da.concatenate(layers, axis=0) if variable.is_sampled else layers[0]


def _piece(sampler: Sampler, block: Block, name: str, cells: NDArray[np.int64], samples: slice) -> NDArray[Any]:
    return block(sampler, cells, [name], samples)[name]
