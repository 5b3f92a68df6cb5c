"""What all tests share: no windows, and the folder of real data."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

# Before anything imports matplotlib, and in the processes that tests start.
os.environ["MPLBACKEND"] = "Agg"
# Numba's cache is not safe from two processes that compile a function for different types at once: each worker of
# pytest-xdist has its own.
if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    os.environ["NUMBA_CACHE_DIR"] = str(Path(__file__).parents[1] / ".numba_cache" / worker)


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """Path of a real data set by name, or a skip that says what is missing."""

    def find(name: str) -> Path:
        folder = os.environ.get("RESOLVI_SD_DATA")
        if not folder:
            pytest.skip(f"needs {name}: set RESOLVI_SD_DATA to the folder that holds it")
        path = Path(folder) / name
        if not path.exists():
            pytest.skip(f"needs {name}: not in RESOLVI_SD_DATA={folder}")
        return path

    return find
