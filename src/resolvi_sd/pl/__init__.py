"""Plots: the training, the sources of the molecules, and genes before and after."""

from resolvi_sd.pl._sources import sources
from resolvi_sd.pl._spatial import spatial
from resolvi_sd.pl._training import training

__all__ = ["sources", "spatial", "training"]
