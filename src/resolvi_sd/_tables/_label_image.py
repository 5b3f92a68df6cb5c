"""Label images, read block by block at full resolution, using the memory of a few blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import dask
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from xarray import DataArray, DataTree

__all__ = ["full_resolution", "is_labels", "label_axes", "label_sums", "map_blocks"]

_Result = TypeVar("_Result")


def is_labels(element: Any) -> bool:
    """Whether the element is a label image, with one or several scales."""
    return isinstance(element, (DataArray, DataTree))


def full_resolution(element: DataArray | DataTree) -> DataArray:
    """Return the image at its full resolution."""
    return next(iter(element["scale0"].values())) if isinstance(element, DataTree) else element


def label_axes(element: DataArray | DataTree) -> tuple[str, ...]:
    """Return the axes of the image in its own order: y, x or z, y, x."""
    return tuple(str(axis) for axis in full_resolution(element).dims)


def map_blocks(
    element: DataArray | DataTree, function: Callable[[NDArray[np.integer], list[NDArray[np.float64]]], _Result]
) -> list[_Result]:
    """Return the function's result for each block of the image.

    Parameters
    ----------
    element
        Labels.
    function
        Function of a block and of the positions of its pixels' centers along each axis of the image.
    """
    image = full_resolution(element)
    blocks = image.data.to_delayed()
    edges = [np.concatenate([[0], np.cumsum(sizes)]) for sizes in image.data.chunks]
    positions = [image[axis].to_numpy().astype(np.float64) for axis in image.dims]
    tasks = []
    for block in np.ndindex(blocks.shape):
        inside = [along[edge[i] : edge[i + 1]] for along, edge, i in zip(positions, edges, block, strict=True)]
        tasks.append(dask.delayed(function)(blocks[block], inside))
    results: tuple[_Result, ...] = dask.compute(*tasks)
    return list(results)


def label_sums(element: DataArray | DataTree) -> pd.DataFrame:
    """Return the number of pixels of each label except the background, and the sum of their positions along each axis.

    The columns are `pixels` and the axes of the image; the index contains the labels.
    """
    sums = map_blocks(element, _block_sums)
    total: pd.DataFrame = pd.concat(sums).groupby(level=0).sum()
    return total.set_axis(["pixels", *label_axes(element)], axis=1)


def _block_sums(block: NDArray[np.integer], positions: list[NDArray[np.float64]]) -> pd.DataFrame:
    pixels = np.nonzero(block)
    codes, ids = pd.factorize(block[pixels])
    sums = [np.bincount(codes, along[i], ids.size) for along, i in zip(positions, pixels, strict=True)]
    return pd.DataFrame(np.column_stack([np.bincount(codes, minlength=ids.size), *sums]), index=ids)
