import numpy as np
import pytest

from resolvi_sd._ratio import ratio


@pytest.mark.parametrize("otherwise", [np.nan, 0.0, 1.0])
def test_positive_denominators_divide_and_others_do_not(otherwise):
    part, whole = np.array([[1.0], [3.0]]), np.array([2.0, 0.0, -1.0])
    np.testing.assert_array_equal(
        ratio(part, whole, otherwise=otherwise), [[0.5, otherwise, otherwise], [1.5, otherwise, otherwise]]
    )


@pytest.mark.parametrize(
    ("given", "expected"), [("float32", "float32"), ("float64", "float64"), ("int64", "float64"), ("bool", "float32")]
)
def test_precision(given, expected):
    assert ratio(np.ones(2, dtype=given), np.ones(2, dtype=given)).dtype == expected
