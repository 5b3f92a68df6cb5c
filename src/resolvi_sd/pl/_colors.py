"""Colors of Okabe & Ito (2008), which color-blind readers can tell apart."""

__all__ = ["BLUE", "GREEN", "PURPLE", "VERMILION"]

BLUE, VERMILION, GREEN, PURPLE = "#0072b2", "#d55e00", "#009e73", "#cc79a7"
