from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial import KDTree

from resolvi_sd._validation import check_key, check_positive_int, check_unique, listing, warn_of_overlapping_sections


def test_long_lists_are_cut():
    assert listing(range(25), limit=3) == "0, 1, 2 and 22 more"
    assert listing([]) == "none"


def test_layers_list_of_anndata_0_13_names_no_x():
    assert listing([None, "counts"]) == "'counts'"


@given(st.integers(min_value=1))
def test_positive_integers_pass(value):
    assert check_positive_int(value, argument="n_neighbors") == value


@given(st.integers(max_value=0))
def test_integers_below_one_do_not(value):
    with pytest.raises(ValueError, match=f"`n_neighbors` must be at least 1, not {value}"):
        check_positive_int(value, argument="n_neighbors")


@pytest.mark.parametrize("value", [1.0, True, "3", None, np.float32(2)])
def test_other_types_do_not(value):
    with pytest.raises(TypeError, match="must be an integer"):
        check_positive_int(value, argument="n_neighbors")


def test_numpy_integers_pass():
    assert type(check_positive_int(np.int64(3), argument="n_neighbors")) is int


def test_key_error_names_what_exists():
    with pytest.raises(KeyError, match="layer='a' is not in `table.layers`; it has: 'b', 'c'. Try b"):
        check_key("a", ["b", "c"], argument="layer", where="table.layers", hint="Try b.")


def test_duplicates_are_counted():
    with pytest.raises(ValueError, match="Cells must be unique, but 1 occur more than once: 'a'. Rename them."):
        check_unique(pd.Index(["a", "b", "a", "a"]), what="Cells", todo="Rename them.")


def test_sections_on_top_of_each_other_are_told_from_groups():
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(np.arange(30.0), np.arange(30.0)), axis=-1).reshape(-1, 2)
    cells = [grid + rng.uniform(-0.2, 0.2, grid.shape) for _ in range(2)]
    obs = pd.DataFrame({"slide": np.repeat(["a", "b"], 900), "phase": rng.choice(["G1", "S"], 1800), "depth": 1.0})
    obs["barcode"] = np.arange(1800).astype(str)
    obs["lists"] = [[1, 2]] * 1800  # which have no groups
    obs.insert(0, "depth", 2.0, allow_duplicates=True)

    def look(xy, obs):
        distance, index = KDTree(xy).query(xy, k=2)
        warn_of_overlapping_sections(obs, index[:, 1], distance[:, 1])

    with pytest.warns(UserWarning, match=r"differ from them in obs\['slide'\]: are these.*library_key='slide'"):
        look(np.concatenate(cells), obs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        look(np.concatenate([cells[0], cells[1] + [40, 0]]), obs)  # side by side
        look(np.concatenate(cells), obs[["phase", "depth", "barcode"]])  # nothing tells them apart
        look(cells[0], obs[:900])
