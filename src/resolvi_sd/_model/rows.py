"""The encoder and the decoder applied to rows of a table, for which no neighbors are needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm.auto import tqdm

from resolvi_sd._csr import CSR, row_sums
from resolvi_sd._model.module import ResolviModule
from resolvi_sd._tiles import SparseRows, encoder_features

__all__ = ["classify", "decode", "decode_mean", "encode", "in_batch", "latent_draws", "latent_of"]

_ROWS = 8192


def encode(
    module: ResolviModule, counts: CSR, categories: NDArray[np.int64], *, show_progress_bar: bool = True
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the mean and standard deviation of the latent posterior of each row, rows × n_latent, float32.

    `categories` contains the batch and further covariates of each row, rows × covariates.
    """
    mean, spread = np.empty((2, counts.shape[0], module.config.n_latent), np.float32)
    module.eval()
    for start in tqdm(range(0, counts.shape[0], _ROWS), desc="Encoding", disable=not show_progress_bar):
        rows = np.arange(start, min(start + _ROWS, counts.shape[0]))
        with torch.no_grad():
            block = counts[rows]
            features = encoder_features(SparseRows.from_scipy(block))
            molecules = torch.from_numpy(row_sums(block).astype(np.float32))
            center, width = module.encode(features, torch.from_numpy(categories[rows]), molecules)
        mean[rows], spread[rows] = center.numpy(), width.numpy()
    return mean, spread


def latent_of(
    module: ResolviModule,
    counts: CSR,
    categories: NDArray[np.int64],
    *,
    give_mean: bool,
    return_dist: bool,
    rng: np.random.Generator,
    show_progress_bar: bool = True,
) -> NDArray[np.float32] | tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the mean of the latent posterior of each row, one draw from it, or its mean and variance."""
    mean, spread = encode(module, counts, categories, show_progress_bar=show_progress_bar)
    if return_dist:
        return mean, np.square(spread)
    return mean if give_mean else mean + spread * rng.standard_normal(mean.shape, dtype=np.float32)


def latent_draws(
    mean: NDArray[np.float32], spread: NDArray[np.float32], n_samples: int, rng: np.random.Generator
) -> Iterator[NDArray[np.float32]]:
    """Yield the mean of the latent posterior if `n_samples` is 1, otherwise that number of draws from it."""
    if n_samples == 1:
        yield mean
        return
    for _ in range(n_samples):
        yield mean + spread * rng.standard_normal(mean.shape, dtype=np.float32)


def decode(
    module: ResolviModule,
    latent: NDArray[np.float32],
    categories: NDArray[np.int64],
    genes: slice | NDArray[np.int64],
    among: slice | NDArray[np.intp] = slice(None),
) -> NDArray[np.float32]:
    """Return the expression rho of each row, rows × `genes`, float32; all genes of `among` together sum to 1."""
    module.eval()
    parts = [np.empty((0, module.data.n_genes), np.float32)[:, genes]]
    for start in range(0, len(latent), _ROWS):
        rows = slice(start, start + _ROWS)
        with torch.no_grad():
            profile = module.expression(torch.from_numpy(latent[rows]), torch.from_numpy(categories[rows])).numpy()
        if not isinstance(among, slice):
            profile /= profile[:, among].sum(axis=1, keepdims=True)
        parts.append(profile[:, genes])
    return np.concatenate(parts)


def decode_mean(
    module: ResolviModule,
    latent: NDArray[np.float32],
    settings: Sequence[NDArray[np.int64]],
    genes: slice | NDArray[np.int64],
    among: slice | NDArray[np.intp] = slice(None),
) -> NDArray[np.float32]:
    """Return the mean of :func:`decode` over several categories of the rows, such as all batches."""
    total = decode(module, latent, settings[0], genes, among)
    for categories in settings[1:]:
        total += decode(module, latent, categories, genes, among)
    total /= np.float32(len(settings))
    return total


def in_batch(categories: NDArray[np.int64], batch: int) -> NDArray[np.int64]:
    """Return the categories of rows as if all of them were in one batch."""
    moved = categories.copy()
    moved[:, 0] = batch
    return moved


def classify(
    module: ResolviModule,
    counts: CSR,
    categories: NDArray[np.int64],
    *,
    n_samples: int,
    rng: np.random.Generator,
    show_progress_bar: bool = True,
) -> NDArray[np.float32]:
    """Return the probability of each label, averaged over :func:`latent_draws`, rows × labels, float32.

    The values are NaN for rows without counts, about which nothing is known. The arguments are those of :func:`encode`.
    """
    mean, spread = encode(module, counts, categories, show_progress_bar=show_progress_bar)
    total = np.zeros((len(mean), module.data.n_labels), np.float32)
    for latent in latent_draws(mean, spread, n_samples, rng):
        with torch.no_grad():
            total += module.label_likelihood(torch.from_numpy(latent)).probs.numpy()
    total[row_sums(counts) == 0] = np.nan
    return total / np.float32(n_samples)
