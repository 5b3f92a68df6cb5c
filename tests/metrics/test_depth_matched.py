"""The depth-matched control against what binomial thinning must give."""

import numpy as np
import pytest
import scipy.sparse as sp

from resolvi_sd.metrics import coexpression_rate, depth_matched


def test_thinning_has_the_moments_of_a_binomial():
    # 40,000 entries of 4 molecules, kept with 0.3: mean 1.2, variance 4 · 0.3 · 0.7 = 0.84.
    counts = np.full((400, 100), 4)
    corrected = counts * np.where(np.arange(100) < 50, 0.6, 0)
    thinned = depth_matched(counts, corrected, rng=0).toarray()
    n = thinned.size
    assert abs(thinned.mean() - 1.2) < 5 * np.sqrt(0.84 / n)
    assert abs(thinned.var() - 0.84) < 5 * np.sqrt(2 * 0.84**2 / n)


def test_each_cell_has_its_own_depth():
    rng = np.random.default_rng(1)
    counts = rng.poisson(3.0, (50, 2_000))
    keep = rng.random(50)
    keep[:2] = 0, 1
    # The corrected layer holds all of its molecules in the first gene: only its depth matters.
    corrected = np.zeros(counts.shape)
    corrected[:, 0] = keep * counts.sum(axis=1)
    thinned = depth_matched(counts, corrected, rng=2).toarray()
    found = thinned.sum(axis=1)
    size = counts.sum(axis=1)
    assert (np.abs(found - keep * size) <= 5 * np.sqrt(size * keep * (1 - keep))).all()
    assert found[0] == 0
    np.testing.assert_array_equal(thinned[1], counts[1])
    assert (thinned <= counts).all()


def test_a_cell_that_is_not_shallower_keeps_its_counts():
    counts = np.array([[3, 0, 2], [0, 0, 0], [1, 1, 0]])
    corrected = np.array([[4.5, 0, 3], [0, 0, 0], [1, 1, 0]])
    np.testing.assert_array_equal(depth_matched(counts, corrected, rng=0).toarray(), counts)


def test_dense_and_sparse_alike_and_the_input_is_left_alone():
    rng = np.random.default_rng(3)
    counts = sp.random(200, 30, density=0.3, format="csr", rng=rng)
    counts.data = rng.integers(1, 5, counts.nnz).astype(np.float32)
    before = counts.copy()
    thinned = depth_matched(counts, counts * 0.4, rng=7)
    np.testing.assert_array_equal(counts.toarray(), before.toarray())
    assert counts.nnz == before.nnz
    assert thinned.dtype == np.float32
    assert (thinned.data > 0).all()
    np.testing.assert_array_equal(thinned.toarray(), depth_matched(counts.toarray(), counts * 0.4, rng=7).toarray())
    assert (thinned != depth_matched(counts, counts * 0.4, rng=8)).nnz > 0


def test_entries_stored_twice_are_one_count():
    # Row 0 stores gene 0 as 1 + 2.
    counts = sp.csr_matrix((np.array([1, 2, 5]), np.array([0, 0, 1]), np.array([0, 2, 3])), shape=(2, 2))
    np.testing.assert_array_equal(
        depth_matched(counts, np.array([[3.0, 0], [0, 0]]), rng=0).toarray(), [[3, 0], [0, 0]]
    )
    assert counts.nnz == 3


@pytest.mark.parametrize(
    ("counts", "corrected", "message"),
    [
        ([[1.5, 0]], [[1.0, 0]], "`counts` must be raw molecule counts.* 1.5"),
        ([[2, 0]], [[0.3, 0.7]], "`corrected` has 2 non-zero entries, the raw counts have 1"),
        ([[2, 0, 0]], [[0.3, 0.7, 0]], "`corrected` has 2 non-zero entries, the raw counts have 1"),
        ([[0.3, 0.7]], [[1.0, 0]], "`counts` must be raw molecule counts.* 0.3"),
        ([[2, 0]], [[1.0, 0, 0]], r"shapes differ: counts \(1, 2\), corrected \(1, 3\)"),
        ([[2, -1]], [[1.0, 0]], "negative"),
        ([[2, 0]], [[np.nan, 0]], "NaN"),
    ],
)
def test_what_is_no_count_is_refused(counts, corrected, message):
    with pytest.raises(ValueError, match=message):
        depth_matched(np.array(counts), np.array(corrected), rng=0)


def test_a_few_genes_may_all_be_in_every_cell():
    """Deep counts of a small panel have no zeros, and neither do their corrected counts, which are no rates."""
    counts = np.random.default_rng(0).poisson(20, (200, 6)) + 1
    assert depth_matched(counts, 0.7 * counts, rng=0).sum() == pytest.approx(0.7 * counts.sum(), rel=0.01)
    assert coexpression_rate(0.7 * counts, list("abcdef"), [("a", "b")]).mean > 0.99
