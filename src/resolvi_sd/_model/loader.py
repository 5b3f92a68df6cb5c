"""Stream of minibatches: random groups of patches, with every patch once per epoch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import IterableDataset

from resolvi_sd._model.config import TrainingConfig
from resolvi_sd._model.peers import ALONE, Peers
from resolvi_sd._tiles import Minibatch, Patches, Tissue, cut_minibatch

__all__ = ["PatchStream", "batch_size_of", "patch_size_of"]

_THINNING_LOG_MEAN, _THINNING_LOG_SPREAD = -0.3, 0.6


def batch_size_of(config: TrainingConfig, n_train: int) -> int:
    """Return the core cells per minibatch: large minibatches are cheap per cell, but small tissues need many steps."""
    return config.batch_size or int(np.clip(n_train // 8, 128, 2560))


def patch_size_of(config: TrainingConfig, n_train: int) -> int:
    """Return the largest size of a patch: large patches have small halos, but small ones give a minibatch more patches.

    Sections are halved until the pieces are no larger than this, so patches have between half and all of this size.
    """
    return config.patch_size or int(np.clip(3 * batch_size_of(config, n_train) // 32, 8, 192))


class PatchStream(IterableDataset[Minibatch]):
    """Minibatches of an epoch.

    Minibatches are cut between the steps, since a parallel thread would take a processor core away from the steps.

    Parameters
    ----------
    tissue
        All cells.
    patches
        Patches of the cells that are trained on.
    batch_size
        Number of core cells of a minibatch; the number of whole patches that comes closest is used.
    thin_counts
        Whether the encoder sees thinned counts. The depth after thinning is one number per minibatch, drawn from a
        log-normal around the median depth of the tissue.
    rng
        Generator for the order of the patches and the thinning.
    peers
        Processes among which the patches and the minibatches are divided.

    Raises
    ------
    ValueError
        If there are fewer patches per process than minibatches.
    """

    def __init__(
        self,
        tissue: Tissue,
        patches: Patches,
        *,
        batch_size: int,
        thin_counts: bool,
        rng: np.random.Generator,
        peers: Peers = ALONE,
    ) -> None:
        self.tissue, self.patches, self.thin_counts, self.rng = tissue, patches, thin_counts, rng
        self.own = peers.own(patches)
        self.patches_per_batch = max(1, round(batch_size / float(np.mean(patches.sizes()))))
        self._depth = float(np.median(tissue.molecules[patches.order]))
        if len(patches) // peers.number < len(self):
            raise ValueError(
                f"{len(patches)} patches of tissue are too few for {peers.number} devices, which are to share "
                f"minibatches of {self.patches_per_batch} patches: train on fewer devices, or with a smaller "
                "`patch_size` or a larger `batch_size` (`TrainingConfig`)."
            )

    def __len__(self) -> int:
        return -(-len(self.patches) // self.patches_per_batch)

    def __iter__(self) -> Iterator[Minibatch]:
        # Groups of equal size, since a small last group would have as much influence as the others.
        groups = np.array_split(self.rng.permutation(self.own), len(self))
        streams = self.rng.spawn(len(groups))
        for group, stream in zip(groups, streams, strict=True):
            yield self._cut(group, stream)

    def _cut(self, group: NDArray[np.int64], rng: np.random.Generator) -> Minibatch:
        core = np.concatenate([self.patches.cells(patch) for patch in group])
        depth = self._depth * rng.lognormal(_THINNING_LOG_MEAN, _THINNING_LOG_SPREAD) if self.thin_counts else None
        return cut_minibatch(self.tissue, core, thinned_size=depth, rng=rng)
