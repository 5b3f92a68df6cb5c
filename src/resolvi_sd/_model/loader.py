"""Stream of minibatches: random groups of patches, with every patch once per epoch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset

from resolvi_sd._csr import entry_positions
from resolvi_sd._model.config import TrainingConfig
from resolvi_sd._model.peers import ALONE, Peers
from resolvi_sd._scratch import zeros_beside
from resolvi_sd._tiles import Minibatch, Patches, Tissue, cut_minibatch

__all__ = ["PatchStream", "batch_size_of", "patch_size_of"]

_THINNING_LOG_MEAN, _THINNING_LOG_SPREAD = -0.3, 0.6
# Own molecules alone are thinned to this multiple of the depth; otherwise the latent would lose variation within types.
_OWN_DEPTH = 1.5
# Shares are remembered in steps of this, one byte for each stored count.
_STEP = np.float32(1 / 255)


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
    thin_foreign
        Share of the core cells, drawn anew for each minibatch, of which the encoder sees only own molecules: each
        molecule is kept with the probability that it is own, as of the last step with its cell (:meth:`remember`).
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
        thin_foreign: float,
        rng: np.random.Generator,
        peers: Peers = ALONE,
    ) -> None:
        self.tissue, self.patches, self.rng = tissue, patches, rng
        self.thin_counts, self.thin_foreign = thin_counts, thin_foreign
        # Of every stored count, what is not its cell's own, as multiples of `_STEP`; at first nothing is known to be.
        self._foreign = zeros_beside(tissue.counts.data, np.uint8) if thin_foreign else None
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
        only_own = rng.random(len(core)) < self.thin_foreign
        size = None
        if self.thin_counts:
            depth = self._depth * rng.lognormal(_THINNING_LOG_MEAN, _THINNING_LOG_SPREAD)
            size = depth * np.where(only_own, _OWN_DEPTH, 1.0)
        return cut_minibatch(self.tissue, core, thinned_size=size, kept=self._kept(core, only_own), rng=rng)

    def _kept(self, core: NDArray[np.int64], only_own: NDArray[np.bool_]) -> NDArray[np.float32] | None:
        """Return the probability that the encoder sees a molecule of each stored count of the core."""
        if self._foreign is None:
            return None
        indptr = self.tissue.counts.indptr
        foreign = self._foreign[entry_positions(indptr, core)]
        return np.float32(1) - _STEP * foreign * np.repeat(only_own, indptr[core + 1] - indptr[core])

    def remember(self, minibatch: Minibatch, own_share: Tensor) -> None:
        """Take up the share of each stored count of the core that is expected to be own, as a step found it."""
        if self._foreign is not None:
            core = minibatch.cells[: minibatch.n_core].cpu().numpy()
            foreign = np.rint((1 - own_share.cpu().numpy()) / _STEP).clip(0, 255)
            self._foreign[entry_positions(self.tissue.counts.indptr, core)] = foreign

    def close(self) -> None:
        """Let go of everything large, which Lightning's objects would keep alive until garbage collection."""
        del self.tissue, self._foreign
