"""A small simulated tissue, fitted once."""

import pytest

import resolvi_sd as rsd


@pytest.fixture(scope="session")
def _fitted():
    sdata = rsd.datasets.simulate_tissue(n_cells=400, n_genes=40, rng=0, transcripts=False)
    rsd.tl.fit(sdata, max_epochs=4, show_progress_bar=False)
    return sdata


@pytest.fixture
def tissue():
    """A tissue that has not been fitted."""
    return rsd.datasets.simulate_tissue(n_cells=300, n_genes=40, rng=0, transcripts=False)


@pytest.fixture
def fitted(_fitted):
    """A fitted tissue of its own for each test."""
    import spatialdata as sd

    return sd.SpatialData(shapes=dict(_fitted.shapes), tables={"table": _fitted.tables["table"].copy()})
