"""Processes that train a model together, each on its own patches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from resolvi_sd._tiles import Patches

__all__ = ["ALONE", "Peers"]


@dataclass(frozen=True)
class Peers:
    """One of several processes, which are connected by a torch process group.

    A process owns a run of neighboring patches, and with them the neighbor weights of their cells, which no other
    process reads; only the parameters that all cells share are kept equal between processes.

    Attributes
    ----------
    rank
        Number of this process.
    number
        Number of processes.
    """

    rank: int = 0
    number: int = 1

    def own(self, patches: Patches) -> NDArray[np.int64]:
        """Return the numbers of the patches of this process."""
        return np.array_split(np.arange(len(patches)), self.number)[self.rank]

    def average_gradients(self, parameters: Sequence[Tensor], n_cells: int) -> None:
        """Turn gradients of the mean over this process's `n_cells` cells into those of the mean over all processes."""
        if self.number == 1:
            return
        parts = [torch.zeros_like(p) if p.grad is None else p.grad * n_cells for p in parameters]
        flat = torch.cat([*(part.reshape(-1) for part in parts), parts[0].new_tensor([n_cells])])
        dist.all_reduce(flat)
        for parameter, mean in zip(parameters, (flat[:-1] / flat[-1]).split([p.numel() for p in parts]), strict=True):
            parameter.grad = mean.reshape(parameter.shape)

    def totals(self, *values: float, device: torch.device) -> list[float]:
        """Return each number summed over the processes."""
        if self.number == 1:
            return list(values)
        # Not float64, which some devices lack; the values are some thousands of nats, and numbers of cells.
        summed = torch.tensor(values, device=device)
        dist.all_reduce(summed)
        return [float(value) for value in summed.tolist()]


ALONE = Peers()
