"""Stores on disk: writing results into them, and reading them with the counts left on disk."""

from resolvi_sd.io._check import check_writable
from resolvi_sd.io._read_backed import read_backed
from resolvi_sd.io._state import ResultsState, results_state
from resolvi_sd.io._write_results import write_results

__all__ = ["ResultsState", "check_writable", "read_backed", "results_state", "write_results"]
