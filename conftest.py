"""The environment of all tests, doctests with them: set before anything imports matplotlib or numba."""

import os
from pathlib import Path

# No windows, in the processes that tests start neither.
os.environ["MPLBACKEND"] = "Agg"
# Numba's cache is not safe from two processes that compile a function for different types at once: each worker of
# pytest-xdist has its own.
if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    os.environ["NUMBA_CACHE_DIR"] = str(Path(__file__).parent / ".numba_cache" / worker)
