"""A small simulated study of two sections, fitted once, and what its results are for each cell."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from spatialdata.transformations import Identity, set_transformation

import resolvi_sd as rsd
from resolvi_sd._keys import Keys

KEYS = Keys()


@pytest.fixture(scope="session")
def _fitted():
    sdata = rsd.datasets.simulate_tissue(n_cells=240, n_genes=30, n_types=4, n_samples=2, rng=0)
    set_transformation(sdata["cells_1"], Identity(), "section_1")
    rsd.tl.fit(sdata, labels_key="cell_type", n_neighbors=6, max_epochs=20, show_progress_bar=False)
    return sdata


@pytest.fixture
def fitted(_fitted):
    """A fitted study of its own for each test."""
    return sd.deepcopy(_fitted)  # spatialdata's operations change transformations in place


def results_of_cells(table):
    """What belongs to one cell, a row per cell, by region and instance id."""
    per_cell = {key: table.obs[key].to_numpy() for key in KEYS.shares}
    per_cell |= {f"latent{i}": column for i, column in enumerate(table.obsm[KEYS.latent].T)}
    per_cell |= {f"counts{i}": column for i, column in enumerate(table.layers[KEYS.counts].toarray().T)}
    index = pd.MultiIndex.from_arrays([table.obs["region"].astype(str), table.obs["cell_id"].astype(str)])
    return pd.DataFrame(per_cell, index=index)


@pytest.fixture
def assert_follow():
    """Check that results in a table are those that the same cells have in the fitted one, value by value."""

    def check(table, reference):
        found, expected = results_of_cells(table), results_of_cells(reference)
        pd.testing.assert_frame_equal(found, expected.loc[found.index], check_names=False)
        rows = expected.index.get_indexer(found.index)
        for key in (KEYS.distances, KEYS.connectivities, KEYS.weights, KEYS.flow):
            if key in table.obsp:
                np.testing.assert_array_equal(
                    table.obsp[key].toarray(), reference.obsp[key].toarray()[np.ix_(rows, rows)]
                )

    return check


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")
