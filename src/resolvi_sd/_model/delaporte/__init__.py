"""The Delaporte distribution: the marginal likelihood of the model, known in closed form."""

from resolvi_sd._model.delaporte._distribution import Delaporte
from resolvi_sd._model.delaporte._draw import draw_sources
from resolvi_sd._model.delaporte._log_prob import delaporte_log_prob, expected_signal, poisson_log_prob
from resolvi_sd._model.delaporte._mixture import mixture_log_prob
from resolvi_sd._model.delaporte._tails import EntryRates, KeptMolecules, molecules_above, tail_histogram

__all__ = [
    "Delaporte",
    "EntryRates",
    "KeptMolecules",
    "delaporte_log_prob",
    "draw_sources",
    "expected_signal",
    "mixture_log_prob",
    "molecules_above",
    "poisson_log_prob",
    "tail_histogram",
]
