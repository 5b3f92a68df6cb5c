"""What napari-spatialdata 0.7 asks of a table, restated here since napari itself needs a window.

Its `DataModel` reads one vector at a time, with the instance ids as index: columns of `obs` that are categorical,
logical, text or numbers; columns of two-dimensional arrays of numbers in `obsm`; genes of `X` or of a layer, dense or
sparse. Categories are coloured by `uns['{key}_colors']`, one colour each. Rows of the table are matched to those of the
element by `join_spatialelement_table(how="left", match_rows="left")`. Keys are shown as they are, so they must be text.
"""

import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from matplotlib import colormaps
from matplotlib.colors import is_color_like, to_hex
from pandas.api import types
from scipy.sparse import issparse
from spatialdata.models import get_table_keys

import resolvi_sd as rsd
from resolvi_sd._keys import Keys

KEYS = Keys()


@pytest.fixture
def layer_table(fitted):
    """The table that a layer of napari gets for one element."""
    rsd.tl.niche_abundance(fitted, labels_key="cell_type")
    _, table = sd.join_spatialelement_table(
        sdata=fitted, spatial_element_names="cells_0", table_name="table", how="left", match_rows="left"
    )
    return table


def test_rows_are_those_of_the_element_in_its_order(layer_table, fitted, assert_follow):
    region, region_key, instance_key = get_table_keys(layer_table)
    assert (region_key, instance_key) == ("region", "cell_id")
    assert "cells_0" in region
    assert list(layer_table.obs[instance_key]) == list(fitted["cells_0"].index)
    assert_follow(layer_table, fitted["table"])


def test_columns_of_obs_have_a_type_that_can_be_coloured(layer_table):
    for key in (*KEYS.shares, KEYS.predicted):
        column = layer_table.obs[key]
        assert isinstance(column.dtype, pd.CategoricalDtype) or types.is_numeric_dtype(column)
    assert isinstance(layer_table.obs[KEYS.predicted].dtype, pd.CategoricalDtype)
    for key in KEYS.shares:
        assert np.isfinite(np.nanmax(layer_table.obs[key].to_numpy(dtype=np.float64)))


def test_entries_of_obsm_are_arrays_of_numbers(layer_table):
    added = [key for key in layer_table.obsm if "resolvi" in key]
    assert {KEYS.latent, KEYS.probabilities, KEYS.niche} <= set(added)
    for key in added:
        values = layer_table.obsm[key]
        assert isinstance(values, np.ndarray) and values.ndim == 2 and values.dtype.kind == "f"


def test_genes_can_be_read_from_the_corrected_counts(layer_table):
    gene = layer_table.var_names[2]
    column = layer_table[:, gene].layers[KEYS.counts]
    dense = column.toarray() if issparse(column) else np.asarray(column)
    assert dense.shape == (layer_table.n_obs, 1) and np.isfinite(dense).all()


def test_names_are_text(layer_table):
    for slot in ("obs", "obsm", "layers"):
        keys = [key for key in getattr(layer_table, slot) if key is not None]  # anndata 0.13 lists X as `None`
        assert all(isinstance(key, str) for key in keys)


def test_every_category_has_a_colour_where_the_labels_have(fitted):
    table = fitted["table"]
    names = list(table.obs["cell_type"].cat.categories)
    table.uns["cell_type_colors"] = np.array([to_hex(color) for color in colormaps["Set1"].colors[: len(names)]])
    rsd.tl.fit(fitted, labels_key="cell_type", max_epochs=1, n_neighbors=4, show_progress_bar=False)
    colors = dict(zip(table.obs[KEYS.predicted].cat.categories, table.uns[KEYS.predicted_colors], strict=True))
    assert all(is_color_like(color) for color in colors.values())
    assert colors == dict(zip(names, table.uns["cell_type_colors"], strict=True))
