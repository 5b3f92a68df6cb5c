"""Calibration and coverage, on cases worked out by hand and on distributions whose coverage is known."""

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.stats import norm

from resolvi_sd.metrics import calibration, coverage, rank_uniformity


def test_calibration_by_hand():
    # Four bins. First: 0.1, 0.2 predicted, 0.1, 0.4 true: means 0.15 and 0.25. Last: 0.9, 1.0, 1.0 predicted, 0.9, 0.8,
    # 0.7 true: means 29/30 and 0.8. Error (2 * 0.1 + 3 * (29/30 - 24/30)) / 5 = 0.14; bias (3.2 - 2.9) / 5.
    predicted, true = [0.1, 0.9, 0.2, 1.0, 1.0], [0.1, 0.9, 0.4, 0.8, 0.7]
    result = calibration(predicted, true, n_bins=4)
    assert result.bins["n_cells"].tolist() == [2, 3]
    np.testing.assert_allclose(result.bins["lower"], [0, 0.75])
    np.testing.assert_allclose(result.bins["upper"], [0.25, 1.0])
    np.testing.assert_allclose(result.bins["predicted"], [0.15, 29 / 30])
    np.testing.assert_allclose(result.bins["true"], [0.25, 0.8])
    # Sample standard deviations 0.3 / sqrt(2) and 0.1, over the roots of 2 and 3.
    np.testing.assert_allclose(result.bins["standard_error"], [0.15, 0.1 / np.sqrt(3)])
    assert result.error == pytest.approx(0.14)
    assert result.bias == pytest.approx(0.06)
    slope, intercept = np.polyfit(predicted, true, 1)
    assert (result.slope, result.intercept) == pytest.approx((slope, intercept))


@pytest.mark.parametrize(("slope", "shift"), [(1.0, 0.0), (0.5, 0.1), (0.8, -0.05)])
def test_a_line_is_found_again(slope, shift):
    predicted = np.linspace(0.2, 1, 200)
    result = calibration(predicted, slope * predicted + shift)
    assert (result.slope, result.intercept) == pytest.approx((slope, shift))
    # The line crosses the identity at most at an end, so the mean distance is that of the means.
    assert result.error == pytest.approx(abs(result.bias), abs=1e-12)


def test_constant_predictions_have_a_bias_but_no_slope():
    result = calibration(np.full(4, 0.5), [0.1, 0.2, 0.3, 0.6])
    assert np.isnan(result.slope)
    assert (result.error, result.bias) == pytest.approx((0.2, 0.2))


def test_cells_without_counts_are_left_out():
    result = calibration([0.5, np.nan, 0.3], [0.5, 0.4, np.nan])
    assert (result.n_cells, result.error) == (1, 0)


def test_bad_shares():
    with pytest.raises(ValueError, match=r"one share per cell.*\(2,\).*\(3,\)"):
        calibration([0.1, 0.2], [0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match="None of the 2 cells"):
        calibration([np.nan, 0.1], [0.1, np.nan])
    with pytest.raises(ValueError, match="`true` must hold shares.*12"):
        calibration([0.5], [12.0])
    with pytest.raises(ValueError, match="`n_bins`"):
        calibration([0.5], [0.5], n_bins=0)


def test_coverage_by_hand():
    # 9 draws make 10 pieces; the interval of level 0.8 is the 8 pieces between the first and the last draw. Truths in
    # pieces 1, 2, 9, 10; then one equal to the first draw, half of it in piece 1.
    draws = np.repeat(np.arange(1.0, 10.0)[:, None], 5, axis=1)
    result = coverage(draws, [0.0, 1.5, 8.5, 11.0, 1.0])
    row = result.iloc[0]
    assert row["coverage"] == pytest.approx(2.5 / 5)
    assert row["standard_error"] == pytest.approx(np.sqrt(0.5 * 0.5 / 5))
    assert (row["level"], row["n"]) == (0.8, 5)


def test_an_interval_that_cuts_a_piece_holds_that_part_of_it():
    # One draw, two pieces: the central half holds the inner half of each.
    assert coverage([[1.0]], [0.0], levels=0.5)["coverage"].item() == pytest.approx(0.5)


@pytest.mark.parametrize("spread", [0.5, 1.0, 2.0])
def test_coverage_of_too_narrow_and_too_wide_normals(spread):
    rng = np.random.default_rng(0)
    levels = [0.5, 0.8, 0.95]
    result = coverage(spread * rng.normal(size=(399, 4000)), rng.normal(size=4000), levels=levels)
    # A central interval of N(0, spread) has a standard normal inside with probability 2 Phi(spread q) - 1.
    expected = 2 * norm.cdf(spread * norm.ppf((1 + np.array(levels)) / 2)) - 1
    assert (np.abs(result["coverage"] - expected) < 4 * result["standard_error"] + 0.005).all()


@pytest.mark.parametrize("mean", [0.05, 0.7, 6.0])
@pytest.mark.parametrize("n_draws", [5, 99])
def test_counts_that_are_draws_themselves_are_covered_at_the_level(mean, n_draws):
    # Any quantile interval of Poisson(0.05) holds zero, thus 95 %; the level must be found all the same.
    rng = np.random.default_rng(1)
    result = coverage(rng.poisson(mean, size=(n_draws, 5000)), rng.poisson(mean, size=5000), levels=[0.5, 0.8])
    assert (np.abs(result["coverage"] - result["level"]) < 4 * result["standard_error"]).all()


def test_sparse_truth_mask_and_nan():
    true = sp.csr_matrix([[0.0, 2.0], [3.0, 0.0]])
    draws = np.broadcast_to(np.arange(1.0, 10.0)[:, None, None] / 2, (9, 2, 2))
    assert coverage(draws, true)["n"].item() == 4
    result = coverage(draws, true, where=true.toarray() > 0)
    assert (result["n"].item(), result["coverage"].item()) == (2, 1)
    assert coverage(draws[:, 0], [np.nan, 2.0])["n"].item() == 1


def test_ranks_are_uniform_only_for_the_right_posterior():
    rng = np.random.default_rng(2)
    draws, truth = rng.normal(size=(99, 2000)), rng.normal(size=2000)
    right = rank_uniformity(draws, truth, n_bins=10)
    assert right.p_value > 1e-3
    assert right.histogram.sum() == 2000
    assert ((right.ranks > 0) & (right.ranks < 1)).all()
    narrow = rank_uniformity(0.5 * draws, truth, n_bins=10).histogram
    assert narrow[[0, -1]].min() > 1.5 * narrow[1:-1].max()
    high = rank_uniformity(draws + 1, truth, n_bins=10)
    assert high.histogram.argmax() == 0
    assert high.p_value < 1e-6


def test_ranks_of_tied_counts_are_broken_at_random_and_repeat_with_the_seed():
    zeros = np.zeros((9, 1000))
    ranks = rank_uniformity(zeros, np.zeros(1000), rng=3).ranks
    assert 0.45 < ranks.mean() < 0.55
    np.testing.assert_array_equal(ranks, rank_uniformity(zeros, np.zeros(1000), rng=3).ranks)


def test_bad_draws():
    with pytest.raises(ValueError, match=r"draws × the shape of `true`.*\(3, 2\).*\(3,\)"):
        coverage(np.zeros((3, 2)), np.zeros(3))
    with pytest.raises(ValueError, match="`levels` must lie between 0 and 1"):
        coverage(np.zeros((3, 2)), np.zeros(2), levels=80)
    with pytest.raises(ValueError, match="No truth is left"):
        coverage(np.zeros((3, 2)), np.zeros(2), where=[False, False])
    with pytest.raises(ValueError, match=r"`where` must have the shape.*\(2,\).*\(1,\)"):
        coverage(np.zeros((3, 2)), np.zeros(2), where=[True])
    with pytest.raises(ValueError, match="`samples` has NaN"):
        coverage(np.full((3, 2), np.nan), np.zeros(2))


def test_predictions_that_differ_by_rounding_have_no_slope():
    assert np.isnan(calibration([0.1 + 0.2, 0.3, 0.3], [0.0, 0.5, 1.0]).slope)
    assert np.isnan(calibration(np.float32([0.7, 0.7, 0.70000005]), [0.0, 0.5, 1.0]).slope)
