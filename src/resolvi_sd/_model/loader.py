"""The stream of minibatches: random groups of patches, every patch once an epoch."""

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
    """Core cells of a minibatch: large ones are cheap per cell, small tissues need many steps."""
    return config.batch_size or int(np.clip(n_train // 8, 128, 2560))


def patch_size_of(config: TrainingConfig, n_train: int) -> int:
    """Most cells of a patch: large ones have small halos, small ones leave a minibatch with many.

    Sections are halved until the pieces are no larger, so that patches have between half and all of it.
    """
    return config.patch_size or int(np.clip(3 * batch_size_of(config, n_train) // 32, 8, 192))


class PatchStream(IterableDataset[Minibatch]):
    """Minibatches of an epoch.

    They are cut between the steps: a thread beside these would take a core from them.

    Parameters
    ----------
    tissue
        All cells.
    patches
        Patches of the cells that are trained on.
    batch_size
        Core cells of a minibatch; as many whole patches as come closest.
    thin_counts
        Whether the encoder sees thinned counts. The depth thinned to is one number per minibatch, log-normal
        around the median depth of the tissue.
    rng
        Draws the order of the patches and the thinning.
    peers
        Processes that divide the patches, and the minibatches, between them.

    Raises
    ------
    ValueError
        If there are fewer patches than there are processes, or minibatches for them.
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
        self._depth = float(np.median(tissue.library_size[patches.order]))
        if len(patches) // peers.number < len(self):
            raise ValueError(
                f"{len(patches)} patches of tissue are too few for {peers.number} devices, which are to share "
                f"minibatches of {self.patches_per_batch} patches: train on fewer devices, or with a smaller "
                "`patch_size` or a larger `batch_size` (`TrainingConfig`)."
            )

    def __len__(self) -> int:
        return -(-len(self.patches) // self.patches_per_batch)

    def __iter__(self) -> Iterator[Minibatch]:
        # Equal groups: a small last one would have as much say as the others.
        groups = np.array_split(self.rng.permutation(self.own), len(self))
        streams = self.rng.spawn(len(groups))
        for group, stream in zip(groups, streams, strict=True):
            yield self._cut(group, stream)

    def _cut(self, group: NDArray[np.int64], rng: np.random.Generator) -> Minibatch:
        core = np.concatenate([self.patches.cells(patch) for patch in group])
        depth = self._depth * rng.lognormal(_THINNING_LOG_MEAN, _THINNING_LOG_SPREAD) if self.thin_counts else None
        return cut_minibatch(self.tissue, core, thinned_size=depth, rng=rng)
