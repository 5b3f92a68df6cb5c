"""Marks that distinguish raw, depth-matched and corrected counts in plots that compare them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

__all__ = ["BETTER", "CONTROL", "CORRECTED", "LAYER_MARKS", "RAW", "WORSE"]

# Names of the layers in an audit.
RAW, CONTROL, CORRECTED = "raw", "depth_matched", "corrected"
# Blue and vermilion of Okabe & Ito, which color-blind readers can tell apart; worse values also have another shape.
BETTER, WORSE = "#0072b2", "#d55e00"

# Arguments of `Line2D`: hollow, gray and filled, so that the three differ even without color.
LAYER_MARKS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        RAW: {"marker": "o", "markersize": 6, "markerfacecolor": "none", "markeredgecolor": "0.2"},
        CONTROL: {"marker": "D", "markersize": 5, "markerfacecolor": "0.6", "markeredgecolor": "0.6"},
        CORRECTED: {"marker": "o", "markersize": 7, "markerfacecolor": BETTER, "markeredgecolor": BETTER},
    }
)
