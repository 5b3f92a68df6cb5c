"""Tools: what users call."""

from resolvi_sd.tl._fit import fit
from resolvi_sd.tl._normalized_expression import normalized_expression

__all__ = ["fit", "normalized_expression"]
