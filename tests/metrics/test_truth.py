"""Metrics against a truth, on cases worked out by hand."""

import numpy as np
import pytest
import scipy.sparse as sp

from resolvi_sd.metrics import profile_error, removal


def test_removal_by_hand():
    # 10 molecules, 6 own. Kept 5: entry by entry own lost 1 + 0 + 1 = 2, foreign left 0 + 1 + 0 = 1 of 4.
    counts, own, kept = ([[4, 3, 3]], [[3, 1, 2]], [[2, 2, 1]])
    result = removal(*(sp.csr_matrix(np.array(m, dtype=float)) for m in (counts, own, kept)))
    assert result == (1 - 1 / 4, 2 / 6)


@pytest.mark.parametrize(("kept", "expected"), [([[0, 0]], (1, 1)), ([[4, 3]], (0, 0)), ([[2, 1]], (1, 0))])
def test_removing_all_nothing_and_the_right_ones(kept, expected):
    assert removal(np.array([[4, 3]]), np.array([[2, 1]]), np.array(kept)) == expected


@pytest.mark.parametrize("name", ["true_own", "corrected"])
def test_parts_do_not_exceed_the_counts(name):
    parts = {"true_own": np.array([[2, 0]]), "corrected": np.array([[1, 0]])} | {name: np.array([[4, 3]])}
    with pytest.raises(ValueError, match=f"`{name}` has more molecules than `counts` in"):
        removal(np.array([[4, 2]]), **parts)


def test_profile_error_by_hand():
    error = profile_error(sp.csr_matrix([[2.0, 2.0, 0.0], [0, 0, 0]]), np.array([[0.25, 0.25, 0.5], [1, 0, 0]]))
    assert error[0] == 0.5
    assert np.isnan(error[1])


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"shapes differ.*\(1, 2\)"):
        removal(np.ones((1, 2)), np.ones((1, 3)), np.ones((1, 2)))
    with pytest.raises(ValueError, match="shapes differ"):
        profile_error(np.ones((1, 2)), np.ones((1, 3)))


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf])
def test_profiles_are_finite_and_not_negative(value):
    good, bad = np.array([[0.5, 0.5]]), np.array([[1.0, value]])
    with pytest.raises(ValueError, match="`expression` has values"):
        profile_error(bad, good)
    with pytest.raises(ValueError, match="`true_profile` has values"):
        profile_error(good, bad)
