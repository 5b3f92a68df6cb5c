"""Colors of Okabe & Ito (2008), which color-blind readers can tell apart, and grays that suit the style in use."""

from __future__ import annotations

__all__ = ["BLUE", "GREEN", "PURPLE", "VERMILION", "gray"]

BLUE, VERMILION, GREEN, PURPLE = "#0072b2", "#d55e00", "#009e73", "#cc79a7"


def gray(level: float) -> str:
    """Return a mixture of the colors of text (0) and background (1): black and white, but not in a dark style."""
    from matplotlib import rcParams
    from matplotlib.colors import to_hex, to_rgba

    text = to_rgba(rcParams["text.color"])
    behind = [to_rgba(rcParams[name]) for name in ("axes.facecolor", "figure.facecolor")]
    ground = next((color for color in behind if color[3]), (1.0, 1.0, 1.0, 1.0))
    red, green, blue = (level * paper + (1 - level) * ink for ink, paper in zip(text[:3], ground[:3], strict=True))
    return to_hex((red, green, blue))
