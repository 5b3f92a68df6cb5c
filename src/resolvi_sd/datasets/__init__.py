"""Simulated tissues with known truth."""

from resolvi_sd.datasets._from_model import simulate_from_model
from resolvi_sd.datasets._regimes import REGIMES, TissueRegime
from resolvi_sd.datasets._tissue import simulate_tissue

__all__ = ["REGIMES", "TissueRegime", "simulate_from_model", "simulate_tissue"]
