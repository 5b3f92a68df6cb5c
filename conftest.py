"""The environment of all tests, doctests with them: set before anything imports matplotlib or numba."""

import os
import sys
from importlib.metadata import version
from pathlib import Path

# No windows, in the processes that tests start neither.
os.environ["MPLBACKEND"] = "Agg"
# Numba's cache is not safe from two processes that compile a function for different types at once: each worker of
# pytest-xdist has its own. Nor is it from a process that is killed, as some tests do, while it replaces what another
# version of numba had compiled: each version has its own.
if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    python = "{}.{}".format(*sys.version_info)
    folder = Path(__file__).parent / ".numba_cache" / f"numba-{version('numba')}-python-{python}" / worker
    os.environ["NUMBA_CACHE_DIR"] = str(folder)
