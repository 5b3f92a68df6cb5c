"""Pieces of tissue: patches, their halos, and the minibatches made of them."""

from resolvi_sd._tiles._features import encoder_features, log_counts
from resolvi_sd._tiles._minibatch import Minibatch, SparseCounts, cut_minibatch
from resolvi_sd._tiles._patches import Patches, cut_patches
from resolvi_sd._tiles._tissue import Tissue

__all__ = [
    "Minibatch",
    "Patches",
    "SparseCounts",
    "Tissue",
    "cut_minibatch",
    "cut_patches",
    "encoder_features",
    "log_counts",
]
