"""Stored counts of a minibatch with their rates, and draws of whole molecules by source for these counts."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from resolvi_sd._model.delaporte import EntryRates, draw_sources
from resolvi_sd._model.module import Rates, ResolviModule
from resolvi_sd._tiles import Minibatch

__all__ = ["draw_molecules", "entry_rates"]


@torch.no_grad()
def entry_rates(
    module: ResolviModule, minibatch: Minibatch, rates: Rates, entries: Tensor | slice = slice(None)
) -> EntryRates:
    """Return all or some of the stored counts of the core, with the expected molecules of each source."""
    counts = minibatch.counts
    row, gene, value = counts.rows()[entries], counts.gene[entries], counts.value[entries]
    r = module.concentration()
    if module.config.likelihood == "poisson":
        r = torch.full_like(r, torch.inf)
    group = module.concentration_group(minibatch.core_batch)
    return EntryRates(
        value.numpy(),
        rates.own[row, gene].numpy(),
        rates.diffused[row, gene].numpy(),
        rates.background[row, gene].numpy(),
        r[group[row], gene].numpy(),
    )


def draw_molecules(
    module: ResolviModule,
    minibatch: Minibatch,
    rates: Rates,
    seeds: NDArray[np.uint64],
    entries: Tensor | slice = slice(None),
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Draw own and diffused molecules of stored counts of the core; all other molecules are background.

    Parameters
    ----------
    module
        Fitted model.
    minibatch
        The cells.
    rates
        Expected molecules by source.
    seeds
        A seed for each entry that is drawn.
    entries
        Which of the stored counts to use.
    """
    return draw_sources(*entry_rates(module, minibatch, rates, entries), seeds)
