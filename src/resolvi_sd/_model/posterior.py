"""The posterior: one pass over the patches computes everything that is written back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm

from resolvi_sd._csr import CSR, canonical, entry_positions, map_rows
from resolvi_sd._model.module import Rates, ResolviModule
from resolvi_sd._model.molecules import draw_molecules
from resolvi_sd._random import random_elements
from resolvi_sd._ratio import ratio
from resolvi_sd._scratch import copy_beside, zeros_beside
from resolvi_sd._tiles import Minibatch, Patches, Tissue, cut_minibatch

__all__ = ["Posterior", "core_rates", "infer", "split_counts"]

_TINY = 1e-30


@dataclass(frozen=True)
class Posterior:
    """Posterior expectations of all cells, in the order of the table.

    Attributes
    ----------
    latent
        Mean of the latent, cells × n_latent, float32.
    own
        Own molecules of every stored count, CSR with the structure of the counts, and in files if the counts are:
        either expectations, float32, or whole molecules, int32, without the zeros.
    molecules
        Own, diffused and background molecules of each cell, cells × 3, float64; rows sum to the counts.
    weights
        Neighbor weights beta, cells × k, float32; rows sum to 1, or to 0 without neighbors.
    flow
        Molecules that came from each neighbor, cells × k, float32.
    probabilities
        Probability of each label, cells × labels, float32; None without labels.
    """

    latent: NDArray[np.float32]
    own: CSR
    molecules: NDArray[np.float64]
    weights: NDArray[np.float32]
    flow: NDArray[np.float32]
    probabilities: NDArray[np.float32] | None = None

    @property
    def shares(self) -> NDArray[np.float64]:
        """Own, diffused and background shares of each cell's molecules, cells × 3; NaN for cells without molecules."""
        return ratio(self.molecules, self.molecules.sum(axis=1, keepdims=True))


def infer(
    module: ResolviModule,
    tissue: Tissue,
    patches: Patches,
    *,
    n_samples: int = 1,
    integer_counts: bool = False,
    rng: np.random.Generator,
    batch_size: int = 2048,
    show_progress_bar: bool = True,
) -> Posterior:
    """Pass over all patches once.

    Of the x molecules of a gene, k are not background (Delaporte posterior) and, given k, the number of own molecules
    is Binomial(k, p) with p the own share of the negative binomial's mean, because the Gamma multiplies all of it.
    Hence own = E[k | x] p, diffused = E[k | x] (1 - p) and background = x - E[k | x], which add up to the counts.

    Parameters
    ----------
    module
        Fitted model.
    tissue
        All cells.
    patches
        A partition of all cells.
    n_samples
        With 1, results are computed at the posterior means of the latent and the shares; with more, they are averaged
        over this number of draws of both.
    integer_counts
        Whether `own` is a draw of whole molecules instead of the expectation, given the latent and the shares at their
        means or, with several draws, at the first draw.
    rng
        Generator for latent, shares and molecules; the result of a cell does not depend on the patches.
    batch_size
        Number of core cells processed at a time.
    show_progress_bar
        Whether to show a progress bar.
    """
    n_cells, n_neighbors = tissue.n_cells, tissue.n_neighbors
    latent = np.empty((n_cells, module.config.n_latent), np.float32)
    weights, flow = np.zeros((2, n_cells, n_neighbors), np.float32)
    molecules = np.zeros((n_cells, 3))
    own = zeros_beside(tissue.counts.data, np.int32 if integer_counts else np.float32)
    labeled = module.data.n_labels > 0
    probabilities = np.zeros((n_cells, module.data.n_labels), np.float32)
    noise = _noise(n_samples, n_cells, module.config.n_latent, rng)
    seed = rng.integers(0, 2**63, dtype=np.uint64) if integer_counts else None

    module.eval()
    for core in _groups(patches, batch_size, molecules, show_progress_bar):
        minibatch = cut_minibatch(tissue, core)
        entries = entry_positions(tissue.counts.indptr, core)
        with torch.no_grad():
            mean, spread = module.encode_all(minibatch)
            beta = module.neighbor_weights(minibatch)
            share_posterior = module.share_posterior(minibatch)
            draws = [(mean, share_posterior.mean)]
            if noise is not None:
                rows = minibatch.cells
                draws = [(mean + spread * z[rows], share_posterior.at(y[rows[: len(core)]])) for z, y in noise]
        latent[core], weights[core] = mean[: len(core)].numpy(), beta.numpy()
        for draw, shares in draws:
            split = split_counts(module, minibatch, draw, shares, beta)
            flow[core] += _flow(module, minibatch, split, beta).numpy() / len(draws)
            molecules[core] += split.molecules.numpy() / len(draws)
            if seed is None:
                own[entries] += split.own.numpy() / len(draws)
            if labeled:
                with torch.no_grad():
                    probabilities[core] += module.label_likelihood(draw[: len(core)]).probs.numpy() / len(draws)
        if seed is not None:
            with torch.no_grad():
                rates, _ = core_rates(module, minibatch, *draws[0], beta)
            own[entries], _ = draw_molecules(module, minibatch, rates, random_elements(seed, entries.astype(np.uint64)))
    probabilities[tissue.molecules == 0] = np.nan  # nothing is known about these cells
    np.minimum(own, tissue.counts.data, out=own, casting="unsafe")
    structure = copy_beside(tissue.counts.indices), tissue.counts.indptr.copy()
    corrected: CSR = sp.csr_matrix((own, *structure), tissue.counts.shape)
    if integer_counts:
        corrected = map_rows(corrected, canonical)
    return Posterior(latent, corrected, molecules, weights, flow, probabilities if labeled else None)


def _noise(n_samples: int, n_cells: int, n_latent: int, rng: np.random.Generator) -> list[tuple[Tensor, Tensor]] | None:
    """Draw the noise of every cell and draw, for latent and shares, in advance, independently of the patches."""
    if n_samples < 1:
        raise ValueError(f"`n_samples` must be at least 1, got {n_samples}.")
    if n_samples == 1:
        return None
    normal = rng.standard_normal((n_samples, n_cells, n_latent + 2), dtype=np.float32)
    return [(torch.from_numpy(draw[:, :-2]), torch.from_numpy(draw[:, -2:])) for draw in normal]


def _groups(
    patches: Patches, batch_size: int, molecules: NDArray[np.float64], show_progress_bar: bool
) -> Iterator[NDArray[np.int64]]:
    """Yield cells of successive patches, about `batch_size` at a time; adjacent patches share their halo.

    At the end, the progress bar shows the result: the shares of all `molecules` by source.
    """
    ends = np.searchsorted(patches.offsets, np.arange(0, len(patches.order), batch_size)[1:])
    bounds = np.unique(np.concatenate([[0], patches.offsets[ends], [len(patches.order)]]))
    with tqdm(total=len(patches.order), desc="Posterior", unit="cell", disable=not show_progress_bar) as bar:
        for start, stop in zip(bounds[:-1], bounds[1:], strict=True):
            yield patches.order[start:stop]
            bar.update(int(stop - start))
        own, diffused, background = 100 * molecules.sum(axis=0) / max(molecules.sum(), _TINY)
        bar.set_postfix_str(f"{own:.0f}% own, {diffused:.0f}% from neighbors, {background:.0f}% background")


@dataclass(frozen=True)
class Split:
    """The counts of the core cells by source.

    Attributes
    ----------
    own
        Own molecules of every stored count.
    molecules
        Own, diffused and background molecules of each cell, core × 3, float64.
    profiles
        Expression of all cells of the minibatch, cells × genes.
    ratio
        Diffused molecules over the mixture of the neighbors' profiles, core × genes: multiplied by `beta_m rho_m`, it
        gives the molecules from neighbor m.
    """

    own: Tensor
    molecules: Tensor
    profiles: Tensor
    ratio: Tensor


def core_rates(
    module: ResolviModule, minibatch: Minibatch, latent: Tensor, shares: Tensor, beta: Tensor
) -> tuple[Rates, Tensor]:
    """Return the rates of the core and the profiles of all cells, given a latent of all cells."""
    profiles = module.expression(latent, minibatch.categories)
    amount = module.amount(minibatch, latent, shares)
    return module.rates(minibatch, profiles, amount, beta, module.background_profile()), profiles


@torch.no_grad()
def split_counts(module: ResolviModule, minibatch: Minibatch, latent: Tensor, shares: Tensor, beta: Tensor) -> Split:
    """Return the expected own, diffused and background molecules of every entry and cell, given the latent."""
    counts = minibatch.counts
    row, gene = counts.rows(), counts.gene
    rates, profiles = core_rates(module, minibatch, latent, shares, beta)
    own, signal = module.expected_own(counts, rates, minibatch.core_batch)
    sources = torch.stack([own, signal - own, counts.value - signal], dim=1).double()
    molecules = torch.zeros(minibatch.n_core, 3, dtype=torch.float64).index_add_(0, row, sources)
    mixture = rates.diffused[row, gene] / rates.amount[row, 1].clamp_min(_TINY)
    per_mixture = torch.zeros_like(rates.own)
    per_mixture[row, gene] = (signal - own) / mixture.clamp_min(_TINY)
    return Split(own, molecules, profiles, per_mixture)


def _flow(module: ResolviModule, minibatch: Minibatch, split: Split, beta: Tensor) -> Tensor:
    """Return the molecules that came from each neighbor, core × k.

    Neighbor m gave `ratio beta_m rho_m`. Summed over genes, this is beta_m times the gradient of sum(ratio * sum beta
    rho) with respect to beta_m: the backward pass of the sum, without a cells × k × genes array.
    """
    with torch.enable_grad():
        leaf = beta.detach().requires_grad_()
        mixed = module.neighbor_expression(minibatch, split.profiles, leaf)
        (slope,) = torch.autograd.grad(mixed, leaf, split.ratio)
    return beta * slope
