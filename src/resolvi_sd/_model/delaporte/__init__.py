"""The Delaporte distribution: the marginal likelihood of the model, which has a closed form."""

from resolvi_sd._model.delaporte._distribution import Delaporte
from resolvi_sd._model.delaporte._draw import draw_sources
from resolvi_sd._model.delaporte._log_prob import delaporte_log_prob, expected_signal, poisson_log_prob
from resolvi_sd._model.delaporte._mixture import mixture_log_prob
from resolvi_sd._model.delaporte._tails import EntryRates, own_tails

__all__ = [
    "Delaporte",
    "EntryRates",
    "delaporte_log_prob",
    "draw_sources",
    "expected_signal",
    "mixture_log_prob",
    "own_tails",
    "poisson_log_prob",
]
