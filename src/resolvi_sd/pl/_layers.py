"""Marks that distinguish raw, depth-matched and corrected counts in plots that compare them."""

from __future__ import annotations

from typing import Any

from resolvi_sd._analysis import CONTROL, CORRECTED, RAW
from resolvi_sd.pl._colors import BLUE, VERMILION, gray

__all__ = ["BETTER", "WORSE", "layer_mark"]

# Worse values also have another shape.
BETTER, WORSE = BLUE, VERMILION


def layer_mark(layer: str) -> dict[str, Any]:
    """Return the arguments of `Line2D` for a layer: hollow, gray and filled, so that they differ even without color."""
    return {
        RAW: {"marker": "o", "markersize": 6, "markerfacecolor": "none", "markeredgecolor": gray(0.2)},
        CONTROL: {"marker": "D", "markersize": 5, "markerfacecolor": gray(0.6), "markeredgecolor": gray(0.6)},
        CORRECTED: {"marker": "o", "markersize": 7, "markerfacecolor": BETTER, "markeredgecolor": BETTER},
    }[layer]
