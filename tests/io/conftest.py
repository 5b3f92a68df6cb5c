import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from spatialdata._io.format import SpatialDataContainerFormatV01

sys.path.insert(0, str(Path(__file__).parent))

import _stores as stores


@pytest.fixture(scope="session")
def templates(tmp_path_factory):
    """Stores without results, made once: as spatialdata writes them now (zarr v3), and as it did up to 0.4 (v2)."""
    folder = tmp_path_factory.mktemp("templates")
    stores.make_sdata(np.random.default_rng(0)).write(folder / "v3.zarr")
    old = SpatialDataContainerFormatV01()
    stores.make_sdata(np.random.default_rng(0)).write(folder / "v2.zarr", sdata_formats=old)
    return folder


@pytest.fixture(params=["v2", "v3"])
def store(request, templates, tmp_path):
    """Path of a fresh store without results, in both zarr formats."""
    path = tmp_path / f"{request.param}.zarr"
    shutil.copytree(templates / f"{request.param}.zarr", path)
    return path


@pytest.fixture
def v3(templates, tmp_path):
    """Path of a fresh store without results, in zarr format 3, for what does not depend on the format."""
    path = tmp_path / "v3.zarr"
    shutil.copytree(templates / "v3.zarr", path)
    return path


@pytest.fixture
def rng():
    return np.random.default_rng(1)
