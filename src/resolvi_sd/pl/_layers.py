"""Marks that distinguish raw, depth-matched and corrected counts in plots that compare them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from resolvi_sd._analysis import CONTROL, CORRECTED, RAW
from resolvi_sd.pl._colors import BLUE, VERMILION

__all__ = ["BETTER", "LAYER_MARKS", "WORSE"]

# Worse values also have another shape.
BETTER, WORSE = BLUE, VERMILION

# Arguments of `Line2D`: hollow, gray and filled, so that the three differ even without color.
LAYER_MARKS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        RAW: {"marker": "o", "markersize": 6, "markerfacecolor": "none", "markeredgecolor": "0.2"},
        CONTROL: {"marker": "D", "markersize": 5, "markerfacecolor": "0.6", "markeredgecolor": "0.6"},
        CORRECTED: {"marker": "o", "markersize": 7, "markerfacecolor": BETTER, "markeredgecolor": BETTER},
    }
)
