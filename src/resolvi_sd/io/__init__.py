"""Results into a store on disk."""

from resolvi_sd.io._check import check_writable
from resolvi_sd.io._state import ResultsState, results_state
from resolvi_sd.io._write_results import write_results

__all__ = ["ResultsState", "check_writable", "results_state", "write_results"]
