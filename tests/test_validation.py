from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolvi_sd._validation import check_key, check_positive_int, check_unique, listing


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
