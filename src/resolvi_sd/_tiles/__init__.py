"""Pieces of tissue: patches, their halos, and the minibatches made from them."""

from resolvi_sd._tiles._features import encoder_features
from resolvi_sd._tiles._minibatch import Minibatch, cut_minibatch
from resolvi_sd._tiles._patches import Patches, cut_patches
from resolvi_sd._tiles._sparse_rows import SparseRows
from resolvi_sd._tiles._tissue import Tissue

__all__ = [
    "Minibatch",
    "Patches",
    "SparseRows",
    "Tissue",
    "cut_minibatch",
    "cut_patches",
    "encoder_features",
]
