"""What all tests share: the folder of real data."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest


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
