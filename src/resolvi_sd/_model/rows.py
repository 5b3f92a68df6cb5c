"""The encoder and the decoder on rows of a table: no neighbors are needed for these."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm.auto import tqdm

from resolvi_sd._model.module import ResolviModule
from resolvi_sd._tiles import encoder_features
from resolvi_sd._types import CSR

__all__ = ["classify", "decode", "encode"]

_ROWS = 8192


def encode(
    module: ResolviModule, counts: CSR, *, show_progress_bar: bool = True
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return mean and standard deviation of the latent posterior of each row, rows × n_latent, float32."""
    mean, spread = np.empty((2, counts.shape[0], module.config.n_latent), np.float32)
    module.eval()
    for start in tqdm(range(0, counts.shape[0], _ROWS), desc="Encoding", disable=not show_progress_bar):
        rows = slice(start, start + _ROWS)
        with torch.no_grad():
            centre, width = module.latent_encoder(torch.from_numpy(encoder_features(counts[rows])))
        mean[rows], spread[rows] = centre.numpy(), width.numpy()
    return mean, spread


def decode(
    module: ResolviModule, latent: NDArray[np.float32], batch: NDArray[np.int64], genes: slice | NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return the expression profile rho of each row, rows × `genes`, float32."""
    module.eval()
    parts = []
    for start in range(0, len(latent), _ROWS):
        rows = slice(start, start + _ROWS)
        with torch.no_grad():
            profile = module.expression(torch.from_numpy(latent[rows]), torch.from_numpy(batch[rows]))
        parts.append(profile.numpy()[:, genes])
    return np.concatenate(parts)


def classify(module: ResolviModule, latent: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the probability of each label, rows × labels, float32."""
    with torch.no_grad():
        probabilities: NDArray[np.float32] = module.label_likelihood(torch.from_numpy(latent)).probs.numpy()
    return probabilities
