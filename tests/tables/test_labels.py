"""Labels of cells: which are read, and which are too few to learn from."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from resolvi_sd._tables import read_labels


def table_with(labels):
    return AnnData(np.ones((len(labels), 2), np.float32), obs=pd.DataFrame({"label": labels}).set_axis(list("abcdef")))


@pytest.mark.parametrize("kind", [object, "category"])
def test_missing_values_and_the_unlabeled_category_are_no_labels(kind):
    labels = read_labels(table_with(pd.Series(["B", "A", None, "unknown", "A", "B"], dtype=kind)), "label", "unknown")
    assert labels.names == ("A", "B")
    assert labels.codes.tolist() == [1, 0, -1, -1, 0, 1]


def test_labels_with_a_single_cell_are_named_and_kept():
    """Real sections have them: of 894 labeled cells of the preoptic area, one is the only one of its type."""
    table = table_with(["A", "T/NK", "A", "B", "B", "rare"])
    with pytest.warns(UserWarning, match=r"single cell in obs\['label'\].*'T/NK', 'rare'\. Merge them.*'unknown'"):
        labels = read_labels(table, "label", "unknown")
    assert labels.names == ("A", "B", "T/NK", "rare")
    table.obs.loc[["b", "f"], "label"] = "unknown"
    assert read_labels(table, "label", "unknown").names == ("A", "B")


def test_labels_that_read_as_none_are_named():
    table = table_with(["A", "nan", "A", "B", "B", "nan"])
    with pytest.warns(UserWarning, match=r"look like placeholders for missing ones.*'nan'.*set theirs to NaN"):
        labels = read_labels(table, "label", "unknown")
    assert labels.names == ("A", "B", "nan")
    with pytest.warns(UserWarning, match=r"look like placeholders for missing ones.*'-1'"):
        read_labels(table_with([0, -1, 0, 1, 1, -1]), "label", "unknown")
    table.obs["label"] = table.obs["label"].replace("nan", "Unassigned")
    assert read_labels(table, "label", "Unassigned").names == ("A", "B")


def test_categories_that_are_dates_have_the_names_of_their_column():
    dates = pd.to_datetime(["2020-01-01", "2020-01-01", "2021-05-05", "2021-05-05", "2020-01-01", "2021-05-05"])
    labels = read_labels(table_with(pd.Series(dates).astype("category")), "label", "unknown")
    assert labels.names == ("2020-01-01", "2021-05-05")
    assert labels.codes.tolist() == [0, 0, 1, 1, 0, 1]


@pytest.mark.parametrize("values", [[-1, 2, 10, -1, 2, 10], [-1, 2, 10, np.nan, 2, 10]])
@pytest.mark.parametrize("given", ["-1", "-1.0"])
def test_numbers_are_unlabeled_by_their_size(values, given):
    labels = read_labels(table_with(values), "label", given)
    assert labels.names == ("2", "10")
    assert labels.codes.tolist() == [-1, 0, 1, -1, 0, 1]


@pytest.mark.parametrize("dtype", [object, "float32", "category", "Float64"])
def test_whole_numbers_have_no_decimals_and_other_numbers_keep_theirs(dtype):
    """pandas turns whole numbers into floats if one is missing."""
    table = table_with(pd.Series([1.0, 0.25, None, 10.0, 1.0, 10.0], dtype=dtype))
    with pytest.warns(UserWarning, match="single cell"):
        labels = read_labels(table, "label", "unknown")
    assert labels.names == ("0.25", "1", "10")
    assert labels.codes.tolist() == [1, 0, -1, 2, 1, 2]


def test_an_unlabeled_category_of_nan_is_no_other_value():
    assert read_labels(table_with(["A", "B", None, "A", "B", "A"]), "label", "nan").names == ("A", "B")


def test_an_unlabeled_category_is_another_number_only_if_it_does_not_occur():
    assert read_labels(table_with(["1", "1.0", "x", "1", "1.0", "x"]), "label", "1").names == ("1.0", "x")
    assert read_labels(table_with(["-1.0", "y", "x", "y", "-1.0", "x"]), "label", "-1").names == ("x", "y")


def test_an_unlabeled_category_that_does_not_occur_is_told():
    with pytest.warns(UserWarning, match=r"unlabeled_category='Unknown' does not occur in obs\['label'\].*'A', 'B'"):
        read_labels(table_with(list("AABBAB")), "label", "Unknown")
